//! Building a batch, record by record, in one buffer.

use bytes::{BufMut, Bytes, BytesMut};

use super::compression::Compressor;
use super::header::CHECKSUMMED_FROM;
use super::varint::{put_varint, put_varlong, varint_bytes, varlong_bytes};
use super::{Attributes, BATCH_HEADER_BYTES, BATCH_LENGTH_PREFIX_BYTES, BatchHeader, Compression};
use crate::numbers::{Offset, Timestamp};

/// The most that a length in a batch can say.
#[allow(clippy::cast_sign_loss, reason = "it is positive")]
pub(super) const LENGTH_MAX: usize = i32::MAX as usize;

/// A record to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// When it was made.
    pub timestamp: Timestamp,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; none deletes the key when the topic is compacted.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Why a record or a batch cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The format's lengths end at 2 GiB.
    #[error("the batch would be {bytes} bytes long, but the format ends at {LENGTH_MAX}; finish it before this record")]
    TooLarge {
        /// What it would take.
        bytes: usize,
    },
    /// The record's time is before the epoch, or too far from the first record's.
    #[error("the record's timestamp {timestamp} is negative; use milliseconds since the Unix epoch")]
    Timestamp {
        /// The record's.
        timestamp: Timestamp,
    },
    /// A batch holds at least one record.
    #[error("the batch is empty; append a record before it is finished")]
    Empty,
    /// The compressor failed.
    #[error("the batch cannot be compressed ({0}); choose another compression, or none")]
    Compress(#[from] std::io::Error),
}

/// Builds one batch with base offset 0 and no producer identity.
///
/// Records are written once, straight behind room for the header; compression copies them once more.
#[derive(Debug)]
pub struct BatchBuilder {
    compression: Compression,
    bytes: BytesMut,
    record_count: u32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(compression: Compression) -> Self {
        Self::with_capacity(compression, 4096)
    }

    /// An empty batch with room for `bytes` bytes, header included.
    pub fn with_capacity(compression: Compression, bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(bytes.max(BATCH_HEADER_BYTES));
        buffer.put_bytes(0, BATCH_HEADER_BYTES);
        Self {
            compression,
            bytes: buffer,
            record_count: 0,
            base_timestamp: Timestamp::new(0),
            max_timestamp: Timestamp::new(0),
        }
    }

    /// Makes room for `bytes` bytes in all, header included: up to there the batch does not move to grow.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes.saturating_sub(self.bytes.len()));
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`BuildError::TooLarge`] or [`BuildError::Timestamp`]; the batch is then as it was.
    #[inline]
    pub fn append(&mut self, record: &RecordRef<'_>) -> Result<(), BuildError> {
        self.append_parts(record.timestamp, record.key, record.value, record.headers.iter().copied())
    }

    /// Appends a record whose headers come from an iterator, which is walked twice.
    ///
    /// # Errors
    /// As [`BatchBuilder::append`].
    pub fn append_parts<'h>(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'h str, Option<&'h [u8]>)> + Clone,
    ) -> Result<(), BuildError> {
        if timestamp < Timestamp::new(0) {
            return Err(BuildError::Timestamp { timestamp });
        }
        let base_timestamp = if self.record_count == 0 { timestamp } else { self.base_timestamp };
        // Both are at least 0, so the difference cannot overflow.
        let timestamp_delta = timestamp.get() - base_timestamp.get();
        let record = Layout::new(timestamp_delta, self.record_count, key, value, headers.clone());
        let bytes = self.bytes.len().saturating_add(record.size_bytes);
        if i32::try_from(record.length).is_err() || i32::try_from(self.record_count).is_err() || bytes > LENGTH_MAX {
            return Err(BuildError::TooLarge { bytes });
        }
        record.put(timestamp_delta, self.record_count, key, value, headers, &mut self.bytes);

        self.record_count += 1;
        self.base_timestamp = base_timestamp;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        Ok(())
    }

    /// How long the batch is so far, in bytes, before compression; 61 when it is empty.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How long the batch would be with one more record, in bytes, before compression.
    pub fn len_bytes_with(&self, record: &RecordRef<'_>) -> usize {
        let timestamp_delta = match self.record_count {
            0 => 0,
            _ => record.timestamp.get().saturating_sub(self.base_timestamp.get()),
        };
        let headers = record.headers.iter().copied();
        let record = Layout::new(timestamp_delta, self.record_count, record.key, record.value, headers);
        self.bytes.len().saturating_add(record.size_bytes)
    }

    /// How many records there are so far.
    #[inline]
    pub const fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Ends the batch: compresses it where asked, and writes header and checksum.
    ///
    /// # Errors
    /// [`BuildError::Empty`], or what the compressor reports.
    pub fn finish(mut self) -> Result<Bytes, BuildError> {
        let Some(last_offset_delta) = self.record_count.checked_sub(1) else { return Err(BuildError::Empty) };
        if self.compression != Compression::None {
            self.bytes = compressed(self.compression, &self.bytes)?;
        }
        let header = BatchHeader {
            base_offset: Offset::ZERO,
            batch_length: 0,
            partition_leader_epoch: None,
            crc: 0,
            attributes: Attributes::new(self.compression),
            last_offset_delta,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: self.record_count,
        };
        seal(header, self.bytes)
    }
}

