use std::cell::Cell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::file::{File, OpenOptions};
use ringmq_runtime::sim::scenario::seeds;
use ringmq_runtime::sim::{Fault, Operation, Sim, SimConfig};
use ringmq_runtime::{fs, random, task, time};
use ringmq_wire::{Offset, PartitionIndex, ShardIndex, TopicId};

use super::super::PAIR_BYTES;
use super::*;
use crate::frame::Generation;

const TABLES: &str = "/data/generations";
const NUMBER: LogNumber = LogNumber(7);

fn sim(seed: u64) -> Sim {
    let sim = Sim::new(SimConfig::with_seed(seed));
    sim.run(|| async {
        fs::create_dir_all("/data").await.expect("a data directory");
        fs::sync_dir("/").await.expect("a durable data directory");
    });
    sim
}

fn log(partition: u32) -> LogId {
    LogId { topic_id: TopicId::METADATA, partition: PartitionIndex::new(partition) }
}

fn opened(partition: u32) -> Fact {
    Fact::Opened { id: log(partition), number: NUMBER, generation: Generation::FIRST, start: Offset::ZERO }
}

fn started(partition: u32, start: i64) -> Fact {
    Fact::Started { id: log(partition), number: NUMBER, start: Offset::new(start) }
}

fn removed(partition: u32) -> Fact {
    Fact::Removed { id: log(partition), number: NUMBER }
}

async fn load() -> Generations {
    Generations::open(Path::new(TABLES), ShardIndex::new(0)).await.expect("sound tables")
}

async fn record(tables: &Generations, fact: Fact) {
    tables.record(fact).await.expect("durable");
}

fn log_start(tables: &Generations, partition: u32) -> Option<i64> {
    tables.of(log(partition)).map(|known| known.log_start().get())
}

async fn table_bytes(tables: &Generations) -> u64 {
    let path = Path::new(TABLES).join(tables.0.table.file_name());
    File::open(path, OpenOptions::default()).await.expect("there").size().await.expect("its size")
}

#[test]
fn a_table_is_as_long_as_what_it_says_however_often_that_changed() {
    let sim = sim(1);
    sim.run(|| async {
        let tables = load().await;
        for partition in 0..3 {
            record(&tables, opened(partition)).await;
        }
        for start in 1..=5_000 {
            record(&tables, started(0, start)).await;
        }
        record(&tables, removed(1)).await;
        let longest = u64::from(REWRITTEN_PAIRS_MIN + 1) * PAIR_BYTES as u64;
        assert!(table_bytes(&tables).await <= longest.next_multiple_of(GROWTH_BYTES), "{}", table_bytes(&tables).await);
        assert_eq!([0, 1, 2].map(|partition| log_start(&tables, partition)), [Some(5_000), None, Some(0)]);
    });
    sim.crash();
    sim.run(|| async {
        let tables = load().await;
        assert_eq!([0, 1, 2].map(|partition| log_start(&tables, partition)), [Some(5_000), None, Some(0)]);
    });
}

#[test]
fn a_lost_block_of_a_merged_table_puts_those_in_doubt_that_can_be_in_it() {
    let sim = sim(12);
    sim.run(|| async {
        let tables = load().await;
        for partition in 0..300 {
            record(&tables, opened(partition)).await;
        }
    });
    sim.crash();
    sim.run(|| async { drop(load().await) });
    let is_merged = |path: &std::path::PathBuf| path.to_string_lossy().ends_with("-merged.table");
    let merged = sim.disk().files().into_iter().find(is_merged).expect("there is one");
    for copy in [0, 4096] {
        sim.disk().flip_bit(&merged, PAIR_BYTES as u64 + copy + 90, 0).expect("a table");
    }
    for _ in 0..2 {
        sim.run(|| async {
            let tables = load().await;
            let in_doubt = (0..300).filter(|partition| tables.is_in_doubt(log(*partition)));
            let entries = u32::try_from(ENTRIES_MAX).expect("few");
            // With the neighbours, who may have had more entries there.
            assert_eq!(in_doubt.collect::<Vec<_>>(), (entries - 1..=2 * entries).collect::<Vec<_>>());
        });
        sim.crash();
    }
}

#[test]
fn a_log_of_an_older_table_stays_removed() {
    let sim = sim(2);
    sim.run(|| async { record(&load().await, opened(0)).await });
    sim.crash();
    sim.run(|| async {
        let tables = load().await;
        record(&tables, removed(0)).await;
        record(&tables, opened(1)).await;
        for start in 1..=200 {
            record(&tables, started(1, start)).await;
        }
    });
    sim.crash();
    sim.run(|| async {
        let tables = load().await;
        assert_eq!([0, 1].map(|partition| log_start(&tables, partition)), [None, Some(200)]);
    });
}

