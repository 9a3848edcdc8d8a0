//! With one rule less, a history breaks a promise. Each test finds the shortest one and prints it.

use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use crate::history::promise::*;
use crate::model::{Action, Bounds, State, Storage};
use crate::promises::SMALL;
use crate::rules::{Rule, Rules};
use crate::telling::tell;

const BOUNDS: Bounds = SMALL.bounds;

/// Finds the shortest history that breaks `promise` without `rule`. With the rule, none of the same histories breaks any.
fn breaks(promise: &'static str, rule: Rule, storage: &Storage) {
    let with_all = storage.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    assert!(with_all.is_done(), "the exploration is not complete");
    for property in storage.properties().iter().filter(|property| property.expectation == Expectation::Always) {
        if let Some(history) = with_all.discovery(property.name) {
            panic!("with all rules, it does not hold that {}:\n{}", property.name, tell(history));
        }
    }

    let without = Storage { rules: Rules::without(rule), ..storage.clone() };
    let hunt = Hunt { storage: without, promise }.checker().spawn_bfs().join();
    let Some(history) = hunt.discovery(KEPT) else {
        panic!("without {rule:?}, it holds in {} states that {promise}", hunt.unique_state_count());
    };
    println!("without {rule:?}, it does not hold that {promise}:\n{}", tell(history));
}

/// A search for histories that break one promise, past those that break others. (With several properties, `stateright`
/// would go on a little after the shortest history, and give a longer one.)
struct Hunt {
    storage: Storage,
    promise: &'static str,
}

const KEPT: &str = "the promise is kept";

impl Model for Hunt {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.storage.init_states()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.storage.actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        self.storage.next_state(last, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(KEPT, |hunt: &Self, state: &State| state.keeps(hunt.promise))]
    }
}

#[test]
fn rule_01_dropped_loses_a_frame_behind_a_gap() {
    breaks(NOTHING_IS_LOST, Rule::DurableIsContiguous, &SMALL);
}

#[test]
fn rule_02_dropped_loses_what_is_appended_after_a_cut() {
    let bounds = Bounds { appends: 3, power_losses: 2, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::Generations, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_02_dropped_brings_back_what_a_truncation_cut() {
    let bounds = Bounds { truncations: 1, ..BOUNDS };
    breaks(WHAT_IS_CUT_STAYS_CUT, Rule::Generations, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_03_dropped_loses_a_block_behind_one_that_never_landed() {
    breaks(NOTHING_IS_LOST, Rule::BlocksInOrder, &Storage { partitions: 2, ..SMALL });
}

#[test]
fn rule_04_dropped_loses_the_blocks_behind_one_that_was_written_over() {
    let bounds = Bounds { appends: 3, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::FloorBeforeReuse, &Storage { blocks: 2, bounds, ..SMALL });
}

#[test]
fn rule_04_dropped_takes_blocks_of_an_earlier_life_for_newer_ones() {
    let bounds = Bounds { appends: 3, power_losses: 2, ..BOUNDS };
    breaks(NO_FALSE_ALARM, Rule::NumbersGoOn, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_04_dropped_leaves_no_block_to_raise_the_floor_with() {
    let bounds = Bounds { appends: 3, ..BOUNDS };
    breaks(NOTHING_GETS_STUCK, Rule::BlockKeptForFloor, &Storage { blocks: 2, bounds, ..SMALL });
}

#[test]
fn rule_05_dropped_takes_a_rotten_block_for_one_that_was_never_written() {
    let bounds = Bounds { rots: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::BlocksProveBlocks, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_05_dropped_loses_a_rotten_block_that_a_frame_could_prove() {
    let bounds = Bounds { rots: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::FramesProveEntries, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_05_dropped_lets_the_journal_hide_a_rotten_frame() {
    let bounds = Bounds { rots: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::FramesProveFrames, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_05_dropped_loses_a_rotten_frame_with_nothing_but_entries_behind_it() {
    let bounds = Bounds { rots: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::EntriesProveFrames, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_06_dropped_frees_blocks_of_a_log_that_takes_no_frames() {
    let bounds = Bounds { failed_frames: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::KeptAside, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_06_dropped_takes_a_topic_that_the_metadata_lacks_for_deleted() {
    let bounds = Bounds { power_losses: 2, lagging_metadata: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::DroppedOnRecordOnly, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_06_dropped_serves_a_corrupt_log_once_its_evidence_is_written_over() {
    let bounds = Bounds { power_losses: 2, rots: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::VerdictBeforeReuse, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_07_dropped_cuts_the_journal_off_from_the_log() {
    let bounds = Bounds { record_deletions: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::StartBehindFrames, &Storage { wide: true, bounds, ..SMALL });
}

#[test]
fn rule_08_dropped_leaves_a_hole_before_the_last_segment() {
    breaks(NO_LOG_HAS_A_HOLE, Rule::SegmentsInOrder, &Storage { segment: 1, ..SMALL });
}

#[test]
fn rule_09_dropped_answers_that_a_lost_batch_is_stored() {
    let bounds = Bounds { power_losses: 2, snapshots: 1, retries: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::SnapshotsAreDurable, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_09_dropped_answers_a_duplicate_before_its_original_is_durable() {
    let bounds = Bounds { retries: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::DuplicatesWait, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_10_dropped_lets_a_killed_process_write_into_the_next_life() {
    let bounds = Bounds { kills: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::LocksFirst, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_10_dropped_claims_to_be_durable_what_was_only_read() {
    let bounds = Bounds { kills: 1, ..BOUNDS };
    breaks(NO_FALSE_ALARM, Rule::FlushBeforeRedo, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_10_dropped_begins_a_segment_behind_frames_that_were_only_read() {
    let bounds = Bounds { appends: 3, kills: 1, ..BOUNDS };
    breaks(NO_LOG_HAS_A_HOLE, Rule::FlushBeforeRedo, &Storage { places: 4, segment: 2, bounds, ..SMALL });
}

#[test]
fn rule_11_dropped_loses_what_the_device_had_in_its_cache() {
    breaks(NOTHING_IS_LOST, Rule::DeviceFlush, &SMALL);
}

#[test]
fn rule_12_dropped_acknowledges_a_frame_that_failed() {
    let bounds = Bounds { failed_frames: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::FailureIsFinal, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_12_dropped_acknowledges_after_a_flush_that_failed() {
    let bounds = Bounds { failed_flushes: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::FailureIsFinal, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_12_dropped_acknowledges_a_block_that_failed() {
    let bounds = Bounds { failed_blocks: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::FailureIsFinal, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_12_dropped_serves_from_the_page_cache_what_a_failed_flush_lost() {
    let bounds = Bounds { kills: 1, failed_flushes: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::DirectReads, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_13_dropped_stages_what_never_gets_into_a_frame() {
    let bounds = Bounds { appends: 3, ..BOUNDS };
    breaks(NOTHING_GETS_STUCK, Rule::RoomFirst, &Storage { places: 2, bounds, ..SMALL });
}

#[test]
fn rule_14_dropped_takes_a_payload_for_evidence() {
    let bounds = Bounds { forged: 1, ..BOUNDS };
    breaks(NO_FALSE_ALARM, Rule::LogNumber, &Storage { bounds, ..SMALL });
}

#[test]
fn rule_15_what_no_record_proves_is_lost() {
    let bounds = Bounds { rots: 1, ..BOUNDS };
    breaks(NOTHING_IS_LOST, Rule::RotIsTold, &Storage { bounds, ..SMALL });
}
