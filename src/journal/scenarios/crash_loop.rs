//! Many seeds, each a machine that loses power or its process again and again while it writes a ring that wraps all
//! the time.
//!
//! After every start: each block that was acknowledged, or that a start found before, and is not free, is there, whole
//! and unchanged, under its number. Nothing is there that was never written. The order is that of writing. Nothing is
//! told to be lost.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::sim::scenario::{LifeEnd, dice, end_life, seeds};
use ringmq_runtime::sim::{DiskConfig, Fault, Operation, Sim};
use ringmq_runtime::{random, task, time};

use super::support::*;
use crate::{
    BlockNumber, Entry, EntryHeader, Flushing, FoundBlocks, FoundEntry, FoundJournals, FoundRing, Journal,
    JournalConfig, Ring, RingName, remove_ring,
};

const PARTITIONS: u64 = 5;
/// Without a bug all of them pass; each bug is found among them.
const SEEDS: Range<u64> = 0..2000;

/// What the world outside knows. Blocks are named by a tag that rises over all lives.
struct Outside {
    written: BTreeMap<u64, Written>,
    /// Those that every start must find, as long as they are needed.
    owed: BTreeSet<u64>,
    /// Blocks with lower tags are free.
    needed_from: u64,
    /// The first block of the life that began last: with it, all before it is free.
    first_block: Option<(RingName, BlockNumber)>,
    /// In this life: those that are to be acknowledged, in order.
    waiting: Vec<u64>,
    /// Those that were told to be in the page cache: starts must find them until the power goes, or a flush fails.
    cached: BTreeSet<u64>,
    flushing: Flushing,
    life: u64,
    /// Blocks that starts had to find.
    found_owed: u64,
    /// Blocks that starts found without having to.
    found_unowed: u64,
    laps: u64,
}

impl Outside {
    fn new(flushing: Flushing) -> Outside {
        Outside {
            written: BTreeMap::new(),
            owed: BTreeSet::new(),
            needed_from: 0,
            first_block: None,
            waiting: Vec::new(),
            cached: BTreeSet::new(),
            flushing,
            life: 0,
            found_owed: 0,
            found_unowed: 0,
            laps: 0,
        }
    }

    /// How a life ended. What the page cache has outlives the process alone; the kernel takes it for clean where a flush
    /// failed, and no start looks there.
    fn ended(&mut self, end: LifeEnd) {
        if end == LifeEnd::Crashed {
            self.cached.clear();
        }
    }
}

struct Written {
    ring: RingName,
    block: BlockNumber,
    entries: Vec<(EntryHeader, usize)>,
}

type Shared = Rc<RefCell<Outside>>;

fn shared(flushing: Flushing) -> Shared {
    Rc::new(RefCell::new(Outside::new(flushing)))
}

#[test]
fn no_acknowledged_block_is_lost_over_many_lives() {
    let seeds = seeds(SEEDS);
    let count = seeds.total();
    let (mut owed, mut unowed, mut laps) = (0, 0, 0);
    for seed in seeds {
        let outside = lives(seed, None);
        owed += outside.found_owed;
        unowed += outside.found_unowed;
        laps += outside.laps;
    }
    // The crashes came at moments that matter; a few seeds need not come to anything.
    let enough = owed > 6 * count && unowed > count && laps > 5 * count;
    assert!(enough || count < 100, "{owed} {unowed} {laps} in {count} seeds");
}

/// Whether some seed finds the bug.
fn is_found(bug: SeededBug) -> bool {
    SEEDS.into_iter().any(|seed| panic::catch_unwind(AssertUnwindSafe(|| lives(seed, Some(bug)))).is_err())
}

#[test]
fn acknowledging_blocks_before_they_land_because_one_behind_them_has_is_found() {
    assert!(is_found(SeededBug::AcknowledgeOvertaken));
}

#[test]
fn reading_from_the_page_cache_what_a_failed_flush_lost_is_found() {
    assert!(is_found(SeededBug::ReadPageCache));
}

#[test]
fn a_seed_replays_to_the_last_event() {
    let hash = |seed| {
        let sim = sim(seed);
        sim.run(|| live(shared(Flushing::Each), config(seed), 20));
        sim.crash();
        sim.run(|| async { assert!(found().await.rings.len() <= 1) });
        sim.trace_hash()
    };
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}

