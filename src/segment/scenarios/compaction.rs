//! Compacted logs: of each key the latest record stays, whatever interrupts it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use ringmq_runtime::sim::scenario::{dice, end_life, seeds};
use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_runtime::{random, task, time};
use ringmq_wire::batch::{BatchBuilder, BatchLimits, Compression, RecordRef, Scratch, split_batches};
use ringmq_wire::{Offset, Timestamp};

use super::support::*;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::{
    Append, CompactError, Compacted, CompactionBudget, CompactionPolicy, Damage, Log, LogConfig, OpenError, Payload,
};

/// A record as it is sent and read: key, value, both by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Keyed {
    key: Option<u8>,
    value: Option<u32>,
}

fn set(key: u8, value: u32) -> Keyed {
    Keyed { key: Some(key), value: Some(value) }
}

fn tombstone(key: u8) -> Keyed {
    Keyed { key: Some(key), value: None }
}

const COMPRESSIONS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// Long enough that some tens of records fill a segment.
const VALUE_BYTES: usize = 1_500;

fn append(records: &[Keyed], compression: Compression) -> Append {
    let payload = Payload::Copied(batch_of(records, compression));
    Append::validated(payload, &BatchLimits::default()).expect("a sound batch")
}

fn batch_of(records: &[Keyed], compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        let key = record.key.map(|key| vec![key; 3]);
        let value = record.value.map(|value| {
            let mut bytes = value.to_be_bytes().to_vec();
            bytes.resize(VALUE_BYTES, 7);
            bytes
        });
        let timestamp = Timestamp::new(EPOCH_MS);
        let record = RecordRef { timestamp, key: key.as_deref(), value: value.as_deref(), headers: &[] };
        builder.append(&record).expect("a record");
    }
    builder.finish().expect("a batch")
}

/// Everything that the log gives, by offset. Asserts that reading goes on until the end, and that offsets rise.
async fn contents(log: &Log, max_bytes: usize) -> BTreeMap<i64, Keyed> {
    let mut all = BTreeMap::new();
    let mut next = log.offsets().start;
    while next < log.offsets().durable {
        let read = log.read(next, max_bytes).await.expect("readable");
        assert!(read.next_offset > next && !read.slices.is_empty(), "a read below the end makes progress");
        let mut scratch = Scratch::default();
        for batch in read.slices.iter().flat_map(|slice| split_batches(slice)) {
            let batch = batch.expect("whole batches");
            batch.verify_checksum().expect("a right checksum");
            for record in batch.records(&mut scratch).expect("readable records") {
                let record = record.expect("a sound record");
                if record.offset < next {
                    continue;
                }
                assert!(all.last_key_value().is_none_or(|(last, _)| *last < record.offset.get()), "offsets rise");
                let value = record.value.map(|value| u32::from_be_bytes(value[..4].try_into().expect("a value")));
                all.insert(record.offset.get(), Keyed { key: record.key.map(|key| key[0]), value });
            }
        }
        next = read.next_offset;
    }
    all
}

/// What someone who reads everything takes the keys to be.
fn table(contents: &BTreeMap<i64, Keyed>) -> BTreeMap<u8, u32> {
    let mut table = BTreeMap::new();
    for record in contents.values() {
        match (record.key, record.value) {
            (Some(key), Some(value)) => drop(table.insert(key, value)),
            (Some(key), None) => drop(table.remove(&key)),
            (None, _) => {}
        }
    }
    table
}

fn always() -> CompactionPolicy {
    CompactionPolicy { dirty_percent_min: 1, ..CompactionPolicy::default() }
}

async fn compact(log: &Log, policy: &CompactionPolicy) -> Option<Compacted> {
    try_compact(log, policy).await.expect("compacted")
}

async fn try_compact(log: &Log, policy: &CompactionPolicy) -> Result<Option<Compacted>, CompactError> {
    compact_at(log, policy, time::wall_clock()).await
}

async fn compact_at(log: &Log, policy: &CompactionPolicy, now: i64) -> Result<Option<Compacted>, CompactError> {
    log.reconfigure(LogConfig { compaction: Some(*policy), ..small() }).expect("a sound setting");
    log.compact(Timestamp::new(now), &CompactionBudget::default(), &|| false).await
}

