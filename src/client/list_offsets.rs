//! Asking for the earliest and latest offsets, and for the first at a time.

use ringmq_wire::protocol::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic, OffsetSpec,
};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, Timestamp, TopicName, WireError};

use crate::cluster::Cluster;
use crate::each_partition::{Answers, Question};
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

const LIST_OFFSETS: Question<OffsetSpec, ListOffsetsRequest, PartitionOffset> =
    Question { operation: "list offsets", request, answers };

/// The offset of each of `partitions`, in their order, asked for until every one has answered or the time is up.
///
/// # Errors
/// That of the first partition that has one, as well.
pub(crate) async fn list_offsets(
    cluster: &Cluster,
    topic: &str,
    partitions: &[PartitionIndex],
    at: OffsetSpec,
    retry: &mut Retry,
) -> Result<Vec<PartitionOffset>, Error> {
    list_offsets_each(cluster, topic, partitions, at, retry).await?.into_iter().collect()
}

/// The offset of each of `partitions`, in their order, or why it has none to give.
///
/// # Errors
/// When the topic is unknown, or not all have answered in time.
pub(crate) async fn list_offsets_each(
    cluster: &Cluster,
    topic: &str,
    partitions: &[PartitionIndex],
    at: OffsetSpec,
    retry: &mut Retry,
) -> Result<Vec<Result<PartitionOffset, Error>>, Error> {
    let wanted: Vec<_> = partitions.iter().map(|&partition| (partition, at)).collect();
    LIST_OFFSETS.ask(cluster, topic, &wanted, retry).await
}

fn request(topic: TopicName, wanted: Vec<(PartitionIndex, OffsetSpec)>) -> ListOffsetsRequest {
    let partitions = wanted.into_iter().map(|(partition, at)| ListOffsetsPartition { partition, at }).collect();
    ListOffsetsRequest { topics: vec![ListOffsetsTopic { topic, partitions }] }
}

fn answers(response: ListOffsetsResponse) -> Answers<PartitionOffset> {
    let listed = response.topics.into_iter().flat_map(|topic| topic.partitions);
    let answers = listed.map(|found| {
        let partition = found.partition;
        let offset = match found.error {
            ErrorCode::None => Ok(PartitionOffset { partition, offset: found.offset, timestamp: found.timestamp }),
            code => Err(WireError { code, detail: found.detail }),
        };
        (partition, offset)
    });
    answers.collect()
}
