//! What the world outside a broker knows of its logs, and whether a recovered log agrees with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use ringmq_segment::{Appended, Log};

use super::retries::Retrying;
use super::support::{Seen, read_from};

/// What clients know of all logs, by partition.
pub(super) type Shared = Rc<RefCell<Vec<Outside>>>;

/// What clients know of one log.
#[derive(Default)]
pub(super) struct Outside {
    /// Records of each append that was sent, by tag.
    pub(super) sent: BTreeMap<u64, u32>,
    /// Offsets of each append that was acknowledged.
    pub(super) acknowledged: BTreeMap<u64, Range<i64>>,
    /// Every record that a reader was given, by offset.
    read: BTreeMap<i64, Seen>,
    /// Where the log begins: everything below is deleted.
    start: i64,
    /// Up to here someone asked to delete records, and may not have been answered.
    start_asked: i64,
    /// A producer that sends again what was not answered.
    pub(super) retrying: Rc<RefCell<Retrying>>,
}

pub(super) fn outside(partitions: u32) -> Shared {
    Rc::new(RefCell::new((0..partitions).map(|_| Outside::default()).collect()))
}

/// Tags rise over all lives, so the order of the tags in a log is the order of the calls.
pub(super) fn next_tag(outside: &Shared) -> u64 {
    let outside = outside.borrow();
    let last = outside.iter().filter_map(|log| log.sent.last_key_value()).map(|(tag, _)| *tag).max();
    last.map_or(1, |last| last + 1)
}

pub(super) fn acknowledge(outside: &Shared, partition: usize, tag: u64, records: u32, log: &Log, appended: Appended) {
    let offsets = appended.base_offset.get()..appended.next_offset.get();
    assert_eq!(offsets.end - offsets.start, i64::from(records));
    assert!(log.offsets().durable >= appended.next_offset, "acknowledged is durable");
    outside.borrow_mut()[partition].acknowledged.insert(tag, offsets);
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

/// What was given to a reader once is given ever after.
pub(super) fn remember(outside: &Shared, partition: usize, from: i64, seen: &[Seen]) {
    let read = &mut outside.borrow_mut()[partition].read;
    for (offset, seen) in (from..).zip(seen) {
        assert_eq!(read.entry(offset).or_insert(*seen), seen, "what was read once stays");
    }
}

impl Outside {
    fn read_end(&self) -> i64 {
        self.read.last_key_value().map_or(0, |(last, _)| last + 1)
    }
}

/// Every acknowledged append that was not deleted is there once, unchanged, where it was said to be; nothing is there that
/// was deleted, or not sent.
pub(super) async fn check(outside: &Shared, partition: usize, log: &Log) {
    let (start, end) = (log.offsets().start.get(), log.offsets().durable.get());
    let seen = read_from(log, start, 50_000).await;
    assert_eq!(start + i64::try_from(seen.len()).expect("few"), end, "all of it can be read");
    remember(outside, partition, start, &seen);
    let outside = &mut outside.borrow_mut()[partition];
    assert!((outside.start..=outside.start_asked).contains(&start), "{start}: deleted is deleted, and nothing else");
    outside.start = start;
    assert!(outside.read_end() <= end, "nothing that was read is gone: {} of {end}", outside.read_end());
    for (tag, offsets) in &outside.acknowledged {
        assert!(offsets.end <= end, "append {tag} at {offsets:?} is gone, the log ends at {end}");
        for (number, offset) in (0..).zip(offsets.clone()).filter(|(_, offset)| *offset >= start) {
            let there = seen[usize::try_from(offset - start).expect("an offset")];
            assert_eq!(there, Seen { tag: *tag, number }, "append {tag} is what it was");
        }
    }
    // The log may begin within an append.
    let partial = seen.iter().take_while(|seen| seen.number != 0).count();
    let tags: Vec<u64> = seen.iter().filter(|seen| seen.number == 0).map(|seen| seen.tag).collect();
    let retrying = &outside.retrying.borrow().tags;
    let (retried, once): (Vec<u64>, Vec<u64>) = tags.iter().partition(|tag| retrying.contains(tag));
    assert!(once.is_sorted() && retried.is_sorted(), "the order of the calls");
    assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len(), "nothing twice");
    let records: u32 = tags.iter().map(|tag| outside.sent.get(tag).expect("sent, and not refused")).sum();
    assert_eq!(partial + records as usize, seen.len(), "appends are there as a whole");
}
