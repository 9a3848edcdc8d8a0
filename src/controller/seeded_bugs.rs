//! Who watches the checkers of the metadata: bugs that their crash loops have to find, each within the seeds that pass
//! without it.

use std::panic::{self, AssertUnwindSafe};

use ringmq_runtime::seeded_bug::SeededBug;

use crate::driver::crash_loop as requests;
use crate::snapshots::crash_loop as snapshots;

/// Whether some seed finds the bug: with a client of the controller where it is the controller that has it, else with the
/// log and its snapshots alone.
fn is_found(bug: SeededBug) -> bool {
    let fails = |lives: &dyn Fn()| panic::catch_unwind(AssertUnwindSafe(lives)).is_err();
    match bug {
        SeededBug::PublishBeforeLog | SeededBug::SnapshotBeforeLog => {
            requests::SEEDS.into_iter().any(|seed| fails(&|| _ = requests::lives(seed, Some(bug))))
        }
        _ => snapshots::SEEDS.into_iter().any(|seed| fails(&|| _ = snapshots::lives(seed, Some(bug)))),
    }
}

#[test]
fn acknowledging_a_command_before_its_flush_is_found() {
    assert!(is_found(SeededBug::AcknowledgeBeforeFlush));
}

#[test]
fn directories_that_are_not_flushed_are_found() {
    assert!(is_found(SeededBug::SkipDirectorySync));
}

#[test]
fn a_snapshot_that_counts_before_it_is_flushed_is_found() {
    assert!(is_found(SeededBug::SnapshotUnflushed));
}

#[test]
fn telling_shards_of_a_command_before_it_is_durable_is_found() {
    assert!(is_found(SeededBug::PublishBeforeLog));
}

#[test]
fn a_snapshot_of_commands_that_are_not_durable_is_found() {
    assert!(is_found(SeededBug::SnapshotBeforeLog));
}

#[test]
fn removing_older_snapshots_before_the_new_one_is_durable_is_found() {
    assert!(is_found(SeededBug::RemoveSnapshotsFirst));
}

#[test]
fn trusting_a_torn_snapshot_is_found() {
    assert!(is_found(SeededBug::TrustTornSnapshot));
}

#[test]
fn applying_a_command_again_after_a_snapshot_is_found() {
    assert!(is_found(SeededBug::ApplyTwice));
}
