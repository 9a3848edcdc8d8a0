//! Bounds, and the ends of a log's life: what is refused, when a segment is sealed, closing, deleting, and what costs
//! nothing.

use std::path::Path;
use std::time::Duration;

use ringmq_runtime::sim::{Fault, Operation};
use ringmq_runtime::task::Gate;
use ringmq_runtime::{random, time};
use ringmq_wire::batch::BatchLimits;
use ringmq_wire::{LeaderEpoch, Offset, ShardIndex, Timestamp};

use super::support::*;
use crate::frame::FrameHeader;
use crate::{
    Append, AppendError, AppendRejected, GenerationHistory, Generations, Log, LogConfig, LogDeps, Payload, ReadError,
    Recovery, TailCache,
};

/// The headers of the frames in a segment, one behind the other.
fn frames(file: &[u8]) -> Vec<FrameHeader> {
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some(header) = file.get(at..).and_then(|bytes| FrameHeader::decode(bytes).ok()) {
        at += header.frame_bytes as usize;
        frames.push(header);
    }
    frames
}

#[test]
fn only_sound_batches_get_in() {
    let limits = BatchLimits::default();
    let validated = |bytes: &[u8]| Append::validated(Payload::Copied(bytes::Bytes::copy_from_slice(bytes)), &limits);
    let (one, two) = (batch(1, 2, 10), batch(2, 3, 10));
    assert_eq!(validated(&[]).map(drop), Err(AppendRejected::Empty));
    let both = [&one[..], &two[..]].concat();
    assert_eq!(validated(&both).expect("two batches").record_count(), 5);
    for cut in [1, both.len() - 1, one.len() + 1] {
        assert!(matches!(validated(&both[..cut]), Err(AppendRejected::Batch { .. })), "{cut} bytes");
    }
    let mut flipped = both.clone();
    flipped[one.len() + 70] ^= 1;
    let Err(AppendRejected::Batch { index: 1, position, .. }) = validated(&flipped) else { panic!("a wrong checksum") };
    assert_eq!(position, one.len());
}

#[test]
fn what_does_not_fit_a_segment_and_what_is_too_much_is_refused() {
    let sim = sim(200);
    sim.run(|| async {
        let (log, _) = open_one().await;
        assert!(matches!(log.append(framed(1, 1, 64_000)).await, Err(AppendError::TooLarge { .. })));
        let large = log.append(framed(1, 1, 55_000));
        // The bound is a mebibyte; an append that finds nothing staged gets in whatever its size.
        let mut staged = Vec::new();
        let refused = loop {
            let appending = log.append(framed(2, 1, 55_000));
            if staged.len() >= 18 {
                break appending.await;
            }
            staged.push(appending);
        };
        assert!(matches!(refused, Err(AppendError::Overloaded { .. })), "{refused:?}");
        large.await.expect("acknowledged");
        for appending in staged {
            appending.await.expect("acknowledged");
        }
        log.append(framed(3, 1, 55_000)).await.expect("there is room again");
    });
}

#[test]
fn an_open_log_goes_by_new_limits_from_the_next_append_on() {
    let sim = sim(215);
    sim.run(|| async {
        let (log, _) = open_one().await;
        log.append(framed(1, 1, 30_000)).await.expect("acknowledged");
        let larger = LogConfig { segment_bytes: 256 << 10, ..small() };
        log.reconfigure(larger).expect("a valid configuration");
        for tag in 2..5 {
            log.append(framed(tag, 1, 30_000)).await.expect("acknowledged");
        }
        assert!(!sim.disk().files().contains(&segment_path(2)), "the segment goes on growing");

        // What waits already is larger than a segment may be by now, and is taken all the same.
        let staged = log.append(framed(5, 1, 100_000));
        log.reconfigure(small()).expect("a valid configuration");
        staged.await.expect("acknowledged");
        log.append(framed(6, 1, 30_000)).await.expect("acknowledged");
        assert!(sim.disk().files().contains(&segment_path(4)), "what is over the new limit is sealed");
        assert!(sim.disk().files().contains(&segment_path(5)), "and so is what was let in before");
        assert!(matches!(log.append(framed(7, 1, 100_000)).await, Err(AppendError::TooLarge { .. })));
        log.reconfigure(LogConfig { segment_bytes: 0, ..small() }).expect_err("no log can be kept so");
        log.append(framed(7, 1, 30_000)).await.expect("acknowledged");
        log.close().await.expect("a clean end");
    });
    sim.run(|| async {
        let (log, _) = open_one().await;
        assert_eq!(tags(&read_all(&log, 1 << 20).await), [1, 2, 3, 4, 5, 6, 7]);
    });
}

