//! What tells of acknowledged records outlives every start that cannot judge their log: it cannot be opened, the metadata
//! does not have it, or the tables lost its generations. Named by the rules of the storage protocol.

use std::path::PathBuf;

use ringmq_runtime::sim::{Fault, Operation, Sim};
use ringmq_segment::{Damage, OpenError};

use super::support::*;

/// The process is killed, and the tables lose what they said last of partition 0, of which the journal has something.
fn is_refused_without_its_generations(sim: &Sim) {
    sim.kill();
    lose_newest_generations(sim);
    for _ in 0..2 {
        sim.run(|| async {
            let core = Core::start(1).await;
            assert_eq!(corruption(&core.logs[0]), Damage::GenerationsMissing);
        });
        sim.crash();
        assert_eq!(asides(sim), 1, "what the journal has is kept");
    }
}

/// Damages the newest entries of the newest table of a core, in both copies. Nothing has relied upon them yet.
fn lose_newest_generations(sim: &Sim) {
    let of_core = |path: &PathBuf| path.to_string_lossy().ends_with("-00000.table");
    let newest = sim.disk().files().into_iter().filter(of_core).max().expect("this life's table");
    for copy in [0, 4096] {
        sim.disk().flip_bit(&newest, copy + 70, 0).expect("a table");
    }
}

#[test]
fn rule_02_what_the_journal_has_of_a_generation_that_the_tables_lost_is_no_empty_log() {
    let sim = sim(21, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(1).await;
        journaled(core.log(0), 1).await;
    });
    is_refused_without_its_generations(&sim);
}

#[test]
fn rule_02_what_the_journal_has_of_the_newest_generation_is_not_passed_over_when_the_tables_lost_it() {
    let sim = sim(22, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(1).await;
        journaled(core.log(0), 1).await;
        core.stop().await;
    });
    sim.run(|| async {
        let core = Core::start(1).await;
        journaled(core.log(0), 2).await;
    });
    is_refused_without_its_generations(&sim);
}

#[test]
fn rule_06_the_ring_that_tells_of_lost_records_stays_until_their_partition_can_be_judged() {
    let sim = lost_first_block(13, 2);
    cannot_open_first(&sim);
    sim.run(|| async {
        let core = Core::start(2).await;
        assert!(matches!(core.logs[0], Err(OpenError::Io { .. })));
        core.journal_is_in_use().await;
        journaled(core.log(1), 2).await;
        idle().await;
    });
    sim.crash();
    sim.disk().clear_faults();
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!(corruption(&core.logs[0]), Damage::JournalLost, "although the ring was not read for the first time");
        assert_eq!(tags_of(core.log(1)).await, [2], "the other one was served, with a ring of its own");
    });
}

/// Until the faults are cleared, the segment of partition 0 cannot be opened.
fn cannot_open_first(sim: &Sim) {
    let path = segment_path(0, 0).display().to_string();
    sim.disk().inject(Fault::on(Operation::Open, path).times(1_000));
}

#[test]
fn rule_06_that_something_was_lost_of_nobody_knows_whom_is_recorded_of_what_cannot_be_opened_too() {
    let sim = sim(31, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(2).await;
        for partition in 0..2 {
            journaled(core.log(partition), 1).await;
            idle().await;
        }
    });
    sim.kill();
    // The first block, and the closing one behind it that tells whose records it had.
    let [block, _] = blocks_with_entries(&sim)[..] else { panic!("two blocks with entries") };
    for damaged in [block, block + 4096] {
        zero(&sim, ring_path(&sim), damaged);
    }
    cannot_open_first(&sim);
    sim.run(|| async {
        let core = Core::start(2).await;
        assert!(matches!(core.logs[0], Err(OpenError::Io { .. })));
        assert_eq!(corruption(&core.logs[1]), Damage::JournalLost);
        core.journal_is_in_use().await;
    });
    sim.crash();
    sim.disk().clear_faults();
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!(corruption(&core.logs[0]), Damage::FoundBefore, "the ring is used again since");
        assert_eq!(corruption(&core.logs[1]), Damage::FoundBefore);
    });
}

#[test]
fn rule_06_an_aside_that_rots_while_its_log_cannot_be_opened_is_no_empty_log() {
    let sim = sim(32, true);
    start_with_journal(&sim);
    sim.run(|| async {
        let core = Core::start(2).await;
        journaled(core.log(0), 1).await;
    });
    sim.kill();
    cannot_open_first(&sim);
    for _ in 0..2 {
        sim.run(|| async {
            let core = Core::start(2).await;
            assert!(matches!(core.logs[0], Err(OpenError::Io { .. })));
        });
        sim.crash();
        for aside in aside_paths(&sim) {
            zero(&sim, aside, 0);
        }
    }
    sim.disk().clear_faults();
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!(corruption(&core.logs[0]), Damage::FoundBefore);
        journaled(core.log(1), 2).await;
    });
}

#[test]
fn rule_06_what_tells_of_lost_records_stays_while_the_metadata_lacks_their_topic() {
    let sim = lost_first_block(33, 1);
    sim.run(|| async {
        let core = Core::start_knowing(0, |_| false).await.expect("a start");
        core.journal_is_in_use().await;
        core.stop().await;
    });
    sim.crash();
    sim.run(|| async { assert_eq!(corruption(&Core::start(1).await.logs[0]), Damage::JournalLost) });
}

#[test]
fn rule_06_that_the_metadata_lacks_a_partition_is_no_record_of_its_deletion() {
    let sim = two_in_the_ring(34);
    sim.run(|| async {
        let core = Core::start_knowing(1, |id| id == log_id(0)).await.expect("a start");
        assert_eq!(tags_of(core.log(0)).await, [1]);
        core.stop().await;
    });
    sim.crash();
    assert_eq!(asides(&sim), 1);
    sim.run(|| async {
        let core = Core::start(2).await;
        assert_eq!(tags_of(core.log(0)).await, [1]);
        assert_eq!(tags_of(core.log(1)).await, [2]);
    });
    assert_eq!(asides(&sim), 0);
}

#[test]
fn rule_06_a_partition_that_the_metadata_lacked_is_not_begun_anew_in_the_life_that_kept_its_records_aside() {
    let sim = two_in_the_ring(35);
    sim.run(|| async {
        let core = Core::start_knowing(1, |id| id == log_id(0)).await.expect("a start");
        core.journal_is_in_use().await;
        // Somebody gives the topic its partitions again, and one more.
        let (again, new) = (core.open(1).await, core.open(2).await.expect("an empty log"));
        assert!(matches!(again, Err(OpenError::KeptForNextStart { .. })));
        journaled(&new, 3).await;
    });
    sim.crash();
    sim.run(|| async {
        let core = Core::start(3).await;
        for (partition, tag) in [(0, 1), (1, 2), (2, 3)] {
            assert_eq!(tags_of(core.log(partition)).await, [tag]);
        }
    });
    assert_eq!(asides(&sim), 0);
}
