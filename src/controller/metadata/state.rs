//! The state machine: what each command does.

use std::ops::Range;
use std::sync::Arc;

use ringmq_wire::{Offset, PartitionIndex, ProducerId, TopicId, TopicName};

use super::PARTITIONS_TOTAL_MAX;
use super::command::Command;
use super::image::{Cluster, Image, Topic};
use super::placement::{Slot, SlotRun};
use super::settings::SettingChoices;

/// More ids of producers than a broker gives away between two copies of its metadata; there are 2⁶³.
const PRODUCER_IDS_SKIPPED: i64 = 1 << 40;

/// The metadata that the commands applied so far add up to.
///
/// Applying depends on the commands alone, so every broker that applies the same log holds the same image.
#[derive(Clone, Debug)]
pub struct State {
    // Changed in place while nobody else holds it (replay), copied once it has been handed out.
    image: Arc<Image>,
}

/// What a command changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The topic exists from now on.
    Created(Arc<Topic>),
    /// The topic is gone; its files are to be freed.
    Deleted(Arc<Topic>),
    /// The topic goes by other settings, or has more partitions.
    Altered(Arc<Topic>),
    /// These ids of producers are given away.
    ProducerIdsAllocated(Range<ProducerId>),
}

impl State {
    /// The state before the first command.
    pub fn new(cluster: Cluster) -> State {
        State { image: Arc::new(Image::empty(cluster)) }
    }

    /// The state that had this image.
    pub fn restored(image: Image) -> State {
        State { image: Arc::new(image) }
    }

    /// The image of this moment.
    pub fn image(&self) -> Arc<Image> {
        self.image.clone()
    }

    /// How many commands have been applied: the offset of the next one.
    pub fn applied(&self) -> Offset {
        self.image.applied()
    }

    /// Applies the next command of the log.
    ///
    /// # Errors
    /// The command contradicts the ones before it. The controller logs only what it has checked, so the log is damaged
    /// or another writer was at it; the state is as it was before.
    pub fn apply(&mut self, command: Command) -> Result<Effect, ApplyError> {
        let next = self.applied().checked_add(1).ok_or(ApplyError::LogFull)?;
        let effect = match command {
            Command::CreateTopic(topic) => self.create(topic)?,
            Command::DeleteTopic(id) => self.delete(id)?,
            Command::SetTopicSettings { id, settings } => self.set_settings(id, settings)?,
            Command::AddPartitions { id, partitions, first_slot } => self.add_partitions(id, partitions, first_slot)?,
            Command::AllocateProducerIds { first, count } => self.allocate_producer_ids(first, count)?,
        };
        Arc::make_mut(&mut self.image).set_applied(next);
        Ok(effect)
    }

    /// Goes on behind commands that are lost: `offset` is the next one's.
    pub(crate) fn skip_to(&mut self, offset: Offset) {
        Arc::make_mut(&mut self.image).set_applied(offset);
    }

    /// Applies a command behind such a gap: what it builds on may have been lost there. That a name is given again says that
    /// the topic which had it was deleted.
    ///
    /// # Errors
    /// It means nothing without what is lost, and is passed over.
    pub(crate) fn apply_behind_gap(&mut self, command: Command) -> Result<(), ApplyError> {
        let behind = self.applied().checked_add(1).ok_or(ApplyError::LogFull)?;
        let applied = match (&command, self.apply(command.clone())) {
            (_, Ok(_)) => return Ok(()),
            (Command::CreateTopic(_), Err(ApplyError::NameTaken { by, .. })) => {
                self.delete(by).and_then(|_| self.apply(command)).map(drop)
            }
            (Command::DeleteTopic(id), Err(ApplyError::NoSuchTopic { .. })) => {
                Arc::make_mut(&mut self.image).remember_deleted(*id);
                Ok(())
            }
            (Command::AllocateProducerIds { first, .. }, Err(ApplyError::ProducerIdsOutOfOrder { next, .. }))
                if *first > next =>
            {
                Arc::make_mut(&mut self.image).set_next_producer_id(*first);
                self.apply(command).map(drop)
            }
            (_, Err(error)) => Err(error),
        };
        self.skip_to(behind);
        applied
    }

    /// Goes on at `offset` after an unknown number of commands was lost. Ids of producers that these gave away are not given
    /// again.
    pub(crate) fn begin_anew(&mut self, offset: Offset) {
        let next = self.image.next_producer_id();
        let behind = next.get().checked_add(PRODUCER_IDS_SKIPPED).map_or(next, ProducerId::new);
        Arc::make_mut(&mut self.image).set_next_producer_id(behind);
        self.skip_to(offset);
    }

