use bytes::Bytes;
use ringmq_runtime::local::oneshot;
use ringmq_wire::Timestamp;
use ringmq_wire::batch::{BatchBuilder, BatchLimits, Compression, RecordRef};

use super::*;
use crate::payload::Payload;

const FRAME_MAX: usize = 1 << 20;

fn staged(value_bytes: usize) -> Staged {
    let mut builder = BatchBuilder::new(Compression::None);
    let value = vec![7; value_bytes];
    let record = RecordRef { timestamp: Timestamp::new(1), key: None, value: Some(&value), headers: &[] };
    builder.append(&record).expect("a record");
    let batch: Bytes = builder.finish().expect("a batch");
    let append = Append::validated(Payload::Copied(batch), &BatchLimits::default()).expect("a sound batch");
    Staged { append, waiter: oneshot().0 }
}

fn staging(sizes: &[usize]) -> Staging {
    let mut staging = Staging::default();
    for size in sizes {
        staging.push(staged(*size));
    }
    staging
}

fn group_sizes(mut staging: Staging) -> Vec<usize> {
    let mut sizes = Vec::new();
    while let Some(group) = staging.next_group(FRAME_MAX) {
        assert_eq!(staging.take(group).count(), group.appends);
        sizes.push(group.appends);
    }
    assert_eq!(staging.payload_bytes(), 0);
    sizes
}

#[test]
fn small_appends_share_a_frame_and_large_ones_do_not() {
    assert_eq!(group_sizes(staging(&[10, 1000, 10])), [3]);
    assert_eq!(group_sizes(staging(&[10, 200_000, 10, 10])), [1, 1, 2], "the order stays");
    assert_eq!(group_sizes(staging(&[200_000, 200_000])), [1, 1]);
    assert_eq!(group_sizes(staging(&[])), [0; 0]);
}

#[test]
fn a_frame_ends_at_its_bound_padding_counted() {
    let sizes = group_sizes(staging(&[50_000; 50]));
    assert_eq!(sizes.iter().sum::<usize>(), 50);
    assert_eq!(sizes[0], 20);
    let all = staging(&[50_000; 50]);
    let group = all.next_group(FRAME_MAX).expect("something waits");
    assert!(group.frame_bytes <= FRAME_MAX && group.frame_bytes >= group.payload_bytes + 128);
}

#[test]
fn without_room_for_the_group_the_first_is_tried_alone() {
    let mut staging = staging(&[10, 10, 10]);
    staging.take_one_at_a_time();
    let group = staging.next_group(FRAME_MAX).expect("something waits");
    assert_eq!(group.appends, 1);
    assert!(staging.take_first().is_some());
    assert_eq!(staging.next_group(FRAME_MAX).expect("two wait").appends, 2);
}

#[test]
fn a_small_frame_waits_for_company_while_two_writes_are_under_way() {
    let small = Group { appends: 1, payload_bytes: 100, records: 1, frame_bytes: 4096 };
    let full = Group { appends: 1, payload_bytes: 1 << 20, records: 1, frame_bytes: (1 << 20) + 8192 };
    let allowed = |group: Group, max| (0..10).filter(|in_flight| group.may_go(*in_flight, max)).count();
    assert_eq!((allowed(small, 4), allowed(full, 4)), (SMALL_WRITES_IN_FLIGHT_MAX, 4));
    assert_eq!((allowed(small, 1), allowed(full, 1)), (1, 1));
}
