//! ListOffsets: the earliest or latest offset of partitions, or the first at a time.

use bytes::{BufMut, BytesMut};

use super::Message;
use super::message::request;
use crate::codec::{Codec, DecodeError, DecodeProblem, Reader, layout};
use crate::error::{Detail, ErrorCode};
use crate::numbers::{Offset, PartitionIndex, Timestamp};
use crate::topic_name::TopicName;

/// Which offset is asked for. On the wire: a `u8` 0 (earliest), 1 (latest) or 2 (timestamp, which follows as `i64`).
///
/// ```
/// use ringmq_wire::Timestamp;
/// use ringmq_wire::protocol::OffsetSpec;
///
/// let since = OffsetSpec::Timestamp(Timestamp::new(1_763_820_000_000));
/// assert_ne!(since, OffsetSpec::Latest);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OffsetSpec {
    /// The first offset that the partition still holds.
    Earliest,
    /// The high watermark: one past the last record that consumers may see.
    Latest,
    /// The first record with this timestamp or a later one.
    Timestamp(Timestamp),
}

impl Codec for OffsetSpec {
    const BYTES_MIN: usize = 1;

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Earliest => out.put_u8(0),
            Self::Latest => out.put_u8(1),
            Self::Timestamp(at) => {
                out.put_u8(2);
                at.encode(out);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let before = reader.clone();
        match u8::decode(reader)? {
            0 => Ok(Self::Earliest),
            1 => Ok(Self::Latest),
            2 => Timestamp::decode(reader).map(Self::Timestamp),
            value => Err(before.error("OffsetSpec", DecodeProblem::Value { value: value.into() })),
        }
    }
}

layout! {
    /// Asks for one offset of each partition.
    pub struct ListOffsetsRequest {
        /// The topics.
        pub topics: Vec<ListOffsetsTopic>,
    }

    /// The partitions of one topic.
    pub struct ListOffsetsTopic {
        /// The topic.
        pub topic: TopicName,
        /// Its partitions.
        pub partitions: Vec<ListOffsetsPartition>,
    }

    /// One partition.
    pub struct ListOffsetsPartition {
        /// The partition.
        pub partition: PartitionIndex,
        /// Which of its offsets.
        pub at: OffsetSpec,
    }

    /// The offsets, in the order of the request.
    pub struct ListOffsetsResponse {
        /// One entry for each topic of the request.
        pub topics: Vec<ListedOffsetTopic>,
    }

    /// The offsets of one topic.
    pub struct ListedOffsetTopic {
        /// The topic.
        pub topic: TopicName,
        /// One entry for each partition of the request.
        pub partitions: Vec<ListedOffset>,
    }

    /// The offset of one partition.
    pub struct ListedOffset {
        /// The partition.
        pub partition: PartitionIndex,
        /// Why there is no answer, or [`ErrorCode::None`].
        pub error: ErrorCode,
        /// What the code cannot say.
        pub detail: Detail,
        /// The offset; `None` with an error, and when no record has the timestamp or a later one.
        pub offset: Option<Offset>,
        /// The timestamp of the record at the offset, when a timestamp was asked for.
        pub timestamp: Option<Timestamp>,
    }
}

impl Message for ListOffsetsRequest {}
impl Message for ListOffsetsResponse {}
request!(ListOffsetsRequest is ListOffsets, answered by ListOffsetsResponse);
