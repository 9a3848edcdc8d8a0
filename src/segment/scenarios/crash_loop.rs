//! Many seeds, each a machine that loses power or its process again and again while it writes.
//!
//! After every recovery, for every log: what was acknowledged is there and unchanged; what anyone read is there and
//! unchanged, but for what was deleted; what was deleted stays so; nothing is there that was not sent, or twice; the order
//! is that of the calls.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use ringmq_runtime::sim::scenario::{dice, end_life, seeds};
use ringmq_runtime::sim::{DiskConfig, Fault, Operation};
use ringmq_runtime::{random, task, time};
use ringmq_wire::Offset;

use super::retries::{self, Retrying, Sent};
use super::support::*;
use crate::{
    AppendError, Appended, DeleteRecordsError, GenerationHistory, Log, LogConfig, LogDeps, LogOffsets, OpenError,
    ReadError, Recovery,
};

const LOGS: u32 = 2;
const WRITERS: u32 = 3;

/// What the world outside knows of one log.
struct Outside {
    /// Records of each append that was sent, by tag.
    sent: BTreeMap<u64, u32>,
    /// Offsets of each append that was acknowledged.
    acknowledged: BTreeMap<u64, Range<i64>>,
    /// Every record that a reader was given, by offset.
    read: BTreeMap<i64, Seen>,
    /// Where the log begins: everything below is deleted.
    start: i64,
    /// Up to here someone asked to delete records, and may not have been answered.
    start_asked: i64,
    cut_tails: u64,
    emptied: u64,
    /// A producer that sends again what was not answered.
    retrying: Rc<RefCell<Retrying>>,
}

type Shared = Rc<RefCell<Vec<Outside>>>;

#[test]
fn nothing_acknowledged_is_lost_over_many_lives() {
    let seeds = seeds(0..1_000);
    let count = seeds.total();
    let (mut cut_tails, mut emptied) = (0, 0);
    for seed in seeds {
        let found = lives(seed);
        cut_tails += found.0;
        emptied += found.1;
    }
    // A few seeds need not come to anything.
    if count < 100 {
        return;
    }
    assert!(cut_tails > count / 8, "the crashes came at moments that matter: {cut_tails} of {count}");
    assert!(emptied > count / 8, "and found logs without a record: {emptied} of {count}");
}

#[test]
fn a_seed_replays_to_the_last_event() {
    let hash = |seed| {
        let sim = sim(seed);
        let outside = outside();
        sim.run(|| live(outside, 12, || ()));
        sim.crash();
        sim.run(start_and_verify_nothing);
        sim.trace_hash()
    };
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}

async fn start_and_verify_nothing() {
    let deps = start().await;
    for partition in 0..LOGS {
        open_with_hints(&deps, partition).await.expect("a sound log");
    }
}

/// With an index on disk now and then, in half of the logs.
async fn open_with_hints(deps: &LogDeps, partition: u32) -> Result<(Log, Recovery), OpenError> {
    let index_hint_bytes = if partition == 0 { 20 << 10 } else { small().index_hint_bytes };
    Log::open(Path::new(ROOT), log_id(partition), LogConfig { index_hint_bytes, ..small() }, deps).await
}

fn outside() -> Shared {
    let outside = |partition: u32| Outside {
        sent: BTreeMap::new(),
        acknowledged: BTreeMap::new(),
        read: BTreeMap::new(),
        start: 0,
        start_asked: 0,
        cut_tails: 0,
        emptied: 0,
        retrying: Rc::new(RefCell::new(Retrying::new(partition.into()))),
    };
    Rc::new(RefCell::new((0..LOGS).map(outside).collect()))
}

