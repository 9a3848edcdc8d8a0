//! Which records are too old, or too many, and go.
//!
//! Segments go as a whole, the oldest first. **By age**: when the latest timestamp of a segment's records is older than
//! `retention_age`. Timestamps are the producers', and one that is ahead of the broker's clock must not keep records for
//! ever (the trouble that KIP-937 refuses such records for): all records of a segment were written before the first frame
//! of the next one was, so where that is earlier, or a segment has no timestamps, that counts. A next one that claims to be
//! older than the segment itself was begun by a clock that was behind; then the one after it is asked. When every sealed
//! segment is too old, the active one goes as well if its records are and its first frame is: old timestamps alone do not
//! delete what has just been sent. **By size**: while those that stay have `retention_bytes` or more, the active one among
//! them.
//!
//! All of it is known in memory, but for a segment whose index was missing at the start: that is read once.

use std::rc::Rc;
use std::time::Duration;

use ringmq_wire::{Offset, Timestamp};

use crate::log_start::{DeleteRecordsError, delete_records};
use crate::reader::{ReadError, open_sealed};
use crate::segment::{Segment, TimeSpan};
use crate::state::{LogCore, LogState};

/// Why records that should go are still there. It is tried again with the next call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RetainError {
    /// A segment had to be read to see how old it is.
    #[error("cannot see how old records are: {0}")]
    Age(#[from] ReadError),
    /// They could not be deleted.
    #[error(transparent)]
    Delete(#[from] DeleteRecordsError),
}

/// Deletes what has to go at `now`; returns where the log begins.
pub(crate) async fn retain(log: &Rc<LogCore>, now: Timestamp) -> Result<Offset, RetainError> {
    let config = log.config();
    let mut keep_from = log.state.borrow().start;
    if let Some(bytes) = config.retention_bytes {
        keep_from = keep_from.max(keep_from_by_size(&log.state.borrow(), bytes));
    }
    if let Some(age) = config.retention_age {
        keep_from = keep_from.max(keep_from_by_age(log, age, now).await?);
    }
    let nothing_to_do = {
        let state = log.state.borrow();
        keep_from <= state.start && !state.is_untidy()
    };
    if nothing_to_do { Ok(keep_from) } else { Ok(delete_records(log, keep_from).await?) }
}

fn keep_from_by_size(state: &LogState, retention_bytes: u64) -> Offset {
    let sealed: u64 = state.sealed.iter().map(|segment| segment.end_position()).sum();
    let mut bytes = sealed + state.active.as_ref().map_or(0, |active| active.position);
    let mut keep_from = state.start;
    for (segment, next) in state.sealed.iter().zip(state.sealed_ends()) {
        bytes -= segment.end_position();
        if bytes < retention_bytes {
            break;
        }
        keep_from = next;
    }
    keep_from
}

async fn keep_from_by_age(log: &Rc<LogCore>, age: Duration, now: Timestamp) -> Result<Offset, RetainError> {
    let mut keep_from = log.state.borrow().start;
    loop {
        let sealed = sealed_from(&log.state.borrow(), keep_from);
        let Some((segment, next_base)) = sealed else { break };
        if segment.span().is_none() {
            open_sealed(log, &segment).await?;
        }
        let is_over = segment.span().is_some_and(|span| {
            let written_before = written_before(&log.state.borrow(), span, next_base, now);
            is_over(span, written_before, age, now)
        });
        if !is_over {
            return Ok(keep_from);
        }
        keep_from = next_base;
    }
    let state = log.state.borrow();
    Ok(if active_is_over(&state, age, now) { keep_from.max(state.end) } else { keep_from })
}

/// The sealed segment that holds `offset`, and where it ends.
fn sealed_from(state: &LogState, offset: Offset) -> Option<(Rc<Segment>, Offset)> {
    let at = state.sealed.partition_point(|segment| segment.base <= offset).checked_sub(1)?;
    let active = state.active.as_ref()?;
    if active.segment.base <= offset {
        return None;
    }
    let next_base = state.sealed.get(at + 1).map_or(active.segment.base, |next| next.base);
    Some((state.sealed[at].clone(), next_base))
}

/// When all records of a segment had been written, as those behind it tell, which begin at `next_base`: the first of them
/// that does not claim to be older.
fn written_before(state: &LogState, span: TimeSpan, next_base: Offset, now: Timestamp) -> Option<Timestamp> {
    let later = &state.sealed[state.sealed.partition_point(|segment| segment.base < next_base)..];
    let active = state.active.as_ref().and_then(|active| active.open.indexes.borrow().span());
    let mut begun = later.iter().filter_map(|segment| segment.span()).chain(active).map(|later| later.first_written_at);
    // Where the clock was ahead when the segment itself began, that says nothing.
    begun.find(|begun| *begun >= span.first_written_at || span.first_written_at > now)
}

/// Whether all records of a segment are older than `age`, as far as can be told.
fn is_over(span: TimeSpan, written_before: Option<Timestamp>, age: Duration, now: Timestamp) -> bool {
    let stamped = Some(span.max_timestamp.get()).filter(|latest| *latest >= 0);
    let latest = stamped.into_iter().chain(written_before.map(|at| at.get())).min();
    latest.is_some_and(|latest| is_older(latest, age, now))
}

fn is_older(timestamp: i64, age: Duration, now: Timestamp) -> bool {
    let passed = u64::try_from(now.get().saturating_sub(timestamp)).unwrap_or(0);
    Duration::from_millis(passed) > age
}

/// The same of the active segment, if frames have all that the log has.
fn active_is_over(state: &LogState, age: Duration, now: Timestamp) -> bool {
    let Some(active) = &state.active else { return false };
    let span = active.open.indexes.borrow().span();
    let written_long_ago = |span: &TimeSpan| is_older(span.first_written_at.get(), age, now);
    state.window.frames_end() == state.end
        && span.filter(written_long_ago).is_some_and(|span| is_over(span, None, age, now))
}