#[test]
fn an_append_that_room_was_made_for_is_taken_into_an_empty_segment_and_a_used_one() {
    let sim = sim(214);
    sim.run(|| async {
        let batch = framed(1, 1, 64_000);
        let append_bytes = u32::try_from(batch.payload_bytes()).expect("small");
        // As a topic's settings allow it: a segment that is no longer than the largest batch.
        let config = LogConfig { segment_bytes: append_bytes.into(), ..small() };
        let deps = start().await;
        let (log, _) = Log::open(Path::new(ROOT), log_id(0), config.clone(), &deps).await.expect("an empty log");
        assert!(matches!(log.append(batch).await, Err(AppendError::TooLarge { .. })));
        log.close().await.expect("a clean stop");
        let (log, _) = Log::open(Path::new(ROOT), log_id(0), config.with_room_for(append_bytes), &deps)
            .await
            .expect("an empty log");
        for tag in 1..=3 {
            log.append(framed(tag, 1, 64_000)).await.expect("acknowledged");
            log.append(copied(tag + 10, 1, 100)).await.expect("acknowledged");
        }
        assert_eq!(tags(&read_all(&log, 1 << 20).await), [1, 11, 2, 12, 3, 13]);
    });
}

#[test]
fn appends_that_come_together_share_frames_and_flushes() {
    let sim = sim(201);
    sim.run(|| async {
        let config = LogConfig { segment_bytes: 8 << 20, ..small() };
        let (log, _) = Log::open(Path::new(ROOT), log_id(0), config, &start().await).await.expect("an empty log");
        append_tags(&log, [0]).await;
        let before = sim.disk().counters(segment_path(0)).writes;
        let together: Vec<_> = (1..=100).map(|tag| log.append(copied(tag, 1, 100))).collect();
        for appending in together {
            appending.await.expect("acknowledged");
        }
        let writes = sim.disk().counters(segment_path(0)).writes - before;
        assert!((2..=4).contains(&writes), "{writes} writes for 100 appends of some 200 bytes, 16 KiB a frame");
        assert_eq!(tags(&read_all(&log, 1 << 20).await), (0..=100).collect::<Vec<_>>());
    });
}

#[test]
fn large_appends_go_to_the_device_side_by_side_up_to_the_bound() {
    let sim = sim(202);
    sim.run(|| async {
        let config = LogConfig { segment_bytes: 8 << 20, ..small() };
        let (log, _) = Log::open(Path::new(ROOT), log_id(0), config, &start().await).await.expect("an empty log");
        append_tags(&log, [0]).await;
        for value_bytes in [1_000_000, 100_000] {
            log.append(framed(9, 1, value_bytes)).await.expect("acknowledged; from here on there is room");
        }
        sim.disk().stall("*.log", millis(100));
        let appending: Vec<_> = (1..=6).map(|tag| log.append(framed(tag, 1, 100_000))).collect();
        for appending in appending {
            appending.await.expect("acknowledged");
        }
        let headers = frames(&sim.disk().read(segment_path(0)).expect("a segment"));
        let durable: Vec<i64> = headers.iter().map(|header| header.durable_offset.get()).collect();
        assert_eq!(durable[3..7], [3; 4], "four were under way, and none knew of the others");
        assert!(durable[7] > 3, "the fifth waited for one of them");
        assert!(headers.iter().all(|header| header.durable_offset <= header.base_offset));
    });
}

