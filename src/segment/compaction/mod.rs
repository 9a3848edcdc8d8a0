//! Compaction: of each key only the latest record stays, and tombstones go after a time.
//!
//! A round (`round`) reads the segments that were sealed since the last one and notes the latest offset of each key
//! (`latest`), as many as fit in the memory that it is given. Then it goes through every sealed segment before that and
//! looks for what a later record replaces (`sift`). Where there is nothing, the segment stays as it is, and nothing is
//! written. Else what is left of it is written again (`cleaned`), small neighbours into one, and put in the place of the
//! old (`swap`). The active segment is left alone.
//!
//! What keeps it honest:
//! - Segments are taken in the order of their offsets, and the first that cannot be read ends the round. So a tombstone
//!   gets the time of its end only when everything that it deletes is gone before it.
//! - It works at the lowest priority of the device in short reads and writes, computes in slices of some 100 µs, whatever
//!   the batches are like, and takes turns with the other logs of its core (`pace`).
//! - Records without a key, and batches whose records cannot be read (malformed, or too large), replace nothing and are
//!   replaced by nothing: they stay. What such a batch holds is not known, so no tombstone behind it goes: it may be what
//!   deletes a key in there.
//! - Nothing is left out but for one of these reasons: where something else is in the way, the round ends.
//!
//! What a round costs: it reads what is new, then everything up to there, what changes twice. Where the new keys fit in
//! memory that is one round. Else each round covers as many new keys as fit, and goes through all that is before them: the
//! keys divided by those that fit, times the log, as with Kafka's cleaner. More memory for keys is what helps.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::time::Instant;
use ringmq_wire::{Offset, Timestamp};

use crate::failure::Corruption;
use crate::generation::RecordError;
use crate::layout::LogId;
use crate::log::Log;
use crate::segment::Segment;
use crate::state::LogCore;

mod cleaned;
mod frames;
mod latest;
mod pace;
mod round;
mod sift;
pub(crate) mod swap;

pub use pace::CompactionBudget;
use pace::Pace;
use round::Round;

/// The most that the records of one batch are decompressed to, in bytes: some milliseconds of the core. A batch that grows
/// beyond that stays as it is.
const DECOMPRESSED_BYTES_MAX: usize = 4 << 20;

/// How long a log is left alone after a round that failed: the next one reads as much again.
const REST: Duration = Duration::from_secs(10 * 60);

/// How a log is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// Of the bytes in sealed segments, so many percent must be new since the last time. Default: 50.
    pub dirty_percent_min: u8,
    /// How long a tombstone stays once everything that it deletes is gone. Default: a day.
    pub tombstone_retention: Duration,
}

impl Default for CompactionPolicy {
    fn default() -> CompactionPolicy {
        CompactionPolicy { dirty_percent_min: 50, tombstone_retention: Duration::from_secs(24 * 60 * 60) }
    }
}

/// What one round of compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Below that, no record is left that a later one below it replaces.
    pub until: Offset,
    /// Bytes that were read, keys and all.
    pub bytes_read: u64,
    /// Bytes of the segments that were written again, before. None is, where nothing changes.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
    /// Records that are gone.
    pub records_removed: u64,
}

/// Why a log was not compacted, or not to the end. What was done stays, and nothing is lost; the next round goes on, ten
/// minutes later.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The log was closed, deleted or went offline.
    #[error("the log is closed")]
    Closed,
    /// A segment is damaged: nothing from there on is compacted.
    #[error("{0}. Nothing from there on was compacted; restore the file from a copy while the broker is stopped")]
    Corrupt(Box<Corruption>),
    /// The disk has no room for the new segment beside the old ones. It is tried again.
    #[error("partition {id}: no room to write a compacted segment: {source}. Free space on the disk")]
    StorageFull {
        /// The log.
        id: LogId,
        /// What the file system says.
        source: io::Error,
    },
    /// The file system failed.
    #[error("partition {id}: cannot {action}: {source}")]
    Io {
        /// The log.
        id: LogId,
        /// What was being done.
        action: &'static str,
        /// Why it failed; names the file.
        source: io::Error,
    },
    /// How far the log is compacted could not be recorded: after a restart it is done again.
    #[error("partition {id}: cannot record how far it is compacted: {source}")]
    Record {
        /// The log.
        id: LogId,
        /// Why.
        source: RecordError,
    },
}

