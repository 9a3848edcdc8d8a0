//! What is told of logs whose broker is stopped, and what a repair makes of those that recovery refuses.

use std::path::{Path, PathBuf};

use ringmq_runtime::fs;
use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_wire::batch::BatchProducer;
use ringmq_wire::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

use super::compaction::left_half_way_by;
use super::damage::{flip, segments, written};
use super::producers::{snapshots, ten_turns};
use super::support::*;
use crate::inspect::{
    FrameReader, IndexFile, LogCheck, NextStart, Part, RepairPlan, SnapshotDamage, Stretch, TableFactKind,
    Unrepairable, check_log, read_generation_table, read_index,
};
use crate::producers::Sequenced;
use crate::{Damage, FrameFault, GenerationHistory, Journaled, OpenError, ProducerSnapshot, Recovery, Scrubbed};

fn whole_disk(sim: &Sim) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    sim.disk().files().into_iter().map(|path| (path.clone(), sim.disk().read(&path))).collect()
}

/// Checks the log of partition 0, which changes nothing.
fn check(sim: &Sim) -> LogCheck {
    let before = whole_disk(sim);
    let check = sim.run(|| async {
        let history = GenerationHistory::read(Path::new(TABLES)).await.expect("sound tables");
        check_log(Path::new(ROOT), log_id(0), &history, &Journaled::default()).await
    });
    assert_eq!(whole_disk(sim), before, "looking changes nothing");
    check
}

/// Base, position, expected offset and part of each damaged place.
fn damage(check: &LogCheck) -> Vec<(i64, u64, i64, Part)> {
    let places = |segment: &crate::inspect::SegmentCheck| {
        let base = segment.base.get();
        segment.damage.iter().map(move |place| (base, place.position, place.expected.get(), place.part)).collect()
    };
    check.segments.iter().flat_map(|segment| -> Vec<_> { places(segment) }).collect()
}

#[test]
fn a_sound_log_is_counted_to_the_last_record() {
    let check = check(&written());
    assert_eq!(damage(&check), []);
    let counted: Vec<_> =
        check.segments.iter().map(|s| (s.base.get(), s.end.get(), s.frames, s.batches, s.records)).collect();
    assert_eq!(counted, [(0, 6, 6, 6, 6), (6, 10, 4, 4, 4), (10, 13, 3, 3, 3)]);
    let NextStart::Serves { frames_end, end, redo: 0, cut: None, removed } = check.next_start else {
        panic!("{:?}", check.next_start)
    };
    assert_eq!((frames_end.get(), end.get(), removed), (13, 13, vec![]));
}

#[test]
fn a_torn_tail_is_no_damage_and_where_it_is_cut_is_told() {
    let sim = written();
    flip(&sim, 10, 8192 + 500);
    let check = check(&sim);
    assert_eq!(damage(&check), []);
    let NextStart::Serves { cut: Some(cut), end, .. } = check.next_start else { panic!("{:?}", check.next_start) };
    assert_eq!((cut, end.get()), ((segment_path(10), 8192, 1), 12));
}

#[test]
fn damage_is_told_with_its_place_whether_recovery_sees_it_or_not() {
    // A frame of a sealed segment, its first and its last, of which recovery reads nothing.
    for (position, expected) in [(4096, 1), (0, 0)] {
        let sim = written();
        flip(&sim, 0, position + 300);
        let check = check(&sim);
        assert_eq!(damage(&check), [(0, position, expected, Part::Frame)]);
        assert!(check.next_start.refusal().is_none(), "the rest is served");
    }
    let sim = written();
    let last = sim.disk().read(segment_path(6)).expect("a segment").len() as u64 - 4096;
    flip(&sim, 6, last + 10);
    let [(6, _, 9, Part::Frame)] = damage(&check(&sim))[..] else { panic!("the last frame of segment 6") };

    // An acknowledged frame of the active one.
    let sim = written();
    flip(&sim, 10, 4096 + 300);
    let found = check(&sim);
    assert_eq!(damage(&found), [(10, 4096, 11, Part::Frame)]);
    assert!(matches!(found.next_start.refusal(), Some(OpenError::Corrupt(_))));
    assert_eq!(found.segments[2].records, 2, "what stands behind is counted");

    for index in ["index", "timeindex"] {
        let sim = written();
        let path = file_path(0, &format!("00000000000000000006.{index}"));
        sim.disk().flip_bit(&path, 20, 1).expect("an index");
        let check = check(&sim);
        assert_eq!(damage(&check), [(6, 0, 6, Part::Index)]);
        assert_eq!(check.segments[1].damage[0].path, path);
    }
}