/// Appends single records until so many segments are sealed; returns what was sent.
async fn fill(log: &Log, sealed: usize, mut next: impl FnMut(u32) -> Keyed) -> BTreeMap<i64, Keyed> {
    let mut sent = BTreeMap::new();
    let before = segment_files(log).await.len().max(1);
    for number in 0.. {
        if segment_files(log).await.len() >= before + sealed {
            break;
        }
        let record = next(number);
        let appended = log.append(append(&[record], Compression::None)).await.expect("acknowledged");
        sent.insert(appended.base_offset.get(), record);
    }
    sent
}

async fn segment_files(_: &Log) -> Vec<String> {
    files().await.into_iter().filter(|name| name.ends_with(".log")).collect()
}

async fn files() -> Vec<String> {
    let entries = ringmq_runtime::fs::read_dir(file_path(0, "")).await.unwrap_or_default();
    entries.into_iter().map(|entry| entry.name).collect()
}

#[test]
fn of_each_key_the_latest_record_stays_where_it_was() {
    sim(1).run(|| async {
        let (log, _) = open_one().await;
        let sent = fill(&log, 4, |number| set(u8::try_from(number % 5).expect("small"), number)).await;
        let segments = segment_files(&log).await;
        let done = compact(&log, &always()).await.expect("enough is new");
        assert_eq!(done.until.get(), log_base(segments.last().expect("an active one")));
        assert!(done.bytes_after * 5 < done.bytes_before, "{done:?}");

        let left = contents(&log, 1 << 20).await;
        assert!(left.iter().all(|(offset, record)| sent.get(offset) == Some(record)), "nothing is changed");
        assert_eq!(table(&left), table(&sent));
        let below = |all: &BTreeMap<i64, Keyed>| all.range(..done.until.get()).count();
        assert_eq!(below(&left), 5, "one record a key, of {}", below(&sent));
        assert_eq!(done.records_removed, (below(&sent) - 5) as u64);
        assert_eq!(segment_files(&log).await.len(), 2, "neighbours became one");
        assert_eq!(compact(&log, &always()).await, None, "nothing is new");

        // From every offset on, also from those that are gone.
        for from in 0..log.offsets().end.get() {
            let read = log.read(Offset::new(from), 1).await.expect("readable");
            assert!(read.next_offset.get() > from);
        }
        log.close().await.expect("a clean stop");
    });
}

fn log_base(name: &str) -> i64 {
    name.split('.').next().and_then(|digits| digits.parse().ok()).expect("a base offset")
}

#[test]
fn what_was_compacted_is_the_same_after_a_restart() {
    let sim = sim(2);
    let sent = Rc::new(RefCell::new(BTreeMap::new()));
    sim.run(|| {
        let sent = sent.clone();
        async move {
            let (log, _) = open_one().await;
            *sent.borrow_mut() = fill(&log, 4, |number| set(u8::try_from(number % 7).expect("small"), number)).await;
            compact(&log, &always()).await.expect("enough is new");
        }
    });
    for crash in [false, true] {
        if crash {
            let _ = sim.crash();
        } else {
            sim.kill();
        }
        sim.run(|| {
            let sent = sent.clone();
            async move {
                let (log, _) = open_one().await;
                let left = contents(&log, 10_000).await;
                assert_eq!(table(&left), table(&sent.borrow()));
                assert!(left.len() < sent.borrow().len() / 2);
                assert_eq!(compact(&log, &always()).await, None, "how far it came is known");
            }
        });
    }
}

#[test]
fn a_tombstone_stays_until_its_time_and_then_goes() {
    sim(3).run(|| async {
        let (log, _) = open_one().await;
        let mut sent = fill(&log, 1, |number| set(1, number)).await;
        let appended = log.append(append(&[tombstone(1), set(2, 9)], Compression::Lz4)).await.expect("acknowledged");
        sent.insert(appended.base_offset.get(), tombstone(1));
        sent.insert(appended.base_offset.get() + 1, set(2, 9));
        sent.extend(fill(&log, 1, |number| set(3, number)).await);
        let policy = CompactionPolicy { tombstone_retention: millis(5_000), ..always() };

        compact(&log, &policy).await.expect("enough is new");
        let left = contents(&log, 1 << 20).await;
        assert!(left.values().any(|record| *record == tombstone(1)), "who reads the old value meanwhile must see it");
        assert!(!left.values().any(|record| record.key == Some(1) && record.value.is_some()));
        assert_eq!(compact(&log, &policy).await, None);

        time::sleep(millis(5_001)).await;
        compact(&log, &policy).await.expect("the tombstone's time has come");
        let left = contents(&log, 1 << 20).await;
        assert!(!left.values().any(|record| record.key == Some(1)), "{left:?}");
        assert_eq!(table(&left), table(&sent));
        assert_eq!(compact(&log, &policy).await, None);
    });
}

