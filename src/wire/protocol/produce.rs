//! Produce: append record batches to partitions.

use bytes::{BufMut, BytesMut};

use super::message::request;
use super::{Message, SectionHead};
use crate::codec::{Codec, DecodeError, DecodeProblem, Reader, layout};
use crate::error::{Detail, ErrorCode};
use crate::numbers::{Offset, PartitionIndex, Timestamp};
use crate::topic_name::TopicName;

/// When a produce request is answered.
///
/// ```
/// use ringmq_wire::protocol::Acks;
///
/// assert_eq!(Acks::default(), Acks::All);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Acks {
    /// Never: the broker sends no response, whatever becomes of the records.
    None = 0,
    /// When the records are durable on the partition's leader.
    Leader = 1,
    /// When the records are durable on every in-sync replica.
    #[default]
    All = 2,
}

impl Codec for Acks {
    const BYTES_MIN: usize = 1;

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(*self as u8);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let before = reader.clone();
        match u8::decode(reader)? {
            0 => Ok(Self::None),
            1 => Ok(Self::Leader),
            2 => Ok(Self::All),
            value => Err(before.error("Acks", DecodeProblem::Value { value: value.into() })),
        }
    }
}

layout! {
    /// The head of a produce request. Behind it stand the partitions' sections in the order of the head, each one or
    /// more whole record batches.
    pub struct ProduceHead {
        /// When the broker answers.
        pub acks: Acks,
        /// How long the broker may wait for replicas, in milliseconds.
        pub timeout_ms: u32,
        /// What goes where.
        pub topics: Vec<ProduceTopic>,
    }

    /// The sections of one topic.
    pub struct ProduceTopic {
        /// The topic.
        pub topic: TopicName,
        /// Its partitions.
        pub partitions: Vec<ProducePartition>,
    }

    /// The section of one partition.
    pub struct ProducePartition {
        /// The partition.
        pub partition: PartitionIndex,
        /// The length of its section, in bytes.
        pub records_bytes: u32,
    }

    /// What became of a produce request, in the order of the request.
    pub struct ProduceResponse {
        /// One entry for each topic of the request.
        pub topics: Vec<ProducedTopic>,
    }

    /// What became of one topic's records.
    pub struct ProducedTopic {
        /// The topic.
        pub topic: TopicName,
        /// One entry for each partition of the request.
        pub partitions: Vec<ProducedPartition>,
    }

    /// What became of one partition's records. With an error the offsets mean nothing.
    pub struct ProducedPartition {
        /// The partition.
        pub partition: PartitionIndex,
        /// Why nothing was acknowledged, or [`ErrorCode::None`].
        pub error: ErrorCode,
        /// What the code cannot say.
        pub detail: Detail,
        /// The offset of the section's first record.
        pub base_offset: Offset,
        /// The offset after the section's last record.
        pub next_offset: Offset,
        /// The first offset that the partition still holds.
        pub log_start_offset: Offset,
        /// The time that the broker gave the records, where the topic asks for that.
        pub append_time: Option<Timestamp>,
    }
}

impl SectionHead for ProduceHead {
    /// Room for more than 100,000 partitions.
    const HEAD_BYTES_MAX: u32 = 1024 * 1024;

    fn section_bytes(&self) -> u64 {
        self.topics.iter().flat_map(|topic| &topic.partitions).map(|part| u64::from(part.records_bytes)).sum()
    }
}

impl Message for ProduceResponse {}
request!(ProduceHead is Produce, answered by ProduceResponse);
