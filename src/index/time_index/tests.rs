use proptest::prelude::*;

use super::*;

fn coverage(base: i64) -> Coverage {
    Coverage {
        segment_base: Offset::new(base),
        log_number: 9,
        end: Offset::new(base + 1_000_000),
        end_position: 1 << 30,
        max_timestamp: Timestamp::new(5),
        first_written_at: Timestamp::new(4),
        generation: 7,
    }
}

#[test]
fn a_look_up_begins_behind_everything_that_is_earlier() {
    let mut index = TimeIndex::new(Offset::new(100));
    assert_eq!(index.start_for(Timestamp::new(5)), Offset::new(100));
    index.push(Timestamp::new(1000), Offset::new(110));
    index.push(Timestamp::new(1000), Offset::new(120));
    index.push(Timestamp::new(2000), Offset::new(130));
    assert_eq!(index.len(), 2, "no later timestamp, no new entry");
    assert_eq!(index.start_for(Timestamp::new(1000)), Offset::new(100), "a record of exactly 1000 may stand below 120");
    assert_eq!(index.start_for(Timestamp::new(1001)), Offset::new(120));
    assert_eq!(index.start_for(Timestamp::new(i64::MAX)), Offset::new(130));
    assert_eq!(index.start_for(Timestamp::new(i64::MIN)), Offset::new(100));
}

#[test]
fn calls_out_of_order_are_ignored() {
    let mut index = TimeIndex::new(Offset::new(100));
    index.push(Timestamp::new(1000), Offset::new(120));
    index.push(Timestamp::new(900), Offset::new(130));
    index.push(Timestamp::new(1100), Offset::new(120));
    index.push(Timestamp::new(1100), Offset::new(90));
    assert_eq!(index.len(), 1);
    assert_eq!(index.start_for(Timestamp::new(2000)), Offset::new(120));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_below_the_start_is_as_late_as_asked(
        // (timestamp, records, whether the index is told) of each frame.
        frames in prop::collection::vec((0_i64..1000, 1_i64..50, any::<bool>()), 1..100),
        asked in 0_i64..1001,
    ) {
        let mut index = TimeIndex::new(Offset::ZERO);
        let mut latest = i64::MIN;
        let mut end = 0;
        for (timestamp, records, told) in &frames {
            if *told && end > 0 {
                index.push(Timestamp::new(latest), Offset::new(end));
            }
            latest = latest.max(*timestamp);
            end += records;
        }
        let start = index.start_for(Timestamp::new(asked)).get();
        let mut offset = 0;
        for (timestamp, records, _) in frames {
            if offset < start {
                prop_assert!(timestamp < asked);
            }
            offset += records;
        }
    }

    #[test]
    fn files_round_trip_and_damage_is_noticed(
        steps in prop::collection::vec((1_i64..1 << 30, 1_i64..10_000), 0..100),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut index = TimeIndex::new(Offset::new(7));
        let (mut timestamp, mut offset) = (-1, 7);
        for (later, further) in steps {
            (timestamp, offset) = (timestamp + later, offset + further);
            index.push(Timestamp::new(timestamp), Offset::new(offset));
        }
        let encoded = index.encode(&coverage(7));
        prop_assert_eq!(TimeIndex::decode(&encoded), Ok((coverage(7), index)));
        let mut flipped = encoded.clone();
        flipped[at.index(encoded.len())] ^= 1 << bit;
        prop_assert!(TimeIndex::decode(&flipped).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = TimeIndex::decode(&bytes);
    }
}
