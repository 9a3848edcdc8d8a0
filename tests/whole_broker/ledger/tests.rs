//! The ledger finds what it is there to find.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ringmq_runtime::sim::{Sim, SimConfig};
use ringmq_wire::batch::set_base_offset;

use super::*;

fn place() -> Place {
    Place { topic: "topic".to_owned(), life: 0, partition: 0 }
}

/// A batch as a broker stores it.
fn stored(bytes: &Bytes, base: Offset) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    set_base_offset(&mut bytes, base);
    bytes
}

/// A log of two batches of one sender, as a broker may show it; then `spoil` has its turn.
fn verdict(spoil: impl FnOnce(&Ledger, &mut Vec<Vec<u8>>)) -> String {
    verdict_from(Offset::ZERO, spoil)
}

/// The same of a log that is read from `start` on.
fn verdict_from(start: Offset, spoil: impl FnOnce(&Ledger, &mut Vec<Vec<u8>>)) -> String {
    judge(|| {
        let (ledger, place) = (Ledger::default(), place());
        let sender = ledger.new_sender();
        let mut end = Offset::ZERO;
        let mut log = Vec::new();
        for _ in 0..2 {
            let (batch, bytes) = ledger.write_batch(&place, sender, 100, None);
            log.push(stored(&bytes, end));
            let next = end_of(&log[log.len() - 1]);
            ledger.acknowledge(batch, end, next);
            end = next;
        }
        spoil(&ledger, &mut log);
        let expected = ledger.expectation(&place);
        ledger.see_start(&place, Offset::ZERO, start);
        let batches = log.iter().flat_map(|bytes| ledger.see(&place, bytes)).collect();
        ledger.check(&place, &expected, &ReadLog { start, batches });
    })
}

/// What is wrong, if anything.
fn judge(broker: impl FnOnce()) -> String {
    let sim = Sim::new(SimConfig::default());
    let checked = catch_unwind(AssertUnwindSafe(|| sim.run(|| async { broker() })));
    let payload = checked.err().map(|payload| *payload.downcast::<String>().expect("a message"));
    payload.unwrap_or_else(|| "sound".to_owned())
}

fn end_of(bytes: &[u8]) -> Offset {
    BatchView::parse(bytes).unwrap().header().next_offset()
}

#[test]
fn whatever_a_broker_may_do_to_a_batch_is_told() {
    assert_eq!(verdict(|_, _| ()), "sound");
    let lost = verdict(|_, log| drop(log.pop()));
    assert!(lost.contains("is lost"), "{lost}");
    let lost_first = verdict(|_, log| drop(log.remove(0)));
    assert!(lost_first.contains("left out"), "{lost_first}");
    let changed = verdict(|_, log| *log[0].last_mut().unwrap() ^= 1);
    assert!(changed.contains("was changed"), "{changed}");
    let twice = verdict(|_, log| {
        let again = stored(&log[0].clone().into(), end_of(&log[1]));
        log.push(again);
    });
    assert!(twice.contains("stored twice"), "{twice}");
    let given_twice = verdict(|ledger, log| {
        let (_, other) = ledger.write_batch(&place(), 1, 100, None);
        log[1] = stored(&other, end_of(&log[0]));
    });
    assert!(given_twice.contains("given twice"), "{given_twice}");
    let nobodys = verdict(|_, log| {
        let other = Ledger::default();
        let batches = [0; 3].map(|_| other.write_batch(&place(), 1, 100, None).1);
        log.push(stored(&batches[2], end_of(&log[1])));
    });
    assert!(nobodys.contains("nobody has sent"), "{nobodys}");
    let elsewhere = verdict(|ledger, log| {
        let (_, other) = ledger.write_batch(&Place { life: 1, ..place() }, 1, 100, None);
        log.push(stored(&other, end_of(&log[1])));
    });
    assert!(elsewhere.contains("not sent to"), "{elsewhere}");
    let swapped = verdict(|ledger, log| {
        let batches = [0; 2].map(|_| ledger.write_batch(&place(), 1, 100, None).1);
        log.push(stored(&batches[1], end_of(&log[1])));
        log.push(stored(&batches[0], end_of(&log[2])));
    });
    assert!(swapped.contains("was sent before"), "{swapped}");
}

#[test]
fn an_acknowledgement_that_cannot_be_true_is_told() {
    let overlaps = verdict(|ledger, _| {
        let (batch, bytes) = ledger.write_batch(&place(), 1, 100, None);
        let records = end_of(&bytes);
        ledger.acknowledge(batch, Offset::ZERO, records);
    });
    assert!(overlaps.contains("given twice") || overlaps.contains("overlaps"), "{overlaps}");
    let miscounted = verdict(|ledger, _| {
        let (batch, _) = ledger.write_batch(&place(), 1, 100, None);
        ledger.acknowledge(batch, Offset::new(100), Offset::new(200));
    });
    assert!(miscounted.contains("takes"), "{miscounted}");
}

