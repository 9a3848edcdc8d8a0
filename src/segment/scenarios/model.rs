//! Appends, reads and look-ups against a vector.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use ringmq_runtime::sim::Sim;
use ringmq_runtime::sim::scenario::seeds;
use ringmq_runtime::{random, task, time};
use ringmq_wire::batch::{BatchBuilder, BatchLimits, Compression, RecordRef, Scratch, split_batches};
use ringmq_wire::{Offset, Timestamp};

use super::support::*;
use crate::{Append, FrameBuf, GenerationHistory, Log, Payload, ReadError};

/// A record as the model keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    timestamp: i64,
    value: Vec<u8>,
}

#[test]
fn a_log_is_a_vector_of_records() {
    for seed in seeds(0..60) {
        let sim = sim(seed);
        let mut model = Vec::new();
        for life in 0..4 {
            let cache_bytes = [0, 64 << 10, 4 << 20][usize::try_from((seed + life) % 3).expect("small")];
            model = sim.run(|| live(model, cache_bytes));
            if life % 2 == 0 {
                sim.kill();
            } else {
                sim.crash();
            }
        }
        assert!(model.len() > 100, "{}", model.len());
    }
}

fn int(number: usize) -> i64 {
    i64::try_from(number).expect("small")
}

/// Draws below a bound.
fn draw(below: u64) -> u64 {
    random::u64() % below
}

fn draw_usize(below: u64) -> usize {
    usize::try_from(draw(below)).expect("small")
}

/// Opens the log and does what comes, one thing at a time. Everything is acknowledged when this returns.
async fn live(mut model: Vec<Model>, cache_bytes: usize) -> Vec<Model> {
    let history = GenerationHistory::load(Path::new(TABLES)).await.expect("sound tables");
    let deps = deps(history, cache_bytes);
    let (mut log, _) = open(&deps, 0).await.expect("a sound log");
    for _ in 0..40 {
        match draw(10) {
            0..4 => append_some(&log, &mut model).await,
            4..7 => read_somewhere(&log, &model).await,
            7 | 8 => look_up_a_timestamp(&log, &model).await,
            _ => {
                log.close().await.expect("a clean stop");
                assert!(matches!(log.read(Offset::ZERO, 10).await, Err(ReadError::Closed)));
                (log, _) = open(&deps, 0).await.expect("a sound log");
            }
        }
        let end = Offset::new(int(model.len()));
        let offsets = log.offsets();
        assert_eq!((offsets.start, offsets.durable, offsets.end), (Offset::ZERO, end, end));
    }
    model
}

/// Several appends at once, of several batches each.
async fn append_some(log: &Log, model: &mut Vec<Model>) {
    let mut under_way = Vec::new();
    for _ in 0..=draw(8) {
        let (payload, records) = some_batches(model.len());
        let payload = if draw(2) == 0 { Payload::Copied(payload) } else { Payload::Frame(in_frame(&payload)) };
        let append = Append::validated(payload, &BatchLimits::default()).expect("sound batches");
        assert_eq!(append.record_count() as usize, records.len());
        assert_eq!(append.max_timestamp().get(), records.iter().map(|record| record.timestamp).max().expect("some"));
        under_way.push((model.len(), log.append(append)));
        model.extend(records);
    }
    under_way.push((model.len(), log.append(copied(5, 1, 20))));
    let mut ends: Vec<usize> = under_way.iter().skip(1).map(|(base, _)| *base).collect();
    ends.push(model.len() + 1);
    for ((base, appending), end) in under_way.into_iter().zip(ends) {
        let appended = appending.await.expect("acknowledged");
        assert_eq!((appended.base_offset.get(), appended.next_offset.get()), (int(base), int(end)));
    }
    let last = read_model(log, Offset::new(int(model.len())), 1).await;
    model.extend(last);
}

fn in_frame(payload: &Bytes) -> FrameBuf {
    let mut frame = FrameBuf::with_payload_len(payload.len());
    frame.payload_mut().copy_from_slice(payload);
    assert_eq!(frame.payload(), payload);
    frame
}