#[test]
fn frames_carry_what_they_should() {
    let sim = sim(203);
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_tags(&log, [7]).await;
        log.set_leader_epoch(LeaderEpoch::new(5));
        time::sleep(Duration::from_secs(1)).await;
        log.append(copied(9, 3, 10)).await.expect("acknowledged");
        let headers = frames(&sim.disk().read(segment_path(0)).expect("a segment"));
        let [first, second] = headers[..] else { panic!("{} frames", headers.len()) };
        assert_eq!((first.leader_epoch.get(), second.leader_epoch.get()), (0, 5));
        assert_eq!((second.base_offset.get(), second.next_offset.get(), second.record_count), (1, 4, 3));
        assert_eq!((second.durable_offset.get(), second.max_timestamp.get()), (1, 9));
        assert!(second.written_at.get() >= first.written_at.get() + 1000 && first.written_at.get() >= EPOCH_MS);
        let read = log.read(Offset::new(1), 1000).await.expect("readable");
        let header = ringmq_wire::batch::BatchHeader::decode(&read.slices[0]).expect("a batch");
        assert_eq!((header.base_offset.get(), header.partition_leader_epoch), (1, Some(LeaderEpoch::new(5))));
    });
}

#[test]
fn a_segment_is_sealed_when_it_is_old_with_appends_or_without() {
    let sim = sim(204);
    let now = || Timestamp::new(time::wall_clock());
    sim.run(|| async {
        let deps = start().await;
        let config = LogConfig { segment_age: Duration::from_secs(3600), ..small() };
        let (log, _) = Log::open(Path::new(ROOT), log_id(0), config.clone(), &deps).await.expect("an empty log");
        log.roll_if_due(now());
        append_tags(&log, [1, 2]).await;
        log.roll_if_due(now());
        time::sleep(Duration::from_secs(3601)).await;
        append_tags(&log, [3]).await;
        assert!(sim.disk().read(segment_path(2)).is_some(), "an append seals what is too old");
        time::sleep(Duration::from_secs(3601)).await;
        log.roll_if_due(now());
        time::sleep(Duration::from_secs(1)).await;
        assert!(sim.disk().read(segment_path(3)).is_some(), "and so does the clock");
        log.roll_if_due(now());
        time::sleep(Duration::from_secs(3601)).await;
        log.roll_if_due(now());
        time::sleep(Duration::from_secs(1)).await;
        assert_eq!(sim.disk().files().iter().filter(|path| path.to_string_lossy().ends_with(".log")).count(), 3);
        append_tags(&log, [4]).await;
        assert_eq!(tags(&read_all(&log, 1 << 20).await), [1, 2, 3, 4]);
        log.close().await.expect("a clean stop");
        // The age counts on from the first frame, also after a start.
        time::sleep(Duration::from_secs(3601)).await;
        let (log, _) = Log::open(Path::new(ROOT), log_id(0), config, &deps).await.expect("a sound log");
        append_tags(&log, [5]).await;
        assert!(sim.disk().read(segment_path(4)).is_some());
    });
}

#[test]
fn an_empty_log_costs_nothing_and_a_thousand_of_them_neither() {
    let sim = sim(205);
    sim.run(|| async {
        let deps = start().await;
        let free = sim.disk().free_bytes();
        let mut logs = Vec::new();
        for partition in 0..1000 {
            let (log, found) = open(&deps, partition).await.expect("an empty log");
            assert_eq!(found, Recovery::Empty);
            assert!(log.read(Offset::ZERO, 10).await.expect("the end").slices.is_empty());
            assert_eq!(log.find_timestamp(Timestamp::new(0)).await.expect("readable"), None);
            assert_eq!(log.size_bytes(), 0);
            logs.push(log);
        }
        for log in &logs {
            log.close().await.expect("a clean stop");
        }
        assert_eq!((sim.disk().free_bytes(), sim.disk().files().len()), (free, 0));
    });
}

