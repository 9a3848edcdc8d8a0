//! Metadata: where topics and partitions are.

use uuid::Uuid;

use super::Message;
use super::message::request;
use crate::codec::layout;
use crate::error::{Detail, ErrorCode};
use crate::numbers::{BrokerId, LeaderEpoch, PartitionIndex, ShardIndex, TopicId};
use crate::topic_name::TopicName;

layout! {
    /// Asks for brokers and topics.
    pub struct MetadataRequest {
        /// The topics wanted; `None` for all.
        pub topics: Option<Vec<TopicName>>,
    }

    /// The cluster as the broker knows it.
    pub struct MetadataResponse {
        /// The identity of the cluster.
        pub cluster_id: Uuid,
        /// The broker that is the controller.
        pub controller: BrokerId,
        /// Every broker.
        pub brokers: Vec<BrokerInfo>,
        /// The topics that were asked for, in that order; or all, by name.
        pub topics: Vec<TopicMetadata>,
    }

    /// How to reach a broker.
    pub struct BrokerInfo {
        /// The broker.
        pub id: BrokerId,
        /// Its host name or address, as clients reach it.
        pub host: String,
        /// Its public port.
        pub port: u16,
    }

    /// Where one topic is.
    pub struct TopicMetadata {
        /// Why nothing is known of it, or [`ErrorCode::None`].
        pub error: ErrorCode,
        /// What the code cannot say.
        pub detail: Detail,
        /// The topic.
        pub name: TopicName,
        /// Its identity; `None` when it does not exist.
        pub topic_id: Option<TopicId>,
        /// Its partitions, by index.
        pub partitions: Vec<PartitionMetadata>,
    }

    /// Where one partition is.
    ///
    /// ```
    /// use ringmq_wire::protocol::PartitionMetadata;
    ///
    /// fn is_whole(partition: &PartitionMetadata) -> bool {
    ///     partition.in_sync.len() == partition.replicas.len()
    /// }
    /// ```
    pub struct PartitionMetadata {
        /// The partition.
        pub partition: PartitionIndex,
        /// The broker that takes its produces and fetches.
        pub leader: BrokerId,
        /// How often it has had a new leader.
        pub leader_epoch: LeaderEpoch,
        /// The leader's shard that owns it.
        pub shard: ShardIndex,
        /// The port of that shard, which saves a hop between cores; `None` when only the public port can be used.
        pub shard_port: Option<u16>,
        /// The brokers that keep it.
        pub replicas: Vec<BrokerId>,
        /// Those that hold all that is acknowledged.
        pub in_sync: Vec<BrokerId>,
        /// Whether it can be neither written nor read, because its log is damaged or its disk failed; false as well
        /// when its shard could not be asked in time.
        pub offline: bool,
    }
}

impl Message for MetadataRequest {}
impl Message for MetadataResponse {}
request!(MetadataRequest is Metadata, answered by MetadataResponse);
