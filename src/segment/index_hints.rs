//! The index of the active segment on disk, now and then, and what is known of producers with it: for a start after a stop
//! that was not clean, which then need not read all of the segment to find its end.

use std::rc::Rc;

use ringmq_wire::Offset;

use crate::generation::LogGenerations;
use crate::producer_snapshots;
use crate::producers::ProducerSnapshot;
use crate::segment::{Indexes, Segment};
use crate::state::{LogCore, LogState};

/// Writes both in the background, if the durable frames have grown by enough since they were written last.
pub(crate) fn keep_if_due(log: &Rc<LogCore>) {
    if begins_to(log, &mut log.state.borrow_mut()) {
        // A log that is being closed writes the index by itself.
        let _ = log.gate.spawn_background("log-index", keep(log.clone()));
    }
}

/// Whether it is due. From now on it counts as done.
fn begins_to(log: &LogCore, state: &mut LogState) -> bool {
    let position = state.window.frames_end_position();
    let Some(active) = &mut state.active else { return false };
    let due = position >= active.indexed + log.config().index_hint_bytes;
    if due {
        active.indexed = position;
    }
    due
}

async fn keep(log: Rc<LogCore>) {
    let _alone = log.indexing.acquire(1).await;
    let Some((hints, snapshot)) = take(&log) else { return };
    // First, so that a start that begins behind the snapshot's offset does not miss it.
    producer_snapshots::store_hint(&log, &snapshot).await;
    let Hints { segment, indexes, known, end, end_position } = hints;
    if let Err(error) = segment.store_index_hints(&indexes, &known, end, end_position).await {
        tracing::warn!(partition = %log.id, segment = %segment.base, %error, "could not keep the index of a segment");
    }
}

/// What is written of the index: the places of durable frames.
struct Hints {
    segment: Rc<Segment>,
    indexes: Indexes,
    known: Rc<LogGenerations>,
    end: Offset,
    end_position: u64,
}

/// Both as of the end of the durable frames; `None` where the active segment has none.
fn take(log: &LogCore) -> Option<(Hints, ProducerSnapshot)> {
    let mut state = log.state.borrow_mut();
    let (end, end_position) = (state.window.frames_end(), state.window.frames_end_position());
    let known = state.generations.clone()?;
    let active = state.active.as_ref().filter(|active| end > active.segment.base)?;
    let indexes = active.open.indexes.borrow().below(end);
    let hints = Hints { segment: active.segment.clone(), indexes, known, end, end_position };
    producer_snapshots::take(log, &mut state).map(|snapshot| (hints, snapshot))
}
