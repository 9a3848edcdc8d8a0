//! A generation table, or a block of one, is lost. What it may have said of a partition nobody knows: those that it may concern
//! stay offline, nothing is merged, and the rest serves.

use std::path::{Path, PathBuf};

use ringmq_runtime::local::oneshot;
use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_runtime::{fs, task};
use ringmq_segment::inspect::RepairPlan;
use ringmq_segment::{GenerationHistory, Generations, Log, OpenError};
use ringmq_wire::{Offset, ShardIndex};

use super::support::*;
use super::vanished::keep_aside;
use crate::storage::link;
use crate::storage::recovery::Journals;

/// Partition 0 on the first core, partition 1 on the second, each with records in frames and in its ring. The process is
/// gone.
fn two_cores(seed: u64) -> Sim {
    let sim = sim(seed, true);
    for life in 0..2 {
        sim.run(move || async move {
            let cores = start_two([0..1, 1..2]).await;
            for core in &cores {
                core.journal_is_in_use().await;
            }
            if life == 0 {
                for core in cores {
                    core.stop().await;
                }
                return;
            }
            for core in &cores {
                core.log(0).append(append(1, 1, 20_000)).await.expect("acknowledged");
                journaled(core.log(0), 2).await;
                // A second block, which proves the first.
                core.log(0).delete_records(Offset::new(1)).await.expect("trimmed");
            }
        });
        sim.kill();
    }
    sim
}

/// Both cores of a broker with those partitions.
async fn start_two(partitions: [std::ops::Range<u32>; 2]) -> [Core; 2] {
    let mut links = link(2);
    let (follow, lead) = (links.remove(1), links.remove(0));
    let [of_first, of_second] = partitions;
    let (started, first) = oneshot();
    task::spawn("first core", async move {
        let first = Core::start_as(ShardIndex::new(0), lead, of_first, |_| true).await;
        let _ = started.send(first);
    });
    let second = Core::start_as(ShardIndex::new(1), follow, of_second, |_| true).await;
    let first = first.await.expect("it ended");
    [first.expect("what is found can be used"), second.expect("what is found can be used")]
}

/// What was not trimmed.
async fn tags_left(log: &Log) -> Vec<u64> {
    read_from(log, log.offsets().start.get(), 1 << 20).await.iter().map(|seen| seen.tag).collect()
}

/// The table that a core wrote last.
fn table_of(sim: &Sim, shard: u16) -> PathBuf {
    let is_of = |path: &PathBuf| path.to_string_lossy().ends_with(&format!("-{shard:05}.table"));
    sim.disk().files().into_iter().rfind(is_of).expect("this life's table")
}

fn generations(sim: &Sim) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let files = sim.disk().files().into_iter().filter(|path| path.starts_with(Path::new(DATA).join("generations")));
    files.map(|path| (path.clone(), sim.disk().read(path))).collect()
}

fn is_lost(core: &Core, partition: usize, table: &Path) {
    match &core.logs[partition] {
        Err(OpenError::TableLost { lost, .. }) => assert_eq!(lost.path, table),
        Err(error) => panic!("another reason: {error}"),
        Ok(log) => panic!("served, and nobody knows how far it goes: {:?}", log.offsets()),
    }
}

/// The first core's table cannot be read, or is rotten, in two starts. Partition 1 is another core's, partition 3 is created
/// meanwhile.
fn the_rest_serves(sim: &Sim, table: &Path) {
    let before = generations(sim);
    for start in 0..2 {
        sim.run(|| {
            let table = table.to_path_buf();
            async move {
                let [first, second] = start_two([0..1, 1..4]).await;
                is_lost(&first, 0, &table);
                second.journal_is_in_use().await;
                if start == 0 {
                    assert_eq!(tags_left(second.log(0)).await, [2], "the other core's table says all of it");
                    second.log(0).append(append(3, 1, 20_000)).await.expect("acknowledged");
                    journaled(second.log(2), 4).await;
                } else {
                    assert_eq!(tags_left(second.log(0)).await, [2, 3]);
                    assert_eq!(tags_of(second.log(2)).await, [4], "it began when that was lost");
                }
            }
        });
        sim.kill();
    }
    let after = generations(sim);
    assert!(before.iter().all(|file| after.contains(file)), "all that is left of the tables stays as it is");
}

