//! Whole brokers in the simulation: two or three shards, the controller, connections, one process, one seed.
//!
//! Each seed draws a broker and its clients, lets them work, ends the process in the middle (kill, power loss, clean
//! stop, also while it starts), starts it again on the same disk, several times, and checks against a ledger of
//! everything that was ever sent:
//! - every batch that was acknowledged, and every one that a consumer has seen, is there: once, unchanged, at its offset;
//! - no offset is given twice, none is left out; nothing is there that nobody sent;
//! - batches of one connection are in the order in which it sent them;
//! - every request is answered, and as it should be, unless the broker was ended meanwhile;
//! - a topic that was created is there; one that was deleted and created again has nothing of its former life.
//!
//! | file | what |
//! |---|---|
//! | `seeds.rs` | which seeds, side by side, and how to replay one |
//! | `scenario.rs` | the lives of one broker |
//! | `broker.rs` | the broker, wired as `ringmq serve` does it |
//! | `connection.rs` | the native protocol over a simulated connection |
//! | `producer.rs`, `consumer.rs`, `churn.rs` | clients on machines of their own |
//! | `ledger.rs` | what was sent, acknowledged and seen, and what must follow from it |

mod broker;
mod churn;
mod connection;
mod consumer;
mod ledger;
mod producer;
mod scenario;
mod seeds;

/// How many seeds one run tries: some twenty seconds on two cores.
const SEEDS: u64 = 250;

#[test]
fn what_was_acknowledged_outlives_every_end_of_the_broker() {
    seeds::try_all(SEEDS, |seed| {
        scenario::run(seed);
    });
}

#[test]
fn a_whole_broker_replays_from_its_seed() {
    let traces: Vec<u64> = (0..3).map(scenario::run).collect();
    let again: Vec<u64> = (0..3).map(scenario::run).collect();
    assert_eq!(traces, again);
    assert!(traces[0] != traces[1] && traces[1] != traces[2], "{traces:?}");
}
