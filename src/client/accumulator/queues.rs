//! The queues of all partitions, a lane for each, and the bound on what they hold: the door of the accumulator.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ringmq_wire::PartitionIndex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout_at};

use super::account::Account;
use super::completion::{Completion, PendingBatch, PendingDelivery};
use super::queue::{Parcel, PartitionQueue, Refused, Sender};
use super::sticky::Sticky;
use crate::error::Error;

/// Lanes that are kept before those that have nothing to send are let go.
const LANES_MAX: usize = 4_096;

/// Where a record goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// To this partition.
    Partition(PartitionIndex),
    /// To whichever suits, of so many.
    AnyOf(u32),
}

/// Starts what empties a queue, giving its batches an identity or not; in whichever thread a record is handed over.
pub(crate) type StartLane = Box<dyn Fn(Arc<PartitionQueue>, bool) + Send + Sync>;

/// What the producers of a client share. It ends with the last of them; what it holds is sent all the same.
pub(crate) struct Accumulator {
    start_lane: StartLane,
    bytes_max: u32,
    room: Arc<Semaphore>,
    topics: Mutex<Topics>,
}

#[derive(Debug, Default)]
struct Topics {
    by_name: HashMap<Arc<str>, Topic>,
    lanes: usize,
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    /// By partition, and by whether batches have an identity.
    queues: HashMap<(PartitionIndex, bool), Arc<PartitionQueue>>,
    sticky: Sticky,
}

impl Accumulator {
    /// For the producers of one client, which may hold so many bytes.
    pub(crate) fn new(bytes_max: u32, start_lane: StartLane) -> Self {
        let room = Arc::new(Semaphore::new((bytes_max as usize).min(Semaphore::MAX_PERMITS)));
        Self { start_lane, bytes_max, room, topics: Mutex::default() }
    }

