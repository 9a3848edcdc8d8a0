//! Asking for the earliest and latest offsets, and for the first at a time.

use std::sync::Arc;

use ringmq_wire::protocol::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic, OffsetSpec,
};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, Timestamp, WireError};

use crate::cluster::Cluster;
use crate::each_partition::{Answers, ByTopic, Question, Wanted};
use crate::error::Error;
use crate::retry::Retry;

/// An offset of one partition.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset; `None` when no record has the timestamp that was asked for or a later one.
    pub offset: Option<Offset>,
    /// The timestamp of the record at the offset, when a timestamp was asked for.
    pub timestamp: Option<Timestamp>,
}

/// The offset of one partition that is asked for, by [`crate::Consumer::list_offsets_many`].
///
/// ```
/// use ringmq_client::{ListOffset, OffsetSpec, PartitionIndex};
/// let wanted = ListOffset { topic: "orders".to_owned(), partition: PartitionIndex::new(3), at: OffsetSpec::Latest };
/// # let _ = wanted;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOffset {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Which offset.
    pub at: OffsetSpec,
}

/// The offsets of one topic's partitions, by index, or why there are none; each partition has an outcome of its own.
///
/// ```
/// use ringmq_client::TopicOffsets;
/// fn known(offsets: &TopicOffsets) -> usize {
///     offsets.iter().flatten().filter(|partition| partition.is_ok()).count()
/// }
/// # let _ = known;
/// ```
pub type TopicOffsets = Result<Vec<Result<PartitionOffset, Error>>, Error>;

static LIST_OFFSETS: Question<OffsetSpec, ListOffsetsRequest, PartitionOffset> =
    Question { operation: "list offsets", request, answers };

/// The offset of each of `partitions`, in their order, asked for until every one has answered or the time is up.
///
/// # Errors
/// That of the first partition that has one, as well.
pub(crate) async fn list_offsets(
    cluster: &Arc<Cluster>,
    topic: &str,
    partitions: &[PartitionIndex],
    at: OffsetSpec,
    retry: &mut Retry,
) -> Result<Vec<PartitionOffset>, Error> {
    list_offsets_each(cluster, topic, partitions, at, retry).await?.into_iter().collect()
}

/// The offset of each of `partitions`, in their order, or why it has none to give in time.
///
/// # Errors
/// When there is no such topic or partition, or nobody says in time where it is.
pub(crate) async fn list_offsets_each(
    cluster: &Arc<Cluster>,
    topic: &str,
    partitions: &[PartitionIndex],
    at: OffsetSpec,
    retry: &mut Retry,
) -> Result<Vec<Result<PartitionOffset, Error>>, Error> {
    LIST_OFFSETS.ask_of_topic(cluster, topic, partitions.iter().map(|&partition| (partition, at)), retry).await
}

/// As [`list_offsets_each`], of many topics.
///
/// # Errors
/// When nobody says in time where the topics are.
pub(crate) async fn list_offsets_many(
    cluster: &Arc<Cluster>,
    wanted: &[ListOffset],
    retry: &mut Retry,
) -> Result<Vec<Result<PartitionOffset, Error>>, Error> {
    let wanted = wanted.iter().map(|one| Wanted::from((one.topic.as_str(), one.partition, one.at)));
    LIST_OFFSETS.ask(cluster, &wanted.collect::<Vec<_>>(), retry).await
}

/// The same offset of all partitions of each of `topics`, in their order.
///
/// # Errors
/// When nobody says in time where the topics are.
pub(crate) async fn list_offsets_of_topics(
    cluster: &Arc<Cluster>,
    topics: &[&str],
    at: OffsetSpec,
    retry: &mut Retry,
) -> Result<Vec<TopicOffsets>, Error> {
    let (mut indexes, mut wanted) = (Vec::with_capacity(topics.len()), Vec::new());
    for (topic, route) in topics.iter().zip(cluster.routes(topics, retry).await?) {
        let found = route.map(|route| route.indexes());
        wanted.extend(found.iter().flatten().map(|&partition| Wanted::from((*topic, partition, at))));
        indexes.push(found);
    }
    let mut listed = LIST_OFFSETS.ask(cluster, &wanted, retry).await?.into_iter();
    Ok(indexes.into_iter().map(|found| Ok(listed.by_ref().take(found?.len()).collect())).collect())
}

fn request(wanted: ByTopic<OffsetSpec>) -> ListOffsetsRequest {
    let topic = |(topic, partitions): (_, Vec<_>)| {
        let partitions = partitions.into_iter().map(|(partition, at)| ListOffsetsPartition { partition, at }).collect();
        ListOffsetsTopic { topic, partitions }
    };
    ListOffsetsRequest { topics: wanted.into_iter().map(topic).collect() }
}

fn answers(response: ListOffsetsResponse) -> Answers<PartitionOffset> {
    let listed = response.topics.into_iter().flat_map(|topic| {
        let name = topic.topic;
        topic.partitions.into_iter().map(move |found| (name.clone(), found))
    });
    let answers = listed.map(|(topic, found)| {
        let partition = found.partition;
        let offset = match found.error {
            ErrorCode::None => Ok(PartitionOffset { partition, offset: found.offset, timestamp: found.timestamp }),
            code => Err(WireError { code, detail: found.detail }),
        };
        (topic, partition, offset)
    });
    answers.collect()
}
