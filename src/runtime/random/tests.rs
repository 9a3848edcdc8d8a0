use std::hash::BuildHasher;

use super::{Map, SeededState, fill, u64};

#[test]
fn numbers_differ_and_fill_reaches_every_byte() {
    assert_ne!(u64(), u64());
    let mut seen = [0_u8; 19];
    for _ in 0..64 {
        let mut bytes = [0_u8; 19];
        fill(&mut bytes);
        for (seen, byte) in seen.iter_mut().zip(bytes) {
            *seen |= byte;
        }
    }
    // A byte that stays without a bit in 64 rounds has a chance of one in 2^61.
    assert!(seen.iter().all(|byte| *byte != 0));
}

#[test]
fn each_map_has_a_seed_of_its_own_and_a_clone_keeps_it() {
    let one = SeededState::default();
    assert_eq!(one.hash_one("topic"), one.clone().hash_one("topic"));
    assert_ne!(one.hash_one("topic"), SeededState::default().hash_one("topic"));
    let mut map = Map::default();
    map.insert("key", 1);
    assert_eq!(map.get("key"), Some(&1));
}