/// What is wrong with each snapshot of producers, and why others are not used.
fn snapshots_found(check: &LogCheck) -> Vec<(Option<&SnapshotDamage>, Option<&str>)> {
    check.snapshots.iter().map(|snapshot| (snapshot.damage.as_ref(), snapshot.unused.as_deref())).collect()
}

#[test]
fn snapshots_of_producers_that_say_what_the_frames_say_are_sound() {
    for clean in [true, false] {
        let sim = sim(30);
        ten_turns(&sim, clean);
        let check = check(&sim);
        let found = snapshots_found(&check);
        assert!(!found.is_empty() && found.iter().all(|found| *found == (None, None)), "{:?}", check.snapshots);
        assert!(check.snapshots.iter().all(|snapshot| snapshot.producers == 2), "{:?}", check.snapshots);
    }
}

#[test]
fn a_snapshot_that_forgot_something_or_made_it_up_contradicts_the_frames() {
    let forge = |change: fn(&mut ProducerSnapshot)| {
        let sim = sim(31);
        ten_turns(&sim, true);
        let path = snapshots(&sim).pop().expect("a snapshot");
        let mut snapshot = ProducerSnapshot::decode(&sim.disk().read(&path).expect("a file")).expect("sound");
        change(&mut snapshot);
        sim.run(|| async { fs::write_small_atomic(&path, &snapshot.encode()).await.expect("room") });
        let check = check(&sim);
        check.snapshots.last().and_then(|last| last.damage.clone())
    };
    assert_eq!(forge(|_| {}), None);
    let found = forge(|snapshot| {
        let end = snapshot.offset.checked_sub(Offset::new(4)).expect("eight turns");
        snapshot.producers.cut(Offset::new(i64::try_from(end).expect("small")));
    });
    let Some(SnapshotDamage::Contradicts(what)) = found else { panic!("{found:?}") };
    assert!(what.contains("of producer 1 it knows nothing behind offset 15") && what.contains("up to 19"), "{what}");
    let found = forge(|snapshot| {
        let stranger =
            BatchProducer { id: ProducerId::new(77), epoch: ProducerEpoch::ZERO, base_sequence: Sequence::ZERO };
        let made_up = Sequenced { producer: stranger, record_count: 2 };
        snapshot.producers.stored(&made_up, Offset::new(18), Timestamp::new(EPOCH_MS));
    });
    let Some(SnapshotDamage::Contradicts(what)) = found else { panic!("{found:?}") };
    assert!(what.contains("of producer 77 it has records up to offset 20, and no frame has them"), "{what}");
}

type Failure = Box<dyn std::error::Error>;

async fn plan() -> Result<RepairPlan, Failure> {
    let history = GenerationHistory::read(Path::new(TABLES)).await?;
    Ok(RepairPlan::new(Path::new(ROOT), log_id(0), &history, &Journaled::default()).await?)
}

/// Plans, which changes nothing, and carries it out.
fn repair(sim: &Sim) -> Result<RepairPlan, Failure> {
    let before = whole_disk(sim);
    let plan = sim.run(|| async { plan().await });
    assert_eq!(whole_disk(sim), before, "planning changes nothing");
    let plan = plan?;
    sim.run(move || async move {
        let history = GenerationHistory::load(Path::new(TABLES)).await?;
        plan.carry_out(Path::new(ROOT), &deps(history, 0).generations).await?;
        Ok(plan)
    })
}

/// Damage that recovery refuses, with what is left of appends 1 to 13 after a repair.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip(i64, u64),
    Remove(&'static [i64]),
}

