//! Compressing, in steps.

use std::io;

use bytes::{Buf, Bytes, BytesMut};

use super::decompressor::STEP_BYTES;
use super::{Compression, gzip, lz4, snappy, zstd};

/// Writes one compressed stream behind what is in a buffer.
pub(in crate::batch) struct Compressor {
    encoder: Box<dyn Encoder>,
}

impl Compressor {
    /// Begins a stream for so many bytes of records.
    pub(in crate::batch) fn new(
        compression: Compression,
        records_bytes: usize,
        out: BytesMut,
    ) -> io::Result<Compressor> {
        let encoder: Box<dyn Encoder> = match compression {
            Compression::None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "none is no way to compress")),
            Compression::Gzip => Box::new(gzip::GzipEncoder::new(out)),
            Compression::Snappy => Box::new(snappy::SnappyEncoder::new(out)),
            Compression::Lz4 => Box::new(lz4::Lz4Encoder::new(out)?),
            Compression::Zstd => Box::new(zstd::ZstdEncoder::new(records_bytes, out)?),
        };
        Ok(Compressor { encoder })
    }

    /// Compresses records.
    pub(in crate::batch) fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.encoder.write(records)
    }

    /// Compresses some of the records, and takes them away.
    pub(in crate::batch) fn step(&mut self, records: &mut Bytes) -> io::Result<()> {
        let bytes = self.encoder.step_bytes().min(records.len());
        self.encoder.write(&records[..bytes])?;
        self.encoder.drain()?;
        records.advance(bytes);
        Ok(())
    }

    /// Ends the stream.
    pub(in crate::batch) fn finish(self) -> io::Result<BytesMut> {
        self.encoder.finish()
    }
}

/// One scheme's way to compress.
pub(super) trait Encoder {
    /// Takes some of the records.
    fn write(&mut self, records: &[u8]) -> io::Result<()>;

    /// Compresses what it took and holds back, so that a later step does not have all of it to do.
    fn drain(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Records that it compresses in a hundred or two microseconds, in bytes.
    fn step_bytes(&self) -> usize {
        STEP_BYTES
    }

    /// Ends the stream.
    fn finish(self: Box<Self>) -> io::Result<BytesMut>;
}
