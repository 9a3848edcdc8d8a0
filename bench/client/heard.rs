//! What a client has heard of the records that were handed to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hdrhistogram::CreationError;
use ringmq_client::PartitionIndex;

use crate::latency::Latencies;

#[derive(Debug)]
pub(crate) struct Heard {
    latencies: Mutex<Latencies>,
    /// By partition.
    acknowledged: Vec<AtomicU64>,
}

impl Heard {
    pub(crate) fn new(partitions: u32) -> Result<Self, CreationError> {
        let acknowledged = (0..partitions).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { latencies: Mutex::new(Latencies::new()?), acknowledged })
    }

    /// A record whose time began then is acknowledged. What is given up is told by [`Sender::flush`](super::Sender::flush).
    pub(crate) fn of(&self, started: Instant, partition: PartitionIndex) {
        lock(&self.latencies).record(started.elapsed());
        if let Some(records) = self.acknowledged.get(partition.as_usize()) {
            records.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many timed records of each partition are acknowledged so far.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = (PartitionIndex, u64)> {
        let records = self.acknowledged.iter().map(|records| records.load(Ordering::Relaxed));
        (0..).map(PartitionIndex::new).zip(records)
    }

    /// Of timed records since [`Heard::forget_latencies`].
    pub(crate) fn latencies(&self) -> Latencies {
        lock(&self.latencies).clone()
    }

    pub(crate) fn forget_latencies(&self) -> Result<(), CreationError> {
        *lock(&self.latencies) = Latencies::new()?;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
