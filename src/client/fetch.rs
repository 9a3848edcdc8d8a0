//! One fetch, from one partition or from many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmq_wire::protocol::{FetchPartition, FetchRequest, FetchTopic, FetchedPartition};
use ringmq_wire::{Offset, PartitionIndex, TopicName, WireError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::address::BrokerAddress;
use crate::cluster::Cluster;
use crate::connection::{Connection, FetchResponse};
use crate::error::Error;
use crate::fetched::{Source, Verified};
use crate::record::ConsumedRecord;
use crate::retry::Retry;

/// How much to fetch, and how long to wait for it.
///
/// ```
/// use std::time::Duration;
/// use ringmq_client::FetchOptions;
/// let portions = FetchOptions { min_bytes: 64 << 10, max_wait: Duration::from_secs(2), ..FetchOptions::default() };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchOptions {
    /// How long the broker may wait for `min_bytes`. Zero answers at once. Default 500 ms.
    pub max_wait: Duration,
    /// The broker answers as soon as it has so many bytes. Default 1.
    pub min_bytes: u32,
    /// About how many bytes of batches a response may have; the first batch comes even if it is larger. Default 8 MiB.
    pub max_bytes: u32,
    /// The same for each partition. Default 1 MiB.
    pub partition_max_bytes: u32,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 8 * 1024 * 1024,
            partition_max_bytes: 1024 * 1024,
        }
    }
}

impl FetchOptions {
    /// The default, but with an answer at once, even an empty one.
    ///
    /// ```
    /// assert!(ringmq_client::FetchOptions::no_wait().max_wait.is_zero());
    /// ```
    pub fn no_wait() -> Self {
        Self { max_wait: Duration::ZERO, ..Self::default() }
    }
}

/// What one fetch brought.
///
/// ```no_run
/// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::{FetchOptions, Offset, PartitionIndex};
/// let mut next = Offset::ZERO;
/// loop {
///     let fetched = consumer.fetch("orders", PartitionIndex::new(0), next, FetchOptions::no_wait()).await?;
///     println!("{} records", fetched.records.len());
///     if fetched.next_offset == fetched.high_watermark {
///         break;
///     }
///     next = fetched.next_offset;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The records from the offset on; none when nothing came in time.
    pub records: Vec<ConsumedRecord>,
    /// Where the next fetch goes on.
    pub next_offset: Offset,
    /// The offset after the last record that consumers may see.
    pub high_watermark: Offset,
    /// The first offset that the partition still holds.
    pub log_start_offset: Offset,
}

/// What one fetch brought, as it is stored. Its checksums have **not** been verified.
///
/// ```no_run
/// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::{FetchOptions, Offset, PartitionIndex};
/// let raw = consumer.fetch_raw("orders", PartitionIndex::new(0), Offset::ZERO, FetchOptions::no_wait()).await?;
/// for batch in ringmq_wire::batch::split_batches(&raw.batches) {
///     println!("{:?}", batch.map(|batch| batch.header().record_count));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RawFetched {
    /// Whole record batches (see [`ringmq_wire::batch`]); the first may start before the offset.
    pub batches: Bytes,
    /// The offset after the last record that consumers may see.
    pub high_watermark: Offset,
    /// The first offset that the partition still holds.
    pub log_start_offset: Offset,
}

/// A partition, and the offset to fetch from.
///
/// ```
/// use ringmq_client::{FetchFrom, Offset, PartitionIndex};
/// let target = FetchFrom { topic: "orders".to_owned(), partition: PartitionIndex::new(0), offset: Offset::ZERO };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchFrom {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset wanted.
    pub offset: Offset,
}

impl RawFetched {
    /// The records, once every checksum has been found right.
    pub(crate) fn verify(self, source: Source) -> Result<Fetched, Error> {
        let verified = Verified::new(source, self.batches)?;
        let next_offset = verified.next_offset;
        let (high_watermark, log_start_offset) = (self.high_watermark, self.log_start_offset);
        Ok(Fetched { records: verified.into_records()?, next_offset, high_watermark, log_start_offset })
    }

