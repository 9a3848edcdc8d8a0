//! Who watches the checkers of the metadata: bugs that their crash loops have to find, each within the seeds that pass
//! without it.

use std::panic::{self, AssertUnwindSafe};

use ringmq_runtime::seeded_bug::SeededBug;

use crate::driver::crash_loop as requests;
use crate::snapshots::crash_loop as snapshots;

/// What the first seed says that fails: with a client of the controller where it is the controller that has the bug, else
/// with the log and its snapshots alone.
fn found(bug: SeededBug) -> String {
    let failure = |lives: &dyn Fn()| {
        let panicked = panic::catch_unwind(AssertUnwindSafe(lives)).err()?;
        let text = panicked.downcast_ref::<String>().cloned();
        Some(text.or_else(|| panicked.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    };
    let failed = match bug {
        SeededBug::PublishBeforeLog | SeededBug::SnapshotBeforeLog => {
            requests::SEEDS.into_iter().find_map(|seed| failure(&|| _ = requests::lives(seed, Some(bug))))
        }
        _ => snapshots::SEEDS.into_iter().find_map(|seed| failure(&|| _ = snapshots::lives(seed, Some(bug)))),
    };
    failed.unwrap_or_else(|| panic!("{bug:?} is not found"))
}

/// Fails where the bug is not found, or for another reason than its own.
#[track_caller]
fn is_found(bug: SeededBug, reason: &str) {
    let found = found(bug);
    assert!(found.contains(reason), "{bug:?}: {found}");
}

#[test]
fn acknowledging_a_command_before_its_flush_is_found() {
    is_found(SeededBug::AcknowledgeBeforeFlush, "it has lost some");
}

#[test]
fn directories_that_are_not_flushed_are_found() {
    is_found(SeededBug::SkipDirectorySync, "found Image");
}

#[test]
fn a_snapshot_that_counts_before_it_is_flushed_is_found() {
    is_found(SeededBug::SnapshotUnflushed, "began from None");
}

#[test]
fn telling_shards_of_a_command_before_it_is_durable_is_found() {
    is_found(SeededBug::PublishBeforeLog, "a shard was told of");
}

#[test]
fn a_snapshot_of_commands_that_are_not_durable_is_found() {
    is_found(SeededBug::SnapshotBeforeLog, "it has lost some");
}

#[test]
fn removing_older_snapshots_before_the_new_one_is_durable_is_found() {
    is_found(SeededBug::RemoveSnapshotsFirst, "began from None");
}

#[test]
fn trusting_a_torn_snapshot_is_found() {
    is_found(SeededBug::TrustTornSnapshot, "found Image");
}

#[test]
fn applying_a_command_again_after_a_snapshot_is_found() {
    is_found(SeededBug::ApplyTwice, "was given away before");
}
