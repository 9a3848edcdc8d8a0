//! The codec of the log frame's header. Layout and rules: `docs/formats/log-frame.md`.
//!
//! ```text
//!   0 magic 4 | version 2 | header length 2 | topic id 16 | partition 4 | leader epoch 4
//!  32 base offset 8 | next offset 8 | frames' end 8 | generation 8 | log number 8
//!  72 segment base offset 8 | position 8 | written at 8 | max timestamp 8
//! 104 record count 4 | payload length 4 | frame length 4 | payload checksum 4 | durable beyond 4 | header checksum 4
//! 128 payload: whole record batches, then zero padding
//! ```

use std::fmt;

use ringmq_runtime::buffer::BLOCK_BYTES;
use ringmq_wire::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId};
use uuid::Uuid;

use crate::layout::LogId;

/// Room in front of a payload for the frame's header, in bytes.
pub const FRAME_HEADER_BYTES: usize = 128;

const MAGIC: [u8; 4] = *b"RQLF";
const VERSION: u16 = 1;
const PAYLOAD_CHECKSUM_AT: usize = 116;
const DURABLE_BEYOND_AT: usize = 120;
const HEADER_CHECKSUM_AT: usize = 124;

/// How often a log was opened for append, truncated or moved: which of its lives a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation(pub(crate) u64);

impl Generation {
    /// That of a log's first frames.
    pub(crate) const FIRST: Generation = Generation(1);

    pub(crate) const fn next(self) -> Generation {
        Generation(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The random number that a log got when it began. No client ever sees it, so none can make up a frame (rule 14 of
/// the storage protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogNumber(pub(crate) u64);

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) id: LogId,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) base_offset: Offset,
    pub(crate) next_offset: Offset,
    /// The end of the contiguous durable frames when this one was built.
    pub(crate) frames_end: Offset,
    /// How far the log was durable then, the journal included; at least the frames' end.
    pub(crate) durable_offset: Offset,
    pub(crate) generation: Generation,
    pub(crate) log_number: LogNumber,
    pub(crate) segment_base: Offset,
    /// Of the frame's first byte in its segment.
    pub(crate) position: u64,
    pub(crate) written_at: Timestamp,
    pub(crate) max_timestamp: Timestamp,
    pub(crate) record_count: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) frame_bytes: u32,
}

/// Why what stands at a place of a segment is not a frame that counts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// The file ends here.
    #[error("the file ends")]
    EndOfFile,
    /// The block is zero: space that was never written.
    #[error("nothing was written (zeros)")]
    Zeros,
    /// The bytes are not the beginning of a frame.
    #[error("no frame begins")]
    NotAFrame,
    /// The beginning of a frame, with a wrong checksum over its header.
    #[error("the checksum of a frame's header is wrong")]
    HeaderChecksum,
    /// The checksum of the header is right, but its lengths contradict each other or leave the file.
    #[error("a frame's lengths do not fit")]
    Lengths,
    /// A frame of another partition, segment or position: a write that went astray.
    #[error(
        "it has a frame that belongs elsewhere: at position {position} of segment {segment_base} of partition {id}"
    )]
    OtherPlace {
        /// The log that the frame names.
        id: LogId,
        /// The segment that the frame names.
        segment_base: Offset,
        /// The position that the frame names.
        position: u64,
    },
    /// The log number is not this log's.
    #[error("it has a frame that this log did not write (another log number)")]
    OtherLogNumber,
    /// The frame's generation does not own its offsets.
    #[error("it has a frame of an older life of the log (generation {0})")]
    OlderLife(u64),
    /// The frame's generation is newer than any in the generation tables, so the tables have lost something.
    #[error("it has a frame whose generation {0} the generation tables do not know")]
    UnknownGeneration(u64),
    /// A frame that counts, but not the one that follows here.
    #[error("it has the frame of offset {0}")]
    OtherOffset(Offset),
    /// The header is right and the payload is not.
    #[error("the checksum of a frame's payload is wrong")]
    PayloadChecksum,
}

impl FrameHeader {
    /// Completes the frame in `frame`, whose payload stands behind the header room: header, zero padding, checksums.
    /// `frame` is the whole frame and `self.frame_bytes` its length.
    pub(crate) fn seal(&self, frame: &mut [u8]) {
        frame[FRAME_HEADER_BYTES + self.payload_bytes as usize..].fill(0);
        self.seal_with(crc32fast::hash(&frame[FRAME_HEADER_BYTES..]), frame);
    }

