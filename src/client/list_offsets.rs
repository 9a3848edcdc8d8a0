//! Asking for the earliest and latest offsets, and for the first at a time.

use std::collections::HashMap;

use ringmq_wire::protocol::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, ListedOffset, OffsetSpec};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, Timestamp, TopicName, WireError};
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
    let mut listed: HashMap<PartitionIndex, Result<PartitionOffset, Error>> = HashMap::new();
    loop {
        let mut open: Vec<_> = partitions.iter().copied().filter(|partition| !listed.contains_key(partition)).collect();
        // The broker refuses a request that names one twice.
        open.sort_unstable();
        open.dedup();
        let error = match try_list_offsets(cluster, topic, &open, at, retry).await {
            Ok(answers) => {
                let (passing, lasting): (Vec<_>, Vec<_>) =
                    answers.into_iter().partition(|(_, answer)| answer.as_ref().is_err_and(Error::is_retriable));
                listed.extend(lasting);
                match passing.into_iter().find_map(|(_, answer)| answer.err()) {
                    Some(error) => error,
                    None => break,
                }
            }
            Err(error) => error,
        };
        cluster.doubt(topic, &error);
        retry.pause_after(error).await?;
    }
    let outcome = |partition: &PartitionIndex| match listed.get(partition) {
        Some(Ok(found)) => Ok(*found),
        _ => listed.remove(partition).unwrap_or_else(|| {
            Err(Error::Nonsense(format!("offsets of topic `{topic}` came without partition {partition}")))
        }),
    };
    Ok(partitions.iter().map(outcome).collect())
}

async fn try_list_offsets(
    cluster: &Cluster,
    topic: &str,
    partitions: &[PartitionIndex],
    at: OffsetSpec,
    retry: &mut Retry,
) -> Result<Vec<(PartitionIndex, Result<PartitionOffset, Error>)>, Error> {
    let mut groups: HashMap<BrokerAddress, (Connection, Vec<PartitionIndex>)> = HashMap::new();
    for &partition in partitions {
        let route = cluster.route_to(topic, partition, retry).await?;
        let (address, connection) = cluster.owner(&route, partition, retry.attempt_deadline()).await?;
        groups.entry(address).or_insert_with(|| (connection, Vec::new())).1.push(partition);
    }
    let name = cluster.route(topic, retry).await?.topic.clone();
    let mut answers = Vec::with_capacity(partitions.len());
    for (address, (connection, group)) in groups {
        answers.extend(request(&connection, &address, &name, &group, at, retry.attempt_deadline()).await?);
    }
    Ok(answers)
}

async fn request(
    connection: &Connection,
    address: &BrokerAddress,
    topic: &TopicName,
    partitions: &[PartitionIndex],
    at: OffsetSpec,
    deadline: Instant,
) -> Result<Vec<(PartitionIndex, Result<PartitionOffset, Error>)>, Error> {
    let partitions = partitions.iter().map(|&partition| ListOffsetsPartition { partition, at }).collect();
    let request = ListOffsetsRequest { topics: vec![ListOffsetsTopic { topic: topic.clone(), partitions }] };
    let answer = connection.call(&request, deadline).await;
    let answer = answer.map_err(|error| Error::of_request("list offsets", address, error))?;
    let outcome = |found: ListedOffset| {
        let ListedOffset { partition, error: code, detail, offset, timestamp } = found;
        let offset = match code {
            ErrorCode::None => Ok(PartitionOffset { partition, offset, timestamp }),
            code => Err(Error::about_partition(topic, partition, WireError { code, detail })),
        };
        (partition, offset)
    };
    Ok(answer.topics.into_iter().flat_map(|topic| topic.partitions).map(outcome).collect())
}
