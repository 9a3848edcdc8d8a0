use std::rc::Rc;

use super::{AlignedBuf, BLOCK_BYTES, IoBuf, install, make_ready, size_class};

#[test]
fn size_classes_are_whole_blocks_and_close() {
    for len in (0..4 << 20).step_by(997).chain([1, 4096, 4097, 512 << 10, (512 << 10) + 1, (1 << 20) + 256, 64 << 20]) {
        let class = size_class(len);
        assert!(class >= len.max(1) && class.is_multiple_of(BLOCK_BYTES));
        let in_blocks = len.max(1).next_multiple_of(BLOCK_BYTES);
        assert!((class - in_blocks) * 64 <= in_blocks, "{len} is rounded to {class}");
        assert_eq!(size_class(class), class);
    }
    assert_eq!(size_class((1 << 20) + 256), (1 << 20) + (16 << 10));
}

#[test]
fn memory_is_aligned_zero_at_first_and_used_again() {
    let _pool = install(1 << 20);
    let mut buf = AlignedBuf::with_len(10_000);
    assert_eq!(buf.len(), 12_288);
    assert!(buf.iter().all(|byte| *byte == 0));
    let address = buf.as_ptr();
    assert_eq!(address.addr() % BLOCK_BYTES, 0);
    buf[9_999] = 7;
    let shared = buf.freeze();
    let slice = shared.slice(9_000..10_000);
    drop(shared);
    assert_ne!(AlignedBuf::with_len(10_000).as_ptr(), address, "a slice keeps the memory");
    assert_eq!(slice[999], 7);
    drop(slice);
    let again = AlignedBuf::with_len(12_000);
    assert_eq!(again.as_ptr(), address, "the last clone gives it back");
    drop(again);
    assert!(AlignedBuf::zeroed(10_000).iter().all(|byte| *byte == 0));
}

#[test]
fn the_pool_keeps_no_more_than_it_may_and_lets_the_oldest_go() {
    let _pool = install(5 * BLOCK_BYTES);
    let one: Vec<_> = (0..3).map(|_| AlignedBuf::with_len(1)).collect();
    let two = AlignedBuf::with_len(2 * BLOCK_BYTES);
    let addresses: Vec<_> = one.iter().map(|buf| buf.as_ptr()).collect();
    let two_address = two.as_ptr();
    drop(one);
    drop(two);
    assert_eq!(super::pool::retained_bytes(), 5 * BLOCK_BYTES);
    let larger = AlignedBuf::with_len(3 * BLOCK_BYTES);
    drop(larger);
    assert_eq!(super::pool::retained_bytes(), 5 * BLOCK_BYTES, "three single blocks went for it");
    drop(AlignedBuf::with_len(6 * BLOCK_BYTES));
    assert_eq!(super::pool::retained_bytes(), 5 * BLOCK_BYTES, "what can never fit displaces nothing");
    assert_eq!(AlignedBuf::with_len(2 * BLOCK_BYTES).as_ptr(), two_address);
    assert!(!addresses.is_empty());
}

#[test]
fn memory_is_made_ready_in_the_background_and_lies_in_the_pool_then() {
    assert_eq!(make_ready(1), 0, "there is no pool");
    let pool = install(64 << 20);
    let class = size_class(300 << 10);
    let ready_bytes = loop {
        match make_ready(300 << 10) {
            0 => std::thread::yield_now(),
            bytes => break bytes,
        }
    };
    assert!(ready_bytes.is_multiple_of(class), "{ready_bytes}");
    assert_eq!(super::pool::retained_bytes(), ready_bytes);
    let buf = AlignedBuf::with_len(300 << 10);
    assert_eq!(super::pool::retained_bytes(), ready_bytes - class, "it is what is given out");
    assert!(buf.iter().all(|byte| *byte == 0));
    drop(pool);
    drop(buf);
    assert_eq!(make_ready(1), 0);
}

#[test]
fn memory_may_outlive_the_pool() {
    let pool = install(1 << 20);
    let buf = AlignedBuf::with_len(1).freeze();
    drop(pool);
    assert_eq!(buf.len(), BLOCK_BYTES);
    drop(buf);
    assert_eq!(super::pool::retained_bytes(), 0);
}

#[test]
fn slices_of_slices() {
    let mut buf = AlignedBuf::with_len(1);
    for (index, byte) in buf.iter_mut().enumerate() {
        *byte = u8::try_from(index % 251).expect("below 256");
    }
    let whole = buf.freeze();
    let slice = whole.slice(100..200).slice(10..=19);
    assert_eq!(*slice, whole[110..120]);
    assert_eq!(slice.memory_bytes(), BLOCK_BYTES);
    assert!(slice.shares_memory_with(&whole) && !slice.shares_memory_with(&AlignedBuf::with_len(1).freeze()));
    assert!(whole.whole().is_some() && whole.slice(..).whole().is_some());
    assert!(slice.whole().is_none() && whole.slice(..4095).whole().is_none() && whole.slice(1..).whole().is_none());
    assert_eq!(whole.whole().map(Rc::strong_count), Some(2));
    assert!(IoBuf::empty().is_empty() && IoBuf::empty().slice(..).is_empty());
    assert!(whole.slice(7..7).is_empty());
}

#[test]
#[should_panic(expected = "range 0..4097 of a buffer of 4096 bytes")]
fn a_slice_beyond_the_end_panics_as_slices_do() {
    let _ = AlignedBuf::with_len(1).freeze().slice(..4097);
}