/// One seed. Returns how often a tail was cut, and how often a log had been emptied.
fn lives(seed: u64) -> (u64, u64) {
    let disk = DiskConfig { tear: !seed.is_multiple_of(4), ..DiskConfig::default() };
    let sim = sim_with_disk(seed, disk);
    let outside = outside();
    let mut dice = dice(seed);
    for _ in 0..4 + dice(4) {
        let life_ms = 1 + dice(25);
        if seed % 7 == 3 {
            // Sometimes little room, sometimes enough.
            let free = sim.disk().free_bytes();
            sim.disk().set_capacity((64 << 30) - free + (dice(4) * 100) * 1024);
        }
        if seed % 5 == 2 {
            let file = if dice(4) == 0 { "*-00000.table" } else { "*.log" };
            sim.disk().inject(Fault::on(Operation::Write, file).after(dice(40)));
        }
        let fault = (seed % 3 == 1).then(|| making_room_fails(&mut dice));
        sim.run(|| {
            let disk = sim.disk();
            // Once the logs are open: what fails before keeps them from being opened, which is not what this is about.
            live(outside.clone(), life_ms, move || fault.into_iter().for_each(|fault| disk.inject(fault)))
        });
        sim.disk().clear_faults();
        end_life(&sim, &mut dice);
        // Recovery may be interrupted, and then again.
        while dice(3) == 0 {
            sim.run(|| async {
                task::spawn("recovery", start_and_verify_nothing());
                time::sleep(std::time::Duration::from_micros(random::u64() % 6000)).await;
            });
            end_life(&sim, &mut dice);
        }
        sim.disk().set_capacity(64 << 30);
        sim.run(|| verify(outside.clone()));
        end_life(&sim, &mut dice);
    }
    sim.run(|| stop_cleanly(outside.clone()));
    sim.crash();
    sim.run(|| verify_clean(outside.clone()));
    outside.take().iter().fold((0, 0), |(cut, emptied), log| (cut + log.cut_tails, emptied + log.emptied))
}

/// A failure on the way to the next segment or generation, once or several times, before or after it took effect.
fn making_room_fails(dice: &mut impl FnMut(u64) -> u64) -> Fault {
    let (operation, path) = match dice(5) {
        0 => (Operation::CreateDir, "*"),
        1 => (Operation::Preallocate, "*"),
        2 => (Operation::Remove, "*.log"),
        3 => (Operation::SyncDir, "*"),
        // The directory of a log: readers open none.
        _ => (Operation::Open, "/data/logs/*/0"),
    };
    let fault = Fault::on(operation, path).after(dice(12)).times(1 + dice(3)).os_error(24);
    if dice(2) == 0 { fault.late() } else { fault }
}

/// Opens the logs, tells so, and writes and reads until the time is over.
async fn live(outside: Shared, life_ms: u64, opened: impl FnOnce() + 'static) {
    task::spawn("life", async move {
        let deps = start().await;
        for partition in 0..LOGS {
            let (log, found) = open_with_hints(&deps, partition).await.expect("a sound log");
            note(&outside, partition, &found);
            check(&outside, partition, &log).await;
            for _ in 0..WRITERS {
                task::spawn("writer", write(outside.clone(), partition, log.clone()));
            }
            task::spawn("retrying writer", write_retrying(outside.clone(), partition, log.clone()));
            task::spawn("reader", read(outside.clone(), partition, log.clone()));
            task::spawn("deleter", delete(outside.clone(), partition, log.clone()));
        }
        opened();
    });
    time::sleep(millis(life_ms)).await;
}

fn note(outside: &Shared, partition: u32, found: &Recovery) {
    if matches!(found, Recovery::CutTail { .. }) {
        outside.borrow_mut()[partition as usize].cut_tails += 1;
    }
}