    /// As [`FrameHeader::seal`], for who has zeroed the padding and computed the checksum of payload and padding.
    pub(crate) fn seal_with(&self, payload_checksum: u32, frame: &mut [u8]) {
        debug_assert_eq!(frame.len(), self.frame_bytes as usize);
        self.put_fields(frame);
        frame[PAYLOAD_CHECKSUM_AT..DURABLE_BEYOND_AT].copy_from_slice(&payload_checksum.to_be_bytes());
        frame[DURABLE_BEYOND_AT..HEADER_CHECKSUM_AT].copy_from_slice(&self.durable_beyond().to_be_bytes());
        let header_checksum = crc32fast::hash(&frame[..HEADER_CHECKSUM_AT]);
        frame[HEADER_CHECKSUM_AT..FRAME_HEADER_BYTES].copy_from_slice(&header_checksum.to_be_bytes());
    }

    /// By how much the durable offset exceeds the frames' end. A smaller claim than the truth is true as well.
    fn durable_beyond(&self) -> u32 {
        let beyond = self.durable_offset.get().saturating_sub(self.frames_end.get());
        u32::try_from(beyond.max(0)).unwrap_or(u32::MAX)
    }

    fn put_fields(&self, frame: &mut [u8]) {
        let mut fields = &mut frame[..PAYLOAD_CHECKSUM_AT];
        put(&mut fields, &MAGIC);
        put(&mut fields, &VERSION.to_be_bytes());
        put(&mut fields, &HEADER_BYTES_FIELD.to_be_bytes());
        put(&mut fields, self.id.topic_id.as_bytes());
        put(&mut fields, &self.id.partition.get().to_be_bytes());
        put(&mut fields, &self.leader_epoch.get().to_be_bytes());
        put(&mut fields, &self.base_offset.get().to_be_bytes());
        put(&mut fields, &self.next_offset.get().to_be_bytes());
        put(&mut fields, &self.frames_end.get().to_be_bytes());
        put(&mut fields, &self.generation.0.to_be_bytes());
        put(&mut fields, &self.log_number.0.to_be_bytes());
        put(&mut fields, &self.segment_base.get().to_be_bytes());
        put(&mut fields, &self.position.to_be_bytes());
        put(&mut fields, &self.written_at.get().to_be_bytes());
        put(&mut fields, &self.max_timestamp.get().to_be_bytes());
        put(&mut fields, &self.record_count.to_be_bytes());
        put(&mut fields, &self.payload_bytes.to_be_bytes());
        put(&mut fields, &self.frame_bytes.to_be_bytes());
        debug_assert!(fields.is_empty());
    }

