//! A disk without a free block: starts, with what the journal has on them.

use std::time::Duration;

use ringmq_runtime::sim::Sim;
use ringmq_segment::{AppendError, Damage, OpenError};
use ringmq_wire::Offset;

use super::relaxed::start_relaxed;
use super::support::*;

const DISK_BYTES: u64 = 64 << 30;

/// From here on there is not a free block.
fn fill_disk(sim: &Sim) {
    sim.disk().set_capacity(DISK_BYTES);
    sim.disk().set_capacity(DISK_BYTES - sim.disk().free_bytes());
}

/// Three partitions with records that the journal alone has, and what a power failure leaves of the room for them.
fn journaled_and_out_of_power(sim: &Sim) {
    start_with_journal(sim);
    sim.run(|| async {
        let core = Core::start(3).await;
        for partition in 0..3 {
            journaled(core.log(partition), partition as u64 + 1).await;
        }
    });
    sim.crash();
    fill_disk(sim);
}

#[test]
fn an_unclean_start_on_a_full_disk_puts_what_the_journal_has_into_frames() {
    for seed in 0..20 {
        let sim = sim(seed, true);
        journaled_and_out_of_power(&sim);
        // Twice: the second one finds all of it in frames.
        for _ in 0..2 {
            sim.run(|| async {
                let core = Core::start(3).await;
                for partition in 0..3 {
                    assert_eq!(tags_of(core.log(partition)).await, [partition as u64 + 1]);
                }
            });
            sim.crash();
        }
        sim.disk().set_capacity(DISK_BYTES);
        sim.run(|| async {
            let core = Core::start(3).await;
            core.log(0).append(append(10, 1, 100)).await.expect("there is room again");
        });
    }
}

#[test]
fn without_the_reserve_it_would_not() {
    let offline = (0..20).filter(|seed| {
        let sim = sim(*seed, true);
        journaled_and_out_of_power(&sim);
        sim.disk().remove("/data/reserves/00000").expect("a reserve");
        fill_disk(&sim);
        sim.run(|| async {
            let core = Core::start(3).await;
            let full = |log: &Result<_, OpenError>| matches!(log, Err(OpenError::Io { .. }));
            core.logs.iter().any(full)
        })
    });
    assert!(offline.count() > 0, "some power failure took the room along");
}

#[test]
fn records_are_deleted_after_an_unclean_start_on_a_full_disk() {
    let sim = sim(1, true);
    journaled_and_out_of_power(&sim);
    sim.run(|| async {
        let core = Core::start(3).await;
        let refused = core.log(1).append(append(10, 1, 100)).await;
        assert!(matches!(refused, Err(AppendError::StorageFull(_))), "{refused:?}");
        assert_eq!(core.log(0).delete_records(Offset::new(1)).await.expect("deleted"), Offset::new(1));
    });
    sim.crash();
    sim.run(|| async {
        let core = Core::start(3).await;
        assert_eq!(core.log(0).offsets().start, Offset::new(1));
        assert_eq!(tags_of(core.log(1)).await, [2]);
    });
}

#[test]
fn offsets_that_may_be_lost_are_skipped_on_a_full_disk() {
    for seed in 0..10 {
        let sim = sim(seed, true);
        start_with_journal(&sim);
        let shown = sim.run(|| async {
            let core = start_relaxed(Duration::from_secs(60)).await;
            core.log(0).append(append(2, 3, 100)).await.expect("acknowledged").next_offset
        });
        sim.crash();
        fill_disk(&sim);
        sim.run(|| async { assert!(Core::start(1).await.log(0).offsets().end >= shown, "{shown} was shown") });
    }
}

#[test]
fn a_verdict_is_recorded_on_a_full_disk() {
    let sim = lost_first_block(3, 1);
    fill_disk(&sim);
    for expected in [Damage::JournalLost, Damage::FoundBefore] {
        sim.run(|| async {
            let core = Core::start(1).await;
            assert_eq!(corruption(&core.logs[0]), expected);
            idle().await;
        });
        sim.crash();
    }
}
