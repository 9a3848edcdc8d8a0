use std::collections::HashSet;

use std::time::Duration;

use ringmq_wire::batch::{BatchHeader, BatchLimits, Scratch, split_batches, validate_batch};
use ringmq_wire::{ProducerEpoch, ProducerId, Sequence};

use super::*;
use crate::keys::KeyDistribution;

const NO_MARKS: Marks = Marks { partition: PartitionIndex::new(0), producer: None, stamp: None };

/// Everything that a producer sends, batch by batch, with the records of `warmup_batches` in front.
fn sent(payload: &mut Payload, warmup_batches: u64) -> Vec<Vec<u8>> {
    let mut batches = Vec::new();
    for _ in 0..warmup_batches + payload.full_count {
        let ready = payload.make_ready(Fill::Full, &NO_MARKS);
        batches.push(payload.bytes(ready).to_vec());
    }
    if payload.rest_records > 0 {
        let ready = payload.make_ready(Fill::Rest, &NO_MARKS);
        batches.push(payload.bytes(ready).to_vec());
    }
    batches
}

fn values_in(batch: &[u8]) -> Vec<Vec<u8>> {
    let mut scratch = Scratch::default();
    let mut found = Vec::new();
    for view in split_batches(batch) {
        let records = view.unwrap().records(&mut scratch).unwrap();
        found.extend(records.map(|record| record.unwrap().value.unwrap().to_vec()));
    }
    found
}

/// The batches of producer `index` of three.
fn random(shape: Shape, records: u64, index: usize) -> Payload {
    let seed = 7;
    let mut values = Values::random(seed + index as u64);
    Payload::prepare(shape, records, &mut values, Some(Numbers::new(seed, index, 3)), None).unwrap()
}

#[test]
fn batches_are_as_large_as_asked_and_hold_exactly_the_records() {
    let shape = Shape { record_bytes: 1000, batch_bytes: 50_000 };
    let mut payload = random(shape, 1234, 0);
    assert_eq!(payload.full_count * payload.volume(Fill::Full).records + payload.rest_records, 1234);
    let record_overhead_max = 12;
    let (full_bytes, rest_bytes) = (payload.volume(Fill::Full).bytes, payload.volume(Fill::Rest).bytes);
    let mut batches = sent(&mut payload, 0);
    let rest = batches.pop().unwrap();
    assert_eq!(rest.len() as u64, rest_bytes);
    let header = validate_batch(&rest, &BatchLimits::default()).unwrap();
    assert_eq!(u64::from(header.record_count), payload.rest_records);
    for batch in batches {
        let header = validate_batch(&batch, &BatchLimits::default()).unwrap();
        assert_eq!(u64::from(header.record_count), payload.volume(Fill::Full).records);
        assert_eq!(batch.len() as u64, full_bytes);
        assert!(batch.len() <= 50_000 && batch.len() + 1000 + record_overhead_max > 50_000, "{}", batch.len());
    }
}

#[test]
fn a_batch_holds_a_record_however_small_it_should_be() {
    let mut payload = random(Shape { record_bytes: 5000, batch_bytes: 100 }, 3, 0);
    assert_eq!((payload.volume(Fill::Full).records, payload.full_count, payload.rest_records), (1, 3, 0));
    assert_eq!(values_in(&sent(&mut payload, 0)[0])[0].len(), 5000);
}

#[test]
fn no_record_of_a_run_is_sent_twice() {
    for record_bytes in [3, 8, 100] {
        let shape = Shape { record_bytes, batch_bytes: 100_000 };
        let mut seen = HashSet::new();
        let mut count = 0;
        for producer in 0..3 {
            let mut payload = random(shape, 200_000, producer);
            let batches = sent(&mut payload, 5);
            for batch in &batches {
                validate_batch(batch, &BatchLimits::default()).expect("the checksum is that of the new numbers");
            }
            let values: Vec<_> = batches.iter().flat_map(|batch| values_in(batch)).collect();
            count += values.len();
            seen.extend(values);
        }
        assert_eq!(seen.len(), count, "records of {record_bytes} bytes");
    }
    // Two runs differ as well: their templates and their permutations have other seeds.
    let shape = Shape { record_bytes: 100, batch_bytes: 1000 };
    let run = |seed| {
        let numbers = Numbers::new(seed, 0, 1);
        sent(&mut Payload::prepare(shape, 100, &mut Values::random(seed), Some(numbers), None).unwrap(), 0).concat()
    };
    assert_ne!(run(1), run(2));
}

