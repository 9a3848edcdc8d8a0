//! Fetching records, and asking for offsets.

use std::sync::Arc;

use ringmq_wire::protocol::OffsetSpec;
use ringmq_wire::{Offset, PartitionIndex};

use crate::cluster::Cluster;
use crate::error::{BoxError, Error};
use crate::fetch::{FetchFrom, FetchOptions, Fetched, RawFetched, fetch_many, fetch_raw};
use crate::fetched::Source;
use crate::list_offsets::{
    ListOffset, PartitionOffset, TopicOffsets, list_offsets, list_offsets_each, list_offsets_many,
    list_offsets_of_topics,
};
use crate::record::ConsumedRecord;
use crate::retry::Retry;
use crate::subscription::{RecordStream, Start, SubscribeOptions};

/// Fetches records. It keeps no position: each fetch names its offset. Clones share connections.
///
/// The checksum of every batch is verified before its records are handed out, except by [`Consumer::fetch_raw`].
///
/// ```no_run
/// # async fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::{FetchOptions, Offset, PartitionIndex};
/// let first = PartitionIndex::new(0);
/// let fetched = client.consumer().fetch("orders", first, Offset::ZERO, FetchOptions::default()).await?;
/// for record in &fetched.records {
///     println!("{}: {:?}", record.offset, record.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Consumer {
    cluster: Arc<Cluster>,
}

impl Consumer {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    /// Fetches records of one partition from an offset on.
    ///
    /// An offset at the high watermark waits for records; one beyond it, or before the log's start, is an error.
    ///
    /// ```no_run
    /// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{FetchOptions, Offset, PartitionIndex};
    /// let fetched = consumer.fetch("orders", PartitionIndex::new(0), Offset::ZERO, FetchOptions::default()).await?;
    /// println!("{} records; the next fetch goes on at {}", fetched.records.len(), fetched.next_offset);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future throws away what was on its way, no more.
    ///
    /// # Errors
    /// [`Error::Broker`] when the topic, the partition or the offset is unknown; [`Error::Unreadable`] for damaged
    /// batches; no answer within `max_wait` and the client's time-out.
    pub async fn fetch(
        &self,
        topic: &str,
        partition: PartitionIndex,
        offset: Offset,
        options: FetchOptions,
    ) -> Result<Fetched, Error> {
        let (topic, raw) = fetch_raw(&self.cluster, topic, partition, offset, options).await?;
        raw.verify(Source { topic, partition, from: offset })
    }

    /// Fetches from many partitions at once: one request to each shard that owns some of them, and all answers are
    /// waited for. A partition that gets no good answer is fetched once more by itself. The results stand in the order
    /// of `targets`.
    ///
    /// ```no_run
    /// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{FetchFrom, FetchOptions, Offset, PartitionIndex};
    /// let from = |partition| FetchFrom { topic: "orders".to_owned(), partition, offset: Offset::ZERO };
    /// let targets: Vec<_> = (0..4).map(PartitionIndex::new).map(from).collect();
    /// for fetched in consumer.fetch_many(&targets, FetchOptions::no_wait()).await {
    ///     println!("{} records", fetched?.records.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future throws away what was on its way, no more.
    ///
    /// # Errors
    /// Each result as [`Consumer::fetch`].
    pub async fn fetch_many(&self, targets: &[FetchFrom], options: FetchOptions) -> Vec<Result<Fetched, Error>> {
        fetch_many(&self.cluster, targets, options).await
    }

    /// Fetches batches of one partition as they are stored, without verifying or decoding them.
    ///
    /// ```no_run
    /// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{FetchOptions, Offset, PartitionIndex};
    /// let raw = consumer.fetch_raw("orders", PartitionIndex::new(0), Offset::ZERO, FetchOptions::no_wait()).await?;
    /// println!("{} bytes of batches", raw.batches.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future throws away what was on its way, no more.
    ///
    /// # Errors
    /// As [`Consumer::fetch`], except that damage is not noticed.
    pub async fn fetch_raw(
        &self,
        topic: &str,
        partition: PartitionIndex,
        offset: Offset,
        options: FetchOptions,
    ) -> Result<RawFetched, Error> {
        fetch_raw(&self.cluster, topic, partition, offset, options).await.map(|(_, raw)| raw)
    }

