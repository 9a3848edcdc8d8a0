//! The histories of the storage protocol that concern journal and segments together, told with the rule kept. Its name
//! begins with the rule's number (`docs/storage-protocol.md`). Those of the ring alone are in the journal's own tests,
//! those of frames alone in the segments'.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_runtime::{task, time};
use ringmq_segment::{AppendError, Damage, Log, LogOffsets, OpenError, OutOfSequence};
use ringmq_wire::{Offset, Sequence};

use super::retries::sequenced;
use super::support::*;

async fn checkpointed(log: &Log) {
    log.checkpoint(log.offsets().end);
    until(|| log.frames_end() == log.offsets().end).await;
}

/// The ring has append 1; its frame, and behind it that of the straight append 3, are at the device together. The second
/// one has landed when the power goes; the first one, which would fill 4 KiB, is lost. `None` where the first one won.
fn frame_behind_a_gap(seed: u64) -> Option<Sim> {
    let sim = sim(seed, true);
    start_with_journal(&sim);
    let overtaken = sim.run(|| {
        let disk = sim.disk();
        async move {
            let core = Core::start(1).await;
            let log = core.log(0);
            journaled(log, 1).await;
            let mut straight = pin!(log.append(append(3, 1, 70_000)));
            while disk.counters(segment_path(0, 0)).writes == 0 {
                task::yield_now().await;
            }
            let overtaken = disk.read(segment_path(0, 0)).is_some_and(|segment| segment[..4096] == [0; 4096]);
            let is_acknowledged = poll_fn(|cx| Poll::Ready(straight.as_mut().poll(cx).is_ready())).await;
            let durable = log.offsets().durable;
            assert!(!overtaken || !is_acknowledged && durable == Offset::new(1), "the journal has it, and no frame");
            overtaken
        }
    });
    sim.crash();
    zero(&sim, segment_path(0, 0), 0);
    overtaken.then_some(sim)
}

#[test]
fn rule_01_a_frame_behind_a_gap_counts_for_nothing_although_the_journal_fills_it() {
    let mut overtaken = 0;
    for sim in (100..140).filter_map(frame_behind_a_gap) {
        overtaken += 1;
        sim.run(|| async { assert_eq!(tags_of(Core::start(1).await.log(0)).await, [1], "by the journal alone") });
    }
    assert!(overtaken > 5, "{overtaken} frames landed before the one in front of them");
}

#[test]
fn rule_02_a_frame_behind_what_is_redone_never_comes_back() {
    let sim = (200..240).find_map(frame_behind_a_gap).expect("a frame that lands before the one in front of it");
    sim.run(|| async {
        let core = Core::start(1).await;
        assert_eq!(core.log(0).frames_end(), Offset::new(1), "the journal's append has its frame");
        journaled(core.log(0), 2).await;
    });
    let segment = sim.disk().read(segment_path(0, 0)).expect("a segment");
    assert_eq!(segment[..4], segment[4096..4100], "and the old one stands right behind it");
    for _ in 0..2 {
        sim.crash();
        sim.run(|| async { assert_eq!(tags_of(Core::start(1).await.log(0)).await, [1, 2]) });
    }
}

#[test]
fn rule_05_a_block_behind_tells_of_one_that_rots_and_the_verdict_outlives_the_ring_rule_06() {
    let sim = lost_first_block(3, 2);
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!(corruption(&core.logs[0]), Damage::JournalLost);
        journaled(core.log(1), 2).await;
        idle().await;
    });
    sim.crash();
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!(corruption(&core.logs[0]), Damage::FoundBefore, "although the ring says nothing any more");
        assert_eq!(tags_of(core.log(1)).await, [2], "the other one serves");
    });
}

#[test]
fn rule_05_an_entry_tells_of_a_frame_that_rots() {
    let sim = sim(4, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(1).await;
        let log = core.log(0);
        journaled(log, 1).await;
        checkpointed(log).await;
        journaled(log, 2).await;
    });
    sim.kill();
    zero(&sim, segment_path(0, 0), 0);
    sim.run(|| async {
        let core = Core::start(1).await;
        assert!(matches!(corruption(&core.logs[0]), Damage::Frame(_)));
    });
    sim.crash();
    sim.run(|| async {
        let core = Core::start(1).await;
        assert_eq!(corruption(&core.logs[0]), Damage::FoundBefore);
    });
}

