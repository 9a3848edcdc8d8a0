//! Many seeds, each a machine that loses power or its process again and again while it writes, through the journal and
//! straight.
//!
//! To run a seed again that failed, whose number is in the report: `RINGMQ_SEEDS=42..43 cargo test -p ringmq-shard
//! crash_loop`.
//!
//! Meanwhile records of the logs are deleted by request, for their age or number (`retention.rs`), and replaced by later
//! ones with their key, each in one of the logs.
//!
//! After every recovery, for every log: what was acknowledged is there and unchanged; what anyone read is there and
//! unchanged, but for what was deleted or replaced; what was deleted stays so; nothing is there that was not sent, or
//! twice; the order is that of the calls.

use std::ops::Range;
use std::time::Duration;

use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::sim::scenario::{dice, end_life, seeds};
use ringmq_runtime::sim::{Fault, Operation};
use ringmq_runtime::{random, task, time};
use ringmq_segment::{AppendError, Log, LogOffsets, OpenError};

use super::outside::{self, COMPACTED, Shared, acknowledge, batch_for, check, next_tag, read_end};
use super::reclaim::below;
use super::support::*;
use super::{reclaim, retries};

/// Without a bug all of them pass; each bug is found among them.
pub(super) const SEEDS: Range<u64> = 0..1_000;

const LOGS: u32 = 3;
const WRITERS: u32 = 3;
/// Whose records go for their age or number. The others' go by request, and those of [`COMPACTED`] when they are replaced.
const RETAINED: usize = 1;

#[test]
fn nothing_acknowledged_is_lost_over_many_lives_of_journal_and_segments() {
    let seeds = seeds(SEEDS);
    let (count, mut seen) = (seeds.total(), Tally::default());
    for seed in seeds {
        let of_seed = lives_with(seed, None);
        seen.redone += of_seed.redone;
        seen.expired += of_seed.expired;
        seen.replaced += of_seed.replaced;
    }
    let Tally { redone, expired, replaced } = seen;
    let enough = redone > count && expired > count / 2 && replaced > count / 4;
    // A few seeds need not come to anything.
    assert!(enough || count < 100, "{seen:?} with {count} seeds: it came to little");
}

/// What the seeds came to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Recoveries that found appends in the journal.
    redone: u64,
    /// Rounds of retention that deleted something.
    expired: u64,
    /// Rounds of compaction that removed something.
    replaced: u64,
}

#[test]
fn a_seed_replays_to_the_last_event() {
    let hash = |seed| {
        let sim = sim(seed, true);
        let outside = outside::outside(LOGS);
        sim.run(|| live(outside.clone(), 30, || ()));
        sim.crash();
        sim.run(|| async { drop(Core::start(LOGS).await) });
        sim.trace_hash()
    };
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}

/// One seed, with a program that may have a bug.
pub(super) fn lives_with(seed: u64, bug: Option<SeededBug>) -> Tally {
    let sim = sim_with_bug(seed, !seed.is_multiple_of(4), bug);
    let outside = outside::outside(LOGS);
    let (mut dice, mut redone) = (dice(seed), 0);
    for _ in 0..4 + dice(4) {
        let life_ms = 5 + dice(60);
        if seed % 7 == 3 {
            // Sometimes little room, sometimes enough.
            let free = sim.disk().free_bytes();
            sim.disk().set_capacity((64 << 30) - free + (dice(4) * 100) * 1024);
        }
        let fault = match seed % 5 {
            2 => {
                Some(Fault::on(Operation::Write, ["*.log", "*.ring", "*.table"][choice(&mut dice, 3)]).after(dice(60)))
            }
            3 => Some(swap_fails(&mut dice)),
            4 => Some(Fault::on(Operation::Preallocate, "*").after(dice(12)).times(1 + dice(3)).os_error(24)),
            _ => None,
        };
        if dice(4) == 0 {
            sim.disk().inject(Fault::on(Operation::Flush, "*.log").after(dice(2)));
        }
        sim.run(|| {
            let disk = sim.disk();
            live(outside.clone(), life_ms, move || fault.into_iter().for_each(|fault| disk.inject(fault)))
        });
        sim.disk().clear_faults();
        end_life(&sim, &mut dice);
        // Recovery may be interrupted, and then again.
        while dice(3) == 0 {
            sim.run(|| async {
                task::spawn("recovery", async { drop(Core::start(LOGS).await) });
                time::sleep(Duration::from_micros(random::u64() % 12_000)).await;
            });
            end_life(&sim, &mut dice);
        }
        sim.disk().set_capacity(64 << 30);
        redone += sim.run(|| verify(outside.clone()));
        end_life(&sim, &mut dice);
        if dice(5) == 0 {
            sim.run(|| stop_cleanly(outside.clone()));
        }
    }
    sim.run(|| stop_cleanly(outside.clone()));
    sim.crash();
    let after_a_clean_stop = sim.run(|| verify(outside.clone()));
    assert_eq!(after_a_clean_stop, 0, "a clean stop leaves nothing in the journal");
    let outside = outside.borrow();
    Tally { redone, expired: outside[RETAINED].reclaimed, replaced: outside[COMPACTED].reclaimed }
}

