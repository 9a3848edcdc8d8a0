//! Records that are deleted: up to an offset, by age, by size; and what every start makes of what is left.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::sim::{DiskConfig, Fault, LatencyConfig, Operation, Sim};
use ringmq_runtime::{task, time};
use ringmq_wire::batch::{BatchBuilder, BatchLimits, Compression, RecordRef};
use ringmq_wire::{Offset, Timestamp};

use super::support::*;
use crate::{
    Append, Damage, DeleteRecordsError, GenerationHistory, Log, LogConfig, LogOffsets, OpenError, Payload, ReadError,
    RecordError, Recovery,
};

/// Appends of 20 KiB in their frames: three to a segment.
async fn append_large(log: &Log, tags: impl IntoIterator<Item = u64>) {
    for tag in tags {
        log.append(copied(tag, 1, 17_000)).await.expect("acknowledged");
    }
}

/// The base offsets of the segments that are there.
fn segments(sim: &Sim) -> Vec<i64> {
    let files =
        sim.disk().files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    files
        .map(|path| path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()).unwrap())
        .collect()
}

/// Index files without a segment.
fn orphans(sim: &Sim) -> usize {
    let files = sim.disk().files();
    let is_index = |extension: &str| extension == "index" || extension == "timeindex";
    let indexes = files.iter().filter(|path| path.extension().and_then(|e| e.to_str()).is_some_and(is_index));
    indexes.filter(|path| !files.contains(&path.with_extension("log"))).count()
}

async fn delete_below(log: &Log, before: i64) -> i64 {
    log.delete_records(Offset::new(before)).await.expect("deleted").get()
}

/// What is readable from the start on, by tag.
async fn left(log: &Log) -> Vec<u64> {
    read_from(log, log.offsets().start.get(), 1 << 20).await.iter().map(|seen| seen.tag).collect()
}

fn now() -> Timestamp {
    Timestamp::new(time::wall_clock())
}

#[test]
fn what_is_deleted_is_out_of_range_and_its_segments_are_gone() {
    let sim = sim(800);
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_large(&log, 1..=10).await;
        assert_eq!(segments(&sim), [0, 3, 6, 9]);
        let bytes = log.size_bytes();
        assert_eq!(delete_below(&log, 2).await, 2, "inside of a segment");
        assert_eq!((segments(&sim).len(), log.size_bytes()), (4, bytes));
        assert_eq!(delete_below(&log, 1).await, 2, "the start never goes back");
        assert_eq!(delete_below(&log, 7).await, 7);
        assert_eq!(segments(&sim), [6, 9]);
        assert!(log.size_bytes() < bytes / 2);
        let LogOffsets { start, durable, end, .. } = log.offsets();
        assert_eq!((start, durable, end), (Offset::new(7), Offset::new(10), Offset::new(10)));
        for offset in [0, 3, 6] {
            let read = log.read(Offset::new(offset), 1).await;
            assert!(matches!(read, Err(ReadError::OutOfRange { start, .. }) if start == Offset::new(7)), "{read:?}");
        }
        assert_eq!(left(&log).await, [8, 9, 10]);
        let beyond = log.delete_records(Offset::new(11)).await;
        assert!(matches!(beyond, Err(DeleteRecordsError::OutOfRange { start, end, .. }) if (start.get(), end.get()) == (7, 10)));
        assert_eq!(delete_below(&log, 10).await, 10);
        assert_eq!(segments(&sim), [10], "also the active one, when nothing is left");
        time::sleep(millis(1000)).await;
        assert_eq!(orphans(&sim), 0, "nobody wrote an index of what was removed");
        append_large(&log, 11..=15).await;
        assert_eq!(left(&log).await, [11, 12, 13, 14, 15]);
    });
}

#[test]
fn an_emptied_log_goes_on_at_its_end_after_every_kind_of_stop() {
    for (seed, stop) in (0..).zip(["close", "kill", "crash"]) {
        let sim = sim(810 + seed);
        let mut end = 0;
        for round in 0..3 {
            end = sim.run(|| async {
                let (log, found) = open_one().await;
                assert_eq!(log.offsets().start.get(), end, "{stop}, round {round}");
                assert!(round == 0 || found == Recovery::Clean { end: Offset::new(end) }, "{found:?}");
                assert_eq!(log.find_timestamp(Timestamp::new(0)).await.expect("readable"), None);
                append_large(&log, 1..=5).await;
                let end = delete_below(&log, log.offsets().durable.get()).await;
                if stop == "close" {
                    log.close().await.expect("a clean stop");
                }
                end
            });
            assert_eq!((end, segments(&sim)), ((round + 1) * 5, vec![end]));
            match stop {
                "crash" => drop(sim.crash()),
                _ => sim.kill(),
            }
        }
    }
}

