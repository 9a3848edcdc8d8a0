//! Snappy: bare blocks, and the framing of snappy-java (xerial) around blocks.
//!
//! Blocks are taken apart here: the `snap` crate does a block in one go, and a bare one is as long as the batch.

use std::io;

use bytes::{BufMut, BytesMut};

use super::compressor::Encoder;
use super::decompressor::{Decoder, ENDS_EARLY};

/// What the framing begins with. As a bare block it would begin with a copy of bytes that are not there yet.
const FRAMING_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";

/// The framing's version and the oldest that it is compatible with.
const FRAMING_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];

/// Records in one block, as the Java client has them.
const BLOCK_BYTES: usize = 32 << 10;

pub(super) struct SnappyDecoder<'s> {
    /// Behind the block that is under way.
    rest: &'s [u8],
    is_framed: bool,
    block: Option<Block<'s>>,
}

/// A block that is under way.
struct Block<'s> {
    /// What is left of it.
    rest: &'s [u8],
    /// What is left of the literal that it is in.
    literal_bytes: usize,
    /// Where it begins among the records, and where it says that it ends.
    start: usize,
    end: usize,
}

impl<'s> SnappyDecoder<'s> {
    pub(super) fn new(compressed: &'s [u8]) -> SnappyDecoder<'s> {
        let framed = compressed
            .strip_prefix(&FRAMING_MAGIC)
            // Nobody ever wrote other versions, and not every reader looks at them.
            .and_then(|versions| versions.get(FRAMING_VERSIONS.len()..));
        SnappyDecoder { rest: framed.unwrap_or(compressed), is_framed: framed.is_some(), block: None }
    }

    /// The next block, which begins behind that many bytes of records. A bare one is the only one.
    fn next_block(&mut self, start: usize) -> Result<Block<'s>, String> {
        let bytes = match self.is_framed {
            true => {
                let (length, rest) = self.rest.split_first_chunk().ok_or(ENDS_EARLY)?;
                self.rest = rest;
                u32::from_be_bytes(*length) as usize
            }
            false => self.rest.len(),
        };
        let (block, rest) = self.rest.split_at_checked(bytes).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Block::new(block, start)
    }
}

impl Decoder for SnappyDecoder<'_> {
    fn decode(&mut self, records: &mut Vec<u8>, room: usize) -> Result<bool, String> {
        let full = records.len().saturating_add(room);
        // Each time something comes out, but where a block is empty.
        for _ in 0..room {
            if records.len() >= full {
                break;
            }
            match &mut self.block {
                Some(block) if block.is_over(records)? => {
                    self.block = None;
                    if self.rest.is_empty() {
                        return Ok(true);
                    }
                }
                Some(block) => block.element(records, full)?,
                None if self.rest.is_empty() && self.is_framed => return Ok(true),
                None => self.block = Some(self.next_block(records.len())?),
            }
        }
        Ok(false)
    }

    fn bytes_left(&self) -> usize {
        self.rest.len()
    }
}

impl<'s> Block<'s> {
    fn new(mut block: &'s [u8], start: usize) -> Result<Block<'s>, String> {
        let mut length = 0;
        for shift in [0, 7, 14, 21, 28] {
            let (&byte, rest) = block.split_first().ok_or(ENDS_EARLY)?;
            block = rest;
            length |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let length = u32::try_from(length).map_err(|_| TOO_LONG)?;
                return Ok(Block { rest: block, literal_bytes: 0, start, end: start.saturating_add(length as usize) });
            }
        }
        Err(TOO_LONG.to_owned())
    }

    /// Whether it gave what it said. Only then may it end.
    fn is_over(&self, records: &[u8]) -> Result<bool, String> {
        match (self.rest.is_empty(), records.len() >= self.end) {
            (true, true) => Ok(true),
            (true, false) => Err(ENDS_EARLY.to_owned()),
            (false, true) => Err("a block goes on behind its end".to_owned()),
            (false, false) => Ok(false),
        }
    }

    /// Does the next element, or what of it there is room for.
    fn element(&mut self, records: &mut Vec<u8>, full: usize) -> Result<(), String> {
        if self.literal_bytes > 0 {
            return self.literal(records, full);
        }
        let tag = self.number(1)?;
        let upper = tag >> 2;
        match tag & 3 {
            0 if upper < 60 => {
                self.literal_bytes = upper + 1;
                self.literal(records, full)
            }
            0 => {
                self.literal_bytes = self.number(upper - 59)?.saturating_add(1);
                self.literal(records, full)
            }
            1 => {
                let back = (upper >> 3) << 8 | self.number(1)?;
                self.copy(records, back, 4 + (upper & 7))
            }
            kind => {
                let back = self.number(if kind == 2 { 2 } else { 4 })?;
                self.copy(records, back, 1 + upper)
            }
        }
    }

    /// A little-endian number of so many bytes, four at most.
    fn number(&mut self, bytes: usize) -> Result<usize, String> {
        let (number, rest) = self.rest.split_at_checked(bytes).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(number.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes as they are.
    fn literal(&mut self, records: &mut Vec<u8>, full: usize) -> Result<(), String> {
        if self.literal_bytes > self.end.saturating_sub(records.len()) {
            return Err(TOO_LONG.to_owned());
        }
        let bytes = self.literal_bytes.min(full.saturating_sub(records.len()));
        let (literal, rest) = self.rest.split_at_checked(bytes).ok_or(ENDS_EARLY)?;
        records.extend_from_slice(literal);
        (self.rest, self.literal_bytes) = (rest, self.literal_bytes - bytes);
        Ok(())
    }

    /// Bytes that came before in this block, `back` bytes ago. They may run into what they give: then they repeat.
    fn copy(&mut self, records: &mut Vec<u8>, back: usize, bytes: usize) -> Result<(), String> {
        let at = records.len();
        if back == 0 || back > at - self.start {
            return Err("a copy of bytes before the block".to_owned());
        }
        if bytes > self.end.saturating_sub(at) {
            return Err(TOO_LONG.to_owned());
        }
        let (from, end) = (at - back, at + bytes);
        while records.len() < end {
            let there = (records.len() - from).min(end - records.len());
            records.extend_from_within(from..from + there);
        }
        Ok(())
    }
}

const TOO_LONG: &str = "a block is longer than it says";

/// Writes blocks in the framing of snappy-java, which every Kafka client reads.
pub(super) struct SnappyEncoder {
    out: BytesMut,
    block: snap::raw::Encoder,
}

impl SnappyEncoder {
    pub(super) fn new(mut out: BytesMut) -> SnappyEncoder {
        out.put_slice(&FRAMING_MAGIC);
        out.put_slice(&FRAMING_VERSIONS);
        SnappyEncoder { out, block: snap::raw::Encoder::new() }
    }
}

impl Encoder for SnappyEncoder {
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        for records in records.chunks(BLOCK_BYTES) {
            let at = self.out.len() + size_of::<u32>();
            self.out.resize(at + snap::raw::max_compress_len(records.len()), 0);
            let bytes = self.block.compress(records, &mut self.out[at..])?;
            let length = u32::try_from(bytes).map_err(io::Error::other)?;
            self.out[at - size_of::<u32>()..at].copy_from_slice(&length.to_be_bytes());
            self.out.truncate(at + bytes);
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<BytesMut> {
        Ok(self.out)
    }
}
