//! A file of the journals that vanishes as a whole is missed: the generation tables know which there are.

use std::time::Duration;

use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_runtime::{task, time};
use ringmq_segment::{Damage, LogConfig, OpenError};

use super::support::*;

#[test]
fn rule_06_a_ring_that_vanishes_is_no_empty_log() {
    let sim = two_in_the_ring(51);
    sim.disk().remove(ring_path(&sim)).expect("there was one");
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!(corruption(&core.logs[0]), Damage::JournalLost);
        assert_eq!(corruption(&core.logs[1]), Damage::JournalLost);
        core.journal_is_in_use().await;
    });
    sim.crash();
    sim.run(|| async {
        let core = Core::start(3).await;
        assert_eq!(corruption(&core.logs[0]), Damage::FoundBefore, "that is recorded");
        journaled(core.log(2), 3).await;
    });
    sim.crash();
    sim.run(|| async {
        let core = Core::start(3).await;
        assert_eq!(tags_of(core.log(2)).await, [3], "what vanished is missed once, and the ring of now is there");
    });
}

#[test]
fn rule_06_a_ring_that_vanishes_is_held_against_partitions_that_cannot_be_judged_and_none_of_later() {
    let sim = two_in_the_ring(52);
    sim.disk().remove(ring_path(&sim)).expect("there was one");
    for partition in 0..2 {
        let path = segment_path(partition, 0).display().to_string();
        sim.disk().inject(Fault::on(Operation::Open, path).times(1_000));
    }
    sim.run(|| async {
        let core = Core::start(3).await;
        assert!(core.logs[..2].iter().all(|log| matches!(log, Err(OpenError::Io { .. }))));
        core.journal_is_in_use().await;
        journaled(core.log(2), 3).await;
    });
    sim.crash();
    sim.disk().clear_faults();
    sim.run(|| async {
        let core = Core::start(3).await;
        assert!(core.logs[..2].iter().all(|log| log.is_err()), "neither is served as an empty one");
        assert_eq!(tags_of(core.log(2)).await, [3], "it began when the ring was gone");
    });
}

#[test]
fn after_a_clean_stop_nothing_is_missed() {
    let sim = sim(53, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(1).await;
        journaled(core.log(0), 1).await;
        core.stop().await;
    });
    sim.disk().remove(ring_path(&sim)).expect("there was one");
    for tags in [&[1][..], &[1, 2]] {
        sim.run(|| async move {
            let core = Core::start(1).await;
            assert_eq!(tags_of(core.log(0)).await, tags);
            core.journal_is_in_use().await;
            journaled(core.log(0), 2).await;
        });
        sim.crash();
    }
}

/// Keeps aside what the ring has of partition 1, which the metadata does not know, and goes on.
pub(super) fn keep_aside(sim: &Sim) {
    sim.run(|| async {
        let core = Core::start_knowing(1, |id| id == log_id(0)).await.expect("a start");
        core.journal_is_in_use().await;
        core.stop().await;
    });
    sim.kill();
}

/// The same, and is killed as soon as the file is there: the ring has its blocks still.
fn keep_aside_and_end(sim: &Sim) {
    sim.run(|| {
        let disk = sim.disk();
        async move {
            task::spawn("start", async { drop(Core::start_knowing(1, |id| id == log_id(0)).await) });
            until(|| disk.files().iter().any(|path| path.extension().is_some_and(|kind| kind == "aside"))).await;
        }
    });
    sim.kill();
}

fn remove_aside(sim: &Sim) {
    let asides = aside_paths(sim);
    assert_eq!(asides.len(), 1);
    sim.disk().remove(&asides[0]).expect("there was one");
}

#[test]
fn rule_06_an_aside_file_that_vanishes_is_no_empty_log() {
    an_aside_is_missed(&two_in_the_ring(54));
}

/// What the ring has of partition 1 is kept aside, the ring goes on, and the file vanishes.
fn an_aside_is_missed(sim: &Sim) {
    keep_aside(sim);
    remove_aside(sim);
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!(tags_of(core.log(0)).await, [1]);
        assert_eq!(corruption(&core.logs[1]), Damage::JournalLost);
    });
}

#[test]
fn an_aside_file_is_not_missed_while_the_ring_has_what_was_in_it() {
    for seed in 60..70 {
        let sim = two_in_the_ring(seed);
        keep_aside_and_end(&sim);
        remove_aside(&sim);
        if seed.is_multiple_of(2) {
            sim.run(|| async {
                let core = Core::start(2).await;
                assert_eq!((tags_of(core.log(0)).await, tags_of(core.log(1)).await), (vec![1], vec![2]));
            });
            continue;
        }
        // It is made again, and missed from then on.
        an_aside_is_missed(&sim);
    }
}

#[test]
fn rule_06_what_a_running_broker_kept_aside_is_missed_too() {
    let sim = sim(57, true);
    start_with_journal(&sim);
    sim.run(|| {
        let disk = sim.disk();
        async move { drop(first_goes_offline(&disk).await) }
    });
    sim.crash();
    remove_aside(&sim);
    sim.run(|| async { assert_eq!(corruption(&Core::start(2).await.logs[0]), Damage::JournalLost) });
}

#[test]
fn a_ring_of_which_nobody_knows_whether_the_tables_speak_stays() {
    let sim = sim(58, true);
    start_with_journal(&sim);
    sim.run(|| {
        let disk = sim.disk();
        async move {
            let core = Core::start(1).await;
            journaled(core.log(0), 1).await;
            core.log(0)
                .reconfigure(LogConfig { flush_interval: Some(Duration::from_millis(20)), ..log_config() })
                .expect("valid");
            // Behind the reservation of offsets: the entry is written, and its writer is told that it is not.
            disk.inject(Fault::on(Operation::Write, "*.table").after(1).late());
            core.log(0).append(append(2, 1, 10)).await.expect("acknowledged");
            until(|| disk.files().iter().any(|path| path.extension().is_some_and(|kind| kind == "relaxed"))).await;
            time::sleep(Duration::from_secs(1)).await;
            assert_eq!(core.storage.logs.relaxed_journal.append_bytes_max(), 0, "it is not in use");
        }
    });
    sim.kill();
    sim.disk().clear_faults();
    sim.run(|| async {
        let core = Core::start(1).await;
        assert!(core.logs[0].is_ok(), "nothing is taken for lost");
    });
}