#[test]
fn many_first_appends_share_the_writes_of_the_generation_table() {
    let sim = sim(206);
    sim.run(|| async {
        let deps = start().await;
        let mut appending = Vec::new();
        for partition in 0..300 {
            let (log, _) = open(&deps, partition).await.expect("an empty log");
            appending.push(log.append(copied(1, 1, 10)));
        }
        for appending in appending {
            appending.await.expect("acknowledged");
        }
        let table = sim.disk().files().into_iter().find(|path| path.starts_with(TABLES)).expect("a table");
        let writes = sim.disk().counters(table).writes;
        assert!(writes < 150, "{writes} writes for 300 logs");
    });
}

#[test]
fn a_closed_log_takes_and_gives_nothing_and_answers_what_it_had_taken() {
    let sim = sim(207);
    sim.run(|| async {
        let deps = start().await;
        let (log, _) = open(&deps, 0).await.expect("an empty log");
        let taken: Vec<_> = (1..=20).map(|tag| log.append(copied(tag, 1, 5_000))).collect();
        let moved = log.readable_moved();
        log.close().await.expect("a clean stop");
        for appending in taken {
            appending.await.expect("what was staged is written before the log closes");
        }
        moved.await;
        assert!(matches!(log.append(copied(99, 1, 10)).await, Err(AppendError::Closed)));
        assert!(matches!(log.read(Offset::ZERO, 10).await, Err(ReadError::Closed)));
        assert!(matches!(log.find_timestamp(Timestamp::new(0)).await, Err(ReadError::Closed)));
        log.close().await.expect("closing twice is no error");
        assert_eq!(deps.cache.bytes(), 0);
        let (log, found) = open(&deps, 0).await.expect("a sound log");
        assert_eq!(found, Recovery::Clean { end: Offset::new(20) });
        assert_eq!(tags(&read_all(&log, 1 << 20).await), (1..=20).collect::<Vec<_>>());
    });
}

#[test]
fn a_closed_log_gives_back_the_space_it_did_not_use() {
    let sim = sim(208);
    sim.run(|| async {
        let deps = start().await;
        let (log, _) = open(&deps, 0).await.expect("an empty log");
        append_tags(&log, 1..=3).await;
        assert_eq!(sim.disk().read(segment_path(0)).expect("a segment").len(), 64 << 10);
        log.close().await.expect("a clean stop");
        assert_eq!(sim.disk().read(segment_path(0)).expect("a segment").len(), 3 * 4096);
        let (log, _) = open(&deps, 0).await.expect("a sound log");
        append_tags(&log, 4..=40).await;
        assert_eq!(tags(&read_all(&log, 1 << 20).await), (1..=40).collect::<Vec<_>>());
    });
}

