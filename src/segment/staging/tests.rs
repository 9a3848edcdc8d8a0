use bytes::Bytes;

use super::*;

const FRAME_MAX: usize = 1 << 20;

fn staging_of(appends: &[(usize, u64)]) -> Staging {
    let mut staging = Staging::default();
    for (at, (payload_bytes, generation)) in (0..).zip(appends) {
        staging.push(Staged {
            base_offset: Offset::new(at),
            next_offset: Offset::new(at + 1),
            record_count: 1,
            max_timestamp: Timestamp::new(at),
            generation: Generation(*generation),
            leader_epoch: LeaderEpoch::ZERO,
            batches: StagedBatches::Shared(IoBuf::from(Bytes::from(vec![7; *payload_bytes]))),
        });
    }
    staging
}

fn staging(sizes: &[usize]) -> Staging {
    staging_of(&sizes.iter().map(|size| (*size, 1)).collect::<Vec<_>>())
}

fn group_sizes(mut staging: Staging) -> Vec<usize> {
    let mut sizes = Vec::new();
    while let Some(group) = staging.next_group(FRAME_MAX, Offset::MAX) {
        assert_eq!(staging.take(group).count(), group.appends);
        assert_eq!(group.records as usize, group.appends);
        sizes.push(group.appends);
    }
    assert_eq!(staging.frame_bytes(), 0);
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
fn a_frame_holds_batches_of_one_generation() {
    assert_eq!(group_sizes(staging_of(&[(10, 1), (10, 1), (10, 2), (10, 3), (10, 3)])), [2, 1, 2]);
}

#[test]
fn a_frame_ends_at_its_bound_padding_counted() {
    let sizes = group_sizes(staging(&[50_000; 50]));
    assert_eq!(sizes.iter().sum::<usize>(), 50);
    assert_eq!(sizes[0], 20);
    let all = staging(&[50_000; 50]);
    let group = all.next_group(FRAME_MAX, Offset::MAX).expect("something waits");
    assert!(group.frame_bytes <= FRAME_MAX && group.frame_bytes >= group.payload_bytes + 128);
}

#[test]
fn a_frame_of_what_nobody_waits_for_ends_where_someone_does() {
    let staging = staging(&[10, 20, 30]);
    let group = staging.next_group(FRAME_MAX, Offset::new(2)).expect("something waits");
    assert_eq!((group.appends, group.payload_bytes, staging.payload_bytes()), (2, 30, 60));
}

#[test]
fn what_is_staged_has_a_frame_of_its_own_reserved() {
    let mut staging = staging(&[10, 5000, 10]);
    assert_eq!(staging.frame_bytes(), 4096 + 8192 + 4096);
    let group = staging.next_group(FRAME_MAX, Offset::MAX).expect("something waits");
    assert_eq!(group.frame_bytes, 8192, "together they take less");
    staging.cut(Offset::new(1));
    assert_eq!((staging.frame_bytes(), staging.from(Offset::ZERO).count()), (4096, 1));
}

#[test]
fn a_small_frame_waits_for_company_while_two_writes_are_under_way() {
    let small = Group { appends: 1, payload_bytes: 100, records: 1, frame_bytes: 4096 };
    let full = Group { appends: 1, payload_bytes: 1 << 20, records: 1, frame_bytes: (1 << 20) + 8192 };
    let allowed = |group: Group, max| (0..10).filter(|in_flight| group.may_go(*in_flight, max)).count();
    assert_eq!((allowed(small, 4), allowed(full, 4)), (SMALL_WRITES_IN_FLIGHT_MAX, 4));
    assert_eq!((allowed(small, 1), allowed(full, 1)), (1, 1));
}
