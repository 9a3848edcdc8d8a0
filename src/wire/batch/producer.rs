//! Who sent a batch, and where it stands among what they sent: the part of the header that makes retries safe.

use super::header::{CHECKSUMMED_FROM, CRC_AT};
use super::{BATCH_HEADER_BYTES, BatchError, BatchHeader};
use crate::numbers::{ProducerEpoch, ProducerId, Sequence};

/// What an idempotent producer says of a batch of its own.
///
/// The records of a batch have the sequences from `base_sequence` on, one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchProducer {
    /// Who sent it.
    pub id: ProducerId,
    /// In which of its epochs.
    pub epoch: ProducerEpoch,
    /// The sequence of the first record.
    pub base_sequence: Sequence,
}

impl BatchHeader {
    /// Who sent the batch; `None` for a producer without an identity.
    ///
    /// # Errors
    /// [`BatchError::Field`] when there is an id, and it, the epoch or the sequence is negative.
    #[inline]
    pub fn producer(&self) -> Result<Option<BatchProducer>, BatchError> {
        if self.producer_id == -1 {
            return Ok(None);
        }
        let invalid = |field, value| BatchError::Field { field, value };
        let id = ProducerId::checked(self.producer_id).ok_or(invalid("producer id", self.producer_id))?;
        let epoch =
            ProducerEpoch::checked(self.producer_epoch).ok_or(invalid("producer epoch", self.producer_epoch.into()))?;
        let base_sequence =
            Sequence::checked(self.base_sequence).ok_or(invalid("base sequence", self.base_sequence.into()))?;
        Ok(Some(BatchProducer { id, epoch, base_sequence }))
    }
}

/// Writes who sends it into a batch, and the checksum that is right then.
///
/// # Panics
/// When `batch` is not exactly one whole batch: it must have been built or validated.
pub fn set_producer(batch: &mut [u8], producer: BatchProducer) {
    batch[43..51].copy_from_slice(&producer.id.get().to_be_bytes());
    batch[51..53].copy_from_slice(&producer.epoch.get().to_be_bytes());
    batch[53..57].copy_from_slice(&producer.base_sequence.get().to_be_bytes());
    debug_assert!(batch.len() >= BATCH_HEADER_BYTES);
    let crc = crc_fast::crc32_iscsi(&batch[CHECKSUMMED_FROM..]);
    batch[CRC_AT..CHECKSUMMED_FROM].copy_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, BatchLimits, Compression, RecordRef, validate_batch};
    use crate::numbers::Timestamp;

    fn batch() -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None);
        let record = RecordRef { timestamp: Timestamp::new(1), key: None, value: Some(b"v"), headers: &[] };
        builder.append(&record).expect("a record");
        builder.finish().expect("a batch").to_vec()
    }

    fn producer(id: i64, epoch: i16, sequence: i32) -> BatchProducer {
        let (id, epoch) = (ProducerId::new(id), ProducerEpoch::new(epoch));
        BatchProducer { id, epoch, base_sequence: Sequence::new(sequence) }
    }

    #[test]
    fn a_batch_takes_an_identity_and_stays_sound() {
        let mut batch = batch();
        assert_eq!(BatchHeader::decode(&batch).expect("a header").producer(), Ok(None));
        for identity in [producer(0, 0, 0), producer(i64::MAX, i16::MAX, i32::MAX), producer(7, 1, 900)] {
            set_producer(&mut batch, identity);
            let header = validate_batch(&batch, &BatchLimits::default()).expect("a sound batch");
            assert_eq!(header.producer(), Ok(Some(identity)));
        }
    }

    #[test]
    fn half_an_identity_is_refused() {
        let mut batch = batch();
        for (at, field) in [(43, "producer id"), (51, "producer epoch"), (53, "base sequence")] {
            set_producer(&mut batch, producer(7, 0, 0));
            batch[at] = 0x80;
            let crc = crc_fast::crc32_iscsi(&batch[CHECKSUMMED_FROM..]);
            batch[CRC_AT..CHECKSUMMED_FROM].copy_from_slice(&crc.to_be_bytes());
            let refused = validate_batch(&batch, &BatchLimits::default());
            assert!(matches!(refused, Err(BatchError::Field { field: named, .. }) if named == field), "{refused:?}");
        }
    }
}
