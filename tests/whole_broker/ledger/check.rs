//! Whether a log that was read from start to end is what it has to be.

use std::collections::BTreeMap;

use ringmq_runtime::time::Instant;
use ringmq_wire::Offset;

use super::super::topics::{RETENTION_BYTES, TOMBSTONE_RETENTION};
use super::{BatchId, Expectation, Key, Ledger, Place, SeenBatch, SeenRecord, Sent};

/// A log as it was read.
pub(crate) struct ReadLog {
    /// Where it began when the last of it was read.
    pub(crate) start: Offset,
    pub(crate) batches: Vec<SeenBatch>,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gone {
    /// Records below the log's start.
    pub(crate) deleted: u64,
    /// Records that later ones have replaced.
    pub(crate) replaced: u64,
}

impl Ledger {
    /// Compares a log, read from its start to its end after `expected` was taken, with all that is known. Returns what was
    /// expected and need not be there any more.
    pub(crate) fn check(&self, place: &Place, expected: &Expectation, log: &ReadLog) -> Gone {
        let sent = self.0.sent.borrow();
        let records: BTreeMap<Offset, SeenRecord> = log
            .batches
            .iter()
            .flat_map(|batch| batch.records.iter().map(|record| (record.offset, *record)))
            .filter(|(offset, _)| *offset >= log.start)
            .collect();
        check_order(place, &sent, &records);
        self.0.relaxed.borrow().check(place);
        let known = Vec::from_iter(expected.records(&sent));
        let (below, known): (Vec<_>, Vec<_>) = known.into_iter().partition(|record| record.offset < log.start);
        if place.is_compacted() {
            check_latest(place, &sent, &known, &records, expected.since);
        } else {
            check_whole(place, log, &known, &records);
        }
        if place.is_retained() && log.start > Offset::ZERO {
            let bytes: usize =
                log.batches.iter().map(|batch| batch.records[0].batch).map(|id| sent[id.0].bytes.len()).sum();
            // Padding counts, and what a crash took that was in flight.
            assert!(bytes as u64 >= RETENTION_BYTES / 4, "{place}: {bytes} bytes stayed of {RETENTION_BYTES}");
        }
        let there = known.iter().filter(|record| records.contains_key(&record.offset)).count();
        Gone { deleted: below.len() as u64, replaced: (known.len() - there) as u64 }
    }
}

impl Expectation {
    fn records(&self, sent: &[Sent]) -> impl Iterator<Item = SeenRecord> {
        self.known.iter().flat_map(|(base, known)| {
            let records = (0..sent[known.batch.0].records).zip(base.get()..);
            records.map(|(number, offset)| SeenRecord { offset: Offset::new(offset), batch: known.batch, number })
        })
    }
}

/// Batches of one sender are in the order of sending.
fn check_order(place: &Place, sent: &[Sent], records: &BTreeMap<Offset, SeenRecord>) {
    let mut last: BTreeMap<u64, BatchId> = BTreeMap::new();
    for (offset, record) in records {
        let batch = record.batch;
        if let Some(before) = last.insert(sent[batch.0].sender, batch) {
            assert!(before <= batch, "{place}: {batch:?} at {offset} was sent before {before:?}, by the same sender");
        }
    }
}

/// Every offset from the start on is there, and everything that is known.
fn check_whole(place: &Place, log: &ReadLog, known: &[SeenRecord], records: &BTreeMap<Offset, SeenRecord>) {
    let mut end = log.start;
    for batch in &log.batches {
        let missing = batch.base > end && batch.next > log.start;
        assert!(!missing, "{place}: offsets are left out between {end} and {}", batch.base);
        end = end.max(batch.next);
    }
    for record in known {
        let there = records.get(&record.offset);
        assert!(there == Some(record), "{place}: {record:?} is lost: {there:?} is there; the log ends at {end}");
    }
}

/// Of each key the latest record is there, if it is no tombstone; and nothing that a tombstone has deleted.
fn check_latest(
    place: &Place,
    sent: &[Sent],
    known: &[SeenRecord],
    records: &BTreeMap<Offset, SeenRecord>,
    since: Instant,
) {
    // Who takes longer to read it may miss a tombstone.
    if since.elapsed() * 2 > TOMBSTONE_RETENTION {
        return;
    }
    let key_of = |record: &SeenRecord| -> Key { sent[record.batch.0].keys[record.number as usize] };
    let latest = |records: &mut dyn Iterator<Item = &SeenRecord>| {
        records.map(|record| (key_of(record).key, *record)).collect::<BTreeMap<_, _>>()
    };
    let (expected, there) = (latest(&mut known.iter()), latest(&mut records.values()));
    for (key, expected) in expected {
        let there = there.get(&key);
        let is_deleted = there.is_none() && key_of(&expected).is_tombstone;
        let is_there = there.is_some_and(|there| there.offset >= expected.offset);
        assert!(
            is_there || is_deleted,
            "{place}: the latest of key {key} was {expected:?} and is lost: {there:?} is there"
        );
    }
}
