//! What the rules' histories leave out of the table of faults in `docs/durability.md`: disks that stall or cannot be read,
//! files that nobody made, blocks in each other's place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringmq_runtime::fs;
use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_runtime::time;
use ringmq_segment::{OpenError, ReadError};
use ringmq_wire::Offset;

use super::support::*;

const SECONDS: Duration = Duration::from_secs(7);

#[test]
fn a_disk_that_stalls_for_seconds_delays_and_loses_nothing() {
    // Small ones go by the journal, as long as no large one is on its way.
    for (seed, stalled, sizes) in [(1, "*", [100, 20_000]), (2, "*.ring", [100, 100]), (3, "*.log", [20_000, 100])] {
        let sim = sim(seed, true);
        start_with_journal(&sim);
        sim.run(|| {
            let disk = sim.disk();
            async move {
                let core = Core::start(2).await;
                for tag in 1..=2 {
                    core.log(0).append(append(tag, 1, 20_000)).await.expect("acknowledged");
                }
                disk.stall(stalled, SECONDS);
                let begun = time::Instant::now();
                let sizes = sizes.into_iter().cycle();
                let appends: Vec<_> =
                    (3..9).zip(sizes).map(|(tag, bytes)| core.log(0).append(append(tag, 1, bytes))).collect();
                time::sleep(SECONDS / 2).await;
                assert!(core.log(0).offsets().durable < core.log(0).offsets().end, "what is not there is not durable");
                for (tag, appending) in (3..9).zip(appends) {
                    let appended = appending.await.expect("a stall is no failure");
                    assert_eq!(appended.base_offset, Offset::new(tag - 1), "in their order");
                }
                assert!(begun.elapsed() >= SECONDS);
                assert_eq!(tags_of(core.log(0)).await, (1..9).collect::<Vec<_>>());
            }
        });
        sim.crash();
        sim.run(|| async {
            assert_eq!(tags_of(Core::start(2).await.log(0)).await, (1..9).collect::<Vec<_>>());
        });
    }
}

#[test]
fn small_appends_go_on_by_the_journal_while_a_checkpoint_waits_for_the_disk() {
    let sim = sim(8, true);
    start_with_journal(&sim);
    sim.run(|| {
        let disk = sim.disk();
        async move {
            let core = Core::start(1).await;
            let log = core.log(0);
            for tag in 1..=12 {
                log.append(append(tag, 1, 3_000)).await.expect("acknowledged");
            }
            disk.stall("*.log", SECONDS);
            let begun = time::Instant::now();
            log.checkpoint(log.offsets().end);
            for tag in 13..=15 {
                log.append(append(tag, 1, 100)).await.expect("acknowledged");
            }
            assert!(begun.elapsed() < SECONDS, "behind the frames they would have waited for all of them");
            assert_eq!(log.frames_end(), Offset::ZERO, "which are more than may be at the device at a time");
            time::sleep(SECONDS).await;
            until(|| log.frames_end() >= Offset::new(12)).await;
            assert_eq!(tags_of(log).await, (1..=15).collect::<Vec<_>>());
        }
    });
    sim.crash();
    sim.run(|| async { assert_eq!(tags_of(Core::start(1).await.log(0)).await, (1..=15).collect::<Vec<_>>()) });
}

#[test]
fn a_log_whose_queue_for_the_journal_fills_a_frame_goes_straight() {
    let sim = sim(10, true);
    start_with_journal(&sim);
    sim.run(|| {
        let disk = sim.disk();
        async move {
            let core = Core::start(2).await;
            disk.stall("*.ring", SECONDS);
            let begun = time::Instant::now();
            let idle = core.log(1).append(append(1, 1, 100));
            let busy: Vec<_> = (1..=40).map(|tag| core.log(0).append(append(tag, 1, 3_000))).collect();
            for appending in busy {
                appending.await.expect("acknowledged");
            }
            assert!(begun.elapsed() < SECONDS, "a frame of its own costs no more than its part of the journal");
            assert_eq!(core.log(0).frames_end(), Offset::new(40));
            assert_eq!(core.log(1).offsets().durable, Offset::ZERO, "a little is not worth a frame, and waits");
            idle.await.expect("acknowledged");
            assert!(begun.elapsed() >= SECONDS && core.log(1).frames_end() == Offset::ZERO);
        }
    });
    sim.crash();
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!(tags_of(core.log(0)).await, (1..=40).collect::<Vec<_>>());
        assert_eq!(tags_of(core.log(1)).await, [1]);
    });
}

