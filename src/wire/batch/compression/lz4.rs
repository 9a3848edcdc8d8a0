//! The LZ4 frame format.

use std::io::{self, ErrorKind, Read, Write};

use bytes::buf::Writer;
use bytes::{BufMut, BytesMut};

use super::compressor::Encoder;
use super::decompressor::{Decoder, ENDS_EARLY};

/// What a step looks at, in bytes. A block that gives nothing takes five of them and a tenth of a microsecond.
const STEP_COMPRESSED_BYTES: usize = 16 << 10;

/// The decoder's own memory is two of the frame's blocks, 8 MiB at most.
pub(super) struct Lz4Decoder<'s> {
    /// None behind the end of the frame.
    frame: Option<lz4::Decoder<Portions<'s>>>,
    bytes_left: usize,
}

impl<'s> Lz4Decoder<'s> {
    pub(super) fn new(compressed: &'s [u8]) -> Result<Lz4Decoder<'s>, String> {
        let portions = Portions { rest: compressed, taken: 0 };
        let frame = lz4::Decoder::new(portions).map_err(|error| error.to_string())?;
        Ok(Lz4Decoder { frame: Some(frame), bytes_left: compressed.len() })
    }
}

impl Decoder for Lz4Decoder<'_> {
    fn decode(&mut self, records: &mut Vec<u8>, room: usize) -> Result<bool, String> {
        let Some(frame) = &mut self.frame else { return Ok(true) };
        let mut slot = frame.take(room as u64);
        match slot.read_to_end(records) {
            Ok(_) if slot.limit() == 0 => return Ok(false),
            Ok(_) => {}
            // What came before the pause is among the records.
            Err(pause) if pause.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.to_string()),
        }
        match self.frame.take().map(lz4::Decoder::finish) {
            Some((_, Err(_))) => Err(ENDS_EARLY.to_owned()),
            Some((portions, Ok(()))) => {
                self.bytes_left = portions.rest.len();
                Ok(true)
            }
            None => Ok(true),
        }
    }

    fn bytes_left(&self) -> usize {
        self.bytes_left
    }
}

/// The compressed bytes, with a pause (an error that can be gone on behind) after every so many.
struct Portions<'s> {
    rest: &'s [u8],
    taken: usize,
}

impl Read for Portions<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken >= STEP_COMPRESSED_BYTES {
            self.taken = 0;
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = self.rest.read(buffer)?;
        self.taken += read;
        Ok(read)
    }
}

/// Writes independent blocks of 64 KiB, as Kafka's Java client can read them, and no checksums of its own, since the batch
/// has one.
pub(super) struct Lz4Encoder(lz4::Encoder<Writer<BytesMut>>);

impl Lz4Encoder {
    pub(super) fn new(out: BytesMut) -> io::Result<Lz4Encoder> {
        lz4::EncoderBuilder::new()
            .block_mode(lz4::BlockMode::Independent)
            .block_size(lz4::BlockSize::Max64KB)
            .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
            .checksum(lz4::ContentChecksum::NoChecksum)
            .build(out.writer())
            .map(Lz4Encoder)
    }
}

impl Encoder for Lz4Encoder {
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.0.write_all(records)
    }

    fn finish(self: Box<Self>) -> io::Result<BytesMut> {
        let (out, finished) = self.0.finish();
        finished.map(|()| out.into_inner())
    }
}
