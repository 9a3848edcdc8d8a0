//! Record batches as they were fetched: verified, then taken apart without copying.

use bytes::{Buf, Bytes};
use ringmq_wire::batch::{BatchError, BatchView, Compression, DecompressLimits, Record, Scratch, split_batches};
use ringmq_wire::{Offset, PartitionIndex, TopicName};

use crate::error::Error;
use crate::record::{ConsumedRecord, Header};

/// Which partition, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) topic: TopicName,
    pub(crate) partition: PartitionIndex,
    /// Records before it are skipped: the first batch may start earlier.
    pub(crate) from: Offset,
}

/// Batches whose checksums are right and whose offsets rise without overlap.
#[derive(Debug)]
pub(crate) struct Verified {
    source: Source,
    batches: Bytes,
    /// Where the next fetch goes on.
    pub(crate) next_offset: Offset,
}

impl Verified {
    /// Checks every batch's checksum and place; the records are not looked at.
    pub(crate) fn new(source: Source, batches: Bytes) -> Result<Self, Error> {
        let mut next_offset = source.from;
        for batch in split_batches(&batches) {
            let checked = batch.and_then(|view| view.verify_checksum().map(|()| *view.header()));
            let header = checked.map_err(|error| source.unreadable(next_offset, error))?;
            let first = next_offset == source.from;
            let follows = if first { header.next_offset() > next_offset } else { header.base_offset >= next_offset };
            if !follows {
                let reason = format!(
                    "offset {next_offset} was fetched from partition {} of topic `{}`, and batch {}..{} came",
                    source.partition,
                    source.topic,
                    header.base_offset,
                    header.next_offset(),
                );
                return Err(Error::Nonsense(reason));
            }
            next_offset = header.next_offset();
        }
        Ok(Self { source, batches, next_offset })
    }

    /// All records, in order.
    pub(crate) fn into_records(self) -> Result<Vec<ConsumedRecord>, Error> {
        let mut records = Vec::new();
        let mut reader = BatchReader::new(self, None);
        while reader.read_batch(&mut records)? {}
        Ok(records)
    }
}

impl Source {
    fn unreadable(&self, offset: Offset, source: BatchError) -> Error {
        Error::Unreadable { topic: self.topic.clone(), partition: self.partition, offset, source }
    }
}

/// Takes verified batches apart, one at a time.
#[derive(Debug)]
pub(crate) struct BatchReader {
    source: Source,
    rest: Bytes,
    /// Records from here on are left out.
    until: Option<Offset>,
    scratch: Scratch,
}

impl BatchReader {
    pub(crate) fn new(verified: Verified, until: Option<Offset>) -> Self {
        let Verified { source, batches, .. } = verified;
        Self { source, rest: batches, until, scratch: Scratch::new(DecompressLimits::default()) }
    }

    /// Appends the records of the next batch. `false` when there is none.
    pub(crate) fn read_batch(&mut self, out: &mut Vec<ConsumedRecord>) -> Result<bool, Error> {
        if self.rest.is_empty() {
            return Ok(false);
        }
        let at = self.source.from;
        let view = BatchView::parse(&self.rest).map_err(|error| self.source.unreadable(at, error))?;
        let (header, size) = (*view.header(), view.bytes().len());
        // Control batches mark the ends of transactions and hold nothing for consumers.
        if !header.attributes.is_control() {
            let plain = (header.compression() == Compression::None).then_some(&self.rest);
            let unreadable = |error| self.source.unreadable(header.base_offset, error);
            for record in view.records(&mut self.scratch).map_err(unreadable)? {
                let record = record.map_err(unreadable)?;
                if record.offset < self.source.from || self.until.is_some_and(|until| record.offset >= until) {
                    continue;
                }
                out.push(own(self.source.partition, &record, plain));
            }
        }
        self.rest.advance(size);
        Ok(true)
    }
}

/// The record with its bytes as slices of `plain`, or copied where they were decompressed.
fn own(partition: PartitionIndex, record: &Record<'_>, plain: Option<&Bytes>) -> ConsumedRecord {
    let bytes = |slice: &[u8]| match plain {
        Some(batch) => batch.slice_ref(slice),
        None => Bytes::copy_from_slice(slice),
    };
    let header = |header: ringmq_wire::batch::Header<'_>| Header {
        key: header.key_text().into_owned(),
        value: header.value.map(bytes),
    };
    ConsumedRecord {
        partition,
        offset: record.offset,
        timestamp: record.timestamp,
        key: record.key.map(bytes),
        value: record.value.map(bytes),
        headers: record.headers().map(header).collect(),
    }
}

