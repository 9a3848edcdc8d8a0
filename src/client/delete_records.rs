//! Deleting the oldest records of partitions.

use std::sync::Arc;

use ringmq_wire::protocol::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, WireError};

use crate::cluster::Cluster;
use crate::each_partition::{Answers, ByTopic, Question, Wanted};
use crate::error::Error;
use crate::retry::Retry;

/// Up to where records are deleted.
///
/// ```no_run
/// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::{DeleteBefore, Offset, PartitionIndex};
/// let first = (PartitionIndex::new(0), DeleteBefore::Offset(Offset::new(1_000)));
/// let second = (PartitionIndex::new(1), DeleteBefore::HighWatermark);
/// admin.delete_records("orders", &[first, second]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteBefore {
    /// Those below this offset; at most the high watermark.
    Offset(Offset),
    /// All that consumers may see when the broker gets to it.
    HighWatermark,
}

/// A partition whose records were deleted.
///
/// ```no_run
/// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::{DeleteBefore, PartitionIndex};
/// let all = [(PartitionIndex::new(0), DeleteBefore::HighWatermark)];
/// for begins in admin.delete_records("orders", &all).await? {
///     println!("partition {} begins at {}", begins.partition, begins.log_start);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStart {
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset that it still holds.
    pub log_start: Offset,
}

/// What is to be deleted of one partition, for [`crate::Admin::delete_records_many`].
///
/// ```
/// use ringmq_client::{DeleteBefore, DeleteRecords, Offset, PartitionIndex};
/// let (partition, before) = (PartitionIndex::new(3), DeleteBefore::Offset(Offset::new(1_000)));
/// let wanted = DeleteRecords { topic: "orders".to_owned(), partition, before };
/// # let _ = wanted;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteRecords {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Up to where.
    pub before: DeleteBefore,
}

static DELETE_RECORDS: Question<DeleteBefore, DeleteRecordsRequest, PartitionStart> =
    Question { operation: "delete records", request, answers };

/// Deletes, and says where each partition begins, in the order of `wanted`, or why not.
///
/// # Errors
/// When there is no such topic or partition, or nobody says in time where it is.
pub(crate) async fn delete_records_each(
    cluster: &Arc<Cluster>,
    topic: &str,
    wanted: &[(PartitionIndex, DeleteBefore)],
    retry: &mut Retry,
) -> Result<Vec<Result<PartitionStart, Error>>, Error> {
    DELETE_RECORDS.ask_of_topic(cluster, topic, wanted.iter().copied(), retry).await
}

/// As [`delete_records_each`], in many topics.
///
/// # Errors
/// When nobody says in time where the topics are.
pub(crate) async fn delete_records_many(
    cluster: &Arc<Cluster>,
    wanted: &[DeleteRecords],
    retry: &mut Retry,
) -> Result<Vec<Result<PartitionStart, Error>>, Error> {
    let wanted = wanted.iter().map(|one| Wanted::from((one.topic.as_str(), one.partition, one.before)));
    DELETE_RECORDS.ask(cluster, &wanted.collect::<Vec<_>>(), retry).await
}

fn request(wanted: ByTopic<DeleteBefore>) -> DeleteRecordsRequest {
    let partition = |(partition, before)| match before {
        DeleteBefore::Offset(offset) => DeleteRecordsPartition { partition, before: Some(offset) },
        DeleteBefore::HighWatermark => DeleteRecordsPartition { partition, before: None },
    };
    let topic = |(topic, partitions): (_, Vec<_>)| {
        let partitions = partitions.into_iter().map(partition).collect();
        DeleteRecordsTopic { topic, partitions }
    };
    DeleteRecordsRequest { topics: wanted.into_iter().map(topic).collect() }
}

fn answers(response: DeleteRecordsResponse) -> Answers<PartitionStart> {
    let deleted = response.topics.into_iter().flat_map(|topic| {
        let name = topic.topic;
        topic.partitions.into_iter().map(move |deleted| (name.clone(), deleted))
    });
    let answers = deleted.map(|(topic, deleted)| {
        let partition = deleted.partition;
        let start = match deleted.error {
            ErrorCode::None => Ok(PartitionStart { partition, log_start: deleted.log_start_offset }),
            code => Err(WireError { code, detail: deleted.detail }),
        };
        (topic, partition, start)
    });
    answers.collect()
}