    /// Waits for room for so many bytes. Whoever waits longest gets it first.
    ///
    /// # Errors
    /// [`Error::TimedOut`] with [`Error::Full`]; [`Error::Argument`] when it never has that much.
    pub(crate) async fn room(&self, bytes: usize, deadline: Instant) -> Result<OwnedSemaphorePermit, Error> {
        let permits = self.permits(bytes)?;
        // Who waits already comes first: then there is none to be had at once.
        if let Ok(room) = self.room.clone().try_acquire_many_owned(permits) {
            return Ok(room);
        }
        let started = Instant::now();
        match timeout_at(deadline, self.room.clone().acquire_many_owned(permits)).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(Error::runtime_ended()),
            Err(_) => {
                let (timeout, last) = (started.elapsed(), Some(Box::new(self.full())));
                Err(Error::TimedOut { operation: "waiting for room", timeout, last })
            }
        }
    }

    /// Room for so many bytes if there is any now.
    ///
    /// # Errors
    /// [`Error::Full`]; [`Error::Argument`] when it never has that much.
    pub(crate) fn try_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        self.room.clone().try_acquire_many_owned(self.permits(bytes)?).map_err(|error| match error {
            TryAcquireError::NoPermits => self.full(),
            TryAcquireError::Closed => Error::runtime_ended(),
        })
    }

    fn full(&self) -> Error {
        Error::Full { bytes_max: self.bytes_max }
    }

    fn permits(&self, bytes: usize) -> Result<u32, Error> {
        let bytes_max = self.bytes_max;
        let fits = u32::try_from(bytes).ok().filter(|bytes| *bytes <= bytes_max);
        fits.ok_or_else(|| {
            let advice = "send less at once or raise producer_bytes_max";
            Error::Argument(format!(
                "{bytes} bytes of records are more than the {bytes_max} that producers may hold; {advice}"
            ))
        })
    }

    /// Puts a record of so many bytes into its partition's queue.
    pub(crate) fn append(
        &self,
        topic: &str,
        target: Target,
        has_identity: bool,
        parcel: Parcel,
        bytes: usize,
    ) -> Result<PendingDelivery, Error> {
        let batch_bytes_max = parcel.sender.settings.batch_bytes_max;
        let queue = self.queue(topic, has_identity, None, |topic| match target {
            Target::Partition(partition) => partition,
            Target::AnyOf(count) => topic.choose(count, bytes, batch_bytes_max, has_identity),
        });
        self.put(&queue, has_identity, parcel, PartitionQueue::append)
    }

    /// Puts a whole batch into its partition's queue.
    pub(crate) fn append_batch(
        &self,
        topic: &str,
        partition: PartitionIndex,
        has_identity: bool,
        (batch, record_count): (Bytes, u32),
        sender: Sender,
    ) -> Result<PendingBatch, Error> {
        let append = |queue: &PartitionQueue, sender| queue.append_batch(batch.clone(), record_count, sender);
        self.put(&self.queue(topic, has_identity, None, |_| partition), has_identity, sender, append)
    }

    /// Puts something into a queue, or into the one that comes after it: a lane that has nothing to do may just be let go.
    /// The second one is so only with the runtime.
    fn put<T, P>(
        &self,
        queue: &Arc<PartitionQueue>,
        has_identity: bool,
        what: T,
        append: impl Fn(&PartitionQueue, T) -> Result<P, Refused<T>>,
    ) -> Result<P, Error> {
        let put = match append(queue, what) {
            Err(Refused::Retired(what)) => {
                append(&self.queue(&queue.topic, has_identity, Some(queue), |_| queue.partition), *what)
            }
            put => put,
        };
        put.map_err(|refused| match refused {
            Refused::Retired(_) => Error::runtime_ended(),
            Refused::ForGood(error, what) => {
                drop(what);
                error
            }
        })
    }

    /// Sends what has been gathered for a producer, and waits until everything it has handed over is answered.
    pub(crate) async fn flush(&self, account: &Arc<Account>) {
        let queues: Vec<Arc<PartitionQueue>> = {
            let topics = self.topics();
            topics.by_name.values().flat_map(|topic| topic.queues.values().cloned()).collect()
        };
        // All of them begin before any is waited for.
        let unanswered: Vec<Arc<Completion>> = queues.iter().flat_map(|queue| queue.flush(account)).collect();
        for batch in unanswered {
            // What failed is in the account.
            let _ = pin!(PendingBatch::new(batch)).await;
        }
    }

    /// The queue of the partition that is chosen, other than `retired`. Its lane ends when it has sent what there is and no
    /// producer is left.
    fn queue(
        &self,
        topic: &str,
        has_identity: bool,
        retired: Option<&Arc<PartitionQueue>>,
        choose: impl FnOnce(&mut Topic) -> PartitionIndex,
    ) -> Arc<PartitionQueue> {
        let mut topics = self.topics();
        let found = topics.topic(topic);
        let partition = choose(found);
        let key = (partition, has_identity);
        let known = found.queues.get(&key);
        if let Some(queue) = known.filter(|queue| retired.is_none_or(|retired| !Arc::ptr_eq(queue, retired))) {
            return queue.clone();
        }
        if topics.lanes >= LANES_MAX {
            topics.retire_idle();
        }
        let found = topics.topic(topic);
        let queue = Arc::new(PartitionQueue::new(found.name.clone(), partition));
        let is_new = found.queues.insert(key, queue.clone()).is_none();
        topics.lanes += usize::from(is_new);
        drop(topics);
        (self.start_lane)(queue.clone(), has_identity);
        queue
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Accumulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes_max, room, topics, .. } = self;
        let (bytes_free, mut debug) = (room.available_permits(), f.debug_struct("Accumulator"));
        debug.field("bytes_max", bytes_max).field("bytes_free", &bytes_free).field("topics", topics);
        debug.finish_non_exhaustive()
    }
}

impl Drop for Accumulator {
    fn drop(&mut self) {
        for queue in self.topics().by_name.values().flat_map(|topic| topic.queues.values()) {
            queue.retire();
        }
    }
}

impl Topics {
    fn topic(&mut self, name: &str) -> &mut Topic {
        if !self.by_name.contains_key(name) {
            let name: Arc<str> = name.into();
            self.by_name.insert(name.clone(), Topic::new(name));
        }
        // It is there; this form spares a copy of the name for each record.
        match self.by_name.get_mut(name) {
            Some(topic) => topic,
            None => unreachable!("it was put there above"),
        }
    }

    /// Should one be wanted again, it begins anew, as somebody else.
    fn retire_idle(&mut self) {
        for topic in self.by_name.values_mut() {
            topic.queues.retain(|_, queue| !queue.retire_if_idle());
        }
        self.by_name.retain(|_, topic| !topic.queues.is_empty());
        self.lanes = self.by_name.values().map(|topic| topic.queues.len()).sum();
    }
}

impl Topic {
    fn new(name: Arc<str>) -> Self {
        Self { name, queues: HashMap::new(), sticky: Sticky::new() }
    }

    fn choose(&mut self, count: u32, bytes: usize, batch_bytes_max: usize, has_identity: bool) -> PartitionIndex {
        let Self { queues, sticky, .. } = self;
        let is_busy = |partition| queues.get(&(partition, has_identity)).is_some_and(|queue| queue.is_busy());
        sticky.choose(count, bytes, batch_bytes_max, is_busy)
    }
}
