//! Topics, brokers and the controller.

use std::sync::Arc;

use ringmq_wire::protocol::{DescribeClusterResponse, ListedTopic, ShardStats};
use ringmq_wire::{PartitionIndex, TopicId};

use super::runtime_thread::RuntimeThread;
use crate::admin::BrokerStats;
use crate::cluster::ControllerInfo;
use crate::delete_records::{DeleteBefore, DeleteRecords, PartitionStart};
use crate::error::Error;
use crate::metadata::PartitionAddresses;
use crate::topic::{NewTopic, TopicAlteration, TopicDescription};

/// As [`crate::Admin`].
///
/// ```no_run
/// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::NewTopic;
/// admin.create_topic(NewTopic::new("orders").partitions(8))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Admin {
    inner: crate::Admin,
    thread: Arc<RuntimeThread>,
}

impl Admin {
    pub(super) fn new(inner: crate::Admin, thread: Arc<RuntimeThread>) -> Self {
        Self { inner, thread }
    }

    /// As [`crate::Admin::create_topic`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::NewTopic;
    /// let id = admin.create_topic(NewTopic::new("orders").partitions(8))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::create_topic`].
    pub fn create_topic(&self, topic: NewTopic) -> Result<TopicId, Error> {
        self.thread.wait(self.inner.create_topic(topic))
    }

    /// As [`crate::Admin::create_topics`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::NewTopic;
    /// let topics = vec![NewTopic::new("orders"), NewTopic::new("letters")];
    /// for created in admin.create_topics(topics)? {
    ///     println!("{:?}", created.map(|id| id.to_string()));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::create_topics`].
    pub fn create_topics(&self, topics: Vec<NewTopic>) -> Result<Vec<Result<TopicId, Error>>, Error> {
        self.thread.wait(self.inner.create_topics(topics))
    }

    /// As [`crate::Admin::validate_topic`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::NewTopic;
    /// admin.validate_topic(NewTopic::new("orders").partitions(8))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::validate_topic`].
    pub fn validate_topic(&self, topic: NewTopic) -> Result<(), Error> {
        self.thread.wait(self.inner.validate_topic(topic))
    }

    /// As [`crate::Admin::validate_topics`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::NewTopic;
    /// for checked in admin.validate_topics(vec![NewTopic::new("orders"), NewTopic::new("letters")])? {
    ///     checked?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::validate_topics`].
    pub fn validate_topics(&self, topics: Vec<NewTopic>) -> Result<Vec<Result<(), Error>>, Error> {
        self.thread.wait(self.inner.validate_topics(topics))
    }

