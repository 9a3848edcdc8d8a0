//! Which partition a record without a named one goes to.

use std::sync::atomic::{AtomicU32, Ordering};

use ringmq_wire::PartitionIndex;

use crate::murmur2::murmur2;

/// Chooses by the key's hash as Kafka's clients do, and goes round where there is no key: for programs that build batches
/// themselves. [`Producer`](crate::Producer) does the same with keys, and without one fills a batch before it goes on.
///
/// ```
/// use ringmq_client::Partitioner;
/// let partitioner = Partitioner::new();
/// assert_eq!(partitioner.choose(Some(b"order 7"), 12), partitioner.choose(Some(b"order 7"), 12));
/// assert_ne!(partitioner.choose(None, 12), partitioner.choose(None, 12));
/// ```
#[derive(Debug)]
pub struct Partitioner {
    next: AtomicU32,
}

impl Partitioner {
    /// Starts at a random partition, so that many short-lived producers do not all favour the first one.
    ///
    /// ```
    /// let partitioner = ringmq_client::Partitioner::new();
    /// ```
    #[allow(clippy::new_without_default, reason = "two of them are not equal, as defaults would be")]
    pub fn new() -> Self {
        Self { next: AtomicU32::new(fastrand::u32(..)) }
    }

    /// The partition out of `count` for a record with this key; `None` when there is no partition at all.
    ///
    /// ```
    /// use ringmq_client::{PartitionIndex, Partitioner};
    /// assert_eq!(Partitioner::new().choose(Some(b"21"), 7), Some(PartitionIndex::new(3)));
    /// assert_eq!(Partitioner::new().choose(None, 0), None);
    /// ```
    pub fn choose(&self, key: Option<&[u8]>, count: u32) -> Option<PartitionIndex> {
        let number = match key {
            // Kafka clears the sign bit of its signed hash before it takes the remainder.
            Some(key) => murmur2(key) & 0x7fff_ffff,
            None => self.next.fetch_add(1, Ordering::Relaxed),
        };
        number.checked_rem(count).map(PartitionIndex::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_partition() {
        let (one, other) = (Partitioner::new(), Partitioner::new());
        for key in ["", "a", "order 7", "a long key that fills more than one word"] {
            let chosen = one.choose(Some(key.as_bytes()), 12);
            assert!(chosen.is_some_and(|partition| partition.get() < 12));
            assert_eq!(other.choose(Some(key.as_bytes()), 12), chosen);
        }
    }

    /// Kafka: `toPositive(-973932308) % 7`.
    #[test]
    fn a_key_goes_where_kafka_puts_it() {
        let expected = (i64::from(-973_932_308_i32) & 0x7fff_ffff) % 7;
        let chosen = Partitioner::new().choose(Some(b"21"), 7).unwrap();
        assert_eq!(i64::from(chosen.get()), expected);
    }

    #[test]
    fn records_without_a_key_spread_evenly() {
        let partitioner = Partitioner::new();
        let mut taken = [0; 5];
        for _ in 0..100 {
            taken[partitioner.choose(None, 5).unwrap().as_usize()] += 1;
        }
        assert_eq!(taken, [20; 5]);
    }

    #[test]
    fn no_partition_can_be_chosen_of_none() {
        assert_eq!(Partitioner::new().choose(Some(b"key"), 0), None);
        assert_eq!(Partitioner::new().choose(None, 0), None);
    }
}
