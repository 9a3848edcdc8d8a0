//! A disk without a free block: what has to work all the same, because it frees space.

use std::path::{Path, PathBuf};

use ringmq_runtime::fs;
use ringmq_runtime::sim::Sim;
use ringmq_runtime::time;
use ringmq_wire::{Offset, ShardIndex, Timestamp};

use super::producers::{record, stored_at};
use super::support::*;
use crate::{
    AppendError, DeleteRecordsError, GenerationHistory, Generations, Log, LogConfig, LogDeps, RecordError, Reserve,
};

const RESERVE: &str = "/data/reserves/00000";
const RESERVE_BYTES: u64 = 1 << 20;
const DISK_BYTES: u64 = 64 << 30;

/// What a process does when it starts, with the reserve that an earlier one left.
async fn start_with_reserve() -> LogDeps {
    fs::create_dir_durably(Path::new(RESERVE).parent().expect("a directory")).await.expect("a directory");
    let reserve = Reserve::new(Path::new(RESERVE), RESERVE_BYTES);
    let tables = Path::new(TABLES);
    let history = GenerationHistory::load_with_reserve(tables, &reserve).await.expect("sound tables");
    let generations = Generations::with_reserve(tables, ShardIndex::new(0), history.clone(), reserve.clone());
    LogDeps { generations, reserve, ..deps(history, 256 << 10) }
}

/// Frames of 20 KiB, three to a segment, and nothing free when the process has ended.
fn written_full(sim: &Sim, tags: std::ops::RangeInclusive<u64>) {
    sim.run(|| async {
        let deps = start_with_reserve().await;
        deps.reserve.fill().await.expect("room");
        let (log, _) = open(&deps, 0).await.expect("a sound log");
        append_large(&log, tags).await;
        log.close().await.expect("a clean stop");
    });
    sim.kill();
    fill_disk(sim);
}

/// From here on there is not a free block.
fn fill_disk(sim: &Sim) {
    sim.disk().set_capacity(DISK_BYTES);
    sim.disk().set_capacity(DISK_BYTES - sim.disk().free_bytes());
}

async fn append_large(log: &Log, tags: std::ops::RangeInclusive<u64>) {
    for tag in tags {
        log.append(copied(tag, 1, 17_000)).await.expect("acknowledged");
    }
}

async fn assert_refused(log: &Log) {
    let refused = log.append(copied(99, 1, 17_000)).await;
    assert!(matches!(refused, Err(AppendError::StorageFull(_))), "{refused:?}");
}

fn files_in(sim: &Sim, dir: impl AsRef<Path>) -> Vec<PathBuf> {
    sim.disk().files().into_iter().filter(|path| path.starts_with(dir.as_ref())).collect()
}

fn reserve_bytes(sim: &Sim) -> u64 {
    sim.disk().read(RESERVE).map_or(0, |reserve| reserve.len() as u64)
}

