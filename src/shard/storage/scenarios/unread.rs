//! A file that all partitions of a core share cannot be read at a start. Those that it may say something of stay offline, and
//! nothing is decided; the rest serves, and the broker starts.

use std::path::Path;

use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_segment::{Damage, OpenError};

use super::support::*;

/// Partitions 0 and 1 have a record in frames and one that the ring alone has. Partition 2 has both, and was stopped cleanly;
/// nothing was ever appended to partition 3. The process is gone.
fn one_of_three_stopped(seed: u64) -> Sim {
    let sim = sim(seed, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(4).await;
        for partition in 0..3 {
            core.log(partition).append(append(1, 1, 20_000)).await.expect("acknowledged");
            journaled(core.log(partition), 2).await;
        }
        core.log(2).close().await.expect("a clean stop");
    });
    sim.kill();
    sim
}

fn fail(sim: &Sim, operation: Operation, path: &Path) {
    sim.disk().inject(Fault::on(operation, path.display().to_string()).times(u64::MAX));
}

fn waits_for(core: &Core, partition: usize, file: &Path) {
    match &core.logs[partition] {
        Err(OpenError::JournalUnread { path, .. }) => assert_eq!(path, file),
        Err(error) => panic!("another reason: {error}"),
        Ok(log) => panic!("served without what the file has: {:?}", log.offsets()),
    }
}

#[test]
fn a_ring_that_cannot_be_read_keeps_offline_what_may_be_in_it_until_it_can() {
    for (seed, operation) in [(1, Operation::Open), (2, Operation::Read), (3, Operation::Flush)] {
        let sim = one_of_three_stopped(seed);
        let ring = ring_path(&sim);
        let before = sim.disk().read(&ring);
        fail(&sim, operation, &ring);
        sim.run(|| {
            let ring = ring.clone();
            async move {
                let core = Core::start(4).await;
                waits_for(&core, 0, &ring);
                waits_for(&core, 1, &ring);
                assert_eq!(tags_of(core.log(2)).await, [1, 2], "all of it is in frames");
                core.journal_is_in_use().await;
                journaled(core.log(2), 3).await;
                journaled(core.log(3), 4).await;
            }
        });
        sim.kill();
        assert_eq!(sim.disk().read(&ring), before, "it is left as it is");

        sim.run(|| {
            let ring = ring.clone();
            async move {
                let core = Core::start(4).await;
                for partition in 0..4 {
                    waits_for(&core, partition, &ring);
                }
                core.journal_is_in_use().await;
            }
        });
        sim.crash();
        sim.disk().clear_faults();
        for _ in 0..2 {
            sim.run(|| async {
                let core = Core::start(4).await;
                for (partition, tags) in [&[1, 2][..], &[1, 2], &[1, 2, 3], &[4]].into_iter().enumerate() {
                    assert_eq!(tags_of(core.log(partition)).await, tags, "partition {partition}");
                }
            });
            sim.crash();
        }
    }
}

#[test]
fn a_ring_that_is_taken_away_because_nobody_can_read_it_is_missed() {
    let sim = one_of_three_stopped(4);
    let ring = ring_path(&sim);
    fail(&sim, Operation::Read, &ring);
    sim.run(|| async {
        let core = Core::start(4).await;
        core.journal_is_in_use().await;
        core.stop().await;
    });
    sim.kill();
    sim.disk().clear_faults();
    sim.disk().remove(&ring).expect("there was one");
    sim.run(|| async {
        let core = Core::start(4).await;
        assert_eq!(corruption(&core.logs[0]), Damage::JournalLost);
        assert_eq!(corruption(&core.logs[1]), Damage::JournalLost);
        assert_eq!(tags_of(core.log(2)).await, [1, 2]);
    });
}

#[test]
fn what_was_kept_aside_and_cannot_be_read_keeps_offline_what_may_be_in_it() {
    let sim = two_in_the_ring(5);
    sim.run(|| async {
        let core = Core::start_knowing(1, |id| id == log_id(0)).await.expect("a start");
        core.journal_is_in_use().await;
        core.stop().await;
    });
    sim.kill();
    let asides = aside_paths(&sim);
    let [aside] = &asides[..] else { panic!("one file: {asides:?}") };
    fail(&sim, Operation::Read, aside);
    sim.run(|| {
        let aside = aside.clone();
        async move {
            let core = Core::start(2).await;
            assert_eq!(tags_of(core.log(0)).await, [1], "it was stopped cleanly");
            waits_for(&core, 1, &aside);
        }
    });
    sim.kill();
    sim.disk().clear_faults();
    sim.run(|| async { assert_eq!(tags_of(Core::start(2).await.log(1)).await, [2]) });
}

/// A ring that cannot be read may still have what was copied to an aside file that vanished: that is not decided either.
#[test]
fn an_aside_file_is_not_missed_while_its_ring_cannot_be_read() {
    let sim = two_in_the_ring(6);
    sim.run(|| {
        let disk = sim.disk();
        async move {
            ringmq_runtime::task::spawn("start", async {
                drop(Core::start_knowing(1, |id| id == log_id(0)).await);
            });
            until(|| disk.files().iter().any(|path| path.extension().is_some_and(|kind| kind == "aside"))).await;
            // The table has it as well, and the ring goes on without it.
            idle().await;
        }
    });
    sim.kill();
    let ring = ring_path(&sim);
    sim.disk().remove(&aside_paths(&sim)[0]).expect("there was one");
    fail(&sim, Operation::Read, &ring);
    sim.run(|| {
        let ring = ring.clone();
        async move {
            let core = Core::start(2).await;
            waits_for(&core, 1, &ring);
            core.journal_is_in_use().await;
        }
    });
    sim.crash();
    sim.disk().clear_faults();
    sim.run(|| async {
        assert_eq!(
            corruption(&Core::start(2).await.logs[1]),
            Damage::JournalLost,
            "not found before: the ring lacks it"
        );
    });
}

#[test]
fn a_ring_that_cannot_be_read_keeps_offline_what_the_tables_lost() {
    let sim = two_in_the_ring(5);
    let ring = ring_path(&sim);
    for path in sim.disk().files().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "table")) {
        sim.disk().remove(path).expect("a table");
    }
    fail(&sim, Operation::Read, &ring);
    sim.run(|| async move {
        let core = Core::start(3).await;
        waits_for(&core, 0, &ring);
        waits_for(&core, 1, &ring);
        assert!(core.logs[2].is_ok(), "there was never a file of it");
    });
}
