use proptest::prelude::*;
use ringmq_runtime::buffer::AlignedBuf;
use ringmq_runtime::executor::{ExecutorConfig, spawn_executor};
use ringmq_runtime::task;

use super::*;

fn frame(base: i64, next: i64, memory_bytes: usize) -> CachedFrame {
    CachedFrame {
        base_offset: Offset::new(base),
        next_offset: Offset::new(next),
        max_timestamp: Timestamp::new(0),
        payload: AlignedBuf::with_len(memory_bytes).freeze().slice(..100),
    }
}

/// `count` frames of one offset each, side by side in one buffer.
fn piece(base: i64, count: usize, memory_bytes: usize) -> Vec<CachedFrame> {
    let buf = AlignedBuf::with_len(memory_bytes).freeze();
    let each = memory_bytes / count;
    let at = |(base, number): (i64, usize)| CachedFrame {
        payload: buf.slice(number * each..number * each + 100),
        ..frame(base, base + 1, 4096)
    };
    (base..).zip(0..count).map(at).collect()
}

fn bases(run: &[CachedFrame]) -> Vec<i64> {
    run.iter().map(|frame| frame.base_offset.get()).collect()
}

#[test]
fn a_run_begins_with_the_frame_that_holds_the_offset_and_ends_at_a_gap() {
    let cache = TailCache::new(1 << 20);
    let slot = cache.written();
    for (base, next) in [(0, 10), (10, 20), (30, 40), (40, 50)] {
        slot.insert(&[frame(base, next, 4096)]);
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
    one.insert(&[frame(0, 1, 4096)]);
    other.insert(&[frame(0, 1, 4096)]);
    one.insert(&[frame(1, 2, 4096)]);
    other.insert(&[frame(1, 2, 4096)]);
    assert_eq!(cache.bytes(), 4 * 4096);
    one.insert(&[frame(2, 3, 8192)]);
    assert_eq!(bases(&one.run_from(Offset::new(1), usize::MAX)), [1, 2]);
    assert_eq!(bases(&other.run_from(Offset::new(0), usize::MAX)), [0; 0]);
    assert_eq!(bases(&other.run_from(Offset::new(1), usize::MAX)), [1]);
}

#[test]
fn a_cold_reader_does_not_drive_out_the_tail() {
    let cache = TailCache::new(8 * 4096);
    let (written, read) = (cache.written(), cache.read());
    written.insert(&[frame(100, 101, 4096)]);
    for base in 0..50 {
        read.insert(&[frame(base, base + 1, 4096)]);
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
        slot.insert(&[frame(0, 1, 4096)]);
        slot.insert(&[frame(0, 1, 4096)]);
    }
    assert_eq!(cache.bytes(), 3 * 4096);
    closed.clear();
    drop(dropped);
    assert_eq!(cache.bytes(), 4096);
    kept.insert(&[frame(1, 2, 1 << 20)]);
    assert_eq!(bases(&kept.run_from(Offset::ZERO, usize::MAX)), [0]);
}

#[test]
fn the_frames_of_one_buffer_count_for_all_of_it_and_go_together() {
    // 8 KiB of a piece's 64 KiB are shown, the whole piece stays alive.
    let cache = TailCache::new(8 * (64 << 10));
    let slot = cache.read();
    slot.insert(&piece(10, 2, 64 << 10));
    assert_eq!(cache.bytes(), 64 << 10);
    assert_eq!(bases(&slot.run_from(Offset::new(10), usize::MAX)), [10, 11]);
    slot.insert(&piece(20, 1, 4096));
    assert_eq!(cache.bytes(), 4096);
    assert_eq!(bases(&slot.run_from(Offset::new(11), usize::MAX)), [0; 0]);
    assert_eq!(bases(&slot.run_from(Offset::new(20), usize::MAX)), [20]);
}

#[test]
fn a_frame_that_is_in_two_buffers_stays_with_the_one_that_has_it() {
    let cache = TailCache::new(8 * (24 << 10));
    let slot = cache.read();
    slot.insert(&piece(0, 2, 8 << 10));
    slot.insert(&piece(1, 2, 8 << 10));
    slot.insert(&piece(0, 3, 8 << 10));
    assert_eq!(cache.bytes(), 16 << 10, "a buffer without a new frame is not kept");
    slot.insert(&piece(50, 1, 16 << 10));
    assert_eq!(bases(&slot.run_from(Offset::new(0), usize::MAX)), [0; 0]);
    assert_eq!(bases(&slot.run_from(Offset::new(2), usize::MAX)), [2]);
}

#[test]
fn more_memory_than_at_first_is_used_only_as_it_becomes_ready() {
    fn insert(slot: &Rc<FrameSlot>, bases: Range<i64>) {
        bases.for_each(|base| slot.insert(&[frame(base, base + 1, 1 << 20)]));
    }
    let all = i64::try_from((2 * FIRST_BYTES) >> 20).expect("few");
    let cache = TailCache::new(2 * FIRST_BYTES);
    let slot = cache.written();
    insert(&slot, 0..all);
    assert_eq!(cache.bytes(), FIRST_BYTES, "nobody makes memory ready here");
    assert_eq!(bases(&slot.run_from(Offset::new(all - 2), usize::MAX)), [all - 2, all - 1], "the first ones went");

    let grows = move || async move {
        let cache = TailCache::new(2 * FIRST_BYTES);
        let slot = cache.written();
        let mut base = 0;
        while cache.bytes() <= FIRST_BYTES + (4 << 20) {
            insert(&slot, base..base + 1);
            base += 1;
            task::yield_now().await;
        }
    };
    spawn_executor(ExecutorConfig::default(), grows).expect("an executor starts").join().expect("it grew");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_bound_holds_whatever_comes(
        bytes_max in 0_usize..100_000,
        inserts in prop::collection::vec((0_usize..3, 0_i64..40, 1_usize..4, 1_usize..10), 0..60),
    ) {
        let cache = TailCache::new(bytes_max);
        let slots = [cache.written(), cache.written(), cache.read()];
        for (slot, base, frames, blocks) in inserts {
            slots[slot].insert(&piece(base, frames, blocks * 4096));
            prop_assert!(cache.bytes() <= bytes_max);
            let mut alive: Vec<IoBuf> = Vec::new();
            for kept in slots.iter().flat_map(|slot| slot.run_of_all()) {
                if !alive.iter().any(|other| other.shares_memory_with(&kept.payload)) {
                    alive.push(kept.payload);
                }
            }
            prop_assert!(alive.iter().map(IoBuf::memory_bytes).sum::<usize>() <= cache.bytes());
        }
    }
}

impl FrameSlot {
    fn run_of_all(&self) -> Vec<CachedFrame> {
        self.frames.borrow().values().map(|kept| kept.frame.clone()).collect()
    }
}
