//! What becomes of one batch, and who hears of it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringmq_wire::{Offset, PartitionIndex};
use slab::Slab;
use tokio::time::Instant;

use super::account::Account;
use crate::delivery::{Deliveries, Delivery};
use crate::error::Error;
use crate::produce;

/// What a program wants to be called with.
pub(crate) type OnDelivery = Box<dyn FnOnce(Result<Delivery, Error>) + Send>;

/// The outcome of one batch, once there is one.
pub(crate) struct Completion {
    topic: Arc<str>,
    partition: PartitionIndex,
    deadline: Instant,
    /// What the deadline was made of.
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outcome: Option<Result<Deliveries, Error>>,
    /// Whether the outcome is certain; it is there once the callbacks have been called.
    is_decided: bool,
    /// Whether it may be stored, as far as it has got.
    may_be_stored: bool,
    last_failure: Option<Error>,
    wakers: Slab<Waker>,
    /// By the record's place in the batch.
    callbacks: Vec<(u32, OnDelivery)>,
    /// How many records are whose.
    accounts: Vec<(Arc<Account>, u32)>,
}

impl Completion {
    pub(super) fn new(topic: Arc<str>, partition: PartitionIndex, deadline: Instant, timeout: Duration) -> Self {
        Self { topic, partition, deadline, timeout, state: Mutex::default() }
    }

    /// When it is given up.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The time that its records were given.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Counts records, whose producer has this account. There they are counted already.
    pub(super) fn add_records(&self, account: Arc<Account>, records: u32) {
        let mut state = self.state();
        match state.accounts.last_mut().filter(|(last, _)| Arc::ptr_eq(last, &account)) {
            Some((_, count)) => *count += records,
            None => state.accounts.push((account, records)),
        }
    }

    /// Has the record at this place told to a program too.
    pub(super) fn add_callback(&self, place: u32, callback: OnDelivery) {
        self.state().callbacks.push((place, callback));
    }

    /// Whether its outcome is certain: nobody needs to send it any more.
    pub(crate) fn is_decided(&self) -> bool {
        self.state().is_decided
    }

    /// Whether its outcome has been told to everyone.
    pub(super) fn is_told(&self) -> bool {
        self.state().outcome.is_some()
    }

    pub(super) fn has_records_of(&self, account: &Arc<Account>) -> bool {
        self.state().accounts.iter().any(|(other, _)| Arc::ptr_eq(other, account))
    }

    pub(super) fn record_count(&self) -> u64 {
        self.state().accounts.iter().map(|(_, records)| u64::from(*records)).sum()
    }

    /// From now on it may be stored. `false` when everyone has been told already that it is not: then it must not be sent.
    pub(crate) fn begin_attempt(&self) -> bool {
        let mut state = self.state();
        let is_open = !state.is_decided;
        state.may_be_stored |= is_open;
        is_open
    }

    /// Leaves word of an attempt, for the case that the time is up before the next one ends.
    pub(crate) fn note(&self, may_be_stored: bool, failure: Option<&Error>) {
        let mut state = self.state();
        state.may_be_stored = may_be_stored;
        if let Some(failure) = failure {
            state.last_failure = Some(failure.clone());
        }
    }

    /// Its time is up.
    pub(super) fn give_up(&self) {
        self.complete_with(|state| {
            let last = state.last_failure.take().map(Box::new);
            self.left_open(state, Error::TimedOut { operation: "produce", timeout: self.timeout, last })
        });
    }

    /// Nobody will send it any more.
    fn abandon(&self) {
        self.complete_with(|state| self.left_open(state, Error::runtime_ended()));
    }

    fn left_open(&self, state: &State, error: Error) -> Result<Deliveries, Error> {
        Err(if state.may_be_stored { produce::may_be_stored(&self.topic, self.partition, error) } else { error })
    }

    /// Tells everyone, unless they have been told.
    pub(crate) fn complete(&self, outcome: Result<Deliveries, Error>) {
        self.complete_with(|_| outcome);
    }

    /// Their accounts and callbacks first: who waits, or asks meanwhile, finds those done when there is an outcome. What
    /// is told follows from the state at one moment: an attempt that begins behind it hears so.
    fn complete_with(&self, outcome: impl FnOnce(&mut State) -> Result<Deliveries, Error>) {
        let (outcome, callbacks) = {
            let mut state = self.state();
            if state.is_decided {
                return;
            }
            state.is_decided = true;
            let outcome = outcome(&mut state);
            for (account, records) in &state.accounts {
                account.settle(*records, outcome.as_ref().err());
            }
            (outcome, std::mem::take(&mut state.callbacks))
        };
        for (place, callback) in callbacks {
            let delivery = delivery(&outcome, place);
            // The lane must live on, whatever a program does.
            if catch_unwind(AssertUnwindSafe(|| callback(delivery))).is_err() {
                tracing::error!(topic = &*self.topic, partition = %self.partition, "a delivery callback panicked");
            }
        }
        let wakers = {
            let mut state = self.state();
            state.outcome = Some(outcome);
            state.accounts.clear();
            std::mem::take(&mut state.wakers)
        };
        for (_, waker) in wakers {
            waker.wake();
        }
    }

