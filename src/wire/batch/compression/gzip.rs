//! gzip (RFC 1952): one member, with its checksum.

use std::io::{self, Write};

use bytes::buf::Writer;
use bytes::{BufMut, BytesMut};
use flate2::write::GzEncoder;
use flate2::{Compression, Decompress, FlushDecompress, Status};

use super::compressor::Encoder;
use super::decompressor::{Decoder, ENDS_EARLY, STEP_COMPRESSED_BYTES, append_to};

/// The largest window that there is, as the logarithm to base 2.
const WINDOW_BITS: u8 = 15;

/// It gives some 300 MB/s, so its steps are shorter than others'.
const STEP_BYTES: usize = 32 << 10;

/// It takes some tens of MB/s.
const ENCODER_STEP_BYTES: usize = 4 << 10;

pub(super) struct GzipDecoder<'s> {
    inflate: Decompress,
    rest: &'s [u8],
}

impl<'s> GzipDecoder<'s> {
    pub(super) fn new(compressed: &'s [u8]) -> GzipDecoder<'s> {
        GzipDecoder { inflate: Decompress::new_gzip(WINDOW_BITS), rest: compressed }
    }
}

impl Decoder for GzipDecoder<'_> {
    fn decode(&mut self, records: &mut Vec<u8>, room: usize) -> Result<bool, String> {
        let given = &self.rest[..self.rest.len().min(STEP_COMPRESSED_BYTES)];
        let (read_before, written_before) = (self.inflate.total_in(), self.inflate.total_out());
        let status = append_to(records, room.min(STEP_BYTES), |slot| {
            let status = self.inflate.decompress(given, slot, FlushDecompress::None);
            (since(written_before, self.inflate.total_out()), status)
        });
        let read = since(read_before, self.inflate.total_in());
        let goes_on = read > 0 || self.inflate.total_out() > written_before;
        self.rest = self.rest.get(read..).unwrap_or_default();
        match status {
            Ok(Status::StreamEnd) => Ok(true),
            Ok(_) if goes_on => Ok(false),
            Ok(_) => Err(ENDS_EARLY.to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn bytes_left(&self) -> usize {
        self.rest.len()
    }
}

fn since(before: u64, now: u64) -> usize {
    usize::try_from(now - before).unwrap_or(usize::MAX)
}

pub(super) struct GzipEncoder(GzEncoder<Writer<BytesMut>>);

impl GzipEncoder {
    pub(super) fn new(out: BytesMut) -> GzipEncoder {
        GzipEncoder(GzEncoder::new(out.writer(), Compression::default()))
    }
}

impl Encoder for GzipEncoder {
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.0.write_all(records)
    }

    fn step_bytes(&self) -> usize {
        ENCODER_STEP_BYTES
    }

    fn finish(self: Box<Self>) -> io::Result<BytesMut> {
        self.0.finish().map(Writer::into_inner)
    }
}