/// Sends appends of all sizes, up to four at a time.
async fn write(outside: Shared, partition: u32, log: Log) {
    loop {
        let mut under_way = Vec::new();
        for _ in 0..=random::u64() % 4 {
            let tag = next_tag(&outside);
            let records = 1 + u32::try_from(random::u64() % 4).expect("small");
            let value_bytes = match random::u64() % 8 {
                0 => 9_000,
                1 => 3_000,
                _ => usize::try_from(random::u64() % 300).expect("small"),
            };
            let append = if random::u64() & 1 == 0 {
                copied(tag, records, value_bytes)
            } else {
                framed(tag, records, value_bytes)
            };
            outside.borrow_mut()[partition as usize].sent.insert(tag, records);
            under_way.push((tag, records, log.append(append)));
        }
        for (tag, records, appending) in under_way {
            match appending.await {
                Ok(appended) => {
                    let offsets = appended.base_offset.get()..appended.next_offset.get();
                    assert_eq!(offsets.end - offsets.start, i64::from(records));
                    assert!(log.offsets().durable >= appended.next_offset, "acknowledged is durable");
                    outside.borrow_mut()[partition as usize].acknowledged.insert(tag, offsets);
                }
                Err(AppendError::StorageFull(_) | AppendError::NotReady(_)) => {
                    // Nothing was written, so it must never show.
                    outside.borrow_mut()[partition as usize].sent.remove(&tag);
                    time::sleep(millis(2)).await;
                }
                // Whether it is stored is not known. The log takes nothing more in this life.
                Err(AppendError::Poisoned(_)) => return,
                Err(AppendError::Overloaded { .. }) => time::sleep(millis(1)).await,
                Err(error) => panic!("nothing that leads to this was injected: {error}"),
            }
        }
    }
}

/// As [`write`], with an identity: nothing is left open, whatever happens.
async fn write_retrying(outside: Shared, partition: u32, log: Log) {
    let producer = outside.borrow()[partition as usize].retrying.clone();
    let begin = |records| {
        let tag = next_tag(&outside);
        outside.borrow_mut()[partition as usize].sent.insert(tag, records);
        tag
    };
    let acknowledge = |sent: &Sent, appended: Appended| {
        let offsets = appended.base_offset.get()..appended.next_offset.get();
        assert_eq!(offsets.end - offsets.start, i64::from(sent.records));
        outside.borrow_mut()[partition as usize].acknowledged.insert(sent.tag, offsets);
    };
    retries::write(log, producer, begin, acknowledge).await;
}

/// Tags rise over all lives, so the order of the tags in a log is the order of the calls.
fn next_tag(outside: &Shared) -> u64 {
    let outside = outside.borrow();
    let last = outside.iter().filter_map(|log| log.sent.last_key_value()).map(|(tag, _)| *tag).max();
    last.map_or(1, |last| last + 1)
}

/// Reads from random places; what was given once is given ever after.
async fn read(outside: Shared, partition: u32, log: Log) {
    loop {
        let (start, end) = (log.offsets().start.get(), log.offsets().durable.get());
        let known = outside.borrow()[partition as usize].read.last_key_value().map_or(0, |(last, _)| last + 1);
        let known = known.clamp(start, end);
        let from = if random::u64() & 1 == 0 { known } else { start + below(known - start + 1) };
        let max_bytes = usize::try_from(random::u64() % 20_000).expect("small");
        let seen = read_from(&log, from, max_bytes).await;
        remember(&outside, partition, from, &seen);
        time::sleep(millis(random::u64() % 4)).await;
    }
}

fn below(bound: i64) -> i64 {
    (random::u64() % bound.cast_unsigned()).cast_signed()
}

/// Deletes records now and then: a few, up to somewhere, or all.
async fn delete(outside: Shared, partition: u32, log: Log) {
    loop {
        time::sleep(millis(random::u64() % 12)).await;
        let LogOffsets { start, durable, .. } = log.offsets();
        let before = match random::u64() % 4 {
            0 => durable.get(),
            1 => start.get() + below(durable.get() - start.get() + 1),
            _ => start.get() + below((durable.get() - start.get()).min(8) + 1),
        };
        {
            let known = &mut outside.borrow_mut()[partition as usize];
            known.start_asked = known.start_asked.max(before);
        }
        match log.delete_records(Offset::new(before)).await {
            Ok(start) => {
                assert!(start.get() >= before && log.offsets().start == start);
                outside.borrow_mut()[partition as usize].start = start.get();
                if let Some(deleted) = Offset::checked(start.get() - 1) {
                    let read = log.read(deleted, 1).await;
                    assert!(matches!(read, Err(ReadError::OutOfRange { .. })), "{read:?}");
                }
            }
            // Whether they are deleted is not known.
            Err(DeleteRecordsError::Record { .. }) => {}
            Err(DeleteRecordsError::Poisoned(_)) => return,
            Err(error) => panic!("nothing that leads to this was done: {error}"),
        }
    }
}

