//! The latest offset of each key.

use hashbrown::HashMap;
use ringmq_runtime::random;
use ringmq_wire::Offset;
use siphasher::sip128::{Hasher128, SipHasher24};

/// What a key takes in the map in the worst case: 24 bytes and one of the table's, in a table that has just doubled.
const KEY_BYTES: usize = 25 * 16 / 7;

/// The latest offset of each key, in bounded memory.
///
/// Keys are told apart by a hash of 128 bits under a secret that is drawn anew each time: that two keys share one by
/// chance is not to be expected in the life of a disk, and nobody can choose keys so that they do.
pub(super) struct LatestOffsets {
    offsets: HashMap<[u64; 2], Offset>,
    keys_max: usize,
    secret: [u64; 2],
}

impl LatestOffsets {
    /// For as many keys as take up about that much memory, and at least one.
    pub(super) fn new(bytes_max: usize) -> LatestOffsets {
        let keys_max = (bytes_max / KEY_BYTES).max(1);
        LatestOffsets { offsets: HashMap::new(), keys_max, secret: [random::u64(), random::u64()] }
    }

    /// Notes that the key has a record there. Offsets rise. `false` when there is no room for another key.
    pub(super) fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        let (hash, full) = (self.hash(key), self.offsets.len() >= self.keys_max);
        match self.offsets.get_mut(&hash) {
            Some(latest) => *latest = offset,
            None if full => return false,
            None => drop(self.offsets.insert(hash, offset)),
        }
        true
    }

    /// Where the key's latest record is, if it was noted.
    pub(super) fn of(&self, key: &[u8]) -> Option<Offset> {
        self.offsets.get(&self.hash(key)).copied()
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        use std::hash::Hasher;
        let mut hasher = SipHasher24::new_with_keys(self.secret[0], self.secret[1]);
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }
}

#[cfg(test)]
mod tests {
    use ringmq_runtime::sim::{Sim, SimConfig};

    use super::*;

    #[test]
    fn the_latest_offset_of_each_key_is_known_until_the_memory_is_full() {
        Sim::new(SimConfig::with_seed(1)).run(|| async {
            let mut latest = LatestOffsets::new(3 * KEY_BYTES);
            for (key, offset) in [("a", 0), ("b", 1), ("", 2), ("a", 3)] {
                assert!(latest.note(key.as_bytes(), Offset::new(offset)));
            }
            assert!(!latest.note(b"c", Offset::new(4)), "a fourth key");
            assert!(latest.note(b"b", Offset::new(5)), "a known one");
            let of = |key: &str| latest.of(key.as_bytes()).map(Offset::get);
            assert_eq!([of("a"), of("b"), of(""), of("c")], [Some(3), Some(5), Some(2), None]);
        });
    }
}