const HARMS: [(Harm, i64); 6] = [
    (Harm::Flip(10, 300), 10),
    (Harm::Flip(10, 4096 + 300), 11),
    (Harm::Remove(&[6]), 6),
    (Harm::Remove(&[0]), 0),
    (Harm::Remove(&[0, 6]), 0),
    (Harm::Remove(&[0, 6, 10]), 0),
];

fn harmed(harm: Harm) -> Sim {
    let sim = written();
    match harm {
        Harm::Flip(base, position) => flip(&sim, base, position),
        Harm::Remove(bases) => bases.iter().for_each(|base| sim.disk().remove(segment_path(*base)).expect("a segment")),
    }
    sim
}

/// The log has appends 1 to `kept`, and takes more; nothing comes back from behind the cut.
fn serves_again(sim: &Sim, kept: i64) {
    let expected = |more: &[u64]| (1..=kept.unsigned_abs()).chain(more.iter().copied()).collect::<Vec<_>>();
    sim.run(|| async {
        let (log, found) = open_one().await;
        assert_eq!(found, Recovery::Clean { end: Offset::new(kept) });
        assert_eq!(tags(&read_all(&log, 1 << 20).await), expected(&[]));
        append_tags(&log, [21, 22]).await;
    });
    sim.crash();
    sim.run(|| async {
        let (log, _) = open_one().await;
        assert_eq!(tags(&read_all(&log, 1 << 20).await), expected(&[21, 22]));
    });
}

#[test]
fn a_repaired_log_keeps_what_is_before_the_damage_and_serves() {
    for (harm, kept) in HARMS {
        let sim = harmed(harm);
        let files: Vec<_> = whole_disk(&sim).into_iter().filter(|(path, _)| path.starts_with(ROOT)).collect();
        let plan = repair(&sim).unwrap_or_else(|error| panic!("{harm:?}: {error}"));
        assert_eq!((plan.kept.start.get(), plan.kept.end.get()), (0, kept), "{harm:?}");
        assert!(plan.acknowledged_end.get() >= kept, "{harm:?}");
        // Every file that was there still is, in its place or aside.
        for (path, content) in files {
            let aside = plan.aside.join(path.file_name().expect("a file"));
            let still = [sim.disk().read(&path), sim.disk().read(&aside)];
            assert!(still.contains(&content), "{harm:?}: {}", path.display());
        }
        sim.crash();
        serves_again(&sim, kept);
        let again = sim.run(|| async { plan_error().await });
        assert!(matches!(again, Unrepairable::Served { .. }), "{again}");
    }
}

/// A compacted segment that is damaged, and of whose originals so many are gone that it was to replace.
fn with_damaged_swap(originals_gone: u64) -> (Sim, PathBuf) {
    let sim = sim(130);
    left_half_way_by(&sim, Fault::on(Operation::Remove, "*.log").after(originals_gone).os_error(5));
    let is_swap = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "swap");
    let swap = sim.disk().files().into_iter().find(is_swap).expect("a compacted segment");
    sim.disk().overwrite(&swap, 200, &[0xee]).expect("a file");
    (sim, swap)
}

#[test]
fn a_repair_goes_back_to_what_a_damaged_compacted_segment_was_made_of() {
    let (sim, swap) = with_damaged_swap(0);
    let (before, all) = (segments(&sim), sim.disk().read(&swap));
    let plan = repair(&sim).expect("repaired");
    assert_eq!((&plan.damage.segment, &plan.moved[..]), (&swap, std::slice::from_ref(&swap)));
    assert!(plan.kept.start == Offset::ZERO && plan.kept.end == plan.acknowledged_end, "{plan:?}");
    assert_eq!(sim.disk().read(plan.aside.join(swap.file_name().expect("a name"))), all);
    sim.crash();
    assert!(before.iter().all(|base| sim.disk().files().contains(&segment_path(*base))), "all are still there");
    sim.run(move || async move {
        let (log, _) = open_one().await;
        assert_eq!(log.offsets().end, plan.kept.end);
        let mut next = Offset::ZERO;
        while next < plan.kept.end {
            let read = log.read(next, 1).await.expect("readable");
            assert_eq!(read.next_offset, Offset::new(next.get() + 1), "nothing is compacted");
            next = read.next_offset;
        }
    });
}

