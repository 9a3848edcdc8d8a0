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

/// A log of two batches of one connection, as a broker may show it; then `spoil` has its turn.
fn verdict(spoil: impl FnOnce(&Ledger, &mut Vec<Vec<u8>>)) -> String {
    let sim = Sim::new(SimConfig::default());
    let checked = catch_unwind(AssertUnwindSafe(|| {
        sim.run(|| async {
            let (ledger, place) = (Ledger::default(), place());
            let connection = ledger.open_connection();
            let mut end = Offset::ZERO;
            let mut log = Vec::new();
            for _ in 0..2 {
                let (batch, bytes) = ledger.write_batch(&place, connection, 100);
                log.push(stored(&bytes, end));
                let next = BatchView::parse(&log[log.len() - 1]).unwrap().header().next_offset();
                ledger.acknowledge(batch, end, next);
                end = next;
            }
            spoil(&ledger, &mut log);
            let expected = ledger.expectation(&place);
            let seen: Vec<_> = log.iter().flat_map(|bytes| ledger.see(&place, bytes)).collect();
            ledger.check_whole(&place, &expected, &seen);
        });
    }));
    let payload = checked.err().map(|payload| *payload.downcast::<String>().expect("a message"));
    payload.unwrap_or_else(|| "sound".to_owned())
}

#[test]
fn whatever_a_broker_may_do_to_a_batch_is_told() {
    let end_of = |bytes: &[u8]| BatchView::parse(bytes).unwrap().header().next_offset();
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
        let (_, other) = ledger.write_batch(&place(), 1, 100);
        log[1] = stored(&other, end_of(&log[0]));
    });
    assert!(given_twice.contains("given twice"), "{given_twice}");
    let nobodys = verdict(|_, log| {
        let other = Ledger::default();
        let batches = [0; 3].map(|_| other.write_batch(&place(), 1, 100).1);
        log.push(stored(&batches[2], end_of(&log[1])));
    });
    assert!(nobodys.contains("nobody has sent"), "{nobodys}");
    let elsewhere = verdict(|ledger, log| {
        let (_, other) = ledger.write_batch(&Place { life: 1, ..place() }, 1, 100);
        log.push(stored(&other, end_of(&log[1])));
    });
    assert!(elsewhere.contains("not sent to"), "{elsewhere}");
    let swapped = verdict(|ledger, log| {
        let batches = [0; 2].map(|_| ledger.write_batch(&place(), 1, 100).1);
        log.push(stored(&batches[1], end_of(&log[1])));
        log.push(stored(&batches[0], end_of(&log[2])));
    });
    assert!(swapped.contains("was sent before"), "{swapped}");
}

#[test]
fn an_acknowledgement_that_cannot_be_true_is_told() {
    let overlaps = verdict(|ledger, _| {
        let (batch, bytes) = ledger.write_batch(&place(), 1, 100);
        let records = end_of_first(&bytes);
        ledger.acknowledge(batch, Offset::ZERO, records);
    });
    assert!(overlaps.contains("given twice") || overlaps.contains("overlaps"), "{overlaps}");
    let miscounted = verdict(|ledger, _| {
        let (batch, _) = ledger.write_batch(&place(), 1, 100);
        ledger.acknowledge(batch, Offset::new(100), Offset::new(200));
    });
    assert!(miscounted.contains("takes"), "{miscounted}");
}

fn end_of_first(bytes: &Bytes) -> Offset {
    BatchView::parse(bytes).unwrap().header().next_offset()
}
