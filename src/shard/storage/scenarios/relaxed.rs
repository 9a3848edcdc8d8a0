//! Logs with relaxed flush: acknowledged when the page cache has it, durable within the interval.
//!
//! What may be lost is said in `docs/durability.md`: nothing when the process is killed; when the power goes, what was
//! acknowledged within the interval before. No offset that anyone saw is ever given to something else.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::sim::scenario::{LifeEnd, dice, end_life, seeds};
use ringmq_runtime::sim::{Fault, Operation};
use ringmq_runtime::time::Instant;
use ringmq_runtime::{random, task, time};
use ringmq_segment::{AppendError, Appended, Log, LogConfig, LogOffsets};
use ringmq_wire::Offset;

use super::support::*;

const INTERVAL: Duration = Duration::from_millis(20);
/// How long a flush may take in the simulation, behind one that began before, and the frames that stand in for it.
const FLUSH_TAKES: Duration = Duration::from_millis(60);

fn relaxed(interval: Duration) -> LogConfig {
    LogConfig { flush_interval: Some(interval), ..log_config() }
}

/// A core of one log with relaxed flush, whose relaxed journal is in use.
pub(super) async fn start_relaxed(interval: Duration) -> Core {
    let core = Core::start(1).await;
    core.journal_is_in_use().await;
    core.log(0).reconfigure(relaxed(interval)).expect("valid");
    // The first append asks for the journal, and goes another way.
    core.log(0).append(append(1, 1, 10)).await.expect("acknowledged");
    until(|| core.storage.logs.relaxed_journal.append_bytes_max() > 0).await;
    core
}

/// The records that a log gives, by offset: the tag of each.
async fn contents(log: &Log) -> BTreeMap<i64, u64> {
    let (seen, _) = read_what_is_left(log, log.offsets().start.get(), 4096).await;
    seen.iter().map(|seen| (seen.offset, seen.tag)).collect()
}

#[test]
fn what_is_acknowledged_is_readable_before_it_is_durable_and_durable_within_the_interval() {
    sim(1, true).run(|| async {
        let core = start_relaxed(INTERVAL).await;
        let log = core.log(0);
        let appended = log.append(append(2, 3, 10)).await.expect("acknowledged");
        let LogOffsets { durable, readable, end, .. } = log.offsets();
        assert_eq!((durable.get(), readable.get(), end.get()), (1, 4, 4), "{appended:?}");
        assert_eq!(contents(log).await.into_values().collect::<Vec<_>>(), [1, 2, 2, 2]);
        time::sleep(INTERVAL + FLUSH_TAKES).await;
        assert_eq!((log.offsets().durable.get(), log.frames_end().get()), (4, 0), "by the journal, in no frame");
    });
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let sim = sim(2, true);
    sim.run(|| async {
        let core = start_relaxed(Duration::from_secs(60)).await;
        // More would fill so much of the ring that it is flushed.
        for tag in 2..5 {
            core.log(0).append(append(tag, 1, 100)).await.expect("acknowledged");
        }
        assert_eq!(core.log(0).offsets().durable.get(), 1);
    });
    sim.kill();
    sim.run(|| async {
        let core = Core::start(1).await;
        assert!(contents(core.log(0)).await.into_values().eq(1..5));
    });
    // It was made durable before anything was built on it.
    sim.crash();
    sim.run(|| async { assert!(contents(Core::start(1).await.log(0)).await.into_values().eq(1..5)) });
}

#[test]
fn offsets_that_were_shown_and_lost_are_not_given_again() {
    for seed in 0..20 {
        let sim = sim(seed, true);
        let shown = sim.run(|| async {
            let core = start_relaxed(Duration::from_secs(60)).await;
            core.log(0).append(append(2, 5, 10)).await.expect("acknowledged");
            core.log(0).offsets().readable
        });
        assert_eq!(shown, Offset::new(6));
        sim.crash();
        let (first, left) = sim.run(|| async {
            let core = Core::start(1).await;
            let left = contents(core.log(0)).await;
            let next = core.log(0).append(append(3, 1, 10)).await.expect("acknowledged").base_offset;
            assert_eq!(contents(core.log(0)).await.get(&next.get()), Some(&3));
            (next, left)
        });
        assert!(first >= shown, "{first} is behind what was shown");
        assert!(left.len() == 1 || left.len() == 6, "a batch is there or not: {left:?}");
        // A stop that was clean skips nothing.
        sim.kill();
        let end = sim.run(|| async {
            let core = Core::start(1).await;
            let end = core.log(0).offsets().end;
            core.stop().await;
            end
        });
        sim.kill();
        sim.run(|| async { assert_eq!(Core::start(1).await.log(0).offsets().end, end) });
    }
}

