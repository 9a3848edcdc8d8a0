//! Finding the first record that is not earlier than a timestamp.

use std::rc::Rc;

use ringmq_wire::batch::{BatchView, Scratch, split_batches};
use ringmq_wire::{Offset, Timestamp};

use crate::cache::CachedFrame;
use crate::reader::{PIECE_BYTES_MIN, ReadError, frames_from, open_sealed, readable_end};
use crate::segment::Segment;
use crate::state::LogCore;

/// The first durable record with a timestamp at or after `timestamp`, with its own timestamp.
pub(crate) async fn find(log: &Rc<LogCore>, timestamp: Timestamp) -> Result<Option<(Offset, Timestamp)>, ReadError> {
    let start = log.state.borrow().start;
    let end = readable_end(log, start)?;
    for segment in segments(log) {
        let Some((mut next, segment_end)) = range_in(log, &segment, timestamp).await? else { continue };
        while next < segment_end.min(end) {
            for frame in frames_from(log, next, PIECE_BYTES_MIN).await? {
                if let Some(found) = find_in_frame(&frame, timestamp) {
                    return Ok(Some(found));
                }
                next = frame.next_offset;
            }
        }
    }
    Ok(None)
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
        Some(open) => open,
        None => open_sealed(log, segment).await?,
    };
    let indexes = open.indexes.borrow();
    if indexes.first_written_at.is_none() || indexes.max_timestamp < timestamp {
        return Ok(None);
    }
    let state = log.state.borrow();
    let after = state.sealed.partition_point(|other| other.base <= segment.base);
    let next_sealed = state.sealed.get(after).map(|next| next.base);
    let active = state.active.as_ref().map(|active| active.segment.base).filter(|base| *base > segment.base);
    let end = next_sealed.or(active).unwrap_or(Offset::MAX);
    Ok(Some((indexes.times.start_for(timestamp), end)))
}

fn find_in_frame(frame: &CachedFrame, timestamp: Timestamp) -> Option<(Offset, Timestamp)> {
    if frame.max_timestamp < timestamp {
        return None;
    }
    let mut scratch = Scratch::default();
    let batches = split_batches(&frame.payload).map_while(Result::ok);
    batches
        .filter(|batch| batch.header().max_timestamp >= timestamp)
        .find_map(|batch| find_in_batch(&batch, timestamp, &mut scratch))
}

/// The record in a batch. A producer's records are not looked at when they enter: where they cannot be read here
/// (another compression, or records that are not what the header says), the batch's first offset and latest timestamp
/// stand for them.
fn find_in_batch(batch: &BatchView<'_>, timestamp: Timestamp, scratch: &mut Scratch) -> Option<(Offset, Timestamp)> {
    let header = *batch.header();
    let whole_batch = (header.base_offset, header.max_timestamp);
    if header.attributes.is_append_time() {
        return Some(whole_batch);
    }
    let Ok(records) = batch.records(scratch) else { return Some(whole_batch) };
    for record in records {
        match record {
            Ok(record) if record.timestamp >= timestamp => return Some((record.offset, record.timestamp)),
            Ok(_) => {}
            Err(_) => return Some(whole_batch),
        }
    }
    None
}
