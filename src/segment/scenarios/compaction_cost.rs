//! What compaction costs: what it reads and writes, and whom it keeps waiting.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use ringmq_runtime::file::{IoClass, io_stats};
use ringmq_runtime::sim::{Fault, Operation};
use ringmq_runtime::{fs, task, time};
use ringmq_wire::batch::{BatchBuilder, BatchLimits, Compression, RecordRef};
use ringmq_wire::{Offset, Timestamp};

use super::support::*;
use crate::{Append, Compacted, CompactionBudget, CompactionPolicy, Log, LogConfig, Payload};

/// Memory for so many keys in one round.
fn for_keys(keys: usize) -> CompactionBudget {
    CompactionBudget::new(2 * keys * 57)
}

fn config() -> LogConfig {
    let compaction = Some(CompactionPolicy { dirty_percent_min: 1, ..CompactionPolicy::default() });
    LogConfig { compaction, ..small() }
}

async fn open_logs<const N: usize>() -> [Log; N] {
    let deps = start().await;
    let mut logs = Vec::new();
    for partition in (0..).take(N) {
        let (log, _) = open(&deps, partition).await.expect("a sound log");
        log.reconfigure(config()).expect("a sound setting");
        logs.push(log);
    }
    let Ok(logs) = logs.try_into() else { panic!("as many") };
    logs
}

fn batch_of(keys: impl IntoIterator<Item = u64>, value: &[u8], compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for key in keys {
        let (key, timestamp) = (key.to_be_bytes(), Timestamp::new(EPOCH_MS));
        builder.append(&RecordRef { timestamp, key: Some(&key), value: Some(value), headers: &[] }).expect("a record");
    }
    builder.finish().expect("a batch")
}

async fn append(log: &Log, batches: &[Bytes]) {
    let limits = BatchLimits { batch_bytes_max: 16 << 20, ..BatchLimits::default() };
    let append = Append::validated(Payload::Copied(batches.concat().into()), &limits).expect("sound batches");
    log.append(append).await.expect("acknowledged");
}

/// Appends records with these keys. Each just fits the smallest frame; sixteen fill a segment.
async fn fill(log: &Log, keys: impl IntoIterator<Item = u64>) {
    for key in keys {
        append(log, &[batch_of([key], &[7; 3_800], Compression::None)]).await;
    }
}

async fn compact(log: &Log, budget: &CompactionBudget) -> Option<Compacted> {
    log.compact(Timestamp::new(time::wall_clock()), budget, &|| false).await.expect("compacted")
}

async fn segment_files() -> Vec<String> {
    let entries = fs::read_dir(file_path(0, "")).await.expect("a directory");
    entries.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(".log")).collect()
}

#[test]
fn where_nothing_changes_nothing_is_written() {
    let sim = sim(1);
    sim.run(|| async {
        let [log] = open_logs().await;
        fill(&log, 0..150).await;
        for operation in [Operation::Open, Operation::Write, Operation::Preallocate] {
            sim.disk().inject(Fault::on(operation, "*.cleaned").os_error(5));
        }
        let done = compact(&log, &CompactionBudget::default()).await.expect("all of it is new");
        assert_eq!((done.bytes_before, done.bytes_after, done.records_removed), (0, 0, 0));
        assert!(done.bytes_read > 2 * 130 * 3_800, "once for the keys, and once more: {done:?}");
    });
}

#[test]
fn only_segments_that_change_are_written() {
    let sim = sim(2);
    sim.run(|| async {
        let [log] = open_logs().await;
        fill(&log, 0..150).await;
        let before = segment_files().await;
        // The last record of the second segment, and what seals that.
        let second_end: u64 = before[2].split('.').next().and_then(|base| base.parse().ok()).expect("a base offset");
        fill(&log, [second_end - 1].into_iter().chain(1_000..1_060)).await;
        let read = |name: &String| sim.disk().read(file_path(0, name)).expect("a segment");
        let old: Vec<_> = before[..4].iter().map(read).collect();
        let done = compact(&log, &CompactionBudget::default()).await.expect("all of it is new");
        assert_eq!(done.records_removed, 1);
        let now: Vec<_> = before[..4].iter().map(read).collect();
        let changed: Vec<_> = old.iter().zip(&now).map(|(old, now)| old != now).collect();
        assert_eq!(changed, [false, true, false, false]);
        assert!(done.bytes_before <= small().segment_bytes, "{done:?}");
    });
}

