//! A core's storage with a few logs, small enough that rings wrap and segments roll all the time.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmq_journal::JournalConfig;
use ringmq_runtime::fs;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::sim::{DiskConfig, Fault, Operation, Sim, SimConfig, SimDisk};
use ringmq_segment::{Append, Damage, FrameBuf, JournalNeed, Log, LogConfig, LogId, OpenError, Payload, ReadError};
use ringmq_wire::batch::{BatchBuilder, BatchLimits, Compression, Record, RecordRef, Scratch, split_batches};
use ringmq_wire::{Offset, PartitionIndex, ShardIndex, Timestamp, TopicId};

use crate::storage::{JournalSettings, RecoveryError, RecoveryLink, Storage, link};

pub(super) const DATA: &str = "/data";

pub(super) fn sim(seed: u64, tear: bool) -> Sim {
    sim_with_bug(seed, tear, None)
}

pub(super) fn sim_with_bug(seed: u64, tear: bool, seeded_bug: Option<SeededBug>) -> Sim {
    let disk = DiskConfig { tear, ..DiskConfig::default() };
    let sim = Sim::new(SimConfig { seed, disk, seeded_bug, ..SimConfig::default() });
    sim.run(|| async {
        fs::create_dir_all(DATA).await.expect("a data directory");
        fs::sync_dir("/").await.expect("a durable data directory");
    });
    sim
}

pub(super) fn topic() -> TopicId {
    TopicId::from_random_bytes([7; 16])
}

pub(super) fn log_id(partition: u32) -> LogId {
    LogId { topic_id: topic(), partition: PartitionIndex::new(partition) }
}

/// Segments of a few frames, and a ring of a few blocks.
pub(super) fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 128 << 10,
        frame_bytes_max: 16 << 10,
        staged_bytes_max: 1 << 20,
        index_interval_bytes: 8 << 10,
        index_hint_bytes: 24 << 10,
        ..LogConfig::default()
    }
}

pub(super) fn journal_settings() -> JournalSettings {
    let ring = JournalConfig { ring_bytes: 192 << 10, block_bytes_max: 16 << 10, ..JournalConfig::default() };
    JournalSettings { append_bytes_max: 4 << 10, ring }
}

/// A running storage with its logs.
pub(super) struct Core {
    pub(super) storage: Rc<Storage>,
    /// By partition.
    pub(super) logs: Vec<Result<Log, OpenError>>,
    /// Appends that the journals had, whether frames had them or not.
    pub(super) journaled: usize,
}

impl Core {
    /// What a shard does when its process starts.
    pub(super) async fn start(partitions: u32) -> Core {
        Core::start_knowing(partitions, |_| true).await.expect("what is found can be used")
    }

    pub(super) async fn start_knowing(
        partitions: u32,
        is_known: impl Fn(LogId) -> bool,
    ) -> Result<Core, RecoveryError> {
        Core::start_as(ShardIndex::new(0), link(1).remove(0), 0..partitions, is_known).await
    }

    /// One of several cores, with those partitions.
    pub(super) async fn start_as(
        shard: ShardIndex,
        link: RecoveryLink,
        partitions: Range<u32>,
        is_known: impl Fn(LogId) -> bool,
    ) -> Result<Core, RecoveryError> {
        let opening = Storage::open(Path::new(DATA), shard, 256 << 10, journal_settings(), link);
        let (storage, opened) = opening.await?;
        let mut logs = Vec::new();
        let (mut offline, mut found) = (BTreeSet::new(), 0);
        for partition in partitions {
            found += storage.journaled(log_id(partition)).appends.len();
            let log = open(&storage, partition).await;
            if log.is_err() {
                offline.insert(log_id(partition));
            }
            logs.push(log);
        }
        storage.finish(opened, offline, is_known).await?;
        Ok(Core { storage, logs, journaled: found })
    }

    /// Opens the log of a partition that its topic has got since.
    pub(super) async fn open(&self, partition: u32) -> Result<Log, OpenError> {
        open(&self.storage, partition).await
    }

    /// The log of a partition that is online.
    pub(super) fn log(&self, partition: usize) -> &Log {
        self.logs[partition].as_ref().expect("a sound log")
    }

    /// A clean stop.
    pub(super) async fn stop(self) {
        for log in self.logs.iter().flatten() {
            log.close().await.expect("a clean stop");
        }
        self.storage.close().await;
    }

    /// Waits until the ring is prepared.
    pub(super) async fn journal_is_in_use(&self) {
        until(|| self.storage.logs.journal.append_bytes_max() > 0).await;
    }
}

async fn open(storage: &Storage, partition: u32) -> Result<Log, OpenError> {
    let (id, root) = (log_id(partition), Path::new(DATA));
    let opened = Log::recover(root, id, log_config(), &storage.logs, &storage.journaled(id)).await;
    opened.map(|(log, _)| log)
}

/// Waits for a condition, a second of the simulation at most.
pub(super) async fn until(condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        ringmq_runtime::time::sleep(Duration::from_micros(100)).await;
    }
    panic!("it did not come about");
}

