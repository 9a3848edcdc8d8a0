//! Topics, brokers and the controller.

use std::sync::Arc;

use ringmq_wire::protocol::{
    AlterTopicsRequest, AlteredTopic, CreateTopicsRequest, CreatedTopic, DeleteTopicsRequest, DeletedTopic,
    DescribeClusterRequest, DescribeClusterResponse, DescribeTopicsRequest, ListTopicsRequest, ListedTopic, ShardStats,
    StatsRequest,
};
use ringmq_wire::{BrokerId, ErrorCode, PartitionIndex, TopicId, WireError};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::address::BrokerAddress;
use crate::cluster::{AnswerLost, Cluster, ControllerInfo};
use crate::delete_records::{DeleteBefore, DeleteRecords, PartitionStart, delete_records_each, delete_records_many};
use crate::error::Error;
use crate::metadata::PartitionAddresses;
use crate::retry::Retry;
use crate::topic::{NewTopic, TopicAlteration, TopicDescription, describe, no_topic_id};

/// Creates, alters, deletes, lists and describes topics, and finds the controller.
///
/// Every operation on topics goes to the controller, so each sees what the ones before it did. Where the controller has moved or
/// its connection breaks, it is discovered again and asked again until the client's time-out.
///
/// ```no_run
/// # async fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::NewTopic;
/// let admin = client.admin();
/// admin.create_topic(NewTopic::new("orders").partitions(8)).await?;
/// for topic in admin.list_topics().await? {
///     println!("{} has {} partitions", topic.name, topic.partitions);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Admin {
    cluster: Arc<Cluster>,
}

/// What a broker's shards have done, or why that is not known.
///
/// ```no_run
/// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::BrokerStats;
/// let silent = |broker: &BrokerStats| broker.shards.is_err();
/// println!("{} brokers do not answer", admin.stats_of_brokers().await?.iter().filter(|one| silent(one)).count());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct BrokerStats {
    /// The broker.
    pub id: BrokerId,
    /// Its public address.
    pub address: BrokerAddress,
    /// Its shards, by index.
    pub shards: Result<Vec<ShardStats>, Error>,
}

