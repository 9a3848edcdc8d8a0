//! Batches side by side, as they are stored and fetched.

use std::fmt;
use std::iter::FusedIterator;

use super::compression::{Decompressor, STEP_BYTES, Scratch};
use super::validate::{verify_checksum, whole_batch};
use super::{BATCH_HEADER_BYTES, BatchError, BatchHeader, Compression, RawRecords, RecordIter};

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
    /// When the records cannot be decompressed, or would be larger than the scratch's limit.
    pub fn records<'s>(&self, scratch: &'s mut Scratch) -> Result<RecordIter<'s>, BatchError>
    where
        'a: 's,
    {
        let mut opening = self.open(scratch)?;
        while !opening.step()? {}
        Ok(RecordIter::new(&self.header, opening.finish()?))
    }

    /// As [`BatchView::records`], for who must not compute for long in one go: it is decompressed in steps, and headers
    /// are not looked at.
    ///
    /// ```
    /// # use ringmq_wire::Timestamp;
    /// # use ringmq_wire::batch::{BatchBuilder, BatchView, Compression, RecordRef, Scratch};
    /// # let mut builder = BatchBuilder::new(Compression::Lz4);
    /// # let timestamp = Timestamp::new(1_700_000_000_000);
    /// # builder.append(&RecordRef { timestamp, key: Some(b"key"), value: None, headers: &[] })?;
    /// # let batch = builder.finish()?;
    /// let view = BatchView::parse(&batch)?;
    /// let mut scratch = Scratch::default();
    /// let mut opening = view.open(&mut scratch)?;
    /// while !opening.step()? {
    ///     // Others get their turn.
    /// }
    /// let keys: Vec<_> = opening.records()?.map(|record| record.map(|record| record.key)).collect::<Result<_, _>>()?;
    /// assert_eq!(keys, [Some(&b"key"[..])]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the decompressor cannot be set up.
    pub fn open<'s>(&self, scratch: &'s mut Scratch) -> Result<OpeningBatch<'s>, BatchError>
    where
        'a: 's,
    {
        let (header, records) = (self.header, &self.bytes[BATCH_HEADER_BYTES..]);
        let content = match header.compression() {
            Compression::None => Content::Plain(records),
            compression => Content::Compressed(scratch.begin(compression, records)?),
        };
        Ok(OpeningBatch { header, content })
    }
}

/// A batch whose records are being decompressed. See [`BatchView::open`].
pub struct OpeningBatch<'s> {
    header: BatchHeader,
    content: Content<'s>,
}

enum Content<'s> {
    Plain(&'s [u8]),
    Compressed(Decompressor<'s>),
}

impl<'s> OpeningBatch<'s> {
    /// Bytes that one step gives, at most.
    pub const STEP_BYTES: usize = STEP_BYTES;

    /// Goes on for some tens of microseconds, a hundred or two with gzip and zstd; `true` when that was the last step. A batch
    /// in one block of 4 MiB (LZ4's largest) takes some milliseconds all the same.
    ///
    /// # Errors
    /// When the bytes cannot be decompressed, or there are more than the scratch may hold.
    pub fn step(&mut self) -> Result<bool, BatchError> {
        match &mut self.content {
            Content::Plain(_) => Ok(true),
            Content::Compressed(decompressor) => decompressor.step(),
        }
    }

    /// The records, once a step was the last.
    ///
    /// # Errors
    /// When there is something wrong with how the compressed bytes end.
    pub fn records(self) -> Result<RawRecords<'s>, BatchError> {
        let header = self.header;
        Ok(RawRecords::new(&header, self.finish()?))
    }

    fn finish(self) -> Result<&'s [u8], BatchError> {
        match self.content {
            Content::Plain(records) => Ok(records),
            Content::Compressed(decompressor) => decompressor.finish(),
        }
    }
}

impl fmt::Debug for OpeningBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpeningBatch").field("header", &self.header).finish_non_exhaustive()
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
