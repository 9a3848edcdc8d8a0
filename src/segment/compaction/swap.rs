//! Putting a compacted segment in the place of those that it was made of, so that a crash leaves the one or the others.
//! The steps: `docs/formats/log-frame.md`.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_index::FramePlace;
use ringmq_runtime::file::{File, OpenOptions};
use ringmq_runtime::fs;
use ringmq_wire::Offset;

use super::CompactError;
use super::cleaned::CleanedSegment;
use super::pace::{Pace, RECORD_BYTES};
use crate::check::FrameCheck;
use crate::frame::FrameFault;
use crate::layout::{FileKind, file_name, swap_name};
use crate::room::keep_open;
use crate::scan::FrameScanner;
use crate::segment::{OpenSegment, Segment};
use crate::state::LogCore;

/// Puts the compacted segment, which is flushed and reaches to `end`, in the place of the group's.
pub(super) async fn swap(
    log: &Rc<LogCore>,
    group: &[Rc<Segment>],
    end: Offset,
    cleaned: CleanedSegment,
    pace: &mut Pace,
) -> Result<(), CompactError> {
    let base = group[0].base;
    let swap = log.dir.join(swap_name(base, end));
    let renamed = fs::rename(&cleaned.path, &swap).await;
    if let Err(source) = renamed {
        if fs::is_full(&source) {
            cleaned.remove().await;
            return Err(CompactError::StorageFull { id: log.id, source });
        }
        return Err(not_known(log, source));
    }
    let bases: Vec<Offset> = group.iter().map(|segment| segment.base).collect();
    let position = cleaned.position();
    let new = Rc::new(Segment::new(&log.dir, base));
    new.set_end_position(position);
    new.pin();
    let open = OpenSegment { file: cleaned.file, indexes: cleaned.indexes.into(), from_files: false };
    let open = Rc::new(open);
    new.set_span(open.indexes.borrow().span());
    new.set_opened(Some(open.clone()));
    // From here on the new one counts.
    let committed = fs::sync_dir(&log.dir).await;
    if committed.is_ok() {
        take_place(log, group, &new);
        forget_frames(log, base..end, pace).await;
    }
    let completed = match committed {
        Ok(()) => complete(&log.dir, &swap, base, &bases).await,
        failed => failed,
    };
    completed.map_err(|source| not_known(log, source))?;
    new.unpin();
    keep_open(log, &new);
    let Some(known) = log.state.borrow().generations.clone() else { return Ok(()) };
    let indexes = open.indexes.borrow().clone();
    if let Err(error) = new.store_indexes(&indexes, &known, end, position).await {
        tracing::warn!(partition = %log.id, segment = %base, %error, "could not keep a compacted segment's indexes");
    }
    Ok(())
}

/// A step failed, and whether it took effect only a start can tell.
fn not_known(log: &LogCore, source: io::Error) -> CompactError {
    let kind = source.kind();
    log.poison("put a compacted segment in the place of", source);
    CompactError::Io { id: log.id, action: "replace segments", source: kind.into() }
}

/// Readers find the new segment from now on. Those that are at work in the old ones have their files open.
fn take_place(log: &LogCore, group: &[Rc<Segment>], new: &Rc<Segment>) {
    let mut state = log.state.borrow_mut();
    let is_old = |segment: &Rc<Segment>| group.iter().any(|old| Rc::ptr_eq(old, segment));
    if let Some(at) = state.sealed.iter().position(is_old) {
        state.sealed[at] = new.clone();
    }
    state.sealed.retain(|segment| !is_old(segment));
    log.open_segments.forget(is_old);
    for old in group {
        old.retire();
    }
}

/// Lets go of what is in memory of segments that were replaced: a reader must not be given it after the tombstone is gone,
/// and no tombstone goes before the next segment is written.
async fn forget_frames(log: &LogCore, replaced: Range<Offset>, pace: &mut Pace) {
    for frames in [&log.cold_frames, &log.tail_frames] {
        while let Some(memory_bytes) = frames.forget_one(replaced.clone()) {
            // The system may take it back.
            pace.spend(memory_bytes.max(RECORD_BYTES)).await;
        }
    }
}

/// Takes the steps behind the one that makes the swap count.
async fn complete(dir: &Path, swap: &Path, base: Offset, bases: &[Offset]) -> io::Result<()> {
    for old in bases {
        Segment::new(dir, *old).remove_files().await?;
    }
    fs::sync_dir(dir).await?;
    fs::rename(swap, dir.join(file_name(base, FileKind::Log))).await?;
    fs::sync_dir(dir).await
}

/// A compacted segment that a crash left on its way.
pub(crate) struct Unfinished {
    pub(crate) path: PathBuf,
    pub(crate) base: Offset,
    pub(crate) end: Offset,
}

impl Unfinished {
    /// Whether it stands for the segment with that base.
    pub(crate) fn replaces(&self, base: Offset) -> bool {
        (self.base..self.end).contains(&base)
    }

    /// Whether its frames are sound and reach to its end; else where they stop, and why.
    pub(crate) async fn judge(&self, check: FrameCheck) -> io::Result<Result<(), (FramePlace, FrameFault)>> {
        let file = File::open(&self.path, OpenOptions::default()).await?;
        let mut scanner = FrameScanner::new(&file, check, FramePlace { offset: self.base, position: 0 }).await?;
        while scanner.expected() < self.end {
            if let Err(fault) = scanner.next().await? {
                return Ok(Err((FramePlace { offset: scanner.expected(), position: scanner.position() }, fault)));
            }
        }
        Ok(Ok(()))
    }

    /// Takes the steps that are left; [`Unfinished::judge`] has found it sound.
    pub(crate) async fn complete(&self, dir: &Path, bases: &[Offset]) -> io::Result<()> {
        // Its name may be in the file system's memory alone.
        fs::sync_dir(dir).await?;
        let replaced: Vec<Offset> = bases.iter().copied().filter(|base| self.replaces(*base)).collect();
        complete(dir, &self.path, self.base, &replaced).await
    }
}
