//! What the scenarios are told with: appends that can be recognised, and journals of a simulated machine.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringmq_runtime::fs;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::sim::{DiskConfig, Sim, SimConfig};
use ringmq_wire::{Offset, PartitionIndex, ShardIndex, TopicId};

use crate::{
    BlockNumber, Entry, EntryHeader, Flushing, FoundBlocks, FoundEntry, FoundJournals, FoundRing, Journal,
    JournalConfig, Ring, read_journals,
};

pub(super) const SHARD: ShardIndex = ShardIndex::new(3);
pub(super) const UNIT: u64 = 4096;

pub(super) fn dir() -> &'static Path {
    Path::new("/data/journals")
}

pub(super) fn sim(seed: u64) -> Sim {
    sim_with_disk(seed, DiskConfig::default())
}

pub(super) fn sim_with_disk(seed: u64, disk: DiskConfig) -> Sim {
    sim_with_bug(seed, disk, None)
}

pub(super) fn sim_with_bug(seed: u64, disk: DiskConfig, seeded_bug: Option<SeededBug>) -> Sim {
    let sim = Sim::new(SimConfig { seed, disk, seeded_bug, ..SimConfig::default() });
    sim.run(|| async {
        fs::create_dir_all("/data").await.expect("a data directory");
        fs::sync_dir("/").await.expect("a durable data directory");
    });
    sim
}

/// A ring of 16 units whose blocks have two at most: it wraps all the time.
pub(super) fn small() -> JournalConfig {
    let config = JournalConfig { ring_bytes: 16 * UNIT, block_bytes_max: 8192, ..JournalConfig::default() };
    config.validate().expect("valid");
    config
}

pub(super) fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) async fn found() -> FoundJournals {
    read_journals(dir()).await.expect("readable journals")
}

/// The one ring that is there.
pub(super) async fn found_ring() -> FoundRing {
    let mut found = found().await;
    assert_eq!(found.rings.len(), 1, "{found:?}");
    found.rings.remove(0)
}

/// Why a journal failed, and the cargos of those who were told.
pub(super) type Failure = (Arc<io::Error>, Vec<u64>);

/// What a journal said.
#[derive(Clone, Default)]
pub(super) struct Told {
    pub(super) durable: Rc<RefCell<Vec<(BlockNumber, u64)>>>,
    pub(super) failed: Rc<RefCell<Option<Failure>>>,
}

impl Told {
    /// The cargos of the blocks that were acknowledged, in order.
    pub(super) fn durable(&self) -> Vec<u64> {
        self.durable.borrow().iter().map(|(_, cargo)| *cargo).collect()
    }
}

/// Takes a ring into use, which tells what it says.
pub(super) async fn start(ring: Ring) -> (Journal<u64>, Told) {
    let told = Told::default();
    let (durable, failed) = (told.durable.clone(), told.failed.clone());
    let on_durable = move |number, cargo| durable.borrow_mut().push((number, cargo));
    let on_failed = move |error, cargos| *failed.borrow_mut() = Some((error, cargos));
    let journal = Journal::start(ring, small(), on_durable, on_failed).await.expect("a first block");
    (journal, told)
}

/// A new ring in use, on a disk without one.
pub(super) async fn start_new() -> (Journal<u64>, Told) {
    assert_eq!(found().await, FoundJournals::default());
    start(Ring::prepare(dir(), SHARD, Flushing::Each, &small()).await.expect("a ring")).await
}

/// As [`start_new`], of a ring whose blocks go to the page cache.
pub(super) async fn start_new_relaxed() -> (Journal<u64>, Told) {
    assert_eq!(found().await, FoundJournals::default());
    start(Ring::prepare(dir(), SHARD, Flushing::Relaxed, &small()).await.expect("a ring")).await
}

/// The ring that is there in use again, after all that it holds was redone.
pub(super) async fn start_again() -> (Journal<u64>, Told) {
    let ring = Ring::resume(dir(), &found_ring().await, &small()).await.expect("a ring");
    start(ring.expect("of the same size")).await
}

/// The header of an append of one record to a partition at an offset. Each offset has frames up to half of it.
pub(super) fn header(partition: u32, offset: i64) -> EntryHeader {
    EntryHeader {
        topic_id: TopicId::METADATA,
        partition: PartitionIndex::new(partition),
        log_number: 0x5EED + u64::from(partition),
        generation: 1,
        base_offset: Offset::new(offset),
        next_offset: Offset::new(offset + 1),
        frames_end: Offset::new(offset / 2),
    }
}

/// Bytes that follow from `tag`.
pub(super) fn payload(tag: u64, len: usize) -> Vec<u8> {
    let mut random = tag.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut byte = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random.to_be_bytes()[0]
    };
    (0..len).map(|_| byte()).collect()
}

/// Writes a block with one append to partition 0, as soon as there is room. The offset is the cargo.
pub(super) async fn write(journal: &Journal<u64>, offset: u64, payload_bytes: usize) -> BlockNumber {
    let payload = payload(offset, payload_bytes);
    let entry = Entry { header: header(0, offset.cast_signed()), payload: &payload };
    loop {
        let moved = journal.moved();
        if journal.room().is_some_and(|room| room >= Journal::<u64>::entry_bytes(payload_bytes)) {
            return journal.write(&[entry], offset);
        }
        moved.await;
    }
}

/// Waits until all that was written is acknowledged.
pub(super) async fn acknowledged(journal: &Journal<u64>) {
    loop {
        let moved = journal.moved();
        if journal.durable_through() == journal.next_number() {
            return;
        }
        moved.await;
    }
}

/// The offsets of the entries, in the order in which they were found. Asserts that they are what [`write`] wrote.
pub(super) fn offsets(blocks: &FoundBlocks) -> Vec<u64> {
    let offset = |entry: &FoundEntry| {
        let offset = entry.header.base_offset.as_u64();
        assert_eq!(entry.header, header(0, offset.cast_signed()));
        assert_eq!(entry.payload, payload(offset, entry.payload.len()), "as it was written");
        offset
    };
    blocks.entries.iter().map(offset).collect()
}

pub(super) fn is_whole(blocks: &FoundBlocks) -> bool {
    blocks.lost.is_empty() && !blocks.lost_unknown
}

/// The file of the one ring that is there.
pub(super) fn ring_path(sim: &Sim) -> PathBuf {
    let mut rings = sim.disk().files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "ring"));
    let ring = rings.next().expect("a ring");
    assert_eq!(rings.next(), None);
    ring
}

/// Where a block stands in the file of a [`small`] ring.
pub(super) fn position(block: BlockNumber) -> u64 {
    block.get() % 16 * UNIT
}

/// Damages a block in place.
pub(super) fn rot(sim: &Sim, block: BlockNumber) {
    sim.disk().flip_bit(ring_path(sim), position(block) + 100, 3).expect("a ring");
}
