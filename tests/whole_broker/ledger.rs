//! What was sent, acknowledged and seen, and what must follow from it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use ringmq_runtime::random;
use ringmq_runtime::time::Instant;
use ringmq_wire::batch::{
    BatchBuilder, BatchError, BatchProducer, BatchView, Compression, Record, RecordRef, Scratch, set_producer,
    split_batches,
};
use ringmq_wire::{Offset, ProducerId, Timestamp};

use super::topics;
use relaxed::Relaxed;

mod check;
mod relaxed;

pub(crate) use check::{Gone, ReadLog};

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

impl Place {
    /// Whether later records replace those with the same key.
    pub(crate) fn is_compacted(&self) -> bool {
        self.topic == topics::COMPACTED
    }

    /// Whether the oldest records go when there are too many.
    pub(crate) fn is_retained(&self) -> bool {
        self.topic == topics::RETAINED
    }

    /// Whether records are shown before they are durable.
    pub(crate) fn is_relaxed(&self) -> bool {
        self.topic == topics::RELAXED
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} (life {})", self.topic, self.partition, self.life)
    }
}

struct Sent {
    place: Place,
    /// Who sent it: batches of one connection, or of one idempotent producer, are stored in the order of sending.
    sender: u64,
    bytes: Bytes,
    records: u32,
    /// Of each record, where the place is compacted.
    keys: Vec<Key>,
    acknowledged: bool,
    /// It was answered that it is not stored.
    refused: bool,
    /// Where it is, as an acknowledgement or a consumer has shown.
    base: Option<Offset>,
}

/// What compaction goes by.
#[derive(Clone, Copy, Debug)]
struct Key {
    key: u8,
    is_tombstone: bool,
}

/// Where a batch is, as an acknowledgement or a consumer has shown. It stays there for ever, as long as it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    batch: BatchId,
    next: Offset,
}

/// Where a place begins, as far as is known.
#[derive(Clone, Copy, Debug)]
struct Start {
    /// Somebody was told so: it never begins before that again.
    known: Offset,
    /// Nobody asked for more.
    asked: Offset,
}

/// A record as a consumer has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeenRecord {
    pub(crate) offset: Offset,
    batch: BatchId,
    /// Counted from 0 in its batch.
    number: u32,
}

/// A batch as a consumer has read it: compaction may have left less of it than was sent, or put what stands for missing
/// records in its place.
pub(crate) struct SeenBatch {
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    pub(crate) records: Vec<SeenRecord>,
}

/// The ledger of one scenario. Every method panics when a promise is broken.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Rc<Books>);

#[derive(Default)]
struct Books {
    sent: RefCell<Vec<Sent>>,
    /// By base offset.
    known: RefCell<BTreeMap<Place, BTreeMap<Offset, Known>>>,
    starts: RefCell<BTreeMap<Place, Start>>,
    relaxed: RefCell<Relaxed>,
    producers: RefCell<BTreeSet<ProducerId>>,
    senders: Cell<u64>,
    acknowledged: Cell<u64>,
    sent_again: Cell<u64>,
}

/// Behind the base offset, the length and the leader epoch a stored batch is as it was sent.
const AS_SENT_FROM: usize = 16;

/// The header of a keyed record that says which one it is.
const IDENTITY: &str = "identity";

/// Few, so that most records are replaced.
const KEYS: u64 = 12;

impl Ledger {
    /// A number for a connection, or an idempotent producer, that is about to send.
    pub(crate) fn new_sender(&self) -> u64 {
        self.0.senders.set(self.0.senders.get() + 1);
        self.0.senders.get()
    }

    /// The broker has given this identity to a producer, and to no other one.
    pub(crate) fn identify(&self, producer: ProducerId) {
        assert!(self.0.producers.borrow_mut().insert(producer), "producer id {producer} was given twice");
    }

