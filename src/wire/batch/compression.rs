//! Compression of a batch's records as a whole.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::buf::Writer;
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

    /// Begins to decompress into this room, in steps of about [`STEP_BYTES`].
    pub(super) fn begin<'s>(
        &'s mut self,
        compression: Compression,
        compressed: &'s [u8],
    ) -> Result<Decompressor<'s>, BatchError> {
        self.records.clear();
        let decoder = match compression {
            Compression::Lz4 => lz4::Decoder::new(compressed).map_err(|error| failed(compression, &error))?,
            _ => return Err(BatchError::UnsupportedCompression { compression }),
        };
        let bytes_max = self.limits.decompressed_bytes_max;
        // Most records shrink to no less than a quarter; the room is kept in the scratch for the next batch.
        self.records.reserve(compressed.len().saturating_mul(4).min(bytes_max));
        Ok(Decompressor { compression, decoder, bytes_max, records: &mut self.records })
    }
}

/// How much is decompressed, compressed or summed up in one step, in bytes: some tens of microseconds, where blocks are not
/// longer.
pub(super) const STEP_BYTES: usize = 64 << 10;

/// Fills a [`Scratch`] from one LZ4 frame. The decoder's own memory is two of the frame's blocks, 8 MiB at most.
pub(super) struct Decompressor<'s> {
    compression: Compression,
    decoder: lz4::Decoder<&'s [u8]>,
    bytes_max: usize,
    records: &'s mut Vec<u8>,
}

impl<'s> Decompressor<'s> {
    /// Goes on; `true` when that was the end of it.
    pub(super) fn step(&mut self) -> Result<bool, BatchError> {
        let (before, bytes_max) = (self.records.len(), self.bytes_max);
        // One byte more than allowed tells a batch that is too large from one that just fits.
        let wanted = STEP_BYTES.min(bytes_max.saturating_sub(before).saturating_add(1));
        let read = self.decoder.by_ref().take(wanted as u64).read_to_end(self.records);
        read.map_err(|error| failed(self.compression, &error))?;
        if self.records.len() > bytes_max {
            return Err(BatchError::DecompressedTooLarge { bytes_max });
        }
        Ok(self.records.len() - before < wanted)
    }

    /// What came out, once a step was the last.
    pub(super) fn finish(self) -> Result<&'s [u8], BatchError> {
        let failed = |reason: String| BatchError::Decompress { compression: self.compression, reason };
        match self.decoder.finish() {
            (_, Err(_)) => Err(failed("the frame ends early".to_owned())),
            ([], Ok(())) => Ok(self.records),
            (rest, Ok(())) => Err(failed(format!("{} bytes are left over behind the frame", rest.len()))),
        }
    }
}

fn failed(compression: Compression, error: &io::Error) -> BatchError {
    BatchError::Decompress { compression, reason: error.to_string() }
}

/// Writes one LZ4 frame behind what is in a buffer: independent blocks of 64 KiB, as Kafka's Java client can read them, and
/// no checksums of its own, since the batch has one.
pub(super) struct Compressor(lz4::Encoder<Writer<BytesMut>>);

impl Compressor {
    pub(super) fn new(out: BytesMut) -> io::Result<Compressor> {
        lz4::EncoderBuilder::new()
            .block_mode(lz4::BlockMode::Independent)
            .block_size(lz4::BlockSize::Max64KB)
            .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
            .checksum(lz4::ContentChecksum::NoChecksum)
            .build(out.writer())
            .map(Compressor)
    }

    pub(super) fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.0.write_all(records)
    }

    pub(super) fn finish(self) -> io::Result<BytesMut> {
        let (out, finished) = self.0.finish();
        finished.map(|()| out.into_inner())
    }
}
