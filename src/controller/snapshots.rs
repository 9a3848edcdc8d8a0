//! Snapshots of the metadata on disk: which one a start begins from, when another is due, and how it gets there.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ringmq_runtime::fs;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::task::{self, Gate};
use ringmq_wire::Offset;

use crate::metadata::{Cluster, Image, SNAPSHOT_BYTES_MAX, SnapshotEncoder, SnapshotError, decode_snapshot};

const SUFFIX: &str = ".snapshot";
const SUFFIX_TEMPORARY: &str = ".snapshot.tmp";
/// Of the mark beside the snapshot of a repair that is not known to be complete: it counts once the log begins there.
const SUFFIX_MARK: &str = ".repairing";
/// A snapshot's name is its offset in so many digits.
const DIGITS: usize = 20;

/// The latest image that a snapshot in `root` holds, of a log that begins at `log_start`; those that cannot be used are
/// reported and passed over, and so is what a repair left that broke off.
///
/// # Errors
/// The directory cannot be listed.
pub(crate) async fn load_latest(root: &Path, cluster: Cluster, log_start: Offset) -> io::Result<Option<Image>> {
    let entries = fs::read_dir(root).await?;
    let broken_off = broken_off_of(&entries, log_start);
    let mut offsets: Vec<Offset> = entries.iter().filter_map(|entry| offset_of(&entry.name)).collect();
    offsets.retain(|offset| !broken_off.contains(offset));
    offsets.sort_unstable();
    for offset in offsets.into_iter().rev() {
        let path = path_of(root, offset);
        match load(&path, cluster, offset).await {
            Ok(image) => return Ok(Some(image)),
            Err(error) => tracing::error!(
                path = %path.display(), %error,
                "a snapshot of the metadata cannot be used; the start goes on from what is before it"
            ),
        }
    }
    Ok(None)
}

/// The highest offset that a snapshot's name says, whether it can be used or not.
pub(crate) async fn last_named(root: &Path) -> io::Result<Option<Offset>> {
    Ok(fs::read_dir(root).await?.iter().filter_map(|entry| offset_of(&entry.name)).max())
}

/// Writes the snapshot of a repair, durably, with the mark that says so.
pub(crate) async fn put_marked(root: &Path, image: &Image) -> io::Result<()> {
    fs::write_small_atomic(&mark_of(root, image.applied()), &[]).await?;
    fs::write_small_atomic(&path_of(root, image.applied()), &encode(image).await).await
}

/// The log is sound and begins at `log_start`: what repairs left that broke off goes, then the marks of all.
///
/// # Errors
/// What the file system says. Nothing depends on it.
pub(crate) async fn end_repairs(root: &Path, log_start: Offset) -> io::Result<()> {
    let entries = fs::read_dir(root).await?;
    for offset in broken_off_of(&entries, log_start) {
        fs::remove_file_if_there(&path_of(root, offset)).await?;
    }
    fs::sync_dir(root).await?;
    for offset in entries.iter().filter_map(|entry| offset_in(&entry.name, SUFFIX_MARK)) {
        fs::remove_file_if_there(&mark_of(root, offset)).await?;
    }
    Ok(())
}

/// Where repairs wanted the log to begin that did not come so far: it begins at `log_start`.
///
/// # Errors
/// The directory cannot be listed.
pub(crate) async fn broken_off(root: &Path, log_start: Offset) -> io::Result<Vec<Offset>> {
    Ok(broken_off_of(&fs::read_dir(root).await?, log_start))
}

fn broken_off_of(entries: &[fs::DirEntry], log_start: Offset) -> Vec<Offset> {
    let marked = entries.iter().filter_map(|entry| offset_in(&entry.name, SUFFIX_MARK));
    marked.filter(|offset| *offset != log_start).collect()
}

