use proptest::prelude::*;
use ringmq_wire::{PartitionIndex, TopicId};

use super::*;

const ID: LogId = LogId { topic_id: TopicId::METADATA, partition: PartitionIndex::new(0) };
const NUMBER: LogNumber = LogNumber(42);

fn known(starts: &[(u64, i64)]) -> LogGenerations {
    let (generation, start) = starts[0];
    let mut log = LogGenerations::new(NUMBER, Generation(generation), Offset::new(start));
    for (generation, start) in &starts[1..] {
        log.opened(Generation(*generation), Offset::new(*start));
    }
    log
}

fn owns(log: &LogGenerations, generation: u64, from: i64, to: i64) -> bool {
    log.owns(Generation(generation), Offset::new(from)..Offset::new(to))
}

#[test]
fn the_highest_generation_that_starts_at_or_below_owns_an_offset() {
    let log = known(&[(1, 0), (2, 50), (3, 50), (5, 80)]);
    assert!(owns(&log, 1, 0, 50) && owns(&log, 3, 50, 80) && owns(&log, 5, 80, 1000));
    assert!(!owns(&log, 2, 50, 51), "3 starts there as well");
    assert!(!owns(&log, 1, 49, 51), "a frame belongs to one generation as a whole");
    assert!(!owns(&log, 3, 49, 60) && !owns(&log, 3, 79, 81) && !owns(&log, 4, 60, 70));
    assert_eq!(log.latest(), (Generation(5), Offset::new(80)));
}

#[test]
fn a_truncation_takes_what_older_generations_owned_behind_it() {
    let log = known(&[(1, 0), (2, 60), (3, 50)]);
    assert!(owns(&log, 1, 0, 50) && owns(&log, 3, 50, 70));
    assert!(!owns(&log, 1, 50, 51) && !owns(&log, 2, 60, 61));
}

#[test]
fn a_clean_stop_counts_for_the_latest_generation_alone() {
    let mut log = known(&[(1, 0)]);
    log.closed(Generation(1), Offset::new(70));
    assert_eq!((log.clean_end(), log.proven_end()), (Some(Offset::new(70)), Offset::new(70)));
    log.opened(Generation(2), Offset::new(70));
    assert_eq!((log.clean_end(), log.proven_end()), (None, Offset::new(70)));
    log.opened(Generation(3), Offset::new(30));
    assert_eq!((log.clean_end(), log.proven_end()), (None, Offset::new(30)), "truncated since");
    log.closed(Generation(2), Offset::new(90));
    assert_eq!(log.proven_end(), Offset::new(30));
}

#[test]
fn a_repair_cuts_voids_verdicts_and_proves_no_frames() {
    let mut log = known(&[(1, 0), (2, 50)]);
    log.closed(Generation(2), Offset::new(90));
    log.found_corrupt(Generation(2), Offset::new(90));
    assert_eq!(log.corrupt(), Some(Offset::new(90)));
    log.repaired(Generation(3), Offset::new(70));
    assert_eq!((log.corrupt(), log.repaired_end(), log.clean_end()), (None, Some(Offset::new(70)), None));
    assert_eq!(log.proven_end(), Offset::new(50), "the journals may have what lies between");
    assert!(owns(&log, 2, 50, 70) && !owns(&log, 2, 60, 71), "what was cut does not come back");

    log.opened(Generation(4), Offset::new(70));
    assert_eq!((log.corrupt(), log.repaired_end(), log.proven_end()), (None, None, Offset::new(70)));
    log.found_corrupt(Generation(4), Offset::new(80));
    assert_eq!(log.corrupt(), Some(Offset::new(80)), "found since");
}

#[test]
fn a_verdict_without_a_generation_is_void_after_any_repair() {
    let mut log = known(&[(1, 0)]);
    log.repaired(Generation(2), Offset::new(5));
    log.found_corrupt(Generation(0), Offset::new(9));
    assert_eq!(log.corrupt(), None);
}

#[test]
fn where_the_log_begins_frames_were_durable() {
    let mut log = known(&[(1, 0), (2, 40)]);
    log.started(Offset::new(30));
    assert_eq!((log.log_start(), log.proven_end()), (Offset::new(30), Offset::new(40)));
    log.started(Offset::new(60));
    log.started(Offset::new(50));
    assert_eq!((log.log_start(), log.proven_end()), (Offset::new(60), Offset::new(60)), "the highest counts");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn facts_may_come_in_any_order_and_twice(
        starts in prop::collection::vec(0_i64..20, 1..12),
        closed in prop::option::of((0_usize..12, 0_i64..30)),
        order in any::<prop::sample::Index>(),
        probe in 0_i64..25,
    ) {
        let facts: Vec<(u64, i64)> = (1..).zip(starts).collect();
        let mut expected = known(&facts);
        let mut shuffled = facts.clone();
        shuffled.rotate_left(order.index(facts.len()));
        shuffled.reverse();
        shuffled.extend_from_slice(&facts[..order.index(facts.len())]);
        let mut log = known(&shuffled);
        if let Some((at, end)) = closed {
            let (generation, _) = facts[at % facts.len()];
            expected.closed(Generation(generation), Offset::new(end));
            log.closed(Generation(generation), Offset::new(end));
        }
        if probe % 2 == 0 {
            expected.found_corrupt(Generation(1), Offset::new(probe));
            log.found_corrupt(Generation(1), Offset::new(probe));
        }
        if probe % 3 == 0 {
            for start in [probe, probe / 2] {
                log.started(Offset::new(start));
            }
            expected.started(Offset::new(probe));
            for until in [probe, probe / 3] {
                log.reserved(Offset::new(until));
            }
            expected.reserved(Offset::new(probe));
        }
        prop_assert_eq!(&log, &expected);

        // The definition, word by word.
        let owner = facts.iter().filter(|(_, start)| *start <= probe).map(|(generation, _)| *generation).max();
        for (generation, _) in &facts {
            prop_assert_eq!(owns(&log, *generation, probe, probe + 1), Some(*generation) == owner);
            let later = facts.iter().filter(|(other, _)| other > generation).map(|(_, start)| *start).min();
            prop_assert_eq!(log.owned_end(Generation(*generation)), later.map_or(Offset::MAX, Offset::new));
        }

        // And what is written down again says the same.
        let mut again: Option<LogGenerations> = None;
        for fact in log.facts(ID) {
            match fact {
                Fact::Removed { .. } => unreachable!("it was not removed"),
                Fact::Opened { number, generation, start, .. } if again.is_none() => {
                    again = Some(LogGenerations::new(number, generation, start));
                }
                fact => again.as_mut().expect("opened first").learn(&fact),
            }
        }
        prop_assert_eq!(again, Some(log));
    }
}
