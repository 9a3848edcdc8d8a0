//! The scan of a segment without a file: what recovery makes of any bytes.

use std::rc::Rc;

use ringmq_wire::Offset;

use super::frames::FrameInfo;
use crate::check::FrameCheck;
use crate::frame::{FrameFault, FrameHeader, Generation, LogNumber};
use crate::generation::LogGenerations;
use crate::layout::LogId;

/// What is known of a segment before it is read.
#[derive(Clone, Debug)]
pub struct SegmentPlace {
    /// The log.
    pub id: LogId,
    /// The offset that the segment begins with.
    pub base: Offset,
    /// Of the log.
    pub log_number: u64,
    /// The log's generations, each with the offset from which it owns the log.
    pub generations: Vec<(u64, Offset)>,
}

/// The frames of a segment that count.
#[derive(Clone, Debug)]
pub struct ScannedBytes {
    /// One behind the other, from the beginning.
    pub frames: Vec<FrameInfo>,
    /// One past the last record.
    pub end: Offset,
    /// One past the last byte of the last frame.
    pub end_position: u64,
    /// Why there is no frame behind.
    pub fault: FrameFault,
}

/// Scans the bytes of a whole segment as recovery does. Any bytes will do.
#[must_use]
pub fn scan_bytes(place: &SegmentPlace, bytes: &[u8]) -> ScannedBytes {
    let (first, later) = place.generations.split_first().map_or(((1, Offset::ZERO), &[][..]), |(f, l)| (*f, l));
    let mut known = LogGenerations::new(LogNumber(place.log_number), Generation(first.0), first.1);
    for (generation, start) in later {
        known.opened(Generation(*generation), *start);
    }
    let check = FrameCheck { id: place.id, segment_base: place.base, generations: Rc::new(known) };
    let (mut frames, mut end, mut end_position) = (Vec::new(), place.base, 0);
    loop {
        match frame_at(&check, bytes, end_position, end) {
            Ok(header) => {
                frames.push(FrameInfo::from(header));
                (end, end_position) = (header.next_offset, header.end_position());
            }
            Err(fault) => return ScannedBytes { frames, end, end_position, fault },
        }
    }
}

fn frame_at(check: &FrameCheck, bytes: &[u8], position: u64, expected: Offset) -> Result<FrameHeader, FrameFault> {
    let rest = usize::try_from(position).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
    let header = check.header(rest, position, bytes.len() as u64)?;
    FrameCheck::frame(&header, expected, rest)?;
    Ok(header)
}