/// A log with segments at 0, 3, 6 and 9, and the start at 7; what was removed is there again.
fn with_everything_left_over(seed: u64) -> Sim {
    let sim = sim(seed);
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_large(&log, 1..=10).await;
        time::sleep(millis(1000)).await;
        sim.disk().inject(Fault::on(Operation::Remove, "*").times(u64::MAX));
        assert_eq!(delete_below(&log, 7).await, 7, "that files stay is no failure");
        assert_eq!(left(&log).await, [8, 9, 10]);
    });
    sim.disk().clear_faults();
    sim.kill();
    assert_eq!(segments(&sim), [0, 3, 6, 9]);
    sim
}

#[test]
fn whatever_is_left_or_missing_below_the_start_a_log_is_opened_and_tidied() {
    for gone in [&[][..], &[0], &[3], &[0, 3]] {
        let sim = with_everything_left_over(820);
        for base in gone {
            sim.disk().remove(segment_path(*base)).expect("a file");
        }
        sim.run(|| async {
            let (log, _) = open_one().await;
            assert_eq!(left(&log).await, [8, 9, 10], "without {gone:?}");
            append_large(&log, [11]).await;
            log.close().await.expect("a clean stop");
        });
        assert_eq!((segments(&sim), orphans(&sim)), (vec![6, 9], 0), "without {gone:?}");
    }
}

#[test]
fn what_is_rotten_below_the_start_is_no_damage() {
    let sim = with_everything_left_over(821);
    for base in [0, 3] {
        sim.disk().overwrite(segment_path(base), 0, &[0xFF; 4096]).expect("a file");
    }
    sim.run(|| async { assert_eq!(left(&open_one().await.0).await, [8, 9, 10]) });

    // Also where the log was emptied, and the last segment with records is still there.
    let sim = super::support::sim(822);
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_large(&log, 1..=5).await;
        sim.disk().inject(Fault::on(Operation::Remove, "*").times(u64::MAX));
        assert_eq!(delete_below(&log, 5).await, 5);
    });
    sim.disk().clear_faults();
    sim.kill();
    assert_eq!(segments(&sim), [0, 3, 5]);
    let bytes = sim.disk().read(segment_path(3)).expect("a file").len();
    sim.disk().overwrite(segment_path(3), 0, &vec![0; bytes]).expect("a file");
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_large(&log, [6]).await;
        assert_eq!(left(&log).await, [6]);
    });
}

#[test]
fn what_is_missing_at_or_above_the_start_is_damage() {
    for (gone, expected) in [(&[0, 3, 6][..], 7), (&[0, 3, 6, 9][..], 7)] {
        let sim = with_everything_left_over(823);
        for base in gone {
            sim.disk().remove(segment_path(*base)).expect("a file");
        }
        let opened = sim.run(|| async { open(&start().await, 0).await.map(|(_, found)| found) });
        let Err(OpenError::Corrupt(corruption)) = opened else { panic!("{opened:?}") };
        assert!(matches!(corruption.damage, Damage::SegmentMissing | Damage::FilesMissing), "{corruption}");
        assert_eq!(corruption.expected, Offset::new(expected));
    }
    // The start proves that frames reached it.
    let sim = super::support::sim(824);
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_tags(&log, 1..=4).await;
        delete_below(&log, 4).await;
        append_tags(&log, [5]).await;
        delete_below(&log, 5).await;
        append_tags(&log, [6, 7]).await;
        delete_below(&log, 6).await;
    });
    sim.kill();
    assert_eq!(segments(&sim), [5]);
    sim.disk().overwrite(segment_path(5), 0, &[0; 8192]).expect("a file");
    let opened = sim.run(|| async { open(&start().await, 0).await.map(|(_, found)| found) });
    let Err(OpenError::Corrupt(corruption)) = opened else { panic!("{opened:?}") };
    assert_eq!((corruption.expected, corruption.proven_end), (Offset::new(5), Offset::new(6)));
}