/// Rings of different shapes; blocks of one unit are never lengthened.
fn config(seed: u64) -> JournalConfig {
    let block_units = 1 + seed % 4;
    let ring_units = 8 * block_units + seed / 4 % 5;
    let config = JournalConfig {
        ring_bytes: ring_units * UNIT,
        block_bytes_max: usize::try_from(block_units * UNIT).expect("small"),
        // More than two make more of a mess.
        blocks_in_flight_max: if seed.is_multiple_of(3) { 5 } else { 2 },
        idle: millis(1 + seed % 3),
    };
    config.validate().expect("valid");
    config
}

/// One seed, with a program that may have a bug.
fn lives(seed: u64, bug: Option<SeededBug>) -> Outside {
    let config = config(seed);
    let sim = sim_with_bug(seed, DiskConfig { tear: !seed.is_multiple_of(4), ..DiskConfig::default() }, bug);
    let outside = shared(if seed % 8 < 3 { Flushing::Relaxed } else { Flushing::Each });
    let mut dice = dice(seed);
    for _ in 0..6 + dice(6) {
        let (mut flush_may_fail, faults_before) = (false, sim.disk().faults_met());
        if seed % 5 < 2 {
            let ring = outside.borrow().flushing;
            let mut fault = match ring {
                // The first flush is that of the start, which has to read.
                Flushing::Relaxed if dice(2) == 0 => {
                    flush_may_fail = true;
                    Fault::on(Operation::Flush, "*.relaxed").after(1 + dice(4))
                }
                Flushing::Relaxed => Fault::on(Operation::Write, "*.relaxed").after(dice(40)),
                Flushing::Each => Fault::on(Operation::Write, "*.ring").after(dice(40)),
            };
            if dice(2) == 0 {
                fault = fault.late();
            }
            sim.disk().inject(fault);
        }
        let life_ms = 1 + if seed.is_multiple_of(2) { dice(40) } else { dice(8) };
        sim.run(|| live(outside.clone(), config.clone(), life_ms));
        sim.disk().clear_faults();
        let end = end_life(&sim, &mut dice);
        let flush_failed = flush_may_fail && sim.disk().faults_met() > faults_before;
        outside.borrow_mut().ended(if flush_failed { LifeEnd::Crashed } else { end });
        // A start may be interrupted, and then again.
        while dice(3) == 0 {
            let (outside, ended) = (outside.clone(), outside.clone());
            let config = config.clone();
            let micros = dice(8000);
            sim.run(|| async move {
                task::spawn("start", async move {
                    begin(&outside, &config).await;
                });
                time::sleep(std::time::Duration::from_micros(micros)).await;
            });
            let end = end_life(&sim, &mut dice);
            ended.borrow_mut().ended(end);
        }
    }
    sim.run(|| async { check(&outside, &found().await) });
    sim.run(|| find_nothing_in_another_ring(&sim, &config));
    drop(sim);
    outside.replace(Outside::new(Flushing::Each))
}

/// What stands in a ring counts for no other, at the very same places.
async fn find_nothing_in_another_ring(sim: &Sim, config: &JournalConfig) {
    let Some(ring) = found().await.rings.pop() else { return };
    let old = sim.disk().read(dir().join(ring.name.file_name())).expect("a ring");
    let other = Ring::prepare(dir(), SHARD, ring.name.flushing, config).await.expect("a ring").name();
    sim.disk().overwrite(dir().join(other.file_name()), 0, &old).expect("a ring");
    let other = found().await.rings.into_iter().find(|ring| ring.name == other).expect("it is there");
    assert_eq!((other.next, other.blocks), (BlockNumber::FIRST, FoundBlocks::default()));
}

/// Starts, then writes and frees until the time is over.
async fn live(outside: Shared, config: JournalConfig, life_ms: u64) {
    task::spawn("life", async move {
        let Some(journal) = begin(&outside, &config).await else { return };
        task::spawn("frees", free(outside.clone(), journal.clone()));
        write(outside, journal, config).await;
    });
    time::sleep(millis(life_ms)).await;
}

