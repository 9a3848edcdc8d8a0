//! Who watches the checker: bugs that the crash loops have to find, each within the seeds that pass without it.

use std::panic::{self, AssertUnwindSafe};

use ringmq_runtime::seeded_bug::SeededBug;

use super::{crash_loop, relaxed};

/// Whether some seed finds the bug.
fn is_found(bug: SeededBug) -> bool {
    let fails = |lives: &dyn Fn()| panic::catch_unwind(AssertUnwindSafe(lives)).is_err();
    match bug {
        SeededBug::SkipRelaxedFlush | SeededBug::RetryFailedFlush | SeededBug::GiveLostOffsetsAgain => {
            relaxed::SEEDS.into_iter().any(|seed| fails(&|| _ = relaxed::lives_with(seed, Some(bug))))
        }
        _ => crash_loop::SEEDS.into_iter().any(|seed| fails(&|| _ = crash_loop::lives_with(seed, Some(bug)))),
    }
}

#[test]
fn acknowledging_before_the_flush_is_found() {
    assert!(is_found(SeededBug::AcknowledgeBeforeFlush));
}

#[test]
fn directories_that_are_not_flushed_are_found() {
    assert!(is_found(SeededBug::SkipDirectorySync));
}

#[test]
fn trusting_an_index_is_found() {
    assert!(is_found(SeededBug::TrustIndex));
}

#[test]
fn freeing_the_journal_early_is_found() {
    assert!(is_found(SeededBug::FreeJournalEarly));
}

#[test]
fn acknowledging_past_a_gap_is_found() {
    assert!(is_found(SeededBug::AcknowledgePastGap));
}

#[test]
fn a_log_start_beyond_the_frames_is_found() {
    assert!(is_found(SeededBug::StartPastFrames));
}

#[test]
fn redoing_a_journal_older_than_the_log_start_is_found() {
    assert!(is_found(SeededBug::RedoBelowStart));
}

#[test]
fn answering_a_retry_before_the_original_is_durable_is_found() {
    assert!(is_found(SeededBug::AnswerRetryEarly));
}

#[test]
fn a_compacted_segment_that_counts_before_it_is_durable_is_found() {
    assert!(is_found(SeededBug::SwapBeforeFlush));
}

#[test]
fn forgetting_what_producers_stored_in_records_that_are_gone_is_found() {
    assert!(is_found(SeededBug::ForgetProducers));
}

#[test]
fn a_log_start_that_moves_before_it_is_durable_is_found() {
    assert!(is_found(SeededBug::StartBeforeRecord));
}

#[test]
fn leaving_out_the_flush_of_the_relaxed_journal_is_found() {
    assert!(is_found(SeededBug::SkipRelaxedFlush));
}

#[test]
fn trying_a_failed_flush_again_is_found() {
    assert!(is_found(SeededBug::RetryFailedFlush));
}

#[test]
fn giving_lost_offsets_again_is_found() {
    assert!(is_found(SeededBug::GiveLostOffsetsAgain));
}

#[test]
fn every_bug_has_a_test() {
    let tests = [
        include_str!("seeded_bugs.rs"),
        // What the journal's own loop finds is behind what a broker shows.
        include_str!("../../../journal/scenarios/crash_loop.rs"),
        include_str!("../../../controller/seeded_bugs.rs"),
    ]
    .concat();
    for bug in SeededBug::ALL {
        let name = format!("is_found(SeededBug::{bug:?})");
        assert!(tests.contains(&name), "{name}");
    }
}
