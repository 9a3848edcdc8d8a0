//! What the scenarios are told with: batches that can be recognised, and logs of a simulated machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ringmq_runtime::fs;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::sim::{DiskConfig, Sim, SimConfig};
use ringmq_wire::batch::{BatchBuilder, BatchLimits, Compression, RecordRef, Scratch, split_batches};
use ringmq_wire::{Offset, PartitionIndex, ShardIndex, Timestamp, TopicId};

use crate::{
    Append, FrameBuf, GenerationHistory, Generations, Log, LogConfig, LogDeps, LogId, OpenError, Payload, ReadError,
    Recovery, TailCache,
};

pub(super) const ROOT: &str = "/data/logs";
pub(super) const TABLES: &str = "/data/generations";
/// When the simulations begin, by their wall clock.
pub(super) const EPOCH_MS: i64 = 1_800_000_000_000;

pub(super) fn sim(seed: u64) -> Sim {
    sim_with_disk(seed, DiskConfig::default())
}

pub(super) fn sim_with_disk(seed: u64, disk: DiskConfig) -> Sim {
    sim_of(SimConfig { seed, disk, ..SimConfig::default() })
}

pub(super) fn sim_with_bug(seed: u64, bug: SeededBug) -> Sim {
    sim_of(SimConfig { seeded_bug: Some(bug), ..SimConfig::with_seed(seed) })
}

fn sim_of(config: SimConfig) -> Sim {
    let sim = Sim::new(SimConfig { wall_clock_ms: EPOCH_MS, ..config });
    sim.run(|| async {
        fs::create_dir_all(ROOT).await.expect("a data directory");
        fs::sync_dir("/").await.expect("a durable data directory");
        fs::sync_dir("/data").await.expect("a durable directory of logs");
    });
    sim
}

/// A log that rolls often and whose frames stay small.
pub(super) fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        frame_bytes_max: 16 << 10,
        staged_bytes_max: 1 << 20,
        index_interval_bytes: 8 << 10,
        ..LogConfig::default()
    }
}

pub(super) fn log_id(partition: u32) -> LogId {
    LogId { topic_id: TopicId::METADATA, partition: PartitionIndex::new(partition) }
}

/// What a process does when it starts.
pub(super) async fn start() -> LogDeps {
    let history = GenerationHistory::load(Path::new(TABLES)).await.expect("sound generation tables");
    deps(history, 256 << 10)
}

pub(super) fn deps(history: GenerationHistory, cache_bytes: usize) -> LogDeps {
    let generations = Generations::new(Path::new(TABLES), ShardIndex::new(0), history);
    LogDeps::without_journal(generations, TailCache::new(cache_bytes))
}

pub(super) async fn open(deps: &LogDeps, partition: u32) -> Result<(Log, Recovery), OpenError> {
    Log::open(Path::new(ROOT), log_id(partition), small(), deps).await
}

/// A start of the process that opens one log, which must be sound.
pub(super) async fn open_one() -> (Log, Recovery) {
    open(&start().await, 0).await.expect("a sound log")
}

/// The file of a segment of partition 0.
pub(super) fn segment_path(base: i64) -> PathBuf {
    file_path(0, &format!("{base:020}.log"))
}

pub(super) fn file_path(partition: u32, name: &str) -> PathBuf {
    log_id(partition).log_dir(Path::new(ROOT)).join(name)
}

/// A batch of `records` records whose values carry `tag`, their number and `value_bytes` bytes that follow from both.
/// Record i has timestamp `tag`.
pub(super) fn batch(tag: u64, records: u32, value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(if tag.is_multiple_of(5) { Compression::Lz4 } else { Compression::None });
    for number in 0..records {
        let value = value(tag, number, value_bytes);
        let timestamp = Timestamp::new(tag.cast_signed());
        builder.append(&RecordRef { timestamp, key: None, value: Some(&value), headers: &[] }).expect("a record");
    }
    builder.finish().expect("a batch")
}