#[test]
fn a_reader_of_a_segment_that_is_removed_gets_it_whole_or_is_told_that_it_is_deleted() {
    let latency = LatencyConfig { read: millis(5)..=millis(40), slow_one_in: 0, ..LatencyConfig::default() };
    let (mut whole, mut told) = (0, 0);
    for seed in 0..40 {
        let sim = sim_with_disk(830 + seed, DiskConfig { latency: latency.clone(), ..DiskConfig::default() });
        sim.run(|| async { append_large(&open_one().await.0, 1..=10).await });
        sim.kill();
        sim.run(|| async {
            let history = GenerationHistory::load(Path::new(TABLES)).await.expect("sound tables");
            let (log, _) = open(&deps(history, 0), 0).await.expect("a sound log");
            let deleter = log.clone();
            task::spawn("delete", async move {
                time::sleep(millis(seed * 2)).await;
                delete_below(&deleter, 10).await;
            });
            for from in [0, 3, 6] {
                match log.read(Offset::new(from), 20_000).await {
                    Ok(read) => whole += usize::from(read.next_offset == Offset::new(from + 1)),
                    Err(ReadError::OutOfRange { start, .. }) => {
                        assert_eq!(start, Offset::new(10));
                        told += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    assert!(whole > 10 && told > 10, "{whole} and {told}");
}

#[test]
fn what_is_to_be_removed_nobody_keeps() {
    let sim = sim(826);
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_large(&log, 1..=10).await;
        assert_eq!(left(&log).await.len(), 10);
        time::sleep(millis(1000)).await;
        sim.disk().inject(Fault::on(Operation::Remove, "*").times(u64::MAX));
        assert_eq!(delete_below(&log, 7).await, 7);
        let state = log.core().state.borrow();
        assert_eq!(
            state.retired.iter().map(Rc::strong_count).collect::<Vec<_>>(),
            [1, 1],
            "else none is freed in pieces"
        );
    });
}

#[test]
fn deletions_during_compaction_leave_one_task_that_waits_for_its_end() {
    let sim = sim(827);
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_large(&log, 1..=10).await;
        time::sleep(millis(1000)).await;
        for (start, kept) in [(7, &[6, 9][..]), (9, &[9])] {
            let before = segments(&sim);
            let compacting = log.core().reshaping.acquire(1).await;
            for _ in 0..100 {
                assert_eq!(delete_below(&log, start).await, start);
            }
            assert_eq!((log.core().gate.running(), segments(&sim)), (1, before));
            drop(compacting);
            time::sleep(millis(1000)).await;
            assert_eq!(segments(&sim), kept);
        }
    });
}

#[test]
fn timestamps_are_looked_up_among_what_is_left() {
    let sim = sim(870);
    sim.run(|| async {
        let (log, _) = open_one().await;
        for tag in [50, 40, 60, 30, 70] {
            log.append(copied(tag, 2, 17_000)).await.expect("acknowledged");
        }
        let find = |timestamp| log.find_timestamp(Timestamp::new(timestamp));
        assert_eq!(find(45).await.expect("readable"), Some((Offset::ZERO, Timestamp::new(50))));
        for (before, found) in [(1, (1, 50)), (2, (4, 60)), (5, (5, 60)), (6, (8, 70)), (9, (9, 70))] {
            delete_below(&log, before).await;
            let expected = Some((Offset::new(found.0), Timestamp::new(found.1)));
            assert_eq!(find(45).await.expect("readable"), expected, "from {before} on");
        }
        delete_below(&log, 10).await;
        assert_eq!(find(45).await.expect("readable"), None);
    });
}

#[test]
fn timestamps_are_looked_up_in_batches_of_every_compression() {
    sim(872).run(|| async {
        let (log, _) = open_one().await;
        for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let base = log.offsets().end;
            let mut builder = BatchBuilder::new(compression);
            // More than one step, with the record in question in the middle.
            for number in 0..200_i64 {
                let timestamp = Timestamp::new(1_000 * (1 + base.get()) + number);
                builder
                    .append(&RecordRef { timestamp, key: None, value: Some(&[7; 1_000]), headers: &[] })
                    .expect("a record");
            }
            let batch = Payload::Copied(builder.finish().expect("a batch"));
            let append = Append::validated(batch, &BatchLimits::default()).expect("a sound batch");
            log.append(append).await.expect("acknowledged");
            let wanted = Timestamp::new(1_000 * (1 + base.get()) + 123);
            let found = log.find_timestamp(wanted).await.expect("readable");
            assert_eq!(found, Some((Offset::new(base.get() + 123), wanted)), "{compression}");
        }
    });
}

#[test]
fn a_start_that_cannot_be_recorded_does_not_move() {
    let sim = sim(871);
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_tags(&log, 1..=3).await;
        sim.disk().fail_next_write("*.table", std::io::ErrorKind::Other);
        let deleted = log.delete_records(Offset::new(2)).await;
        assert!(
            matches!(deleted, Err(DeleteRecordsError::Record { source: RecordError::Failed(_), .. })),
            "{deleted:?}"
        );
        assert_eq!(log.offsets().start, Offset::ZERO);
        append_tags(&log, [4]).await;
        assert_eq!(left(&log).await, [1, 2, 3, 4]);
        log.close().await.expect_err("its clean end cannot be recorded either");
        assert!(matches!(log.delete_records(Offset::new(2)).await, Err(DeleteRecordsError::Closed)));
    });
}

