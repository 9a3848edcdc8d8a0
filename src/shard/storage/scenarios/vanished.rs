//! A file of the journals that vanishes as a whole is missed: the generation tables know which there are.

use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_segment::{Damage, OpenError};

use super::support::*;

/// Partitions 0 and 1 each have a record that only the ring has.
fn two_in_the_ring(seed: u64) -> Sim {
    let sim = sim(seed, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(2).await;
        journaled(core.log(0), 1).await;
        journaled(core.log(1), 2).await;
    });
    sim.kill();
    sim
}

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
fn rule_06_a_ring_that_vanishes_is_missed_until_every_partition_can_be_judged() {
    let sim = two_in_the_ring(52);
    sim.disk().remove(ring_path(&sim)).expect("there was one");
    for partition in 0..2 {
        let path = segment_path(partition, 0).display().to_string();
        sim.disk().inject(Fault::on(Operation::Open, path).times(1_000));
    }
    sim.run(|| async {
        let core = Core::start(2).await;
        assert!(core.logs.iter().all(|log| matches!(log, Err(OpenError::Io { .. }))));
    });
    sim.crash();
    sim.disk().clear_faults();
    sim.run(|| async {
        let core = Core::start(2).await;
        assert!(core.logs.iter().all(|log| log.is_err()), "neither is served as an empty one");
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

#[test]
fn rule_06_an_aside_file_that_vanishes_is_no_empty_log() {
    let sim = two_in_the_ring(54);
    sim.run(|| async {
        let core = Core::start_knowing(1, |id| id == log_id(0)).await.expect("a start");
        core.stop().await;
    });
    for aside in aside_paths(&sim) {
        sim.disk().remove(aside).expect("there was one");
    }
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!(tags_of(core.log(0)).await, [1]);
        assert_eq!(corruption(&core.logs[1]), Damage::JournalLost);
    });
}
