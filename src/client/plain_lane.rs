//! The way of producers without an identity to one partition: a few batches at a time, and none again that may be stored. They
//! go out in order; what has to be sent again goes when it can.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
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
                let (turn, ended) = oneshot::channel();
                let sending = send(self.cluster.clone(), self.queue.clone(), batch, turn);
                self.in_flight.spawn(async move {
                    sending.await;
                    unanswered.fetch_sub(records, Ordering::Relaxed);
                });
                // Tasks run in any order.
                let _: Result<(), _> = ended.await;
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
async fn send(cluster: Arc<Cluster>, queue: Arc<PartitionQueue>, batch: EncodedBatch, turn: oneshot::Sender<()>) {
    let EncodedBatch { batch, record_count, acks, promise, room } = batch;
    let retry = Retry::until("produce", promise.deadline(), promise.timeout(), 0);
    let mut retry = retry.attempts_within(cluster.options.timeout);
    let attempts = InTurn { promise, turn: Mutex::new(Some(turn)) };
    let sent = produce::until_open(&cluster, &queue.topic, queue.partition, (batch, acks), &mut retry, &attempts).await;
    drop(room);
    attempts.promise.complete(sent.and_then(|stored| produce::offsets_of(record_count, stored)));
}

/// Attempts of which the first one ends a turn, whatever comes of it.
struct InTurn {
    promise: Promise,
    /// Dropped once the next batch may go.
    turn: Mutex<Option<oneshot::Sender<()>>>,
}

impl InTurn {
    fn end_turn(&self) {
        drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Attempts for InTurn {
    fn begin(&self) -> bool {
        self.promise.begin_attempt()
    }

    fn placed(&self) {
        self.end_turn();
    }

    fn not_stored(&self, failure: &Error) {
        self.end_turn();
        self.promise.note(false, Some(failure));
    }
}
