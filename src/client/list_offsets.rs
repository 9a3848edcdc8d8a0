//! Asking for the earliest and latest offsets, and for the first at a time.

use std::collections::HashMap;

use ringmq_wire::protocol::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, OffsetSpec};
use ringmq_wire::{Offset, PartitionIndex, Timestamp, TopicName, WireError};
use tokio::time::Instant;

use crate::address::BrokerAddress;
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::Error;
use crate::retry::Retry;

/// An offset of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset; `None` when no record has the timestamp that was asked for or a later one.
    pub offset: Option<Offset>,
    /// The timestamp of the record at the offset, when a timestamp was asked for.
    pub timestamp: Option<Timestamp>,
}

/// The offset of each of `partitions`, in their order, asked for until every one has answered or the time is up.
pub(crate) async fn list_offsets(
    cluster: &Cluster,
    topic: &str,
    partitions: &[PartitionIndex],
    at: OffsetSpec,
    retry: &mut Retry,
) -> Result<Vec<PartitionOffset>, Error> {
    loop {
        match try_list_offsets(cluster, topic, partitions, at, retry).await {
            Ok(listed) => return Ok(listed),
            Err(error) => {
                cluster.doubt(topic, &error);
                retry.pause_after(error).await?;
            }
        }
    }
}

async fn try_list_offsets(
    cluster: &Cluster,
    topic: &str,
    partitions: &[PartitionIndex],
    at: OffsetSpec,
    retry: &mut Retry,
) -> Result<Vec<PartitionOffset>, Error> {
    let mut groups: HashMap<BrokerAddress, (Connection, Vec<PartitionIndex>)> = HashMap::new();
    for &partition in partitions {
        let route = cluster.route_to(topic, partition, retry).await?;
        let (address, connection) = cluster.owner(&route, partition, retry.attempt_deadline()).await?;
        groups.entry(address).or_insert_with(|| (connection, Vec::new())).1.push(partition);
    }
    let name = cluster.route(topic, retry).await?.topic.clone();
    let mut listed: HashMap<PartitionIndex, PartitionOffset> = HashMap::new();
    for (address, (connection, group)) in groups {
        let found = request(&connection, &address, &name, &group, at, retry.attempt_deadline()).await?;
        listed.extend(found.into_iter().map(|found| (found.partition, found)));
    }
    let found = |partition: &PartitionIndex| {
        let missing = || Error::Nonsense(format!("offsets of topic `{topic}` came without partition {partition}"));
        listed.get(partition).copied().ok_or_else(missing)
    };
    partitions.iter().map(found).collect()
}

async fn request(
    connection: &Connection,
    address: &BrokerAddress,
    topic: &TopicName,
    partitions: &[PartitionIndex],
    at: OffsetSpec,
    deadline: Instant,
) -> Result<Vec<PartitionOffset>, Error> {
    let partitions = partitions.iter().map(|&partition| ListOffsetsPartition { partition, at }).collect();
    let request = ListOffsetsRequest { topics: vec![ListOffsetsTopic { topic: topic.clone(), partitions }] };
    let answer = connection.call(&request, deadline).await;
    let answer = answer.map_err(|error| Error::of_request("list offsets", address, error))?;
    let mut listed = Vec::new();
    for found in answer.topics.into_iter().flat_map(|topic| topic.partitions) {
        if !found.error.is_none() {
            let source = WireError { code: found.error, detail: found.detail };
            return Err(Error::about_partition(topic, found.partition, source));
        }
        listed.push(PartitionOffset { partition: found.partition, offset: found.offset, timestamp: found.timestamp });
    }
    Ok(listed)
}
