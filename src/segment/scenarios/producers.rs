//! Snapshots of what a log knows of idempotent producers: taken, damaged, missing, of another life.

use std::time::Duration;

use ringmq_index::{Coverage, OffsetIndex};
use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_runtime::{task, time};
use ringmq_wire::batch::{BatchBuilder, BatchLimits, BatchProducer, Compression, RecordRef, set_producer};
use ringmq_wire::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

use super::retries::batch_of;
use super::support::*;
use crate::{
    Append, AppendError, Appended, CompactError, Compacted, CompactionBudget, CompactionPolicy, Log, LogConfig,
    OutOfSequence, Payload, ProducerSnapshot,
};

/// One record of the producer, of a size that four of them fill a segment.
pub(super) fn record(id: i64, sequence: i32) -> Append {
    let producer =
        BatchProducer { id: ProducerId::new(id), epoch: ProducerEpoch::ZERO, base_sequence: Sequence::new(sequence) };
    let tag = u64::try_from(id * 10_000).expect("positive") + u64::try_from(sequence).expect("positive");
    let payload = Payload::Copied(batch_of(producer, tag, 1, 16_000));
    Append::validated(payload, &BatchLimits::default()).expect("a sound batch")
}

pub(super) async fn stored_at(log: &Log, id: i64, sequence: i32) -> i64 {
    let appended: Appended = log.append(record(id, sequence)).await.expect("acknowledged");
    appended.base_offset.get()
}

/// Two producers take turns: sequence n of the first is at offset 2n, of the second behind it.
async fn take_turns(log: &Log, sequences: std::ops::Range<i32>) {
    for sequence in sequences {
        assert_eq!(stored_at(log, 1, sequence).await, i64::from(sequence) * 2);
        assert_eq!(stored_at(log, 2, sequence).await, i64::from(sequence) * 2 + 1);
        // Segments are finished in the background.
        time::sleep(millis(50)).await;
    }
}

/// Everything that is known after so many turns.
async fn assert_known(log: &Log, turns: i32) {
    for sequence in turns - 5..turns {
        assert_eq!(stored_at(log, 1, sequence).await, i64::from(sequence) * 2);
        assert_eq!(stored_at(log, 2, sequence).await, i64::from(sequence) * 2 + 1);
    }
    let old = log.append(record(1, turns - 6)).await;
    assert!(matches!(old, Err(AppendError::OutOfSequence(OutOfSequence::Before { .. }))), "{old:?}");
    let gap = log.append(record(2, turns + 1)).await;
    assert!(matches!(gap, Err(AppendError::OutOfSequence(OutOfSequence::Gap { .. }))), "{gap:?}");
    assert_eq!(log.offsets().end, Offset::new(i64::from(turns) * 2), "nothing was stored");
}

pub(super) fn snapshots(sim: &Sim) -> Vec<std::path::PathBuf> {
    let is_snapshot = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "producers");
    let mut snapshots: Vec<_> = sim.disk().files().into_iter().filter(is_snapshot).collect();
    snapshots.sort();
    snapshots
}

/// Ten turns over several segments, with a stop of either kind behind them.
pub(super) fn ten_turns(sim: &Sim, clean: bool) {
    sim.run(|| async move {
        let (log, _) = open_one().await;
        take_turns(&log, 0..10).await;
        if clean {
            log.close().await.expect("a clean stop");
        }
    });
    sim.kill();
    assert_eq!(snapshots(sim).len(), 2, "the newest two: {:?}", snapshots(sim));
}

#[test]
fn producers_are_known_after_a_clean_stop_without_reading_frames() {
    let sim = sim(1);
    ten_turns(&sim, true);
    let last = snapshots(&sim).pop().expect("a snapshot");
    assert!(last.ends_with(format!("{:020}.producers", 20)), "of the end: {last:?}");
    // No sealed segment is looked into.
    for base in [0, 4, 8, 12] {
        let position = 128;
        sim.disk().overwrite(segment_path(base), position, &[0; 64]).expect("a sealed segment");
    }
    sim.run(|| async {
        let (log, _) = open_one().await;
        assert_known(&log, 10).await;
    });
}

#[test]
fn producers_are_known_after_a_kill() {
    let sim = sim(2);
    ten_turns(&sim, false);
    sim.run(|| async {
        let (log, _) = open_one().await;
        assert_known(&log, 10).await;
        take_turns(&log, 10..11).await;
    });
}

