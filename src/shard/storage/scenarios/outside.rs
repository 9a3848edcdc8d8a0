//! What the world outside a broker knows of its logs, and whether a recovered log agrees with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use ringmq_segment::{Appended, Log};

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
    read: Vec<Seen>,
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

/// How many records were ever read of a log.
pub(super) fn records_read(outside: &Shared, partition: usize) -> u64 {
    outside.borrow()[partition].read.len() as u64
}

/// What was given to a reader once is given ever after.
pub(super) fn remember(outside: &Shared, partition: usize, from: i64, seen: &[Seen]) {
    let read = &mut outside.borrow_mut()[partition].read;
    let from = usize::try_from(from).expect("an offset");
    let known = read.len().min(from + seen.len()).saturating_sub(from);
    assert_eq!(&read[from..from + known], &seen[..known], "what was read once stays");
    read.extend_from_slice(&seen[known..]);
}

/// Every acknowledged append is there once, unchanged, where it was said to be; nothing is there that was not sent.
pub(super) async fn check(outside: &Shared, partition: usize, log: &Log) {
    let seen = read_from(log, 0, 50_000).await;
    remember(outside, partition, 0, &seen);
    let outside = outside.borrow();
    let outside = &outside[partition];
    assert_eq!(outside.read.len(), seen.len(), "nothing that was read is gone");
    for (tag, offsets) in &outside.acknowledged {
        let range =
            usize::try_from(offsets.start).expect("an offset")..usize::try_from(offsets.end).expect("an offset");
        let there =
            seen.get(range).unwrap_or_else(|| panic!("append {tag} at {offsets:?} is gone, {} are left", seen.len()));
        let expected: Vec<Seen> = (0..).map(|number| Seen { tag: *tag, number }).take(there.len()).collect();
        assert_eq!(there, expected, "append {tag} is what it was");
    }
    let tags: Vec<u64> = seen.iter().filter(|seen| seen.number == 0).map(|seen| seen.tag).collect();
    assert!(tags.is_sorted(), "the order of the calls");
    assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len(), "nothing twice");
    let records: u32 = tags.iter().map(|tag| outside.sent.get(tag).expect("sent, and not refused")).sum();
    assert_eq!(records as usize, seen.len(), "appends are there as a whole");
}
