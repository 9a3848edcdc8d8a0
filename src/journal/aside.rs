//! What cannot be placed is kept aside: whole blocks, copied before the ring frees them (rule 6 of the storage
//! protocol).

use std::io;
use std::ops::Range;
use std::path::Path;

use ringmq_runtime::buffer::AlignedBuf;
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::fs;

use crate::name::{AsideName, TEMPORARY_SUFFIX};
use crate::number::{BlockNumber, RingNumber, UNIT_BYTES_U64};
use crate::recovery::{FoundAside, FoundRing};
use crate::ring::{lock, remove_durably};

/// What is copied at a time, in bytes: memory of that length comes exactly so.
const PIECE_BYTES: u64 = 512 << 10;

/// Copies blocks of a ring that was found into an aside file of their own, durably: the next starts find them in
/// [`FoundJournals::asides`](crate::FoundJournals::asides) until [`remove_aside`]. Done again, it replaces the copy.
/// `blocks` begins and ends with numbers of blocks: [`FoundEntry::block`](crate::FoundEntry::block),
/// [`FoundRing::floor`], [`FoundRing::next`].
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when the ring does not hold these blocks any more; what the file system says.
pub async fn keep_aside(dir: &Path, found: &FoundRing, blocks: Range<BlockNumber>) -> io::Result<()> {
    check_range(&blocks, found.floor..found.next)?;
    let ring = File::open(dir.join(found.name.file_name()), OpenOptions::default()).await?;
    copy(dir, &ring, found.name.number, found.bytes / UNIT_BYTES_U64, blocks).await?;
    ring.close().await
}

/// Removes an aside file, durably: its entries are in durable frames, or a durable record says that their topics were
/// deleted.
///
/// # Errors
/// What the file system says; it is no error that it is gone.
pub async fn remove_aside(dir: &Path, found: &FoundAside) -> io::Result<()> {
    remove_durably(dir, &found.name.file_name()).await
}

/// Refuses blocks that are not there.
pub(crate) fn check_range(blocks: &Range<BlockNumber>, there: Range<BlockNumber>) -> io::Result<()> {
    if there.start <= blocks.start && blocks.start < blocks.end && blocks.end <= there.end {
        return Ok(());
    }
    let (start, end) = (blocks.start, blocks.end);
    let why = format!("blocks {start} to {end} cannot be kept aside: the ring has {} to {}", there.start, there.end);
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// Copies blocks out of a ring of that many units.
pub(crate) async fn copy(
    dir: &Path,
    ring: &File,
    number: RingNumber,
    units: u64,
    blocks: Range<BlockNumber>,
) -> io::Result<()> {
    let name = AsideName { ring: number, first: blocks.start }.file_name();
    let temporary = dir.join(name.clone() + TEMPORARY_SUFFIX);
    // Of an attempt that failed.
    fs::remove_file_if_there(&temporary).await?;
    if let Err(error) = write_copy(&temporary, ring, units, blocks).await {
        // What is left of it would only take space until the next start.
        let _ = fs::remove_file(&temporary).await;
        return Err(error);
    }
    fs::rename(&temporary, dir.join(name)).await?;
    fs::sync_dir(dir).await
}

async fn write_copy(path: &Path, ring: &File, units: u64, blocks: Range<BlockNumber>) -> io::Result<()> {
    let ring_bytes = units * UNIT_BYTES_U64;
    let bytes = blocks.end.units_since(blocks.start) * UNIT_BYTES_U64;
    let aside = File::open(path, OpenOptions { write: true, create_new: true, dsync: false }).await?;
    let aside = lock(aside).await?;
    aside.preallocate(bytes).await?;
    let mut copied = 0;
    while copied < bytes {
        let from = (blocks.start.get() % units * UNIT_BYTES_U64 + copied) % ring_bytes;
        let piece_bytes = PIECE_BYTES.min(bytes - copied).min(ring_bytes - from);
        let piece = read_piece(ring, from, piece_bytes).await?;
        aside.write_at(&piece.freeze(), copied, IoClass::Checkpoint).await?;
        copied += piece_bytes;
    }
    aside.fdatasync().await?;
    aside.close().await
}

/// What was read, in memory that can be written.
async fn read_piece(ring: &File, position: u64, bytes: u64) -> io::Result<AlignedBuf> {
    let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
    let read = ring.read_at(position, bytes, IoClass::Checkpoint).await?;
    let mut piece = AlignedBuf::with_len(bytes);
    if read.len() != piece.len() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} is cut off", ring.path().display())));
    }
    piece.copy_from_slice(&read);
    Ok(piece)
}
