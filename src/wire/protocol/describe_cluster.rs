//! DescribeCluster: everything about brokers and shards.

use uuid::Uuid;

use super::Message;
use super::message::request;
use crate::codec::layout;
use crate::numbers::{BrokerId, ShardIndex};

layout! {
    /// Asks for the cluster. Its body is empty.
    pub struct DescribeClusterRequest {}

    /// The cluster.
    ///
    /// ```
    /// use ringmq_wire::protocol::DescribeClusterResponse;
    ///
    /// fn controller_host(cluster: &DescribeClusterResponse) -> Option<&str> {
    ///     let controller = cluster.brokers.iter().find(|broker| broker.id == cluster.controller)?;
    ///     Some(&controller.host)
    /// }
    /// ```
    pub struct DescribeClusterResponse {
        /// Its identity.
        pub cluster_id: Uuid,
        /// The broker that is the controller.
        pub controller: BrokerId,
        /// Every broker.
        pub brokers: Vec<DescribedBroker>,
    }

    /// One broker.
    ///
    /// ```
    /// use ringmq_wire::protocol::DescribedBroker;
    ///
    /// fn line(broker: &DescribedBroker) -> String {
    ///     format!("broker {} at {}:{}, {}", broker.id, broker.host, broker.port, broker.version)
    /// }
    /// ```
    pub struct DescribedBroker {
        /// The broker.
        pub id: BrokerId,
        /// Its host name or address, as clients reach it.
        pub host: String,
        /// Its public port.
        pub port: u16,
        /// The version of its software.
        pub version: String,
        /// Its shards, by index.
        pub shards: Vec<DescribedShard>,
    }

    /// One shard.
    ///
    /// ```
    /// use ringmq_wire::protocol::DescribedShard;
    ///
    /// fn partitions(shards: &[DescribedShard]) -> u32 {
    ///     shards.iter().map(|shard| shard.partitions).sum()
    /// }
    /// ```
    pub struct DescribedShard {
        /// The shard.
        pub shard: ShardIndex,
        /// The CPU that it is pinned to; `None` when it is not pinned.
        pub cpu: Option<u32>,
        /// Its own port; `None` when it has only the public one.
        pub port: Option<u16>,
        /// How many partitions it owns.
        pub partitions: u32,
    }
}

impl Message for DescribeClusterRequest {}
impl Message for DescribeClusterResponse {}
request!(DescribeClusterRequest is DescribeCluster, answered by DescribeClusterResponse);
