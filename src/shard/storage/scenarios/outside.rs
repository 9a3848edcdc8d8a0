//! What the world outside a broker knows of its logs, and whether a recovered log agrees with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use ringmq_segment::{Appended, Log};

use super::retries::Retrying;
use super::support::{Seen, batch, is_tombstone, key_of, keyed_batch, read_from, read_what_is_left};

/// The partition whose log is compacted.
pub(super) const COMPACTED: usize = 2;

/// What clients know of all logs, by partition.
pub(super) type Shared = Rc<RefCell<Vec<Outside>>>;

/// What clients know of one log.
#[derive(Default)]
pub(super) struct Outside {
    /// Whether of each key only the latest record has to stay.
    pub(super) is_compacted: bool,
    /// Records of each append that was sent, by tag.
    pub(super) sent: BTreeMap<u64, u32>,
    /// Offsets of each append that was acknowledged.
    pub(super) acknowledged: BTreeMap<u64, Range<i64>>,
    /// Where each append begins, as an acknowledgement or a reader has shown.
    bases: BTreeMap<u64, i64>,
    /// Every record that a reader was given, by offset.
    read: BTreeMap<i64, Seen>,
    /// Where the log begins: everything below is deleted.
    start: i64,
    /// Up to here someone asked to delete records, and may not have been answered.
    start_asked: i64,
    /// Rounds of retention or compaction that took something away.
    pub(super) reclaimed: u64,
    /// A producer that sends again what was not answered.
    pub(super) retrying: Rc<RefCell<Retrying>>,
}

pub(super) fn outside(partitions: u32) -> Shared {
    let outside = |partition: u32| Outside { is_compacted: partition as usize == COMPACTED, ..Outside::default() };
    Rc::new(RefCell::new((0..partitions).map(outside).collect()))
}

/// Tags rise over all lives, so the order of the tags in a log is the order of the calls.
pub(super) fn next_tag(outside: &Shared) -> u64 {
    let outside = outside.borrow();
    let last = outside.iter().filter_map(|log| log.sent.last_key_value()).map(|(tag, _)| *tag).max();
    last.map_or(1, |last| last + 1)
}

/// The batch that an append to that log sends.
pub(super) fn batch_for(outside: &Shared, partition: usize, tag: u64, records: u32, value_bytes: usize) -> Bytes {
    match outside.borrow()[partition].is_compacted {
        true => keyed_batch(tag, records, value_bytes),
        false => batch(tag, records, value_bytes),
    }
}

pub(super) fn acknowledge(outside: &Shared, partition: usize, tag: u64, records: u32, log: &Log, appended: Appended) {
    let offsets = appended.base_offset.get()..appended.next_offset.get();
    assert_eq!(offsets.end - offsets.start, i64::from(records));
    assert!(log.offsets().durable >= appended.next_offset, "acknowledged is durable");
    let outside = &mut outside.borrow_mut()[partition];
    outside.place(tag, offsets.start);
    outside.acknowledged.insert(tag, offsets);
}

/// One past the last record that was ever read of a log.
pub(super) fn read_end(outside: &Shared, partition: usize) -> i64 {
    outside.borrow()[partition].read_end()
}

/// Someone asks to delete the records below `before`.
pub(super) fn ask_to_delete(outside: &Shared, partition: usize, before: i64) {
    let asked = &mut outside.borrow_mut()[partition].start_asked;
    *asked = before.max(*asked);
}

/// The records below `start` are deleted, and stay so.
pub(super) fn deleted(outside: &Shared, partition: usize, start: i64) {
    outside.borrow_mut()[partition].start = start;
}

/// Retention or compaction did a round.
pub(super) fn reclaimed(outside: &Shared, partition: usize, anything: bool) {
    outside.borrow_mut()[partition].reclaimed += u64::from(anything);
}

/// Reads from `from` on; what is given to a reader once is given ever after, but for what compaction replaces.
pub(super) async fn read(outside: &Shared, partition: usize, log: &Log, from: i64, max_bytes: usize) -> Vec<Seen> {
    let is_compacted = outside.borrow()[partition].is_compacted;
    let seen = match is_compacted {
        true => read_what_is_left(log, from, max_bytes).await.0,
        false => read_from(log, from, max_bytes).await,
    };
    let outside = &mut outside.borrow_mut()[partition];
    for seen in &seen {
        assert_eq!(outside.read.entry(seen.offset).or_insert(*seen), seen, "what was read once stays");
        outside.place(seen.tag, seen.offset - i64::from(seen.number));
    }
    seen
}

