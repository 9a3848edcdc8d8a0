//! What is appended: record batches in memory that may become a frame as it is.

use std::fmt;

use bytes::Bytes;
use ringmq_runtime::buffer::{AlignedBuf, IoBuf, size_class};

use crate::frame::FRAME_HEADER_BYTES;

/// Record batches with room for a frame's header in front and for padding behind: what is received into it is written
/// from where it stands.
///
/// ```
/// # use ringmq_segment::FrameBuf;
/// # fn receive(into: &mut [u8]) {}
/// let mut section = FrameBuf::with_payload_len(1_000_000);
/// receive(section.payload_mut());
/// ```
pub struct FrameBuf {
    buf: AlignedBuf,
    payload_len: usize,
}

impl FrameBuf {
    /// Room for `len` bytes of record batches, which hold whatever was in the memory before. The caller bounds `len`.
    #[must_use]
    pub fn with_payload_len(len: usize) -> FrameBuf {
        FrameBuf { buf: AlignedBuf::with_len(frame_bytes_for(len)), payload_len: len }
    }

    /// The record batches.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buf[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.payload_len]
    }

    /// The record batches, to be filled.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buf[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.payload_len]
    }

    /// The record batches, to be shared; they are no frame any more.
    pub(crate) fn into_payload(self) -> IoBuf {
        let payload = FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.payload_len;
        self.buf.freeze().slice(payload)
    }

    /// The whole frame: header room, payload, padding.
    pub(crate) fn into_frame(self) -> AlignedBuf {
        self.buf
    }
}

impl fmt::Debug for FrameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBuf").field("payload_len", &self.payload_len).finish_non_exhaustive()
    }
}

/// The length of a frame with that much payload.
pub(crate) fn frame_bytes_for(payload_len: usize) -> usize {
    size_class(FRAME_HEADER_BYTES + payload_len)
}

/// One or more whole record batches.
#[derive(Debug)]
pub enum Payload {
    /// In memory that can become a frame without a copy.
    Frame(FrameBuf),
    /// In any memory; copied into a frame.
    Copied(Bytes),
}

impl Payload {
    /// The record batches.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Payload::Frame(frame) => frame.payload(),
            Payload::Copied(bytes) => bytes,
        }
    }
}