#[test]
fn an_offline_log_deletes_nothing() {
    let sim = sim(872);
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_tags(&log, 1..=3).await;
        sim.disk().fail_next_write("*.log", std::io::ErrorKind::Other);
        log.append(copied(4, 1, 100)).await.expect_err("the write fails");
        assert!(matches!(log.delete_records(Offset::new(2)).await, Err(DeleteRecordsError::Poisoned(_))));
        assert_eq!(left(&log).await, [1, 2, 3]);
    });
}

async fn open_keeping(config: LogConfig) -> Log {
    Log::open(Path::new(ROOT), log_id(0), config, &start().await).await.expect("a sound log").0
}

/// A record of that age, in hours.
fn aged(hours: i64) -> u64 {
    (time::wall_clock() - hours * 3_600_000).cast_unsigned()
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

#[test]
fn segments_go_when_their_latest_record_is_too_old() {
    let sim = sim(880);
    let config = LogConfig { retention_age: Some(hours(10)), ..small() };
    sim.run(|| async {
        let log = open_keeping(config.clone()).await;
        for age in [30, 20, 9, 40, 40, 40, 5, 50, 50, 1] {
            append_large(&log, [aged(age)]).await;
        }
        assert_eq!(
            log.retain(now()).await.expect("retained"),
            Offset::ZERO,
            "one of the first segment is young enough"
        );
        time::sleep(hours(2)).await;
        let writes = sim.disk().counters("/data").writes;
        assert_eq!(log.retain(now()).await.expect("retained"), Offset::new(6));
        assert_eq!(segments(&sim), [6, 9]);
        for _ in 0..3 {
            assert_eq!(log.retain(now()).await.expect("retained"), Offset::new(6));
        }
        assert!(sim.disk().counters("/data").writes <= writes + 1, "one entry of the generation table");
        time::sleep(hours(10)).await;
        assert_eq!(log.retain(now()).await.expect("retained"), Offset::new(10), "the active one as well");
        assert_eq!(segments(&sim), [10]);
        append_large(&log, [aged(0)]).await;
        assert_eq!(log.retain(now()).await.expect("retained"), Offset::new(10));
        log.reconfigure(LogConfig { retention_age: None, ..config.clone() }).expect("valid");
        time::sleep(hours(100)).await;
        assert_eq!(log.retain(now()).await.expect("retained"), Offset::new(10), "for ever");
    });
}

#[test]
fn the_age_of_a_segment_is_known_after_a_start_with_an_index_or_without() {
    for without in [false, true] {
        let sim = sim(881);
        let config = LogConfig { retention_age: Some(hours(10)), ..small() };
        sim.run(|| async {
            let log = open_keeping(config.clone()).await;
            append_large(&log, (0..10).map(|_| aged(9))).await;
            time::sleep(millis(1000)).await;
        });
        sim.kill();
        if without {
            sim.disk().remove(file_path(0, "00000000000000000000.index")).expect("an index");
        }
        sim.run(|| async {
            let log = open_keeping(config.clone()).await;
            assert_eq!(log.retain(now()).await.expect("retained"), Offset::ZERO);
            time::sleep(hours(2)).await;
            let reads = sim.disk().counters(segment_path(3)).reads;
            let begins = log.retain(now()).await.expect("retained");
            assert_eq!(begins, Offset::new(9), "the active one was not begun that long ago");
            assert_eq!(sim.disk().counters(segment_path(3)).reads, reads, "its index told");
        });
    }
}

#[test]
fn timestamps_ahead_of_the_clock_do_not_keep_records_for_ever() {
    let sim = sim(882);
    sim.run(|| async {
        let log = open_keeping(LogConfig { retention_age: Some(hours(10)), ..small() }).await;
        append_large(&log, [aged(-100_000), 1, 2]).await;
        time::sleep(hours(5)).await;
        append_large(&log, [aged(0)]).await;
        time::sleep(hours(9)).await;
        assert_eq!(
            log.retain(now()).await.expect("retained"),
            Offset::ZERO,
            "written less than ten hours before the next"
        );
        time::sleep(hours(2)).await;
        assert_eq!(log.retain(now()).await.expect("retained"), Offset::new(4));
    });
}

#[test]
fn a_clock_that_was_behind_while_a_segment_began_makes_the_one_before_no_older() {
    const BEHIND_HOURS: i64 = 30 * 24;
    let sim = sim(884);
    let step_hours = |hours: i64| sim.step_wall_clock(hours * 3_600_000);
    sim.run(|| async {
        let log = open_keeping(LogConfig { retention_age: Some(hours(10)), ..small() }).await;
        append_large(&log, [aged(0), aged(0), aged(0)]).await;
        step_hours(-BEHIND_HOURS);
        append_large(&log, [aged(-BEHIND_HOURS)]).await;
        step_hours(BEHIND_HOURS);
        assert_eq!(segments(&sim), [0, 3]);
        assert_eq!(log.retain(now()).await.expect("retained"), Offset::ZERO, "the records are of this hour");
        time::sleep(hours(11)).await;
        assert_eq!(log.retain(now()).await.expect("retained"), Offset::new(4), "in their time they go");

        // Where timestamps are of no use, the first segment counts that was begun with a clock that was right again.
        append_large(&log, [aged(-100_000), aged(-100_000), aged(-100_000)]).await;
        step_hours(-BEHIND_HOURS);
        append_large(&log, [1, 2, 3]).await;
        step_hours(BEHIND_HOURS);
        time::sleep(hours(1)).await;
        append_large(&log, [1]).await;
        assert_eq!(segments(&sim), [4, 7, 10]);
        assert_eq!(log.retain(now()).await.expect("retained"), Offset::new(4));
        time::sleep(hours(11)).await;
        assert_eq!(log.retain(now()).await.expect("retained"), Offset::new(11));
    });
}

#[test]
fn a_clock_that_was_ahead_while_a_segment_began_does_not_keep_it_for_ever() {
    let sim = sim(885);
    sim.run(|| async {
        let log = open_keeping(LogConfig { retention_age: Some(hours(10)), ..small() }).await;
        sim.step_wall_clock(100_000 * 3_600_000);
        append_large(&log, [aged(0), aged(0), aged(0)]).await;
        sim.step_wall_clock(-100_000 * 3_600_000);
        append_large(&log, [aged(0)]).await;
        assert_eq!(log.retain(now()).await.expect("retained"), Offset::ZERO);
        time::sleep(hours(11)).await;
        assert_eq!(log.retain(now()).await.expect("retained"), Offset::new(4));
    });
}

#[test]
fn the_oldest_segments_go_while_the_others_have_enough() {
    let sim = sim(883);
    sim.run(|| async {
        let frame = 16_384 + 4_096;
        let config = LogConfig { retention_age: None, retention_bytes: Some(4 * frame), ..small() };
        let log = open_keeping(config.clone()).await;
        for (tag, start) in [(1, 0), (3, 0), (4, 0), (6, 0), (7, 3), (9, 3), (10, 6), (13, 9)] {
            append_large(&log, log.offsets().end.get().cast_unsigned() + 1..=tag).await;
            assert_eq!(log.retain(now()).await.expect("retained").get(), start, "with {tag} appends");
        }
        log.reconfigure(LogConfig { retention_bytes: Some(0), ..config }).expect("valid");
        assert_eq!(log.retain(now()).await.expect("retained"), Offset::new(12), "the active one stays");
        assert_eq!(left(&log).await, [13]);
    });
}
