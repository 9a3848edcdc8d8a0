//! One partition on the shard that owns it: its checks, and its log. Nothing here waits.

use std::cell::RefCell;
use std::time::Duration;

use ringmq_segment::{Append, AppendError, Appending, Log, LogId, Payload, ReadError};
use ringmq_wire::batch::BatchLimits;
use ringmq_wire::{ErrorCode, TopicName, WireError};

use crate::error;
use crate::throttle::Throttle;

/// A partition that this shard owns.
pub(crate) struct Partition {
    id: LogId,
    topic: TopicName,
    limits: BatchLimits,
    state: RefCell<State>,
    failure_log: Throttle,
}

/// The most often that one partition's failures are logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

enum State {
    Online(Log),
    /// The log cannot be used: why, as clients see it.
    Offline(WireError),
    Deleted,
}

impl Partition {
    pub(crate) fn online(id: LogId, topic: TopicName, limits: BatchLimits, log: Log) -> Self {
        Self::new(id, topic, limits, State::Online(log))
    }

    /// A partition whose log could not be opened; the caller has logged why.
    pub(crate) fn offline(id: LogId, topic: TopicName, limits: BatchLimits, reason: WireError) -> Self {
        Self::new(id, topic, limits, State::Offline(reason))
    }

    fn new(id: LogId, topic: TopicName, limits: BatchLimits, state: State) -> Self {
        Self { id, topic, limits, state: RefCell::new(state), failure_log: Throttle::new(LOG_EVERY) }
    }

    pub(crate) fn id(&self) -> LogId {
        self.id
    }

    /// The partition's log, for reading.
    ///
    /// # Errors
    /// `PartitionOffline` with the reason, `TopicDeleted`.
    pub(crate) fn log(&self) -> Result<Log, WireError> {
        match &*self.state.borrow() {
            State::Online(log) => Ok(log.clone()),
            State::Offline(reason) => Err(reason.clone()),
            State::Deleted => Err(self.deleted()),
        }
    }

    /// Checks the batches and stages them in the order of the calls; the future is done when they are durable.
    ///
    /// # Errors
    /// What is wrong with the batches, or why the partition takes none. Nothing was staged then.
    pub(crate) fn append(&self, payload: Payload) -> Result<Appending, WireError> {
        let log = self.usable_log()?;
        let append = Append::validated(payload, &self.limits).map_err(|rejected| error::rejected(&rejected))?;
        Ok(log.append(append))
    }

    /// What a client is told of an append that was not acknowledged.
    pub(crate) fn append_failed(&self, cause: &AppendError) -> WireError {
        let error = error::append_failed(cause).unwrap_or_else(|| self.closed());
        self.log_failure("an append was not acknowledged", &error);
        error
    }

    /// What a client is told of a read that failed.
    pub(crate) fn read_failed(&self, cause: &ReadError) -> WireError {
        let error = error::read_failed(cause).unwrap_or_else(|| self.closed());
        if error.code != ErrorCode::OffsetOutOfRange {
            self.log_failure("a read failed", &error);
        }
        error
    }

    fn log_failure(&self, what: &str, error: &WireError) {
        if let Some(held_back) = self.failure_log.pass() {
            tracing::warn!(topic = %self.topic, partition = %self.id.partition, %error, held_back, "{what}");
        }
    }

    /// Takes the log out to be deleted; from here on everyone is told that the topic is gone.
    pub(crate) fn delete(&self) -> Option<Log> {
        match self.state.replace(State::Deleted) {
            State::Online(log) => Some(log),
            State::Offline(_) | State::Deleted => None,
        }
    }

    /// The partition's log, if it can be written as well.
    ///
    /// # Errors
    /// As [`Self::log`], and when its storage failed.
    pub(crate) fn usable_log(&self) -> Result<Log, WireError> {
        let log = self.log()?;
        match log.poisoned() {
            Some(poison) => Err(error::poisoned(&poison)),
            None => Ok(log),
        }
    }

    /// A log that was closed under a request: the topic was deleted, or the shard stops.
    fn closed(&self) -> WireError {
        match &*self.state.borrow() {
            State::Deleted => self.deleted(),
            State::Online(_) | State::Offline(_) => WireError::from(ErrorCode::ShuttingDown),
        }
    }

    fn deleted(&self) -> WireError {
        WireError::new(ErrorCode::TopicDeleted, format!("topic {:?} was deleted", &*self.topic))
    }
}
