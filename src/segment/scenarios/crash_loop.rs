//! Many seeds, each a machine that loses power or its process again and again while it writes.
//!
//! After every recovery, for every log: what was acknowledged is there and unchanged; what anyone read is there and
//! unchanged; nothing is there that was not sent, or twice; the order is that of the calls.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use ringmq_runtime::sim::scenario::{dice, end_life, seeds};
use ringmq_runtime::sim::{DiskConfig, Fault, Operation};
use ringmq_runtime::{random, task, time};
use ringmq_wire::Offset;

use super::support::*;
use crate::{AppendError, GenerationHistory, Log, LogDeps, Recovery};

const LOGS: u32 = 2;
const WRITERS: u32 = 3;

/// What the world outside knows of one log.
#[derive(Default)]
struct Outside {
    /// Records of each append that was sent, by tag.
    sent: BTreeMap<u64, u32>,
    /// Offsets of each append that was acknowledged.
    acknowledged: BTreeMap<u64, Range<i64>>,
    /// Every record that a reader was given, by offset.
    read: Vec<Seen>,
    cut_tails: u64,
}

type Shared = Rc<RefCell<Vec<Outside>>>;

#[test]
fn nothing_acknowledged_is_lost_over_many_lives() {
    let seeds = seeds(0..400);
    let count = seeds.end - seeds.start;
    let cut_tails: u64 = seeds.map(lives).sum();
    assert!(cut_tails > count / 8, "the crashes came at moments that matter: {cut_tails} of {count}");
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
        open(&deps, partition).await.expect("a sound log");
    }
}

fn outside() -> Shared {
    Rc::new(RefCell::new((0..LOGS).map(|_| Outside::default()).collect()))
}

/// One seed. Returns how often a tail was cut.
fn lives(seed: u64) -> u64 {
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
    outside.take().iter().map(|log| log.cut_tails).sum()
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
            let (log, found) = open(&deps, partition).await.expect("a sound log");
            note(&outside, partition, &found);
            check(&outside, partition, &log).await;
            for _ in 0..WRITERS {
                task::spawn("writer", write(outside.clone(), partition, log.clone()));
            }
            task::spawn("reader", read(outside.clone(), partition, log.clone()));
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

/// Tags rise over all lives, so the order of the tags in a log is the order of the calls.
fn next_tag(outside: &Shared) -> u64 {
    let outside = outside.borrow();
    let last = outside.iter().filter_map(|log| log.sent.last_key_value()).map(|(tag, _)| *tag).max();
    last.map_or(1, |last| last + 1)
}

/// Reads from random places; what was given once is given ever after.
async fn read(outside: Shared, partition: u32, log: Log) {
    loop {
        let known = outside.borrow()[partition as usize].read.len() as u64;
        let from =
            i64::try_from(if random::u64() & 1 == 0 { known } else { random::u64() % (known + 1) }).expect("small");
        let max_bytes = usize::try_from(random::u64() % 20_000).expect("small");
        let seen = read_from(&log, from, max_bytes).await;
        remember(&outside, partition, from, &seen);
        time::sleep(millis(random::u64() % 4)).await;
    }
}

fn remember(outside: &Shared, partition: u32, from: i64, seen: &[Seen]) {
    let read = &mut outside.borrow_mut()[partition as usize].read;
    let from = usize::try_from(from).expect("an offset");
    let known = read.len().min(from + seen.len()).saturating_sub(from);
    assert_eq!(&read[from..from + known], &seen[..known], "what was read once stays");
    read.extend_from_slice(&seen[known..]);
}

async fn verify(outside: Shared) {
    let deps = start().await;
    for partition in 0..LOGS {
        let (log, found) = open(&deps, partition).await.expect("a sound log");
        note(&outside, partition, &found);
        check(&outside, partition, &log).await;
    }
}

async fn check(outside: &Shared, partition: u32, log: &Log) {
    let seen = read_all(log, 50_000).await;
    remember(outside, partition, 0, &seen);
    let outside = outside.borrow();
    let outside = &outside[partition as usize];
    assert_eq!(outside.read.len(), seen.len(), "nothing that was read is gone");
    for (tag, offsets) in &outside.acknowledged {
        let range =
            usize::try_from(offsets.start).expect("an offset")..usize::try_from(offsets.end).expect("an offset");
        let there =
            seen.get(range).unwrap_or_else(|| panic!("append {tag} at {offsets:?} is gone, {} are left", seen.len()));
        let expected: Vec<Seen> = (0..).map(|number| Seen { tag: *tag, number }).take(there.len()).collect();
        assert_eq!(there, expected, "append {tag} is what it was");
    }
    let tags = tags(&seen);
    assert!(tags.is_sorted(), "the order of the calls");
    assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len(), "nothing twice");
    let records: u32 = tags.iter().map(|tag| outside.sent.get(tag).expect("sent, and not refused")).sum();
    assert_eq!(records as usize, seen.len(), "appends are there as a whole");
}

async fn stop_cleanly(outside: Shared) {
    let deps = start().await;
    for partition in 0..LOGS {
        let (log, _) = open(&deps, partition).await.expect("a sound log");
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
        let (log, found) = open(&deps, partition).await.expect("a sound log");
        assert_eq!(found, Recovery::Clean { end: log.offsets().end });
        assert!(log.offsets().end > Offset::ZERO);
        check(&outside, partition, &log).await;
    }
}