    /// The earliest offset, the latest, or the first at a time, of every partition of a topic, by partition.
    ///
    /// ```no_run
    /// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::OffsetSpec;
    /// for end in consumer.list_offsets("orders", OffsetSpec::Latest).await? {
    ///     println!("partition {} ends at {:?}", end.partition, end.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future throws away what was on its way, no more.
    ///
    /// # Errors
    /// [`Error::Broker`] when the topic is unknown or a partition cannot answer; no answer in time.
    pub async fn list_offsets(&self, topic: &str, at: OffsetSpec) -> Result<Vec<PartitionOffset>, Error> {
        let mut retry = Retry::new("list offsets", self.cluster.options.timeout);
        let all = self.cluster.route(topic, &mut retry).await?.indexes();
        list_offsets(&self.cluster, topic, &all, at, &mut retry).await
    }

    /// As [`Consumer::list_offsets`], with an outcome for each partition: one that is offline, or whose broker does not
    /// answer in time, does not hide the others. The outer result is the topic's.
    ///
    /// ```no_run
    /// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::OffsetSpec;
    /// for end in consumer.list_offsets_each("orders", OffsetSpec::Latest).await? {
    ///     println!("{:?}", end.map(|end| end.offset));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future throws away what was on its way, no more.
    ///
    /// # Errors
    /// Outer: [`Error::Broker`] when the topic is unknown; no broker says in time where it is. Inner: [`Error::Broker`];
    /// [`Error::TimedOut`] around the last failure of those that have no answer in time.
    pub async fn list_offsets_each(
        &self,
        topic: &str,
        at: OffsetSpec,
    ) -> Result<Vec<Result<PartitionOffset, Error>>, Error> {
        let mut retry = Retry::new("list offsets", self.cluster.options.timeout);
        let all = self.cluster.route(topic, &mut retry).await?.indexes();
        list_offsets_each(&self.cluster, topic, &all, at, &mut retry).await
    }

    /// As [`Consumer::list_offsets_each`], for these partitions, in their order.
    ///
    /// ```no_run
    /// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{OffsetSpec, PartitionIndex};
    /// let some = [PartitionIndex::new(0), PartitionIndex::new(3)];
    /// let starts = consumer.list_offsets_of("orders", &some, OffsetSpec::Earliest).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future throws away what was on its way, no more.
    ///
    /// # Errors
    /// As [`Consumer::list_offsets_each`]; outer as well: [`Error::Broker`] when the topic has no such partition.
    pub async fn list_offsets_of(
        &self,
        topic: &str,
        partitions: &[PartitionIndex],
        at: OffsetSpec,
    ) -> Result<Vec<Result<PartitionOffset, Error>>, Error> {
        let mut retry = Retry::new("list offsets", self.cluster.options.timeout);
        list_offsets_each(&self.cluster, topic, partitions, at, &mut retry).await
    }

    /// As [`Consumer::list_offsets_each`], of many topics at once: one request to each shard that owns some of their
    /// partitions (or several, where 1 MiB does not hold them), to all shards at the same time. The outer result is the
    /// request's, the inner ones stand in the order of `topics`.
    ///
    /// ```no_run
    /// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::OffsetSpec;
    /// for ends in consumer.list_offsets_of_topics(&["orders", "letters"], OffsetSpec::Latest).await? {
    ///     for end in ends? {
    ///         println!("{:?}", end?);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// Outer: no broker says in time where the topics are. Inner: [`Error::Broker`] when the topic is unknown; within, as
    /// [`Consumer::list_offsets_each`].
    pub async fn list_offsets_of_topics(
        &self,
        topics: &[impl AsRef<str>],
        at: OffsetSpec,
    ) -> Result<Vec<TopicOffsets>, Error> {
        let mut retry = Retry::new("list offsets", self.cluster.options.timeout);
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        list_offsets_of_topics(&self.cluster, &topics, at, &mut retry).await
    }