#[test]
fn a_log_that_begins_where_it_must_not_is_told() {
    let trimmed = |asked: bool| {
        verdict_from(Offset::new(1), |ledger, _| {
            if asked {
                ledger.ask_to_delete(&place(), Offset::new(1))
            }
        })
    };
    assert_eq!(trimmed(true), "sound");
    assert!(trimmed(false).contains("nobody asked"), "{}", trimmed(false));
    let back = judge(|| {
        let ledger = Ledger::default();
        ledger.ask_to_delete(&place(), Offset::new(9));
        ledger.see_start(&place(), Offset::ZERO, Offset::new(5));
        ledger.see_start(&place(), ledger.start(&place()), Offset::new(4));
    });
    assert!(back.contains("begins at 4 again"), "{back}");
    // What is above the start stays.
    let lost = verdict_from(Offset::new(1), |ledger, log| {
        ledger.ask_to_delete(&place(), Offset::new(1));
        log.clear();
    });
    assert!(lost.contains("is lost"), "{lost}");
}

#[test]
fn what_is_sent_again_and_what_is_refused_is_watched() {
    let again = verdict(|ledger, _| ledger.acknowledge(BatchId(0), Offset::ZERO, first_end(ledger)));
    assert_eq!(again, "sound");
    let elsewhere = verdict(|ledger, _| {
        let taken = first_end(ledger).get();
        ledger.acknowledge(BatchId(0), Offset::new(100), Offset::new(100 + taken));
    });
    assert!(elsewhere.contains("stored twice"), "{elsewhere}");
    let refused = verdict(|ledger, log| {
        let (batch, bytes) = ledger.write_batch(&place(), 1, 100, None);
        ledger.refuse(batch);
        log.push(stored(&bytes, end_of(&log[1])));
    });
    assert!(refused.contains("was refused"), "{refused}");
    let identity = judge(|| {
        let ledger = Ledger::default();
        ledger.identify(ProducerId::new(7));
        ledger.identify(ProducerId::new(7));
    });
    assert!(identity.contains("given twice"), "{identity}");
}

fn first_end(ledger: &Ledger) -> Offset {
    Offset::new(ledger.record_count(BatchId(0)).into())
}

/// A compacted log of 40 batches, of which those stay that `stays` says of their number, and number and key of its records.
fn compacted_verdict(stays: impl Fn(&Ledger, BatchId) -> bool) -> String {
    judge(|| {
        let (ledger, place) = (Ledger::default(), Place { topic: topics::COMPACTED.to_owned(), ..place() });
        let (mut end, mut log) = (Offset::ZERO, Vec::new());
        for _ in 0..40 {
            let (batch, bytes) = ledger.write_batch(&place, 1, 100, None);
            let bytes = stored(&bytes, end);
            let next = end_of(&bytes);
            ledger.acknowledge(batch, end, next);
            end = next;
            log.push((batch, bytes));
        }
        let expected = ledger.expectation(&place);
        let left = log.iter().filter(|(batch, _)| stays(&ledger, *batch));
        let batches = left.flat_map(|(_, bytes)| ledger.see(&place, bytes)).collect();
        ledger.check(&place, &expected, &ReadLog { start: Offset::ZERO, batches });
    })
}

/// Whether a batch has the latest record of a key, which is a tombstone or is not.
fn is_latest(ledger: &Ledger, batch: BatchId, tombstone: bool) -> bool {
    let sent = ledger.0.sent.borrow();
    let latest =
        |key: &Key| sent[batch.0 + 1..].iter().all(|later| later.keys.iter().all(|other| other.key != key.key));
    sent[batch.0].keys.iter().any(|key| key.is_tombstone == tombstone && latest(key))
}

#[test]
fn a_compacted_log_that_lacks_what_counts_is_told() {
    assert_eq!(compacted_verdict(|_, _| true), "sound");
    let latest = |ledger: &Ledger, batch| is_latest(ledger, batch, false) || is_latest(ledger, batch, true);
    assert_eq!(compacted_verdict(latest), "sound");
    let lost = compacted_verdict(|ledger, batch| !is_latest(ledger, batch, false));
    assert!(lost.contains("is lost"), "{lost}");
    let back = compacted_verdict(|ledger, batch| !is_latest(ledger, batch, true));
    assert!(back.contains("is lost"), "{back}");
}