#[test]
fn rule_05_a_frame_tells_of_what_the_journal_lost() {
    let sim = sim(5, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(1).await;
        let log = core.log(0);
        journaled(log, 1).await;
        // Two frames: the second one is built when the journal has the first append.
        log.append(append(3, 1, 70_000)).await.expect("acknowledged");
    });
    sim.kill();
    zero(&sim, segment_path(0, 0), 0);
    for block in blocks_with_entries(&sim) {
        zero(&sim, ring_path(&sim), block);
    }
    sim.run(|| async {
        let core = Core::start(1).await;
        corruption(&core.logs[0]);
    });
}

#[test]
fn rule_05_a_frame_that_counts_tells_of_what_the_journal_had_behind_it() {
    for blocks_lost in [1, 4, 10] {
        let sim = sim(41, true);
        start_with_journal(&sim);
        sim.run(|| async {
            let core = Core::start(1).await;
            let log = core.log(0);
            for tag in 0..10 {
                log.append(append(tag, 1, 3_000)).await.expect("acknowledged");
            }
            // One frame, of some of them, is built when the journal has them all.
            log.delete_records(Offset::new(1)).await.expect("deleted");
            assert!(log.frames_end() < Offset::new(6) && log.offsets().durable == Offset::new(10));
        });
        sim.kill();
        let blocks = blocks_with_entries(&sim);
        assert_eq!(blocks.len(), 10);
        for block in &blocks[blocks.len() - blocks_lost..] {
            zero(&sim, ring_path(&sim), *block);
        }
        for _ in 0..2 {
            sim.run(|| async { assert_eq!(corruption(&Core::start(1).await.logs[0]), Damage::JournalLost) });
            sim.crash();
        }
    }
}

#[test]
fn rule_15_the_newest_block_that_rots_before_anything_tells_of_it_is_cut() {
    let sim = sim(6, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(1).await;
        journaled(core.log(0), 1).await;
    });
    sim.kill();
    let [block] = blocks_with_entries(&sim)[..] else { panic!("one block with entries") };
    zero(&sim, ring_path(&sim), block);
    sim.run(|| async {
        let core = Core::start(1).await;
        assert_eq!(core.log(0).offsets().end, Offset::ZERO, "nothing can know better");
    });
}

#[test]
fn rule_06_a_partition_that_cannot_be_opened_gets_its_own_when_it_can() {
    let sim = two_in_the_ring(7);
    let path = segment_path(0, 0).display().to_string();
    sim.disk().inject(Fault::on(Operation::Open, path).times(1_000));
    for tag in [10, 1_000] {
        sim.run(|| async move {
            let core = Core::start(2).await;
            assert!(matches!(core.logs[0], Err(OpenError::Io { .. })));
            turn_the_ring(core.log(1), tag..tag + LAPS).await;
        });
        sim.crash();
        assert_eq!(asides(&sim), 1);
    }
    sim.disk().clear_faults();
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!(tags_of(core.log(0)).await, [1]);
        let expected: Vec<u64> = std::iter::once(2).chain(10..10 + LAPS).chain(1_000..1_000 + LAPS).collect();
        assert_eq!(tags_of(core.log(1)).await, expected);
    });
    assert_eq!(asides(&sim), 0, "nobody needs it any more");
}

#[test]
fn rule_06_a_partition_that_goes_offline_does_not_hold_up_the_others_and_loses_nothing() {
    let sim = sim(8, true);
    start_with_journal(&sim);
    sim.run(|| {
        let disk = sim.disk();
        async move {
            let core = first_goes_offline(&disk).await;
            assert_eq!(tags_of(core.log(0)).await, [1]);
        }
    });
    sim.crash();
    assert_eq!(asides(&sim), 1);
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!(tags_of(core.log(0)).await, [1]);
        assert_eq!(tags_of(core.log(1)).await, (10..10 + LAPS).collect::<Vec<_>>());
    });
    assert_eq!(asides(&sim), 0);
}

#[test]
fn rule_06_that_the_metadata_lacks_a_topic_is_no_record_of_its_deletion() {
    for was_deleted in [false, true] {
        let sim = sim(9, true);
        start_with_journal(&sim);
        sim.run(|| async {
            let core = Core::start(1).await;
            journaled(core.log(0), 1).await;
        });
        sim.kill();
        sim.run(|| async move {
            let core = Core::start_knowing(0, move |_| was_deleted).await.expect("a start");
            core.stop().await;
        });
        sim.crash();
        assert_eq!(asides(&sim), usize::from(!was_deleted));
        sim.run(|| async move {
            let core = Core::start(1).await;
            let expected: &[u64] = if was_deleted { &[] } else { &[1] };
            assert_eq!(tags_of(core.log(0)).await, expected);
        });
    }
}