impl Outside {
    fn read_end(&self) -> i64 {
        self.read.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    /// An append begins there, once and for ever.
    fn place(&mut self, tag: u64, base: i64) {
        let known = *self.bases.entry(tag).or_insert(base);
        assert_eq!(known, base, "append {tag} is there once");
    }

    /// Of each key the latest record at or behind `start`, as far as anybody knows.
    fn latest(&self, start: i64) -> BTreeMap<[u8; 1], Seen> {
        let mut latest = BTreeMap::new();
        for (tag, base) in &self.bases {
            for (number, offset) in (0..self.sent[tag]).zip(*base..).filter(|(_, offset)| *offset >= start) {
                let known = Seen { offset, tag: *tag, number };
                let latest = latest.entry(key_of(*tag, number)).or_insert(known);
                *latest = if latest.offset < offset { known } else { *latest };
            }
        }
        latest
    }

    /// Everything that was sent and acknowledged is there, in the order of the calls.
    fn check_whole(&self, start: i64, seen: &[Seen]) {
        for (tag, offsets) in &self.acknowledged {
            for (number, offset) in (0..).zip(offsets.clone()).filter(|(_, offset)| *offset >= start) {
                let there = seen[usize::try_from(offset - start).expect("an offset")];
                assert_eq!(there, Seen { offset, tag: *tag, number }, "append {tag} is what it was");
            }
        }
        // The log may begin within an append.
        let partial = seen.iter().take_while(|seen| seen.number != 0).count();
        let tags: Vec<u64> = seen.iter().filter(|seen| seen.number == 0).map(|seen| seen.tag).collect();
        assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len(), "nothing twice");
        let records: u32 = tags.iter().map(|tag| self.sent.get(tag).expect("sent, and not refused")).sum();
        assert_eq!(partial + records as usize, seen.len(), "appends are there as a whole");
        self.check_order(&tags);
    }

    /// The latest record of each key is there; of one that is deleted, nothing before its tombstone.
    fn check_latest(&self, start: i64, seen: &[Seen]) {
        for (key, latest) in self.latest(start) {
            let mut of_key = seen.iter().filter(|seen| key_of(seen.tag, seen.number) == key);
            let last = of_key.next_back();
            let is_gone = last.is_none() && is_tombstone(latest.tag, latest.number);
            assert!(last == Some(&latest) || is_gone, "of key {key:?} the latest is {latest:?}, and {last:?} is there");
        }
        let mut tags: Vec<u64> = seen.iter().map(|seen| seen.tag).collect();
        tags.dedup();
        assert!(tags.iter().all(|tag| self.sent.contains_key(tag)), "sent, and not refused");
        self.check_order(&tags);
    }

    fn check_order(&self, tags: &[u64]) {
        let retrying = &self.retrying.borrow().tags;
        let (retried, once): (Vec<u64>, Vec<u64>) = tags.iter().partition(|tag| retrying.contains(tag));
        assert!(once.is_sorted() && retried.is_sorted(), "the order of the calls");
    }
}

/// Every acknowledged append that was not deleted or replaced is there once, unchanged, where it was said to be; nothing is
/// there that was deleted, or not sent.
pub(super) async fn check(outside: &Shared, partition: usize, log: &Log) {
    let (start, end) = (log.offsets().start.get(), log.offsets().durable.get());
    let seen = read(outside, partition, log, start, 50_000).await;
    let outside = &mut outside.borrow_mut()[partition];
    assert!((outside.start..=outside.start_asked).contains(&start), "{start}: deleted is deleted, and nothing else");
    outside.start = start;
    assert!(outside.read_end() <= end, "nothing that was read is gone: {} of {end}", outside.read_end());
    for (tag, offsets) in &outside.acknowledged {
        assert!(offsets.end <= end, "append {tag} at {offsets:?} is gone, the log ends at {end}");
    }
    if outside.is_compacted {
        outside.check_latest(start, &seen);
    } else {
        assert_eq!(start + i64::try_from(seen.len()).expect("few"), end, "all of it can be read");
        outside.check_whole(start, &seen);
    }
}