#[test]
fn what_is_told_of_a_removed_log_does_not_bring_it_back_nor_does_another_one_of_its_name() {
    const ANOTHER: LogNumber = LogNumber(8);
    let sim = sim(5);
    sim.run(|| async {
        let tables = load().await;
        for partition in 0..3 {
            record(&tables, opened(partition)).await;
        }
    });
    sim.crash();
    sim.run(|| async {
        let tables = load().await;
        record(&tables, removed(0)).await;
        record(&tables, started(0, 5)).await;
        record(&tables, removed(1)).await;
        let (generation, start) = (Generation::FIRST, Offset::ZERO);
        record(&tables, Fact::Opened { id: log(1), number: ANOTHER, generation, start }).await;
        for start in 1..=200 {
            record(&tables, started(2, start)).await;
        }
        assert_eq!([0, 1, 2].map(|partition| log_start(&tables, partition)), [None, Some(0), Some(200)]);
        assert!(table_bytes(&tables).await < 100 * PAIR_BYTES as u64, "it was written anew");
    });
    sim.crash();
    sim.run(|| async {
        let tables = load().await;
        assert_eq!([0, 1, 2].map(|partition| log_start(&tables, partition)), [None, Some(0), Some(200)]);
        assert_eq!(tables.of(log(1)).map(|known| known.number()), Some(ANOTHER));
    });
}

#[test]
fn without_a_descriptor_for_the_new_table_the_old_one_goes_on() {
    let sim = sim(6);
    sim.run(|| async {
        let tables = load().await;
        record(&tables, opened(0)).await;
        // The first opens it to write it, the second to go on with it.
        sim.disk().inject(Fault::on(Operation::Open, "*.tmp").after(1).os_error(24));
        for start in 1..=100 {
            record(&tables, started(0, start)).await;
        }
        assert!(table_bytes(&tables).await > 90 * PAIR_BYTES as u64, "it was not written anew");
    });
    sim.crash();
    sim.run(|| async { assert_eq!(log_start(&load().await, 0), Some(100)) });
}

#[test]
fn where_a_table_cannot_be_written_anew_it_grows_on() {
    let sim = sim(3);
    sim.run(|| async {
        let tables = load().await;
        record(&tables, opened(0)).await;
        sim.disk().inject(Fault::on(Operation::Preallocate, "*.tmp").error(io::ErrorKind::StorageFull));
        for start in 1..=100 {
            record(&tables, started(0, start)).await;
        }
        assert!(table_bytes(&tables).await > 90 * PAIR_BYTES as u64, "it was not written anew");
        sim.disk().clear_faults();
        for start in 101..=200 {
            record(&tables, started(0, start)).await;
        }
        assert!(table_bytes(&tables).await < 90 * PAIR_BYTES as u64, "and is, once that is possible");
    });
    sim.crash();
    sim.run(|| async { assert_eq!(log_start(&load().await, 0), Some(200)) });
}

#[test]
fn a_table_that_may_have_lost_its_name_is_not_written_to() {
    let sim = sim(4);
    let recorded = sim.run(|| async {
        let tables = load().await;
        record(&tables, opened(0)).await;
        sim.disk().inject(Fault::on(Operation::Rename, "*.tmp").os_error(5));
        let mut recorded = 0;
        for start in 1..=100 {
            match tables.record(started(0, start)).await {
                Ok(()) => recorded = start,
                Err(error) => {
                    assert!(matches!(error, RecordError::Failed(_)), "{error}");
                    break;
                }
            }
        }
        recorded
    });
    assert!(recorded > 0 && recorded < 100);
    sim.disk().clear_faults();
    sim.crash();
    sim.run(|| async { assert_eq!(log_start(&load().await, 0), Some(recorded)) });
}

#[test]
fn what_was_recorded_is_known_after_every_crash() {
    let mut rewritten = 0;
    for seed in seeds(0..200) {
        let sim = sim(seed);
        let (asked, recorded) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        for _ in 0..4 {
            let (asking, recording) = (asked.clone(), recorded.clone());
            rewritten += sim.run(|| async move {
                let tables = load().await;
                let known = log_start(&tables, 0).unwrap_or(0);
                assert!((recording.get()..=asking.get()).contains(&known), "seed {seed}: {known}");
                let trimming = tables.clone();
                task::spawn("trims", async move {
                    record(&trimming, opened(0)).await;
                    for start in known + 1.. {
                        asking.set(start);
                        record(&trimming, started(0, start)).await;
                        recording.set(start);
                    }
                });
                time::sleep(Duration::from_micros(random::u64() % 60_000)).await;
                let state = tables.0.state.borrow();
                let blocks = state.file.as_ref().map_or(0, |open| open.blocks);
                u64::from(recorded_since(known, &state) > i64::from(blocks))
            });
            sim.crash();
        }
    }
    assert!(rewritten > 100, "the crashes came around tables that were written anew: {rewritten}");
}

/// How many trims are durable beyond `known`, each in a block of its own when it was recorded.
fn recorded_since(known: i64, state: &State) -> i64 {
    let log = state.own.get(&log(0)).and_then(Option::as_ref);
    log.map_or(0, |log| log.log_start().get() - known)
}
