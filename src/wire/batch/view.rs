//! Batches side by side, as they are stored and fetched.

use std::iter::FusedIterator;

use super::compression::Scratch;
use super::validate::{verify_checksum, whole_batch};
use super::{BATCH_HEADER_BYTES, BatchError, BatchHeader, Compression, RecordIter};

/// A batch whose header makes sense and whose bytes are all there. Its checksum was not looked at.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Takes the batch at the start of `bytes`.
    ///
    /// # Errors
    /// When it does not end within them, or its header holds what no batch can.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let bytes = whole_batch(bytes, u32::MAX)?;
        Ok(Self { header: BatchHeader::decode(bytes)?, bytes })
    }

    /// Its header.
    #[inline]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Its bytes, header included.
    #[inline]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Checks the bytes against the checksum.
    ///
    /// # Errors
    /// [`BatchError::Checksum`].
    #[inline]
    pub fn verify_checksum(&self) -> Result<(), BatchError> {
        verify_checksum(self.bytes)
    }

    /// Its records. Those of a plain batch are borrowed from it; compressed ones are decompressed into `scratch`,
    /// which serves one batch after the other.
    ///
    /// # Errors
    /// When the records cannot be decompressed here, or would be larger than the scratch's limit.
    pub fn records<'s>(&self, scratch: &'s mut Scratch) -> Result<RecordIter<'s>, BatchError>
    where
        'a: 's,
    {
        let records = &self.bytes[BATCH_HEADER_BYTES..];
        match self.header.compression() {
            Compression::None => Ok(RecordIter::new(&self.header, records)),
            compression => Ok(RecordIter::new(&self.header, scratch.decompress(compression, records)?)),
        }
    }
}

/// Walks over batches that stand side by side. It ends behind the last whole one, or behind the first error.
#[inline]
pub const fn split_batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes }
}

/// The iterator of [`split_batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = BatchView::parse(self.rest);
        self.rest = match &batch {
            Ok(batch) => &self.rest[batch.bytes.len()..],
            Err(_) => &[],
        };
        Some(batch)
    }
}

impl FusedIterator for Batches<'_> {}
