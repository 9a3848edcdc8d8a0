//! Topics as the admin client speaks of them: to be created, altered, described.

use ringmq_wire::protocol::{
    DescribedPartition, DescribedSetting, DescribedTopic, NewTopic as WireTopic, Setting,
    TopicAlteration as WireAlteration,
};
use ringmq_wire::{ErrorCode, TopicId, WireError};

use crate::error::Error;

/// A topic to be created.
///
/// ```
/// use ringmq_client::NewTopic;
/// let topic = NewTopic::new("orders").partitions(8).setting("segment_bytes", "268435456");
/// # let _ = topic;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct NewTopic {
    pub(crate) name: String,
    pub(crate) partitions: u32,
    replicas: u16,
    settings: Vec<(String, String)>,
}

impl NewTopic {
    /// A topic with one partition, one replica, and the broker's defaults.
    ///
    /// ```
    /// let topic = ringmq_client::NewTopic::new("orders");
    /// ```
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), partitions: 1, replicas: 1, settings: Vec::new() }
    }

    /// How many partitions it gets. Default 1.
    ///
    /// ```
    /// let topic = ringmq_client::NewTopic::new("orders").partitions(8);
    /// ```
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// How many brokers keep each partition. Default 1.
    ///
    /// ```
    /// let topic = ringmq_client::NewTopic::new("orders").replicas(3);
    /// ```
    pub fn replicas(mut self, replicas: u16) -> Self {
        self.replicas = replicas;
        self
    }

    /// Gives one setting a value other than the broker's default.
    ///
    /// ```
    /// let topic = ringmq_client::NewTopic::new("orders").setting("segment_bytes", "268435456");
    /// ```
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    pub(crate) fn to_wire(&self) -> WireTopic {
        WireTopic {
            name: self.name.clone(),
            partitions: self.partitions,
            replicas: self.replicas,
            settings: to_wire(&self.settings),
        }
    }
}

/// What is to change in a topic, while it is in use.
///
/// ```
/// use ringmq_client::TopicAlteration;
/// let alteration = TopicAlteration::new("orders").set("segment_bytes", "268435456").unset("segment_age_ms").partitions(16);
/// # let _ = alteration;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct TopicAlteration {
    pub(crate) name: String,
    set: Vec<(String, String)>,
    unset: Vec<String>,
    partitions: Option<u32>,
}

impl TopicAlteration {
    /// An alteration of this topic that changes nothing yet.
    ///
    /// ```
    /// let alteration = ringmq_client::TopicAlteration::new("orders");
    /// ```
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), set: Vec::new(), unset: Vec::new(), partitions: None }
    }

    /// Gives one setting a value; it holds from the next append on.
    ///
    /// ```
    /// let alteration = ringmq_client::TopicAlteration::new("orders").set("segment_bytes", "268435456");
    /// ```
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.set.push((key.into(), value.into()));
        self
    }

    /// Has one setting follow the broker's default again.
    ///
    /// ```
    /// let alteration = ringmq_client::TopicAlteration::new("orders").unset("segment_bytes");
    /// ```
    pub fn unset(mut self, key: impl Into<String>) -> Self {
        self.unset.push(key.into());
        self
    }

    /// Gives the topic more partitions, to have this many. They start empty; records stay where they are.
    ///
    /// **Keys move.** A key's partition is its hash modulo their number: with another number most keys get another
    /// partition, and the order of a key's records holds within each of its two partitions, not across them. Clients
    /// learn of the new partitions when their metadata is older than [`crate::ClientOptions::metadata_age_max`]; until
    /// then they go on with the old ones. A subscription that is running reads the partitions that there were when it
    /// started.
    ///
    /// ```
    /// let alteration = ringmq_client::TopicAlteration::new("orders").partitions(16);
    /// ```
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    pub(crate) fn to_wire(&self) -> WireAlteration {
        WireAlteration {
            name: self.name.clone(),
            set: to_wire(&self.set),
            unset: self.unset.clone(),
            partitions: self.partitions,
        }
    }
}

fn to_wire(settings: &[(String, String)]) -> Vec<Setting> {
    settings.iter().map(|(key, value)| Setting { key: key.clone(), value: value.clone() }).collect()
}

/// Everything about one topic.
///
/// ```no_run
/// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
/// let topic = admin.describe_topic("orders").await?;
/// println!("{} has {} partitions", topic.name, topic.partitions.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its identity; a topic that is created again under the same name has another.
    pub topic_id: TopicId,
    /// All its settings, by key.
    pub settings: Vec<DescribedSetting>,
    /// Its partitions, by index.
    pub partitions: Vec<DescribedPartition>,
}

pub(crate) fn describe(topic: DescribedTopic) -> Result<TopicDescription, Error> {
    match (topic.error, topic.topic_id) {
        (ErrorCode::None, Some(topic_id)) => {
            let DescribedTopic { name, settings, partitions, .. } = topic;
            Ok(TopicDescription { name, topic_id, settings, partitions })
        }
        (ErrorCode::None, None) => Err(no_topic_id()),
        (code, _) => Err(Error::about_topic(&topic.name, WireError { code, detail: topic.detail })),
    }
}

pub(crate) fn no_topic_id() -> Error {
    Error::Nonsense("the answer has no topic id".to_owned())
}