#[test]
fn a_durable_append_behind_relaxed_ones_takes_them_along() {
    sim(4, true).run(|| async {
        let core = start_relaxed(Duration::from_secs(60)).await;
        let log = core.log(0);
        log.append(append(2, 1, 10)).await.expect("acknowledged");
        log.reconfigure(log_config()).expect("valid");
        log.append(append(3, 1, 10)).await.expect("acknowledged");
        let LogOffsets { durable, readable, .. } = log.offsets();
        assert_eq!((durable.get(), readable.get()), (3, 3));
    });
}

#[test]
fn a_large_append_is_durable_when_it_is_acknowledged() {
    sim(5, true).run(|| async {
        let core = start_relaxed(Duration::from_secs(60)).await;
        core.log(0).append(append(2, 1, 10)).await.expect("acknowledged");
        core.log(0).append(append(3, 1, 9_000)).await.expect("acknowledged");
        assert_eq!(core.log(0).offsets().durable.get(), 3);
    });
}

#[test]
fn a_relaxed_journal_that_fails_loses_nothing_and_logs_go_on() {
    for operation in [Operation::Flush, Operation::Write] {
        let sim = sim(6, true);
        sim.run(|| async {
            let core = start_relaxed(INTERVAL).await;
            let log = core.log(0);
            log.append(append(2, 1, 10)).await.expect("acknowledged");
            sim.disk().inject(Fault::on(operation, "*.relaxed"));
            log.append(append(3, 1, 10)).await.expect("acknowledged");
            until(|| core.storage.logs.relaxed_journal.append_bytes_max() == 0).await;
            until(|| log.offsets().durable.get() == 3).await;
            log.append(append(4, 1, 10)).await.expect("acknowledged");
            assert!(contents(log).await.into_values().eq(1..=4));
        });
        sim.crash();
        sim.run(|| async {
            let left = contents(Core::start(1).await.log(0)).await;
            assert!(left.into_values().take(3).eq(1..=3), "what became durable stays");
        });
    }
}

/// What the world outside knows of one log.
#[derive(Default)]
struct Outside {
    /// What anyone saw at an offset, by a read or an acknowledgement.
    seen: BTreeMap<i64, u64>,
    /// When an append was acknowledged, and its offsets.
    acknowledged: Vec<(Instant, Appended)>,
    next_tag: u64,
}

type Shared = Rc<RefCell<[Outside; LOGS as usize]>>;

/// Without a bug all of them pass; each bug is found among them.
pub(super) const SEEDS: Range<u64> = 0..150;

/// The first always has relaxed flush, the second never, the third changes.
const LOGS: u32 = 3;

#[test]
fn no_more_is_lost_than_the_interval_and_no_offset_is_given_twice_over_many_lives() {
    let (mut lost, mut kept) = (0, 0);
    let seeds = seeds(SEEDS);
    let count = seeds.total();
    for seed in seeds {
        let of_this = lives(seed);
        lost += of_this.0;
        kept += of_this.1;
    }
    // A few seeds need not come to anything.
    let enough = lost > count && kept > 10 * count;
    assert!(enough || count < 100, "crashes came at moments that matter: {lost} lost, {kept} kept");
}

/// One seed. Returns how many acknowledged records were lost, and how many were found after a life.
fn lives(seed: u64) -> (u64, u64) {
    lives_with(seed, None)
}

/// One seed, with a program that has that bug.
pub(super) fn lives_with(seed: u64, bug: Option<SeededBug>) -> (u64, u64) {
    let sim = sim_with_bug(seed, !seed.is_multiple_of(4), bug);
    let outside = Shared::default();
    let (mut dice, mut lost, mut kept) = (dice(seed), 0, 0);
    for _ in 0..4 + dice(5) {
        // Little is written in some: what the ring has is in no frame for long.
        let is_quiet = dice(2) == 0;
        let life = Duration::from_millis(10 + dice(90) + if is_quiet { 50 } else { 0 });
        let (mut flush_may_fail, faults_before) = (false, sim.disk().faults_met());
        if dice(6) == 0 {
            flush_may_fail = dice(2) == 0;
            // The first flushes are those of the start.
            let (operation, passed) = match flush_may_fail {
                true => (Operation::Flush, 2 + dice(4)),
                false => (Operation::Write, 1 + dice(30)),
            };
            sim.disk().inject(Fault::on(operation, "*.relaxed").after(passed));
        }
        let ended_at = sim.run(|| live(outside.clone(), life, is_quiet));
        sim.disk().clear_faults();
        let mut end = end_life(&sim, &mut dice);
        if flush_may_fail && sim.disk().faults_met() > faults_before {
            // The disk does not have what the page cache had, and until segments have it nothing else does.
            end = LifeEnd::Crashed;
        }
        while dice(3) == 0 {
            sim.run(|| async {
                task::spawn("recovery", async { drop(Core::start(LOGS).await) });
                time::sleep(Duration::from_micros(random::u64() % 12_000)).await;
            });
            if end_life(&sim, &mut dice) == LifeEnd::Crashed {
                end = LifeEnd::Crashed;
            }
        }
        let (lost_now, kept_now) = sim.run(|| verify(outside.clone(), end, ended_at));
        (lost, kept) = (lost + lost_now, kept + kept_now);
        end_life(&sim, &mut dice);
        if dice(4) == 0 {
            sim.run(|| async { Core::start(LOGS).await.stop().await });
            end_life(&sim, &mut dice);
        }
    }
    (lost, kept)
}