#[test]
fn keys_that_do_not_fit_cost_a_round_for_as_many_as_fit() {
    const KEYS: usize = 40;
    sim(3).run(|| async {
        let [log] = open_logs().await;
        // Nothing is replaced before the last records, so that nothing becomes less on the way.
        fill(&log, (0..240).chain(0..60)).await;
        let files = segment_files().await;
        let sealed_bytes = (files.len() as u64 - 1) * small().segment_bytes;
        let (mut rounds, mut bytes_read, mut until) = (0, 0, Offset::ZERO);
        while let Some(done) = compact(&log, &for_keys(KEYS)).await {
            assert!(done.until > until, "every round comes further");
            (rounds, bytes_read, until) = (rounds + 1, bytes_read + done.bytes_read, done.until);
        }
        assert_eq!(until.get().to_string(), files.last().expect("one").trim_start_matches('0').replace(".log", ""));
        assert!(rounds <= until.as_u64().div_ceil(KEYS as u64), "{rounds} rounds up to {until}");
        // The keys once, each round what is before them, and what changes once more.
        assert!(bytes_read <= sealed_bytes * (1 + rounds) + 2 * sealed_bytes, "{bytes_read} of {sealed_bytes}");
    });
}

#[test]
fn a_long_round_lets_others_in_between() {
    for (turn_bytes, place) in [(64 << 10, Some(2)), (64 << 20, Some(0))] {
        sim(4).run(move || async move {
            let logs: [Log; 3] = open_logs().await;
            for (log, records) in logs.iter().zip([900, 60, 60]) {
                fill(log, (0..records).map(|number| number % 20)).await;
            }
            let budget = CompactionBudget::default().with_turns_of(turn_bytes);
            let (ended, all) = (Rc::new(RefCell::new(Vec::new())), task::Gate::new());
            for (number, log) in (0..).zip(logs) {
                // The long one is at work when the others come.
                time::sleep(millis(1)).await;
                let (ended, budget) = (ended.clone(), budget.clone());
                let round = async move {
                    compact(&log, &budget).await.expect("enough is new");
                    ended.borrow_mut().push(number);
                };
                all.spawn("round", round).expect("an open gate");
            }
            all.close().await;
            assert_eq!(ended.borrow().iter().position(|number| *number == 0), place, "in turns of {turn_bytes} bytes");
        });
    }
}

#[test]
fn rounds_share_the_memory_for_keys_and_give_it_back() {
    sim(5).run(|| async {
        let logs: [Log; 2] = open_logs().await;
        for log in &logs {
            fill(log, (0..100).map(|number| number % 50)).await;
        }
        let budget = for_keys(60);
        let all = task::Gate::new();
        let untils = Rc::new(RefCell::new(Vec::new()));
        for log in logs.clone() {
            let (budget, untils) = (budget.clone().with_turns_of(4 << 10), untils.clone());
            let round = async move {
                let done = compact(&log, &budget).await.expect("enough is new");
                untils.borrow_mut().push(done.until);
            };
            all.spawn("round", round).expect("an open gate");
        }
        all.close().await;
        // The second one had half of the other half.
        let ends: Vec<_> = logs.iter().map(|log| log.offsets().end).collect();
        assert!(untils.borrow().contains(&Offset::new(30)), "{untils:?}");
        assert!(untils.borrow().iter().any(|until| *until > Offset::new(30) && *until < ends[0]), "{untils:?}");
        for log in &logs {
            while compact(log, &budget).await.is_some() {}
            assert!(!log.is_compaction_due(Timestamp::new(time::wall_clock())));
        }
        assert_eq!(format!("{budget:?}"), format!("{:?}", for_keys(60)), "all of it is free again");
    });
}

