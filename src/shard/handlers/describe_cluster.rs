//! DescribeCluster: brokers and their shards.

use std::rc::Rc;

use ringmq_wire::WireError;
use ringmq_wire::protocol::{DescribeClusterRequest, DescribeClusterResponse, DescribedBroker, DescribedShard};

use crate::session::Session;

/// Answers from this shard's copy of the metadata and what the broker told it of the other shards.
///
/// # Errors
/// While the broker starts.
pub(crate) async fn handle(
    session: Rc<Session>,
    _: DescribeClusterRequest,
) -> Result<DescribeClusterResponse, WireError> {
    let shard = &session.shard;
    let image = shard.directory.borrow().image()?;
    let (roster, directory) = (&session.endpoints.roster, shard.directory.borrow());
    let owned = directory.partitions_by_shard();
    let shards = roster.shards.iter().zip(owned).map(|(member, &partitions)| DescribedShard {
        shard: member.shard,
        cpu: member.cpu,
        port: Some(member.port),
        partitions,
    });
    let address = session.advertised();
    let broker = DescribedBroker {
        id: shard.config.broker,
        host: address.host,
        port: address.port,
        version: shard.config.version.clone(),
        shards: shards.collect(),
    };
    Ok(DescribeClusterResponse {
        cluster_id: image.cluster_id(),
        controller: image.controller(),
        brokers: vec![broker],
    })
}
