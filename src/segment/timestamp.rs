//! Finding the first record that is not earlier than a timestamp.

use std::rc::Rc;

use ringmq_runtime::task;
use ringmq_wire::batch::{BatchView, DecompressLimits, RawRecords, Scratch, split_batches};
use ringmq_wire::{Offset, Timestamp};

use crate::cache::CachedFrame;
use crate::reader::{PIECE_BYTES_MIN, ReadError, frames_from, open_sealed, readable_end};
use crate::segment::Segment;
use crate::state::LogCore;

/// The most that the records of one batch are decompressed to, in bytes: some milliseconds of the core, in steps. A batch
/// that grows beyond that is answered with as a whole.
const DECOMPRESSED_BYTES_MAX: usize = 4 << 20;

/// Records that are looked at before the core looks at its sockets and files again: some 200 µs.
const RECORDS_IN_A_ROW_MAX: usize = 8192;

/// The first durable record with a timestamp at or after `timestamp`, with its own timestamp.
pub(crate) async fn find(log: &Rc<LogCore>, timestamp: Timestamp) -> Result<Option<(Offset, Timestamp)>, ReadError> {
    let start = log.state.borrow().start;
    let end = readable_end(log, start)?;
    let frames_end = log.state.borrow().window.frames_end();
    for segment in segments(log) {
        let Some((from, segment_end)) = range_in(log, &segment, timestamp).await? else { continue };
        if let Some(found) = find_between(log, from, segment_end.min(end), timestamp).await? {
            return Ok(Some(found));
        }
    }
    // What no frame had yet, no index knows.
    find_between(log, frames_end, end, timestamp).await
}

async fn find_between(
    log: &Rc<LogCore>,
    from: Offset,
    end: Offset,
    timestamp: Timestamp,
) -> Result<Option<(Offset, Timestamp)>, ReadError> {
    let mut next = from;
    loop {
        let start = log.state.borrow().start;
        next = next.max(start);
        if next >= end {
            return Ok(None);
        }
        let frames = match frames_from(log, next, PIECE_BYTES_MIN).await {
            Err(_) if next < log.state.borrow().start => continue,
            frames => frames?,
        };
        for frame in frames {
            if let Some(found) = find_in_frame(&frame, start, timestamp).await {
                return Ok(Some(found));
            }
            next = frame.next_offset;
            task::yield_to_io().await;
        }
    }
}

/// Every segment, by base offset.
fn segments(log: &LogCore) -> Vec<Rc<Segment>> {
    let state = log.state.borrow();
    state.sealed.iter().cloned().chain(state.active.as_ref().map(|active| active.segment.clone())).collect()
}

/// Where to look in a segment, from and to; `None` when all of it is earlier.
async fn range_in(
    log: &Rc<LogCore>,
    segment: &Rc<Segment>,
    timestamp: Timestamp,
) -> Result<Option<(Offset, Offset)>, ReadError> {
    let open = match segment.opened() {
        Some(open) => Ok(open),
        None => open_sealed(log, segment).await,
    };
    let end = end_of(log, segment);
    if segment.is_retired() {
        // Its offsets are another segment's now, whose indexes say nothing of where to look among them.
        return Ok(Some((segment.base, end)));
    }
    let open = open?;
    let indexes = open.indexes.borrow();
    if indexes.first_written_at.is_none() || indexes.max_timestamp < timestamp {
        return Ok(None);
    }
    Ok(Some((indexes.times.start_for(timestamp), end)))
}

/// Where the next segment begins, if there is one.
fn end_of(log: &LogCore, segment: &Segment) -> Offset {
    let state = log.state.borrow();
    let after = state.sealed.partition_point(|other| other.base <= segment.base);
    let next_sealed = state.sealed.get(after).map(|next| next.base);
    let active = state.active.as_ref().map(|active| active.segment.base).filter(|base| *base > segment.base);
    next_sealed.or(active).unwrap_or(Offset::MAX)
}

/// The record in the first batch that says it has one: its header is checked when it enters, so that no look-up goes
/// further than one batch, but for the one in which the log begins.
async fn find_in_frame(frame: &CachedFrame, start: Offset, timestamp: Timestamp) -> Option<(Offset, Timestamp)> {
    if frame.max_timestamp < timestamp {
        return None;
    }
    for batch in split_batches(&frame.payload).map_while(Result::ok) {
        let header = batch.header();
        if header.max_timestamp >= timestamp
            && header.next_offset() > start
            && let Some(found) = find_in_batch(&batch, start, timestamp).await
        {
            return Some(found);
        }
    }
    None
}

/// The record in a batch. What a producer's records hold is not looked at when they enter: where they cannot be read
/// (damaged, or too large) or are not what the header says, the batch's first offset and latest timestamp
/// stand for them. `None` when only deleted records of it are late enough.
async fn find_in_batch(batch: &BatchView<'_>, start: Offset, timestamp: Timestamp) -> Option<(Offset, Timestamp)> {
    let header = *batch.header();
    let whole_batch = Some((header.base_offset.max(start), header.max_timestamp));
    if header.attributes.is_append_time() {
        return whole_batch;
    }
    let mut scratch = Scratch::new(DecompressLimits { decompressed_bytes_max: DECOMPRESSED_BYTES_MAX });
    let Some(records) = open(batch, &mut scratch).await else { return whole_batch };
    for (seen, record) in (1..).zip(records) {
        match record {
            Ok(record) if record.offset >= start && record.timestamp >= timestamp => {
                return Some((record.offset, record.timestamp));
            }
            Ok(_) => {}
            Err(_) => return whole_batch,
        }
        if seen % RECORDS_IN_A_ROW_MAX == 0 {
            task::yield_to_io().await;
        }
    }
    if header.base_offset < start { None } else { whole_batch }
}

/// The batch's records, decompressed in steps; `None` where that cannot be done.
async fn open<'s>(batch: &BatchView<'s>, scratch: &'s mut Scratch) -> Option<RawRecords<'s>> {
    let mut opening = batch.open(scratch).ok()?;
    while !opening.step().ok()? {
        task::yield_to_io().await;
    }
    opening.records().ok()
}
