//! The topic under load: created or checked before the clock starts, and where its partitions are.

use ringmq_client::{BrokerAddress, Error, PartitionIndex, TopicName};

use crate::driver::{Driver, Topics};

/// Why there is no topic to put under load.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The broker cannot be reached, or refuses.
    #[error(transparent)]
    Client(#[from] Error),
    /// The connection to the broker.
    #[error("the broker: {0}")]
    Connection(#[from] std::io::Error),
    /// A broker that speaks another protocol refuses.
    #[error("topic `{topic}`: {reason}")]
    Refused {
        /// The topic.
        topic: String,
        /// In the broker's words.
        reason: String,
    },
    /// The topic is there, with another number of partitions.
    #[error(
        "topic `{topic}` has {found} partitions and --partitions says {wanted}; name another topic, or use --partitions \
         {found}"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: usize,
        /// How many were asked for.
        wanted: u32,
    },
    /// All of it is owned by one shard, and nobody is there who would have to pass requests on.
    #[error(
        "topic `{topic}` has all its partitions behind {address}: --by forwarded needs a broker with two shards or more, and \
         a partition on each (--partitions 2)"
    )]
    OneOwner {
        /// The topic.
        topic: String,
        /// Of the owner.
        address: String,
    },
    /// The broker says one thing and another.
    #[error("the broker's answers about topic `{topic}` contradict each other: {reason}")]
    Contradiction {
        /// The topic.
        topic: String,
        /// Which.
        reason: String,
    },
}

/// A topic and the way to each of its partitions.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: TopicName,
    /// By index.
    pub(crate) partitions: Vec<Place>,
    /// When records are on the disk, as the topic's settings say.
    pub(crate) flush: String,
    /// The protocol that its brokers are spoken to in.
    pub(crate) driver: &'static dyn Driver,
}

/// One partition, and the addresses that lead to it, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) partition: PartitionIndex,
    pub(crate) addresses: Vec<BrokerAddress>,
}

impl Topic {
    /// Creates the topic, with these settings, if it is missing.
    pub(crate) fn create_or_find(
        topics: &mut dyn Topics,
        topic: &str,
        partitions: u32,
        settings: &[(String, String)],
    ) -> Result<Self, TopicError> {
        topics.create(topic, partitions, settings)?;
        Self::find(topics, topic, partitions)
    }

    /// Looks for a topic that has to be there, with so many partitions.
    pub(crate) fn find(topics: &mut dyn Topics, topic: &str, partitions: u32) -> Result<Self, TopicError> {
        let found = topics.find(topic)?;
        if found.partition_count() != partitions {
            let (topic, found) = (topic.to_owned(), found.partitions.len());
            return Err(TopicError::Partitions { topic, found, wanted: partitions });
        }
        Ok(found)
    }

    /// How many partitions it has.
    pub(crate) fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// The partitions of one owner, by way of another one.
    pub(crate) fn by_way_of_another(mut self) -> Result<Self, TopicError> {
        let owner = self.home().clone();
        let Some(other) = self.partitions.iter().map(|place| &place.addresses[0]).find(|other| **other != owner) else {
            return Err(TopicError::OneOwner { topic: self.name.to_string(), address: owner.to_string() });
        };
        let other = other.clone();
        self.partitions.retain(|place| place.addresses[0] == owner);
        for place in &mut self.partitions {
            place.addresses = vec![other.clone()];
        }
        Ok(self)
    }

    /// Where the broker of its first partition listens.
    pub(crate) fn home(&self) -> &BrokerAddress {
        &self.partitions[0].addresses[0]
    }
}

/// Spreads partitions over workers, so that each worker needs one connection and every partition is used.
///
/// A worker gets partitions behind one address. Where there are more workers than partitions, several share one; where
/// there are more addresses than workers, some partitions are reached through another shard, which passes them on.
pub(crate) fn assign(places: &[Place], workers: usize) -> Vec<Vec<Place>> {
    let mut groups: Vec<Vec<&Place>> = Vec::new();
    for place in places {
        match groups.iter_mut().find(|group| group[0].addresses.first() == place.addresses.first()) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    let mut assigned: Vec<Vec<Place>> = vec![Vec::new(); workers];
    for (number, group) in groups.iter().enumerate() {
        // The workers number, number + groups, number + 2 * groups ... serve this group; or the one in whose turn it is.
        let mut members: Vec<usize> = (number..workers).step_by(groups.len()).collect();
        if members.is_empty() && workers > 0 {
            members.push(number % workers);
        }
        if members.is_empty() {
            continue;
        }
        for turn in 0..group.len().max(members.len()) {
            assigned[members[turn % members.len()]].push(group[turn % group.len()].clone());
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::driver::DriverArgument;

    /// Partitions that alternate between shards with ports 1000, 1001, ...
    fn places(partitions: u32, shards: u16) -> Vec<Place> {
        let place = |index: u32| {
            let shard = u16::try_from(index % u32::from(shards)).unwrap();
            let addresses = vec![BrokerAddress::new("host", 1000 + shard), BrokerAddress::new("host", 9092)];
            Place { partition: PartitionIndex::new(index), addresses }
        };
        (0..partitions).map(place).collect()
    }

    fn used(assigned: &[Vec<Place>]) -> BTreeSet<u32> {
        assigned.iter().flatten().map(|place| place.partition.get()).collect()
    }

    #[test]
    fn every_worker_has_partitions_and_every_partition_a_worker() {
        for partitions in 1..20 {
            for shards in 1..5 {
                for workers in 1..20 {
                    let assigned = assign(&places(partitions, shards), workers);
                    assert_eq!(assigned.len(), workers);
                    assert_eq!(used(&assigned).len(), partitions as usize);
                    assert!(assigned.iter().all(|mine| !mine.is_empty()), "{partitions} {shards} {workers}");
                }
            }
        }
    }

    #[test]
    fn by_way_of_another_no_partition_is_reached_through_its_owner() {
        let topic = |shards| Topic {
            name: TopicName::parse("t").unwrap(),
            partitions: places(5, shards),
            flush: String::new(),
            driver: DriverArgument::Native.driver(),
        };
        for shards in 2..5 {
            let forwarded = topic(shards).by_way_of_another().unwrap().partitions;
            let other = vec![BrokerAddress::new("host", 1001)];
            assert!(!forwarded.is_empty() && forwarded.iter().all(|place| place.addresses == other), "{forwarded:?}");
            assert!(forwarded.iter().all(|place| place.partition.get() % u32::from(shards) == 0), "{forwarded:?}");
        }
        assert!(matches!(topic(1).by_way_of_another(), Err(TopicError::OneOwner { .. })));
    }

    #[test]
    fn a_worker_stays_with_one_shard_when_there_are_enough_workers() {
        let assigned = assign(&places(16, 2), 8);
        for mine in &assigned {
            assert_eq!(mine.len(), 2);
            assert_eq!(mine[0].addresses, mine[1].addresses);
        }
    }
}