    fn poll<T>(
        &self,
        context: &Context<'_>,
        place: &mut Option<usize>,
        read: impl FnOnce(&Result<Deliveries, Error>) -> T,
    ) -> Poll<T> {
        let mut state = self.state();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(read(outcome));
        }
        match place.and_then(|place| state.wakers.get_mut(place)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => *place = Some(state.wakers.insert(context.waker().clone())),
        }
        Poll::Pending
    }

    /// Who waited at this place does not any more.
    fn leave(&self, place: usize) {
        let waker = {
            let mut state = self.state();
            // Behind the outcome nobody has a place.
            if state.outcome.is_none() { state.wakers.try_remove(place) } else { None }
        };
        drop(waker);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, deadline, .. } = self;
        let state = self.state();
        f.debug_struct("Completion")
            .field("topic", topic)
            .field("partition", partition)
            .field("deadline", deadline)
            .field("outcome", &state.outcome)
            .finish_non_exhaustive()
    }
}

/// What the batch's outcome says of one of its records.
fn delivery(outcome: &Result<Deliveries, Error>, place: u32) -> Result<Delivery, Error> {
    let Deliveries { partition, offsets, .. } = outcome.as_ref().map_err(Error::clone)?;
    Ok(Delivery { partition: *partition, offset: Offset::new(offsets.start.get() + i64::from(place)) })
}

/// The duty to complete a batch: who drops it without doing so has lost the batch, and those who wait are told.
#[derive(Debug)]
pub(crate) struct Promise(Arc<Completion>);

impl Promise {
    pub(super) fn new(completion: Arc<Completion>) -> Self {
        Self(completion)
    }

    pub(super) fn completion(&self) -> &Arc<Completion> {
        &self.0
    }
}

impl std::ops::Deref for Promise {
    type Target = Completion;

    fn deref(&self) -> &Completion {
        &self.0
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.is_decided() {
            self.abandon();
        }
    }
}

/// The outcome of a whole batch. Dropping it changes nothing for the batch.
#[derive(Debug)]
pub(crate) struct PendingBatch {
    completion: Arc<Completion>,
    waker: Option<usize>,
}

impl PendingBatch {
    pub(super) fn new(completion: Arc<Completion>) -> Self {
        Self { completion, waker: None }
    }
}

impl Drop for PendingBatch {
    fn drop(&mut self) {
        if let Some(place) = self.waker {
            self.completion.leave(place);
        }
    }
}

impl Future for PendingBatch {
    type Output = Result<Deliveries, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { completion, waker } = &mut *self;
        completion.poll(context, waker, Clone::clone)
    }
}

/// A record that is on its way: a future that gives its partition and offset once it is acknowledged.
///
/// The record goes out whether or not this is polled. It ends with the producer's
/// [delivery time-out](crate::Producer::delivery_timeout), and can be awaited in any task of any runtime.
///
/// ```no_run
/// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
/// let mut pending = Vec::new();
/// for number in 0..1000 {
///     pending.push(producer.enqueue("numbers", number.to_string()).await?);
/// }
/// for delivery in pending {
///     println!("offset {}", delivery.await?.offset);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Cancellation
/// Dropping it changes nothing for the record; nobody but [`Producer::flush`](crate::Producer::flush) tells any more what
/// became of it.
#[derive(Debug)]
#[must_use = "whether the record is stored is known when this is awaited; drop it where a flush is to tell"]
pub struct PendingDelivery {
    batch: PendingBatch,
    /// The record's place in its batch.
    place: u32,
}

impl PendingDelivery {
    pub(super) fn new(completion: Arc<Completion>, place: u32) -> Self {
        Self { batch: PendingBatch::new(completion), place }
    }
}

impl Future for PendingDelivery {
    /// # Errors
    /// As [`Producer::send`](crate::Producer::send).
    type Output = Result<Delivery, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { batch: PendingBatch { completion, waker }, place } = &mut *self;
        completion.poll(context, waker, |outcome| delivery(outcome, *place))
    }
}
