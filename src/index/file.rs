//! The header that both index files share, and its checksums. Layout: `docs/formats/segment-index.md`.
//!
//! ```text
//! magic 4 | version 2 | kind 2 | segment base 8 | log number 8 | end offset 8 | end position 8 | max timestamp 8
//! | first written at 8 | entry count 4 | entries checksum 4 | generation 4 | header checksum 4 | entries
//! ```

use ringmq_wire::{Offset, Timestamp};

/// Bytes of the header in front of the entries.
pub const HEADER_BYTES: usize = 72;
const MAGIC: [u8; 4] = *b"RQIX";
const VERSION: u16 = 1;
const CHECKSUM_AT: usize = HEADER_BYTES - 4;

/// What an index maps from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// Offsets to positions: `.index`.
    Offset = 1,
    /// Timestamps to offsets: `.timeindex`.
    Time = 2,
}

/// Which frames an index file speaks of. Both files of a segment carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Base offset of the segment.
    pub segment_base: Offset,
    /// The random number of the log, as in its frames.
    pub log_number: u64,
    /// The index covers the frames below this offset.
    pub end: Offset,
    /// One past the last byte of those frames.
    pub end_position: u64,
    /// The latest timestamp of those records.
    pub max_timestamp: Timestamp,
    /// When the segment's first frame was written, by the broker's clock; zero where there is none below `end`.
    pub first_written_at: Timestamp,
    /// The log's latest generation when the index was written; 0 where that is not known, or has more than 32 bits.
    pub generation: u32,
}

/// Why the bytes of an index file cannot be used. The index is then built again from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Fewer bytes than a header, or than the entries it counts; or more.
    #[error("the index file has {found} bytes where {expected} belong")]
    Length {
        /// Bytes that the header asks for.
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// Another kind of file, or one of another version.
    #[error("the file is not an index of this kind and version")]
    NotAnIndex,
    /// The header's or the entries' checksum is wrong.
    #[error("a checksum of the index file is wrong")]
    Checksum,
    /// The checksums are right but the entries do not rise, or point beyond the end.
    #[error("the entries of the index file do not rise")]
    Disordered,
}

impl Coverage {
    /// Reads the header alone, as from the first block of an index file: enough to see whether the file fits its
    /// segment.
    ///
    /// # Errors
    /// When the header is not one of `kind`, or is damaged.
    pub fn decode(bytes: &[u8], kind: IndexKind) -> Result<Coverage, IndexError> {
        decode_header(bytes, kind).map(|header| header.coverage)
    }
}

struct Header {
    coverage: Coverage,
    entry_count: usize,
    entries_checksum: u32,
}

/// An entry of an index file.
pub(crate) trait Entry: Sized {
    const KIND: IndexKind;
    const BYTES: usize;

    /// Appends its [`Entry::BYTES`] bytes.
    fn put(&self, into: &mut Vec<u8>);

    /// Reads what [`Entry::put`] appended.
    fn get(bytes: &[u8]) -> Self;
}

/// The whole file.
pub(crate) fn encode<E: Entry>(coverage: &Coverage, entries: &[E]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEADER_BYTES + E::BYTES * entries.len());
    file.resize(HEADER_BYTES, 0);
    for entry in entries {
        entry.put(&mut file);
    }
    debug_assert_eq!(file.len(), HEADER_BYTES + E::BYTES * entries.len());
    let entries_checksum = crc32fast::hash(&file[HEADER_BYTES..]);

    file[0..4].copy_from_slice(&MAGIC);
    file[4..6].copy_from_slice(&VERSION.to_be_bytes());
    file[6..8].copy_from_slice(&(E::KIND as u16).to_be_bytes());
    file[8..16].copy_from_slice(&coverage.segment_base.get().to_be_bytes());
    file[16..24].copy_from_slice(&coverage.log_number.to_be_bytes());
    file[24..32].copy_from_slice(&coverage.end.get().to_be_bytes());
    file[32..40].copy_from_slice(&coverage.end_position.to_be_bytes());
    file[40..48].copy_from_slice(&coverage.max_timestamp.get().to_be_bytes());
    file[48..56].copy_from_slice(&coverage.first_written_at.get().to_be_bytes());
    // Entries number at most the blocks of a segment, which have 32 bits; a lie here would only make the file be
    // built again.
    file[56..60].copy_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_be_bytes());
    file[60..64].copy_from_slice(&entries_checksum.to_be_bytes());
    file[64..68].copy_from_slice(&coverage.generation.to_be_bytes());
    let header_checksum = crc32fast::hash(&file[..CHECKSUM_AT]);
    file[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&header_checksum.to_be_bytes());
    file
}

/// What [`encode`] made, with its checksums and lengths checked. Whether the entries make sense is for the caller.
pub(crate) fn decode<E: Entry>(bytes: &[u8]) -> Result<(Coverage, Vec<E>), IndexError> {
    let header = decode_header(bytes, E::KIND)?;
    let entries = &bytes[HEADER_BYTES..];
    let expected = header.entry_count.saturating_mul(E::BYTES);
    if entries.len() != expected {
        return Err(IndexError::Length { expected: expected.saturating_add(HEADER_BYTES), found: bytes.len() });
    }
    if crc32fast::hash(entries) != header.entries_checksum {
        return Err(IndexError::Checksum);
    }
    Ok((header.coverage, entries.chunks_exact(E::BYTES).map(E::get).collect()))
}

fn decode_header(bytes: &[u8], kind: IndexKind) -> Result<Header, IndexError> {
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Err(IndexError::Length { expected: HEADER_BYTES, found: bytes.len() });
    };
    if header[0..4] != MAGIC || header[4..6] != VERSION.to_be_bytes() || header[6..8] != (kind as u16).to_be_bytes() {
        return Err(IndexError::NotAnIndex);
    }
    if crc32fast::hash(&header[..CHECKSUM_AT]) != read_u32(header, CHECKSUM_AT) {
        return Err(IndexError::Checksum);
    }
    let coverage = Coverage {
        segment_base: read_offset(header, 8)?,
        log_number: read_u64(header, 16),
        end: read_offset(header, 24)?,
        end_position: read_u64(header, 32),
        max_timestamp: Timestamp::new(read_i64(header, 40)),
        first_written_at: Timestamp::new(read_i64(header, 48)),
        generation: read_u32(header, 64),
    };
    let entry_count = usize::try_from(read_u32(header, 56)).map_err(|_| IndexError::NotAnIndex)?;
    Ok(Header { coverage, entry_count, entries_checksum: read_u32(header, 60) })
}

/// The 4 bytes at `at`, which the caller has checked to be there.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(bytes, at))
}

pub(crate) fn read_i64(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(array(bytes, at))
}

fn read_offset(bytes: &[u8], at: usize) -> Result<Offset, IndexError> {
    Offset::checked(read_i64(bytes, at)).ok_or(IndexError::Disordered)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
