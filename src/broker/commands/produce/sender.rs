//! Sends batches of many partitions at the same time, and those of one partition one after the other.
//!
//! One batch in flight a partition keeps its order even when the client sends a batch again, and costs nothing: the
//! next batch is built meanwhile, and other partitions have their own in flight.

use std::collections::{BTreeMap, VecDeque};

use ringmq_client::{Deliveries, Error, Producer};
use ringmq_wire::PartitionIndex;
use ringmq_wire::protocol::Acks;
use tokio::task::JoinSet;

use super::batcher::ReadyBatch;

/// Bytes of batches that wait or are in flight; the input is not read while over.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// What became of one batch.
#[derive(Debug)]
pub(super) struct Sent {
    /// Its partition.
    pub partition: PartitionIndex,
    /// How many records it had.
    pub records: u32,
    /// Bytes of input that it stands for.
    pub input_bytes: u64,
    /// The lines that its first and its last record came from.
    pub lines: (u64, u64),
    /// Where its records are, or why they are not (or may be) there.
    pub outcome: Result<Deliveries, Error>,
}

/// The batches on their way.
#[derive(Debug)]
pub(super) struct Sender {
    producer: Producer,
    topic: String,
    /// Batches that wait for the one before them; a partition is here while it has one in flight.
    waiting: BTreeMap<PartitionIndex, VecDeque<ReadyBatch>>,
    in_flight: JoinSet<(Sent, usize)>,
    bytes: usize,
    cancelled: bool,
}

impl Sender {
    /// A sender for one topic.
    pub(super) fn new(producer: Producer, topic: String) -> Self {
        Self { producer, topic, waiting: BTreeMap::new(), in_flight: JoinSet::new(), bytes: 0, cancelled: false }
    }

    /// Whether more input should be read.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < WAITING_BYTES_MAX
    }

    /// Whether every batch has been answered or cancelled.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Sends a batch once those of its partition before it are acknowledged.
    pub(super) fn send(&mut self, batch: ReadyBatch) {
        if self.cancelled {
            return;
        }
        self.bytes += batch.bytes.len();
        match self.waiting.get_mut(&batch.partition) {
            Some(queue) => queue.push_back(batch),
            None => {
                self.waiting.insert(batch.partition, VecDeque::new());
                self.start(batch);
            }
        }
    }

    /// Sends nothing more; what is in flight is still answered.
    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
        for queue in self.waiting.values_mut() {
            self.bytes -= queue.drain(..).map(|batch| batch.bytes.len()).sum::<usize>();
        }
    }

    /// The outcome of the next batch that is answered; `None` when there is none in flight.
    pub(super) async fn next(&mut self) -> Option<Sent> {
        let (sent, bytes) = loop {
            match self.in_flight.join_next().await? {
                Ok(answered) => break answered,
                // Tasks are never aborted; one that panicked has ended the process already in a release build.
                Err(_) => continue,
            }
        };
        self.bytes -= bytes;
        if sent.outcome.is_err() {
            self.cancel();
        }
        match self.waiting.get_mut(&sent.partition).and_then(VecDeque::pop_front) {
            Some(batch) => self.start(batch),
            None => drop(self.waiting.remove(&sent.partition)),
        }
        Some(sent)
    }

    fn start(&mut self, batch: ReadyBatch) {
        let (producer, topic) = (self.producer.clone(), self.topic.clone());
        self.in_flight.spawn(async move {
            let ReadyBatch { partition, bytes, records, input_bytes, lines } = batch;
            let length = bytes.len();
            let outcome = producer.send_encoded(&topic, partition, bytes, Acks::All).await;
            let outcome = outcome.and_then(|delivered| {
                delivered.ok_or_else(|| Error::Nonsense("a produce request was answered without offsets".to_owned()))
            });
            (Sent { partition, records, input_bytes, lines, outcome }, length)
        });
    }
}