/// What a process does when it starts; `None` when the first block could not be written.
async fn begin(outside: &Shared, config: &JournalConfig) -> Option<Journal<u64>> {
    let found = found().await;
    check(outside, &found);
    // Time for frames.
    time::sleep(millis(random::u64() % 3)).await;
    let flushing = outside.borrow().flushing;
    let ring = match found.rings.first() {
        Some(ring) => Ring::resume(dir(), ring, config).await.expect("a ring").expect("of the same size"),
        None => Ring::prepare(dir(), SHARD, flushing, config).await.ok()?,
    };
    {
        let mut outside = outside.borrow_mut();
        outside.waiting.clear();
        outside.life += 1;
        outside.first_block = Some((ring.name(), ring.first));
    }
    let (durable, failed) = (outside.clone(), outside.clone());
    let on_durable = move |number, tag| {
        let mut outside = durable.borrow_mut();
        assert_eq!(outside.waiting.remove(0), tag, "in order");
        let relaxed = outside.flushing == Flushing::Relaxed;
        assert_eq!(outside.cached.contains(&tag), relaxed, "written before it is durable");
        assert_eq!(outside.written[&tag].block, number);
        outside.owed.insert(tag);
    };
    let on_failed = move |_, tags| {
        let waiting = std::mem::take(&mut failed.borrow_mut().waiting);
        assert_eq!(waiting, tags, "whoever waits is told");
    };
    let started = Journal::start(ring, config.clone(), on_durable, on_failed).await;
    let journal = started.ok()?;
    if journal.name().flushing == Flushing::Relaxed {
        let cached = outside.clone();
        journal.tell_written(move |tag| {
            let mut outside = cached.borrow_mut();
            assert!(outside.waiting.contains(&tag) && outside.cached.last() < Some(&tag), "in order, and once");
            outside.cached.insert(tag);
        });
    }
    for other in found.rings.iter().skip(1) {
        remove_ring(dir(), other.name).await.expect("removed");
    }
    let mut outside = outside.borrow_mut();
    outside.owed.clear();
    outside.cached.clear();
    outside.needed_from = next_tag(&outside);
    Some(journal)
}

/// Writes blocks of all sizes, as fast as there is room, until the journal fails.
async fn write(outside: Shared, journal: Journal<u64>, config: JournalConfig) {
    loop {
        let moved = journal.moved();
        let room = journal.room().filter(|_| !random::u64().is_multiple_of(8));
        if let Some(entries) = room.and_then(|room| new_entries(&outside, &config, room)) {
            let payloads: Vec<_> = entries.iter().map(|(header, len)| payload(header.log_number, *len)).collect();
            let views: Vec<_> = entries
                .iter()
                .zip(&payloads)
                .map(|((header, _), payload)| Entry { header: *header, payload })
                .collect();
            let mut state = outside.borrow_mut();
            let tag = next_tag(&state);
            state.waiting.push(tag);
            let (ring, block) = (journal.name(), journal.next_number());
            state.laps += u64::from((block.get() * UNIT).is_multiple_of(config.ring_bytes));
            state.written.insert(tag, Written { ring, block, entries });
            drop(state);
            assert_eq!(journal.write(&views, tag), block);
            journal.flush_within(millis(random::u64() % 8));
        } else if journal.failed().is_some() {
            return;
        } else if room.is_some() {
            time::sleep(std::time::Duration::from_micros(random::u64() % 3000)).await;
        } else {
            moved.await;
        }
    }
}

fn next_tag(outside: &Outside) -> u64 {
    outside.written.last_key_value().map_or(1, |(tag, _)| tag + 1)
}

/// Entries that fit, each with a number of its own in place of the log's; `None` when not even one does.
fn new_entries(outside: &Shared, config: &JournalConfig, room: usize) -> Option<Vec<(EntryHeader, usize)>> {
    let outside = outside.borrow();
    let tag = next_tag(&outside);
    let (mut entries, mut left) = (Vec::new(), room);
    let payload_bytes_max = config.entry_bytes_max() - Journal::<u64>::entry_bytes(0);
    for number in 0..1 + random::u64() % 40 {
        let len = usize::try_from(random::u64()).expect("64 bits")
            % if random::u64().is_multiple_of(2) { 100 } else { payload_bytes_max };
        left = match left.checked_sub(Journal::<u64>::entry_bytes(len)) {
            Some(left) => left,
            None => break,
        };
        let offset = (tag * 64 + number).cast_signed();
        let partition = u32::try_from(random::u64() % PARTITIONS).expect("small");
        let unique = EntryHeader { log_number: random::u64(), generation: outside.life, ..header(partition, offset) };
        entries.push((unique, len));
    }
    (!entries.is_empty()).then_some(entries)
}