/// Nothing is lost, and what was trimmed stays so.
fn all_is_there(sim: &Sim) {
    for _ in 0..2 {
        sim.run(|| async {
            let [first, second] = start_two([0..1, 1..4]).await;
            assert_eq!(tags_left(first.log(0)).await, [2]);
            assert_eq!(tags_left(second.log(0)).await, [2, 3]);
            assert_eq!(tags_of(second.log(2)).await, [4]);
        });
        sim.crash();
    }
    assert!(
        generations(sim).iter().all(|(path, _)| path.extension().is_some_and(|kind| kind == "table")),
        "no note is left"
    );
}

#[test]
fn a_table_that_cannot_be_read_keeps_offline_what_it_may_speak_of_until_it_can() {
    for (seed, operation) in [(1, Operation::Open), (2, Operation::Read)] {
        let sim = two_cores(seed);
        let table = table_of(&sim, 0);
        sim.disk().inject(Fault::on(operation, table.display().to_string()).times(u64::MAX));
        the_rest_serves(&sim, &table);
        sim.disk().clear_faults();
        all_is_there(&sim);
    }
}

#[test]
fn a_rotten_block_of_a_table_keeps_offline_what_it_may_speak_of_until_the_file_is_restored() {
    let sim = two_cores(3);
    let table = table_of(&sim, 0);
    let sound = sim.disk().read(&table).expect("a table");
    for copy in [0, 4096] {
        sim.disk().flip_bit(&table, copy + 70, 0).expect("a table");
    }
    the_rest_serves(&sim, &table);
    sim.disk().overwrite(&table, 0, &sound).expect("a file");
    all_is_there(&sim);
}

#[test]
fn a_merged_table_of_which_nothing_can_be_read_is_not_taken_for_empty() {
    let sim = two_cores(4);
    sim.run(|| async {
        for core in start_two([0..1, 1..2]).await {
            core.stop().await;
        }
    });
    sim.kill();
    // Merges what is there, and adds nothing.
    sim.run(|| async { drop(start_two([0..1, 1..2]).await) });
    sim.kill();
    let is_merged = |path: &PathBuf| path.to_string_lossy().ends_with("-merged.table");
    let table = sim.disk().files().into_iter().rfind(is_merged).expect("the start's table");
    for copy in [0, 4096] {
        zero(&sim, table.clone(), copy);
    }
    sim.run(|| {
        let table = table.clone();
        async move {
            let [first, second] = start_two([0..1, 1..2]).await;
            is_lost(&first, 0, &table);
            is_lost(&second, 0, &table);
        }
    });
}

fn waits_for_an_aside(core: &Core, table: &Path) {
    match &core.logs[0] {
        Err(OpenError::JournalMissing { file, lost, .. }) => {
            assert_eq!((file.aside.is_some(), lost.path.as_path()), (true, table));
        }
        Err(error) => panic!("another reason: {error}"),
        Ok(log) => panic!("served, and nobody knows whether it lacks something: {:?}", log.offsets()),
    }
}

/// What was kept aside of partition 1 was placed and removed in the life of which the table is lost: with it goes what says so.
fn removed_aside(seed: u64) -> Sim {
    let sim = two_in_the_ring(seed);
    keep_aside(&sim);
    sim.run(|| async {
        let [first, second] = start_two([0..1, 1..2]).await;
        first.journal_is_in_use().await;
        second.journal_is_in_use().await;
        assert_eq!(tags_of(second.log(0)).await, [2], "it was placed");
        journaled(first.log(0), 3).await;
        journaled(second.log(0), 4).await;
        // A second block, which proves the first.
        first.log(0).delete_records(Offset::new(1)).await.expect("trimmed");
    });
    assert_eq!(asides(&sim), 0, "and removed");
    sim.kill();
    sim
}

/// A missing file of the journals is no verdict then.
fn a_removed_aside_is_not_held_against_anyone(
    seed: u64,
    lose: impl Fn(&Sim, &Path),
    restore: impl Fn(&Sim, &Path, &[u8]),
) {
    let sim = removed_aside(seed);
    let table = table_of(&sim, 0);
    let sound = sim.disk().read(&table).expect("a table");
    lose(&sim, &table);
    for tags in [&[][..], &[5], &[5, 5]] {
        sim.run(|| {
            let table = table.clone();
            async move {
                let [first, second] = start_two([0..1, 1..3]).await;
                is_lost(&first, 0, &table);
                waits_for_an_aside(&second, &table);
                assert_eq!(tags_of(second.log(1)).await, tags, "it began when the file was missing already");
                second.journal_is_in_use().await;
                journaled(second.log(1), 5).await;
            }
        });
        sim.kill();
    }
    restore(&sim, &table, &sound);
    for _ in 0..2 {
        sim.run(|| async {
            let [first, second] = start_two([0..1, 1..3]).await;
            assert_eq!(tags_left(first.log(0)).await, [3]);
            assert_eq!(tags_of(second.log(0)).await, [2, 4]);
            assert_eq!(tags_of(second.log(1)).await, [5, 5, 5]);
        });
        sim.crash();
    }
    let is_note = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "missing" || kind == "lost");
    assert!(!sim.disk().files().iter().any(is_note));
}

