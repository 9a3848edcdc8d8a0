//! Deleting the oldest records: moving the log's start.
//!
//! The start is a fact of the generation table. It is durable before a file goes, and it never passes the frames' end
//! (rule 7 of the storage protocol): what the journal has begins at or above it at every moment. Segments that lie below
//! as a whole are taken off the log at once and removed then, in pieces; what a crash leaves of them the next start
//! removes. The start may lie anywhere else, in a batch too: what stands below it in the same segment stays on the disk,
//! and is not read.
//!
//! A log without records keeps one file, empty, whose name says where it goes on.

use std::rc::Rc;
use std::sync::Arc;

use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_wire::Offset;

use crate::failure::Poison;
use crate::generation::{Fact, RecordError};
use crate::layout::LogId;
use crate::open_segments::OpenSegments;
use crate::producer_snapshots;
use crate::room::{NoRoom, open_dir, sync_dir};
use crate::segment::Segment;
use crate::state::{LogCore, LogState, Phase};
use crate::writer;

/// Why records were not deleted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeleteRecordsError {
    /// There are no such records yet.
    #[error("cannot delete records below {before}: the log holds {start} to {end} (exclusive); give at most {end}")]
    OutOfRange {
        /// Below where they were to be deleted.
        before: Offset,
        /// The first offset there is.
        start: Offset,
        /// One past the last one that can be read.
        end: Offset,
    },
    /// The log is offline.
    #[error(transparent)]
    Poisoned(#[from] Arc<Poison>),
    /// The new start could not be recorded.
    #[error("partition {id}: cannot record where the log begins: {source}")]
    Record {
        /// The log.
        id: LogId,
        /// Why.
        source: RecordError,
    },
    /// The log was closed or deleted.
    #[error("the log is closed")]
    Closed,
}

/// Deletes the records below `before`. Done when that is durable, and what is not needed any more is removed.
pub(crate) async fn delete_records(log: &Rc<LogCore>, before: Offset) -> Result<Offset, DeleteRecordsError> {
    let _running = log.gate.enter().map_err(|_| DeleteRecordsError::Closed)?;
    let _alone = log.moving_start.acquire(1).await;
    if is_above_start(&log.state.borrow(), before)? {
        if !SeededBug::StartPastFrames.is_in() {
            frames_reach(log, before).await?;
        }
        cover_producers(log, before).await;
        if !SeededBug::StartBeforeRecord.is_in() {
            record(log, before).await?;
        }
        log.state.borrow_mut().start = before;
    }
    seal_if_emptied(log).await;
    match log.reshaping.try_acquire(1) {
        Some(_alone) => tidy(log).await,
        // Compaction is at work, and may be for long.
        None => tidy_later(log),
    }
    Ok(log.state.borrow().start)
}

fn is_above_start(state: &LogState, before: Offset) -> Result<bool, DeleteRecordsError> {
    if let Some(poison) = &state.poison {
        return Err(DeleteRecordsError::Poisoned(poison.clone()));
    }
    if state.phase != Phase::Open {
        return Err(DeleteRecordsError::Closed);
    }
    let (start, end) = (state.start, state.readable);
    if before > end { Err(DeleteRecordsError::OutOfRange { before, start, end }) } else { Ok(before > start) }
}

/// Waits until durable frames have everything below `offset`, which can be read.
async fn frames_reach(log: &Rc<LogCore>, offset: Offset) -> Result<(), DeleteRecordsError> {
    log.write_until(offset);
    writer::wake(log);
    loop {
        let moved = log.writer_moved.listen();
        {
            let state = log.state.borrow();
            if state.window.frames_end() >= offset {
                return Ok(());
            }
            if let Some(poison) = &state.poison {
                return Err(DeleteRecordsError::Poisoned(poison.clone()));
            }
            if state.phase == Phase::Closed {
                return Err(DeleteRecordsError::Closed);
            }
        }
        moved.await;
    }
}

/// Has a snapshot written of what segments tell of producers that lie below `start` as a whole: once the log begins there, no
/// start looks at them. It is done without where that fails: what is deleted, to free space perhaps, may have to go then, too.
async fn cover_producers(log: &LogCore, start: Offset) {
    let covered = {
        let state = log.state.borrow();
        if start == state.end { Some(start) } else { state.sealed_ends().take_while(|end| *end <= start).last() }
    };
    if let Some(covered) = covered {
        let _ = producer_snapshots::cover(log, covered).await;
    }
}

