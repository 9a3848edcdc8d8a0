//! Fetch: read record batches from partitions.

use super::message::request;
use super::{Message, SectionHead};
use crate::codec::layout;
use crate::error::{Detail, ErrorCode};
use crate::numbers::{Offset, PartitionIndex};
use crate::topic_name::TopicName;

layout! {
    /// Asks for records from given offsets on. The broker answers as soon as it has `min_bytes`, or for one partition
    /// more than the answer may carry; after `max_wait_ms` with what it has; and at once if any partition has an error.
    /// Where more fetches wait than it has room for, it answers those that wait with what it has.
    pub struct FetchRequest {
        /// How long the broker may wait for `min_bytes`, in milliseconds; 0 answers at once.
        pub max_wait_ms: u32,
        /// How many bytes of batches make an answer worth its while.
        pub min_bytes: u32,
        /// About how many bytes of batches the answer may carry. Every shard of the broker that is asked for some sends
        /// its first batch even if it is larger, so an answer can exceed this by a batch a shard.
        pub max_bytes: u32,
        /// What is wanted, in the order in which it is served.
        pub topics: Vec<FetchTopic>,
    }

    /// What is wanted of one topic.
    pub struct FetchTopic {
        /// The topic.
        pub topic: TopicName,
        /// Its partitions.
        pub partitions: Vec<FetchPartition>,
    }

    /// What is wanted of one partition.
    pub struct FetchPartition {
        /// The partition.
        pub partition: PartitionIndex,
        /// The first offset wanted.
        pub fetch_offset: Offset,
        /// About how many bytes of batches the answer may carry for this partition.
        pub partition_max_bytes: u32,
    }

    /// The head of a fetch response. Behind it stand the partitions' sections in the order of the head, each none or
    /// more whole record batches as they are stored. The first batch may start before the offset that was asked for;
    /// the client skips those records.
    pub struct FetchResponseHead {
        /// One entry for each topic of the request.
        pub topics: Vec<FetchedTopic>,
    }

    /// What was read of one topic.
    pub struct FetchedTopic {
        /// The topic.
        pub topic: TopicName,
        /// One entry for each partition of the request.
        pub partitions: Vec<FetchedPartition>,
    }

    /// What was read of one partition. With an error its section is empty.
    pub struct FetchedPartition {
        /// The partition.
        pub partition: PartitionIndex,
        /// Why nothing was read, or [`ErrorCode::None`].
        pub error: ErrorCode,
        /// What the code cannot say.
        pub detail: Detail,
        /// The first offset that the partition still holds.
        pub log_start_offset: Offset,
        /// The end of what consumers may see: the offset after the last record that is durable on every in-sync
        /// replica.
        pub high_watermark: Offset,
        /// The length of its section, in bytes; 0 when there is nothing to read yet.
        pub records_bytes: u32,
    }
}

impl SectionHead for FetchResponseHead {
    /// Room for an error of 1 KiB on each of more than 30,000 partitions.
    const HEAD_BYTES_MAX: u32 = 32 * 1024 * 1024;

    fn section_bytes(&self) -> u64 {
        self.topics.iter().flat_map(|topic| &topic.partitions).map(|part| u64::from(part.records_bytes)).sum()
    }
}

impl Message for FetchRequest {}
request!(FetchRequest is Fetch, answered by FetchResponseHead);
