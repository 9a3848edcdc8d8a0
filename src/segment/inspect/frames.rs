//! The frames of one segment file, as they stand: whose they are, and whether they count, is not asked.

use std::io;
use std::ops::Range;
use std::path::Path;

use ringmq_runtime::buffer::{BLOCK_BYTES, IoBuf};
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_wire::{LeaderEpoch, Offset, Timestamp};

use crate::frame::{FRAME_HEADER_BYTES, FrameFault, FrameHeader};
use crate::layout::LogId;

/// What is read at a time, unless a frame is longer.
const PIECE_BYTES: usize = 1 << 20;

/// What a frame says of itself (`docs/formats/log-frame.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// Whose it is.
    pub id: LogId,
    /// The leader epoch under which its first batch was appended.
    pub leader_epoch: LeaderEpoch,
    /// Of the first record.
    pub base_offset: Offset,
    /// One past the last record.
    pub next_offset: Offset,
    /// Where the log's durable frames ended when it was built.
    pub frames_end: Offset,
    /// How far the log was durable then.
    pub durable_offset: Offset,
    /// The life of the log that wrote it.
    pub generation: u64,
    /// Of the log.
    pub log_number: u64,
    /// The segment for which it was written.
    pub segment_base: Offset,
    /// The position for which it was written.
    pub position: u64,
    /// When it was built.
    pub written_at: Timestamp,
    /// Of all its records.
    pub max_timestamp: Timestamp,
    /// How many records it holds.
    pub record_count: u32,
    /// Bytes of its batches.
    pub payload_bytes: u32,
    /// Bytes of the frame, header and padding included.
    pub frame_bytes: u32,
}

impl From<FrameHeader> for FrameInfo {
    fn from(header: FrameHeader) -> FrameInfo {
        FrameInfo {
            id: header.id,
            leader_epoch: header.leader_epoch,
            base_offset: header.base_offset,
            next_offset: header.next_offset,
            frames_end: header.frames_end,
            durable_offset: header.durable_offset,
            generation: header.generation.0,
            log_number: header.log_number.0,
            segment_base: header.segment_base,
            position: header.position,
            written_at: header.written_at,
            max_timestamp: header.max_timestamp,
            record_count: header.record_count,
            payload_bytes: header.payload_bytes,
            frame_bytes: header.frame_bytes,
        }
    }
}

/// What stands at a place of a segment file.
#[derive(Clone, Debug)]
pub enum Stretch {
    /// A frame whose checksums are right.
    Frame {
        /// Where it begins, in bytes.
        position: u64,
        /// What it says; its own position may be another one.
        info: FrameInfo,
        /// Its batches.
        payload: IoBuf,
    },
    /// Blocks in which no such frame begins.
    Unreadable {
        /// The bytes.
        bytes: Range<u64>,
        /// What is wrong with the first of them.
        fault: FrameFault,
    },
}

/// Reads a segment file from its beginning to its end.
pub struct FrameReader {
    file: File,
    file_bytes: u64,
    position: u64,
    /// A frame that was found while the end of unreadable blocks was looked for.
    found: Option<Stretch>,
}

impl FrameReader {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// What open(2) says.
    pub async fn open(path: &Path) -> io::Result<FrameReader> {
        let file = File::open(path, OpenOptions::default()).await?;
        let file_bytes = file.size().await?;
        Ok(FrameReader { file, file_bytes, position: 0, found: None })
    }

    /// What stands next; `None` at the end of the file. Space that was never written, to the end of the file, is one
    /// unreadable stretch with [`FrameFault::Zeros`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Stretch>> {
        if let Some(found) = self.found.take() {
            return Ok(Some(found));
        }
        let (begin, mut first_fault) = (self.position, None);
        while self.position < self.file_bytes {
            match self.frame_here().await? {
                Ok(frame) if first_fault.is_none() => return Ok(Some(frame)),
                Ok(frame) => {
                    self.found = Some(frame);
                    break;
                }
                Err((fault, bytes)) => {
                    // Zeros behind damage are told apart from it.
                    if first_fault.is_some_and(|first| (first == FrameFault::Zeros) != (fault == FrameFault::Zeros)) {
                        break;
                    }
                    first_fault = first_fault.or(Some(fault));
                    self.position += bytes;
                }
            }
        }
        let end = match &self.found {
            Some(Stretch::Frame { position, .. }) => *position,
            _ => self.position.min(self.file_bytes),
        };
        Ok(first_fault.map(|fault| Stretch::Unreadable { bytes: begin..end, fault }))
    }

    /// The frame that begins at the position, which goes on behind it; or why there is none, and how many bytes are
    /// concerned.
    async fn frame_here(&mut self) -> io::Result<Result<Stretch, (FrameFault, u64)>> {
        let block = BLOCK_BYTES as u64;
        let piece = self.file.read_at(self.position, PIECE_BYTES, IoClass::Recovery).await?;
        let header = match FrameHeader::decode(&piece) {
            Ok(header) => header,
            Err(FrameFault::Zeros) => {
                let zero = piece.iter().position(|byte| *byte != 0).unwrap_or(piece.len()) as u64;
                return Ok(Err((FrameFault::Zeros, (zero / block).max(1) * block)));
            }
            Err(fault) => return Ok(Err((fault, block))),
        };
        let position = self.position;
        let frame_bytes = u64::from(header.frame_bytes);
        if frame_bytes == 0 || position.checked_add(frame_bytes).is_none_or(|end| end > self.file_bytes) {
            return Ok(Err((FrameFault::Lengths, block)));
        }
        let whole = header.frame_bytes as usize;
        let frame = match piece.len() >= whole {
            true => piece.slice(..whole),
            false => self.file.read_at(position, whole, IoClass::Recovery).await?,
        };
        if frame.len() < whole || whole < FRAME_HEADER_BYTES || !FrameHeader::payload_is_sound(&frame) {
            return Ok(Err((FrameFault::PayloadChecksum, frame_bytes)));
        }
        self.position += frame_bytes;
        let payload = frame.slice(header.payload_range());
        Ok(Ok(Stretch::Frame { position, info: header.into(), payload }))
    }
}
