//! What was sent, acknowledged and seen, and what must follow from it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use ringmq_runtime::random;
use ringmq_wire::batch::{BatchBuilder, BatchError, BatchView, Compression, Scratch, split_batches};
use ringmq_wire::{Offset, Timestamp};

/// A batch's number, counted up from 0 in the order of sending; its records carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BatchId(usize);

/// One life of a partition: a topic that is deleted and created again has other ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) topic: String,
    /// Counts how often the topic was created.
    pub(crate) life: u32,
    pub(crate) partition: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} (life {})", self.topic, self.partition, self.life)
    }
}

struct Sent {
    place: Place,
    /// Who sent it: batches of one connection are stored in the order of sending.
    connection: u64,
    bytes: Bytes,
    records: u64,
}

/// Where a batch is, as an acknowledgement or a consumer has shown. It stays there for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    batch: BatchId,
    next: Offset,
}

/// The ledger of one scenario. Every method panics when a promise is broken.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Rc<Books>);

#[derive(Default)]
struct Books {
    sent: RefCell<Vec<Sent>>,
    /// By base offset.
    known: RefCell<BTreeMap<Place, BTreeMap<Offset, Known>>>,
    connections: Cell<u64>,
    acknowledged: Cell<u64>,
}

/// Behind the base offset, the length and the leader epoch a stored batch is as it was sent.
const AS_SENT_FROM: usize = 16;

impl Ledger {
    /// A number for a connection that is about to be opened.
    pub(crate) fn open_connection(&self) -> u64 {
        self.0.connections.set(self.0.connections.get() + 1);
        self.0.connections.get()
    }

    /// How many batches were acknowledged.
    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.0.acknowledged.get()
    }

    /// Makes a batch like no other, which is about to be sent to a place.
    pub(crate) fn write_batch(&self, place: &Place, connection: u64, value_bytes: usize) -> (BatchId, Bytes) {
        let mut sent = self.0.sent.borrow_mut();
        let batch = BatchId(sent.len());
        let records = 1 + random::u64() % 3;
        let mut builder = BatchBuilder::new(Compression::None);
        for record in 0..records {
            let mut value = format!("{} {record} ", batch.0).into_bytes();
            let filling = value.len()..value.len().max(value_bytes);
            value.resize(filling.end, 0);
            random::fill(&mut value[filling]);
            let timestamp = Timestamp::new(1_700_000_000_000);
            builder.append_parts(timestamp, None, Some(&value), std::iter::empty()).expect("it fits a batch");
        }
        let bytes = builder.finish().expect("it has records");
        sent.push(Sent { place: place.clone(), connection, bytes: bytes.clone(), records });
        (batch, bytes)
    }

    /// The broker has acknowledged a batch.
    pub(crate) fn acknowledge(&self, batch: BatchId, base: Offset, next: Offset) {
        let (place, records) = {
            let sent = &self.0.sent.borrow()[batch.0];
            (sent.place.clone(), sent.records)
        };
        let taken = next.get() - base.get();
        assert!(u64::try_from(taken) == Ok(records), "{place}: {batch:?} of {records} records takes {base} to {next}");
        self.0.acknowledged.set(self.0.acknowledged.get() + 1);
        self.know(&place, base, Known { batch, next });
    }

    /// A consumer has read these bytes. Returns which batches they are, with their base offsets, and where they end.
    pub(crate) fn see(&self, place: &Place, bytes: &[u8]) -> Vec<(Offset, BatchId, Offset)> {
        let see_one = |batch: Result<BatchView<'_>, BatchError>| {
            let batch = batch.unwrap_or_else(|error| panic!("{place}: not a batch: {error}"));
            let (base, next) = (batch.header().base_offset, batch.header().next_offset());
            let id = self.recognize(place, &batch);
            self.know(place, base, Known { batch: id, next });
            (base, id, next)
        };
        split_batches(bytes).map(see_one).collect()
    }

    /// Which batch it is; it was sent to that place and is as it was sent.
    fn recognize(&self, place: &Place, batch: &BatchView<'_>) -> BatchId {
        let base = batch.header().base_offset;
        let mut scratch = Scratch::default();
        let number = batch.records(&mut scratch).ok().and_then(|mut records| {
            let value = records.next()?.ok()?.value?.to_vec();
            let digits = value.split(|byte| *byte == b' ').next()?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        });
        let number: usize = number.unwrap_or_else(|| panic!("{place}: nobody sent what is at {base}"));
        let sent = self.0.sent.borrow();
        let sent = sent.get(number).unwrap_or_else(|| panic!("{place}: nobody has sent batch {number} at {base}"));
        assert_eq!(sent.place, *place, "batch {number} is where it was not sent to, at {base}");
        assert!(sent.bytes[AS_SENT_FROM..] == batch.bytes()[AS_SENT_FROM..], "{place}: batch {number} was changed");
        BatchId(number)
    }

    /// Notes for ever where a batch is.
    fn know(&self, place: &Place, base: Offset, known: Known) {
        let mut places = self.0.known.borrow_mut();
        let offsets = places.entry(place.clone()).or_default();
        if let Some(before) = offsets.get(&base) {
            assert_eq!(*before, known, "{place}: offset {base} was given twice");
            return;
        }
        if let Some((twice, _)) = offsets.iter().find(|(_, other)| other.batch == known.batch) {
            panic!("{place}: {:?} is stored twice, at {twice} and at {base}", known.batch);
        }
        let before = offsets.range(..base).next_back().is_none_or(|(_, before)| before.next <= base);
        let after = offsets.range(base..).next().is_none_or(|(after, _)| known.next <= *after);
        assert!(before && after, "{place}: {base} to {} overlaps what was there before", known.next);
        offsets.insert(base, known);
    }

    /// What must be found at a place from now on.
    pub(crate) fn expectation(&self, place: &Place) -> Expectation {
        Expectation { known: self.0.known.borrow().get(place).cloned().unwrap_or_default() }
    }

    /// Compares a log, read from its start to its end after `expected` was taken, with all that is known.
    pub(crate) fn check_whole(&self, place: &Place, expected: &Expectation, log: &[(Offset, BatchId, Offset)]) {
        let mut end = Offset::ZERO;
        for (base, batch, next) in log {
            assert_eq!(*base, end, "{place}: offsets are left out before {batch:?}");
            end = *next;
        }
        for (base, known) in &expected.known {
            let there = log.contains(&(*base, known.batch, known.next));
            assert!(there, "{place}: {:?} was at {base} and is lost; the log ends at {end}", known.batch);
        }
        let sent = self.0.sent.borrow();
        let mut last: BTreeMap<u64, BatchId> = BTreeMap::new();
        for (base, batch, _) in log {
            let connection = sent[batch.0].connection;
            if let Some(before) = last.insert(connection, *batch) {
                assert!(before < *batch, "{place}: {batch:?} at {base} was sent before {before:?}, on one connection");
            }
        }
    }
}

/// Batches that must be at a place.
pub(crate) struct Expectation {
    known: BTreeMap<Offset, Known>,
}

#[cfg(test)]
mod tests;