#[test]
fn every_batch_differs_however_often_the_prepared_ones_have_been_sent() {
    let mut payload = random(Shape { record_bytes: 1000, batch_bytes: 1_000_000 }, 50_000, 0);
    assert!(payload.full_count > 2 * payload.ready_max() as u64, "each is sent several times");
    let batches = sent(&mut payload, 0);
    assert_eq!(batches.iter().collect::<HashSet<_>>().len(), batches.len());
}

#[test]
fn scrambling_is_a_permutation() {
    for bits in [8, 16] {
        let found: HashSet<u64> = (0..1 << bits).map(|number| scramble(number, 0x1234_5678, bits)).collect();
        assert_eq!(found.len(), 1 << bits);
        assert!(found.iter().all(|found| *found < 1 << bits));
    }
    let found: HashSet<u64> = (0..100_000).map(|number| scramble(number, 99, 64)).collect();
    assert_eq!(found.len(), 100_000);
}

#[test]
fn marks_are_where_they_belong() {
    // Values whose length field takes one, two and three bytes.
    for record_bytes in [24, 100, 20_000] {
        let shape = Shape { record_bytes, batch_bytes: 100_000 };
        let keys = Keys::new(1000, 10, KeyDistribution::Zipf, 1);
        let numbers = Some(Numbers::new(1, 0, 1));
        let mut payload = Payload::prepare(shape, 10_000, &mut Values::random(1), numbers, Some(keys)).unwrap();
        let (id, epoch) = (ProducerId::new(123_456_789_012), ProducerEpoch::new(300));
        let producer = BatchProducer { id, epoch, base_sequence: Sequence::new(70_000) };
        let stamp = Stamp { producer: 2, number: 12_345, due: Duration::from_nanos(987_654_321) };
        let marks = Marks { partition: PartitionIndex::new(7), producer: Some(producer), stamp: Some(stamp) };
        for fill in [Fill::Full, Fill::Full, Fill::Rest] {
            let ready = payload.make_ready(fill, &marks);
            let batch = payload.bytes(ready).to_vec();
            validate_batch(&batch, &BatchLimits::default()).expect("a sound batch");
            assert_eq!(BatchHeader::decode(&batch).unwrap().producer(), Ok(Some(producer)));
            let at = BATCH_HEADER_BYTES + payload.stamp_position();
            assert_eq!(Stamp::decode(batch[at..at + STAMP_BYTES].try_into().unwrap()), stamp);
            assert_eq!(values_in(&batch)[0][8..24], stamp.encode());

            let mut scratch = Scratch::default();
            let mut found = HashSet::new();
            for record in split_batches(&batch).next().unwrap().unwrap().records(&mut scratch).unwrap() {
                let key = u64::from_be_bytes(record.unwrap().key.unwrap().try_into().unwrap());
                assert!(key % 10 == 7 && key < 1000, "{key}");
                found.insert(key);
            }
            assert!(payload.volume(fill).records < 100 || found.len() > 10, "{found:?}");
        }
    }
}

#[test]
fn compression_does_not_make_batches_smaller() {
    for record_bytes in [8, 100, 1000] {
        let mut payload = random(Shape { record_bytes, batch_bytes: 100_000 }, 20_000, 0);
        for batch in [sent(&mut payload, 0).remove(0), sent(&mut payload, 0).pop().unwrap()] {
            let values = values_in(&batch);
            let mut compressed = BatchBuilder::new(Compression::Lz4);
            for value in &values {
                let timestamp = Timestamp::new(0);
                compressed.append(&RecordRef { timestamp, key: None, value: Some(value), headers: &[] }).unwrap();
            }
            let value_bytes = values.len() * record_bytes;
            let compressed = compressed.finish().unwrap().len();
            assert!(compressed >= value_bytes, "{value_bytes} bytes of values became {compressed}");
        }
    }
}

#[test]
fn a_file_is_used_from_end_to_end_and_again() {
    let shape = Shape { record_bytes: 4, batch_bytes: 1 };
    let mut values = Values::File { bytes: Bytes::from_static(b"abcdefghij"), at: 0 };
    let mut payload = Payload::prepare(shape, 5, &mut values, None, None).unwrap();
    let found: Vec<u8> = sent(&mut payload, 0).iter().flat_map(|batch| values_in(batch)).flatten().collect();
    assert_eq!(found, b"abcdefghijabcdefghij");
}

#[test]
fn an_empty_or_missing_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payload");
    assert!(Values::read_file(&path).is_err());
    std::fs::write(&path, b"").unwrap();
    assert!(Values::read_file(&path).is_err());
    std::fs::write(&path, b"x").unwrap();
    assert_eq!(Values::read_file(&path).unwrap(), &b"x"[..]);
}
