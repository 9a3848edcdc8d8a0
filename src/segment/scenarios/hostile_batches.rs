//! Compaction of batches that were made to harm: that grow when they are written again, or cannot be read to their end.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use ringmq_runtime::time;
use ringmq_wire::batch::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchLimits, Compression, RecordRef, Scratch, split_batches,
};
use ringmq_wire::{Offset, Timestamp};

use super::support::*;
use crate::inspect::check_log;
use crate::{
    Append, Compacted, CompactionBudget, CompactionPolicy, GenerationHistory, Journaled, Log, LogConfig, Payload,
};

/// Segments with room for long frames.
fn config() -> LogConfig {
    let compaction = Some(CompactionPolicy { dirty_percent_min: 1, ..CompactionPolicy::default() });
    LogConfig { segment_bytes: 4 << 20, frame_bytes_max: 128 << 10, compaction, ..small() }
}

/// Records with these keys and the same value of `value_bytes` that cannot be compressed by itself.
fn records(keys: impl IntoIterator<Item = u32>, value_bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let value: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(value_bytes)
    .collect();
    let mut builder = BatchBuilder::new(Compression::None);
    for key in keys {
        let (key, timestamp) = (key.to_be_bytes(), Timestamp::new(EPOCH_MS));
        builder.append(&RecordRef { timestamp, key: Some(&key), value: Some(&value), headers: &[] }).expect("a record");
    }
    builder.finish().expect("a batch").to_vec()
}

/// The batch compressed so that each block may refer to those before it: what repeats every 60,000 bytes then costs nothing,
/// but it does in blocks that stand by themselves.
fn in_linked_blocks(batch: &[u8]) -> Vec<u8> {
    let mut settings = lz4::EncoderBuilder::new();
    settings.block_mode(lz4::BlockMode::Linked).block_size(lz4::BlockSize::Max64KB).level(9);
    let mut encoder = settings.checksum(lz4::ContentChecksum::NoChecksum).build(Vec::new()).expect("an encoder");
    encoder.write_all(&batch[BATCH_HEADER_BYTES..]).expect("compressed");
    let (compressed, ended) = encoder.finish();
    ended.expect("compressed");
    let mut linked = batch[..BATCH_HEADER_BYTES].to_vec();
    linked.extend_from_slice(&compressed);
    // The attributes: LZ4.
    linked[22] |= 3;
    let length = i32::try_from(linked.len() - 12).expect("short");
    linked[8..12].copy_from_slice(&length.to_be_bytes());
    sealed(linked)
}

