//! Which key each record gets.

use clap::ValueEnum;
use ringmq_client::PartitionIndex;

/// How long a key is: its number, big-endian.
pub(crate) const KEY_BYTES: usize = 8;

/// How often each key comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyDistribution {
    /// All alike
    Uniform,
    /// A few very often: Zipf's law with exponent 0.99, as in YCSB
    Zipf,
}

/// Draws keys. Each partition has its share of them, so that a key is in one partition, as with hashing; and as with hashing,
/// those that come often are spread over all partitions.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    random: fastrand::Rng,
    /// Of the topic.
    count: u64,
    partitions: u64,
    /// How often the ranks within a partition come; none for all alike.
    ranks: Option<Zipf>,
}

impl Keys {
    /// Keys `0..count`, spread over the partitions; at least as many as those.
    pub(crate) fn new(count: u64, partitions: u32, distribution: KeyDistribution, seed: u64) -> Self {
        let partitions = u64::from(partitions);
        // Where the number of partitions does not divide that of keys, the first ones have one more.
        let ranks = (distribution == KeyDistribution::Zipf).then(|| Zipf::new(count.div_ceil(partitions)));
        Self { random: fastrand::Rng::with_seed(seed), count, partitions, ranks }
    }

    /// A key of this partition.
    pub(crate) fn draw(&mut self, partition: PartitionIndex) -> [u8; KEY_BYTES] {
        let partition = u64::from(partition.get());
        let in_partition = self.count.saturating_sub(partition).div_ceil(self.partitions).max(1);
        let rank = match &self.ranks {
            None => self.random.u64(..in_partition),
            Some(zipf) => zipf.draw(&mut self.random) % in_partition,
        };
        (rank * self.partitions + partition).to_be_bytes()
    }
}

/// The exponent that YCSB takes for skewed keys (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", 2010).
const EXPONENT: f64 = 0.99;

/// Ranks by Zipf's law: rank k comes in proportion to (k + 1)^-s.
///
/// Rejection-inversion: Hörmann and Derflinger, "Rejection-Inversion to Generate Variates from Monotone Discrete
/// Distributions", 1996. It needs no table, and on average little more than one try.
#[derive(Debug, Clone)]
struct Zipf {
    ranks: f64,
    /// The integral of the density between these is what is drawn from.
    from: f64,
    until: f64,
    /// Within it of the upper end, a point needs no second look.
    squeeze: f64,
}

impl Zipf {
    fn new(ranks: u64) -> Self {
        let ranks = ranks as f64;
        let squeeze = 2.0 - inverse_integral(integral(2.5) - density(2.0));
        Self { ranks, from: integral(1.5) - 1.0, until: integral(ranks + 0.5), squeeze }
    }

    /// From 0 on.
    fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        loop {
            let area = self.until + random.f64() * (self.from - self.until);
            let at = inverse_integral(area);
            let rank = at.round().clamp(1.0, self.ranks);
            if rank - at <= self.squeeze || area >= integral(rank + 0.5) - density(rank) {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to the ranks")]
                return rank as u64 - 1;
            }
        }
    }
}

fn density(at: f64) -> f64 {
    at.powf(-EXPONENT)
}

/// Of the density, from 1 to `at`.
fn integral(at: f64) -> f64 {
    (at.powf(1.0 - EXPONENT) - 1.0) / (1.0 - EXPONENT)
}

fn inverse_integral(area: f64) -> f64 {
    (1.0 + area * (1.0 - EXPONENT)).powf(1.0 / (1.0 - EXPONENT))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// How often each key of a partition came.
    fn counted(mut keys: Keys, partition: u32, draws: usize) -> BTreeMap<u64, usize> {
        let mut found = BTreeMap::new();
        for _ in 0..draws {
            *found.entry(u64::from_be_bytes(keys.draw(PartitionIndex::new(partition)))).or_insert(0) += 1;
        }
        found
    }

    #[test]
    fn every_key_is_in_one_partition_and_all_come() {
        for distribution in [KeyDistribution::Uniform, KeyDistribution::Zipf] {
            let mut all = Vec::new();
            for partition in 0..3 {
                let found = counted(Keys::new(10, 3, distribution, 7), partition, 10_000);
                assert!(found.keys().all(|key| key % 3 == u64::from(partition)), "{found:?}");
                all.extend(found.into_keys());
            }
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>(), "{distribution:?}");
        }
    }

    #[test]
    fn uniform_keys_come_alike() {
        let found = counted(Keys::new(100, 1, KeyDistribution::Uniform, 3), 0, 100_000);
        assert_eq!(found.len(), 100);
        // Seven standard deviations, of about 31, to each side.
        assert!(found.values().all(|count| (780..=1220).contains(count)), "{found:?}");
    }

    #[test]
    fn skewed_keys_follow_the_law_of_zipf() {
        const DRAWS: usize = 1_000_000;
        let found = counted(Keys::new(1000, 1, KeyDistribution::Zipf, 11), 0, DRAWS);
        let all: f64 = (1..=1000).map(|rank| density(f64::from(rank))).sum();
        for rank in [1_u32, 2, 3, 10, 100, 500, 1000] {
            let expected = DRAWS as f64 * density(f64::from(rank)) / all;
            let count = found.get(&u64::from(rank - 1)).copied().unwrap_or(0) as f64;
            assert!((count - expected).abs() < 6.0 * expected.sqrt(), "rank {rank}: {count} instead of {expected}");
        }
    }

    #[test]
    fn one_key_is_always_the_same() {
        assert_eq!(counted(Keys::new(1, 1, KeyDistribution::Zipf, 5), 0, 100), BTreeMap::from([(0, 100)]));
    }
}
