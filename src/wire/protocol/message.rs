//! What the bodies of frames are made of.

use bytes::{BufMut, BytesMut};

use super::RequestType;
use crate::codec::{Codec, DecodeError, DecodeProblem, Reader};

/// The longest head in front of sections, in bytes: room for tens of thousands of partitions. It bounds what a
/// receiver must gather before it knows where the sections go.
pub const HEAD_BYTES_MAX: usize = 1024 * 1024;

/// A message that is the whole body of its frame: [`Codec::encode`] writes it, [`Codec::decode_whole`] reads it.
pub trait Message: Codec {}

/// A request, or the head of one.
pub trait Request: Codec {
    /// The type that its frame carries.
    const TYPE: RequestType;

    /// What answers it.
    type Response: Codec;
}

/// The head of a body that goes on with sections of record batches, concatenated in the head's order:
/// `u32` length of the head, head, sections.
pub trait SectionHead: Codec {
    /// The sum of the lengths of the sections, in bytes.
    fn section_bytes(&self) -> u64;

    /// Appends the head with its length in front; the sections follow it on the wire.
    fn encode_head(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u32(0);
        self.encode(out);
        // A head that outgrows its prefix is refused by its length, never read as a shorter one.
        let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Decodes the head from the start of a body, of which `body` has arrived and which is `body_bytes` long in all.
    ///
    /// Gives the head and where the first section starts in the body, or `None` until the whole head is there.
    ///
    /// # Errors
    /// When the head is longer than its frame or than [`HEAD_BYTES_MAX`], cannot be decoded, or announces sections
    /// of another length than what follows it.
    fn decode_head(body: &[u8], body_bytes: u32) -> Result<Option<(Self, usize)>, DecodeError> {
        let mut reader = Reader::new(body);
        let body_bytes = body_bytes as usize;
        if body_bytes < 4 {
            return Err(reader.error("head length", DecodeProblem::Truncated { needed: 4, remaining: body_bytes }));
        }
        if reader.remaining() < 4 {
            return Ok(None);
        }
        let head_bytes = u32::decode(&mut reader)? as usize;
        if head_bytes > body_bytes - 4 {
            let problem = DecodeProblem::Truncated { needed: head_bytes, remaining: body_bytes - 4 };
            return Err(reader.error("head", problem));
        }
        if head_bytes > HEAD_BYTES_MAX {
            let problem = DecodeProblem::TooLong { bytes: head_bytes, bytes_max: HEAD_BYTES_MAX };
            return Err(reader.error("head", problem));
        }
        if reader.remaining() < head_bytes {
            return Ok(None);
        }
        let head = Self::decode_whole(reader.take(head_bytes, "head")?)?;
        let (announced, present) = (head.section_bytes(), (body_bytes - 4 - head_bytes) as u64);
        if announced != present {
            return Err(reader.error("sections", DecodeProblem::Sections { announced, present }));
        }
        Ok(Some((head, reader.position())))
    }
}

/// Marks a struct as the request of a type, answered by another struct.
macro_rules! request {
    ($request:ident is $request_type:ident, answered by $response:ident) => {
        impl $crate::protocol::Request for $request {
            const TYPE: $crate::protocol::RequestType = $crate::protocol::RequestType::$request_type;
            type Response = $response;
        }
    };
}

pub(crate) use request;