impl Admin {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    /// Creates a topic; it can be used on any connection once this returns.
    ///
    /// When the answer to an earlier attempt was lost and the topic is there with as many partitions as asked for, it
    /// counts as created.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::NewTopic;
    /// let id = admin.create_topic(NewTopic::new("orders").partitions(8)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future leaves open whether it was done: describe the topic to find out.
    ///
    /// # Errors
    /// [`Error::Broker`] with [`ErrorCode::TopicAlreadyExists`], [`ErrorCode::InvalidTopicName`],
    /// [`ErrorCode::InvalidPartitionCount`], [`ErrorCode::InvalidReplicationFactor`] or [`ErrorCode::InvalidSetting`];
    /// or no answer.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<TopicId, Error> {
        self.create(vec![topic], false).await.and_then(only)?.ok_or_else(no_topic_id)
    }

    /// Creates many topics at once. The outer result is the request's, the inner ones stand in the order of `topics`.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::NewTopic;
    /// let topics = vec![NewTopic::new("orders"), NewTopic::new("letters")];
    /// for created in admin.create_topics(topics).await? {
    ///     println!("{:?}", created.map(|id| id.to_string()));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future leaves open whether it was done: describe the topic to find out.
    ///
    /// # Errors
    /// Outer: no answer. Inner: as [`Admin::create_topic`].
    pub async fn create_topics(&self, topics: Vec<NewTopic>) -> Result<Vec<Result<TopicId, Error>>, Error> {
        let created = self.create(topics, false).await?;
        Ok(created.into_iter().map(|one| one.and_then(|id| id.ok_or_else(no_topic_id))).collect())
    }

    /// Checks whether a topic could be created, and creates nothing.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::NewTopic;
    /// admin.validate_topic(NewTopic::new("orders").partitions(8)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// As [`Admin::create_topic`].
    pub async fn validate_topic(&self, topic: NewTopic) -> Result<(), Error> {
        self.validate_topics(vec![topic]).await.and_then(only)
    }

    /// Checks whether many topics could be created at once, and creates none. The outer result is the request's, the inner
    /// ones stand in the order of `topics`.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::NewTopic;
    /// for checked in admin.validate_topics(vec![NewTopic::new("orders"), NewTopic::new("letters")]).await? {
    ///     checked?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// Outer: no answer. Inner: as [`Admin::create_topic`].
    pub async fn validate_topics(&self, topics: Vec<NewTopic>) -> Result<Vec<Result<(), Error>>, Error> {
        let validated = self.create(topics, true).await?;
        Ok(validated.into_iter().map(|one| one.map(drop)).collect())
    }

    /// Alters a topic; every shard goes by it once this returns. What the topic has already is no error.
    ///
    /// ```no_run
    /// # async fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::TopicAlteration;
    /// client.admin().alter_topic(TopicAlteration::new("orders").set("batch_bytes_max", "4194304").partitions(16)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future leaves open whether it was done: describe the topic to find out.
    ///
    /// # Errors
    /// [`Error::Broker`] with [`ErrorCode::UnknownTopic`], [`ErrorCode::InvalidSetting`] or
    /// [`ErrorCode::InvalidPartitionCount`], and nothing of it is done; or no answer.
    pub async fn alter_topic(&self, alteration: TopicAlteration) -> Result<(), Error> {
        self.alter(vec![alteration], false).await.and_then(only)
    }

    /// Alters many topics at once. The outer result is the request's, the inner ones stand in the order of
    /// `alterations`.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::TopicAlteration;
    /// let alterations = ["orders", "letters"].map(|topic| TopicAlteration::new(topic).partitions(16));
    /// for altered in admin.alter_topics(alterations.into()).await? {
    ///     altered?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future leaves open whether it was done: describe the topic to find out.
    ///
    /// # Errors
    /// Outer: no answer. Inner: as [`Admin::alter_topic`].
    pub async fn alter_topics(&self, alterations: Vec<TopicAlteration>) -> Result<Vec<Result<(), Error>>, Error> {
        self.alter(alterations, false).await
    }

    /// Checks whether a topic could be altered, and alters nothing.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::TopicAlteration;
    /// admin.validate_alteration(TopicAlteration::new("orders").partitions(16)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// As [`Admin::alter_topic`].
    pub async fn validate_alteration(&self, alteration: TopicAlteration) -> Result<(), Error> {
        self.validate_alterations(vec![alteration]).await.and_then(only)
    }

    /// Checks whether many topics could be altered, and alters none. The outer result is the request's, the inner ones
    /// stand in the order of `alterations`.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::TopicAlteration;
    /// let alterations = ["orders", "letters"].map(|topic| TopicAlteration::new(topic).partitions(16));
    /// for checked in admin.validate_alterations(alterations.into()).await? {
    ///     checked?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// Outer: no answer. Inner: as [`Admin::alter_topic`].
    pub async fn validate_alterations(
        &self,
        alterations: Vec<TopicAlteration>,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        self.alter(alterations, true).await
    }

    /// Deletes a topic with all its records.
    ///
    /// When the answer to an earlier attempt was lost and the topic is gone, it counts as deleted.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// admin.delete_topic("orders").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future leaves open whether it was done: describe the topic to find out.
    ///
    /// # Errors
    /// [`Error::Broker`] with [`ErrorCode::UnknownTopic`], or no answer.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        self.delete_topics(&[topic]).await.and_then(only)
    }

    /// Deletes many topics at once. The outer result is the request's, the inner ones stand in the order of `topics`.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// for deleted in admin.delete_topics(&["orders", "letters"]).await? {
    ///     deleted?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future leaves open whether it was done: describe the topic to find out.
    ///
    /// # Errors
    /// Outer: no answer. Inner: as [`Admin::delete_topic`].
    pub async fn delete_topics(&self, topics: &[impl AsRef<str>]) -> Result<Vec<Result<(), Error>>, Error> {
        let mut retry = self.retry("delete topics");
        let names: Vec<String> = topics.iter().map(|topic| topic.as_ref().to_owned()).collect();
        let request = DeleteTopicsRequest { topics: names.clone(), timeout_ms: self.timeout_ms() };
        let moved = |deleted: &DeletedTopic| deleted.error == ErrorCode::NotController;
        let (answer, lost) = self
            .cluster
            .ask_controller("delete topics", &request, &mut retry, |answer| all(&answer.topics, moved))
            .await?;
        in_order(&names, answer.topics.iter().map(|deleted| deleted.name.as_str()))?;
        let outcome = |deleted: DeletedTopic| {
            self.cluster.forget(&deleted.name);
            match deleted.error {
                ErrorCode::None => Ok(()),
                ErrorCode::UnknownTopic if lost == AnswerLost(true) => Ok(()),
                code => Err(Error::about_topic(&deleted.name, WireError { code, detail: deleted.detail })),
            }
        };
        Ok(answer.topics.into_iter().map(outcome).collect())
    }

    /// Deletes the oldest records of partitions of a topic, for good, and says where each begins then, in the order of
    /// `partitions`. Readers below get [`ErrorCode::OffsetOutOfRange`]; the offsets of what is left do not change. What is
    /// deleted already is no error.
    ///
    /// ```no_run
    /// # async fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{DeleteBefore, Offset, PartitionIndex};
    /// let wanted = [
    ///     (PartitionIndex::new(0), DeleteBefore::Offset(Offset::new(1_000))),
    ///     (PartitionIndex::new(1), DeleteBefore::HighWatermark),
    /// ];
    /// for begins in client.admin().delete_records("orders", &wanted).await? {
    ///     println!("partition {} begins at {}", begins.partition, begins.log_start);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future leaves open which partitions were done. Doing it again does no harm.
    ///
    /// # Errors
    /// [`Error::Broker`] of the first partition that has one: [`ErrorCode::OffsetOutOfRange`] when the offset is beyond its
    /// high watermark, [`ErrorCode::PartitionOffline`], [`ErrorCode::UnknownPartition`]; those before it are done all the
    /// same. [`Error::Broker`] with [`ErrorCode::UnknownTopic`], or no answer.
    pub async fn delete_records(
        &self,
        topic: &str,
        partitions: &[(PartitionIndex, DeleteBefore)],
    ) -> Result<Vec<PartitionStart>, Error> {
        self.delete_records_each(topic, partitions).await?.into_iter().collect()
    }

    /// As [`Admin::delete_records`], with an outcome for each partition. The outer result is the request's. What is wanted of
    /// a partition that is named several times is done in that order.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{DeleteBefore, PartitionIndex};
    /// let all = [(PartitionIndex::new(0), DeleteBefore::HighWatermark)];
    /// for begins in admin.delete_records_each("orders", &all).await? {
    ///     println!("{:?}", begins.map(|begins| begins.log_start));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// As [`Admin::delete_records`].
    ///
    /// # Errors
    /// Outer: there is no such topic or partition, or no broker says in time where it is. Inner: as [`Admin::delete_records`],
    /// and [`Error::TimedOut`] around the last failure of those that have no answer in time: they may be done.
    pub async fn delete_records_each(
        &self,
        topic: &str,
        partitions: &[(PartitionIndex, DeleteBefore)],
    ) -> Result<Vec<Result<PartitionStart, Error>>, Error> {
        let mut retry = self.retry("delete records");
        delete_records_each(&self.cluster, topic, partitions, &mut retry).await
    }

    /// As [`Admin::delete_records_each`], of partitions of many topics: one request to each shard that owns some of them (or
    /// several, where 1 MiB does not hold them), to all shards at the same time. The outer result is the request's, the inner
    /// ones stand in the order of `wanted`.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{DeleteBefore, DeleteRecords, PartitionIndex};
    /// let (partition, before) = (PartitionIndex::new(0), DeleteBefore::HighWatermark);
    /// let wanted = ["orders", "letters"].map(|topic| DeleteRecords { topic: topic.to_owned(), partition, before });
    /// for begins in admin.delete_records_many(&wanted).await? {
    ///     println!("{}", begins?.log_start);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future leaves open which records were deleted; deleting them again is no error.
    ///
    /// # Errors
    /// Outer: no broker says in time where the topics are. Inner: that there is no such topic or partition; as
    /// [`Admin::delete_records_each`].
    pub async fn delete_records_many(
        &self,
        wanted: &[DeleteRecords],
    ) -> Result<Vec<Result<PartitionStart, Error>>, Error> {
        delete_records_many(&self.cluster, wanted, &mut self.retry("delete records")).await
    }

    /// Every topic, by name.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// for topic in admin.list_topics().await? {
    ///     println!("{} has {} partitions", topic.name, topic.partitions);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// When no broker answers.
    pub async fn list_topics(&self) -> Result<Vec<ListedTopic>, Error> {
        let mut retry = self.retry("list topics");
        let request = ListTopicsRequest {};
        let (answer, _) = self.cluster.ask_controller("list topics", &request, &mut retry, |_| false).await?;
        Ok(answer.topics)
    }

    /// Everything about one topic.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// for setting in admin.describe_topic("orders").await?.settings {
    ///     println!("{setting:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// [`Error::Broker`] with [`ErrorCode::UnknownTopic`], or no answer.
    pub async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, Error> {
        self.describe_topics(&[topic]).await.and_then(only)
    }

    /// Everything about many topics. The outer result is the request's, the inner ones stand in the order of `topics`.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// for topic in admin.describe_topics(&["orders", "letters"]).await? {
    ///     println!("{} partitions", topic?.partitions.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// Outer: no answer. Inner: as [`Admin::describe_topic`].
    pub async fn describe_topics(
        &self,
        topics: &[impl AsRef<str>],
    ) -> Result<Vec<Result<TopicDescription, Error>>, Error> {
        let mut retry = self.retry("describe topics");
        let names: Vec<String> = topics.iter().map(|topic| topic.as_ref().to_owned()).collect();
        let request = DescribeTopicsRequest { topics: names.clone() };
        let (answer, _) = self.cluster.ask_controller("describe topics", &request, &mut retry, |_| false).await?;
        in_order(&names, answer.topics.iter().map(|described| described.name.as_str()))?;
        Ok(answer.topics.into_iter().map(describe).collect())
    }

    /// Where each partition of a topic can be reached, by index, for programs that keep connections of their own. The
    /// client's own operations go there by themselves.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// for found in admin.partition_addresses("orders").await? {
    ///     println!("partition {} at {}", found.partition, found.direct.unwrap_or(found.public));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// [`Error::Broker`] with [`ErrorCode::UnknownTopic`], or no answer.
    pub async fn partition_addresses(&self, topic: &str) -> Result<Vec<PartitionAddresses>, Error> {
        let mut retry = self.retry("metadata");
        Ok(self.cluster.route(topic, &mut retry).await?.addresses())
    }

    /// As [`Admin::partition_addresses`], of many topics at once. The outer result is the request's, the inner ones stand in
    /// the order of `topics`.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// for addresses in admin.partition_addresses_of_topics(&["orders", "letters"]).await? {
    ///     println!("{} partitions", addresses?.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// Outer: no answer. Inner: as [`Admin::partition_addresses`].
    pub async fn partition_addresses_of_topics(
        &self,
        topics: &[impl AsRef<str>],
    ) -> Result<Vec<Result<Vec<PartitionAddresses>, Error>>, Error> {
        let mut retry = self.retry("metadata");
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        let routes = self.cluster.routes(&topics, &mut retry).await?;
        Ok(routes.into_iter().map(|route| route.map(|route| route.addresses())).collect())
    }

    /// Every broker with its shards.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// println!("{} brokers", admin.describe_cluster().await?.brokers.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// When no broker answers.
    pub async fn describe_cluster(&self) -> Result<DescribeClusterResponse, Error> {
        let mut retry = self.retry("describe cluster");
        let request = DescribeClusterRequest {};
        let (answer, _) = self.cluster.ask_controller("describe cluster", &request, &mut retry, |_| false).await?;
        Ok(answer)
    }

    /// What each shard of the controller's broker has done since that started, and how long it took.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// for shard in admin.stats().await? {
    ///     println!("shard {}: {:?}", shard.shard, shard.counters);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// When no broker answers.
    pub async fn stats(&self) -> Result<Vec<ShardStats>, Error> {
        let mut retry = self.retry("get the statistics");
        let (answer, _) =
            self.cluster.ask_controller("get the statistics", &StatsRequest {}, &mut retry, |_| false).await?;
        Ok(answer.shards)
    }

    /// As [`Admin::stats`], of every broker of the cluster at the same time, in the order of the cluster's roster. One that
    /// does not answer does not hide the others.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// for broker in admin.stats_of_brokers().await? {
    ///     println!("broker {}: {} shards", broker.id, broker.shards?.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// When no broker says which there are.
    pub async fn stats_of_brokers(&self) -> Result<Vec<BrokerStats>, Error> {
        let roster = self.describe_cluster().await?.brokers;
        let mut asking = JoinSet::new();
        for (place, broker) in roster.into_iter().enumerate() {
            let (cluster, mut retry) = (self.cluster.clone(), self.retry("get the statistics"));
            let (id, address) = (broker.id, BrokerAddress::new(broker.host, broker.port));
            let ask = async move {
                let answer = cluster.ask_broker("get the statistics", &address, &StatsRequest {}, &mut retry).await;
                (place, BrokerStats { id, address, shards: answer.map(|answer| answer.shards) })
            };
            asking.spawn(ask.in_current_span());
        }
        let mut stats = Vec::with_capacity(asking.len());
        while let Some(joined) = asking.join_next().await {
            stats.push(joined.map_err(|error| Error::Runtime(error.to_string()))?);
        }
        stats.sort_unstable_by_key(|(place, _)| *place);
        Ok(stats.into_iter().map(|(_, broker)| broker).collect())
    }

    /// Asks a broker which one is the controller now, and remembers it for the operations that need it.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// println!("the controller is at {}", admin.discover_controller().await?.address);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// When no broker answers.
    pub async fn discover_controller(&self) -> Result<ControllerInfo, Error> {
        self.cluster.discover_controller(&mut self.retry("discover controller")).await
    }

    /// The controller's address as `host:port`: as remembered, else discovered.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// println!("the controller is at {}", admin.controller_addr().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// When no broker answers.
    pub async fn controller_addr(&self) -> Result<String, Error> {
        let mut retry = self.retry("discover controller");
        self.cluster.controller(&mut retry).await.map(|controller| controller.address.to_string())
    }

    async fn create(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
    ) -> Result<Vec<Result<Option<TopicId>, Error>>, Error> {
        let mut retry = self.retry("create topics");
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        let request = CreateTopicsRequest {
            topics: topics.iter().map(NewTopic::to_wire).collect(),
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        let moved = |created: &CreatedTopic| created.error == ErrorCode::NotController;
        let (answer, lost) = self
            .cluster
            .ask_controller("create topics", &request, &mut retry, |answer| all(&answer.topics, moved))
            .await?;
        in_order(&names, answer.topics.iter().map(|created| created.name.as_str()))?;

        let mut outcomes = Vec::with_capacity(topics.len());
        for (topic, created) in topics.iter().zip(answer.topics) {
            self.cluster.forget(&created.name);
            outcomes.push(match created.error {
                ErrorCode::None => Ok(created.topic_id),
                code => {
                    let refusal = Error::about_topic(&created.name, WireError { code, detail: created.detail });
                    let ours = code == ErrorCode::TopicAlreadyExists && lost == AnswerLost(true);
                    if ours { self.created_before(topic, refusal).await } else { Err(refusal) }
                }
            });
        }
        Ok(outcomes)
    }

    async fn alter(
        &self,
        alterations: Vec<TopicAlteration>,
        validate_only: bool,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let mut retry = self.retry("alter topics");
        let names: Vec<&str> = alterations.iter().map(|alteration| alteration.name.as_str()).collect();
        let request = AlterTopicsRequest {
            topics: alterations.iter().map(TopicAlteration::to_wire).collect(),
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        let moved = |altered: &AlteredTopic| altered.error == ErrorCode::NotController;
        // A lost answer is nothing to look after: the same alteration twice is the same as once.
        let (answer, _) = self
            .cluster
            .ask_controller("alter topics", &request, &mut retry, |answer| all(&answer.topics, moved))
            .await?;
        in_order(&names, answer.topics.iter().map(|altered| altered.name.as_str()))?;
        let outcome = |altered: AlteredTopic| {
            self.cluster.forget(&altered.name);
            match altered.error {
                ErrorCode::None => Ok(()),
                code => Err(Error::about_topic(&altered.name, WireError { code, detail: altered.detail })),
            }
        };
        Ok(answer.topics.into_iter().map(outcome).collect())
    }

    /// The topic that an attempt whose answer was lost has created, if what is there is what was asked for.
    async fn created_before(&self, topic: &NewTopic, refusal: Error) -> Result<Option<TopicId>, Error> {
        let found = self.describe_topic(&topic.name).await?;
        let as_asked = found.partitions.len() == topic.partitions as usize;
        if as_asked { Ok(Some(found.topic_id)) } else { Err(refusal) }
    }

    fn retry(&self, operation: &'static str) -> Retry {
        Retry::new(operation, self.cluster.options.timeout)
    }

    /// How long the broker may wait for its shards: less than the caller waits for the broker, who otherwise never
    /// learns that the change is durable and only not visible everywhere.
    fn timeout_ms(&self) -> u32 {
        let patience = self.cluster.options.timeout.mul_f64(0.8);
        u32::try_from(patience.as_millis()).unwrap_or(u32::MAX)
    }
}

/// Whether there are items and `test` holds for each.
fn all<T>(items: &[T], test: impl Fn(&T) -> bool) -> bool {
    !items.is_empty() && items.iter().all(test)
}

/// Answers stand in the order of what was asked.
fn in_order<'a>(asked: &[impl AsRef<str>], answered: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let same = asked.iter().map(AsRef::as_ref).eq(answered);
    if same { Ok(()) } else { Err(Error::Nonsense("the answer is about other topics than the request".to_owned())) }
}

fn only<T>(outcomes: Vec<Result<T, Error>>) -> Result<T, Error> {
    outcomes.into_iter().next().unwrap_or_else(|| Err(Error::Nonsense("the answer is empty".to_owned())))
}
