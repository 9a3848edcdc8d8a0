//! Which shard owns a partition.
//!
//! Topics take consecutive slots of one endless round: a topic of `n` partitions starts where the one before it ended.
//! Slots modulo the number of shards are the shards, so the partitions of all topics together are spread as evenly as
//! they can be, and a broker that starts with another number of cores needs no change to the metadata.

use ringmq_wire::{PartitionIndex, ShardIndex};

/// A place in the round of slots. Wraps at 2³²; a wrap shifts the round once and harms nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot(u32);

impl Slot {
    /// The slot with this number.
    pub const fn new(slot: u32) -> Slot {
        Slot(slot)
    }

    /// The slot's number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The slot after `partitions` more have been taken.
    pub(crate) const fn advance(self, partitions: u32) -> Slot {
        Slot(self.0.wrapping_add(partitions))
    }
}

/// The shard that owns `partition` of a topic that starts at `first_slot`, on a broker with `shard_count` shards.
///
/// ```
/// use ringmq_controller::metadata::{shard_of, Slot};
/// use ringmq_wire::{PartitionIndex, ShardIndex};
///
/// let four_shards = std::num::NonZeroU16::new(4).unwrap();
/// assert_eq!(shard_of(Slot::new(3), PartitionIndex::new(2), four_shards), ShardIndex::new(1));
/// ```
pub fn shard_of(first_slot: Slot, partition: PartitionIndex, shard_count: std::num::NonZeroU16) -> ShardIndex {
    let shard = (u64::from(first_slot.0) + u64::from(partition.get())) % u64::from(shard_count.get());
    // The remainder is below a u16.
    ShardIndex::new(u16::try_from(shard).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    /// Partitions per shard after creating topics of these sizes one after the other.
    fn spread(topics: impl IntoIterator<Item = u32>, shards: u16) -> Vec<u32> {
        let count = NonZeroU16::new(shards).unwrap();
        let mut load = vec![0; usize::from(shards)];
        let mut next = Slot::default();
        for partitions in topics {
            for partition in 0..partitions {
                load[usize::from(shard_of(next, PartitionIndex::new(partition), count).get())] += 1;
            }
            next = next.advance(partitions);
        }
        load
    }

    #[test]
    fn partitions_of_many_topics_differ_by_one_at_most_between_shards() {
        for shards in 1..=16 {
            for sizes in [vec![1; 1000], vec![3; 333], (1..=60).collect(), vec![16, 1, 1, 7, 10_000, 2]] {
                let load = spread(sizes.iter().copied(), shards);
                let (least, most) = (load.iter().min().unwrap(), load.iter().max().unwrap());
                assert!(most - least <= 1, "{shards} shards, {sizes:?}: {load:?}");
                assert_eq!(load.iter().sum::<u32>(), sizes.iter().sum());
            }
        }
    }

    #[test]
    fn the_round_goes_on_where_the_numbers_wrap() {
        let one_before_the_wrap = Slot::new(u32::MAX);
        let seven = NonZeroU16::new(7).unwrap();
        let shards: Vec<u16> =
            (0..8).map(|p| shard_of(one_before_the_wrap, PartitionIndex::new(p), seven).get()).collect();
        let first = u16::try_from(u64::from(u32::MAX) % 7).unwrap();
        assert_eq!(shards, (0..8).map(|p| (first + p) % 7).collect::<Vec<_>>());
        assert_eq!(one_before_the_wrap.advance(2), Slot::new(1));
    }
}