#[test]
fn records_are_deleted_on_a_full_disk_with_the_reserve_alone() {
    let sim = sim(1);
    written_full(&sim, 1..=10);
    sim.run(|| async {
        // Without it, the first fact of a process finds no room for its table.
        let (log, _) = open(&start().await, 0).await.expect("a sound log");
        let refused = log.delete_records(Offset::new(6)).await;
        let Err(DeleteRecordsError::Record { source: RecordError::StorageFull(_), .. }) = refused else {
            panic!("{refused:?}")
        };
    });
    sim.kill();
    fill_disk(&sim);
    sim.run(|| async {
        let (log, _) = open(&start_with_reserve().await, 0).await.expect("a sound log");
        assert_refused(&log).await;
        assert_eq!(log.delete_records(Offset::new(9)).await.expect("deleted"), Offset::new(9));
        assert_eq!(files_in(&sim, log_id(0).log_dir(Path::new(ROOT))).iter().filter(|path| is_log(path)).count(), 1);
    });
    sim.crash();
    sim.run(|| async {
        let (log, _) = open(&start_with_reserve().await, 0).await.expect("a sound log");
        assert_eq!(log.offsets().start, Offset::new(9), "durably");
    });
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

#[test]
fn what_is_freed_fills_the_reserve_before_it_goes_to_appends() {
    let sim = sim(2);
    written_full(&sim, 1..=60);
    sim.run(|| async {
        let deps = start_with_reserve().await;
        // As every start does: merging the tables has freed more than it took.
        deps.reserve.fill().await.expect("room");
        fill_disk(&sim);
        let (log, _) = open(&deps, 0).await.expect("a sound log");
        let mut start = 0;
        while reserve_bytes(&sim) == RESERVE_BYTES {
            start += 1;
            assert_eq!(log.delete_records(Offset::new(start)).await.expect("deleted"), Offset::new(start));
        }
        let given_up = RESERVE_BYTES - reserve_bytes(&sim);
        assert!(sim.disk().free_bytes() > 0 && sim.disk().free_bytes() < given_up, "more than the append needs");
        assert_refused(&log).await;
        assert!(deps.reserve.fill().await.is_err());
        assert_eq!(RESERVE_BYTES - reserve_bytes(&sim), given_up, "what is left of it stays");
        log.delete_records(Offset::new(57)).await.expect("deleted");
        log.append(copied(61, 1, 17_000)).await.expect("there is room for both");
        assert_eq!(reserve_bytes(&sim), RESERVE_BYTES);
    });
}

#[test]
fn retention_works_on_a_full_disk_and_keeps_what_is_known_of_producers() {
    let sim = sim(3);
    sim.run(|| async {
        let deps = start_with_reserve().await;
        deps.reserve.fill().await.expect("room");
        let (log, _) = open(&deps, 0).await.expect("a sound log");
        for sequence in 0..20 {
            log.append(record(1, sequence)).await.expect("acknowledged");
        }
    });
    sim.kill();
    for snapshot in files_in(&sim, ROOT).iter().filter(|path| path.extension().is_some_and(|e| e == "producers")) {
        sim.disk().remove(snapshot).expect("a snapshot");
    }
    fill_disk(&sim);
    sim.run(|| async {
        let (log, _) = open(&start_with_reserve().await, 0).await.expect("a sound log");
        log.reconfigure(LogConfig { retention_bytes: Some(1), ..small() }).expect("sound settings");
        let start = log.retain(Timestamp::new(time::wall_clock())).await.expect("retained");
        assert!(start >= Offset::new(16), "all but the active segment: {start}");
    });
    sim.crash();
    sim.run(|| async {
        let (log, _) = open(&start_with_reserve().await, 0).await.expect("a sound log");
        assert_eq!(stored_at(&log, 1, 19).await, 19, "known by the snapshot that was written before records went");
    });
}

#[test]
fn a_log_is_emptied_on_a_full_disk_and_gives_its_only_segment_back() {
    let sim = sim(4);
    written_full(&sim, 1..=2);
    sim.run(|| async {
        let (log, _) = open(&start_with_reserve().await, 0).await.expect("a sound log");
        assert_eq!(log.delete_records(Offset::new(2)).await.expect("deleted"), Offset::new(2));
    });
    assert!(sim.disk().read(segment_path(0)).is_none(), "the one with the records");
    assert_eq!(sim.disk().read(segment_path(2)).expect("the one to go on with"), []);
    sim.disk().set_capacity(DISK_BYTES);
    sim.run(|| async {
        let (log, _) = open(&start_with_reserve().await, 0).await.expect("a sound log");
        assert_eq!(log.append(copied(3, 1, 100)).await.expect("acknowledged").base_offset, Offset::new(2));
    });
}

#[test]
fn starts_on_a_full_disk_do_not_use_the_reserve_up() {
    let sim = sim(5);
    written_full(&sim, 1..=10);
    for start in 1..=30 {
        sim.run(|| async move {
            let (log, _) = open(&start_with_reserve().await, 0).await.expect("a sound log");
            // What is below stands in the same segment, so it frees nothing.
            assert_eq!(log.delete_records(Offset::new(1)).await.expect("deleted"), Offset::new(1));
            assert_refused(&log).await;
            log.close().await.expect("the clean end is recorded");
        });
        sim.kill();
        assert!(files_in(&sim, TABLES).len() <= 2, "start {start}: the older tables are merged");
    }
    fill_disk(&sim);
    sim.run(|| async {
        let deps = start_with_reserve().await;
        let (log, _) = open(&deps, 0).await.expect("a sound log");
        assert_eq!(log.delete_records(Offset::new(9)).await.expect("deleted"), Offset::new(9));
    });
}
