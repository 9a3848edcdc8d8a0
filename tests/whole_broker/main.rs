//! Whole brokers in the simulation: one to three shards, the controller, connections, one process, one seed.
//!
//! Each seed draws a broker and its clients, lets them work, ends the process in the middle (kill, power loss, clean
//! stop, also while it starts), starts it again on the same disk, often with another number of cores, several times, and
//! checks against a ledger of everything that was ever sent:
//! - every batch that was acknowledged, and every one that a consumer has seen, is there: once, unchanged, at its offset,
//!   unless it may be gone (below);
//! - no offset is given twice, none is left out; nothing is there that nobody sent;
//! - batches of one connection are in the order in which it sent them;
//! - what a producer with an identity sends again is stored once and answered as the first time, over every end of the
//!   broker; a gap and an old epoch get their errors, and leave nothing; no identity is given twice;
//! - where clients delete records, or retention does, a log begins where it was said to begin or where somebody asked it
//!   to, never before that again, and what is above stays;
//! - where the flush is relaxed, a kill takes nothing, and the power an end of what was shown within the interval; what was
//!   shown at an offset is there or nothing is;
//! - where a topic is compacted, the latest record of each key is there, and none that a tombstone has deleted;
//! - every request is answered, and as it should be, unless the broker was ended meanwhile;
//! - a topic that was created is there; one that was deleted and created again has nothing of its former life.
//!
//! | file | what |
//! |---|---|
//! | `seeds.rs` | which seeds, side by side, and how to replay one |
//! | `scenario.rs` | the lives of one broker |
//! | `broker.rs` | the broker, wired as `ringmq serve` does it |
//! | `connection.rs` | the native protocol over a simulated connection |
//! | `topics.rs` | the topics that stay, and what becomes of their records |
//! | `producer.rs`, `retrying.rs`, `consumer.rs`, `trim.rs`, `churn.rs` | clients on machines of their own |
//! | `ledger.rs`, `ledger/check.rs` | what was sent, acknowledged and seen, and what must follow from it |
//! | `ledger/relaxed.rs` | what a power failure may take |

mod broker;
mod churn;
mod connection;
mod consumer;
mod ledger;
mod producer;
mod retrying;
mod scenario;
mod seeds;
mod topics;
mod trim;

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmq_runtime::seeded_bug::SeededBug;

/// How many seeds one run tries: some forty seconds on two cores.
const SEEDS: u64 = 500;
/// Seeds within which each of the bugs is found.
const BUG_SEEDS: u64 = 100;

#[test]
fn what_was_acknowledged_outlives_every_end_of_the_broker() {
    let [deleted, replaced, sent_again, lost, moved] = [0; 5].map(AtomicU64::new);
    let count = seeds::try_all(SEEDS, |seed| {
        let outcome = scenario::run(seed);
        deleted.fetch_add(outcome.gone.deleted, Ordering::Relaxed);
        replaced.fetch_add(outcome.gone.replaced, Ordering::Relaxed);
        sent_again.fetch_add(outcome.sent_again, Ordering::Relaxed);
        lost.fetch_add(outcome.lost, Ordering::Relaxed);
        moved.fetch_add(outcome.moved, Ordering::Relaxed);
    });
    let came_to = [deleted, replaced, sent_again, lost, moved].map(AtomicU64::into_inner);
    // Little is shown within one interval, and not every life ends with the power.
    let wanted = [count, count, count, count / 5, count / 2];
    let enough = count < 20 || came_to.iter().zip(wanted).all(|(records, wanted)| *records > wanted);
    assert!(enough, "deleted, replaced, sent again, lost, moved: {came_to:?} with {count} seeds");
}

#[test]
fn a_whole_broker_replays_from_its_seed() {
    let traces: Vec<u64> = (0..3).map(|seed| scenario::run(seed).trace).collect();
    let again: Vec<u64> = (0..3).map(|seed| scenario::run(seed).trace).collect();
    assert_eq!(traces, again);
    assert!(traces[0] != traces[1] && traces[1] != traces[2], "{traces:?}");
}

/// The crash loops of the shard look for every bug (`src/shard/storage/scenarios/seeded_bugs.rs`); here it is the clients
/// that have to see what these do.
#[test]
fn clients_see_what_bugs_do_to_records_that_go() {
    let bugs = [
        SeededBug::SwapBeforeFlush,
        SeededBug::ForgetProducers,
        SeededBug::StartBeforeRecord,
        SeededBug::SkipRelaxedFlush,
    ];
    for bug in bugs {
        let is_found = |seed| catch_unwind(|| scenario::run_with(seed, Some(bug))).is_err();
        assert!((0..BUG_SEEDS).any(is_found), "{bug:?}");
    }
}