/// The batch, whose records stand behind room for the header, with them compressed.
fn compressed(compression: Compression, batch: &[u8]) -> Result<BytesMut, BuildError> {
    let records = &batch[BATCH_HEADER_BYTES..];
    let mut compressed = BytesMut::with_capacity(BATCH_HEADER_BYTES + records.len() / 2);
    compressed.put_bytes(0, BATCH_HEADER_BYTES);
    let mut compressor = Compressor::new(compression, records.len(), compressed)?;
    compressor.write(records)?;
    Ok(compressor.finish()?)
}

/// Writes the header, with the batch's length and checksum, into the room before the records.
fn seal(mut header: BatchHeader, mut batch: BytesMut) -> Result<Bytes, BuildError> {
    put_header(&mut header, &mut batch)?;
    header.crc = crc_fast::crc32_iscsi(&batch[CHECKSUMMED_FROM..]);
    batch[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode());
    Ok(batch.freeze())
}

/// Writes the header into the room before the records, complete but for the checksum.
pub(super) fn put_header(header: &mut BatchHeader, batch: &mut BytesMut) -> Result<(), BuildError> {
    let length = batch.len() - BATCH_LENGTH_PREFIX_BYTES;
    header.batch_length = match u32::try_from(length) {
        Ok(batch_length) if length <= LENGTH_MAX => batch_length,
        _ => return Err(BuildError::TooLarge { bytes: batch.len() }),
    };
    batch[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode());
    Ok(())
}

/// How long a record is, known before it is written because its length comes first.
pub(super) struct Layout {
    /// Its length behind the length field.
    length: usize,
    /// Its length with that field.
    pub(super) size_bytes: usize,
    header_count: usize,
}

impl Layout {
    pub(super) fn new<'h, K: AsRef<[u8]>>(
        timestamp_delta: i64,
        offset_delta: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (K, Option<&'h [u8]>)>,
    ) -> Self {
        let attributes = 1;
        let mut length = attributes
            + varlong_bytes(timestamp_delta)
            + varlong_bytes(offset_delta.into())
            + nullable_bytes(key)
            + nullable_bytes(value);
        let mut header_count = 0;
        for (key, value) in headers {
            length += nullable_bytes(Some(key.as_ref())) + nullable_bytes(value);
            header_count += 1;
        }
        length += length_bytes(header_count);
        Self { length, size_bytes: length_bytes(length) + length, header_count }
    }

    /// Appends the record that this is the layout of.
    pub(super) fn put<'h, K: AsRef<[u8]>>(
        &self,
        timestamp_delta: i64,
        offset_delta: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (K, Option<&'h [u8]>)>,
        out: &mut BytesMut,
    ) {
        out.reserve(self.size_bytes);
        put_length(self.length, out);
        out.put_u8(0);
        put_varlong(timestamp_delta, out);
        put_varlong(offset_delta.into(), out);
        put_nullable(key, out);
        put_nullable(value, out);
        put_length(self.header_count, out);
        for (key, value) in headers {
            put_nullable(Some(key.as_ref()), out);
            put_nullable(value, out);
        }
    }
}

#[inline]
fn nullable_bytes(bytes: Option<&[u8]>) -> usize {
    match bytes {
        Some(bytes) => length_bytes(bytes.len()) + bytes.len(),
        None => varint_bytes(-1),
    }
}

#[inline]
fn put_nullable(bytes: Option<&[u8]>, out: &mut BytesMut) {
    match bytes {
        Some(bytes) => {
            put_length(bytes.len(), out);
            out.put_slice(bytes);
        }
        None => put_varint(-1, out),
    }
}

/// A slice's length always fits: none is longer than `isize::MAX`.
#[inline]
fn length_bytes(length: usize) -> usize {
    varlong_bytes(i64::try_from(length).unwrap_or(i64::MAX))
}

#[inline]
fn put_length(length: usize, out: &mut BytesMut) {
    put_varlong(i64::try_from(length).unwrap_or(i64::MAX), out);
}
