//! The latest offset of each key.

use hashbrown::HashMap;
use ringmq_runtime::random;
use ringmq_wire::Offset;
use siphasher::sip128::{Hasher128, SipHasher24};

use super::pace::{KeyBytes, Pace};

/// What a key takes in the map in the worst case: 24 bytes and one of the table's, in a table that has just doubled.
const KEY_BYTES: usize = 25 * 16 / 7;

/// Keys of one table, about. A table that doubles moves all that it has in one go.
const TABLE_KEYS: usize = 1024;

/// What giving back a table counts for: more than its bytes, as the allocator may return it to the system.
const TABLE_FREE_BYTES: usize = 4 << 10;

/// The latest offset of each key, in bounded memory.
///
/// Keys are told apart by a hash of 128 bits under a secret that is drawn anew each time: that two keys share one by
/// chance is not to be expected in the life of a disk, and nobody can choose keys so that they do.
pub(super) struct LatestOffsets {
    /// Many small ones, by a part of the hash: no growth takes long, and neither does giving one back.
    tables: Box<[HashMap<[u64; 2], Offset>]>,
    len: usize,
    keys_max: usize,
    secret: [u64; 2],
    memory: KeyBytes,
}

impl LatestOffsets {
    /// For as many keys as take up about that much memory, and at least one.
    pub(super) fn new(memory: KeyBytes) -> LatestOffsets {
        let keys_max = (memory.get() / KEY_BYTES).max(1);
        let tables = (0..keys_max.div_ceil(TABLE_KEYS)).map(|_| HashMap::new()).collect();
        LatestOffsets { tables, len: 0, keys_max, secret: [random::u64(), random::u64()], memory }
    }

    /// Notes that the key has a record there. Offsets rise. `false` when there is no room for another key.
    pub(super) fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        let (hash, full) = (self.hash(key), self.len >= self.keys_max);
        let at = self.table_of(hash);
        let table = &mut self.tables[at];
        match table.get_mut(&hash) {
            Some(latest) => *latest = offset,
            None if full => return false,
            None => {
                table.insert(hash, offset);
                self.len += 1;
            }
        }
        true
    }

    /// Where the key's latest record is, if it was noted.
    pub(super) fn of(&self, key: &[u8]) -> Option<Offset> {
        let hash = self.hash(key);
        self.tables[self.table_of(hash)].get(&hash).copied()
    }

    /// All keys are known: others may have the memory that is left.
    pub(super) fn complete(&mut self) {
        self.memory.shrink_to(self.len * KEY_BYTES);
    }

    /// Gives all memory back, table by table.
    pub(super) async fn free(self, pace: &mut Pace) {
        for table in self.tables {
            drop(table);
            pace.spend(TABLE_FREE_BYTES).await;
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        use std::hash::Hasher;
        let mut hasher = SipHasher24::new_with_keys(self.secret[0], self.secret[1]);
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }

    /// The upper half of a product is as evenly spread as the hash, and below the number of tables.
    fn table_of(&self, hash: [u64; 2]) -> usize {
        let spread = u128::from(hash[0]) * self.tables.len() as u128;
        usize::try_from(spread >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ringmq_runtime::sim::{Sim, SimConfig};

    use super::super::pace::CompactionBudget;
    use super::*;

    /// With memory for so many keys.
    fn for_keys(keys: usize) -> LatestOffsets {
        LatestOffsets::new(CompactionBudget::new(2 * keys * KEY_BYTES).take_keys())
    }

    #[test]
    fn the_latest_offset_of_each_key_is_known_until_the_memory_is_full() {
        Sim::new(SimConfig::with_seed(1)).run(|| async {
            let mut latest = for_keys(3);
            for (key, offset) in [("a", 0), ("b", 1), ("", 2), ("a", 3)] {
                assert!(latest.note(key.as_bytes(), Offset::new(offset)));
            }
            assert!(!latest.note(b"c", Offset::new(4)), "a fourth key");
            assert!(latest.note(b"b", Offset::new(5)), "a known one");
            let of = |key: &str| latest.of(key.as_bytes()).map(Offset::get);
            assert_eq!([of("a"), of("b"), of(""), of("c")], [Some(3), Some(5), Some(2), None]);
        });
    }

    #[test]
    fn many_tables_are_one_map() {
        Sim::new(SimConfig::with_seed(2)).run(|| async {
            let mut latest = for_keys(20 * TABLE_KEYS);
            assert_eq!(latest.tables.len(), 20);
            let mut expected = BTreeMap::new();
            for offset in 0..50_000_i64 {
                let key = (random::u64() % 20_000).to_string();
                assert!(latest.note(key.as_bytes(), Offset::new(offset)));
                expected.insert(key, offset);
            }
            assert!(expected.iter().all(|(key, offset)| latest.of(key.as_bytes()) == Some(Offset::new(*offset))));
            assert_eq!((latest.of(b"another"), latest.len), (None, expected.len()));
            let longest = latest.tables.iter().map(HashMap::len).max();
            assert!(longest < Some(2 * TABLE_KEYS), "no table has much more than the others: {longest:?}");
        });
    }
}
