//! DeleteRecords: delete the oldest records of partitions, up to an offset.

use super::Message;
use super::message::request;
use crate::codec::layout;
use crate::error::{Detail, ErrorCode};
use crate::numbers::{Offset, PartitionIndex};
use crate::topic_name::TopicName;

layout! {
    /// Asks for records to be deleted. Each partition succeeds or fails on its own. What is deleted already is no error, so
    /// the request may be sent again.
    pub struct DeleteRecordsRequest {
        /// The topics.
        pub topics: Vec<DeleteRecordsTopic>,
    }

    /// The partitions of one topic.
    pub struct DeleteRecordsTopic {
        /// The topic.
        pub topic: TopicName,
        /// Its partitions.
        pub partitions: Vec<DeleteRecordsPartition>,
    }

    /// One partition.
    pub struct DeleteRecordsPartition {
        /// The partition.
        pub partition: PartitionIndex,
        /// Below which offset records are deleted; `None` for the high watermark: everything that consumers may see.
        pub before: Option<Offset>,
    }

    /// What became of the partitions, in the order of the request.
    pub struct DeleteRecordsResponse {
        /// One entry for each topic of the request.
        pub topics: Vec<DeletedRecordsTopic>,
    }

    /// What became of one topic's partitions.
    pub struct DeletedRecordsTopic {
        /// The topic.
        pub topic: TopicName,
        /// One entry for each partition of the request.
        pub partitions: Vec<DeletedRecords>,
    }

    /// What became of one partition.
    pub struct DeletedRecords {
        /// The partition.
        pub partition: PartitionIndex,
        /// Why nothing is known to be deleted, or [`ErrorCode::None`].
        pub error: ErrorCode,
        /// What the code cannot say.
        pub detail: Detail,
        /// The first offset that the partition still holds.
        pub log_start_offset: Offset,
    }
}

impl Message for DeleteRecordsRequest {}
impl Message for DeleteRecordsResponse {}
request!(DeleteRecordsRequest is DeleteRecords, answered by DeleteRecordsResponse);