pub(super) fn segment_path(partition: u32, base: i64) -> PathBuf {
    Path::new(DATA).join(topic().to_string()).join(partition.to_string()).join(format!("{base:020}.log"))
}

/// A batch of `records` records whose values carry `tag`, their number and bytes that follow from both.
pub(super) fn batch(tag: u64, records: u32, value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for number in 0..records {
        let value = value(tag, number, value_bytes);
        let timestamp = Timestamp::new(tag.cast_signed());
        builder.append(&RecordRef { timestamp, key: None, value: Some(&value), headers: &[] }).expect("a record");
    }
    builder.finish().expect("a batch")
}

/// As [`batch`], with one of few keys in every record; some records are tombstones, which say in a header who they are.
pub(super) fn keyed_batch(tag: u64, records: u32, value_bytes: usize) -> Bytes {
    let compression = if tag & 1 == 0 { Compression::None } else { Compression::Lz4 };
    let mut builder = BatchBuilder::new(compression);
    for number in 0..records {
        let (key, timestamp) = (key_of(tag, number), Timestamp::new(tag.cast_signed()));
        let (identity, value) = (value(tag, number, 0), value(tag, number, value_bytes));
        let (value, identity) = match is_tombstone(tag, number) {
            true => (None, [(IDENTITY, Some(&identity[..]))]),
            false => (Some(&value[..]), [(IDENTITY, None)]),
        };
        builder.append(&RecordRef { timestamp, key: Some(&key), value, headers: &identity }).expect("a record");
    }
    builder.finish().expect("a batch")
}

const IDENTITY: &str = "identity";

/// The key of a record of [`keyed_batch`].
pub(super) fn key_of(tag: u64, number: u32) -> [u8; 1] {
    [(mixed(tag, number) % 8).to_be_bytes()[7]]
}

/// Whether a record of [`keyed_batch`] is a tombstone.
pub(super) fn is_tombstone(tag: u64, number: u32) -> bool {
    (mixed(tag, number) >> 8).is_multiple_of(4)
}

fn mixed(tag: u64, number: u32) -> u64 {
    let mixed = (tag ^ u64::from(number) << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 29
}

fn value(tag: u64, number: u32, value_bytes: usize) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    value.extend_from_slice(&number.to_be_bytes());
    let mut random = tag.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(number));
    value.extend((0..value_bytes).map(|_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random.to_be_bytes()[0]
    }));
    value
}

/// One batch; in memory that becomes a frame, or in any.
pub(super) fn append(tag: u64, records: u32, value_bytes: usize) -> Append {
    append_batch(tag, batch(tag, records, value_bytes))
}

/// As [`append`], of a batch that there is.
pub(super) fn append_batch(tag: u64, batch: Bytes) -> Append {
    let payload = if tag.is_multiple_of(3) {
        let mut frame = FrameBuf::with_payload_len(batch.len());
        frame.payload_mut().copy_from_slice(&batch);
        Payload::Frame(frame)
    } else {
        Payload::Copied(batch)
    };
    Append::validated(payload, &BatchLimits::default()).expect("a sound batch")
}

/// One record as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) offset: i64,
    pub(super) tag: u64,
    pub(super) number: u32,
}

/// Everything that the log gives from `from` on, in reads of at most `max_bytes`. Asserts that offsets have no gap and that
/// every value is one that [`batch`] made.
pub(super) async fn read_from(log: &Log, from: i64, max_bytes: usize) -> Vec<Seen> {
    let (seen, next) = read_what_is_left(log, from, max_bytes).await;
    assert!((from..).zip(&seen).all(|(offset, seen)| seen.offset == offset), "no gap");
    assert_eq!(next, from + i64::try_from(seen.len()).expect("few"));
    seen
}

/// As [`read_from`], of a log in which records may be missing. Returns where it ended, too.
pub(super) async fn read_what_is_left(log: &Log, from: i64, max_bytes: usize) -> (Vec<Seen>, i64) {
    let end = log.offsets().readable;
    let (mut next, mut seen) = (Offset::new(from), Vec::new());
    while next < end {
        let read = match log.read(next, max_bytes).await {
            // Deleted while this read.
            Err(ReadError::OutOfRange { start, .. }) if start > Offset::new(from) => break,
            read => read.expect("readable"),
        };
        assert!(read.next_offset > next, "a read below the end makes progress");
        for slice in &read.slices {
            collect(slice, next, &mut seen);
        }
        next = read.next_offset;
        assert!(seen.last().is_none_or(|last| last.offset < next.get()), "what comes next is behind what was read");
    }
    (seen, next.get())
}

fn collect(slice: &[u8], wanted: Offset, seen: &mut Vec<Seen>) {
    let mut scratch = Scratch::default();
    for batch in split_batches(slice) {
        let batch = batch.expect("whole batches");
        batch.verify_checksum().expect("a right checksum");
        for record in batch.records(&mut scratch).expect("readable records") {
            let record = record.expect("a sound record");
            if record.offset < wanted {
                continue;
            }
            let there = recognize(&record);
            assert!(seen.last().is_none_or(|last| last.offset < there.offset), "offsets rise");
            seen.push(there);
        }
    }
}