#[test]
fn rule_07_the_log_start_waits_for_the_frames() {
    for seed in 0..20 {
        let sim = sim(700 + seed, true);
        start_with_journal(&sim);
        let deleted = sim.run(|| {
            let disk = sim.disk();
            async move {
                let core = Core::start(1).await;
                let log = core.log(0).clone();
                log.append(append(1, 2, 100)).await.expect("acknowledged");
                journaled(&log, 2).await;
                assert_eq!((log.frames_end(), log.offsets().durable), (Offset::ZERO, Offset::new(3)));
                disk.stall("*.log", Duration::from_millis(20));
                let deleted = Rc::new(Cell::new(false));
                let told = deleted.clone();
                let deleting = log.clone();
                task::spawn("delete", async move {
                    told.set(deleting.delete_records(Offset::new(1)).await.is_ok());
                });
                time::sleep(Duration::from_millis(10)).await;
                assert_eq!(log.offsets().start, Offset::ZERO, "no frame has it");
                // The power goes before, at or after the moment when the start moves.
                time::sleep(Duration::from_millis(seed)).await;
                assert!(log.offsets().start == Offset::ZERO || log.frames_end() >= Offset::new(1));
                deleted.get()
            }
        });
        sim.crash();
        sim.run(|| async move {
            let core = Core::start(1).await;
            let LogOffsets { start, durable, .. } = core.log(0).offsets();
            assert!(start == Offset::new(1) || !deleted && start == Offset::ZERO, "{start}");
            assert_eq!(durable, Offset::new(3), "nothing above the start is lost");
            let seen = read_from(core.log(0), start.get(), 1 << 20).await;
            assert_eq!(seen.last().map(|seen| seen.tag), Some(2));
        });
    }
}

#[test]
fn rule_07_a_log_that_was_emptied_goes_on_where_it_ended_although_the_journal_has_what_was_deleted() {
    let sim = sim(720, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(1).await;
        let log = core.log(0);
        for tag in [1, 2, 4] {
            journaled(log, tag).await;
        }
        assert_eq!(log.delete_records(Offset::new(3)).await.expect("deleted"), Offset::new(3));
    });
    assert!(!blocks_with_entries(&sim).is_empty(), "the ring still has all of them");
    assert!(!sim.disk().files().contains(&segment_path(0, 0)) && sim.disk().files().contains(&segment_path(0, 3)));
    for next in [5, 7] {
        sim.crash();
        sim.run(|| async move {
            let core = Core::start(1).await;
            let log = core.log(0);
            assert_eq!(log.offsets().start, Offset::new(3));
            let seen: Vec<u64> = read_from(log, 3, 1 << 20).await.iter().map(|seen| seen.tag).collect();
            assert_eq!(seen, if next == 5 { vec![] } else { vec![5] });
            journaled(log, next).await;
        });
    }
}

#[test]
fn rule_12_when_the_journal_fails_appends_go_straight_and_nothing_is_lost() {
    let sim = sim(10, true);
    start_with_journal(&sim);
    sim.run(|| {
        let disk = sim.disk();
        async move {
            let core = Core::start(2).await;
            journaled(core.log(0), 1).await;
            disk.inject(Fault::on(Operation::Write, "*.ring").times(100));
            let both = (core.log(0).append(append(2, 1, 100)), core.log(1).append(append(4, 1, 100)));
            both.0.await.expect("acknowledged, straight");
            both.1.await.expect("acknowledged, straight");
            assert_eq!(core.storage.logs.journal.append_bytes_max(), 0, "the journal is not used any more");
            core.log(1).append(append(5, 1, 100)).await.expect("acknowledged, straight");
            until(|| core.log(0).frames_end() == Offset::new(2)).await;
        }
    });
    sim.crash();
    sim.disk().clear_faults();
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!((tags_of(core.log(0)).await, tags_of(core.log(1)).await), (vec![1, 2], vec![4, 5]));
        journaled(core.log(0), 7).await;
        core.stop().await;
    });
}