    /// Reads the header at the beginning of `bytes` and checks what can be checked without knowing the place or the
    /// payload.
    ///
    /// # Errors
    /// When `bytes` do not begin with the header of a frame of this version, or it is damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Result<FrameHeader, FrameFault> {
        let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else { return Err(FrameFault::EndOfFile) };
        let mut fields = Fields(header);
        if fields.take() != MAGIC {
            return Err(if header.iter().all(|byte| *byte == 0) { FrameFault::Zeros } else { FrameFault::NotAFrame });
        }
        if u16::from_be_bytes(fields.take()) != VERSION || u16::from_be_bytes(fields.take()) != HEADER_BYTES_FIELD {
            return Err(FrameFault::NotAFrame);
        }
        let stored = u32::from_be_bytes(Fields(&header[HEADER_CHECKSUM_AT..]).take());
        if crc32fast::hash(&header[..HEADER_CHECKSUM_AT]) != stored {
            return Err(FrameFault::HeaderChecksum);
        }
        let topic_id = TopicId::new(Uuid::from_bytes(fields.take()));
        let partition = PartitionIndex::new(u32::from_be_bytes(fields.take()));
        let durable_beyond = u32::from_be_bytes(Fields(&header[DURABLE_BEYOND_AT..]).take());
        let mut decoded = FrameHeader {
            id: LogId { topic_id, partition },
            leader_epoch: LeaderEpoch::checked(i32::from_be_bytes(fields.take())).ok_or(FrameFault::NotAFrame)?,
            base_offset: fields.offset()?,
            next_offset: fields.offset()?,
            frames_end: fields.offset()?,
            durable_offset: Offset::ZERO,
            generation: Generation(u64::from_be_bytes(fields.take())),
            log_number: LogNumber(u64::from_be_bytes(fields.take())),
            segment_base: fields.offset()?,
            position: u64::from_be_bytes(fields.take()),
            written_at: Timestamp::new(i64::from_be_bytes(fields.take())),
            max_timestamp: Timestamp::new(i64::from_be_bytes(fields.take())),
            record_count: u32::from_be_bytes(fields.take()),
            payload_bytes: u32::from_be_bytes(fields.take()),
            frame_bytes: u32::from_be_bytes(fields.take()),
        };
        decoded.durable_offset = decoded.frames_end.checked_add(durable_beyond.into()).ok_or(FrameFault::Lengths)?;
        if decoded.is_consistent() { Ok(decoded) } else { Err(FrameFault::Lengths) }
    }

    fn is_consistent(&self) -> bool {
        self.base_offset < self.next_offset
            && self.frames_end <= self.base_offset
            && self.segment_base <= self.base_offset
            && (self.frame_bytes as usize).is_multiple_of(BLOCK_BYTES)
            && (self.payload_bytes as usize)
                .checked_add(FRAME_HEADER_BYTES)
                .is_some_and(|end| end <= self.frame_bytes as usize)
    }

    /// Whether the payload and padding in `frame`, the whole frame, are what was written.
    pub(crate) fn payload_is_sound(frame: &[u8]) -> bool {
        frame.len() >= FRAME_HEADER_BYTES && PayloadChecksum::of(frame).matches()
    }

    /// Where the payload stands in the frame.
    pub(crate) fn payload_range(&self) -> std::ops::Range<usize> {
        FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.payload_bytes as usize
    }

    /// One past the frame's last byte in the segment.
    pub(crate) fn end_position(&self) -> u64 {
        self.position + u64::from(self.frame_bytes)
    }
}

/// The checksum of a frame's payload and padding, for who must not compute for long in one go.
pub(crate) struct PayloadChecksum<'a> {
    frame: &'a [u8],
    rest: &'a [u8],
    hasher: crc32fast::Hasher,
}

impl<'a> PayloadChecksum<'a> {
    /// What one step adds, in bytes: some ten microseconds.
    pub(crate) const STEP_BYTES: usize = 256 << 10;

    /// Of the whole frame; one that is shorter than a header has none.
    pub(crate) fn of(frame: &'a [u8]) -> PayloadChecksum<'a> {
        let rest = frame.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        PayloadChecksum { frame, rest, hasher: crc32fast::Hasher::new() }
    }

    /// Goes on; whether there is more to come.
    pub(crate) fn step(&mut self) -> bool {
        let (step, rest) = self.rest.split_at(self.rest.len().min(Self::STEP_BYTES));
        self.hasher.update(step);
        self.rest = rest;
        !rest.is_empty()
    }

    pub(crate) fn finish(mut self) -> u32 {
        while self.step() {}
        self.hasher.finalize()
    }

    /// Whether it is the one that the frame's header has.
    pub(crate) fn matches(self) -> bool {
        let stored = self.frame.get(PAYLOAD_CHECKSUM_AT..DURABLE_BEYOND_AT);
        let stored = stored.map(|bytes| u32::from_be_bytes(Fields(bytes).take()));
        stored == Some(self.finish())
    }
}

#[allow(clippy::cast_possible_truncation)] // 128.
const HEADER_BYTES_FIELD: u16 = FRAME_HEADER_BYTES as u16;

fn put(fields: &mut &mut [u8], bytes: &[u8]) {
    let (field, rest) = std::mem::take(fields).split_at_mut(bytes.len());
    field.copy_from_slice(bytes);
    *fields = rest;
}

/// Fields of a header, one after the other; the header's length is fixed and known to hold them.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        let (bytes, rest) = self.0.split_at(N);
        field.copy_from_slice(bytes);
        self.0 = rest;
        field
    }

    fn offset(&mut self) -> Result<Offset, FrameFault> {
        Offset::checked(i64::from_be_bytes(self.take())).ok_or(FrameFault::NotAFrame)
    }
}

#[cfg(test)]
mod tests;
