//! Zstandard (RFC 8878): one frame.

use std::io::{self, Write};

use bytes::buf::Writer;
use bytes::{BufMut, BytesMut};
use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};
use zstd::stream::{raw, write};

use super::compressor::Encoder;
use super::decompressor::{Decoder, ENDS_EARLY, STEP_COMPRESSED_BYTES, append_to};

/// The largest window that every reader should take (RFC 8878, section 3.1.1.1.2), as the logarithm to base 2: 8 MiB.
const WINDOW_LOG_COMMON: u32 = 23;

/// The largest that is taken at all: 128 MiB, beyond which no writer goes unless it is made to.
const WINDOW_LOG_MAX: u32 = 27;

/// What Kafka's clients compress with by default.
const LEVEL: i32 = 3;

/// Fewer than the 128 KiB of a block, which is compressed in one go.
const ENCODER_STEP_BYTES: usize = 16 << 10;

pub(super) struct ZstdDecoder<'s> {
    frame: raw::Decoder<'static>,
    rest: &'s [u8],
}

impl<'s> ZstdDecoder<'s> {
    /// Takes a window that is larger than what may come out only where most writers ask for it whatever they write.
    pub(super) fn new(compressed: &'s [u8], bytes_max: usize) -> Result<ZstdDecoder<'s>, String> {
        let window_log = bytes_max.saturating_mul(2).checked_ilog2().unwrap_or(0);
        let window_log_max = window_log.clamp(WINDOW_LOG_COMMON, WINDOW_LOG_MAX);
        let frame = || {
            let mut frame = raw::Decoder::new()?;
            frame.set_parameter(DParameter::WindowLogMax(window_log_max))?;
            Ok(frame)
        };
        let frame = frame().map_err(|error: io::Error| error.to_string())?;
        Ok(ZstdDecoder { frame, rest: compressed })
    }
}

impl Decoder for ZstdDecoder<'_> {
    fn decode(&mut self, records: &mut Vec<u8>, room: usize) -> Result<bool, String> {
        let mut given = InBuffer::around(&self.rest[..self.rest.len().min(STEP_COMPRESSED_BYTES)]);
        let (written, wanted) = append_to(records, room, |slot| {
            let mut slot = OutBuffer::around(slot);
            let wanted = self.frame.run(&mut given, &mut slot);
            (slot.pos(), (slot.pos(), wanted))
        });
        let read = given.pos();
        self.rest = self.rest.get(read..).unwrap_or_default();
        match wanted {
            Ok(0) => Ok(true),
            Ok(_) if read > 0 || written > 0 => Ok(false),
            Ok(_) => Err(ENDS_EARLY.to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn bytes_left(&self) -> usize {
        self.rest.len()
    }
}

pub(super) struct ZstdEncoder(write::Encoder<'static, Writer<BytesMut>>);

impl ZstdEncoder {
    /// A frame that says how many bytes it holds, so that its reader needs no larger window.
    pub(super) fn new(records_bytes: usize, out: BytesMut) -> io::Result<ZstdEncoder> {
        let mut frame = write::Encoder::new(out.writer(), LEVEL)?;
        frame.set_pledged_src_size(Some(records_bytes as u64))?;
        Ok(ZstdEncoder(frame))
    }
}

impl Encoder for ZstdEncoder {
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.0.write_all(records)
    }

    fn drain(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    fn step_bytes(&self) -> usize {
        ENCODER_STEP_BYTES
    }

    fn finish(self: Box<Self>) -> io::Result<BytesMut> {
        self.0.finish().map(Writer::into_inner)
    }
}