/// With the checksum that it should have.
fn sealed(mut batch: Vec<u8>) -> Vec<u8> {
    let checksum = crc_fast::crc32_iscsi(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch
}

async fn open_log() -> Log {
    Log::open(Path::new(ROOT), log_id(0), config(), &start().await).await.expect("a sound log").0
}

async fn append(log: &Log, batches: Vec<u8>) {
    let append = Append::validated(Payload::Copied(Bytes::from(batches)), &BatchLimits::default());
    log.append(append.expect("sound batches")).await.expect("acknowledged");
}

/// Seals what is there, behind records that replace those with these keys, and compacts it.
async fn compact_behind(log: &Log, replaced: impl IntoIterator<Item = u32>) -> Compacted {
    append(log, records(replaced, 10)).await;
    log.roll_if_due(Timestamp::new(i64::MAX));
    append(log, records([u32::MAX], 10)).await;
    log.compact(Timestamp::new(time::wall_clock()), &CompactionBudget::default(), &|| false)
        .await
        .expect("compacted")
        .expect("enough is new")
}

/// Keys by offset, of what can be read.
async fn keys(log: &Log) -> Vec<(i64, u32)> {
    let (mut keys, mut next) = (Vec::new(), Offset::ZERO);
    while next < log.offsets().durable {
        let read = log.read(next, 1 << 20).await.expect("readable");
        let mut scratch = Scratch::default();
        for batch in read.slices.iter().flat_map(|slice| split_batches(slice)) {
            let batch = batch.expect("whole batches");
            let records = batch.records(&mut scratch).expect("readable").map_while(Result::ok);
            let number = |key: Option<&[u8]>| u32::from_be_bytes(key.expect("a key").try_into().expect("a number"));
            keys.extend(records.map(|record| (record.offset.get(), number(record.key))));
        }
        next = read.next_offset;
    }
    keys
}

#[test]
fn a_batch_that_would_become_many_times_as_long_stays_as_it_is() {
    sim(1).run(|| async {
        let log = open_log().await;
        append(&log, in_linked_blocks(&records(0..60, 60_000))).await;
        let done = compact_behind(&log, 0..30).await;
        assert!(done.bytes_before < 200_000 && done.bytes_after <= done.bytes_before, "{done:?}");
        assert_eq!(done.records_removed, 0);
        let all = keys(&log).await;
        assert!((0..60).all(|key| all.contains(&(key.into(), key))), "{all:?}");
    });
}

#[test]
fn a_batch_that_grows_too_large_when_it_is_read_stays_as_it_is() {
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        sim(4).run(move || async move {
            let log = open_log().await;
            let mut bomb = BatchBuilder::new(compression);
            for key in 0..3_u32 {
                let (key, timestamp) = (key.to_be_bytes(), Timestamp::new(EPOCH_MS));
                let record = RecordRef { timestamp, key: Some(&key), value: Some(&[7; 2 << 20]), headers: &[] };
                bomb.append(&record).expect("a record");
            }
            let bomb = bomb.finish().expect("a batch").to_vec();
            assert!(bomb.len() < 400_000, "{compression}: {} bytes for 6 MiB", bomb.len());
            append(&log, bomb).await;
            append(&log, records([3, 3], 10)).await;
            let done = compact_behind(&log, 0..2).await;
            assert_eq!(done.records_removed, 1, "{compression}: {done:?}");
            assert_eq!(keys(&log).await[..4], [(0, 0), (1, 1), (2, 2), (4, 3)], "{compression}");
        });
    }
}

#[test]
fn batches_that_grow_go_on_in_another_frame() {
    let sim = sim(2);
    sim.run(|| async {
        let log = open_log().await;
        let batches: Vec<_> = (0..6).map(|at| in_linked_blocks(&records(at * 3..at * 3 + 3, 60_000))).collect();
        append(&log, batches.concat()).await;
        let before = keys(&log).await;
        let done = compact_behind(&log, (0..6).map(|at| at * 3 + 1)).await;
        assert_eq!(done.records_removed, 6, "{done:?}");
        assert!(done.bytes_after > done.bytes_before * 3 / 2, "{done:?}");
        let left = keys(&log).await;
        let expected: Vec<_> = before.into_iter().filter(|(_, key)| key % 3 != 1).collect();
        assert_eq!(left[..12], expected);
        log.close().await.expect("a clean stop");
    });
    sim.kill();
    sim.run(|| async {
        let history = GenerationHistory::read(Path::new(TABLES)).await.expect("sound tables");
        let check = check_log(Path::new(ROOT), log_id(0), &history, &Journaled::default()).await;
        assert!(check.next_start.refusal().is_none() && check.segments.iter().all(|segment| segment.damage.is_empty()));
        assert!(check.segments[0].frames >= 6, "{:?}", check.segments[0]);
        assert_eq!(keys(&open_log().await).await.len(), 12 + 6 + 1);
    });
}

#[test]
fn what_cannot_be_read_to_its_end_replaces_nothing() {
    sim(3).run(|| async {
        let log = open_log().await;
        append(&log, records([1, 2], 100)).await;
        let mut broken = records([1, 3], 100);
        // The last record says that it has headers.
        *broken.last_mut().expect("bytes") = 0x7E;
        append(&log, sealed(broken)).await;
        let done = compact_behind(&log, [2]).await;
        assert_eq!(done.records_removed, 1, "{done:?}");
        assert_eq!(keys(&log).await[..2], [(0, 1), (2, 1)], "the first one stays");
    });
}