#[cfg(test)]
mod tests {
    use ringmq_wire::Timestamp;
    use ringmq_wire::batch::{BatchBuilder, RecordRef, set_base_offset};

    use super::*;

    fn batch(base: i64, values: &[&str], compression: Compression) -> Vec<u8> {
        let mut builder = BatchBuilder::new(compression);
        for value in values {
            let headers: &[(&str, Option<&[u8]>)] = &[("h", Some(b"1")), ("none", None)];
            let timestamp = Timestamp::new(base);
            builder.append(&RecordRef { timestamp, key: None, value: Some(value.as_bytes()), headers }).unwrap();
        }
        let mut bytes = builder.finish().unwrap().to_vec();
        set_base_offset(&mut bytes, Offset::new(base));
        bytes
    }

    fn source(from: i64) -> Source {
        let topic = TopicName::parse("t").unwrap();
        Source { topic, partition: PartitionIndex::new(3), from: Offset::new(from) }
    }

    fn values(records: &[ConsumedRecord]) -> Vec<(i64, String)> {
        let text = |record: &ConsumedRecord| String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap();
        records.iter().map(|record| (record.offset.get(), text(record))).collect()
    }

    #[test]
    fn plain_and_compressed_batches_give_their_records_from_the_offset_on() {
        let section =
            [batch(10, &["a", "b", "c"], Compression::None), batch(13, &["d", "e"], Compression::Lz4)].concat();
        let verified = Verified::new(source(11), section.into()).unwrap();
        assert_eq!(verified.next_offset, Offset::new(15));
        let records = verified.into_records().unwrap();
        let expected = [(11, "b"), (12, "c"), (13, "d"), (14, "e")].map(|(offset, value)| (offset, value.to_owned()));
        assert_eq!(values(&records), expected);
        let first = &records[0];
        assert_eq!((first.partition, first.timestamp), (PartitionIndex::new(3), Timestamp::new(10)));
        let headers = [Header { key: "h".into(), value: Some("1".into()) }, Header { key: "none".into(), value: None }];
        assert_eq!(first.headers, headers);
    }

    #[test]
    fn plain_values_are_not_copied() {
        let section = Bytes::from(batch(0, &["a value"], Compression::None));
        let memory = section.as_ptr_range();
        let records = Verified::new(source(0), section.clone()).unwrap().into_records().unwrap();
        assert!(memory.contains(&records[0].value.as_ref().unwrap().as_ptr()));
    }

    #[test]
    fn records_from_the_end_on_are_left_out() {
        let section = batch(0, &["a", "b", "c"], Compression::None);
        let verified = Verified::new(source(0), section.into()).unwrap();
        let mut records = Vec::new();
        let mut reader = BatchReader::new(verified, Some(Offset::new(2)));
        while reader.read_batch(&mut records).unwrap() {}
        assert_eq!(values(&records), [(0, "a".to_owned()), (1, "b".to_owned())]);
    }

    #[test]
    fn every_flipped_bit_behind_the_checksum_is_found() {
        let good = [batch(0, &["first"], Compression::None), batch(1, &["second"], Compression::None)].concat();
        let second = batch(0, &["first"], Compression::None).len();
        // The checksum stands at 17 and covers what lies behind it.
        for at in second + 17..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let error = Verified::new(source(0), bad.into()).unwrap_err();
                let found = matches!(&error, Error::Unreadable { offset, .. } if *offset == Offset::new(1));
                assert!(found, "byte {at}, bit {bit}: {error}");
            }
        }
    }

    #[test]
    fn a_section_cut_anywhere_is_an_error() {
        let good = [batch(0, &["first"], Compression::None), batch(1, &["second"], Compression::None)].concat();
        let first = batch(0, &["first"], Compression::None).len();
        for length in (1..good.len()).filter(|&length| length != first) {
            let error = Verified::new(source(0), good[..length].to_vec().into()).unwrap_err();
            assert!(matches!(error, Error::Unreadable { .. }), "{length}: {error}");
        }
    }

    #[test]
    fn batches_that_were_not_asked_for_are_refused() {
        let early = batch(0, &["a"], Compression::None);
        assert!(matches!(Verified::new(source(1), early.clone().into()), Err(Error::Nonsense(_))));
        let twice = [early.clone(), early].concat();
        assert!(matches!(Verified::new(source(0), twice.into()), Err(Error::Nonsense(_))));
    }

    #[test]
    fn an_empty_section_is_no_record() {
        let verified = Verified::new(source(7), Bytes::new()).unwrap();
        assert_eq!(verified.next_offset, Offset::new(7));
        assert_eq!(verified.into_records().unwrap(), []);
    }
}
