//! What the bodies of frames are made of.

use super::RequestType;
use crate::codec::{Codec, DecodeError, DecodeProblem, Reader};

/// A message that is the whole body of its frame: [`Codec::encode`] writes it, [`Codec::decode_whole`] reads it.
pub trait Message: Codec {}

/// A request, or the head of one.
pub trait Request: Codec {
    /// The type that its frame carries.
    const TYPE: RequestType;

    /// What answers it, or the head of that.
    type Response: Codec;
}

/// The head of a body that goes on with sections of record batches, concatenated in the head's order:
/// `u32` length of the head, head, sections.
pub trait SectionHead: Codec {
    /// The longest head that is sent or taken, in bytes: it bounds what a receiver gathers before it knows where the
    /// sections go.
    const HEAD_BYTES_MAX: u32;

    /// The sum of the lengths of the sections, in bytes.
    fn section_bytes(&self) -> u64;

    /// Decodes the head from the start of a body, of which `body` has arrived and which is `body_bytes` long in all.
    ///
    /// Gives the head and where in the body the first section starts, or `None` until the whole head is there.
    ///
    /// # Errors
    /// When the head is longer than its frame or than [`Self::HEAD_BYTES_MAX`], cannot be decoded, or announces
    /// sections of another length than what follows it.
    fn decode_head(body: &[u8], body_bytes: u32) -> Result<Option<(Self, usize)>, DecodeError> {
        let mut reader = Reader::new(body);
        let Some(behind_length) = body_bytes.checked_sub(4) else {
            let problem = DecodeProblem::Truncated { needed: 4, remaining: body_bytes as usize };
            return Err(reader.error("head length", problem));
        };
        if reader.remaining() < 4 {
            return Ok(None);
        }
        let head_bytes = u32::decode(&mut reader)?;
        check_head_length(&reader, head_bytes, Self::HEAD_BYTES_MAX, behind_length)?;
        if reader.remaining() < head_bytes as usize {
            return Ok(None);
        }
        let head = Self::decode_whole(reader.take(head_bytes as usize, "head")?)?;
        let (announced, present) = (head.section_bytes(), u64::from(behind_length - head_bytes));
        if announced != present {
            return Err(reader.error("sections", DecodeProblem::Sections { announced, present }));
        }
        Ok(Some((head, reader.position())))
    }
}

fn check_head_length(reader: &Reader<'_>, length: u32, length_max: u32, remaining: u32) -> Result<(), DecodeError> {
    let problem = if length > length_max {
        DecodeProblem::TooLong { bytes: length as usize, bytes_max: length_max as usize }
    } else if length > remaining {
        DecodeProblem::Truncated { needed: length as usize, remaining: remaining as usize }
    } else {
        return Ok(());
    };
    Err(reader.error("head", problem))
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
