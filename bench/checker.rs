//! Verifies record batches as they stream by: checksum and offsets of each, without ever holding a whole one.

use crc_fast::{CrcAlgorithm, Digest};
use ringmq_wire::Offset;
use ringmq_wire::batch::{BATCH_HEADER_BYTES, BATCH_LENGTH_PREFIX_BYTES, BatchError, BatchHeader};

use crate::stamp::{STAMP_BYTES, Stamp};
use crate::volume::Volume;

/// Where a batch's checksum stands (docs/formats/record-batch.md).
pub(crate) const CHECKSUM_AT: usize = 17;
/// Where the bytes start that it covers: behind itself.
pub(crate) const CHECKSUMMED_FROM: usize = 21;

/// What is wrong with a stream of batches.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A batch is malformed, or its checksum is wrong.
    #[error("the batch behind offset {after}: {source}")]
    Batch {
        /// The end of the batch before it.
        after: Offset,
        /// What is wrong with it.
        source: BatchError,
    },
    /// A batch is missing, or came twice.
    #[error("batch {base}..{next} came where offset {expected} was due")]
    Offsets {
        /// The offset that was due.
        expected: Offset,
        /// The batch's first offset.
        base: Offset,
        /// The one behind its last.
        next: Offset,
    },
    /// Sections are whole batches, and this one is not.
    #[error("a section ends within a batch, behind offset {after}")]
    Cut {
        /// The end of the batch before it.
        after: Offset,
    },
}

/// Checks the sections of one partition's fetches, in order.
pub(crate) struct SectionChecker {
    /// Records before it are not counted: the first batch may start earlier.
    from: Offset,
    /// Records from it on are not counted.
    until: Offset,
    /// The end of the last batch.
    next_offset: Offset,
    header: [u8; BATCH_HEADER_BYTES],
    header_filled: usize,
    /// The batch whose body streams by.
    batch: Option<Batch>,
    counted: Volume,
    /// Where batches have a stamp, behind their header; `None` when they have none.
    stamp_position: Option<usize>,
    /// Of the batches that have come by whole.
    stamps: Vec<Stamp>,
}

struct Batch {
    header: BatchHeader,
    digest: Digest,
    left: usize,
    stamp: [u8; STAMP_BYTES],
}

impl SectionChecker {
    /// A checker for a section that was fetched from `from`.
    pub(crate) fn new(from: Offset, until: Offset) -> Self {
        let header = [0; BATCH_HEADER_BYTES];
        let counted = Volume::default();
        let (stamp_position, stamps) = (None, Vec::new());
        Self { from, until, next_offset: from, header, header_filled: 0, batch: None, counted, stamp_position, stamps }
    }

    /// Collects the stamps that batches have there, behind their header.
    pub(crate) fn collect_stamps(&mut self, position: usize) {
        self.stamp_position = Some(position);
    }

    /// The stamps of the batches that have come by whole since the last time.
    pub(crate) fn take_stamps(&mut self) -> std::vec::Drain<'_, Stamp> {
        self.stamps.drain(..)
    }

    /// Takes the next bytes of the section.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), CheckError> {
        while !bytes.is_empty() {
            let Some(batch) = &mut self.batch else {
                bytes = self.fill_header(bytes)?;
                continue;
            };
            let (body, rest) = bytes.split_at(bytes.len().min(batch.left));
            batch.digest.update(body);
            if let Some(position) = self.stamp_position {
                batch.copy_stamp(body, position);
            }
            batch.left -= body.len();
            bytes = rest;
            self.end_batch()?;
        }
        Ok(())
    }

    /// Ends the section: what was counted, and where the next fetch goes on.
    pub(crate) fn finish(self) -> Result<(Volume, Offset), CheckError> {
        if self.header_filled > 0 || self.batch.is_some() {
            return Err(CheckError::Cut { after: self.next_offset });
        }
        Ok((self.counted, self.next_offset))
    }

    /// Ends a section whose last batch may be cut: it is not counted, and the next fetch begins with it.
    pub(crate) fn finish_cut(self) -> (Volume, Offset) {
        (self.counted, self.next_offset)
    }

    fn fill_header<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], CheckError> {
        let (part, rest) = bytes.split_at(bytes.len().min(BATCH_HEADER_BYTES - self.header_filled));
        self.header[self.header_filled..][..part.len()].copy_from_slice(part);
        self.header_filled += part.len();
        if self.header_filled < BATCH_HEADER_BYTES {
            return Ok(rest);
        }
        self.header_filled = 0;
        let decoded = BatchHeader::decode(&self.header);
        let header = decoded.map_err(|source| CheckError::Batch { after: self.next_offset, source })?;
        let (base, next, expected) = (header.base_offset, header.next_offset(), self.next_offset);
        let first = expected == self.from;
        if next <= expected || (base != expected && !(first && base < expected)) {
            return Err(CheckError::Offsets { expected, base, next });
        }
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(&self.header[CHECKSUMMED_FROM..]);
        // The length field's least is the rest of the header.
        let left = header.batch_length as usize - (BATCH_HEADER_BYTES - BATCH_LENGTH_PREFIX_BYTES);
        self.batch = Some(Batch { header, digest, left, stamp: [0; STAMP_BYTES] });
        self.end_batch()?;
        Ok(rest)
    }

    /// Counts the batch if all of it has come by.
    fn end_batch(&mut self) -> Result<(), CheckError> {
        let Some(ended) = self.batch.take_if(|batch| batch.left == 0) else { return Ok(()) };
        let Batch { header, digest, stamp, .. } = ended;
        let stored = header.crc;
        // CRC32C fills the lower half of the number.
        let computed = u32::try_from(digest.finalize()).unwrap_or(u32::MAX);
        if stored != computed {
            let source = BatchError::Checksum { stored, computed };
            return Err(CheckError::Batch { after: self.next_offset, source });
        }
        let (first, end) = (header.base_offset.max(self.from), header.next_offset().min(self.until));
        if let Some(records @ 1..) = end.checked_sub(first) {
            self.counted.records += records;
            self.counted.bytes += header.size_bytes() as u64;
        }
        self.next_offset = header.next_offset();
        if self.stamp_position.is_some() {
            self.stamps.push(Stamp::decode(stamp));
        }
        Ok(())
    }
}