    fn create(&mut self, topic: Topic) -> Result<Effect, ApplyError> {
        if self.image.topic_by_id(topic.id).is_some() || self.image.deleted().contains(topic.id) {
            return Err(ApplyError::TopicIdUsed { id: topic.id });
        }
        if let Some(other) = self.image.topic(&topic.name) {
            return Err(ApplyError::NameTaken { name: topic.name, by: other.id });
        }
        self.check_total(topic.partitions)?;
        let topic = Arc::new(topic);
        Arc::make_mut(&mut self.image).insert(topic.clone());
        Ok(Effect::Created(topic))
    }

    fn delete(&mut self, id: TopicId) -> Result<Effect, ApplyError> {
        self.living(id)?;
        let removed = Arc::make_mut(&mut self.image).remove(id);
        removed.map(Effect::Deleted).ok_or(ApplyError::NoSuchTopic { id })
    }

    fn set_settings(&mut self, id: TopicId, settings: SettingChoices) -> Result<Effect, ApplyError> {
        let topic = self.living(id)?;
        let topic = Arc::new(Topic { settings, ..Topic::clone(topic) });
        Arc::make_mut(&mut self.image).replace(topic.clone());
        Ok(Effect::Altered(topic))
    }

    fn add_partitions(&mut self, id: TopicId, partitions: u32, first_slot: Slot) -> Result<Effect, ApplyError> {
        let mut topic = Topic::clone(self.living(id)?);
        let added = match partitions.checked_sub(topic.partitions) {
            None | Some(0) => return Err(ApplyError::NotMorePartitions { id, partitions, has: topic.partitions }),
            Some(added) => added,
        };
        self.check_total(added)?;
        topic.slots.add(SlotRun { first_partition: PartitionIndex::new(topic.partitions), first_slot });
        topic.partitions = partitions;
        let topic = Arc::new(topic);
        let image = Arc::make_mut(&mut self.image);
        image.replace(topic.clone());
        image.set_next_slot(first_slot.advance(added));
        Ok(Effect::Altered(topic))
    }

    fn allocate_producer_ids(&mut self, first: ProducerId, count: u32) -> Result<Effect, ApplyError> {
        let next = self.image.next_producer_id();
        if first != next {
            return Err(ApplyError::ProducerIdsOutOfOrder { first, next });
        }
        let behind = first.get().checked_add(count.into()).ok_or(ApplyError::ProducerIdsUsedUp)?;
        let behind = ProducerId::new(behind);
        Arc::make_mut(&mut self.image).set_next_producer_id(behind);
        Ok(Effect::ProducerIdsAllocated(first..behind))
    }

    fn living(&self, id: TopicId) -> Result<&Arc<Topic>, ApplyError> {
        self.image.topic_by_id(id).ok_or(ApplyError::NoSuchTopic { id })
    }

    /// Whether there may be so many partitions more.
    fn check_total(&self, more: u32) -> Result<(), ApplyError> {
        let partitions = u64::from(self.image.partition_count()) + u64::from(more);
        let allowed = partitions <= u64::from(PARTITIONS_TOTAL_MAX);
        if allowed { Ok(()) } else { Err(ApplyError::TooManyPartitions { partitions }) }
    }
}