/// Frees blocks, some of them while they are in flight. Some lives do it only when the ring is full, and then most of it.
async fn free(outside: Shared, journal: Journal<u64>) {
    let hoards = random::u64().is_multiple_of(3);
    loop {
        time::sleep(std::time::Duration::from_micros(random::u64() % if hoards { 200 } else { 4000 })).await;
        if hoards && journal.used_bytes() < journal.ring_bytes() / 2 {
            continue;
        }
        let below = {
            let mut outside = outside.borrow_mut();
            let this_life =
                outside.written.range(outside.needed_from..).filter(|(_, block)| block.ring == journal.name());
            let blocks: Vec<_> = this_life.map(|(tag, block)| (*tag, block.block)).collect();
            // Mostly few of them, or nearly all.
            let few = usize::try_from(random::u64().min(random::u64()) % (blocks.len() as u64 + 1)).expect("small");
            let at = if hoards { blocks.len().saturating_sub(few % 3) } else { few };
            let (tag, number) = blocks.get(at).copied().unwrap_or_else(|| (next_tag(&outside), journal.next_number()));
            outside.needed_from = tag;
            number
        };
        journal.free_below(below);
        // What is free stays free.
        journal.free_below(BlockNumber::FIRST);
    }
}

/// Compares what a start found with what it must, and what it may.
fn check(outside: &Shared, found: &FoundJournals) {
    let mut outside = outside.borrow_mut();
    assert!(found.asides.is_empty());
    let mut tags = BTreeSet::new();
    for ring in &found.rings {
        tags.extend(check_ring(&outside, ring));
    }
    let begun =
        |ring: &FoundRing| outside.first_block.is_some_and(|(name, first)| ring.name == name && ring.floor >= first);
    if found.rings.iter().any(begun) {
        let life = outside.life;
        let Outside { owed, cached, written, .. } = &mut *outside;
        for tags in [owed, cached] {
            tags.retain(|tag| written[tag].entries[0].0.generation == life);
        }
    }
    let needed = outside.needed_from;
    for tag in outside.owed.range(needed..).chain(outside.cached.range(needed..)) {
        let Written { ring, block, .. } = &outside.written[tag];
        assert!(tags.contains(tag), "block {block} of {} (append {tag}) is gone", ring.file_name());
    }
    outside.found_owed += outside.owed.range(needed..).count() as u64;
    outside.found_unowed += tags.difference(&outside.owed).count() as u64;
    // What was found is durable, so the next start finds it as well.
    outside.owed.extend(tags);
}

/// The blocks in a ring, each as a whole.
fn check_ring(outside: &Outside, ring: &FoundRing) -> Vec<u64> {
    assert!(is_whole(&ring.blocks), "nothing is lost: {:?}", ring.blocks.lost);
    let mut tags = Vec::new();
    for entries in ring.blocks.entries.chunk_by(|one, other| one.block == other.block) {
        let tag = entries[0].header.base_offset.as_u64() / 64;
        let written = outside.written.get(&tag).expect("what is found was written");
        assert_eq!((written.ring, written.block), (ring.name, entries[0].block));
        let expected = written.entries.iter().map(|(header, len)| FoundEntry {
            block: written.block,
            header: *header,
            payload: payload(header.log_number, *len).into(),
        });
        assert!(expected.eq(entries.iter().cloned()), "block {} is as it was written", written.block);
        tags.push(tag);
    }
    assert!(tags.is_sorted_by(|one, other| one < other), "in the order of writing: {tags:?}");
    for end in &ring.blocks.frames_ends {
        let claimed = |(header, _): &(EntryHeader, usize)| {
            (header.partition, header.generation, header.frames_end) == (end.partition, end.generation, end.offset)
        };
        assert!(outside.written.values().any(|block| block.entries.iter().any(claimed)), "{end:?} was claimed");
    }
    tags
}