#[test]
fn damaged_and_missing_snapshots_cost_time_alone() {
    for (seed, clean) in [(3, false), (4, true)] {
        for lost in 0..4 {
            let sim = sim(seed);
            ten_turns(&sim, clean);
            for (number, path) in snapshots(&sim).into_iter().enumerate() {
                match lost {
                    // The newest one, or both; damaged, or gone.
                    0 if number == 0 => {}
                    0 | 1 => sim.disk().overwrite(&path, 57, &[0xAB]).expect("a snapshot"),
                    2 if number == 0 => {}
                    _ => drop(sim.disk().remove(&path)),
                }
            }
            sim.run(|| async {
                let (log, _) = open_one().await;
                assert_known(&log, 10).await;
                log.close().await.expect("a clean stop");
            });
        }
    }
}

#[test]
fn an_index_without_frames_does_not_tell_that_they_are_old() {
    let sim = sim(5);
    ten_turns(&sim, false);
    for path in snapshots(&sim) {
        sim.disk().remove(&path).expect("a snapshot");
    }
    let path = file_path(0, "00000000000000000012.index");
    let (coverage, _) =
        OffsetIndex::decode(&sim.disk().read(&path).expect("an index"), 8 << 10).expect("a sound index");
    let base = coverage.segment_base;
    let coverage = Coverage { end: base, end_position: 0, first_written_at: Timestamp::new(0), ..coverage };
    sim.disk().overwrite(&path, 0, &OffsetIndex::new(base, 4096).encode(&coverage)).expect("a file");
    sim.run(|| async {
        let (log, _) = open_one().await;
        assert_known(&log, 10).await;
    });
}

#[test]
fn a_snapshot_of_another_log_or_offset_is_not_used() {
    let sim = sim(5);
    ten_turns(&sim, false);
    let paths = snapshots(&sim);
    let bytes = sim.disk().read(&paths[1]).expect("a snapshot");
    let mut other = ProducerSnapshot::decode(&bytes).expect("sound");
    other.log_number.0 ^= 1;
    sim.disk().overwrite(&paths[1], 0, &other.encode()).expect("a snapshot");
    sim.disk().overwrite(&paths[0], 0, &bytes).expect("a snapshot");
    sim.run(|| async {
        let (log, _) = open_one().await;
        assert_known(&log, 10).await;
    });
}

#[test]
fn what_is_older_than_the_expiry_is_neither_known_nor_read() {
    let sim = sim(6);
    ten_turns(&sim, false);
    for path in snapshots(&sim) {
        sim.disk().remove(path).expect("a snapshot");
    }
    sim.run(|| async {
        time::sleep(Duration::from_secs(24 * 60 * 60)).await;
        let (log, _) = open_one().await;
        assert_eq!(stored_at(&log, 1, 900).await, 20, "unknown, so it may begin anywhere");
        assert_eq!(stored_at(&log, 1, 900).await, 20);
    });
}

/// One record with a key, of a size that four of them fill a segment.
fn keyed_of(id: i64, sequence: i32, key: &str) -> Append {
    let mut builder = BatchBuilder::new(Compression::None);
    let timestamp = Timestamp::new(EPOCH_MS);
    let record = RecordRef { timestamp, key: Some(key.as_bytes()), value: Some(&[7; 15_500]), headers: &[] };
    builder.append(&record).expect("a record");
    let mut batch = builder.finish().expect("a batch").to_vec();
    let (id, base_sequence) = (ProducerId::new(id), Sequence::new(sequence));
    set_producer(&mut batch, BatchProducer { id, epoch: ProducerEpoch::ZERO, base_sequence });
    Append::validated(Payload::Copied(batch.into()), &BatchLimits::default()).expect("a sound batch")
}

const COMPACTION: CompactionPolicy =
    CompactionPolicy { dirty_percent_min: 1, tombstone_retention: Duration::from_secs(60) };

/// The second record of producer 1 is replaced by the first of producer 2. Two segments are sealed.
async fn two_of_one_key() -> Log {
    let (log, _) = open_one().await;
    log.reconfigure(LogConfig { compaction: Some(COMPACTION), ..small() }).expect("a sound setting");
    let filler = |sequence: i32| keyed_of(3, sequence, &sequence.to_string());
    let appends = [keyed_of(1, 0, "a"), filler(0), filler(1), filler(2)];
    let appends =
        appends.into_iter().chain([keyed_of(1, 1, "b"), keyed_of(2, 0, "b"), filler(3), filler(4), filler(5)]);
    for append in appends {
        log.append(append).await.expect("acknowledged");
        // Segments are finished in the background.
        time::sleep(millis(50)).await;
    }
    log
}

async fn compact(log: &Log) -> Result<Option<Compacted>, CompactError> {
    log.compact(Timestamp::new(time::wall_clock()), &CompactionBudget::default(), &|| false).await
}

