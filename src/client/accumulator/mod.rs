//! Where records gather before they are sent, and what is kept of them until they are answered.
//!
//! All producers of a client put their records into one [`Accumulator`]: it has a [`PartitionQueue`] for each partition
//! that is written to, and one bound in bytes on everything that is gathered or in flight. A queue has one open batch, which
//! takes records, and behind it those that take no more. Each batch has a [`Completion`]: whoever waits for one of its
//! records waits for that, and each producer's [`Account`] is settled by it.
//!
//! **When a batch goes.** A *lane* (`lane.rs`, `plain_lane.rs`) takes batches out of a queue and sends them. While nothing
//! is in flight to the partition it takes the open batch at once, be there one record in it: an idle producer waits for
//! nothing. While something is in flight records gather, until that is answered, the batch is full, or its linger is over.
//! So the batches of a busy partition grow by themselves to what comes in within one round trip (the rule of Nagle, RFC
//! 896, with the bounds that Kafka's `batch.size` and `linger.ms` set).
//!
//! **When a batch is given up.** Each queue watches the delivery time-outs of its batches, wherever those are. What has
//! not been sent goes out of the queue then; what has been sent stays in its lane as long as others stand behind it.

mod account;
mod completion;
mod queue;
mod queues;
mod sticky;
#[cfg(test)]
mod tests;

pub(crate) use account::OpenAccount;
pub use completion::PendingDelivery;
pub(crate) use completion::{OnDelivery, Promise};
pub(crate) use queue::{BatchSettings, EncodedBatch, Parcel, PartitionQueue, Sender, size_bound};
pub(crate) use queues::{Accumulator, StartLane, Target};