/// Which record it is: one that [`batch`] or [`keyed_batch`] made, as it was sent.
fn recognize(record: &Record<'_>) -> Seen {
    let identity = record.headers().find(|header| header.key == IDENTITY.as_bytes()).and_then(|header| header.value);
    let bytes = identity.or(record.value).expect("a value, or an identity");
    let tag = u64::from_be_bytes(bytes[..8].try_into().expect("a tag"));
    let number = u32::from_be_bytes(bytes[8..12].try_into().expect("a number"));
    assert_eq!(bytes, value(tag, number, bytes.len() - 12), "the value is as it was sent");
    if let Some(key) = record.key {
        assert_eq!(
            (key, record.value.is_none()),
            (&key_of(tag, number)[..], is_tombstone(tag, number)),
            "as it was sent"
        );
    }
    Seen { offset: record.offset.get(), tag, number }
}

/// A first start, with the ring prepared. What follows goes by the journal.
pub(super) fn start_with_journal(sim: &Sim) {
    sim.run(|| async {
        let core = Core::start(0).await;
        core.journal_is_in_use().await;
        core.stop().await;
    });
}

/// Small, acknowledged, and in no frame.
pub(super) async fn journaled(log: &Log, tag: u64) {
    log.append(append(tag, 1, 100)).await.expect("acknowledged");
    assert!(log.frames_end() < log.offsets().durable, "by the journal alone");
}

/// Partitions 0 and 1 each have a record that only the ring has; the process is gone.
pub(super) fn two_in_the_ring(seed: u64) -> Sim {
    let sim = sim(seed, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(2).await;
        journaled(core.log(0), 1).await;
        journaled(core.log(1), 2).await;
    });
    sim.kill();
    sim
}

/// Partition 0 goes offline in service, with a record that only the ring has, and the ring goes round with those of
/// partition 1.
pub(super) async fn first_goes_offline(disk: &SimDisk) -> Core {
    let core = Core::start(2).await;
    journaled(core.log(0), 1).await;
    disk.inject(Fault::on(Operation::Write, segment_path(0, 0).display().to_string()));
    core.log(0).checkpoint(Offset::new(1));
    until(|| core.log(0).poisoned().is_some()).await;
    assert_eq!(core.log(0).journal_need(Offset::new(1)), JournalNeed::UntilRecovery);
    turn_the_ring(core.log(1), 10..10 + LAPS).await;
    core
}

/// Writes to a log by the journal until the ring has been around some times.
pub(super) async fn turn_the_ring(log: &Log, tags: std::ops::Range<u64>) {
    for tag in tags {
        log.append(append(tag, 1, 2_000)).await.expect("acknowledged");
    }
}

pub(super) const LAPS: u64 = 300;

/// The first record of partition 0 was acknowledged; the process is gone, and the block of the journal that alone had it
/// has rotted. The closing block behind it tells so.
pub(super) fn lost_first_block(seed: u64, partitions: u32) -> Sim {
    let sim = sim(seed, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(partitions).await;
        journaled(core.log(0), 1).await;
        idle().await;
    });
    sim.kill();
    let [block] = blocks_with_entries(&sim)[..] else { panic!("one block with entries") };
    zero(&sim, ring_path(&sim), block);
    sim
}

pub(super) async fn tags_of(log: &Log) -> Vec<u64> {
    read_from(log, 0, 1 << 20).await.iter().map(|seen| seen.tag).collect()
}

pub(super) fn ring_path(sim: &Sim) -> PathBuf {
    let files = sim.disk().files();
    files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "ring")).expect("a ring")
}

/// Where blocks with entries begin in the ring, in order of their places.
pub(super) fn blocks_with_entries(sim: &Sim) -> Vec<u64> {
    let ring = sim.disk().read(ring_path(sim)).expect("a ring");
    let has_entries = |unit: &[u8]| &unit[..4] == b"RQJB" && unit[56..60] != [0; 4];
    (0..).step_by(4096).zip(ring.chunks(4096)).filter(|(_, unit)| has_entries(unit)).map(|(at, _)| at).collect()
}

/// How many files of blocks were kept aside.
pub(super) fn asides(sim: &Sim) -> usize {
    aside_paths(sim).len()
}

pub(super) fn aside_paths(sim: &Sim) -> Vec<PathBuf> {
    let is_aside = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "aside");
    sim.disk().files().into_iter().filter(is_aside).collect()
}

pub(super) fn zero(sim: &Sim, path: PathBuf, position: u64) {
    sim.disk().overwrite(path, position, &[0; 4096]).expect("a file");
}

/// Why the log was refused: it is damaged.
pub(super) fn corruption(log: &Result<Log, OpenError>) -> Damage {
    match log {
        Err(OpenError::Corrupt(corruption)) => corruption.damage,
        Err(error) => panic!("another reason: {error}"),
        Ok(log) => panic!("taken for sound, with {:?}", log.offsets()),
    }
}

/// Long enough for an idle ring to get its closing block.
pub(super) async fn idle() {
    ringmq_runtime::time::sleep(Duration::from_millis(30)).await;
}
