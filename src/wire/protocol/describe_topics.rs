//! DescribeTopics: everything about some topics.

use super::message::request;
use super::{Message, PartitionMetadata};
use crate::codec::layout;
use crate::error::{Detail, ErrorCode};
use crate::numbers::{Offset, TopicId};

layout! {
    /// Asks for topics.
    pub struct DescribeTopicsRequest {
        /// Their names, as plain text so that a bad one gets an error of its own.
        pub topics: Vec<String>,
    }

    /// The topics, in the order of the request.
    pub struct DescribeTopicsResponse {
        /// One entry for each topic of the request.
        pub topics: Vec<DescribedTopic>,
    }

    /// Everything about one topic.
    pub struct DescribedTopic {
        /// The name that was asked for.
        pub name: String,
        /// Why nothing is known of it, or [`ErrorCode::None`].
        pub error: ErrorCode,
        /// What the code cannot say.
        pub detail: Detail,
        /// Its identity; `None` when it does not exist.
        pub topic_id: Option<TopicId>,
        /// All its settings, by key.
        pub settings: Vec<DescribedSetting>,
        /// Its partitions, by index.
        pub partitions: Vec<DescribedPartition>,
    }

    /// One setting, as it holds.
    ///
    /// ```
    /// use ringmq_wire::protocol::DescribedSetting;
    ///
    /// fn own(settings: &[DescribedSetting]) -> Vec<&str> {
    ///     settings.iter().filter(|setting| !setting.is_default).map(|setting| setting.key.as_str()).collect()
    /// }
    /// ```
    pub struct DescribedSetting {
        /// Its name.
        pub key: String,
        /// Its value.
        pub value: String,
        /// Whether the value is the broker's default rather than the topic's own.
        pub is_default: bool,
    }

    /// Where one partition is, and what it holds.
    ///
    /// ```
    /// use ringmq_wire::protocol::DescribedPartition;
    ///
    /// fn records_at_most(partition: &DescribedPartition) -> i64 {
    ///     partition.log_end_offset.get() - partition.log_start_offset.get()
    /// }
    /// ```
    pub struct DescribedPartition {
        /// Where it is.
        pub metadata: PartitionMetadata,
        /// The first offset that it still holds.
        pub log_start_offset: Offset,
        /// The next offset to be assigned.
        pub log_end_offset: Offset,
        /// What it takes up on the leader's disk, in bytes.
        pub size_bytes: u64,
    }
}

impl Message for DescribeTopicsRequest {}
impl Message for DescribeTopicsResponse {}
request!(DescribeTopicsRequest is DescribeTopics, answered by DescribeTopicsResponse);