#[test]
fn a_producer_of_which_compaction_took_something_is_unknown_rather_than_misjudged() {
    for lost in 0..3 {
        let sim = sim(8);
        sim.run(|| async {
            let log = two_of_one_key().await;
            let done = compact(&log).await.expect("compacted").expect("enough is new");
            assert_eq!((done.until, done.records_removed), (Offset::new(8), 1));
        });
        sim.kill();
        let newest_first: Vec<_> = snapshots(&sim).into_iter().rev().collect();
        assert_eq!(newest_first.len(), 2);
        for path in newest_first.iter().take(lost) {
            sim.disk().overwrite(path, 57, &[0xAB]).expect("a snapshot");
        }
        sim.run(|| async {
            let (log, _) = open_one().await;
            let stored_at = async |append| log.append(append).await.map(|appended| appended.base_offset.get());
            let again = stored_at(keyed_of(1, 1, "b")).await;
            let next = stored_at(keyed_of(1, 2, "c")).await;
            match lost {
                0 => assert!(matches!((&again, &next), (Ok(4), Ok(9))), "{again:?}, {next:?}"),
                // As of any producer that is not known, what comes first is stored, and what follows it.
                _ => assert!(matches!((&again, &next), (Ok(9), Ok(10))), "{again:?}, {next:?}"),
            }
            assert_eq!(stored_at(keyed_of(2, 0, "b")).await.expect("known"), 5, "nothing is missing behind it");
        });
    }
}

#[test]
fn a_full_disk_answers_what_is_stored() {
    let sim = sim(7);
    sim.run(|| async {
        let (log, _) = open_one().await;
        take_turns(&log, 0..2).await;
        sim.disk().set_capacity(0);
        let refused = log.append(record(1, 2)).await;
        let refused = match refused {
            // There may have been space in the segment.
            Ok(_) => log.append(record(1, 3)).await,
            refused => refused,
        };
        assert!(matches!(refused, Err(AppendError::StorageFull(_))), "{refused:?}");
        assert_eq!(stored_at(&log, 1, 1).await, 2);
    });
}

/// Two segments of one producer, and a third one that another has begun.
async fn two_segments_of_one(log: &Log) {
    for sequence in 0..8 {
        stored_at(log, 1, sequence).await;
    }
    stored_at(log, 2, 0).await;
}

#[test]
fn what_is_deleted_stays_known_whenever_the_deletion_is_interrupted() {
    // All that one producer sent, or all that there is.
    for (before, micros) in [8, 9].into_iter().flat_map(|before| (0..100).map(move |step| (before, step * 20))) {
        let sim = sim(micros);
        sim.run(|| async {
            let (log, _) = open_one().await;
            two_segments_of_one(&log).await;
            task::spawn("deletion", async move { drop(log.delete_records(Offset::new(before)).await) });
            time::sleep(Duration::from_micros(micros)).await;
        });
        sim.crash();
        sim.run(|| async {
            let (log, _) = open_one().await;
            let start = log.offsets().start;
            assert_eq!(stored_at(&log, 1, 7).await, 7, "after {micros} µs, with the log from {start} on");
        });
    }
}

#[test]
fn compaction_removes_nothing_that_only_it_would_tell_of() {
    let sim = sim(8);
    sim.run(|| async {
        let (log, _) = open_one().await;
        log.reconfigure(LogConfig { compaction: Some(CompactionPolicy::default()), ..small() })
            .expect("a sound setting");
        // Snapshots fail from the first segment on.
        sim.disk().inject(Fault::on(Operation::Write, "*.producers.tmp").times(u64::MAX).os_error(5));
        for sequence in 0..8 {
            log.append(keyed(sequence)).await.expect("acknowledged");
        }
        stored_at(&log, 2, 0).await;
        let compacted = log.compact(Timestamp::new(time::wall_clock()), &CompactionBudget::default(), &|| false).await;
        assert!(matches!(compacted, Err(CompactError::Io { .. })), "{compacted:?}");
        assert_eq!(log.poisoned().map(|poison| poison.to_string()), None);
    });
    sim.disk().clear_faults();
    sim.crash();
    sim.run(|| async {
        let (log, _) = open_one().await;
        let again = log.append(keyed(3)).await.expect("stored before");
        assert_eq!(again.base_offset.get(), 3);
    });
}

/// As [`record`] of producer 1, with one key in all of them.
fn keyed(sequence: i32) -> Append {
    let mut builder = BatchBuilder::new(Compression::None);
    let record = RecordRef { timestamp: Timestamp::new(1), key: Some(b"key"), value: Some(&[7; 16_000]), headers: &[] };
    builder.append(&record).expect("a record");
    let mut batch = builder.finish().expect("a batch").to_vec();
    let (id, base_sequence) = (ProducerId::new(1), Sequence::new(sequence));
    set_producer(&mut batch, BatchProducer { id, epoch: ProducerEpoch::ZERO, base_sequence });
    Append::validated(Payload::Copied(batch.into()), &BatchLimits::default()).expect("a sound batch")
}