#[test]
fn a_deleted_log_frees_its_files_and_never_comes_back() {
    let sim = sim(209);
    let mut free = 0;
    sim.run(|| async {
        let deps = start().await;
        let (other, _) = open(&deps, 1).await.expect("an empty log");
        append_tags(&other, [1]).await;
        free = sim.disk().free_bytes();
        let (log, _) = open(&deps, 0).await.expect("an empty log");
        for tag in 1..=30 {
            log.append(copied(tag, 1, 12_000)).await.expect("acknowledged");
        }
        let unanswered: Vec<_> = (31..60).map(|tag| log.append(copied(tag, 1, 12_000))).collect();
        time::sleep(Duration::from_micros(random::u64() % 1000)).await;
        let before = deps.cache.bytes();
        log.delete().await.expect("deleted");
        assert!(deps.cache.bytes() < before);
        for appending in unanswered {
            match appending.await {
                Ok(_) | Err(AppendError::Closed) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(matches!(log.read(Offset::ZERO, 10).await, Err(ReadError::Closed)));
        assert!(!sim.disk().files().iter().any(|path| path.starts_with(log_id(0).log_dir(Path::new(ROOT)))));
        assert_eq!(tags(&read_all(&other, 1 << 20).await), [1]);
    });
    sim.crash();
    sim.run(|| async {
        let deps = start().await;
        let (log, found) = open(&deps, 0).await.expect("an empty log");
        assert_eq!(found, Recovery::Empty);
        append_tags(&log, [100]).await;
        assert_eq!(tags(&read_all(&log, 1 << 20).await), [100]);
    });
    sim.kill();
    sim.run(|| async {
        let deps = start().await;
        let (log, _) = open(&deps, 0).await.expect("a sound log");
        assert_eq!(tags(&read_all(&log, 1 << 20).await), [100], "the removal spoke of the log before");
        log.delete().await.expect("deleted");
        let (other, _) = open(&deps, 1).await.expect("a sound log");
        other.delete().await.expect("deleted");
        assert!(!sim.disk().files().iter().any(|path| path.starts_with(ROOT)));
    });
}

#[test]
fn all_logs_of_a_topic_are_removed_at_the_same_time() {
    const PARTITIONS: u16 = 5;
    let topic_dir = log_id(0).topic_dir(Path::new(ROOT));
    for seed in 0..300 {
        let sim = sim(seed);
        sim.run(|| async {
            let history = GenerationHistory::load(Path::new(TABLES)).await.expect("sound tables");
            let gate = Gate::new();
            for core in 0..PARTITIONS {
                let generations = Generations::new(Path::new(TABLES), ShardIndex::new(core), history.clone());
                let deps = LogDeps::without_journal(generations, TailCache::new(0));
                let (log, _) = open(&deps, core.into()).await.expect("an empty log");
                // One of them was never appended to, and has no directory.
                if core > 0 {
                    append_tags(&log, [1]).await;
                }
                gate.spawn("delete", async move { log.delete().await.expect("removed, whoever comes last") })
                    .expect("the gate is open");
                if seed % 2 == 0 {
                    time::sleep(Duration::from_micros(random::u64() % 3000)).await;
                }
            }
            gate.close().await;
        });
        sim.crash();
        sim.run(|| async {
            assert!(!ringmq_runtime::fs::exists(&topic_dir).await.expect("known"), "it is gone for good, seed {seed}");
            let deps = start().await;
            for partition in 0..PARTITIONS {
                let (_, found) = open(&deps, partition.into()).await.expect("an empty log");
                assert_eq!(found, Recovery::Empty);
            }
        });
    }
}

#[test]
fn a_log_that_cannot_be_opened_can_be_removed() {
    let sim = sim(210);
    sim.run(|| async { append_tags(&open_one().await.0, [1, 2]).await });
    sim.kill();
    sim.disk().flip_bit(segment_path(0), 300, 0).expect("a file");
    sim.run(|| async {
        let deps = start().await;
        assert!(open(&deps, 0).await.is_err());
        for _ in 0..2 {
            Log::remove_files(Path::new(ROOT), log_id(0), &deps.generations).await.expect("removed, and once more");
        }
        let (_, found) = open(&deps, 0).await.expect("an empty log");
        assert_eq!(found, Recovery::Empty);
    });
}

#[test]
fn a_roll_that_fails_is_tried_again_with_the_next_append() {
    let sim = sim(211);
    sim.run(|| async {
        let (log, _) = open_one().await;
        for tag in 1..=4 {
            log.append(copied(tag, 1, 16_000)).await.expect("acknowledged");
        }
        // No descriptor is left, say.
        sim.disk().inject(Fault::on(Operation::Open, "*00000000000000000004.log").times(2).os_error(24));
        for _ in 0..2 {
            assert!(matches!(log.append(copied(5, 1, 100)).await, Err(AppendError::NotReady(_))));
        }
        assert_eq!(log.append(copied(5, 1, 100)).await.expect("acknowledged").base_offset, Offset::new(4));
        assert_eq!(tags(&read_all(&log, 1 << 20).await), [1, 2, 3, 4, 5]);
    });
}

#[test]
fn reads_of_the_past_do_not_grow_memory_beyond_the_bound() {
    let sim = sim(212);
    sim.run(|| async {
        let history = GenerationHistory::load(Path::new(TABLES)).await.expect("sound tables");
        let cache = TailCache::new(256 << 10);
        let generations = Generations::new(Path::new(TABLES), ShardIndex::new(0), history);
        let (log, _) = open(&LogDeps::without_journal(generations, cache.clone()), 0).await.expect("an empty log");
        for tag in 1..=150 {
            log.append(copied(tag, 1, 9_000)).await.expect("acknowledged");
            assert!(cache.bytes() <= 256 << 10);
        }
        let mut next = Offset::ZERO;
        while next.get() < 150 {
            next = log.read(next, 30_000).await.expect("readable").next_offset;
            assert!(cache.bytes() <= 256 << 10);
        }
        // The tail is still there: reading it touches no disk.
        let before = sim.disk().counters(log_path(&sim)).reads;
        assert_eq!(log.read(Offset::new(149), 1000).await.expect("readable").next_offset.get(), 150);
        assert_eq!(sim.disk().counters(log_path(&sim)).reads, before);
    });
}

/// The last segment.
fn log_path(sim: &ringmq_runtime::sim::Sim) -> std::path::PathBuf {
    let is_log = |path: &std::path::PathBuf| path.to_string_lossy().ends_with(".log");
    sim.disk().files().into_iter().rfind(is_log).expect("a segment")
}

#[test]
fn the_size_of_a_log_is_known_without_looking_at_the_disk() {
    let sim = sim(215);
    let in_frames = || {
        let logs = sim.disk().files().into_iter().filter(|path| path.to_string_lossy().ends_with(".log"));
        let files: Vec<Vec<u8>> = logs.filter_map(|path| sim.disk().read(path)).collect();
        assert!(files.len() > 3, "the log has rolled");
        files.iter().flat_map(|file| frames(file)).map(|frame| u64::from(frame.frame_bytes)).sum::<u64>()
    };
    sim.run(|| async {
        let (log, _) = open_one().await;
        for tag in 1..=30 {
            log.append(copied(tag, 1, 9_000)).await.expect("acknowledged");
        }
        // The last segment was sealed a moment ago, and its file may still have unused space.
        assert_eq!(log.size_bytes(), in_frames());
        time::sleep(millis(1000)).await;
    });
    sim.kill();
    sim.disk().remove(file_path(0, "00000000000000000000.index")).expect("an index");
    sim.run(|| async {
        let (log, _) = open_one().await;
        assert_eq!(log.size_bytes(), in_frames());
        assert_eq!(read_all(&log, 1 << 20).await.len(), 30);
        assert_eq!(log.size_bytes(), in_frames());
    });
}

#[test]
fn settings_that_no_log_can_be_kept_with_are_refused() {
    let sim = sim(213);
    sim.run(|| async {
        let deps = start().await;
        for config in [
            LogConfig { segment_bytes: 4095, ..small() },
            LogConfig { frame_bytes_max: 0, ..small() },
            LogConfig { writes_in_flight_max: 0, ..small() },
            LogConfig { staged_bytes_max: 0, ..small() },
            LogConfig { index_interval_bytes: 1, ..small() },
        ] {
            let opened = Log::open(Path::new(ROOT), log_id(0), config.clone(), &deps).await;
            assert!(matches!(opened, Err(crate::OpenError::Config(_))), "{config:?}");
        }
    });
}