    /// How many batches were acknowledged.
    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.0.acknowledged.get()
    }

    /// How many batches were acknowledged again when they were sent again.
    pub(crate) fn sent_again_count(&self) -> u64 {
        self.0.sent_again.get()
    }

    /// Makes a batch like no other, which is about to be sent to a place, by an idempotent producer or any.
    pub(crate) fn write_batch(
        &self,
        place: &Place,
        sender: u64,
        value_bytes: usize,
        producer: Option<BatchProducer>,
    ) -> (BatchId, Bytes) {
        let mut sent = self.0.sent.borrow_mut();
        let batch = BatchId(sent.len());
        let (mut builder, mut keys) = (BatchBuilder::new(compression(place)), Vec::new());
        let records = 1 + u32::try_from(random::u64() % 3).expect("small");
        for record in 0..records {
            let identity = format!("{} {record} ", batch.0).into_bytes();
            let timestamp = Timestamp::new(1_700_000_000_000);
            if !place.is_compacted() {
                let value = filled(identity, value_bytes);
                builder.append_parts(timestamp, None, Some(&value), std::iter::empty()).expect("it fits a batch");
                continue;
            }
            let key =
                Key { key: (random::u64() % KEYS).to_be_bytes()[7], is_tombstone: random::u64().is_multiple_of(4) };
            let value = (!key.is_tombstone).then(|| filled(Vec::new(), value_bytes));
            let headers = [(IDENTITY, Some(&identity[..]))];
            let record = RecordRef { timestamp, key: Some(&[key.key]), value: value.as_deref(), headers: &headers };
            builder.append(&record).expect("it fits a batch");
            keys.push(key);
        }
        let mut bytes = builder.finish().expect("it has records").to_vec();
        if let Some(producer) = producer {
            set_producer(&mut bytes, producer);
        }
        let bytes = Bytes::from(bytes);
        let (place, bytes_sent) = (place.clone(), bytes.clone());
        sent.push(Sent {
            place,
            sender,
            bytes: bytes_sent,
            records,
            keys,
            acknowledged: false,
            refused: false,
            base: None,
        });
        (batch, bytes)
    }

    /// How many records it was sent with.
    pub(crate) fn record_count(&self, batch: BatchId) -> u32 {
        self.0.sent.borrow()[batch.0].records
    }

    /// The broker has acknowledged a batch. It may do so again when it is sent again.
    pub(crate) fn acknowledge(&self, batch: BatchId, base: Offset, next: Offset) {
        let (place, records) = {
            let sent = &mut self.0.sent.borrow_mut()[batch.0];
            self.0.sent_again.set(self.0.sent_again.get() + u64::from(sent.acknowledged));
            sent.acknowledged = true;
            (sent.place.clone(), i64::from(sent.records))
        };
        let taken = next.get() - base.get();
        assert!(taken == records, "{place}: {batch:?} of {records} records takes {base} to {next}");
        self.0.acknowledged.set(self.0.acknowledged.get() + 1);
        self.know(&place, base, Known { batch, next });
    }

    /// The broker has said that it does not store a batch, and never will.
    pub(crate) fn refuse(&self, batch: BatchId) {
        let sent = &mut self.0.sent.borrow_mut()[batch.0];
        assert_eq!(sent.base, None, "{}: {batch:?} is stored and was refused", sent.place);
        sent.refused = true;
    }

    /// A consumer has read these bytes. Returns what they are.
    pub(crate) fn see(&self, place: &Place, bytes: &[u8]) -> Vec<SeenBatch> {
        let see_one = |batch: Result<BatchView<'_>, BatchError>| {
            let batch = batch.unwrap_or_else(|error| panic!("{place}: not a batch: {error}"));
            if place.is_compacted() { self.see_what_is_left(place, &batch) } else { self.see_whole(place, &batch) }
        };
        split_batches(bytes).map(see_one).collect()
    }

    /// A batch that was sent to that place and is as it was sent.
    fn see_whole(&self, place: &Place, batch: &BatchView<'_>) -> SeenBatch {
        let (base, next) = (batch.header().base_offset, batch.header().next_offset());
        if place.is_relaxed() && batch.header().record_count == 0 {
            // In the place of offsets that were lost, or never given.
            return SeenBatch { base, next, records: Vec::new() };
        }
        let mut scratch = Scratch::default();
        let first = batch.records(&mut scratch).ok().and_then(|mut records| records.next()?.ok());
        let identity = first.as_ref().and_then(|record| identified(record.value?));
        let (id, _) = identity.unwrap_or_else(|| panic!("{place}: nobody sent what is at {base}"));
        let records = {
            let sent = self.0.sent.borrow();
            let sent = sent_as(&sent, id, place, base);
            assert!(sent.bytes[AS_SENT_FROM..] == batch.bytes()[AS_SENT_FROM..], "{place}: {id:?} was changed");
            sent.records
        };
        self.know(place, base, Known { batch: id, next });
        let records = (0..records).zip(base.get()..);
        let seen = records.map(|(number, offset)| SeenRecord { offset: Offset::new(offset), batch: id, number });
        SeenBatch { base, next, records: seen.collect() }
    }

    /// Records that were sent to that place and are as they were sent.
    fn see_what_is_left(&self, place: &Place, batch: &BatchView<'_>) -> SeenBatch {
        let (base, next) = (batch.header().base_offset, batch.header().next_offset());
        batch.verify_checksum().unwrap_or_else(|error| panic!("{place}: the batch at {base} is damaged: {error}"));
        let mut scratch = Scratch::default();
        let records = batch.records(&mut scratch).expect("it can be decoded");
        let see_one = |record: Result<Record<'_>, BatchError>| {
            let record = record.expect("it can be decoded");
            let (offset, identity) = (record.offset, identity_of(&record));
            let (batch, number) = identity.unwrap_or_else(|| panic!("{place}: nobody sent what is at {offset}"));
            let records = {
                let sent = self.0.sent.borrow();
                let sent = sent_as(&sent, batch, place, offset);
                assert!(is_as_sent(&record, &sent.bytes, number), "{place}: record {number} of {batch:?} was changed");
                i64::from(sent.records)
            };
            let base = Offset::new(offset.get() - i64::from(number));
            self.know(place, base, Known { batch, next: Offset::new(base.get() + records) });
            SeenRecord { offset, batch, number }
        };
        SeenBatch { base, next, records: records.map(see_one).collect() }
    }

    /// Notes for ever where a batch is.
    fn know(&self, place: &Place, base: Offset, known: Known) {
        {
            let sent = &mut self.0.sent.borrow_mut()[known.batch.0];
            assert!(!sent.refused, "{place}: {:?} was refused, and is at {base}", known.batch);
            let at = *sent.base.get_or_insert(base);
            assert!(at == base, "{place}: {:?} is stored twice, at {at} and at {base}", known.batch);
        }
        let mut places = self.0.known.borrow_mut();
        let offsets = places.entry(place.clone()).or_default();
        if let Some(before) = offsets.get(&base) {
            assert_eq!(*before, known, "{place}: offset {base} was given twice");
            return;
        }
        let before = offsets.range(..base).next_back().is_none_or(|(_, before)| before.next <= base);
        let after = offsets.range(base..).next().is_none_or(|(after, _)| known.next <= *after);
        assert!(before && after, "{place}: {base} to {} overlaps what was there before", known.next);
        if place.is_relaxed() && !self.0.relaxed.borrow_mut().see(place, base, known) {
            self.0.sent.borrow_mut()[known.batch.0].base = None;
            return;
        }
        offsets.insert(base, known);
    }

    /// One past the last record that is known to be there.
    pub(crate) fn known_end(&self, place: &Place) -> Offset {
        let known = self.0.known.borrow();
        let last = known.get(place).and_then(|known| known.last_key_value());
        last.map_or(self.start(place), |(_, last)| last.next)
    }

    /// Where the place begins, or later.
    pub(crate) fn start(&self, place: &Place) -> Offset {
        self.0.starts.borrow().get(place).map_or(Offset::ZERO, |start| start.known)
    }

    /// Up to where somebody has asked to delete records.
    pub(crate) fn start_asked(&self, place: &Place) -> Offset {
        self.0.starts.borrow().get(place).map_or(Offset::ZERO, |start| start.asked)
    }

    /// Somebody is about to ask that the records below `before` be deleted.
    pub(crate) fn ask_to_delete(&self, place: &Place, before: Offset) {
        self.with_start(place, |start| start.asked = start.asked.max(before));
    }

    /// Whoever deletes records of a place, alone, has nothing under way, and the place begins at `now`.
    pub(crate) fn deleted_to(&self, place: &Place, now: Offset) {
        self.with_start(place, |start| start.asked = start.known.max(now));
    }

    /// The broker has answered that the place begins at `now`; before it was asked, it was known to begin at `before`.
    pub(crate) fn see_start(&self, place: &Place, before: Offset, now: Offset) {
        self.with_start(place, |start| {
            assert!(now >= before, "{place}: it began at {before}, and begins at {now} again");
            assert!(now <= start.asked, "{place}: it begins at {now}, and nobody asked for more than {}", start.asked);
            start.known = start.known.max(now);
        });
    }

    fn with_start(&self, place: &Place, change: impl FnOnce(&mut Start)) {
        let mut starts = self.0.starts.borrow_mut();
        change(starts.entry(place.clone()).or_insert(Start { known: Offset::ZERO, asked: Offset::ZERO }));
    }

    /// What must be found at a place from now on.
    pub(crate) fn expectation(&self, place: &Place) -> Expectation {
        let known = self.0.known.borrow().get(place).cloned().unwrap_or_default();
        Expectation { known, since: Instant::now() }
    }
}

