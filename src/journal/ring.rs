//! The file of a ring: made, taken up again, removed.

use std::io;
use std::path::Path;

use ringmq_runtime::buffer::AlignedBuf;
use ringmq_runtime::file::{File, IoClass, LOCK_WAIT_MAX, OpenOptions};
use ringmq_runtime::{fs, random};
use ringmq_wire::ShardIndex;

use crate::config::JournalConfig;
use crate::name::{Flushing, RingName, TEMPORARY_SUFFIX};
use crate::number::{BlockNumber, RingNumber};
use crate::recovery::FoundRing;

/// Zeros that one write puts down while a ring is prepared, in bytes.
const PIECE_BYTES: usize = 1 << 20;
/// The same near the end: up to here memory comes in exactly the length that is asked for.
const LAST_PIECE_BYTES_MAX: usize = 512 << 10;

/// A ring's file, open, locked and ready to be written ([`Journal::start`](crate::Journal::start)).
#[derive(Debug)]
pub struct Ring {
    pub(crate) name: RingName,
    pub(crate) file: File,
    /// The first block of this life.
    pub(crate) first: BlockNumber,
}

impl Ring {
    /// Makes a new ring for a core: all of it is written once, so that blocks will change no metadata. Takes as long
    /// as the device needs for that, in the background ([`IoClass::Compaction`]). `dir` is there, durably
    /// ([`read_journals`](crate::read_journals) has seen to it), and `config` is valid.
    ///
    /// # Errors
    /// What the file system says, disk full included. Nothing is left then, or a file that the next start removes.
    pub async fn prepare(
        dir: &Path,
        shard: ShardIndex,
        flushing: Flushing,
        config: &JournalConfig,
    ) -> io::Result<Ring> {
        let name = RingName { shard, number: RingNumber(random::u64()), flushing };
        let path = dir.join(name.file_name());
        let temporary = dir.join(name.file_name() + TEMPORARY_SUFFIX);
        let made = async {
            write_zeros(&temporary, config.ring_bytes).await?;
            fs::rename(&temporary, &path).await?;
            fs::sync_dir(dir).await?;
            open_to_write(&path, flushing).await
        };
        match made.await {
            Ok(file) => Ok(Ring { name, file, first: BlockNumber::FIRST }),
            Err(error) => {
                // What is left of it would only take space until the next start, and each attempt makes another.
                for left in [temporary, path] {
                    let _ = fs::remove_file_if_there(left).await;
                }
                Err(error)
            }
        }
    }

    /// Takes a ring up again that was found; `None` when it has another size than configured, or (after a change of the
    /// longest block) the first block would not fit. The caller then prepares a new one and removes this one.
    ///
    /// # Errors
    /// What the file system says; [`io::ErrorKind::ResourceBusy`] when another process has it.
    pub async fn resume(dir: &Path, found: &FoundRing, config: &JournalConfig) -> io::Result<Option<Ring>> {
        if found.bytes != config.ring_bytes {
            return Ok(None);
        }
        let geometry = config.geometry();
        if found.next.units_since(found.floor) + geometry.lengthened(found.next, 1) > geometry.units {
            return Ok(None);
        }
        let file = open_to_write(&dir.join(found.name.file_name()), found.name.flushing).await?;
        Ok(Some(Ring { name: found.name, file, first: found.next }))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> RingName {
        self.name
    }
}

/// Removes a ring that nobody needs any more, durably: what it holds is in durable frames, or aside.
///
/// # Errors
/// What the file system says; it is no error that it is gone.
pub async fn remove_ring(dir: &Path, ring: RingName) -> io::Result<()> {
    remove_durably(dir, &ring.file_name()).await
}

pub(crate) async fn remove_durably(dir: &Path, name: &str) -> io::Result<()> {
    fs::remove_file_if_there(&dir.join(name)).await?;
    fs::sync_dir(dir).await
}

async fn open_to_write(path: &Path, flushing: Flushing) -> io::Result<File> {
    let file = match flushing {
        Flushing::Each => File::open(path, OpenOptions { write: true, create_new: false, dsync: true }).await?,
        Flushing::Relaxed => File::open_cached(path).await?,
    };
    lock(file).await
}

/// Every descriptor that writes is locked (rule 10 of the storage protocol).
pub(crate) async fn lock(file: File) -> io::Result<File> {
    if file.lock_when_free().await? {
        return Ok(file);
    }
    let why =
        format!("{} is locked by another process for {LOCK_WAIT_MAX:?}; stop the other broker", file.path().display());
    Err(io::Error::new(io::ErrorKind::ResourceBusy, why))
}

async fn write_zeros(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::open(path, OpenOptions { write: true, create_new: true, dsync: false }).await?;
    let file = lock(file).await?;
    file.preallocate(bytes).await?;
    let piece = AlignedBuf::zeroed(PIECE_BYTES).freeze();
    let mut position = 0;
    while position < bytes {
        let rest = usize::try_from(bytes - position).unwrap_or(usize::MAX);
        let zeros = if rest >= piece.len() {
            piece.clone()
        } else {
            AlignedBuf::zeroed(rest.min(LAST_PIECE_BYTES_MAX)).freeze()
        };
        file.write_at(&zeros, position, IoClass::Compaction).await?;
        position += zeros.len() as u64;
    }
    file.fdatasync().await?;
    file.close().await
}
