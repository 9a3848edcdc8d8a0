//! Decompressing, within a limit and in steps.

use super::{Compression, gzip, lz4, snappy, zstd};
use crate::batch::BatchError;

/// How much a step gives, compresses or sums up at most, in bytes. It takes some tens of microseconds, a hundred or two
/// with the slower schemes.
pub(in crate::batch) const STEP_BYTES: usize = 64 << 10;

/// How much of what is compressed a step looks at, at most, in bytes. Few bytes can mean much work that gives nothing: gzip
/// and zstd take microseconds for the tables of a block, which may be empty.
pub(super) const STEP_COMPRESSED_BYTES: usize = 8 << 10;

/// What a compressed batch may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecompressLimits {
    /// The most that the records of one batch may take, in bytes. Default: 64 MiB. A few bytes can claim thousands of times
    /// their size.
    ///
    /// A decoder's own memory comes on top: with zstd the window that the batch asks for, which is refused beyond twice
    /// this or 8 MiB, whichever is more; else less than 9 MiB.
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

    /// Begins to decompress into this room. Nothing comes out of a batch that is not compressed.
    pub(in crate::batch) fn begin<'s>(
        &'s mut self,
        compression: Compression,
        compressed: &'s [u8],
    ) -> Result<Decompressor<'s>, BatchError> {
        let bytes_max = self.limits.decompressed_bytes_max;
        let decoder: Result<Box<dyn Decoder + 's>, String> = match compression {
            Compression::None => Err("it is not compressed".to_owned()),
            Compression::Gzip => Ok(Box::new(gzip::GzipDecoder::new(compressed))),
            Compression::Snappy => Ok(Box::new(snappy::SnappyDecoder::new(compressed))),
            Compression::Lz4 => lz4::Lz4Decoder::new(compressed).map(|decoder| Box::new(decoder) as _),
            Compression::Zstd => zstd::ZstdDecoder::new(compressed, bytes_max).map(|decoder| Box::new(decoder) as _),
        };
        let decoder = decoder.map_err(|reason| BatchError::Decompress { compression, reason })?;
        self.records.clear();
        // Most records shrink to no less than a quarter; the room is kept in the scratch for the next batch.
        self.records.reserve(compressed.len().saturating_mul(4).min(bytes_max));
        Ok(Decompressor { compression, decoder, bytes_max, records: &mut self.records, is_whole: false })
    }
}

/// One scheme's way to decompress.
pub(super) trait Decoder {
    /// Goes on: appends `room` bytes to the records at most, or a few more; `true` when that was the end of the stream. An
    /// error says what is wrong; a stream that ends early is one.
    fn decode(&mut self, records: &mut Vec<u8>, room: usize) -> Result<bool, String>;

    /// Bytes that it has not looked at.
    fn bytes_left(&self) -> usize;
}

/// What a decoder says of a stream that ends early.
pub(super) const ENDS_EARLY: &str = "the stream ends early";

/// Fills a [`Scratch`] from one compressed stream.
pub(in crate::batch) struct Decompressor<'s> {
    compression: Compression,
    decoder: Box<dyn Decoder + 's>,
    bytes_max: usize,
    records: &'s mut Vec<u8>,
    is_whole: bool,
}

impl<'s> Decompressor<'s> {
    /// Goes on; `true` when that was the end of it.
    pub(in crate::batch) fn step(&mut self) -> Result<bool, BatchError> {
        if self.is_whole {
            return Ok(true);
        }
        let bytes_max = self.bytes_max;
        // One byte more than allowed tells a batch that is too large from one that just fits.
        let room = STEP_BYTES.min(bytes_max.saturating_sub(self.records.len()).saturating_add(1));
        let is_over = self.decoder.decode(self.records, room).map_err(|reason| self.failed(reason))?;
        if self.records.len() > bytes_max {
            return Err(BatchError::DecompressedTooLarge { bytes_max });
        }
        if is_over && self.decoder.bytes_left() > 0 {
            return Err(self.failed(format!("{} bytes are left over behind the stream", self.decoder.bytes_left())));
        }
        self.is_whole = is_over;
        Ok(is_over)
    }

    /// What came out so far, in bytes.
    #[cfg(test)]
    pub(super) fn decompressed_bytes(&self) -> usize {
        self.records.len()
    }

    /// What came out, once a step was the last.
    pub(in crate::batch) fn finish(self) -> Result<&'s [u8], BatchError> {
        match self.is_whole {
            true => Ok(self.records),
            false => Err(self.failed("it was not decompressed to its end".to_owned())),
        }
    }

    fn failed(&self, reason: String) -> BatchError {
        BatchError::Decompress { compression: self.compression, reason }
    }
}

/// Appends what `fill` writes into room for so many bytes. It returns how many, and whatever else there is to tell.
pub(super) fn append_to<T>(records: &mut Vec<u8>, room: usize, fill: impl FnOnce(&mut [u8]) -> (usize, T)) -> T {
    let at = records.len();
    records.resize(at.saturating_add(room), 0);
    let (written, told) = fill(&mut records[at..]);
    records.truncate(at + written.min(room));
    told
}