    /// What a response says about one partition.
    pub(crate) fn new(source: &Source, (found, batches): (FetchedPartition, Bytes)) -> Result<Self, Error> {
        if !found.error.is_none() {
            let refusal = WireError { code: found.error, detail: found.detail };
            return Err(Error::about_partition(&source.topic, source.partition, refusal));
        }
        let (high_watermark, log_start_offset) = (found.high_watermark, found.log_start_offset);
        Ok(Self { batches, high_watermark, log_start_offset })
    }
}

/// Fetches from one partition, again and again until it answers or the time is up.
#[tracing::instrument(target = "ringmq_client", name = "fetch", level = "debug", skip_all, fields(topic = topic, %partition, %offset))]
pub(crate) async fn fetch_raw(
    cluster: &Cluster,
    topic: &str,
    partition: PartitionIndex,
    offset: Offset,
    options: FetchOptions,
) -> Result<(TopicName, RawFetched), Error> {
    let mut retry = Retry::new("fetch", cluster.options.timeout + options.max_wait);
    loop {
        let route = cluster.route_to(topic, partition, &mut retry).await?;
        let source = Source { topic: route.topic.clone(), partition, from: offset };
        // A later attempt waits less, so that its answer still comes in time.
        let max_wait = options.max_wait.min(retry.remaining().saturating_sub(cluster.options.timeout / 2));
        let options = FetchOptions { max_wait, ..options };
        let attempt = match cluster.owner(&route, partition, retry.deadline()).await {
            Ok((address, connection)) => request_one(&connection, &address, &source, options, retry.deadline()).await,
            Err(error) => Err(error),
        };
        match attempt {
            Ok(raw) => return Ok((source.topic, raw)),
            Err(error) => {
                cluster.doubt(topic, &error);
                retry.pause_after_answer(error).await?;
            }
        }
    }
}

async fn request_one(
    connection: &Connection,
    address: &BrokerAddress,
    source: &Source,
    options: FetchOptions,
    deadline: Instant,
) -> Result<RawFetched, Error> {
    let answer = request(connection, address, std::slice::from_ref(source), options, deadline).await?;
    let missing = || Error::Nonsense("a fetch was answered without its partition".to_owned());
    RawFetched::new(source, answer.into_iter().next().ok_or_else(missing)?)
}

/// Asks one broker for many partitions; the answer has one entry for each, in their order.
pub(crate) async fn request(
    connection: &Connection,
    address: &BrokerAddress,
    sources: &[Source],
    options: FetchOptions,
    deadline: Instant,
) -> Result<Vec<(FetchedPartition, Bytes)>, Error> {
    let max_wait_ms = u32::try_from(options.max_wait.as_millis()).unwrap_or(u32::MAX);
    let (min_bytes, max_bytes) = (options.min_bytes, options.max_bytes);
    let request = FetchRequest { max_wait_ms, min_bytes, max_bytes, topics: topics(sources, options) };
    let answer = connection.fetch(&request, deadline).await;
    let answer = answer.map_err(|error| Error::of_request("fetch", address, error))?;
    sections(answer, sources)
}

/// The request's form of `sources`: neighbours of one topic stand together.
pub(crate) fn topics(sources: &[Source], options: FetchOptions) -> Vec<FetchTopic> {
    let partition_max_bytes = options.partition_max_bytes;
    let wanted = |source: &Source| FetchPartition {
        partition: source.partition,
        fetch_offset: source.from,
        partition_max_bytes,
    };
    let same_topic = sources.chunk_by(|one, other| one.topic == other.topic);
    let of_topic = |sources: &[Source]| FetchTopic {
        topic: sources[0].topic.clone(),
        partitions: sources.iter().map(wanted).collect(),
    };
    same_topic.map(of_topic).collect()
}