#[test]
fn a_repair_without_all_that_a_damaged_compacted_segment_was_made_of_moves_the_rest_aside() {
    let (sim, swap) = with_damaged_swap(1);
    let (files, bases) = (whole_disk(&sim), segments(&sim));
    assert!(!bases.contains(&0) && bases.len() > 1, "{bases:?}");
    let plan = repair(&sim).expect("repaired");
    assert_eq!(plan.kept, Offset::ZERO..Offset::ZERO);
    assert!(plan.moved.contains(&swap) && plan.moved.len() == bases.len() + 1, "{plan:?}");
    for (path, content) in files.into_iter().filter(|(path, _)| plan.moved.contains(path)) {
        assert_eq!(sim.disk().read(plan.aside.join(path.file_name().expect("a name"))), content);
    }
    sim.crash();
    serves_again(&sim, 0);
}

async fn plan_error() -> Unrepairable {
    *plan().await.expect_err("nothing to repair").downcast().expect("no other error")
}

#[test]
fn a_repair_that_breaks_off_can_be_run_again() {
    for ((harm, kept), late) in HARMS.into_iter().flat_map(|harm| [(harm, false), (harm, true)]) {
        for step in 0.. {
            let sim = harmed(harm);
            let fault = Fault::on_any("/data/*").after(step);
            sim.disk().inject(if late { fault.late() } else { fault });
            let whole = repair(&sim).is_ok() && sim.disk().faults_met() == 0;
            sim.disk().clear_faults();
            sim.crash();
            // What broke off at its very end is repaired already.
            match repair(&sim) {
                Ok(plan) => assert_eq!(plan.kept.end.get(), kept, "{harm:?}, step {step}"),
                Err(error) => {
                    assert!(error.to_string().contains("nothing to repair"), "{harm:?}, step {step}: {error}");
                }
            }
            sim.crash();
            serves_again(&sim, kept);
            if whole {
                break;
            }
        }
    }
}

#[test]
fn what_no_cut_can_mend_is_told() {
    let sim = written();
    let error = sim.run(|| async { plan_error().await });
    assert!(matches!(error, Unrepairable::Served { .. }), "{error}");
    let tables: Vec<_> = sim.disk().files().into_iter().filter(|path| path.starts_with(TABLES)).collect();
    tables.iter().for_each(|table| sim.disk().remove(table).expect("a table"));
    let error = sim.run(|| async { plan_error().await });
    assert!(matches!(error, Unrepairable::Tables(_)), "{error}");
}

#[test]
fn single_files_are_read_as_they_stand() {
    let sim = written();
    flip(&sim, 10, 4096 + 300);
    assert_eq!(segments(&sim), [0, 6, 10]);
    sim.run(|| async {
        let mut reader = FrameReader::open(&segment_path(10)).await.expect("a segment");
        let mut stretches = Vec::new();
        while let Some(stretch) = reader.next().await.expect("readable") {
            stretches.push(match stretch {
                Stretch::Frame { position, info, .. } => (position, info.base_offset.get(), None),
                Stretch::Unreadable { bytes, fault } => (bytes.start, -1, Some(fault)),
            });
        }
        let expected = [(0, 10, None), (4096, -1, Some(FrameFault::PayloadChecksum)), (8192, 12, None)];
        assert_eq!(stretches[..3], expected);
        assert_eq!(stretches[3..], [(12288, -1, Some(FrameFault::Zeros))]);

        let offsets = read_index(&file_path(0, "00000000000000000006.index")).await.expect("an index");
        let IndexFile::Offsets(coverage, entries) = offsets else { panic!("{offsets:?}") };
        assert_eq!((coverage.segment_base.get(), coverage.end.get(), entries[0].position), (6, 10, 0));
        let times = read_index(&file_path(0, "00000000000000000006.timeindex")).await.expect("an index");
        assert!(matches!(times, IndexFile::Times(..)));
        read_index(&segment_path(6)).await.expect_err("not an index");

        let table = sim.disk().files().into_iter().find(|path| path.starts_with(TABLES)).expect("a table");
        let blocks = read_generation_table(&table).await.expect("readable");
        let facts = blocks[0].as_ref().expect("a block");
        assert_eq!((facts[0].id, facts[0].kind, facts[0].generation), (Some(log_id(0)), TableFactKind::Opened, 1));
    });
}

