//! What the client remembers of the cluster: where each topic's partitions are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringmq_wire::protocol::{BrokerInfo, MetadataResponse, PartitionMetadata, TopicMetadata};
use ringmq_wire::{BrokerId, PartitionIndex, TopicName};
use tokio::time::Instant;

use crate::address::BrokerAddress;

/// Topics that are remembered before the stale ones are forgotten.
const TOPICS_MAX: usize = 10_000;

/// Where a topic's partitions are, as of one answer of a broker.
#[derive(Debug)]
pub(crate) struct TopicRoute {
    pub(crate) topic: TopicName,
    /// By partition index.
    partitions: Vec<PartitionRoute>,
    fetched_at: Instant,
}

/// Where one partition can be reached: by the port of the shard that owns it, and by its broker's public one.
///
/// ```no_run
/// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
/// for found in admin.partition_addresses("orders").await? {
///     println!("partition {} at {}", found.partition, found.direct.unwrap_or(found.public));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionAddresses {
    /// The partition.
    pub partition: PartitionIndex,
    /// The shard's own port; `None` when there is only the public one.
    pub direct: Option<BrokerAddress>,
    /// The public address of the broker that leads the partition: it passes requests on to the shard.
    pub public: BrokerAddress,
}

/// How to reach the broker that leads one partition, and the shard that owns it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PartitionRoute {
    /// The shard's own port; `None` when there is only the public one.
    pub(crate) direct: Option<Arc<BrokerAddress>>,
    pub(crate) public: Arc<BrokerAddress>,
}

impl TopicRoute {
    pub(crate) fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// Every partition's index.
    pub(crate) fn indexes(&self) -> Vec<PartitionIndex> {
        (0..self.partition_count()).map(PartitionIndex::new).collect()
    }

    pub(crate) fn partition(&self, partition: PartitionIndex) -> Option<&PartitionRoute> {
        self.partitions.get(partition.as_usize())
    }

    /// The addresses of all partitions, by index.
    pub(crate) fn addresses(&self) -> Vec<PartitionAddresses> {
        let addresses = |(index, route): (u32, &PartitionRoute)| PartitionAddresses {
            partition: PartitionIndex::new(index),
            direct: route.direct.as_deref().cloned(),
            public: BrokerAddress::clone(&route.public),
        };
        (0..).zip(&self.partitions).map(addresses).collect()
    }

    fn is_newer_than(&self, age: Duration) -> bool {
        self.fetched_at.elapsed() < age
    }
}

/// The memory. It holds no connection and asks nobody.
#[derive(Debug)]
pub(crate) struct MetadataCache {
    age_max: Duration,
    known: Mutex<Known>,
    /// Held while a topic is asked for, so that many who miss it ask once.
    pub(crate) asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    topics: HashMap<TopicName, Arc<TopicRoute>>,
    /// As last heard, also of topics whose route is in doubt.
    partition_counts: HashMap<TopicName, u32>,
    brokers: Vec<BrokerAddress>,
}

impl MetadataCache {
    pub(crate) fn new(age_max: Duration) -> Self {
        Self { age_max, known: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// Where the topic is, if that is known and not too old.
    pub(crate) fn topic(&self, topic: &str) -> Option<Arc<TopicRoute>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.topics.get(topic).filter(|route| route.is_newer_than(self.age_max)).cloned()
    }

    /// The public addresses of all brokers that answers have named.
    pub(crate) fn brokers(&self) -> Vec<BrokerAddress> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).brokers.clone()
    }

    /// How many partitions the topic had when that was last heard, however long ago.
    pub(crate) fn last_partition_count(&self, topic: &str) -> Option<u32> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).partition_counts.get(topic).copied()
    }

    /// How many partitions the topic has, unless that was heard too long ago. A route in doubt does not make it uncertain.
    pub(crate) fn partition_count(&self, topic: &str) -> Option<u32> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.topics.get(topic) {
            Some(route) => route.is_newer_than(self.age_max).then(|| route.partition_count()),
            None => known.partition_counts.get(topic).copied(),
        }
    }

    /// Doubts where a topic is.
    pub(crate) fn invalidate(&self, topic: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).topics.remove(topic);
    }

    /// Forgets all of a topic: it is another one by now, or there is none.
    pub(crate) fn forget(&self, topic: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.topics.remove(topic);
        known.partition_counts.remove(topic);
    }

    /// Remembers the brokers and the topics of an answer, except those topics that have an error, and gives the topics.
    ///
    /// # Errors
    /// When the answer contradicts itself, with the reason.
    pub(crate) fn remember(&self, answer: &MetadataResponse) -> Result<Vec<Arc<TopicRoute>>, String> {
        let addresses: HashMap<BrokerId, &BrokerInfo> = answer.brokers.iter().map(|info| (info.id, info)).collect();
        let routes: Result<Vec<_>, _> =
            answer.topics.iter().filter(|topic| topic.error.is_none()).map(|topic| route(topic, &addresses)).collect();
        let routes: Vec<Arc<TopicRoute>> = routes?.into_iter().map(Arc::new).collect();

        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.brokers = answer.brokers.iter().map(|info| BrokerAddress::new(info.host.clone(), info.port)).collect();
        if known.topics.len() + routes.len() > TOPICS_MAX {
            known.topics.retain(|_, route| route.is_newer_than(self.age_max));
        }
        if known.partition_counts.len() + routes.len() > TOPICS_MAX {
            let Known { topics, partition_counts, .. } = &mut *known;
            partition_counts.retain(|topic, _| topics.contains_key(topic));
        }
        for route in &routes {
            known.partition_counts.insert(route.topic.clone(), route.partition_count());
            known.topics.insert(route.topic.clone(), route.clone());
        }
        Ok(routes)
    }
}

fn route(topic: &TopicMetadata, brokers: &HashMap<BrokerId, &BrokerInfo>) -> Result<TopicRoute, String> {
    let mut partitions: Vec<&PartitionMetadata> = topic.partitions.iter().collect();
    partitions.sort_unstable_by_key(|metadata| metadata.partition);
    let numbered = partitions.iter().enumerate().all(|(index, metadata)| metadata.partition.as_usize() == index);
    if partitions.is_empty() || !numbered {
        return Err(format!("the partitions of topic `{}` are not numbered 0 to {}", topic.name, partitions.len()));
    }

    // Few addresses serve many partitions.
    let mut shared: HashMap<(BrokerId, u16), Arc<BrokerAddress>> = HashMap::new();
    let mut address = |metadata: &PartitionMetadata, port: Option<u16>| {
        let Some(info) = brokers.get(&metadata.leader) else {
            return Err(format!("topic `{}` is led by broker {}, which is not listed", topic.name, metadata.leader));
        };
        let port = port.unwrap_or(info.port);
        let address = shared.entry((metadata.leader, port));
        Ok(address.or_insert_with(|| Arc::new(BrokerAddress::new(info.host.clone(), port))).clone())
    };
    let mut routes = Vec::with_capacity(partitions.len());
    for metadata in partitions {
        let direct = metadata.shard_port.map(|port| address(metadata, Some(port))).transpose()?;
        routes.push(PartitionRoute { direct, public: address(metadata, None)? });
    }
    Ok(TopicRoute { topic: topic.name.clone(), partitions: routes, fetched_at: Instant::now() })
}