fn some_batches(seed: usize) -> (Bytes, Vec<Model>) {
    let (mut payload, mut records) = (BytesMut::new(), Vec::new());
    for _ in 0..=draw(3) {
        let compression = if draw(3) == 0 { Compression::Lz4 } else { Compression::None };
        let mut builder = BatchBuilder::new(compression);
        for _ in 0..=draw(20) {
            // Timestamps mostly rise, and sometimes jump back.
            let timestamp = (int(seed) * 10 + draw(200).cast_signed() - 100).max(0);
            let value =
                vec![u8::try_from(draw(256)).expect("a byte"); draw_usize(if draw(20) == 0 { 4000 } else { 60 })];
            let record =
                RecordRef { timestamp: Timestamp::new(timestamp), key: None, value: Some(&value), headers: &[] };
            builder.append(&record).expect("a record");
            records.push(Model { timestamp, value });
        }
        payload.extend_from_slice(&builder.finish().expect("a batch"));
    }
    (payload.freeze(), records)
}

/// What one read gives, from the offset asked for on.
async fn read_model(log: &Log, from: Offset, max_bytes: usize) -> Vec<Model> {
    let read = log.read(from, max_bytes).await.expect("readable");
    let (mut records, mut scratch) = (Vec::new(), Scratch::default());
    let mut batches = 0;
    for slice in &read.slices {
        for batch in split_batches(slice) {
            let batch = batch.expect("whole batches");
            batches += 1;
            assert!(batch.header().next_offset() > from, "no batch before the one asked for");
            for record in batch.records(&mut scratch).expect("readable") {
                let record = record.expect("a sound record");
                if record.offset >= from {
                    assert_eq!(record.offset.get(), from.get() + int(records.len()));
                    let value = record.value.expect("a value").to_vec();
                    records.push(Model { timestamp: record.timestamp.get(), value });
                }
            }
        }
    }
    assert!(read.bytes <= max_bytes || batches == 1);
    assert_eq!(read.next_offset.get(), from.get() + int(records.len()));
    records
}

async fn read_somewhere(log: &Log, model: &[Model]) {
    let len = model.len() as u64;
    let mut from = draw_usize(len + 1);
    let max_bytes = draw_usize(40_000);
    // Sometimes on and on, so that the log reads ahead.
    for _ in 0..=draw(6) {
        let records = read_model(log, Offset::new(int(from)), max_bytes).await;
        assert_eq!(records, model[from..from + records.len()]);
        assert_eq!(records.is_empty(), from == model.len());
        from += records.len();
    }
    let beyond = log.read(Offset::new(int(model.len()) + 1), 10).await;
    assert!(matches!(beyond, Err(ReadError::OutOfRange { end, .. }) if end.get() == int(model.len())));
}

async fn look_up_a_timestamp(log: &Log, model: &[Model]) {
    let latest = model.iter().map(|record| record.timestamp).max().unwrap_or(0);
    let asked = draw(u64::try_from(latest + 20).expect("positive")).cast_signed();
    let expected = model.iter().position(|record| record.timestamp >= asked);
    let found = log.find_timestamp(Timestamp::new(asked)).await.expect("readable");
    assert_eq!(
        found.map(|(offset, timestamp)| (offset.get(), timestamp.get())),
        expected.map(|at| (int(at), model[at].timestamp)),
        "first at or after {asked}"
    );
}

#[test]
fn a_reader_from_the_beginning_catches_up_with_writers() {
    for seed in seeds(0..20) {
        let sim: Sim = sim(1000 + seed);
        sim.run(|| async {
            let (log, _) = open_one().await;
            for writer in 0..3 {
                let log = log.clone();
                task::spawn("writer", async move {
                    for number in 0..100 {
                        log.append(copied(writer * 1000 + number, 1, 700)).await.expect("acknowledged");
                        time::sleep(millis(draw(2))).await;
                    }
                });
            }
            let mut next = Offset::ZERO;
            while next.get() < 300 {
                let moved = log.readable_moved();
                let read = log.read(next, 5_000).await.expect("readable");
                if read.slices.is_empty() {
                    moved.await;
                }
                next = read.next_offset;
            }
            let seen = tags(&read_all(&log, 10_000).await);
            for writer in 0..3 {
                let own: Vec<u64> = seen.iter().copied().filter(|tag| tag / 1000 == writer).collect();
                assert_eq!(own, (writer * 1000..writer * 1000 + 100).collect::<Vec<_>>());
            }
        });
    }
}
