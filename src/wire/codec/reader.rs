//! A cursor over bytes from outside.

use super::{Codec, DecodeError, DecodeProblem};

/// Takes values off the front of a slice. It never reads past the end and never allocates more than the bytes that
/// are left can fill.
///
/// ```
/// use ringmq_wire::codec::{Codec, Reader};
///
/// let mut reader = Reader::new(&[0, 7, 1]);
/// assert_eq!(u16::decode(&mut reader)?, 7);
/// assert!(bool::decode(&mut reader)?);
/// reader.finish()?;
/// # Ok::<(), ringmq_wire::codec::DecodeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    bytes_total: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, bytes_total: bytes.len() }
    }

    /// The bytes that are left.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The bytes that were taken.
    #[inline]
    pub const fn position(&self) -> usize {
        self.bytes_total - self.rest.len()
    }

    /// Takes `count` bytes as they are; `field` is for the error.
    ///
    /// # Errors
    /// When fewer are left.
    #[inline]
    pub fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            let problem = DecodeProblem::Truncated { needed: count, remaining: self.remaining() };
            return Err(self.error(field, problem));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// Takes an array of bytes whose length is known when compiling.
    ///
    /// # Errors
    /// When fewer are left.
    #[inline]
    pub fn take_array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            let problem = DecodeProblem::Truncated { needed: N, remaining: self.remaining() };
            return Err(self.error(field, problem));
        };
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes the count of an array of `T`, checked against the bytes that are left before anything is allocated.
    ///
    /// # Errors
    /// When so many items cannot follow.
    pub fn count<T: Codec>(&mut self) -> Result<usize, DecodeError> {
        const { assert!(T::BYTES_MIN > 0, "items of no bytes would make any count plausible") };
        let before = self.clone();
        let count = u32::decode(self)?;
        match usize::try_from(count) {
            Ok(items) if items <= self.remaining() / T::BYTES_MIN => Ok(items),
            _ => Err(before.error("array", DecodeProblem::Count { count, remaining: self.remaining() })),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// When bytes are left over.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            bytes => Err(self.error("end", DecodeProblem::LeftOver { bytes })),
        }
    }

    /// An error at the reader's place.
    #[cold]
    pub(crate) fn error(&self, field: &'static str, problem: DecodeProblem) -> DecodeError {
        DecodeError::new(field, self.position(), problem)
    }
}
