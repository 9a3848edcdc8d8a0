//! The shard's applied copy of the metadata: every topic, who owns each partition, and the partitions owned here.

use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;

use ringmq_controller::metadata::{Image, Topic};
use ringmq_runtime::random::Map;
use ringmq_segment::LogId;
use ringmq_wire::{ErrorCode, PartitionIndex, ShardIndex, TopicId, TopicName, WireError};

use crate::partition::Partition;

/// Topics and their partitions, as of one version of the metadata.
pub(crate) struct Directory {
    shard: ShardIndex,
    shard_count: NonZeroU16,
    image: Option<Arc<Image>>,
    by_name: Map<TopicName, Rc<TopicEntry>>,
    by_id: Map<TopicId, Rc<TopicEntry>>,
    /// How many partitions each shard owns, by index.
    partitions_by_shard: Vec<u32>,
}

/// One topic and those of its partitions that this shard owns.
pub(crate) struct TopicEntry {
    pub(crate) topic: Arc<Topic>,
    /// By partition index; `None` is owned elsewhere.
    owned: Box<[Option<Rc<Partition>>]>,
}

/// Where one partition is.
pub(crate) enum Owner {
    Here(Rc<Partition>),
    Elsewhere(ShardIndex, LogId),
}

/// What must be opened, altered and closed to get from one version of the metadata to the next.
pub(crate) struct Difference {
    pub(crate) changed: Vec<Changed>,
    pub(crate) deleted: Vec<Rc<TopicEntry>>,
}

/// A topic that is new, or not as it was.
pub(crate) struct Changed {
    pub(crate) topic: Arc<Topic>,
    /// What the shard has of it; `None` for a new one.
    pub(crate) before: Option<Rc<TopicEntry>>,
}

impl TopicEntry {
    /// `owned` are this shard's partitions of the topic, in any order.
    pub(crate) fn new(topic: Arc<Topic>, owned: impl IntoIterator<Item = Rc<Partition>>) -> Self {
        let mut slots: Vec<Option<Rc<Partition>>> = topic.partition_indexes().map(|_| None).collect();
        for partition in owned {
            if let Some(slot) = slots.get_mut(partition.id().partition.as_usize()) {
                *slot = Some(partition);
            }
        }
        Self { topic, owned: slots.into() }
    }

    /// This shard's partitions of the topic.
    pub(crate) fn owned(&self) -> impl Iterator<Item = &Rc<Partition>> {
        self.owned.iter().flatten()
    }
}

impl Directory {
    pub(crate) fn new(shard: ShardIndex, shard_count: NonZeroU16) -> Self {
        let partitions_by_shard = vec![0; usize::from(shard_count.get())];
        Self { shard, shard_count, image: None, by_name: Map::default(), by_id: Map::default(), partitions_by_shard }
    }

    /// The metadata that was applied last.
    ///
    /// # Errors
    /// Before the first version was.
    pub(crate) fn image(&self) -> Result<Arc<Image>, WireError> {
        self.image.clone().ok_or_else(|| WireError::new(ErrorCode::Overloaded, "the broker is starting; ask again"))
    }

    /// The shard that owns a partition.
    pub(crate) fn shard_of(&self, topic: &Topic, partition: PartitionIndex) -> ShardIndex {
        topic.shard_of(partition, self.shard_count)
    }

    /// Where a partition is, for a client that knows its topic by name.
    ///
    /// # Errors
    /// `UnknownTopic`, `UnknownPartition`.
    pub(crate) fn locate(&self, name: &TopicName, partition: PartitionIndex) -> Result<Owner, WireError> {
        let Some(entry) = self.by_name.get(name) else { return Err(unknown_topic(name)) };
        match entry.owned.get(partition.as_usize()) {
            Some(Some(owned)) => Ok(Owner::Here(owned.clone())),
            Some(None) => {
                let id = LogId { topic_id: entry.topic.id, partition };
                Ok(Owner::Elsewhere(self.shard_of(&entry.topic, partition), id))
            }
            None => Err(unknown_partition(name, entry.topic.partitions, partition)),
        }
    }

    /// A partition of this shard, for another shard that knows it by id.
    ///
    /// # Errors
    /// `UnknownTopic` when the topic was deleted, or is so new that this shard has not applied it; `UnknownPartition` when
    /// the partition is so new.
    pub(crate) fn owned(&self, id: LogId) -> Result<Rc<Partition>, WireError> {
        let entry = self.by_id.get(&id.topic_id);
        let owned = entry.and_then(|entry| entry.owned.get(id.partition.as_usize())?.clone());
        owned.ok_or_else(|| {
            let code = if entry.is_some() { ErrorCode::UnknownPartition } else { ErrorCode::UnknownTopic };
            let detail = format!("partition {} of topic {} is not on shard {}", id.partition, id.topic_id, self.shard);
            WireError::new(code, detail)
        })
    }

    /// Every partition of this shard, topic by topic.
    pub(crate) fn all_owned(&self) -> Vec<Rc<Partition>> {
        self.by_id.values().flat_map(|entry| entry.owned()).cloned().collect()
    }