#[test]
fn a_log_that_is_not_to_be_compacted_is_left_alone() {
    sim(12).run(|| async {
        let (log, _) = open_one().await;
        let sent = fill(&log, 2, |number| set(1, number)).await;
        assert_eq!(
            log.compact(Timestamp::new(time::wall_clock()), &CompactionBudget::default(), &|| false)
                .await
                .expect("nothing to do"),
            None
        );
        assert_eq!(contents(&log, 1 << 20).await, sent);
    });
}

/// A batch that says it is compressed, and is not.
fn unreadable(records: &[Keyed]) -> Append {
    let mut batch = batch_of(records, Compression::None).to_vec();
    // The attributes: gzip. The checksum covers them.
    batch[22] |= 1;
    let checksum = crc_fast::crc32_iscsi(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    Append::validated(Payload::Copied(batch.into()), &BatchLimits::default()).expect("a sound batch")
}

#[test]
fn a_batch_stays_compressed_as_it_was() {
    sim(16).run(|| async {
        let (log, _) = open_one().await;
        let mut sent = BTreeMap::new();
        for (key, compression) in (10..).zip(COMPRESSIONS) {
            // The first is replaced, twice: in its batch and behind it.
            let records = [set(1, 1), set(1, 2), set(key, 3), set(key, 4), tombstone(key + 100)];
            let appended = log.append(append(&records, compression)).await.expect("acknowledged");
            sent.extend((appended.base_offset.get()..).zip(records));
        }
        sent.extend(fill(&log, 1, |number| set(1, number)).await);
        let done = compact(&log, &always()).await.expect("enough is new");
        let left = contents(&log, 1 << 20).await;
        assert!(left.iter().all(|(offset, record)| sent.get(offset) == Some(record)), "nothing is changed");
        assert_eq!(table(&left), table(&sent));
        assert_eq!(left.values().filter(|record| record.key != Some(1)).count(), 2 * COMPRESSIONS.len());
        assert!(done.records_removed >= 3 * COMPRESSIONS.len() as u64, "{done:?}");

        let read = log.read(Offset::ZERO, 1 << 20).await.expect("readable");
        let batches = read.slices.iter().flat_map(|slice| split_batches(slice));
        let batches: Vec<_> = batches.map(|batch| *batch.expect("whole").header()).collect();
        let compressions: Vec<_> = batches.iter().map(|header| header.compression()).collect();
        assert_eq!(compressions[..COMPRESSIONS.len()], COMPRESSIONS);
        assert!(batches[..COMPRESSIONS.len()].iter().all(|header| header.record_count == 2), "{batches:?}");
    });
}

#[test]
fn a_tombstone_stays_while_what_is_before_it_cannot_be_read() {
    sim(14).run(|| async {
        let (log, _) = open_one().await;
        fill(&log, 1, |number| set(3, number)).await;
        log.append(unreadable(&[set(1, 7)])).await.expect("acknowledged");
        for key in [1, 3] {
            log.append(append(&[tombstone(key)], Compression::None)).await.expect("acknowledged");
        }
        let behind = log.offsets().end;
        fill(&log, 1, |number| set(4, number)).await;
        let policy = CompactionPolicy { tombstone_retention: millis(10), ..always() };
        for _ in 0..3 {
            compact(&log, &policy).await;
            time::sleep(millis(20)).await;
        }
        assert_eq!(compact(&log, &policy).await, None, "there is nothing to wait for");
        let (mut tombstones, mut unreadable) = (Vec::new(), 0);
        let mut next = Offset::ZERO;
        while next < behind {
            let read = log.read(next, 1).await.expect("readable");
            let mut scratch = Scratch::default();
            for batch in read.slices.iter().flat_map(|slice| split_batches(slice)) {
                let batch = batch.expect("whole batches");
                let Ok(records) = batch.records(&mut scratch) else {
                    unreadable += 1;
                    continue;
                };
                let records = records.map(|record| record.expect("a sound record"));
                tombstones
                    .extend(records.filter(|record| record.value.is_none()).map(|record| record.key.map(|key| key[0])));
            }
            next = read.next_offset;
        }
        assert_eq!((unreadable, tombstones), (1, vec![Some(1), Some(3)]), "the first may delete what is in there");
    });
}

#[test]
fn a_frame_without_whole_batches_ends_the_round_and_stays() {
    let sim = sim(15);
    sim.run(|| async {
        let (log, _) = open_one().await;
        fill(&log, 2, |number| set(1, number)).await;
        let first = segment_files(&log).await[0].clone();
        let mut file = sim.disk().read(file_path(0, &first)).expect("a segment");
        let header = FrameHeader::decode(&file).expect("a frame");
        // A batch that says it is longer than the frame, under checksums that are right.
        file[FRAME_HEADER_BYTES + 8] = 0x40;
        header.seal(&mut file[..header.frame_bytes as usize]);
        sim.disk().overwrite(file_path(0, &first), 0, &file[..header.frame_bytes as usize]).expect("a file");
        match try_compact(&log, &always()).await {
            Err(CompactError::Corrupt(corruption)) => {
                assert_eq!((corruption.position, corruption.expected.get()), (0, 0))
            }
            other => panic!("nothing of it may be left out: {other:?}"),
        }
        assert!(sim.disk().read(file_path(0, &first)).is_some_and(|now| now == file), "it stays as it is");
        assert_eq!(compact(&log, &always()).await, None, "and is left alone for a while");
        time::sleep(millis(10 * 60 * 1000)).await;
        assert!(matches!(try_compact(&log, &always()).await, Err(CompactError::Corrupt(_))), "then it is tried again");
    });
}

#[test]
fn records_without_a_key_stay() {
    sim(4).run(|| async {
        let (log, _) = open_one().await;
        let keyless = |number| Keyed { key: None, value: Some(number) };
        let sent = fill(&log, 2, |number| if number % 3 == 0 { keyless(number) } else { set(1, number) }).await;
        let done = compact(&log, &always()).await.expect("enough is new");
        let left = contents(&log, 1 << 20).await;
        let count = |all: &BTreeMap<i64, Keyed>| all.values().filter(|record| record.key.is_none()).count();
        assert_eq!(count(&left), count(&sent));
        assert_eq!(left.range(..done.until.get()).filter(|(_, record)| record.key == Some(1)).count(), 1);
    });
}

#[test]
fn keys_that_do_not_fit_in_memory_wait_for_the_next_round() {
    sim(5).run(|| async {
        let (log, _) = open_one().await;
        let sent = fill(&log, 4, |number| set(u8::try_from(number % 50).expect("small"), number)).await;
        log.reconfigure(LogConfig { compaction: Some(always()), ..small() }).expect("a sound setting");
        let budget = CompactionBudget::new(2_000);
        let mut until = Offset::ZERO;
        for _ in 0..100 {
            let done = log.compact(Timestamp::new(time::wall_clock()), &budget, &|| false).await.expect("compacted");
            let Some(done) = done else { break };
            assert!(done.until > until, "every round comes further");
            until = done.until;
            assert_eq!(table(&contents(&log, 1 << 20).await), table(&sent));
        }
        assert_eq!(until.get(), log_base(segment_files(&log).await.last().expect("an active one")));
    });
}

#[test]
fn too_little_that_is_new_waits() {
    sim(6).run(|| async {
        let (log, _) = open_one().await;
        // Hardly anything is replaced.
        fill(&log, 4, |number| set(u8::try_from(number % 250).expect("small"), number)).await;
        let half = CompactionPolicy::default();
        compact(&log, &half).await.expect("all of it is new");
        fill(&log, 1, |number| set(255, number)).await;
        assert_eq!(compact(&log, &half).await, None);
        compact(&log, &always()).await.expect("a little is new");
    });
}

#[test]
fn a_reader_never_takes_a_deleted_key_for_one_that_is_there() {
    for seed in seeds(0..60) {
        sim(seed).run(|| async {
            let (log, _) = open_one().await;
            let policy = CompactionPolicy { tombstone_retention: millis(0), ..always() };
            fill(&log, 3, |number| set(u8::try_from(number % 4).expect("small"), number)).await;
            let reader = {
                let log = log.clone();
                async move {
                    let mut seen = Vec::new();
                    for _ in 0..20 {
                        let max_bytes = usize::try_from(random::u64() % 20_000).expect("small");
                        seen.push((log.offsets().durable, contents(&log, max_bytes).await));
                    }
                    seen
                }
            };
            let (done, outcome) = ringmq_runtime::local::oneshot();
            task::spawn("reader", async move {
                let _ = done.send(reader.await);
            });
            let mut sent = contents(&log, 1 << 20).await;
            for round in 0..3_u32 {
                sent.extend(
                    fill(&log, 1, |number| {
                        if number == 0 { tombstone(round.try_into().expect("small")) } else { set(9, number) }
                    })
                    .await,
                );
                compact(&log, &policy).await;
            }
            let seen = outcome.await.expect("the reader ended");
            for (at_least, contents) in seen {
                let last = contents.last_key_value().map_or(0, |(last, _)| *last);
                assert!(last + 1 >= at_least.get());
                assert!(contents.iter().all(|(offset, record)| sent.get(offset) == Some(record)));
            }
            assert_eq!(table(&contents(&log, 1 << 20).await), table(&sent));
        });
    }
}

/// What the world outside knows.
type Sent = Rc<RefCell<BTreeMap<i64, Keyed>>>;

/// One life: appends, compacts, and is interrupted at any moment.
async fn live(sent: Sent, life_ms: u64) {
    task::spawn("life", async move {
        let (log, _) = open_one().await;
        verify(&sent, &log).await;
        let compacted = log.clone();
        task::spawn("compaction", async move {
            let mut ahead = 0;
            loop {
                let policy = CompactionPolicy { tombstone_retention: millis(random::u64() % 40), ..always() };
                match compact_at(&compacted, &policy, time::wall_clock() + ahead).await {
                    Ok(_) => {}
                    Err(CompactError::Corrupt(corruption)) => panic!("{corruption}"),
                    Err(_) if compacted.poisoned().is_some() => return,
                    // It would be left alone for longer than this life lasts.
                    Err(_) => ahead += 10 * 60 * 1000,
                }
                time::sleep(millis(1)).await;
            }
        });
        loop {
            let key = u8::try_from(random::u64() % 6).expect("small");
            let value = u32::try_from(random::u64() % 1_000_000).expect("small");
            let record = if random::u64().is_multiple_of(4) { tombstone(key) } else { set(key, value) };
            let compression = COMPRESSIONS[usize::try_from(random::u64() % 5).expect("small")];
            let records = [record, set(key ^ 1, value)];
            // Whether it is stored is known only once it is answered; the last one of a life may be.
            let next = log.offsets().end.get();
            sent.borrow_mut().insert(next, records[0]);
            sent.borrow_mut().insert(next + 1, records[1]);
            if log.append(append(&records, compression)).await.is_err() {
                return;
            }
        }
    });
    time::sleep(millis(life_ms)).await;
}

/// What is there was sent, at that offset; and of what counts nothing is missing.
async fn verify(sent: &Sent, log: &Log) {
    let left = contents(log, 50_000).await;
    let end = log.offsets().end.get();
    // The last append of a life was never acknowledged: it is there or not.
    assert!(sent.borrow().last_key_value().is_none_or(|(last, _)| *last < end + 2), "{end}");
    sent.borrow_mut().retain(|offset, _| *offset < end);
    let sent = sent.borrow();
    for (offset, record) in &left {
        assert_eq!(sent.get(offset), Some(record), "offset {offset}");
    }
    assert_eq!(table(&left), table(&sent));
}

#[test]
fn no_key_is_lost_or_comes_back_over_many_lives() {
    for seed in seeds(0..400) {
        let sim = sim(seed);
        let (sent, mut dice) = (Sent::default(), dice(seed));
        for _ in 0..4 + dice(4) {
            let life_ms = 20 + dice(120);
            let fault = (seed % 3 == 1).then(|| swap_fails(&mut dice));
            sim.run(|| {
                fault.into_iter().for_each(|fault| sim.disk().inject(fault));
                live(sent.clone(), life_ms)
            });
            sim.disk().clear_faults();
            end_life(&sim, &mut dice);
            while dice(3) == 0 {
                sim.run(|| async {
                    task::spawn("recovery", async { drop(open_one().await) });
                    time::sleep(std::time::Duration::from_micros(random::u64() % 6000)).await;
                });
                end_life(&sim, &mut dice);
            }
            sim.run(|| {
                let sent = sent.clone();
                async move {
                    let (log, _) = open_one().await;
                    verify(&sent, &log).await;
                    assert!(files().await.iter().all(|name| !name.ends_with(".swap") && !name.ends_with(".cleaned")));
                }
            });
            end_life(&sim, &mut dice);
        }
    }
}

/// A failure on the way of a compacted segment, before or after it took effect.
fn swap_fails(dice: &mut impl FnMut(u64) -> u64) -> Fault {
    let (operation, path) = match dice(6) {
        0 => (Operation::Write, "*.cleaned"),
        1 => (Operation::Rename, "*.cleaned"),
        2 => (Operation::Rename, "*.swap"),
        3 => (Operation::Remove, "*.log"),
        4 => (Operation::Flush, "*.cleaned"),
        _ => (Operation::Preallocate, "*.cleaned"),
    };
    let fault = Fault::on(operation, path).after(dice(3)).os_error(5);
    if dice(2) == 0 { fault.late() } else { fault }
}

/// A log with a compacted segment that counts and has not taken its place.
fn left_half_way(sim: &Sim) {
    left_half_way_by(sim, Fault::on(Operation::Rename, "*.swap").os_error(5));
}

/// The same, with the step that failed.
pub(super) fn left_half_way_by(sim: &Sim, fault: Fault) {
    sim.disk().inject(fault);
    sim.run(|| async {
        let (log, _) = open_one().await;
        fill(&log, 3, |number| set(u8::try_from(number % 5).expect("small"), number)).await;
        let outcome = try_compact(&log, &always()).await;
        assert!(matches!(outcome, Err(CompactError::Io { .. })), "{outcome:?}");
        assert!(log.poisoned().is_some(), "only a start can tell what the directory holds");
        let keys = table(&contents(&log, 1 << 20).await);
        assert_eq!(keys.len(), 5, "reads go on, from the new segment");
        assert_eq!(files().await.iter().filter(|name| name.ends_with(".swap")).count(), 1);
    });
    sim.disk().clear_faults();
    sim.kill();
}

#[test]
fn a_swap_that_counts_is_completed_by_the_next_start() {
    let sim = sim(7);
    left_half_way(&sim);
    sim.run(|| async {
        let (log, _) = open_one().await;
        assert_eq!(table(&contents(&log, 1 << 20).await).len(), 5);
        assert_eq!(segment_files(&log).await.len(), 2);
    });
}

#[test]
fn a_damaged_swap_is_refused_and_nothing_is_changed() {
    let sim = sim(8);
    left_half_way(&sim);
    sim.run(|| async {
        let swap = files().await.into_iter().find(|name| name.ends_with(".swap")).expect("one");
        sim.disk().overwrite(file_path(0, &swap), 200, &[0xee]).expect("a file");
        let before = files().await;
        match open(&start().await, 0).await {
            Err(OpenError::Corrupt(corruption)) => {
                assert_eq!(corruption.segment, file_path(0, &swap));
                assert!(matches!(corruption.damage, Damage::Frame(_)), "{corruption}");
            }
            other => panic!("it is damaged: {:?}", other.map(|(_, found)| found)),
        }
        assert_eq!(files().await, before);
    });
}

#[test]
fn a_damaged_swap_of_records_that_are_deleted_is_no_damage() {
    let sim = sim(14);
    let start_offset = sim.run(|| async {
        let (log, _) = open_one().await;
        fill(&log, 3, |number| set(u8::try_from(number % 5).expect("small"), number)).await;
        let active = log_base(segment_files(&log).await.last().expect("an active one"));
        sim.disk().stall("*.swap", std::time::Duration::from_secs(60));
        let compacted = log.clone();
        task::spawn("compaction", async move {
            let _ = try_compact(&compacted, &always()).await;
        });
        while segment_files(&log).await.len() > 1 {
            time::sleep(millis(10)).await;
        }
        log.delete_records(Offset::new(active)).await.expect("deleted");
        active
    });
    sim.crash();
    let swap =
        sim.disk().files().into_iter().find(|path| path.extension().is_some_and(|extension| extension == "swap"));
    sim.disk().overwrite(swap.expect("one"), 200, &[0xee]).expect("a file");
    sim.run(|| async {
        let (log, _) = open_one().await;
        assert_eq!(log.offsets().start.get(), start_offset);
        assert!(contents(&log, 1 << 20).await.keys().all(|offset| *offset >= start_offset));
        assert!(files().await.iter().all(|name| !name.ends_with(".swap")), "it goes with all that is below the start");
        assert_eq!(segment_files(&log).await.len(), 1);
    });
}

#[test]
fn a_full_disk_leaves_the_log_as_it_is() {
    let sim = sim(9);
    sim.run(|| async {
        let (log, _) = open_one().await;
        let sent = fill(&log, 3, |number| set(u8::try_from(number % 5).expect("small"), number)).await;
        sim.disk().inject(Fault::on(Operation::Preallocate, "*.cleaned").error(io::ErrorKind::StorageFull));
        let outcome = try_compact(&log, &always()).await;
        assert!(matches!(outcome, Err(CompactError::StorageFull { .. })), "{outcome:?}");
        assert_eq!(contents(&log, 1 << 20).await, sent);
        assert!(files().await.iter().all(|name| !name.ends_with(".cleaned")));
        assert_eq!(compact(&log, &always()).await, None, "not at once");
        time::sleep(millis(10 * 60 * 1000)).await;
        compact(&log, &always()).await.expect("there is room again");
        assert_eq!(table(&contents(&log, 1 << 20).await), table(&sent));
    });
}

#[test]
fn damage_ends_the_round_before_it_and_is_named() {
    let sim = sim(10);
    sim.run(|| async {
        let (log, _) = open_one().await;
        fill(&log, 3, |number| set(u8::try_from(number % 5).expect("small"), number)).await;
        let second = segment_files(&log).await[1].clone();
        sim.disk().overwrite(file_path(0, &second), 200, &[0xee]).expect("a file");
        match try_compact(&log, &always()).await {
            Err(CompactError::Corrupt(corruption)) => assert_eq!(corruption.segment, file_path(0, &second)),
            other => panic!("it is damaged: {other:?}"),
        }
        assert!(files().await.contains(&second), "it stays");
    });
}

#[test]
fn a_round_ends_early_when_it_is_told_to() {
    sim(13).run(|| async {
        let (log, _) = open_one().await;
        let sent = fill(&log, 4, |number| set(u8::try_from(number % 5).expect("small"), number)).await;
        log.reconfigure(LogConfig { compaction: Some(always()), ..small() }).expect("a sound setting");
        let frames = std::cell::Cell::new(0);
        let is_over = || frames.replace(frames.get() + 1) == 70;
        let outcome = log.compact(Timestamp::new(time::wall_clock()), &CompactionBudget::default(), &is_over).await;
        assert!(matches!(outcome, Err(CompactError::Closed)), "{outcome:?}");
        assert!(files().await.iter().all(|name| !name.ends_with(".cleaned")));
        assert_eq!(contents(&log, 1 << 20).await, sent);
    });
}

#[test]
fn a_log_that_is_closed_or_deleted_does_not_wait_for_the_round() {
    for delete in [false, true] {
        let sim = sim(11);
        sim.run(|| async {
            let (log, _) = open_one().await;
            fill(&log, 4, |number| set(u8::try_from(number % 5).expect("small"), number)).await;
            let (done, outcome) = ringmq_runtime::local::oneshot();
            let compacted = log.clone();
            task::spawn("compaction", async move {
                let _ = done.send(try_compact(&compacted, &always()).await);
            });
            task::yield_now().await;
            if delete {
                log.delete().await.expect("deleted")
            } else {
                log.close().await.expect("a clean stop")
            }
            let outcome = outcome.await.expect("it ended");
            assert!(matches!(outcome, Err(CompactError::Closed)), "{outcome:?}");
        });
    }
}
