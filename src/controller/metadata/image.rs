//! What the cluster looks like at one moment: immutable once it is shared.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;

use ringmq_runtime::random::{Map, Set};
use ringmq_wire::{BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, ShardIndex, TopicId, TopicName};
use uuid::Uuid;

use super::placement::{Slot, SlotRuns};
use super::settings::SettingChoices;

/// How many deletions are remembered, the most recent ones; about 3 MB when there were as many.
pub const DELETED_TOPICS_MAX: usize = 65_536;

/// Who this cluster is. Comes from the data directory, not from the metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's id, drawn when its first data directory was made.
    pub id: Uuid,
    /// The one broker that there is, and with it the controller.
    pub broker: BrokerId,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Tells the topic from all others that had or will have its name.
    pub id: TopicId,
    /// The name that clients use.
    pub name: TopicName,
    /// How many partitions it has, at least 1.
    pub partitions: u32,
    /// How many replicas each partition has, at least 1.
    pub replicas: u16,
    /// Where its partitions are in the round of shards.
    pub slots: SlotRuns,
    /// The settings that it chose for itself.
    pub settings: SettingChoices,
}

impl Topic {
    /// The topic's partitions, ascending.
    pub fn partition_indexes(&self) -> impl ExactSizeIterator<Item = PartitionIndex> + use<> {
        (0..self.partitions).map(PartitionIndex::new)
    }

    /// Whether the topic has this partition.
    pub fn has_partition(&self, partition: PartitionIndex) -> bool {
        partition.get() < self.partitions
    }

    /// The shard that owns `partition`, of `shard_count`.
    pub fn shard_of(&self, partition: PartitionIndex, shard_count: NonZeroU16) -> ShardIndex {
        self.slots.shard_of(partition, shard_count)
    }
}

/// All metadata at one moment. Shared as an `Arc` by every shard; a change makes a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    cluster: Cluster,
    applied: Offset,
    by_name: Map<TopicName, Arc<Topic>>,
    by_id: Map<TopicId, Arc<Topic>>,
    partitions: u32,
    next_slot: Slot,
    next_producer_id: ProducerId,
    deleted: Arc<DeletedTopics>,
}

impl Image {
    /// The image before the first command.
    pub fn empty(cluster: Cluster) -> Image {
        Image {
            cluster,
            applied: Offset::ZERO,
            by_name: Map::default(),
            by_id: Map::default(),
            partitions: 0,
            next_slot: Slot::default(),
            next_producer_id: ProducerId::ZERO,
            deleted: Arc::default(),
        }
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> Uuid {
        self.cluster.id
    }

    /// The brokers of the cluster: one, until clusters are built.
    pub fn brokers(&self) -> &[BrokerId] {
        std::slice::from_ref(&self.cluster.broker)
    }

    /// The broker whose controller changes the metadata.
    pub fn controller(&self) -> BrokerId {
        self.cluster.broker
    }

    /// How often another broker has become the controller. A single broker is a quorum of one that never elects anew.
    pub fn controller_epoch(&self) -> LeaderEpoch {
        LeaderEpoch::ZERO
    }

    /// The version of the image: how many commands of the metadata log it contains. Of two images of one cluster, the
    /// one with the higher number is the later one.
    pub fn applied(&self) -> Offset {
        self.applied
    }

    /// The living topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The living topic with this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All living topics, in no particular order.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.by_id.values()
    }

    /// All living topics, sorted by name.
    pub fn topics_by_name(&self) -> Vec<&Arc<Topic>> {
        let mut topics: Vec<_> = self.topics().collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    /// How many partitions all living topics have together.
    pub fn partition_count(&self) -> u32 {
        self.partitions
    }

    /// Where the next topic's partitions will start.
    pub fn next_slot(&self) -> Slot {
        self.next_slot
    }

    /// The id behind all that idempotent producers have, or will get from a shard.
    pub fn next_producer_id(&self) -> ProducerId {
        self.next_producer_id
    }

    /// The most recently deleted topics.
    pub fn deleted(&self) -> &DeletedTopics {
        &self.deleted
    }

    // What `State` changes, each keeping both maps and the counts in step.

    /// Takes the slots of a topic's partitions as well.
    pub(super) fn insert(&mut self, topic: Arc<Topic>) {
        self.partitions += topic.partitions;
        self.next_slot = topic.slots.first_slot().advance(topic.partitions);
        self.by_name.insert(topic.name.clone(), topic.clone());
        self.by_id.insert(topic.id, topic);
    }

    /// Puts `topic` in the place of the one with its id.
    pub(super) fn replace(&mut self, topic: Arc<Topic>) {
        self.by_name.insert(topic.name.clone(), topic.clone());
        let (id, partitions) = (topic.id, topic.partitions);
        if let Some(before) = self.by_id.insert(id, topic) {
            self.partitions = self.partitions - before.partitions + partitions;
        }
    }

    pub(super) fn set_next_slot(&mut self, next: Slot) {
        self.next_slot = next;
    }

    pub(super) fn set_next_producer_id(&mut self, next: ProducerId) {
        self.next_producer_id = next;
    }

    pub(super) fn remove(&mut self, id: TopicId) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        self.by_name.remove(&topic.name);
        self.partitions -= topic.partitions;
        Arc::make_mut(&mut self.deleted).remember(id);
        Some(topic)
    }

    /// A topic that is not known was deleted.
    pub(super) fn remember_deleted(&mut self, id: TopicId) {
        if !self.deleted.contains(id) {
            Arc::make_mut(&mut self.deleted).remember(id);
        }
    }

    /// Remembers these deletions and no others, oldest first; each id is there once.
    pub(super) fn set_deleted(&mut self, order: Vec<TopicId>) {
        self.deleted = Arc::new(DeletedTopics { ids: order.iter().copied().collect(), order: order.into() });
    }

    pub(crate) fn set_applied(&mut self, applied: Offset) {
        self.applied = applied;
    }
}

/// The ids of the [`DELETED_TOPICS_MAX`] most recently deleted topics: positive evidence that their files may go.
///
/// An older id is forgotten, and then counts as unknown: files are kept rather than removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletedTopics {
    ids: Set<TopicId>,
    /// The same ids, oldest deletion first: the order in which they are forgotten.
    order: VecDeque<TopicId>,
}

impl DeletedTopics {
    /// Whether the metadata log says that this topic was deleted.
    pub fn contains(&self, id: TopicId) -> bool {
        self.ids.contains(&id)
    }

    /// The ids, oldest deletion first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TopicId> + '_ {
        self.order.iter().copied()
    }

    fn remember(&mut self, id: TopicId) {
        if self.order.len() == DELETED_TOPICS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(id);
        self.ids.insert(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_most_recent_deletions_are_remembered() {
        let id = |n: usize| TopicId::new(Uuid::from_u128(n as u128 + 2));
        let mut deleted = DeletedTopics::default();
        for n in 0..DELETED_TOPICS_MAX + 3 {
            deleted.remember(id(n));
        }
        assert_eq!(deleted.iter().len(), DELETED_TOPICS_MAX);
        assert!(!deleted.contains(id(2)) && deleted.contains(id(3)));
        assert_eq!(deleted.iter().next(), Some(id(3)));
        assert_eq!(deleted.iter().last(), Some(id(DELETED_TOPICS_MAX + 2)));
    }
}