#[test]
fn rule_13_what_is_staged_finds_room_on_a_full_disk() {
    let sim = sim(11, true);
    start_with_journal(&sim);
    let taken = sim.run(|| {
        let disk = sim.disk();
        async move {
            let core = Core::start(3).await;
            for partition in 0..3 {
                journaled(core.log(partition), partition as u64 + 1).await;
            }
            disk.set_capacity(0);
            let (mut tag, mut refused) = (10, None);
            while refused.is_none() {
                for partition in 0..3 {
                    let appended = core.log(partition).append(append(tag, 1, 1_000)).await;
                    tag += u64::from(appended.is_ok());
                    refused = refused.or(appended.err());
                }
            }
            assert!(matches!(refused, Some(AppendError::StorageFull(_))), "{refused:?}");
            for log in core.logs.iter().flatten() {
                checkpointed(log).await;
            }
            tag
        }
    });
    assert!(taken > 20, "there was room in the segments");
    sim.crash();
    sim.run(|| async move {
        let core = Core::start(3).await;
        let mut all = Vec::new();
        for log in core.logs.iter().flatten() {
            all.extend(tags_of(log).await);
        }
        all.sort_unstable();
        assert_eq!(all, (1..4).chain(10..taken).collect::<Vec<_>>());
    });
}

#[test]
fn more_logs_than_are_asked_for_frames_at_a_time_share_a_ring_that_goes_round() {
    const PARTITIONS: u32 = 150;
    let sim = sim(12, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(PARTITIONS).await;
        for round in 0..10 {
            let appending = (0_u64..).zip(core.logs.iter().flatten());
            let appending: Vec<_> =
                appending.map(|(partition, log)| log.append(append(round * 1_000 + partition, 1, 1_000))).collect();
            for appending in appending {
                appending.await.expect("acknowledged");
            }
        }
        assert!(core.storage.logs.journal.append_bytes_max() > 0, "by the journal, to the end");
    });
    sim.crash();
    sim.run(|| async {
        let core = Core::start(PARTITIONS).await;
        for (partition, log) in (0_u64..).zip(core.logs.iter().flatten()) {
            let expected: Vec<u64> = (0..10).map(|round| round * 1_000 + partition).collect();
            assert_eq!(tags_of(log).await, expected);
        }
    });
}

#[test]
fn rule_09_what_the_journal_alone_has_is_known_after_a_crash() {
    let sim = sim(9, true);
    start_with_journal(&sim);
    let record = |sequence: i32| sequenced(5, Sequence::new(sequence), sequence.unsigned_abs().into(), 1, 100);
    sim.run(|| async {
        let core = Core::start(1).await;
        let log = core.log(0);
        for sequence in 0..3 {
            log.append(record(sequence)).await.expect("acknowledged");
        }
        assert!(log.frames_end() < log.offsets().durable, "by the journal alone");
    });
    sim.crash();
    for _ in 0..2 {
        sim.run(|| async {
            let core = Core::start(1).await;
            let log = core.log(0);
            for sequence in 0..3 {
                let known = log.append(record(sequence)).await.expect("known");
                assert_eq!(known.base_offset, Offset::new(sequence.into()));
            }
            let gap = log.append(record(4)).await;
            assert!(matches!(gap, Err(AppendError::OutOfSequence(OutOfSequence::Gap { .. }))), "{gap:?}");
            assert_eq!(log.offsets().end, Offset::new(3), "nothing was stored again");
        });
        sim.crash();
    }
}

#[test]
fn rule_09_what_is_sent_again_waits_for_the_journal() {
    let sim = sim(10, true);
    start_with_journal(&sim);
    sim.run(|| {
        let disk = sim.disk();
        async move {
            let core = Core::start(1).await;
            let log = core.log(0);
            log.append(sequenced(5, Sequence::ZERO, 1, 1, 100)).await.expect("acknowledged");
            disk.stall("*.ring", Duration::from_millis(100));
            let record = || sequenced(5, Sequence::new(1), 2, 1, 100);
            let (first, again) = (log.append(record()), log.append(record()));
            time::sleep(Duration::from_millis(50)).await;
            assert_eq!(log.offsets().durable, Offset::new(1));
            let again = again.await.expect("acknowledged");
            assert_eq!(log.offsets().durable, Offset::new(2), "not before");
            assert_eq!(first.await.expect("acknowledged"), again);
        }
    });
}
