//! The check that every batch passes once, when it enters.

use super::header::{CHECKSUMMED_FROM, checksums, decode_length};
use super::record::take_record_body;
use super::{BATCH_HEADER_BYTES, BATCH_LENGTH_PREFIX_BYTES, BatchError, BatchHeader, Compression, RECORD_BYTES_MIN};

/// What a batch may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// The largest batch, header included, in bytes. Default: 1 MiB and the 12 bytes that the length leaves out.
    pub batch_bytes_max: u32,
    /// The most records in a batch. Default: 1,048,576. In a compressed batch nothing else bounds how many offsets a
    /// few bytes can claim.
    pub record_count_max: u32,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { batch_bytes_max: 1024 * 1024 + 12, record_count_max: 1024 * 1024 }
    }
}

/// Checks the batch at the start of `bytes`, whose end may hold more batches, and decodes its header.
///
/// The batch's bytes are read once, for the checksum. Where they are not compressed, one step from record to record, along
/// their lengths, shows that there are as many as the header says and that they fill the batch. What is inside of a
/// record is the producer's, and a consumer's iterator reports what is wrong with it.
///
/// # Errors
/// [`BatchError`]; its [`code`](BatchError::code) is what the producer gets to see. A damaged batch is told from a
/// badly made one by checking the checksum before anything that it covers.
#[inline]
pub fn validate_batch(bytes: &[u8], limits: &BatchLimits) -> Result<BatchHeader, BatchError> {
    let batch = whole_batch(bytes, limits.batch_bytes_max)?;
    verify_checksum(batch)?;
    let header = BatchHeader::decode(batch)?;
    check_relations(&header, limits)?;
    if header.compression() == Compression::None {
        check_lengths(&batch[BATCH_HEADER_BYTES..], header.record_count)?;
    }
    Ok(header)
}

/// The bytes of exactly the batch at the start of `bytes`.
#[inline]
pub(super) fn whole_batch(bytes: &[u8], bytes_max: u32) -> Result<&[u8], BatchError> {
    let needed = BATCH_LENGTH_PREFIX_BYTES + decode_length(bytes)? as usize;
    if needed > bytes_max as usize {
        return Err(too_large(bytes, needed, bytes_max));
    }
    bytes.get(..needed).ok_or(BatchError::Truncated { needed, remaining: bytes.len() })
}

/// A single record that is too large does not become smaller in a smaller batch, so its sender is told apart, if the batch
/// is there: a length alone may be a mere claim. The count is not known to be sound yet; either way the batch is refused.
fn too_large(bytes: &[u8], needed: usize, bytes_max: u32) -> BatchError {
    match BatchHeader::decode(bytes) {
        Ok(header) if header.record_count == 1 && bytes.len() >= needed => {
            BatchError::RecordTooLarge { bytes: needed, bytes_max }
        }
        _ => BatchError::TooLarge { bytes: needed, bytes_max },
    }
}

/// Checks that the bytes of a batch are those that its checksum was made of.
#[inline]
pub(super) fn verify_checksum(batch: &[u8]) -> Result<(), BatchError> {
    let (Some(header), Some(covered)) = (batch.first_chunk::<BATCH_HEADER_BYTES>(), batch.get(CHECKSUMMED_FROM..))
    else {
        return Err(BatchError::Truncated { needed: BATCH_HEADER_BYTES, remaining: batch.len() });
    };
    let (stored, computed) = checksums(header, covered);
    if stored == computed { Ok(()) } else { Err(BatchError::Checksum { stored, computed }) }
}

fn check_relations(header: &BatchHeader, limits: &BatchLimits) -> Result<(), BatchError> {
    let (count, last_offset_delta) = (header.record_count, header.last_offset_delta);
    if count == 0 {
        return Err(BatchError::Field { field: "record count", value: 0 });
    }
    if count > limits.record_count_max {
        return Err(BatchError::TooManyRecords { count, count_max: limits.record_count_max });
    }
    let bytes = header.size_bytes() - BATCH_HEADER_BYTES;
    if header.compression() == Compression::None && count as usize > bytes / RECORD_BYTES_MIN {
        return Err(BatchError::RecordCount { count, bytes });
    }
    if last_offset_delta != count - 1 {
        return Err(BatchError::OffsetDelta { last_offset_delta, record_count: count });
    }
    check_kind(header)?;
    header.producer()?;
    let (base, max) = (header.base_timestamp.get(), header.max_timestamp.get());
    if base < -1 || max < base {
        return Err(BatchError::Timestamps { base, max });
    }
    Ok(())
}

/// Steps over the records: `count` of them fill `bytes`. A step costs little more than the byte that it reads, which the
/// checksum has just brought into the cache.
fn check_lengths(bytes: &[u8], count: u32) -> Result<(), BatchError> {
    let mut rest = bytes;
    for index in 0..count {
        take_record_body(&mut rest).map_err(|problem| BatchError::Record { index, problem })?;
    }
    match rest.len() {
        0 => Ok(()),
        bytes => Err(BatchError::LeftOver { bytes }),
    }
}

/// What only a broker writes would be believed by every consumer, so producers may not send it.
fn check_kind(header: &BatchHeader) -> Result<(), BatchError> {
    let attributes = header.attributes;
    let kind = if attributes.is_control() {
        "a control batch"
    } else if attributes.is_transactional() {
        "part of a transaction"
    } else if attributes.is_append_time() {
        "marked with the broker's append time"
    } else if attributes.has_delete_horizon() {
        "marked with a delete horizon"
    } else {
        return Ok(());
    };
    Err(BatchError::Kind { kind })
}