async fn load(path: &Path, cluster: Cluster, offset: Offset) -> Result<Image, UnusableSnapshot> {
    let bytes = fs::read_small(path, SNAPSHOT_BYTES_MAX).await?;
    Ok(decode_snapshot(&bytes, cluster, offset)?)
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
enum UnusableSnapshot {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it is damaged: {0}")]
    Damaged(#[from] SnapshotError),
}

/// Writes snapshots in the background, one at a time.
pub(crate) struct Snapshots {
    shared: Rc<Shared>,
    tasks: Gate,
}

struct Shared {
    root: PathBuf,
    commands_min: u64,
    /// The last good one: loaded at start, or written since.
    latest: Cell<Option<Offset>>,
    /// Up to where one was written, or could not be.
    tried: Cell<Offset>,
    writing: Cell<bool>,
}

impl Snapshots {
    /// Goes on behind `latest`, the snapshot that this start began from. Another is due after `commands_min` commands at
    /// the earliest.
    pub(crate) fn new(root: &Path, latest: Option<Offset>, commands_min: u64) -> Snapshots {
        let shared = Shared {
            root: root.to_owned(),
            commands_min: commands_min.max(1),
            latest: Cell::new(latest),
            tried: Cell::new(latest.unwrap_or(Offset::ZERO)),
            writing: Cell::new(false),
        };
        Snapshots { shared: Rc::new(shared), tasks: Gate::new() }
    }

    /// Begins to write a snapshot of `image`, whose commands are durable, if one is due and none is being written.
    pub(crate) fn write_if_due(&self, image: &Arc<Image>) {
        if !self.shared.writing.get() && self.shared.is_due(image) {
            self.write(image.clone());
        }
    }

    fn write(&self, image: Arc<Image>) {
        self.shared.writing.set(true);
        let shared = self.shared.clone();
        let writing = async move {
            let offset = image.applied();
            match shared.write(&image).await {
                Ok(bytes) => tracing::info!(%offset, bytes, "wrote a snapshot of the metadata"),
                Err(error) => tracing::warn!(%offset, %error, "no snapshot of the metadata can be written now"),
            }
            shared.writing.set(false);
        };
        // The gate is closed only after the last change.
        let _ = self.tasks.spawn("controller: write a snapshot", writing);
    }

    /// Waits for the one that is being written.
    pub(crate) async fn close(&self) {
        self.tasks.close().await;
    }
}

impl Shared {
    /// What it costs to write one follows what it saves: as many commands as the image has entries.
    fn is_due(&self, image: &Image) -> bool {
        let entries = image.topics().len() + image.deleted().iter().len();
        let commands = image.applied().checked_sub(self.tried.get()).unwrap_or(0);
        commands >= self.commands_min.max(entries as u64)
    }

    /// Writes a snapshot and removes those that it makes superfluous; its length.
    async fn write(&self, image: &Image) -> io::Result<usize> {
        let offset = image.applied();
        self.tried.set(offset);
        let bytes = encode(image).await;
        let path = path_of(&self.root, offset);
        if SeededBug::RemoveSnapshotsFirst.is_in() {
            self.remove_all_but(offset, None).await?;
        }
        let written = match SeededBug::SnapshotUnflushed.is_in() {
            true => fs::write_small_hint(&path, &bytes).await,
            false => fs::write_small_atomic(&path, &bytes).await,
        };
        if let Err(error) = written {
            // What there is of it may take up the space that it lacks. There is nothing to do if that fails too.
            let _ = fs::remove_file(self.root.join(format!("{}{SUFFIX_TEMPORARY}", digits(offset)))).await;
            return Err(error);
        }
        let before = self.latest.replace(Some(offset));
        if let Err(error) = self.remove_all_but(offset, before).await {
            tracing::warn!(%error, "snapshots of the metadata that are not needed any more are not removed");
        }
        Ok(bytes.len())
    }

    /// Two good ones stay, so that one may be damaged. A removal that does not last does no harm.
    async fn remove_all_but(&self, latest: Offset, before: Option<Offset>) -> io::Result<()> {
        for entry in fs::read_dir(&self.root).await? {
            let kept = |offset| offset == latest || Some(offset) == before;
            if offset_of(&entry.name).is_some_and(|offset| !kept(offset)) || entry.name.ends_with(SUFFIX_TEMPORARY) {
                fs::remove_file(self.root.join(&entry.name)).await?;
            }
        }
        Ok(())
    }
}

async fn encode(image: &Image) -> Vec<u8> {
    let mut encoder = SnapshotEncoder::new(image);
    while encoder.step() {
        task::yield_to_io().await;
    }
    encoder.finish()
}

pub(crate) fn path_of(root: &Path, offset: Offset) -> PathBuf {
    root.join(format!("{}{SUFFIX}", digits(offset)))
}

fn mark_of(root: &Path, offset: Offset) -> PathBuf {
    root.join(format!("{}{SUFFIX_MARK}", digits(offset)))
}

fn digits(offset: Offset) -> String {
    format!("{:0DIGITS$}", offset.get())
}

/// The offset that a file's name says, if it is that of a snapshot.
fn offset_of(name: &str) -> Option<Offset> {
    offset_in(name, SUFFIX)
}

fn offset_in(name: &str, suffix: &str) -> Option<Offset> {
    let digits = name.strip_suffix(suffix).filter(|digits| digits.len() == DIGITS)?;
    let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| only_digits).and_then(Offset::checked)
}

#[cfg(test)]
pub(crate) mod crash_loop;
#[cfg(test)]
pub(crate) mod tests;
