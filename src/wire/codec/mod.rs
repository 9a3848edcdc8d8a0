//! Bounded reading and writing of the protocol's types: each value knows its own layout, and a struct is its fields
//! in the order in which they are declared.
//!
//! The primitive layouts, which `docs/formats/native-protocol.md` gives as a table: integers big-endian; `bool` one
//! byte, 0 or 1; a string its length in bytes as `u16`, then UTF-8; an array its count as `u32`, then the items; an
//! optional value one byte, 0 or 1, then the value if 1; a UUID its 16 bytes.

mod declare;
#[cfg(test)]
pub(crate) mod described;
mod error;
mod primitives;
mod reader;
#[cfg(test)]
pub(crate) mod sample;

use bytes::{BufMut, BytesMut};

pub(crate) use declare::layout;
pub use error::{DecodeError, DecodeProblem};
pub use primitives::STRING_BYTES_MAX;
pub use reader::Reader;

/// A value with a layout on the wire.
pub trait Codec: Sized {
    /// The fewest bytes that any value takes. It bounds how many items an array can claim to hold.
    const BYTES_MIN: usize;

    /// Appends the value.
    fn encode(&self, out: &mut BytesMut);

    /// Takes a value off the front of what `reader` has left.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes end too early or hold what no encoder writes.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Decodes a value that takes up all of `bytes`.
    ///
    /// # Errors
    /// As [`Codec::decode`], and when bytes are left over.
    fn decode_whole(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// Appends what `put` appends with its length in front as a `u32`, which also counts `sections` bytes that the caller
/// sends behind it. When the length does not fit, it is the error, and `out` is as it was.
pub(crate) fn put_with_length(out: &mut BytesMut, sections: u64, put: impl FnOnce(&mut BytesMut)) -> Result<u32, u64> {
    const PREFIX_BYTES: usize = size_of::<u32>();
    let start = out.len();
    out.put_bytes(0, PREFIX_BYTES);
    put(out);
    let counted = (out.len() - start - PREFIX_BYTES) as u64 + sections;
    let Ok(length) = u32::try_from(counted) else {
        out.truncate(start);
        return Err(counted);
    };
    out[start..start + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(length)
}