impl Batch {
    /// Copies what the next bytes of the batch have of its stamp.
    fn copy_stamp(&mut self, bytes: &[u8], position: usize) {
        let body_bytes = self.header.size_bytes() - BATCH_HEADER_BYTES;
        let start = body_bytes - self.left;
        let (from, until) = (start.max(position), (start + bytes.len()).min(position + STAMP_BYTES));
        if from < until {
            self.stamp[from - position..until - position].copy_from_slice(&bytes[from - start..until - start]);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ringmq_wire::Timestamp;
    use ringmq_wire::batch::{BatchBuilder, Compression, RecordRef, set_base_offset};

    use super::*;

    pub(crate) fn batch(base: i64, records: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None);
        for _ in 0..records {
            let timestamp = Timestamp::new(5);
            builder.append(&RecordRef { timestamp, key: None, value: Some(b"value"), headers: &[] }).unwrap();
        }
        let mut bytes = builder.finish().unwrap().to_vec();
        set_base_offset(&mut bytes, Offset::new(base));
        bytes
    }

    fn check(section: &[u8], step: usize, from: i64, until: i64) -> Result<(Volume, Offset), CheckError> {
        let mut checker = SectionChecker::new(Offset::new(from), Offset::new(until));
        for piece in section.chunks(step) {
            checker.feed(piece)?;
        }
        checker.finish()
    }

    #[test]
    fn records_are_counted_however_the_bytes_come() {
        let section = [batch(10, 3), batch(13, 1), batch(14, 200)].concat();
        for step in [1, 7, 60, 61, 62, 100, section.len()] {
            let (counted, next) = check(&section, step, 10, 1000).unwrap();
            assert_eq!((counted.records, counted.bytes), (204, section.len() as u64), "{step}");
            assert_eq!(next, Offset::new(214));
        }
    }

    #[test]
    fn stamps_are_found_however_the_bytes_come() {
        // The first value of `batch`, with what follows of it, stands behind 6 bytes of its record.
        let section = [batch(0, 5), batch(5, 7)].concat();
        let expected = [0, batch(0, 5).len()]
            .map(|start| Stamp::decode(section[start + BATCH_HEADER_BYTES + 6..][..STAMP_BYTES].try_into().unwrap()));
        for step in [1, 7, 70, section.len()] {
            let mut checker = SectionChecker::new(Offset::ZERO, Offset::MAX);
            checker.collect_stamps(6);
            let mut found = Vec::new();
            for piece in section.chunks(step) {
                checker.feed(piece).unwrap();
                found.extend(checker.take_stamps());
            }
            assert_eq!(found, expected, "{step}");
        }
    }

    #[test]
    fn only_the_offsets_that_are_wanted_count() {
        let (first, second) = (batch(10, 3), batch(13, 5));
        let section = [first, second.clone()].concat();
        assert_eq!(check(&section, 50, 12, 15).unwrap().0.records, 3);
        let third = [section, batch(18, 2)].concat();
        let counted = check(&third, 50, 12, 13).unwrap().0;
        assert_eq!(counted.records, 1);
        assert!(counted.bytes < second.len() as u64);
    }

    #[test]
    fn every_flipped_bit_that_the_checksum_covers_is_found() {
        let good = [batch(0, 2), batch(2, 2)].concat();
        let second = batch(0, 2).len();
        for at in second + 17..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert!(check(&bad, 33, 0, 100).is_err(), "byte {at}");
        }
    }

    #[test]
    fn gaps_repeats_and_cuts_are_found() {
        assert!(matches!(check(&batch(5, 1), 9, 4, 100), Err(CheckError::Offsets { .. })));
        assert!(matches!(check(&batch(2, 2), 9, 4, 100), Err(CheckError::Offsets { .. })));
        let gap = [batch(0, 2), batch(3, 2)].concat();
        assert!(matches!(check(&gap, 9, 0, 100), Err(CheckError::Offsets { .. })));
        let repeat = [batch(0, 2), batch(0, 2)].concat();
        assert!(matches!(check(&repeat, 9, 0, 100), Err(CheckError::Offsets { .. })));
        let whole = batch(0, 2);
        let (counted, next) = {
            let mut checker = SectionChecker::new(Offset::ZERO, Offset::MAX);
            checker.feed(&[whole.clone(), batch(2, 3)[..70].to_vec()].concat()).unwrap();
            checker.finish_cut()
        };
        assert_eq!((counted.records, next), (2, Offset::new(2)));
        for length in 1..whole.len() {
            assert!(matches!(check(&whole[..length], 9, 0, 100), Err(CheckError::Cut { .. })), "{length}");
        }
    }
}