    /// As [`Consumer::list_offsets_of`], of partitions of many topics, each at an offset of its own. The outer result is the
    /// request's, the inner ones stand in the order of `wanted`. A partition may be named several times, for its earliest
    /// and its latest offset, say: that takes a request for each, one after the other.
    ///
    /// ```no_run
    /// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{ListOffset, OffsetSpec, PartitionIndex};
    /// let (partition, at) = (PartitionIndex::new(0), OffsetSpec::Latest);
    /// let wanted = ["orders", "letters"].map(|topic| ListOffset { topic: topic.to_owned(), partition, at });
    /// for end in consumer.list_offsets_many(&wanted).await? {
    ///     println!("{:?}", end?.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// Outer: no broker says in time where the topics are. Inner: [`Error::Broker`] when there is no such topic or partition;
    /// as [`Consumer::list_offsets_each`].
    pub async fn list_offsets_many(&self, wanted: &[ListOffset]) -> Result<Vec<Result<PartitionOffset, Error>>, Error> {
        let mut retry = Retry::new("list offsets", self.cluster.options.timeout);
        list_offsets_many(&self.cluster, wanted, &mut retry).await
    }

    /// As [`Consumer::list_offsets`], for one partition.
    ///
    /// ```no_run
    /// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{OffsetSpec, PartitionIndex, Timestamp};
    /// let at = OffsetSpec::Timestamp(Timestamp::new(1_763_856_000_000));
    /// let first = consumer.list_offset("orders", PartitionIndex::new(0), at).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future throws away what was on its way, no more.
    ///
    /// # Errors
    /// As [`Consumer::list_offsets`].
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: PartitionIndex,
        at: OffsetSpec,
    ) -> Result<PartitionOffset, Error> {
        let mut retry = Retry::new("list offsets", self.cluster.options.timeout);
        let listed = list_offsets(&self.cluster, topic, &[partition], at, &mut retry).await?;
        listed.first().copied().ok_or_else(|| Error::Nonsense("no offset was listed".to_owned()))
    }

    /// Calls `handler` with every record of a topic from `start` on, one after the other, until the handler fails.
    ///
    /// Records of one partition come in order; partitions take turns. What is fetched ahead is bounded (see
    /// [`SubscribeOptions`]), so a slow handler slows the fetching.
    ///
    /// ```no_run
    /// # async fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{ConsumedRecord, Start};
    /// client
    ///     .consumer()
    ///     .subscribe("orders", Start::Earliest, |record: ConsumedRecord| async move {
    ///         println!("{:?}", record.value);
    ///         Ok::<_, std::io::Error>(())
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future ends the subscription. The record that the handler was working on may then be handled in part.
    ///
    /// # Errors
    /// [`Error::Handler`] with the handler's error; what [`RecordStream::next`] gives.
    pub async fn subscribe<H, F, E>(&self, topic: &str, start: Start, handler: H) -> Result<(), Error>
    where
        H: FnMut(ConsumedRecord) -> F,
        F: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        self.subscribe_with(topic, SubscribeOptions { start, ..SubscribeOptions::default() }, handler).await
    }

    /// As [`Consumer::subscribe`], with options. Returns without an error when the options have an end and it is
    /// reached.
    ///
    /// ```no_run
    /// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{ConsumedRecord, SubscribeOptions, Until};
    /// let options = SubscribeOptions { until: Until::CurrentEnd, ..SubscribeOptions::default() };
    /// let print = |record: ConsumedRecord| async move {
    ///     println!("{:?}", record.value);
    ///     Ok::<_, std::io::Error>(())
    /// };
    /// consumer.subscribe_with("orders", options, print).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// As [`Consumer::subscribe`].
    ///
    /// # Errors
    /// As [`Consumer::subscribe`].
    pub async fn subscribe_with<H, F, E>(
        &self,
        topic: &str,
        options: SubscribeOptions,
        mut handler: H,
    ) -> Result<(), Error>
    where
        H: FnMut(ConsumedRecord) -> F,
        F: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        let mut stream = self.stream(topic, options).await?;
        while let Some(record) = stream.next().await? {
            let (partition, offset) = (record.partition, record.offset);
            let handled = handler(record).await;
            handled.map_err(|error| Error::of_handler(partition, offset, error.into()))?;
        }
        Ok(())
    }

    /// A subscription that is read record by record, for programs that want to decide when to go on.
    ///
    /// ```no_run
    /// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::SubscribeOptions;
    /// let mut stream = consumer.stream("orders", SubscribeOptions::default()).await?;
    /// while let Some(record) = stream.next().await? {
    ///     println!("{:?}", record.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future leaves no subscription behind.
    ///
    /// # Errors
    /// [`Error::Broker`] when the topic is unknown; no answer in time.
    pub async fn stream(&self, topic: &str, options: SubscribeOptions) -> Result<RecordStream, Error> {
        RecordStream::start(self.cluster.clone(), topic, options).await
    }
}