/// Two partitions with something in frames and something that the journal alone has, killed.
fn two_partitions(sim: &Sim) {
    start_with_journal(sim);
    sim.run(|| async {
        let core = Core::start(2).await;
        for partition in 0..2 {
            core.log(partition).append(append(1, 1, 20_000)).await.expect("acknowledged");
            journaled(core.log(partition), 2).await;
        }
    });
    sim.kill();
}

/// Both are there, whole.
fn both_are_there(sim: &Sim) {
    sim.run(|| async {
        let core = Core::start(2).await;
        for partition in 0..2 {
            assert_eq!(tags_of(core.log(partition)).await, [1, 2]);
        }
    });
}

#[test]
fn a_segment_that_cannot_be_read_at_the_start_keeps_its_partition_offline_until_it_can() {
    let sim = sim(4, true);
    two_partitions(&sim);
    sim.disk().inject(Fault::on(Operation::Read, segment_path(0, 0).display().to_string()).times(u64::MAX));
    sim.run(|| async {
        let core = Core::start(2).await;
        assert!(matches!(core.logs[0], Err(OpenError::Io { .. })), "it may be sound");
        assert_eq!(tags_of(core.log(1)).await, [1, 2], "the other one serves");
    });
    sim.disk().clear_faults();
    sim.crash();
    both_are_there(&sim);
}

#[test]
fn a_segment_that_cannot_be_read_while_it_is_served_fails_the_read_alone() {
    let sim = sim(5, true);
    two_partitions(&sim);
    sim.run(|| {
        let disk = sim.disk();
        async move {
            let core = Core::start(2).await;
            let log = core.log(0);
            disk.inject(Fault::on(Operation::Read, "*.log"));
            let read = log.read(Offset::ZERO, 1 << 20).await;
            assert!(matches!(read, Err(ReadError::Io { .. })), "{read:?}");
            log.append(append(3, 1, 100)).await.expect("appends go on");
            assert_eq!(tags_of(log).await, [1, 2, 3], "it could be read the next time");
        }
    });
}

#[test]
fn files_that_nobody_made_are_left_alone_and_in_nobodys_way() {
    let sim = sim(8, true);
    two_partitions(&sim);
    let log_dir = segment_path(0, 0).parent().map(Path::to_path_buf).expect("a directory");
    let strangers: Vec<PathBuf> = [
        log_dir.join("notes.txt"),
        log_dir.join("00000000000000000007.log.bak"),
        log_dir.join("7.log"),
        log_dir.join("00000000000000000007.lock"),
        Path::new(DATA).join("lost+found.txt"),
        Path::new(DATA).join("generations/copy.old"),
        ring_path(&sim).with_file_name("notes"),
    ]
    .into();
    sim.run(|| {
        let strangers = strangers.clone();
        async move {
            for path in strangers {
                fs::write_small_atomic(&path, b"not ours").await.expect("written");
            }
        }
    });
    for _ in 0..2 {
        both_are_there(&sim);
        sim.crash();
        for path in &strangers {
            assert_eq!(sim.disk().read(path).as_deref(), Some(&b"not ours"[..]), "{}", path.display());
        }
    }
}

#[test]
fn blocks_of_the_journal_in_each_others_place_are_told_from_sound_ones() {
    let sim = sim(9, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(3).await;
        for partition in 0..3 {
            journaled(core.log(partition), 1).await;
        }
        idle().await;
    });
    sim.kill();
    let blocks = blocks_with_entries(&sim);
    let (ring, first, last) = (ring_path(&sim), blocks[0], blocks[blocks.len() - 1]);
    assert!(blocks.len() >= 3 && first < last, "{blocks:?}");
    let bytes = sim.disk().read(&ring).expect("a ring");
    let unit = |at: u64| {
        let at = usize::try_from(at).expect("small");
        bytes[at..at + 4096].to_vec()
    };
    sim.disk().overwrite(&ring, first, &unit(last)).expect("a file");
    sim.disk().overwrite(&ring, last, &unit(first)).expect("a file");
    sim.run(|| async {
        let core = Core::start(3).await;
        for log in &core.logs {
            match log {
                // What the block between them had.
                Ok(log) => assert_eq!(tags_of(log).await, [1], "nothing of another partition, and nothing is missing"),
                Err(OpenError::Corrupt(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(core.logs.iter().any(Result::is_err), "acknowledged records are gone, and that is told");
    });
}