    /// How many partitions each shard owns, by index.
    pub(crate) fn partitions_by_shard(&self) -> &[u32] {
        &self.partitions_by_shard
    }

    /// Changes the count of each shard that owns some of the topic's partitions.
    fn count_partitions(&mut self, topic: &Topic, change: impl Fn(u32) -> u32) {
        for partition in topic.partition_indexes() {
            let owner = self.shard_of(topic, partition);
            if let Some(count) = self.partitions_by_shard.get_mut(owner.as_usize()) {
                *count = change(*count);
            }
        }
    }

    /// What has to happen before and after `next` takes the place of the applied version.
    pub(crate) fn difference(&self, next: &Image) -> Difference {
        let changed = next.topics().filter_map(|topic| {
            let before = self.by_id.get(&topic.id).cloned();
            // An image shares with the one before it what has not changed.
            let is_same = before.as_ref().is_some_and(|before| Arc::ptr_eq(&before.topic, topic));
            (!is_same).then(|| Changed { topic: topic.clone(), before })
        });
        let changed = changed.collect();
        let gone = |entry: &&Rc<TopicEntry>| next.topic_by_id(entry.topic.id).is_none();
        let deleted = self.by_id.values().filter(gone).cloned().collect();
        Difference { changed, deleted }
    }

    /// The partitions of a topic that fall to this shard and are not open here.
    pub(crate) fn to_open(&self, changed: &Changed) -> Vec<PartitionIndex> {
        // Whoever has a partition keeps it: only those behind the ones that there were can be new.
        let known = changed.before.as_ref().map_or(0, |before| before.owned.len());
        let new = changed.topic.partition_indexes().skip(known);
        new.filter(|&partition| self.shard_of(&changed.topic, partition) == self.shard).collect()
    }

    /// Puts the next version in place.
    pub(crate) fn replace(&mut self, image: Arc<Image>, changed: Vec<TopicEntry>, deleted: &[Rc<TopicEntry>]) {
        for entry in deleted {
            if self.by_id.remove(&entry.topic.id).is_some() {
                self.count_partitions(&entry.topic, |count| count.saturating_sub(1));
            }
            // The name may belong to a younger topic by now.
            if self.by_name.get(&entry.topic.name).is_some_and(|named| named.topic.id == entry.topic.id) {
                self.by_name.remove(&entry.topic.name);
            }
        }
        for entry in changed.into_iter().map(Rc::new) {
            self.count_partitions(&entry.topic, |count| count.saturating_add(1));
            self.by_name.insert(entry.topic.name.clone(), entry.clone());
            if let Some(before) = self.by_id.insert(entry.topic.id, entry) {
                self.count_partitions(&before.topic, |count| count.saturating_sub(1));
            }
        }
        self.image = Some(image);
    }
}

pub(crate) fn unknown_topic(name: &str) -> WireError {
    WireError::new(ErrorCode::UnknownTopic, format!("there is no topic {name:?}; create it, or check the name"))
}

fn unknown_partition(name: &str, partitions: u32, partition: PartitionIndex) -> WireError {
    let last = partitions.saturating_sub(1);
    WireError::new(ErrorCode::UnknownPartition, format!("topic {name:?} has partitions 0 to {last}, not {partition}"))
}

#[cfg(test)]
mod tests {
    use ringmq_controller::metadata::{Cluster, Command, Slot, SlotRuns, State};
    use ringmq_wire::batch::BatchLimits;
    use ringmq_wire::{BrokerId, ErrorCode};
    use uuid::Uuid;

    use super::*;

    fn name(text: &str) -> TopicName {
        TopicName::parse(text).unwrap()
    }

    fn topic(id: u128, named: &str, partitions: u32) -> Topic {
        Topic {
            id: TopicId::new(Uuid::from_u128(id)),
            name: name(named),
            partitions,
            replicas: 1,
            slots: SlotRuns::new(Slot::default()),
            settings: Default::default(),
        }
    }

    /// Brings a directory to the state's image as [`crate::topics::apply`] does, with logs that cannot be opened; the
    /// names of the topics that were changed and deleted.
    fn apply(directory: &mut Directory, state: &State) -> (Vec<String>, Vec<String>) {
        let difference = directory.difference(&state.image());
        let opened = difference.changed.iter().map(|changed| {
            let topic = &changed.topic;
            let opened = directory.to_open(changed).into_iter().map(|partition| {
                let id = LogId { topic_id: topic.id, partition };
                let reason = WireError::from(ErrorCode::PartitionOffline);
                Rc::new(Partition::offline(id, topic.name.clone(), BatchLimits::default(), reason))
            });
            let kept = changed.before.iter().flat_map(|before| before.owned()).cloned();
            TopicEntry::new(topic.clone(), kept.chain(opened))
        });
        let opened = opened.collect();
        directory.replace(state.image(), opened, &difference.deleted);
        (
            difference.changed.iter().map(|changed| changed.topic.name.to_string()).collect(),
            difference.deleted.iter().map(|entry| entry.topic.name.to_string()).collect(),
        )
    }

