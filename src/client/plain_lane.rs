//! The way of producers without an identity to one partition: a few batches at a time, and none again that may be stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::accumulator::{EncodedBatch, PartitionQueue, Promise};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::lane::IN_FLIGHT_MAX;
use crate::produce::{self, Attempts};
use crate::retry::Retry;

/// Sends what one queue has.
pub(crate) struct PlainLane {
    cluster: Arc<Cluster>,
    queue: Arc<PartitionQueue>,
    in_flight: JoinSet<()>,
    /// Counts the records in flight.
    unanswered: Arc<AtomicU64>,
}

impl PlainLane {
    pub(crate) fn new(cluster: Arc<Cluster>, queue: Arc<PartitionQueue>) -> Self {
        Self { cluster, queue, in_flight: JoinSet::new(), unanswered: Arc::default() }
    }

    /// Sends what comes, until nobody can send any more and everything is answered or given up.
    pub(crate) async fn run(mut self) {
        let queue = self.queue.clone();
        queue.served_by(self.send_until_retired()).await;
    }

    async fn send_until_retired(&mut self) {
        loop {
            while self.in_flight.len() < IN_FLIGHT_MAX
                && let Some(batch) = self.queue.take(self.in_flight.is_empty())
            {
                let (records, unanswered) = (u64::from(batch.record_count), self.unanswered.clone());
                unanswered.fetch_add(records, Ordering::Relaxed);
                let sending = send(self.cluster.clone(), self.queue.clone(), batch);
                self.in_flight.spawn(async move {
                    sending.await;
                    unanswered.fetch_sub(records, Ordering::Relaxed);
                });
            }
            if self.in_flight.is_empty() {
                self.queue.rest();
                if !self.queue.filled(true).await {
                    return;
                }
                continue;
            }
            let has_room = self.in_flight.len() < IN_FLIGHT_MAX;
            tokio::select! {
                // What became of it, it has told itself.
                _ = self.in_flight.join_next() => {}
                true = self.queue.filled(false), if has_room => {}
            }
        }
    }
}

impl Drop for PlainLane {
    /// Its runtime ends, unless there is nothing left.
    fn drop(&mut self) {
        self.queue.abandon(self.unanswered.load(Ordering::Relaxed));
    }
}

/// Sends one batch. Its time may be up before: who waits for it is told so by the queue.
async fn send(cluster: Arc<Cluster>, queue: Arc<PartitionQueue>, batch: EncodedBatch) {
    let EncodedBatch { batch, record_count, acks, promise, room } = batch;
    let retry = Retry::until("produce", promise.deadline(), promise.timeout(), 0);
    let mut retry = retry.attempts_within(cluster.options.timeout);
    let sent = produce::until_open(&cluster, &queue.topic, queue.partition, (batch, acks), &mut retry, &promise).await;
    drop(room);
    promise.complete(sent.and_then(|stored| produce::offsets_of(record_count, stored)));
}

impl Attempts for Promise {
    fn begin(&self) -> bool {
        self.begin_attempt()
    }

    fn not_stored(&self, failure: &Error) {
        self.note(false, Some(failure));
    }
}
