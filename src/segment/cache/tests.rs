use proptest::prelude::*;
use ringmq_runtime::buffer::AlignedBuf;

use super::*;

fn frame(base: i64, next: i64, memory_bytes: usize) -> CachedFrame {
    CachedFrame {
        base_offset: Offset::new(base),
        next_offset: Offset::new(next),
        max_timestamp: Timestamp::new(0),
        payload: AlignedBuf::with_len(4096).freeze().slice(..100),
        memory_bytes,
    }
}

fn bases(run: &[CachedFrame]) -> Vec<i64> {
    run.iter().map(|frame| frame.base_offset.get()).collect()
}

#[test]
fn a_run_begins_with_the_frame_that_holds_the_offset_and_ends_at_a_gap() {
    let cache = TailCache::new(1 << 20);
    let slot = cache.written();
    for (base, next) in [(0, 10), (10, 20), (30, 40), (40, 50)] {
        slot.insert(frame(base, next, 4096));
    }
    assert_eq!(bases(&slot.run_from(Offset::new(5), usize::MAX)), [0, 10]);
    assert_eq!(bases(&slot.run_from(Offset::new(10), usize::MAX)), [10]);
    assert_eq!(bases(&slot.run_from(Offset::new(20), usize::MAX)), [0; 0]);
    assert_eq!(bases(&slot.run_from(Offset::new(39), usize::MAX)), [30, 40]);
    assert_eq!(bases(&slot.run_from(Offset::new(30), 1)), [30], "enough is enough");
    assert_eq!(bases(&slot.run_from(Offset::new(50), usize::MAX)), [0; 0]);
}

#[test]
fn what_came_first_goes_first_over_all_logs() {
    let cache = TailCache::new(4 * 4096 * 8 / 7 + 8);
    let (one, other) = (cache.written(), cache.written());
    one.insert(frame(0, 1, 4096));
    other.insert(frame(0, 1, 4096));
    one.insert(frame(1, 2, 4096));
    other.insert(frame(1, 2, 4096));
    assert_eq!(cache.bytes(), 4 * 4096);
    one.insert(frame(2, 3, 8192));
    assert_eq!(bases(&one.run_from(Offset::new(1), usize::MAX)), [1, 2]);
    assert_eq!(bases(&other.run_from(Offset::new(0), usize::MAX)), [0; 0]);
    assert_eq!(bases(&other.run_from(Offset::new(1), usize::MAX)), [1]);
}

#[test]
fn a_cold_reader_does_not_drive_out_the_tail() {
    let cache = TailCache::new(8 * 4096);
    let (written, read) = (cache.written(), cache.read());
    written.insert(frame(100, 101, 4096));
    for base in 0..50 {
        read.insert(frame(base, base + 1, 4096));
    }
    assert_eq!(bases(&written.run_from(Offset::new(100), 1)), [100]);
    assert_eq!(bases(&read.run_from(Offset::new(49), 1)), [49]);
    assert_eq!(cache.bytes(), 2 * 4096);
}

#[test]
fn memory_is_given_back_when_a_log_goes_and_oversized_frames_stay_out() {
    let cache = TailCache::new(1 << 20);
    let (closed, dropped, kept) = (cache.written(), cache.written(), cache.written());
    for slot in [&closed, &dropped, &kept] {
        slot.insert(frame(0, 1, 4096));
        slot.insert(frame(0, 1, 4096));
    }
    assert_eq!(cache.bytes(), 3 * 4096);
    closed.clear();
    drop(dropped);
    assert_eq!(cache.bytes(), 4096);
    kept.insert(frame(1, 2, 1 << 20));
    assert_eq!(bases(&kept.run_from(Offset::ZERO, usize::MAX)), [0]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_bound_holds_whatever_comes(
        bytes_max in 0_usize..100_000,
        inserts in prop::collection::vec((0_usize..3, 1_usize..40_000), 0..60),
    ) {
        let cache = TailCache::new(bytes_max);
        let slots = [cache.written(), cache.written(), cache.read()];
        for (base, (slot, memory_bytes)) in (0..).zip(inserts) {
            slots[slot].insert(frame(base, base + 1, memory_bytes));
            prop_assert!(cache.bytes() <= bytes_max);
        }
        let held_in = |slot: &FrameSlot| slot.frames.borrow().values().map(|frame| frame.memory_bytes).sum::<usize>();
        let held: usize = slots.iter().map(|slot| held_in(slot)).sum();
        prop_assert_eq!(held, cache.bytes());
    }
}
