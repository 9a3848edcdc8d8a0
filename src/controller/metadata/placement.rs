//! Which shard owns a partition.
//!
//! Topics take consecutive slots of one endless round: a topic of `n` partitions starts where the one before it ended.
//! Partitions that a topic gets later take the next slots of the round in the same way. Slots modulo the number of shards
//! are the shards, so the partitions of all topics together are spread as evenly as they can be, and a broker that starts
//! with another number of cores needs no change to the metadata.

use std::num::NonZeroU16;

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

/// Partitions of one topic that have consecutive slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRun {
    /// The first of the partitions.
    pub first_partition: PartitionIndex,
    /// Its slot; each further partition has the next one.
    pub first_slot: Slot,
}

/// The slots of one topic's partitions: a run for those that it was created with, and one each time it gets more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRuns {
    created: Slot,
    /// Ascending by partition, which is never 0.
    added: Vec<SlotRun>,
}

impl SlotRuns {
    /// The slots of a topic that is created.
    pub fn new(first_slot: Slot) -> SlotRuns {
        SlotRuns { created: first_slot, added: Vec::new() }
    }

    /// The slot of partition 0.
    pub fn first_slot(&self) -> Slot {
        self.created
    }

    /// The runs of partitions that the topic has got since it was created, ascending by partition.
    pub fn added(&self) -> &[SlotRun] {
        &self.added
    }

    /// Says where the partitions from `run` on are. They are behind all that had been added before.
    pub(crate) fn add(&mut self, run: SlotRun) {
        debug_assert!(self.added.last().is_none_or(|last| last.first_partition < run.first_partition));
        self.added.push(run);
    }

    /// The shard that owns `partition`, of `shard_count`.
    pub fn shard_of(&self, partition: PartitionIndex, shard_count: NonZeroU16) -> ShardIndex {
        let runs_before = self.added.partition_point(|run| run.first_partition <= partition);
        match self.added[..runs_before].last() {
            None => shard_of(self.created, partition, shard_count),
            Some(run) => {
                let within = PartitionIndex::new(partition.get() - run.first_partition.get());
                shard_of(run.first_slot, within, shard_count)
            }
        }
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
pub fn shard_of(first_slot: Slot, partition: PartitionIndex, shard_count: NonZeroU16) -> ShardIndex {
    let shard = (u64::from(first_slot.0) + u64::from(partition.get())) % u64::from(shard_count.get());
    // The remainder is below a u16.
    ShardIndex::new(u16::try_from(shard).unwrap_or_default())
}

#[cfg(test)]
mod tests {
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
    fn partitions_that_are_added_spread_as_evenly_as_new_topics() {
        let three = NonZeroU16::new(3).unwrap();
        let (mut load, mut next) = ([0_u32; 3], Slot::default());
        let mut topics: Vec<(SlotRuns, u32)> = Vec::new();
        for _ in 0..50 {
            topics.push((SlotRuns::new(next), 3));
            next = next.advance(3);
        }
        // One more each, twice: by the topics' own first slots all of them would meet on one shard.
        for _ in 0..2 {
            for (runs, partitions) in &mut topics {
                let before: Vec<_> = (0..*partitions).map(|p| runs.shard_of(PartitionIndex::new(p), three)).collect();
                runs.add(SlotRun { first_partition: PartitionIndex::new(*partitions), first_slot: next });
                let after: Vec<_> = (0..*partitions).map(|p| runs.shard_of(PartitionIndex::new(p), three)).collect();
                assert_eq!(before, after, "what is there stays where it is");
                *partitions += 1;
                next = next.advance(1);
            }
        }
        for (runs, partitions) in &topics {
            for partition in 0..*partitions {
                load[usize::from(runs.shard_of(PartitionIndex::new(partition), three).get())] += 1;
            }
        }
        assert_eq!(load.iter().sum::<u32>(), 250);
        assert!(load.iter().max().unwrap() - load.iter().min().unwrap() <= 1, "{load:?}");
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