/// Batches that must be at a place.
pub(crate) struct Expectation {
    known: BTreeMap<Offset, Known>,
    since: Instant,
}

/// Some of the batches that are compacted are compressed.
fn compression(place: &Place) -> Compression {
    if place.is_compacted() && random::u64() & 1 == 0 { Compression::Lz4 } else { Compression::None }
}

/// Bytes that nobody else sends, so many or as many as there are.
fn filled(mut bytes: Vec<u8>, bytes_min: usize) -> Vec<u8> {
    let filling = bytes.len()..bytes.len().max(bytes_min);
    bytes.resize(filling.end, 0);
    random::fill(&mut bytes[filling]);
    bytes
}

/// The batch and the number of a record.
fn identified(bytes: &[u8]) -> Option<(BatchId, u32)> {
    let mut numbers = bytes.split(|byte| *byte == b' ').map(|digits| std::str::from_utf8(digits).ok());
    Some((BatchId(numbers.next()??.parse().ok()?), numbers.next()??.parse().ok()?))
}

fn identity_of(record: &Record<'_>) -> Option<(BatchId, u32)> {
    let header = record.headers().find(|header| header.key == IDENTITY.as_bytes());
    identified(header?.value?)
}

/// The batch with that number, which was sent to that place.
fn sent_as<'a>(sent: &'a [Sent], batch: BatchId, place: &Place, at: Offset) -> &'a Sent {
    let sent = sent.get(batch.0).unwrap_or_else(|| panic!("{place}: nobody has sent {batch:?} at {at}"));
    assert_eq!(sent.place, *place, "{batch:?} is where it was not sent to, at {at}");
    sent
}

fn is_as_sent(record: &Record<'_>, batch: &[u8], number: u32) -> bool {
    let (batch, mut scratch) = (BatchView::parse(batch).expect("it was built"), Scratch::default());
    let mut records = batch.records(&mut scratch).expect("it was built");
    let sent = records.nth(number as usize).map(|record| record.expect("it was built"));
    sent.is_some_and(|sent| (record.key, record.value, record.timestamp) == (sent.key, sent.value, sent.timestamp))
}

#[cfg(test)]
mod tests;
