//! Taking snapshots of what a log knows of idempotent producers, and removing those that newer ones make superfluous.

use std::io;
use std::path::Path;

use ringmq_runtime::{fs, time};
use ringmq_wire::{Offset, Timestamp};

use crate::layout::{FileKind, file_name, parse_file_name};
use crate::producers::ProducerSnapshot;
use crate::state::{LogCore, LogState};

/// The ending of a file that is being written.
const TEMPORARY: &str = ".tmp";

/// What is known at the end of the log, if all of it is durable in frames; rule 9 of the storage protocol allows no
/// other. While a start puts what the journals have into frames, more is known than frames have.
pub(crate) fn take(log: &LogCore, state: &mut LogState) -> Option<ProducerSnapshot> {
    let (known, offset) = (state.generations.clone()?, state.end);
    if state.window.frames_end() != offset {
        return None;
    }
    state.producers.expire(Timestamp::new(time::wall_clock()), log.config().producer_expiry);
    let (id, log_number, generation) = (log.id, known.number(), known.latest().0);
    Some(ProducerSnapshot { id, log_number, generation, offset, producers: state.producers.clone() })
}

/// Writes a snapshot, durably, and removes all older ones but the last good one. What fails is told in the broker's own
/// log: the next start then reads frames instead.
pub(crate) async fn store(log: &LogCore, snapshot: &ProducerSnapshot) {
    let offset = snapshot.offset;
    let path = log.dir.join(file_name(offset, FileKind::Producers));
    if let Err(error) = fs::write_small_atomic(&path, &snapshot.encode()).await {
        tracing::warn!(snapshot = %path.display(), %error, "cannot write a snapshot of producers");
        return;
    }
    let before = {
        let mut state = log.state.borrow_mut();
        let before = state.producer_snapshot.filter(|before| *before < offset);
        state.producer_snapshot = state.producer_snapshot.max(Some(offset));
        before
    };
    if let Err(error) = remove_before(&log.dir, offset, before).await {
        tracing::warn!(partition = %log.id, %error, "old snapshots of producers are not removed");
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
