//! MurmurHash2, 32 bits, with the seed that Kafka's default partitioner uses.
//!
//! Kafka's clients place a record by this hash of its key, so a key that several kinds of client write lands in one
//! partition and keeps its order. The function is Austin Appleby's, who placed it in the public domain.

const MULTIPLIER: u32 = 0x5bd1_e995;
const ROTATION: u32 = 24;
const SEED: u32 = 0x9747_b28c;

/// The hash of `data`.
pub(crate) fn murmur2(data: &[u8]) -> u32 {
    // The length is mixed in modulo 2^32, as the reference does.
    #[expect(clippy::cast_possible_truncation, reason = "only the low bits of the length take part")]
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> ROTATION;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        for (place, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own tests (`UtilsTest.testMurmur2`), as unsigned numbers.
    #[test]
    fn agrees_with_kafka() {
        for (key, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), expected.cast_unsigned(), "{key}");
        }
    }
}