/// The partitions of a response with their sections, sliced without copying.
fn sections(response: FetchResponse, sources: &[Source]) -> Result<Vec<(FetchedPartition, Bytes)>, Error> {
    let FetchResponse { head, mut sections } = response;
    let mut expected = sources.iter();
    let mut found = Vec::with_capacity(sources.len());
    for fetched in head.topics {
        for partition in fetched.partitions {
            let asked = expected.next();
            if asked.is_none_or(|asked| asked.topic != fetched.topic || asked.partition != partition.partition) {
                let (topic, partition) = (fetched.topic, partition.partition);
                let reason = format!("partition {partition} of topic `{topic}` came where another was asked for");
                return Err(Error::Nonsense(reason));
            }
            // The head was checked against the length of the response.
            let length = (partition.records_bytes as usize).min(sections.len());
            found.push((partition, sections.split_to(length)));
        }
    }
    match expected.next() {
        None => Ok(found),
        Some(Source { topic, partition, .. }) => {
            Err(Error::Nonsense(format!("partition {partition} of topic `{topic}` is missing in a fetch's answer")))
        }
    }
}

/// What one connection is asked for, and where the results belong.
#[derive(Debug, Default)]
struct Group {
    sources: Vec<Source>,
    places: Vec<usize>,
}

/// Fetches from many partitions; see [`Consumer::fetch_many`](crate::Consumer::fetch_many).
pub(crate) async fn fetch_many(
    cluster: &Arc<Cluster>,
    targets: &[FetchFrom],
    options: FetchOptions,
) -> Vec<Result<Fetched, Error>> {
    let mut fetched: Vec<Option<Fetched>> = fetch_groups(cluster, targets, options).await;
    fetched.resize_with(targets.len(), || None);
    let mut results = Vec::with_capacity(targets.len());
    for (target, fetched) in targets.iter().zip(fetched) {
        results.push(match fetched {
            Some(fetched) => Ok(fetched),
            // By itself it meets the error again, or not: it may have come from others of its group.
            None => fetch_one(cluster, target, options).await,
        });
    }
    results
}

async fn fetch_one(cluster: &Cluster, target: &FetchFrom, options: FetchOptions) -> Result<Fetched, Error> {
    let FetchFrom { topic, partition, offset } = target;
    let (topic, raw) = fetch_raw(cluster, topic, *partition, *offset, options).await?;
    raw.verify(Source { topic, partition: *partition, from: *offset })
}

/// One request to each owner at the same time. `None` where there was no good answer.
#[tracing::instrument(target = "ringmq_client", name = "fetch", level = "debug", skip_all, fields(partitions = targets.len()))]
async fn fetch_groups(cluster: &Arc<Cluster>, targets: &[FetchFrom], options: FetchOptions) -> Vec<Option<Fetched>> {
    let mut retry = Retry::new("fetch", cluster.options.timeout + options.max_wait);
    let mut groups: HashMap<BrokerAddress, (Connection, Group)> = HashMap::new();
    for (place, target) in targets.iter().enumerate() {
        let FetchFrom { topic, partition, offset } = target;
        let Ok(route) = cluster.route_to(topic, *partition, &mut retry).await else { continue };
        let owner = cluster.owner(&route, *partition, retry.deadline()).await;
        let Ok((address, connection)) = owner else { continue };
        let (_, group) = groups.entry(address).or_insert_with(|| (connection, Group::default()));
        group.sources.push(Source { topic: route.topic.clone(), partition: *partition, from: *offset });
        group.places.push(place);
    }

    let mut fetching = JoinSet::new();
    let deadline = retry.deadline();
    for (address, (connection, group)) in groups {
        fetching.spawn(async move {
            let answer = request(&connection, &address, &group.sources, options, deadline).await;
            (group, answer)
        });
    }
    let mut results: Vec<Option<Fetched>> = targets.iter().map(|_| None).collect();
    while let Some(joined) = fetching.join_next().await {
        let Ok((group, Ok(sections))) = joined else { continue };
        for ((place, source), section) in group.places.into_iter().zip(group.sources).zip(sections) {
            if let Some(result) = results.get_mut(place) {
                *result = RawFetched::new(&source, section).and_then(|raw| raw.verify(source)).ok();
            }
        }
    }
    results
}