#[test]
fn what_is_deleted_is_neither_checked_nor_missed_and_a_repair_begins_where_the_log_does() {
    let sim = written();
    sim.run(|| async {
        sim.disk().inject(Fault::on(Operation::Remove, "*.log").times(u64::MAX));
        open_one().await.0.delete_records(Offset::new(8)).await.expect("deleted");
    });
    sim.disk().clear_faults();
    sim.kill();
    flip(&sim, 0, 300);
    sim.disk().remove(segment_path(0)).expect("a file");
    assert_eq!(segments(&sim), [6, 10], "the first one is gone, and nobody misses it");
    assert_eq!(damage(&check(&sim)), []);

    // Without the last two segments nothing of the log is left.
    for base in [6, 10] {
        let bytes = sim.disk().read(segment_path(base)).expect("a file").len();
        sim.disk().overwrite(segment_path(base), 0, &vec![0; bytes]).expect("a file");
    }
    let plan = repair(&sim).expect("repaired");
    assert_eq!(plan.kept, Offset::new(8)..Offset::new(8));
    sim.run(|| async {
        let (log, _) = open_one().await;
        append_tags(&log, [20]).await;
        assert_eq!((log.offsets().start, log.offsets().end), (Offset::new(8), Offset::new(9)));
    });
}

#[test]
fn few_sealed_segments_are_open_whatever_the_number_of_logs() {
    let sim = sim(120);
    sim.run(|| async {
        let history = GenerationHistory::load(Path::new(TABLES)).await.expect("sound tables");
        // Without memory for frames every read goes to the disk.
        let deps = deps(history, 0);
        deps.open_segments.set_max(3);
        let mut logs = Vec::new();
        for partition in 0..6 {
            let (log, _) = open(&deps, partition).await.expect("an empty log");
            for tag in 1..=20 {
                log.append(copied(tag, 1, 16_000)).await.expect("acknowledged");
            }
            logs.push(log);
        }
        for _ in 0..2 {
            for log in &logs {
                assert!(log.sealed_segments().len() > 2, "rolled");
                assert_eq!(tags(&read_all(log, 20_000).await), (1..=20).collect::<Vec<_>>());
                assert!((1..=3).contains(&deps.open_segments.count()), "{:?}", deps.open_segments);
            }
        }
        for log in &logs {
            log.close().await.expect("closed");
        }
        assert_eq!(deps.open_segments.count(), 0);
    });
}

#[test]
fn scrubbing_finds_what_rots_in_sealed_segments_while_the_rest_is_read() {
    let sim = written();
    sim.run(|| async {
        let (log, _) = open_one().await;
        assert_eq!(log.sealed_segments(), [0, 6].map(Offset::new));
        let scrub = async |base: i64| log.scrub(Offset::new(base), async |_| true).await.expect("readable");
        let whole = scrub(0).await;
        assert_eq!((whole.frames, whole.damage.len()), (6, 0));
        assert_eq!(scrub(10).await, Scrubbed::default(), "the active segment is none of its business");

        flip(&sim, 0, 4096 + 300);
        let found = scrub(0).await;
        assert_eq!(found.frames, 5);
        let [damage] = &found.damage[..] else { panic!("{found:?}") };
        assert_eq!((damage.position, damage.expected.get(), &damage.segment), (4096, 1, &segment_path(0)));
        assert_eq!(damage.damage, Damage::Frame(FrameFault::PayloadChecksum));
        assert_eq!(tags(&read_from(&log, 6, 1 << 20).await), (7..=13).collect::<Vec<_>>(), "the rest is served");

        // It ends when it is told to.
        let mut pieces = 0;
        let pace = async |_| {
            pieces += 1;
            pieces < 2
        };
        let part = log.scrub(Offset::new(6), pace).await.expect("readable");
        assert_eq!((part.frames, pieces), (2, 2));
    });
}
