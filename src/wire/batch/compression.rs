//! Compression of a batch's records as a whole.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::{BufMut, BytesMut};

use super::BatchError;

/// How the records of a batch are compressed. The broker stores and serves all of them; this crate builds and reads
/// [`None`](Self::None) and [`Lz4`](Self::Lz4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Snappy, in the framing of snappy-java.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Compression {
    /// Its number in the attributes of a batch.
    pub(super) const fn to_bits(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    pub(super) const fn from_bits(bits: u16) -> Option<Self> {
        match bits {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name that configurations use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a compressed batch may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecompressLimits {
    /// The most that the records of one batch may take, in bytes. Default: 64 MiB. A few bytes of LZ4 can claim 255
    /// times their size.
    pub decompressed_bytes_max: usize,
}

impl Default for DecompressLimits {
    fn default() -> Self {
        Self { decompressed_bytes_max: 64 * 1024 * 1024 }
    }
}

/// Room for the records of a compressed batch, used again for the next one.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    limits: DecompressLimits,
    records: Vec<u8>,
}

impl Scratch {
    /// Room up to a limit; nothing is reserved until a compressed batch comes.
    pub const fn new(limits: DecompressLimits) -> Self {
        Self { limits, records: Vec::new() }
    }

    pub(super) fn decompress(&mut self, compression: Compression, compressed: &[u8]) -> Result<&[u8], BatchError> {
        self.records.clear();
        match compression {
            Compression::Lz4 => decompress_lz4(compressed, self.limits, &mut self.records)?,
            _ => return Err(BatchError::UnsupportedCompression { compression }),
        }
        Ok(&self.records)
    }
}

/// Appends `records` as one LZ4 frame: independent blocks of 64 KiB, as Kafka's Java client can read them, and no
/// checksums of its own, since the batch has one.
pub(super) fn compress_lz4(records: &[u8], out: &mut BytesMut) -> io::Result<()> {
    let mut encoder = lz4::EncoderBuilder::new()
        .block_mode(lz4::BlockMode::Independent)
        .block_size(lz4::BlockSize::Max64KB)
        .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
        .checksum(lz4::ContentChecksum::NoChecksum)
        .build(out.writer())?;
    encoder.write_all(records)?;
    encoder.finish().1
}

/// Fills `out` from one LZ4 frame. The decompressor's own memory is two of the frame's blocks, 8 MiB at most.
fn decompress_lz4(frame: &[u8], limits: DecompressLimits, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let failed = |reason: String| BatchError::Decompress { compression: Compression::Lz4, reason };
    let bytes_max = limits.decompressed_bytes_max;
    let mut decoder = lz4::Decoder::new(frame).map_err(|error| failed(error.to_string()))?;
    // Most records shrink to no less than a quarter; the room is kept in the scratch for the next batch.
    out.reserve(frame.len().saturating_mul(4).min(bytes_max));
    // One byte more than allowed tells a batch that is too large from one that just fits.
    let mut bounded = decoder.by_ref().take((bytes_max as u64).saturating_add(1));
    bounded.read_to_end(out).map_err(|error| failed(error.to_string()))?;
    if out.len() > bytes_max {
        return Err(BatchError::DecompressedTooLarge { bytes_max });
    }
    match decoder.finish() {
        (_, Err(_)) => Err(failed("the frame ends early".to_owned())),
        ([], Ok(())) => Ok(()),
        (rest, Ok(())) => Err(failed(format!("{} bytes are left over behind the frame", rest.len()))),
    }
}
