//! Reading sealed segments to compact them.

use std::io;
use std::rc::Rc;

use ringmq_index::FramePlace;
use ringmq_runtime::buffer::IoBuf;
use ringmq_runtime::file::IoClass;
use ringmq_wire::Offset;

use super::CompactError;
use super::pace::Pace;
use crate::check::FrameCheck;
use crate::failure::{Corruption, Damage};
use crate::frame::{FrameFault, FrameHeader};
use crate::layout::FileKind;
use crate::scan::FrameScanner;
use crate::segment::Segment;
use crate::state::{LogCore, Phase};

/// The frames of a sealed segment, in order, up to its end.
pub(super) struct Frames<'a> {
    log: &'a Rc<LogCore>,
    is_over: &'a dyn Fn() -> bool,
    segment: Rc<Segment>,
    scanner: FrameScanner,
    end: Offset,
}

impl<'a> Frames<'a> {
    pub(super) async fn open(
        log: &'a Rc<LogCore>,
        is_over: &'a dyn Fn() -> bool,
        segment: &Rc<Segment>,
        end: Offset,
    ) -> Result<Frames<'a>, CompactError> {
        let Some(check) = log.frame_check(segment.base) else { return Err(CompactError::Closed) };
        let scanner = scanner(segment, check).await.map_err(|error| cannot_read(log, error))?;
        Ok(Frames { log, is_over, segment: segment.clone(), scanner, end })
    }

    /// The next frame's header and batches, or `None` at the end.
    pub(super) async fn next(&mut self, pace: &mut Pace) -> Result<Option<(FrameHeader, IoBuf)>, CompactError> {
        let (position, expected) = (self.scanner.position(), self.scanner.expected());
        if expected >= self.end {
            return Ok(None);
        }
        pace.take_turn().await;
        self.is_wanted()?;
        match self.scanner.next_frame().await.map_err(|error| cannot_read(self.log, error))? {
            Ok((header, frame)) => {
                pace.read(frame.len()).await;
                Ok(Some((header, frame.slice(header.payload_range()))))
            }
            Err(fault) => Err(self.corrupt(FramePlace { offset: expected, position }, fault)),
        }
    }

    /// Whether the round goes on.
    fn is_wanted(&self) -> Result<(), CompactError> {
        let state = self.log.state.borrow();
        let is_closed = state.phase != Phase::Open || state.poison.is_some() || (self.is_over)();
        if is_closed { Err(CompactError::Closed) } else { Ok(()) }
    }

    /// Of a frame whose checksums are right, and which does not hold whole batches.
    pub(super) fn malformed(&self, header: &FrameHeader) -> CompactError {
        self.corrupt(FramePlace { offset: header.base_offset, position: header.position }, FrameFault::Lengths)
    }

    fn corrupt(&self, place: FramePlace, fault: FrameFault) -> CompactError {
        let FramePlace { position, offset: expected } = place;
        let (id, segment, damage) = (self.log.id, self.segment.path(FileKind::Log), Damage::Frame(fault));
        let proven_end = self.log.state.borrow().durable;
        CompactError::Corrupt(Box::new(Corruption { id, segment, position, expected, damage, proven_end }))
    }
}

async fn scanner(segment: &Segment, check: FrameCheck) -> io::Result<FrameScanner> {
    let file = segment.open_for_reading().await?;
    let beginning = FramePlace { offset: segment.base, position: 0 };
    FrameScanner::new(&file, check, beginning).await.map(|scanner| scanner.with_class(IoClass::Compaction))
}

fn cannot_read(log: &LogCore, source: io::Error) -> CompactError {
    CompactError::Io { id: log.id, action: "read a segment to compact it", source }
}
