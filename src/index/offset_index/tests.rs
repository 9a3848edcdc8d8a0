use proptest::prelude::*;

use super::*;
use crate::file::HEADER_BYTES;
use ringmq_wire::Timestamp;

const INTERVAL: u64 = 64 * 1024;

fn frame(offset: i64, position: u64) -> FramePlace {
    FramePlace { offset: Offset::new(offset), position }
}

fn coverage(base: i64, end: FramePlace) -> Coverage {
    Coverage {
        segment_base: Offset::new(base),
        log_number: 0x0123_4567_89AB_CDEF,
        end: end.offset,
        end_position: end.position,
        max_timestamp: Timestamp::new(77),
        first_written_at: Timestamp::new(66),
        generation: 7,
    }
}

/// Frames side by side: (records, blocks) each, from offset `base` on. The last place is the end.
fn places(base: i64, frames: &[(u16, u8)]) -> Vec<FramePlace> {
    let mut at = frame(base, 0);
    let mut places = vec![at];
    for (records, blocks) in frames {
        at = frame(at.offset.get() + i64::from(*records), at.position + u64::from(*blocks) * BLOCK_BYTES);
        places.push(at);
    }
    places
}

fn index_of(base: i64, places: &[FramePlace]) -> OffsetIndex {
    let mut index = OffsetIndex::new(Offset::new(base), INTERVAL);
    for place in places {
        index.push(*place);
    }
    index
}

fn frames() -> impl Strategy<Value = Vec<(u16, u8)>> {
    prop::collection::vec((1_u16..5000, 1_u8..=255), 1..80)
}

#[test]
fn the_first_frame_and_then_one_an_interval_get_entries() {
    let mut index = OffsetIndex::new(Offset::new(100), INTERVAL);
    assert_eq!(index.floor(Offset::new(100)), None);
    assert!(index.push(frame(100, 0)));
    assert!(!index.push(frame(110, INTERVAL - BLOCK_BYTES)));
    assert!(index.push(frame(120, INTERVAL)));
    assert_eq!(index.len(), 2);
    assert_eq!(index.floor(Offset::new(99)), None);
    assert_eq!(index.floor(Offset::new(119)), Some(frame(100, 0)));
    assert_eq!(index.floor(Offset::new(120)), Some(frame(120, INTERVAL)));
    assert_eq!(index.last(), Some(frame(120, INTERVAL)));
}

#[test]
fn a_read_ends_where_a_frame_is_known_to_begin() {
    let index = index_of(0, &[frame(0, 0), frame(10, INTERVAL), frame(20, 4 * INTERVAL), frame(30, 5 * INTERVAL)]);
    assert_eq!(index.read_end(0, INTERVAL), Some(INTERVAL), "an exact fit");
    assert_eq!(index.read_end(0, 2 * INTERVAL), Some(INTERVAL), "the last one within reach");
    assert_eq!(index.read_end(INTERVAL, INTERVAL), Some(4 * INTERVAL), "a frame larger than wanted is read whole");
    assert_eq!(index.read_end(4 * INTERVAL, u64::MAX), Some(5 * INTERVAL));
    assert_eq!(index.read_end(5 * INTERVAL, INTERVAL), None, "behind the last entry nothing is known");
}

#[test]
fn what_has_no_relative_offset_or_block_gets_no_entry() {
    let base = Offset::new(1000);
    assert!(!OffsetIndex::fits(base, frame(999, 0)));
    assert!(OffsetIndex::fits(base, frame(1000 + i64::from(u32::MAX), 0)));
    assert!(!OffsetIndex::fits(base, frame(1001 + i64::from(u32::MAX), 0)));
    assert!(!OffsetIndex::fits(base, frame(1000, (u64::from(u32::MAX) + 1) * BLOCK_BYTES)));
    assert!(!OffsetIndex::new(base, INTERVAL).push(frame(999, 0)));
}

#[test]
fn a_file_of_zeros_or_of_another_kind_is_no_index() {
    // Iggy once took zero bytes for entries.
    for length in [0, 1, HEADER_BYTES - 1, HEADER_BYTES, 4096] {
        assert!(OffsetIndex::decode(&vec![0; length], INTERVAL).is_err());
    }
    let encoded = OffsetIndex::new(Offset::ZERO, INTERVAL).encode(&coverage(0, frame(0, 0)));
    assert!(OffsetIndex::decode(&encoded, INTERVAL).is_ok());
    assert_eq!(crate::TimeIndex::decode(&encoded), Err(IndexError::NotAnIndex));
}

#[test]
fn entries_beyond_the_end_that_the_file_names_are_refused() {
    let index = index_of(0, &[frame(0, 0), frame(10, INTERVAL)]);
    for end in [frame(10, 2 * INTERVAL), frame(20, INTERVAL)] {
        let encoded = index.encode(&coverage(0, end));
        assert_eq!(OffsetIndex::decode(&encoded, INTERVAL), Err(IndexError::Disordered), "{end:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn floor_is_an_entry_at_or_below_and_none_is_closer(
        base in 0_i64..1 << 40,
        frames in frames(),
        ahead in 0_i64..400_000,
    ) {
        let places = places(base, &frames);
        let index = index_of(base, &places);
        let offset = Offset::new(base + ahead);
        let entries: Vec<FramePlace> = index.entries.iter().map(|entry| entry.place(index.base)).collect();
        let below = entries.iter().copied().filter(|place| place.offset <= offset);
        let expected = below.max_by_key(|place| place.position);
        prop_assert_eq!(index.floor(offset), expected);
        // Never further back than the interval and the frame that reached beyond it.
        for pair in entries.windows(2) {
            prop_assert!(pair[1].position >= pair[0].position + INTERVAL);
            prop_assert!(pair[1].position < pair[0].position + INTERVAL + 256 * BLOCK_BYTES);
        }
    }

    #[test]
    fn files_round_trip(base in 0_i64..1 << 40, frames in frames()) {
        let mut places = places(base, &frames);
        let end = places.pop().expect("never empty");
        let index = index_of(base, &places);
        let coverage = coverage(base, end);
        let encoded = index.encode(&coverage);
        prop_assert_eq!(Coverage::decode(&encoded, IndexKind::Offset), Ok(coverage));
        prop_assert_eq!(OffsetIndex::decode(&encoded, INTERVAL), Ok((coverage, index)));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unnoticed(
        frames in frames(),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut places = places(0, &frames);
        let end = places.pop().expect("never empty");
        let encoded = index_of(0, &places).encode(&coverage(0, end));
        let mut flipped = encoded.clone();
        flipped[at.index(encoded.len())] ^= 1 << bit;
        prop_assert!(OffsetIndex::decode(&flipped, INTERVAL).is_err());
        prop_assert!(OffsetIndex::decode(&encoded[..at.index(encoded.len())], INTERVAL).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = OffsetIndex::decode(&bytes, INTERVAL);
        let _ = Coverage::decode(&bytes, IndexKind::Time);
    }
}