/// Why a command cannot follow the commands before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A topic is created under an id that a topic has or had.
    #[error("a topic is created with the id {id}, which was given away before")]
    TopicIdUsed {
        /// The id.
        id: TopicId,
    },
    /// A topic is created under a name that a living topic has.
    #[error("a topic is created with the name {name:?}, which topic {by} has")]
    NameTaken {
        /// The name.
        name: TopicName,
        /// The living topic's id.
        by: TopicId,
    },
    /// A topic is deleted or altered that does not live.
    #[error("topic {id} is deleted or altered, but there is none with this id")]
    NoSuchTopic {
        /// The id.
        id: TopicId,
    },
    /// A topic gets more partitions that are no more.
    #[error("topic {id} gets more partitions, to have {partitions}, but it has {has}")]
    NotMorePartitions {
        /// The topic.
        id: TopicId,
        /// How many it is to have.
        partitions: u32,
        /// How many it has.
        has: u32,
    },
    /// The topics together would have too many partitions.
    #[error("the topics would have {partitions} partitions, more than {PARTITIONS_TOTAL_MAX}")]
    TooManyPartitions {
        /// How many.
        partitions: u64,
    },
    /// Ids of producers are allocated that are not the next ones.
    #[error("producer ids from {first} on are allocated, but {next} is the next one")]
    ProducerIdsOutOfOrder {
        /// The first one of them.
        first: ProducerId,
        /// The next one.
        next: ProducerId,
    },
    /// No id of a producer is left.
    #[error("all producer ids are used up")]
    ProducerIdsUsedUp,
    /// No offset is left.
    #[error("the metadata log is full")]
    LogFull,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringmq_wire::BrokerId;
    use uuid::Uuid;

    use super::*;
    use crate::metadata::arbitrary;
    use crate::metadata::placement::SlotRuns;
    use crate::metadata::settings::{SettingKey, TopicSettings};

    fn cluster() -> Cluster {
        Cluster { id: Uuid::from_u128(77), broker: BrokerId::new(0) }
    }

    fn topic(id: u128, name: &str, partitions: u32) -> Topic {
        Topic {
            id: TopicId::new(Uuid::from_u128(id)),
            name: TopicName::parse(name).unwrap(),
            partitions,
            replicas: 1,
            slots: SlotRuns::new(Slot::default()),
            settings: Default::default(),
        }
    }

    /// Applies what fits; what does not must leave the state alone.
    fn replay(commands: &[Command]) -> Arc<Image> {
        let mut state = State::new(cluster());
        for command in commands {
            let before = state.image();
            if state.apply(command.clone()).is_err() {
                assert_eq!(before, state.image());
            }
        }
        state.image()
    }

    #[test]
    fn a_topic_created_again_is_another_topic() {
        let (first, second) = (topic(5, "orders", 3), topic(6, "orders", 2));
        let mut state = State::new(cluster());
        assert_eq!(state.apply(Command::CreateTopic(first.clone())), Ok(Effect::Created(Arc::new(first.clone()))));
        assert_eq!(
            state.apply(Command::CreateTopic(second.clone())),
            Err(ApplyError::NameTaken { name: first.name.clone(), by: first.id })
        );
        assert_eq!(state.apply(Command::DeleteTopic(first.id)), Ok(Effect::Deleted(Arc::new(first.clone()))));
        assert_eq!(state.apply(Command::DeleteTopic(first.id)), Err(ApplyError::NoSuchTopic { id: first.id }));
        assert_eq!(
            state.apply(Command::CreateTopic(first.clone())),
            Err(ApplyError::TopicIdUsed { id: first.id }),
            "the id of a deleted topic would bring its data back"
        );
        state.apply(Command::CreateTopic(second.clone())).unwrap();

        let image = state.image();
        assert_eq!(image.topic("orders").unwrap().id, second.id);
        assert_eq!(image.topic_by_id(first.id), None);
        assert_eq!(image.deleted().iter().collect::<Vec<_>>(), [first.id]);
        assert_eq!((image.partition_count(), image.applied()), (2, Offset::new(3)));
    }

    #[test]
    fn an_image_that_was_handed_out_never_changes() {
        let mut state = State::new(cluster());
        let empty = state.image();
        state.apply(Command::CreateTopic(topic(5, "a", 1))).unwrap();
        assert_eq!(*empty, Image::empty(cluster()));
        assert_eq!(state.image().topics().len(), 1);
    }

    #[test]
    fn partitions_are_bounded_over_all_topics() {
        let mut state = State::new(cluster());
        for n in 0..10 {
            state.apply(Command::CreateTopic(topic(5 + n, &format!("t{n}"), 10_000))).unwrap();
        }
        assert_eq!(
            state.apply(Command::CreateTopic(topic(99, "one-more", 1))),
            Err(ApplyError::TooManyPartitions { partitions: 100_001 })
        );
        state.apply(Command::DeleteTopic(topic(5, "t0", 1).id)).unwrap();
        state.apply(Command::CreateTopic(topic(99, "one-more", 1))).unwrap();
    }

    #[test]
    fn a_topic_is_altered_in_place() {
        let mut state = State::new(cluster());
        let id = topic(5, "a", 3).id;
        state.apply(Command::CreateTopic(topic(5, "a", 3))).unwrap();
        state.apply(Command::CreateTopic(topic(6, "b", 4))).unwrap();
        let settings = SettingChoices::parse([("segment_age_ms", "5000")], &TopicSettings::default()).unwrap();
        state.apply(Command::SetTopicSettings { id, settings: settings.clone() }).unwrap();
        let first_slot = state.image().next_slot();
        let more = Command::AddPartitions { id, partitions: 5, first_slot };
        let Ok(Effect::Altered(altered)) = state.apply(more.clone()) else { panic!("it can be altered") };

        let image = state.image();
        assert_eq!(image.topic("a"), Some(&altered));
        assert_eq!(image.topic_by_id(id), Some(&altered));
        assert_eq!((altered.partitions, &altered.settings, altered.replicas), (5, &settings, 1));
        assert_eq!((image.partition_count(), image.next_slot()), (9, first_slot.advance(2)));
        let two = std::num::NonZeroU16::new(2).unwrap();
        let shards: Vec<u16> = altered.partition_indexes().map(|index| altered.shard_of(index, two).get()).collect();
        assert_eq!(shards, [0, 1, 0, 0, 1], "what is added takes the next places, behind those of `b`");

        assert_eq!(state.apply(more), Err(ApplyError::NotMorePartitions { id, partitions: 5, has: 5 }));
        let fewer = Command::AddPartitions { id, partitions: 2, first_slot };
        assert_eq!(state.apply(fewer), Err(ApplyError::NotMorePartitions { id, partitions: 2, has: 5 }));
        let none = Command::SetTopicSettings { id, settings: SettingChoices::default() };
        state.apply(none.clone()).unwrap();
        assert_eq!(state.image().topic("a").unwrap().settings.get(SettingKey::SegmentAgeMs), None);
        state.apply(Command::DeleteTopic(id)).unwrap();
        assert_eq!(state.apply(none), Err(ApplyError::NoSuchTopic { id }));
    }

    #[test]
    fn no_producer_id_is_given_away_twice() {
        let mut state = State::new(cluster());
        let id = ProducerId::new;
        let allocate = |first: i64, count| Command::AllocateProducerIds { first: id(first), count };
        assert_eq!(state.apply(allocate(0, 10)), Ok(Effect::ProducerIdsAllocated(id(0)..id(10))));
        let twice = ApplyError::ProducerIdsOutOfOrder { first: id(0), next: id(10) };
        assert_eq!(state.apply(allocate(0, 10)), Err(twice));
        assert_eq!(state.apply(allocate(10, 1)), Ok(Effect::ProducerIdsAllocated(id(10)..id(11))));
        assert_eq!((state.image().next_producer_id(), state.applied()), (id(11), Offset::new(2)));
        Arc::make_mut(&mut state.image).set_next_producer_id(ProducerId::MAX);
        assert_eq!(state.apply(allocate(i64::MAX, 1)), Err(ApplyError::ProducerIdsUsedUp));
    }

    #[test]
    fn added_partitions_count_for_the_bound_over_all_topics() {
        let mut state = State::new(cluster());
        for n in 0..10 {
            state.apply(Command::CreateTopic(topic(5 + n, &format!("t{n}"), 9_999))).unwrap();
        }
        let add = |n: u128, partitions| Command::AddPartitions {
            id: topic(5 + n, "t", 1).id,
            partitions,
            first_slot: Slot::default(),
        };
        for n in 0..10 {
            state.apply(add(n, 10_000)).unwrap();
        }
        assert_eq!(state.apply(add(0, 10_001)), Err(ApplyError::TooManyPartitions { partitions: 100_001 }));
    }

    proptest! {
        #[test]
        fn the_same_log_gives_the_same_image(commands in arbitrary::history()) {
            prop_assert_eq!(replay(&commands), replay(&commands));
        }

        #[test]
        fn a_log_read_back_from_its_bytes_gives_the_same_image(commands in arbitrary::history()) {
            let read_back: Vec<Command> = commands
                .iter()
                .map(|command| {
                    let mut bytes = Vec::new();
                    command.encode(&mut bytes);
                    Command::decode(&bytes).unwrap()
                })
                .collect();
            prop_assert_eq!(replay(&read_back), replay(&commands));
        }

        #[test]
        fn names_ids_and_counts_stay_in_step(commands in arbitrary::history()) {
            let image = replay(&commands);
            for topic in image.topics() {
                prop_assert_eq!(image.topic(&topic.name), Some(topic));
                prop_assert!(!image.deleted().contains(topic.id));
            }
            let sorted = image.topics_by_name();
            prop_assert!(sorted.is_sorted_by(|a, b| a.name < b.name));
            prop_assert_eq!(sorted.len(), image.topics().len());
            prop_assert_eq!(image.partition_count(), image.topics().map(|topic| topic.partitions).sum::<u32>());
        }

        #[test]
        fn a_partition_stays_on_its_shard_whatever_comes_later(commands in arbitrary::history(), shards in 1..9_u16) {
            let shards = std::num::NonZeroU16::new(shards).unwrap();
            let mut state = State::new(cluster());
            for command in commands {
                let before = state.image();
                let _ = state.apply(command);
                for topic in before.topics() {
                    let Some(after) = state.image().topic_by_id(topic.id).cloned() else { continue };
                    prop_assert!(after.partitions >= topic.partitions);
                    for partition in topic.partition_indexes().step_by(97).chain(topic.partition_indexes().last()) {
                        prop_assert_eq!(after.shard_of(partition, shards), topic.shard_of(partition, shards));
                    }
                }
            }
        }
    }
}