#[test]
fn a_file_of_the_journals_that_may_have_been_removed_is_no_verdict_while_a_table_is_lost() {
    let fail = |sim: &Sim, table: &Path| {
        sim.disk().inject(Fault::on(Operation::Read, table.display().to_string()).times(u64::MAX));
    };
    a_removed_aside_is_not_held_against_anyone(5, fail, |sim, _, _| sim.disk().clear_faults());
    let rot = |sim: &Sim, table: &Path| {
        for copy in [0, 4096] {
            sim.disk().flip_bit(table, copy + 70, 0).expect("a table");
        }
    };
    let restore = |sim: &Sim, table: &Path, sound: &[u8]| sim.disk().overwrite(table, 0, sound).expect("a file");
    a_removed_aside_is_not_held_against_anyone(6, rot, restore);
}

#[test]
fn a_repair_takes_a_missing_file_of_the_journals_for_lost() {
    let sim = removed_aside(7);
    let table = table_of(&sim, 0);
    sim.disk().inject(Fault::on(Operation::Read, table.display().to_string()).times(u64::MAX));
    sim.run(|| {
        let table = table.clone();
        async move { waits_for_an_aside(&start_two([0..1, 1..2]).await[1], &table) }
    });
    sim.kill();
    sim.run(|| async {
        let (root, id) = (Path::new(DATA), log_id(1));
        let tables = root.join("generations");
        let history = GenerationHistory::read(&tables).await.expect("tables");
        let found = ringmq_journal::inspect_journals(&root.join("journals")).await.expect("journals");
        let journaled = Journals::new(found, history.clone()).of(id);
        let plan = RepairPlan::new(root, id, &history, &journaled).await.expect("a plan");
        let generations = Generations::open(&tables, ShardIndex::new(0)).await.expect("tables");
        plan.carry_out(root, &generations).await.expect("a repair");
    });
    sim.kill();
    for tags in [&[2, 4][..], &[2, 4, 6]] {
        sim.run(|| {
            let table = table.clone();
            async move {
                let [first, second] = start_two([0..1, 1..2]).await;
                is_lost(&first, 0, &table);
                assert_eq!(tags_of(second.log(0)).await, tags, "nothing was lost in truth");
                second.journal_is_in_use().await;
                journaled(second.log(0), 6).await;
            }
        });
        sim.kill();
    }
}

#[test]
fn a_missing_ring_that_comes_back_and_goes_again_is_missed_again() {
    let sim = two_cores(8);
    let table = table_of(&sim, 0);
    sim.disk().inject(Fault::on(Operation::Read, table.display().to_string()).times(u64::MAX));
    let is_of_second = |path: &PathBuf| {
        path.to_string_lossy().contains("/00001-") && path.extension().is_some_and(|kind| kind == "ring")
    };
    let ring = sim.disk().files().into_iter().find(is_of_second).expect("a ring");
    let away = Path::new(DATA).join("away");
    let moved = |sim: &Sim, from: &Path, to: &Path| {
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        sim.run(move || async move {
            fs::rename(&from, &to).await.expect("renamed");
            for path in [&from, &to] {
                fs::sync_dir(path.parent().expect("a directory")).await.expect("flushed");
            }
        });
        sim.kill();
    };
    let notes = |sim: &Sim| {
        sim.disk().files().iter().filter(|path| path.extension().is_some_and(|kind| kind == "missing")).count()
    };
    let waits = |sim: &Sim| {
        moved(sim, &ring, &away);
        sim.run(|| async {
            let [_, second] = start_two([0..1, 1..2]).await;
            assert!(matches!(second.logs[0], Err(OpenError::JournalMissing { .. })));
        });
        sim.kill();
        assert_eq!(notes(sim), 1);
    };
    waits(&sim);
    moved(&sim, &away, &ring);
    sim.run(|| async {
        let [_, second] = start_two([0..1, 1..2]).await;
        assert_eq!(tags_left(second.log(0)).await, [2]);
        second.journal_is_in_use().await;
        second.log(0).append(append(3, 1, 100)).await.expect("acknowledged");
    });
    sim.kill();
    assert_eq!(notes(&sim), 0);
    waits(&sim);
}