/// A failure on the way of a compacted segment, before or after it took effect.
fn swap_fails(dice: &mut impl FnMut(u64) -> u64) -> Fault {
    let (operation, path) = [
        (Operation::Write, "*.cleaned"),
        (Operation::Flush, "*.cleaned"),
        (Operation::Rename, "*.cleaned"),
        (Operation::Rename, "*.swap"),
        (Operation::Remove, "*.log"),
        (Operation::Write, "*.producers.tmp"),
    ][choice(dice, 6)];
    let fault = Fault::on(operation, path).after(dice(3)).os_error(5);
    if dice(2) == 0 { fault.late() } else { fault }
}

fn choice(dice: &mut impl FnMut(u64) -> u64, of: u64) -> usize {
    usize::try_from(dice(of)).expect("small")
}

/// Starts, tells so, and writes and reads until the time is over.
async fn live(outside: Shared, life_ms: u64, started: impl FnOnce() + 'static) {
    task::spawn("life", async move {
        let core = Core::start(LOGS).await;
        let opened = |(partition, log): (usize, &Result<Log, OpenError>)| Some((partition, log.as_ref().ok()?.clone()));
        for (partition, log) in core.logs.iter().enumerate().filter_map(opened) {
            check(&outside, partition, &log).await;
            for _ in 0..WRITERS {
                task::spawn("writer", write(outside.clone(), partition, log.clone()));
            }
            let producer = outside.borrow()[partition].retrying.clone();
            task::spawn("retrying writer", retries::write(outside.clone(), producer, partition, log.clone()));
            task::spawn("reader", read(outside.clone(), partition, log.clone()));
            reclaim(&outside, partition, log);
        }
        started();
        std::future::pending::<()>().await;
        drop(core);
    });
    time::sleep(Duration::from_millis(life_ms)).await;
}

/// Takes records away, in each log in another way.
fn reclaim(outside: &Shared, partition: usize, log: Log) {
    let pause_ms_max = if partition == COMPACTED { 200 } else { 30 };
    let deleting = reclaim::delete(outside.clone(), partition, log.clone(), pause_ms_max);
    match partition {
        RETAINED => task::spawn("retention", reclaim::retain(outside.clone(), partition, log)),
        COMPACTED => {
            task::spawn("compaction", reclaim::compact(outside.clone(), partition, log));
            task::spawn("deleter", deleting);
        }
        _ => task::spawn("deleter", deleting),
    }
}

/// Sends appends of all sizes, up to four at a time.
async fn write(outside: Shared, partition: usize, log: Log) {
    loop {
        let mut under_way = Vec::new();
        for _ in 0..=random::u64() % 4 {
            let tag = next_tag(&outside);
            let records = 1 + u32::try_from(random::u64() % 4).expect("small");
            let value_bytes = match random::u64() % 12 {
                0 => 9_000,
                1 => 3_000,
                _ => usize::try_from(random::u64() % 300).expect("small"),
            };
            outside.borrow_mut()[partition].sent.insert(tag, records);
            let batch = batch_for(&outside, partition, tag, records, value_bytes);
            under_way.push((tag, records, log.append(append_batch(tag, batch))));
        }
        for (tag, records, appending) in under_way {
            match appending.await {
                Ok(appended) => acknowledge(&outside, partition, tag, records, &log, appended),
                Err(AppendError::StorageFull(_) | AppendError::NotReady(_)) => {
                    // Nothing was written, so it must never show.
                    outside.borrow_mut()[partition].sent.remove(&tag);
                    time::sleep(Duration::from_millis(2)).await;
                }
                // Whether it is stored is not known. The log takes nothing more in this life.
                Err(AppendError::Poisoned(_)) => return,
                Err(error) => panic!("nothing that leads to this was injected: {error}"),
            }
        }
        if random::u64().is_multiple_of(4) {
            time::sleep(Duration::from_millis(random::u64() % 8)).await;
        }
    }
}

/// Reads from random places.
async fn read(outside: Shared, partition: usize, log: Log) {
    loop {
        let LogOffsets { start, durable, .. } = log.offsets();
        let known = read_end(&outside, partition).clamp(start.get(), durable.get());
        let from = if random::u64() & 1 == 0 { known } else { start.get() + below(known - start.get() + 1) };
        let max_bytes = usize::try_from(random::u64() % 20_000).expect("small");
        outside::read(&outside, partition, &log, from, max_bytes).await;
        time::sleep(Duration::from_millis(random::u64() % 4)).await;
    }
}

/// Starts on a sound disk and checks everything. Returns 1 if the journal had something.
async fn verify(outside: Shared) -> u64 {
    let core = Core::start(LOGS).await;
    for partition in 0..LOGS as usize {
        check(&outside, partition, core.log(partition)).await;
    }
    u64::from(core.journaled > 0)
}

async fn stop_cleanly(outside: Shared) {
    let core = Core::start(LOGS).await;
    for partition in 0..LOGS as usize {
        let tag = next_tag(&outside);
        outside.borrow_mut()[partition].sent.insert(tag, 1);
        let batch = batch_for(&outside, partition, tag, 1, 10);
        core.log(partition).append(append_batch(tag, batch)).await.expect("acknowledged");
    }
    core.stop().await;
}
