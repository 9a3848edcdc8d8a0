//! Sending so that nothing is stored twice: one lane for each partition, each with an identity of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ringmq_wire::PartitionIndex;
use tokio::sync::mpsc;

use crate::cluster::Cluster;
use crate::lane::{self, Outgoing};

/// Batches that may wait in front of a lane; further senders wait.
const WAITING_MAX: usize = 64;
/// Lanes that are kept before those that have nothing to send are let go.
const LANES_MAX: usize = 4_096;

type Lanes = HashMap<(String, PartitionIndex), mpsc::Sender<Outgoing>>;

/// What the clones of an idempotent producer share.
#[derive(Debug, Default)]
pub(crate) struct Idempotence {
    lanes: Mutex<Lanes>,
}

impl Idempotence {
    /// The way to a partition. Its task ends when it has sent what it has and no producer is left.
    pub(crate) fn lane(
        &self,
        cluster: &Arc<Cluster>,
        topic: &str,
        partition: PartitionIndex,
    ) -> mpsc::Sender<Outgoing> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (topic.to_owned(), partition);
        if let Some(lane) = lanes.get(&key).filter(|lane| !lane.is_closed()) {
            return lane.clone();
        }
        if lanes.len() >= LANES_MAX {
            // Should one be wanted again, it begins anew, as somebody else.
            lanes.retain(|_, lane| lane.capacity() < lane.max_capacity());
        }
        let (lane, outgoing) = mpsc::channel(WAITING_MAX);
        tokio::spawn(lane::run(cluster.clone(), topic.to_owned(), partition, outgoing));
        lanes.insert(key, lane.clone());
        lane
    }
}