fn value(tag: u64, number: u32, value_bytes: usize) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    value.extend_from_slice(&number.to_be_bytes());
    let mut random = tag.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(number));
    for _ in 0..value_bytes {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value.push(random.to_be_bytes()[0]);
    }
    value
}

/// One batch in any memory.
pub(super) fn copied(tag: u64, records: u32, value_bytes: usize) -> Append {
    let payload = Payload::Copied(batch(tag, records, value_bytes));
    Append::validated(payload, &BatchLimits::default()).expect("a sound batch")
}

/// One batch in memory that becomes the frame.
pub(super) fn framed(tag: u64, records: u32, value_bytes: usize) -> Append {
    let batch = batch(tag, records, value_bytes);
    let mut frame = FrameBuf::with_payload_len(batch.len());
    frame.payload_mut().copy_from_slice(&batch);
    Append::validated(Payload::Frame(frame), &BatchLimits::default()).expect("a sound batch")
}

/// One record as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) tag: u64,
    pub(super) number: u32,
}

/// Everything that the log gives, by offset; what comes before it is deleted. Asserts that offsets have no gap and that every value is one that
/// [`batch`] made.
pub(super) async fn read_all(log: &Log, max_bytes: usize) -> Vec<Seen> {
    read_from(log, 0, max_bytes).await
}

pub(super) async fn read_from(log: &Log, from: i64, max_bytes: usize) -> Vec<Seen> {
    let end = log.offsets().durable;
    let mut next = Offset::new(from);
    let mut seen = Vec::new();
    while next < end {
        let read = match log.read(next, max_bytes).await {
            // Deleted while this read.
            Err(ReadError::OutOfRange { start, .. }) if start > Offset::new(from) => break,
            read => read.expect("readable"),
        };
        assert!(read.next_offset > next, "a read below the end makes progress");
        assert_eq!(read.bytes, read.slices.iter().map(|slice| slice.len()).sum::<usize>());
        let batches = read.slices.iter().map(|slice| split_batches(slice).count()).sum::<usize>();
        assert!(read.bytes <= max_bytes || batches == 1, "{} bytes in {batches} batches", read.bytes);
        for slice in &read.slices {
            collect(slice, next.get(), from + i64::try_from(seen.len()).expect("few"), &mut seen);
        }
        assert_eq!(read.next_offset.get(), from + i64::try_from(seen.len()).expect("few"));
        next = read.next_offset;
    }
    seen
}

/// Adds the records of a slice from offset `wanted` on, where the next new one has offset `expected`.
fn collect(slice: &[u8], wanted: i64, mut expected: i64, seen: &mut Vec<Seen>) {
    let mut scratch = Scratch::default();
    for batch in split_batches(slice) {
        let batch = batch.expect("whole batches");
        batch.verify_checksum().expect("a right checksum");
        assert!(batch.header().next_offset().get() > wanted, "no batch before the one asked for");
        for record in batch.records(&mut scratch).expect("readable records") {
            let record = record.expect("a sound record");
            if record.offset.get() < wanted {
                continue;
            }
            assert_eq!(record.offset.get(), expected, "no gap");
            let bytes = record.value.expect("a value");
            let tag = u64::from_be_bytes(bytes[..8].try_into().expect("a tag"));
            let number = u32::from_be_bytes(bytes[8..12].try_into().expect("a number"));
            assert_eq!(bytes, value(tag, number, bytes.len() - 12), "the value is as it was sent");
            seen.push(Seen { tag, number });
            expected += 1;
        }
    }
}

/// The tags of whole appends, in order.
pub(super) fn tags(seen: &[Seen]) -> Vec<u64> {
    seen.iter().filter(|seen| seen.number == 0).map(|seen| seen.tag).collect()
}

/// Appends of one record each, one after the other, all acknowledged.
pub(super) async fn append_tags(log: &Log, tags: impl IntoIterator<Item = u64>) {
    for tag in tags {
        log.append(copied(tag, 1, 100)).await.expect("acknowledged");
    }
}

pub(super) fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
