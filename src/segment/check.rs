//! Whether what stands at a place of a segment is a frame that counts there. The rules, in order:
//! `docs/formats/log-frame.md`.

use std::rc::Rc;

use ringmq_wire::Offset;

use crate::frame::{FrameFault, FrameHeader, PayloadChecksum};
use crate::generation::LogGenerations;
use crate::layout::LogId;

/// What the frames of one segment have in common.
#[derive(Clone)]
pub(crate) struct FrameCheck {
    pub(crate) id: LogId,
    pub(crate) segment_base: Offset,
    pub(crate) generations: Rc<LogGenerations>,
}

impl FrameCheck {
    /// Reads the header at the beginning of `bytes`, which stand at `position` of a file that ends at `file_bytes`,
    /// and checks all but the base offset and the payload.
    ///
    /// A header that passes proves by itself that the log was durable up to its durable offset when it was written.
    pub(crate) fn header(&self, bytes: &[u8], position: u64, file_bytes: u64) -> Result<FrameHeader, FrameFault> {
        let header = FrameHeader::decode(bytes)?;
        if header.id != self.id || header.segment_base != self.segment_base || header.position != position {
            let FrameHeader { id, segment_base, position, .. } = header;
            return Err(FrameFault::OtherPlace { id, segment_base, position });
        }
        if header.log_number != self.generations.number() {
            return Err(FrameFault::OtherLogNumber);
        }
        if header.generation > self.generations.latest().0 {
            return Err(FrameFault::UnknownGeneration(header.generation.0));
        }
        if !self.generations.owns(header.generation, header.base_offset..header.next_offset) {
            return Err(FrameFault::OlderLife(header.generation.0));
        }
        if header.end_position() > file_bytes {
            return Err(FrameFault::Lengths);
        }
        Ok(header)
    }

    /// How far the log was durable when the frame with that header was built, the journal included, as far as no later life
    /// has taken that over. It may lie beyond the frame.
    pub(crate) fn proven_end(&self, header: &FrameHeader) -> Offset {
        header.durable_offset.min(self.generations.owned_end(header.generation))
    }

    /// Checks the whole frame that `frame` begins with, whose header passed: that it is the one expected, and its
    /// payload.
    pub(crate) fn frame(header: &FrameHeader, expected: Offset, frame: &[u8]) -> Result<(), FrameFault> {
        let is_sound = Self::whole(header, expected, frame)?.matches();
        if is_sound { Ok(()) } else { Err(FrameFault::PayloadChecksum) }
    }

    /// The same for who must not compute for long in one go: all but the payload, whose checksum is left to the caller.
    pub(crate) fn whole<'a>(
        header: &FrameHeader,
        expected: Offset,
        frame: &'a [u8],
    ) -> Result<PayloadChecksum<'a>, FrameFault> {
        if header.base_offset != expected {
            return Err(FrameFault::OtherOffset(header.base_offset));
        }
        let whole = usize::try_from(header.frame_bytes).ok().and_then(|frame_bytes| frame.get(..frame_bytes));
        whole.map(PayloadChecksum::of).ok_or(FrameFault::PayloadChecksum)
    }
}