async fn record(log: &LogCore, start: Offset) -> Result<(), DeleteRecordsError> {
    // A log with a durable record has them.
    let number = log.state.borrow().generations.as_ref().map(|known| known.number());
    let Some(number) = number else { return Err(DeleteRecordsError::Closed) };
    let started = Fact::Started { id: log.id, number, start };
    log.generations.record(started).await.map_err(|source| DeleteRecordsError::Record { id: log.id, source })
}

/// Seals the active segment if all that it holds is deleted, so that it can be removed.
async fn seal_if_emptied(log: &Rc<LogCore>) {
    let active_base = {
        let mut state = log.state.borrow_mut();
        let Some(active) = &state.active else { return };
        if state.phase != Phase::Open || state.end != state.start || active.position == 0 {
            return;
        }
        let base = active.segment.base;
        state.roll_asked = true;
        base
    };
    writer::wake(log);
    loop {
        let moved = log.writer_moved.listen();
        {
            let state = log.state.borrow();
            let sealed = state.active.as_ref().is_some_and(|active| active.segment.base > active_base);
            // Where there is no room for another file, this one stays until there is.
            if sealed || !state.roll_asked || !state.is_usable() {
                return;
            }
        }
        moved.await;
    }
}

impl LogState {
    /// Whether a segment is below the start, and still there.
    pub(crate) fn is_untidy(&self) -> bool {
        let first_is_below = || self.sealed_ends().next().is_some_and(|end| end <= self.start);
        !self.retired.is_empty() || first_is_below()
    }

    /// Takes the segments below the start off the log. From now on those alone have them who read them.
    fn retire(&mut self, open_segments: &OpenSegments) {
        let below = self.sealed_ends().take_while(|end| *end <= self.start).count();
        for segment in self.sealed.drain(..below) {
            segment.retire();
            segment.set_opened(None);
            open_segments.forget(|other| Rc::ptr_eq(other, &segment));
            self.retired.push_back(segment);
        }
    }
}

/// Removes what is left below the start, in the background: what an earlier life did not come to, say. However often it is
/// asked for meanwhile, it is done once.
pub(crate) fn tidy_later(log: &Rc<LogCore>) {
    {
        let mut state = log.state.borrow_mut();
        if state.tidying_later || !state.is_untidy() {
            return;
        }
        state.tidying_later = true;
    }
    let tidying = {
        let log = log.clone();
        async move {
            let _alone = log.reshaping.acquire(1).await;
            log.state.borrow_mut().tidying_later = false;
            tidy(&log).await;
        }
    };
    // A log that is being closed leaves it to the next start.
    let _ = log.gate.spawn_background("log-tidy", tidying);
}

/// Removes the segments below the start, oldest first. What fails is tried again with the next deletion.
async fn tidy(log: &LogCore) {
    log.state.borrow_mut().retire(&log.open_segments);
    if log.state.borrow().retired.is_empty() {
        return;
    }
    match remove_files(log).await {
        Ok(()) => {}
        Err(NoRoom::Broken { action, source }) => log.poison(action, source),
        Err(NoRoom::Full(error) | NoRoom::NotReady(error)) => {
            tracing::warn!(partition = %log.id, %error, "cannot remove segments whose records are deleted; they stay for now");
        }
    }
}

async fn remove_files(log: &LogCore) -> Result<(), NoRoom> {
    let dir = open_dir(&log.dir).await?;
    while let Some(segment) = first_retired(log) {
        segment.remove_in_pieces(|| is_read(&segment)).await.map_err(NoRoom::before_writing)?;
        tracing::info!(partition = %log.id, segment = %segment.base, "removed a segment: its records are deleted");
        log.state.borrow_mut().retired.pop_front();
    }
    sync_dir(&dir).await
}

fn first_retired(log: &LogCore) -> Option<Rc<Segment>> {
    log.state.borrow().retired.front().cloned()
}

/// Whether anyone but the list of retired segments and its remover has the segment.
fn is_read(segment: &Rc<Segment>) -> bool {
    Rc::strong_count(segment) > 2
}
