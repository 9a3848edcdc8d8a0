//! Taking snapshots of what a log knows of idempotent producers, and removing those that newer ones make superfluous.

use std::io;
use std::path::Path;
use std::rc::Rc;

use ringmq_runtime::{fs, time};
use ringmq_wire::{Offset, Timestamp};

use crate::layout::{FileKind, file_name, parse_file_name};
use crate::producers::ProducerSnapshot;
use crate::reserve::Reserve;
use crate::state::{LogCore, LogState};

/// The ending of a file that is being written.
const TEMPORARY: &str = ".tmp";

/// What is known at the end of the durable frames, and nothing beyond (rule 9 of the storage protocol).
pub(crate) fn take(log: &LogCore, state: &mut LogState) -> Option<ProducerSnapshot> {
    let (known, offset) = (state.generations.clone()?, state.window.frames_end());
    state.producers.expire(Timestamp::new(time::wall_clock()), log.config().producer_expiry);
    let (id, log_number, generation) = (log.id, known.number(), known.latest().0);
    let mut producers = state.producers.clone();
    if offset < state.end {
        producers.cut(offset);
    }
    Some(ProducerSnapshot { id, log_number, generation, offset, producers })
}

/// Sees to it that a durable snapshot has what the frames below `offset` tell, before they go.
///
/// # Errors
/// When there is none, and none can be written: whoever sends again what only these frames tell of has it stored twice.
pub(crate) async fn cover(log: &LogCore, offset: Offset) -> io::Result<()> {
    let snapshot = {
        let mut state = log.state.borrow_mut();
        if state.producer_snapshot >= Some(offset) {
            return Ok(());
        }
        take(log, &mut state)
    };
    match snapshot {
        Some(snapshot) => store_with(log, &snapshot, &log.reserve).await,
        None => Ok(()),
    }
}

/// Writes a snapshot, in the background, where the latest one is older than the active segment: the process that sealed
/// the one before did not come to it.
pub(crate) fn renew(log: &Rc<LogCore>) {
    let Some(base) = log.state.borrow().active.as_ref().map(|active| active.segment.base) else { return };
    if base > Offset::ZERO && log.state.borrow().producer_snapshot < Some(base) {
        let log_covered = log.clone();
        // A log that is being closed writes one anyway.
        let covered = async move { drop(cover(&log_covered, base).await) };
        let _ = log.gate.spawn_background("log-producers", covered);
    }
}

/// Writes a snapshot, durably, unless there is a newer one, and removes all older ones but the last good one. What fails
/// is told in the broker's own log: the next start then reads frames instead.
pub(crate) async fn store(log: &LogCore, snapshot: &ProducerSnapshot) {
    let _ = store_with(log, snapshot, &Reserve::none()).await;
}

async fn store_with(log: &LogCore, snapshot: &ProducerSnapshot, reserve: &Reserve) -> io::Result<()> {
    let offset = snapshot.offset;
    // Segments may be sealed faster than this is done.
    let _one_at_a_time = log.storing_snapshot.acquire(1).await;
    let before = log.state.borrow().producer_snapshot;
    if before > Some(offset) {
        return Ok(());
    }
    let path = log.dir.join(file_name(offset, FileKind::Producers));
    let encoded = snapshot.encode();
    let write = async || fs::write_small_atomic(&path, &encoded).await;
    if let Err(error) = reserve.lend("for a snapshot of producers", fs::is_full, write).await {
        tracing::warn!(snapshot = %path.display(), %error, "cannot write a snapshot of producers");
        return Err(error);
    }
    log.state.borrow_mut().producer_snapshot = Some(offset);
    if let Err(error) = remove_before(&log.dir, offset, before).await {
        tracing::warn!(partition = %log.id, %error, "old snapshots of producers are not removed");
    }
    Ok(())
}

/// Writes a snapshot without a flush, and removes the one that was written so before it. A crash may lose it, so nothing
/// that it has goes for its sake: neither frames nor the durable snapshot before it.
pub(crate) async fn store_hint(log: &LogCore, snapshot: &ProducerSnapshot) {
    let offset = snapshot.offset;
    let _one_at_a_time = log.storing_snapshot.acquire(1).await;
    if log.state.borrow().producer_snapshot >= Some(offset) {
        return;
    }
    let path = |offset| log.dir.join(file_name(offset, FileKind::Producers));
    let before = log.state.borrow_mut().producer_hint.replace(offset);
    let before = before.filter(|before| *before != offset && Some(*before) != log.state.borrow().producer_snapshot);
    let mut stored = fs::write_small_hint(path(offset), &snapshot.encode()).await;
    if let Some(before) = before.filter(|_| stored.is_ok()) {
        stored = fs::remove_file_if_there(path(before)).await;
    }
    if let Err(error) = stored {
        tracing::warn!(partition = %log.id, %offset, %error, "cannot renew the snapshot of producers that is not flushed");
    }
}

/// Removes the snapshots below `offset`, but for `kept`. A removal that does not last does no harm.
async fn remove_before(dir: &Path, offset: Offset, kept: Option<Offset>) -> io::Result<()> {
    for entry in fs::read_dir(dir).await? {
        let name = entry.name.strip_suffix(TEMPORARY).unwrap_or(&entry.name);
        let is_temporary = name.len() < entry.name.len();
        if let Some((of, FileKind::Producers)) = parse_file_name(name)
            && of < offset
            && (is_temporary || Some(of) != kept)
        {
            fs::remove_file_if_there(dir.join(&entry.name)).await?;
        }
    }
    Ok(())
}