/// Writes to all logs until the time is over; returns when that was.
async fn live(outside: Shared, life: Duration, is_quiet: bool) -> Instant {
    let core = Core::start(LOGS).await;
    for partition in 0..LOGS as usize {
        let log = core.log(partition).clone();
        if partition != 1 {
            log.reconfigure(relaxed(INTERVAL)).expect("valid");
        }
        for _ in 0..2 {
            task::spawn("writer", write(outside.clone(), partition, log.clone(), is_quiet));
        }
        task::spawn("reader", read(outside.clone(), partition, log.clone()));
        if partition == 2 {
            task::spawn("changer", change(log));
        }
    }
    task::spawn("core", async move {
        std::future::pending::<()>().await;
        drop(core);
    });
    time::sleep(life).await;
    Instant::now()
}

async fn change(log: Log) {
    loop {
        time::sleep(Duration::from_millis(random::u64() % 12)).await;
        log.reconfigure(log_config()).expect("valid");
        time::sleep(Duration::from_millis(random::u64() % 12)).await;
        log.reconfigure(relaxed(INTERVAL)).expect("valid");
    }
}

async fn write(outside: Shared, partition: usize, log: Log, is_quiet: bool) {
    loop {
        let tag = {
            let outside = &mut outside.borrow_mut()[partition];
            outside.next_tag += 1;
            outside.next_tag
        };
        let value_bytes = if random::u64().is_multiple_of(16) && !is_quiet { 9_000 } else { 100 };
        let records = 1 + u32::try_from(random::u64() % 3).expect("small");
        match log.append(append(tag, records, value_bytes)).await {
            Ok(appended) => {
                assert!(log.offsets().readable >= appended.next_offset, "acknowledged is readable");
                let outside = &mut outside.borrow_mut()[partition];
                outside.acknowledged.push((Instant::now(), appended));
                for offset in appended.base_offset.get()..appended.next_offset.get() {
                    outside.see(offset, tag);
                }
            }
            Err(AppendError::Poisoned(_)) => return,
            Err(error) => panic!("nothing that leads to this was injected: {error}"),
        }
        time::sleep(Duration::from_micros(random::u64() % if is_quiet { 20_000 } else { 1_500 })).await;
    }
}

async fn read(outside: Shared, partition: usize, log: Log) {
    loop {
        for (offset, tag) in contents(&log).await {
            outside.borrow_mut()[partition].see(offset, tag);
        }
        time::sleep(Duration::from_millis(random::u64() % 40)).await;
    }
}

impl Outside {
    fn see(&mut self, offset: i64, tag: u64) {
        let before = self.seen.insert(offset, tag);
        assert!(before.is_none_or(|before| before == tag), "offset {offset} was {before:?} and is {tag} now");
    }
}

async fn verify(outside: Shared, end: LifeEnd, ended_at: Instant) -> (u64, u64) {
    let core = Core::start(LOGS).await;
    let (mut lost, mut kept) = (0, 0);
    for partition in 0..LOGS as usize {
        let found = contents(core.log(partition)).await;
        let outside = &mut outside.borrow_mut()[partition];
        for (at, appended) in std::mem::take(&mut outside.acknowledged) {
            let is_there = found.contains_key(&appended.base_offset.get());
            let is_owed = end == LifeEnd::Killed || partition == 1 || at + INTERVAL + FLUSH_TAKES < ended_at;
            assert!(
                is_there || !is_owed,
                "log {partition}: {appended:?} is gone, {:?} after it was acknowledged",
                ended_at.saturating_duration_since(at)
            );
            (lost, kept) = (lost + u64::from(!is_there), kept + u64::from(is_there));
        }
        for (offset, tag) in found {
            outside.see(offset, tag);
        }
    }
    (lost, kept)
}
