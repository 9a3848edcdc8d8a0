//! The start of a process: every file of every journal is read.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ringmq_runtime::file::{File, IoClass, LOCK_WAIT_MAX, OpenOptions};
use ringmq_runtime::fs::{self, DirEntry};

use crate::chain::FoundBlocks;
use crate::name::{AsideName, RingName, TEMPORARY_SUFFIX};
use crate::number::{BlockNumber, RingNumber, UNIT_BYTES_U64};
use crate::scan::{Places, Scan};

/// How much is read at a time: several of the longest blocks, in bytes.
const PIECE_BYTES: usize = 2 << 20;
const _: () = assert!(PIECE_BYTES >= 2 * crate::block::BLOCK_BYTES_MAX);

/// All that the journals of a data directory hold. Plain memory: it goes to the shards that it concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundJournals {
    /// By name: by shard, then by number.
    pub rings: Vec<FoundRing>,
    /// By name. To be redone before the rings.
    pub asides: Vec<FoundAside>,
    /// Files that could not be read. What they hold nobody knows; they stay as they are.
    pub unread: Vec<UnreadFile>,
}

/// What a ring holds. It is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRing {
    /// Its file: which core wrote it.
    pub name: RingName,
    /// The size of the ring, in bytes.
    pub bytes: u64,
    /// Blocks below are free.
    pub floor: BlockNumber,
    /// The first block that cannot be counted: where the ring goes on.
    pub next: BlockNumber,
    /// What is in it from its floor on.
    pub blocks: FoundBlocks,
}

/// What an aside file holds: entries that some start could not place. It is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundAside {
    /// Its file.
    pub name: AsideName,
    /// What is in it. Most of it may be in frames already.
    pub blocks: FoundBlocks,
}

/// A file of the journals that could not be read, or not flushed: another start may be able to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadFile {
    /// The file.
    pub path: PathBuf,
    /// The ring that it is, or was copied from.
    pub ring: RingNumber,
    /// Of blocks that were kept aside: the number of the first. `None`: the ring itself.
    pub aside: Option<BlockNumber>,
    /// What the file system says.
    pub why: String,
}

impl fmt::Display for UnreadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the journal {} cannot be read: {}", self.path.display(), self.why)
    }
}

impl FoundJournals {
    /// For those who need all that the journals have.
    ///
    /// # Errors
    /// When a file could not be read.
    pub fn whole(mut self) -> Result<FoundJournals, JournalReadError> {
        self.unread.pop().map_or(Ok(self), |unread| Err(JournalReadError::File(unread)))
    }
}

/// Why the journals as a whole cannot be read. The broker must not start: they hold what was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum JournalReadError {
    /// The file system failed.
    #[error("cannot {action} the journals: {source}. Mend the disk and start again; nothing was changed")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Why it failed; names the file.
        source: io::Error,
    },
    /// A file whose content is needed cannot be read.
    #[error("{0}. Mend the disk; nothing was changed")]
    File(UnreadFile),
    /// Another process writes the file, or has requests in flight that do not end.
    #[error(
        "journal {} is still written by another process after {LOCK_WAIT_MAX:?}; stop the other broker",
        path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
}

impl JournalReadError {
    fn of(action: &'static str) -> impl Fn(io::Error) -> JournalReadError {
        move |source| JournalReadError::Io { action, source }
    }
}

/// Reads every ring and aside file in `dir`, which is created when it is missing (the directory above it is there,
/// durably), and makes sure that what was read is durable, the names included. Removes what was never completed. Called
/// once at the start of a process, before anything is written, by the one process that owns the data directory.
///
/// All that is to be redone is in memory then: at most the sizes of the files together, usually much less.
///
/// # Errors
/// When the directory cannot be read or flushed, or another process has a file. Damage is no error here, nor is a file that
/// cannot be read: both are told in what is returned.
pub async fn read_journals(dir: &Path) -> Result<FoundJournals, JournalReadError> {
    fs::create_dir_durably(dir).await.map_err(JournalReadError::of("create the directory of"))?;
    let names = fs::read_dir(dir).await.map_err(JournalReadError::of("list"))?;
    let found = read_files(dir, &names, Purpose::Start).await?;
    for entry in names.iter().filter(|entry| entry.name.ends_with(TEMPORARY_SUFFIX)) {
        let removed = fs::remove_file_if_there(&dir.join(&entry.name)).await;
        removed.map_err(JournalReadError::of("remove what is incomplete of"))?;
    }
    // A process that was killed may have renamed a file and not come to this.
    fs::sync_dir(dir).await.map_err(JournalReadError::of("flush the directory of"))?;
    Ok(found)
}