impl Log {
    /// Whether [`Log::compact`] would do something now: a look at memory alone.
    #[must_use]
    pub fn is_compaction_due(&self, now: Timestamp) -> bool {
        let log = self.core();
        let is_being_reshaped = log.reshaping.available() == 0;
        log.config().compaction.is_some_and(|policy| !is_being_reshaped && due(log, &policy, now).is_some())
    }

    /// Does a round of compaction over what is sealed, if the log is one that is compacted and enough of it is new. `None`
    /// when not. With others that share `budget` it takes turns. `is_over` is asked now and then: once it says so, the
    /// round ends as soon as it can, with [`CompactError::Closed`].
    ///
    /// # Errors
    /// See [`CompactError`].
    pub async fn compact(
        &self,
        now: Timestamp,
        budget: &CompactionBudget,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Option<Compacted>, CompactError> {
        let (log, clock) = (self.core(), Clock { now, began: Instant::now() });
        let Some(policy) = log.config().compaction else { return Ok(None) };
        let Ok(_pass) = log.gate.enter() else { return Err(CompactError::Closed) };
        let _alone = log.reshaping.acquire(1).await;
        let mut pace = Pace::new(budget).await;
        let Some(due) = due(log, &policy, now) else { return Ok(None) };
        let compacted = Round { log, policy, clock, is_over, due }.run(budget.take_keys(), &mut pace).await;
        if compacted.is_err() {
            log.state.borrow_mut().compaction_rests_until = clock.after(REST);
        }
        compacted.map(Some)
    }
}

/// The time that the caller gave, going on: a round may take long, and wait for turns before it.
#[derive(Clone, Copy)]
struct Clock {
    now: Timestamp,
    began: Instant,
}

impl Clock {
    /// The time so much later than it is.
    fn after(self, wait: Duration) -> Timestamp {
        let since = self.began.elapsed().saturating_add(wait);
        let since_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Timestamp::new(self.now.get().saturating_add(since_ms))
    }
}

/// What is to be compacted.
struct Due {
    /// Sealed segments, each with its end, by base offset.
    sealed: Vec<(Rc<Segment>, Offset)>,
    /// Where the last one ends.
    end: Offset,
    /// From here on it is new.
    dirty_from: Offset,
}

fn due(log: &LogCore, policy: &CompactionPolicy, now: Timestamp) -> Option<Due> {
    let state = log.state.borrow();
    // A clock that was set back since does not make the rest longer.
    let rest_ms = state.compaction_rests_until.get().saturating_sub(now.get());
    if rest_ms > 0 && u128::from(rest_ms.unsigned_abs()) <= REST.as_millis() {
        return None;
    }
    let end = state.active.as_ref()?.segment.base;
    let dirty_from = state.compacted_until.max(state.sealed.first()?.base);
    let sealed: Vec<_> = state.sealed.iter().cloned().zip(state.sealed_ends()).collect();
    let bytes_of = |segments: &mut dyn Iterator<Item = &(Rc<Segment>, Offset)>| -> u64 {
        segments.map(|(segment, _)| segment.end_position()).sum()
    };
    let bytes = bytes_of(&mut sealed.iter());
    let dirty_bytes = bytes_of(&mut sealed.iter().filter(|(_, end)| *end > dirty_from));
    let enough = dirty_bytes > 0 && dirty_bytes * 100 >= bytes * u64::from(policy.dirty_percent_min);
    let tombstones = state.tombstones_due.is_some_and(|due| due <= now);
    (enough || tombstones).then_some(Due { sealed, end, dirty_from })
}