    /// As [`crate::Admin::alter_topic`].
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::blocking::Client) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::TopicAlteration;
    /// client.admin().alter_topic(TopicAlteration::new("orders").partitions(16))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::alter_topic`].
    pub fn alter_topic(&self, alteration: TopicAlteration) -> Result<(), Error> {
        self.thread.wait(self.inner.alter_topic(alteration))
    }

    /// As [`crate::Admin::alter_topics`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::TopicAlteration;
    /// let alterations = ["orders", "letters"].map(|topic| TopicAlteration::new(topic).partitions(16));
    /// for altered in admin.alter_topics(alterations.into())? {
    ///     altered?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::alter_topics`].
    pub fn alter_topics(&self, alterations: Vec<TopicAlteration>) -> Result<Vec<Result<(), Error>>, Error> {
        self.thread.wait(self.inner.alter_topics(alterations))
    }

    /// As [`crate::Admin::validate_alteration`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::TopicAlteration;
    /// admin.validate_alteration(TopicAlteration::new("orders").partitions(16))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::validate_alteration`].
    pub fn validate_alteration(&self, alteration: TopicAlteration) -> Result<(), Error> {
        self.thread.wait(self.inner.validate_alteration(alteration))
    }

    /// As [`crate::Admin::validate_alterations`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::TopicAlteration;
    /// let alterations = ["orders", "letters"].map(|topic| TopicAlteration::new(topic).partitions(16));
    /// for checked in admin.validate_alterations(alterations.into())? {
    ///     checked?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::validate_alterations`].
    pub fn validate_alterations(&self, alterations: Vec<TopicAlteration>) -> Result<Vec<Result<(), Error>>, Error> {
        self.thread.wait(self.inner.validate_alterations(alterations))
    }

    /// As [`crate::Admin::delete_topic`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// admin.delete_topic("orders")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::delete_topic`].
    pub fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        self.thread.wait(self.inner.delete_topic(topic))
    }

    /// As [`crate::Admin::delete_topics`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// for deleted in admin.delete_topics(&["orders", "letters"])? {
    ///     deleted?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::delete_topics`].
    pub fn delete_topics(&self, topics: &[impl AsRef<str>]) -> Result<Vec<Result<(), Error>>, Error> {
        self.thread.wait(self.inner.delete_topics(topics))
    }

    /// As [`crate::Admin::delete_records`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{DeleteBefore, PartitionIndex};
    /// let all = [(PartitionIndex::new(0), DeleteBefore::HighWatermark)];
    /// let begins = admin.delete_records("orders", &all)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::delete_records`].
    pub fn delete_records(
        &self,
        topic: &str,
        partitions: &[(PartitionIndex, DeleteBefore)],
    ) -> Result<Vec<PartitionStart>, Error> {
        self.thread.wait(self.inner.delete_records(topic, partitions))
    }

    /// As [`crate::Admin::delete_records_each`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{DeleteBefore, PartitionIndex};
    /// let all = [(PartitionIndex::new(0), DeleteBefore::HighWatermark)];
    /// for begins in admin.delete_records_each("orders", &all)? {
    ///     println!("{:?}", begins.map(|begins| begins.log_start));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::delete_records_each`].
    pub fn delete_records_each(
        &self,
        topic: &str,
        partitions: &[(PartitionIndex, DeleteBefore)],
    ) -> Result<Vec<Result<PartitionStart, Error>>, Error> {
        self.thread.wait(self.inner.delete_records_each(topic, partitions))
    }

    /// As [`crate::Admin::delete_records_many`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{DeleteBefore, DeleteRecords, PartitionIndex};
    /// let (partition, before) = (PartitionIndex::new(0), DeleteBefore::HighWatermark);
    /// let wanted = ["orders", "letters"].map(|topic| DeleteRecords { topic: topic.to_owned(), partition, before });
    /// for begins in admin.delete_records_many(&wanted)? {
    ///     println!("{}", begins?.log_start);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::delete_records_many`].
    pub fn delete_records_many(&self, wanted: &[DeleteRecords]) -> Result<Vec<Result<PartitionStart, Error>>, Error> {
        self.thread.wait(self.inner.delete_records_many(wanted))
    }

    /// As [`crate::Admin::list_topics`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// for topic in admin.list_topics()? {
    ///     println!("{} has {} partitions", topic.name, topic.partitions);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::list_topics`].
    pub fn list_topics(&self) -> Result<Vec<ListedTopic>, Error> {
        self.thread.wait(self.inner.list_topics())
    }

    /// As [`crate::Admin::describe_topic`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// for setting in admin.describe_topic("orders")?.settings {
    ///     println!("{setting:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::describe_topic`].
    pub fn describe_topic(&self, topic: &str) -> Result<TopicDescription, Error> {
        self.thread.wait(self.inner.describe_topic(topic))
    }

    /// As [`crate::Admin::describe_topics`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// for topic in admin.describe_topics(&["orders", "letters"])? {
    ///     println!("{} partitions", topic?.partitions.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::describe_topics`].
    pub fn describe_topics(&self, topics: &[impl AsRef<str>]) -> Result<Vec<Result<TopicDescription, Error>>, Error> {
        self.thread.wait(self.inner.describe_topics(topics))
    }

    /// As [`crate::Admin::partition_addresses`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// for found in admin.partition_addresses("orders")? {
    ///     println!("partition {} at {}", found.partition, found.direct.unwrap_or(found.public));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::partition_addresses`].
    pub fn partition_addresses(&self, topic: &str) -> Result<Vec<PartitionAddresses>, Error> {
        self.thread.wait(self.inner.partition_addresses(topic))
    }

    /// As [`crate::Admin::partition_addresses_of_topics`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// for addresses in admin.partition_addresses_of_topics(&["orders", "letters"])? {
    ///     println!("{} partitions", addresses?.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::partition_addresses_of_topics`].
    pub fn partition_addresses_of_topics(
        &self,
        topics: &[impl AsRef<str>],
    ) -> Result<Vec<Result<Vec<PartitionAddresses>, Error>>, Error> {
        self.thread.wait(self.inner.partition_addresses_of_topics(topics))
    }

    /// As [`crate::Admin::describe_cluster`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// println!("{} brokers", admin.describe_cluster()?.brokers.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::describe_cluster`].
    pub fn describe_cluster(&self) -> Result<DescribeClusterResponse, Error> {
        self.thread.wait(self.inner.describe_cluster())
    }

    /// As [`crate::Admin::stats`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// for shard in admin.stats()? {
    ///     println!("shard {}: {:?}", shard.shard, shard.counters);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::stats`].
    pub fn stats(&self) -> Result<Vec<ShardStats>, Error> {
        self.thread.wait(self.inner.stats())
    }

    /// As [`crate::Admin::stats_of_brokers`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// for broker in admin.stats_of_brokers()? {
    ///     println!("broker {}: {} shards", broker.id, broker.shards?.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::stats_of_brokers`].
    pub fn stats_of_brokers(&self) -> Result<Vec<BrokerStats>, Error> {
        self.thread.wait(self.inner.stats_of_brokers())
    }

    /// As [`crate::Admin::discover_controller`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// println!("the controller is at {}", admin.discover_controller()?.address);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::discover_controller`].
    pub fn discover_controller(&self) -> Result<ControllerInfo, Error> {
        self.thread.wait(self.inner.discover_controller())
    }

    /// As [`crate::Admin::controller_addr`].
    ///
    /// ```no_run
    /// # fn example(admin: ringmq_client::blocking::Admin) -> Result<(), ringmq_client::Error> {
    /// println!("the controller is at {}", admin.controller_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Admin::controller_addr`].
    pub fn controller_addr(&self) -> Result<String, Error> {
        self.thread.wait(self.inner.controller_addr())
    }
}