/// As [`read_journals`], for those who only want to know what is in a stopped broker's journals: creates, flushes and
/// removes nothing. A directory that is not there has no journals.
///
/// # Errors
/// As [`read_journals`].
pub async fn inspect_journals(dir: &Path) -> Result<FoundJournals, JournalReadError> {
    match fs::read_dir(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(FoundJournals::default()),
        names => read_files(dir, &names.map_err(JournalReadError::of("list"))?, Purpose::Inspection).await,
    }
}

/// As [`inspect_journals`], of one ring or aside file. Nothing where its name is neither's.
///
/// # Errors
/// As [`read_journals`].
pub async fn inspect_journal_file(path: &Path) -> Result<FoundJournals, JournalReadError> {
    let (dir, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().and_then(|name| name.to_str()));
    let entry = name.map(|name| DirEntry { name: name.to_owned(), is_dir: false });
    read_files(dir, entry.as_slice(), Purpose::Inspection).await?.whole()
}

/// What files are read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To be built on.
    Start,
    /// To be told.
    Inspection,
}

async fn read_files(dir: &Path, names: &[DirEntry], purpose: Purpose) -> Result<FoundJournals, JournalReadError> {
    let mut found = FoundJournals::default();
    for entry in names {
        let path = dir.join(&entry.name);
        if let Some(name) = RingName::parse(&entry.name) {
            let scan = |bytes| Scan::new(name.number, Places::Ring { units: bytes / UNIT_BYTES_U64 });
            match read(&path, scan, purpose).await {
                Ok(scan) => found.rings.extend(scan.map(|scan| scan.into_ring(name))),
                Err(error) => found.unread.push(error.of(path, name.number, None)?),
            }
        } else if let Some(name) = AsideName::parse(&entry.name) {
            let places = |bytes: u64| Places::Aside { first: name.first, units: bytes.div_ceil(UNIT_BYTES_U64) };
            match read(&path, |bytes| Scan::new(name.ring, places(bytes)), purpose).await {
                Ok(scan) => {
                    found.asides.extend(scan.map(|scan| FoundAside { name, blocks: scan.into_aside(name.first) }))
                }
                Err(error) => found.unread.push(error.of(path, name.ring, Some(name.first))?),
            }
        }
    }
    Ok(found)
}

/// Why one file cannot be read.
enum FileError {
    /// Another process has it.
    Locked,
    Io(io::Error),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> FileError {
        FileError::Io(error)
    }
}

impl FileError {
    /// A file that cannot be read concerns its records alone. One that another process writes is a broker's that runs.
    fn of(self, path: PathBuf, ring: RingNumber, aside: Option<BlockNumber>) -> Result<UnreadFile, JournalReadError> {
        match self {
            FileError::Locked => Err(JournalReadError::Locked { path }),
            FileError::Io(error) => Ok(UnreadFile { path, ring, aside, why: error.to_string() }),
        }
    }
}

/// Reads a whole file with the scan that its size gives; `None` when it is gone.
async fn read(path: &Path, scan: impl FnOnce(u64) -> Scan, purpose: Purpose) -> Result<Option<Scan>, FileError> {
    let file = match File::open(path, OpenOptions::default()).await {
        // A killed process was removing it, so nobody needs it.
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !file.lock_when_free().await? {
        return Err(FileError::Locked);
    }
    let size = file.size().await?;
    let mut scan = scan(size);
    read_all(&file, size, &mut scan).await?;
    if purpose == Purpose::Start {
        // What was read may be in the device's cache alone, and will be built on (rule 10 of the storage protocol).
        file.fdatasync().await?;
    }
    file.close().await?;
    Ok(Some(scan))
}

async fn read_all(file: &File, size: u64, scan: &mut Scan) -> io::Result<()> {
    while let Some(position) = scan.position() {
        let wanted = size.saturating_sub(position).min(PIECE_BYTES as u64);
        let piece = file.read_at(position, PIECE_BYTES, IoClass::Recovery).await?;
        if (piece.len() as u64) < wanted {
            let why = format!("{} became shorter while it was read, at {position}", file.path().display());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        scan.look_at(&piece);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_goes_to_other_threads() {
        fn is_send<T: Send + Sync>() {}
        is_send::<FoundJournals>();
    }
}