/// What a future returns, and how often it was polled.
async fn polls<T>(future: impl Future<Output = T>) -> (T, u64) {
    let (mut future, mut polls) = (pin!(future), 0);
    let done = std::future::poll_fn(|cx| {
        polls += 1;
        future.as_mut().poll(cx)
    });
    (done.await, polls)
}

/// A batch in one of many shapes, and what there is to do in it at the least: bytes that stay, and records.
struct Shape {
    name: &'static str,
    batches: Vec<Bytes>,
    kept_bytes: usize,
    records: usize,
}

fn shapes() -> Vec<Shape> {
    let many = || 0..20_000_u64;
    let long = vec![7; 8 << 20];
    let headers = vec![("h", None); 1_000_000];
    let record =
        RecordRef { timestamp: Timestamp::new(EPOCH_MS), key: Some(b"headers"), value: None, headers: &headers };
    let mut with_headers = BatchBuilder::new(Compression::None);
    with_headers.append(&record).expect("a record");
    let with_headers = with_headers.finish().expect("a batch");
    let kept_bytes = with_headers.len();
    let one_by_one = many().map(|key| batch_of([key], b"value", Compression::None)).collect();
    let in_one = |value: &[u8], compression| vec![batch_of(many(), value, compression)];
    let compressed = |name, compression| {
        let batches = in_one(&[7; 150], compression);
        Shape { name, batches, kept_bytes: 20_000 * 150, records: 20_000 }
    };
    vec![
        Shape { name: "small batches", batches: one_by_one, kept_bytes: 0, records: 20_000 },
        Shape { name: "small records", batches: in_one(b"value", Compression::None), kept_bytes: 0, records: 20_000 },
        compressed("gzip", Compression::Gzip),
        compressed("snappy", Compression::Snappy),
        compressed("lz4", Compression::Lz4),
        compressed("zstd", Compression::Zstd),
        Shape {
            name: "one long record",
            batches: vec![batch_of([7], &long, Compression::None)],
            kept_bytes: long.len(),
            records: 1,
        },
        Shape { name: "many headers", batches: vec![with_headers], kept_bytes, records: 1 },
    ]
}

#[test]
fn whatever_the_batches_are_like_it_computes_in_slices() {
    /// What is worked on in one slice, about. A record counts for a little more than its bytes.
    const SLICE_BYTES: usize = 128 << 10;
    const RECORD_BYTES: usize = 512;
    for shape in shapes() {
        sim(6).run(move || async move {
            let (log, _) = open_one().await;
            let room = LogConfig { segment_bytes: 32 << 20, frame_bytes_max: 1 << 20, ..config() };
            log.reconfigure(LogConfig { staged_bytes_max: 64 << 20, ..room }).expect("a sound setting");
            // The first is replaced, so that all is written again.
            let replaced = || [batch_of([u64::MAX], b"first", Compression::None)];
            append(&log, &replaced()).await;
            append(&log, &shape.batches).await;
            append(&log, &replaced()).await;
            log.roll_if_due(Timestamp::new(i64::MAX));
            append(&log, &replaced()).await;

            let background = || io_stats().classes[IoClass::Compaction as usize].requests;
            let before = background();
            let (done, polls) = polls(compact(&log, &CompactionBudget::default())).await;
            assert_eq!(done.expect("enough is new").records_removed, 1);
            let slices = usize::try_from(polls - (background() - before)).expect("few");
            // All records are looked at for their keys, and once more; what stays is copied twice.
            let work = 2 * shape.records * RECORD_BYTES + 2 * shape.kept_bytes;
            assert!(slices >= work / SLICE_BYTES, "{}: {work} bytes of work in {slices} slices", shape.name);
        });
    }
}