    fn shard_of(directory: &Directory, named: &str, partition: u32) -> Result<ShardIndex, ErrorCode> {
        match directory.locate(&name(named), PartitionIndex::new(partition)) {
            Ok(Owner::Here(owned)) => {
                assert_eq!(owned.id().partition.get(), partition);
                Ok(directory.shard)
            }
            Ok(Owner::Elsewhere(owner, id)) => {
                assert_ne!(owner, directory.shard);
                assert!(directory.owned(id).is_err());
                Ok(owner)
            }
            Err(error) => Err(error.code),
        }
    }

    #[test]
    fn a_topic_is_found_from_its_creation_to_its_deletion() {
        let mut state = State::new(Cluster { id: Uuid::from_u128(1), broker: BrokerId::new(0) });
        let mut directory = Directory::new(ShardIndex::new(1), NonZeroU16::new(2).unwrap());
        assert!(directory.image().is_err(), "nothing is known before the first image");
        assert_eq!(apply(&mut directory, &state), (vec![], vec![]));

        state.apply(Command::CreateTopic(topic(10, "a", 3))).unwrap();
        assert_eq!(apply(&mut directory, &state), (vec!["a".into()], vec![]));
        let owners: Vec<_> = (0..4).map(|partition| shard_of(&directory, "a", partition)).collect();
        let [zero, one] = [0, 1].map(|shard| Ok(ShardIndex::new(shard)));
        assert_eq!(owners, [zero, one, zero, Err(ErrorCode::UnknownPartition)]);
        assert_eq!(shard_of(&directory, "b", 0), Err(ErrorCode::UnknownTopic));
        assert_eq!(directory.partitions_by_shard(), [2, 1]);
        assert_eq!(directory.all_owned().len(), 1);

        // Several changes in one step, the old name on a new topic among them.
        state.apply(Command::DeleteTopic(TopicId::new(Uuid::from_u128(10)))).unwrap();
        state.apply(Command::CreateTopic(topic(11, "a", 1))).unwrap();
        state.apply(Command::CreateTopic(topic(12, "b", 2))).unwrap();
        let (mut created, deleted) = apply(&mut directory, &state);
        created.sort();
        assert_eq!((created, deleted), (vec!["a".into(), "b".into()], vec!["a".to_owned()]));
        assert_eq!(directory.partitions_by_shard().iter().sum::<u32>(), 3, "what was deleted is not counted any more");
        assert_eq!(shard_of(&directory, "a", 0), zero, "the name leads to the younger topic");
        assert_eq!(shard_of(&directory, "a", 1), Err(ErrorCode::UnknownPartition));
        let old = LogId { topic_id: TopicId::new(Uuid::from_u128(10)), partition: PartitionIndex::new(1) };
        assert!(directory.owned(old).is_err(), "the old topic is not found by its id either");
        assert_eq!(apply(&mut directory, &state), (vec![], vec![]));
    }

    #[test]
    fn an_altered_topic_keeps_its_open_partitions_and_gets_those_that_are_added() {
        let mut state = State::new(Cluster { id: Uuid::from_u128(1), broker: BrokerId::new(0) });
        let mut directory = Directory::new(ShardIndex::new(1), NonZeroU16::new(2).unwrap());
        state.apply(Command::CreateTopic(topic(10, "a", 3))).unwrap();
        state.apply(Command::CreateTopic(Topic { slots: SlotRuns::new(Slot::new(3)), ..topic(11, "b", 2) })).unwrap();
        apply(&mut directory, &state);
        let kept = directory.all_owned();
        let id = TopicId::new(Uuid::from_u128(10));
        let added = LogId { topic_id: id, partition: PartitionIndex::new(3) };
        assert_eq!(directory.owned(added).err().map(|error| error.code), Some(ErrorCode::UnknownPartition));

        // Behind those of `b`, where partition 3 is this shard's.
        state.apply(Command::AddPartitions { id, partitions: 5, first_slot: Slot::new(5) }).unwrap();
        state.apply(Command::SetTopicSettings { id, settings: Default::default() }).unwrap();
        assert_eq!(apply(&mut directory, &state), (vec!["a".into()], vec![]));
        let owners: Vec<_> = (0..6).map(|partition| shard_of(&directory, "a", partition)).collect();
        let [zero, one] = [0, 1].map(|shard| Ok(ShardIndex::new(shard)));
        assert_eq!(owners, [zero, one, zero, one, zero, Err(ErrorCode::UnknownPartition)]);
        assert_eq!(directory.owned(added).unwrap().id(), added);
        assert_eq!(directory.partitions_by_shard(), [4, 3]);
        let owned = directory.all_owned();
        assert!(kept.iter().all(|kept| owned.iter().any(|owned| Rc::ptr_eq(owned, kept))), "nothing is opened again");
        assert_eq!(owned.len(), kept.len() + 1);
        assert_eq!(apply(&mut directory, &state), (vec![], vec![]));
    }
}