fn remember(outside: &Shared, partition: u32, from: i64, seen: &[Seen]) {
    let read = &mut outside.borrow_mut()[partition as usize].read;
    for (offset, seen) in (from..).zip(seen) {
        assert_eq!(read.entry(offset).or_insert(*seen), seen, "what was read once stays");
    }
}

async fn verify(outside: Shared) {
    let deps = start().await;
    for partition in 0..LOGS {
        let (log, found) = open_with_hints(&deps, partition).await.expect("a sound log");
        note(&outside, partition, &found);
        check(&outside, partition, &log).await;
    }
}

async fn check(outside: &Shared, partition: u32, log: &Log) {
    let (start, end) = (log.offsets().start.get(), log.offsets().durable.get());
    let seen = read_from(log, start, 50_000).await;
    assert_eq!(start + i64::try_from(seen.len()).expect("few"), end, "all of it can be read");
    remember(outside, partition, start, &seen);
    let outside = &mut outside.borrow_mut()[partition as usize];
    assert!((outside.start..=outside.start_asked).contains(&start), "{start}: deleted is deleted, and nothing else");
    outside.start = start;
    outside.emptied += u64::from(start == end && end > 0);
    let last_read = outside.read.last_key_value().map_or(0, |(last, _)| last + 1);
    assert!(last_read <= end, "nothing that was read is gone: {last_read} of {end}");
    for (tag, offsets) in &outside.acknowledged {
        assert!(offsets.end <= end, "append {tag} at {offsets:?} is gone, the log ends at {end}");
        for (number, offset) in (0..).zip(offsets.clone()).filter(|(_, offset)| *offset >= start) {
            let there = seen[usize::try_from(offset - start).expect("an offset")];
            assert_eq!(there, Seen { tag: *tag, number }, "append {tag} is what it was");
        }
    }
    // The log may begin within an append.
    let partial = seen.iter().take_while(|seen| seen.number != 0).count();
    let tags = tags(&seen);
    let retrying = &outside.retrying.borrow().tags;
    let (retried, once): (Vec<u64>, Vec<u64>) = tags.iter().partition(|tag| retrying.contains(tag));
    assert!(once.is_sorted() && retried.is_sorted(), "the order of the calls");
    assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len(), "nothing twice");
    let records: u32 = tags.iter().map(|tag| outside.sent.get(tag).expect("sent, and not refused")).sum();
    assert_eq!(partial + records as usize, seen.len(), "appends are there as a whole");
}

async fn stop_cleanly(outside: Shared) {
    let deps = start().await;
    for partition in 0..LOGS {
        let (log, _) = open_with_hints(&deps, partition).await.expect("a sound log");
        let tag = next_tag(&outside);
        outside.borrow_mut()[partition as usize].sent.insert(tag, 1);
        log.append(copied(tag, 1, 10)).await.expect("acknowledged");
        log.close().await.expect("a clean stop");
    }
}

async fn verify_clean(outside: Shared) {
    let history = GenerationHistory::load(Path::new(TABLES)).await.expect("sound tables");
    // Without memory for frames every read goes to the disk.
    let deps: LogDeps = deps(history, 0);
    for partition in 0..LOGS {
        let (log, found) = open_with_hints(&deps, partition).await.expect("a sound log");
        assert_eq!(found, Recovery::Clean { end: log.offsets().end });
        assert!(log.offsets().end > Offset::ZERO);
        check(&outside, partition, &log).await;
    }
}
