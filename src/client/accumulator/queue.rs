//! The records for one partition that have not been sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ringmq_wire::batch::{BATCH_HEADER_BYTES, BatchBuilder, BuildError, Compression};
use ringmq_wire::protocol::Acks;
use ringmq_wire::{PartitionIndex, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep_until};

use super::account::Account;
use super::completion::{Completion, OnDelivery, PendingBatch, PendingDelivery, Promise};
use crate::error::Error;
use crate::record::Record;

/// A record is given up early by this share of its delivery time-out at most: later ones get a batch of their own.
const GATHERING_SHARE: u32 = 8;

/// A batch that has this share of the one before it will become as large, as far as one can tell.
const RESERVING_SHARE: usize = 8;

/// Records in a batch: what a broker takes, however small they are (`docs/ARCHITECTURE.md`, "Bounds").
const RECORDS_MAX: u32 = 1 << 20;

/// How a producer wants its batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchSettings {
    pub(crate) acks: Acks,
    pub(crate) compression: Compression,
    pub(crate) linger: Duration,
    /// Before compression. A larger record goes alone.
    pub(crate) batch_bytes_max: usize,
    pub(crate) delivery_timeout: Duration,
}

/// Who hands something over, until when it is worth while, and the room that it takes.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) account: Arc<Account>,
    pub(crate) settings: BatchSettings,
    pub(crate) deadline: Instant,
    pub(crate) room: OwnedSemaphorePermit,
}

/// A record that is handed over.
pub(crate) struct Parcel {
    pub(crate) record: Record,
    pub(crate) on_delivery: Option<OnDelivery>,
    pub(crate) sender: Sender,
}

impl Parcel {
    /// Refused after it was counted.
    fn unbuildable(self, error: BuildError) -> Refused<Self> {
        self.sender.account.take_back(1);
        Refused::ForGood(error.into(), Box::new(self))
    }
}

/// Why a queue does not take something, and what that was: it is dropped, with what a program put into it, where no lock is
/// held.
pub(super) enum Refused<T> {
    /// No lane empties it any more.
    Retired(Box<T>),
    /// It fits no batch, or its producer is closed.
    ForGood(Error, Box<T>),
}

/// The queue of one partition: producers fill it, one lane empties it.
#[derive(Debug)]
pub(crate) struct PartitionQueue {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: PartitionIndex,
    state: Mutex<State>,
    /// There may be something for the lane.
    filled: Notify,
    /// A deadline was added that comes before those that are watched.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Takes records; has one at least.
    open: Option<OpenBatch>,
    /// Take no more, in their order.
    closed: VecDeque<QueuedBatch>,
    /// Every batch of which not everyone has been told, here or in the lane; the others go from the front.
    unanswered: VecDeque<Arc<Completion>>,
    watched_until: Option<Instant>,
    /// How large the last batch was when it took no more, in bytes before compression: the next one may become so too.
    last_batch_bytes: usize,
    /// The lane has batches.
    is_busy: bool,
    is_retired: bool,
}

#[derive(Debug)]
struct OpenBatch {
    builder: BatchBuilder,
    settings: BatchSettings,
    /// When its linger is over.
    send_at: Instant,
    promise: Promise,
    room: OwnedSemaphorePermit,
}

/// A batch that waits to be taken.
#[derive(Debug)]
pub(crate) struct QueuedBatch {
    content: Content,
    acks: Acks,
    promise: Promise,
    room: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Content {
    Records(BatchBuilder),
    Encoded { batch: Bytes, record_count: u32 },
}

/// A batch that can be sent.
#[derive(Debug)]
pub(crate) struct EncodedBatch {
    pub(crate) batch: Bytes,
    pub(crate) record_count: u32,
    pub(crate) acks: Acks,
    pub(crate) promise: Promise,
    /// Given back when it is done.
    pub(crate) room: OwnedSemaphorePermit,
}

/// What a lane does next.
enum Next {
    Take,
    WaitUntil(Instant),
    Wait,
    End,
}

impl PartitionQueue {
    pub(super) fn new(topic: Arc<str>, partition: PartitionIndex) -> Self {
        Self { topic, partition, state: Mutex::default(), filled: Notify::new(), earlier: Notify::new() }
    }

    /// Puts a record into the open batch, or into a new one.
    pub(super) fn append(&self, parcel: Parcel) -> Result<PendingDelivery, Refused<Parcel>> {
        let mut state = self.state();
        if state.is_retired {
            return Err(Refused::Retired(Box::new(parcel)));
        }
        if let Err(error) = parcel.sender.account.add(1) {
            return Err(Refused::ForGood(error, Box::new(parcel)));
        }
        if state.open.as_ref().is_some_and(|open| !open.takes(&parcel)) {
            state.close_open();
            self.filled.notify_one();
        }
        let (open, on_delivery) = self.put(&mut state, parcel)?;
        let (completion, place) = (open.promise.completion().clone(), open.builder.record_count() - 1);
        if let Some(callback) = on_delivery {
            completion.add_callback(place, callback);
        }
        let is_full = open.is_full();
        state.open = Some(open);
        if is_full {
            state.close_open();
            self.filled.notify_one();
        }
        Ok(PendingDelivery::new(completion, place))
    }

    /// The open batch, or a new one, with the record in it, and the record's callback.
    fn put(&self, state: &mut State, parcel: Parcel) -> Result<(OpenBatch, Option<OnDelivery>), Refused<Parcel>> {
        match state.open.take() {
            Some(mut open) => {
                open.make_room(state.last_batch_bytes);
                if let Err(error) = push(&mut open.builder, &parcel.record) {
                    state.open = Some(open);
                    return Err(parcel.unbuildable(error));
                }
                let Parcel { on_delivery, sender, .. } = parcel;
                open.promise.completion().add_records(sender.account, 1);
                open.room.merge(sender.room);
                Ok((open, on_delivery))
            }
            None => {
                let bytes = BATCH_HEADER_BYTES + size_bound(&parcel.record);
                let mut builder = BatchBuilder::with_capacity(parcel.sender.settings.compression, bytes);
                if let Err(error) = push(&mut builder, &parcel.record) {
                    return Err(parcel.unbuildable(error));
                }
                let Parcel { on_delivery, sender, .. } = parcel;
                let promise = Promise::new(self.begin(state, &sender));
                let Sender { account, settings, room, .. } = sender;
                promise.completion().add_records(account, 1);
                self.filled.notify_one();
                let send_at = Instant::now() + settings.linger;
                Ok((OpenBatch { builder, settings, send_at, promise, room }, on_delivery))
            }
        }
    }

    /// Puts a whole batch behind what there is.
    pub(super) fn append_batch(
        &self,
        batch: Bytes,
        record_count: u32,
        sender: Sender,
    ) -> Result<PendingBatch, Refused<Sender>> {
        let mut state = self.state();
        if state.is_retired {
            return Err(Refused::Retired(Box::new(sender)));
        }
        if let Err(error) = sender.account.add(record_count) {
            return Err(Refused::ForGood(error, Box::new(sender)));
        }
        state.close_open();
        let completion = self.begin(&mut state, &sender);
        let Sender { account, settings: BatchSettings { acks, .. }, room, .. } = sender;
        completion.add_records(account, record_count);
        let (content, promise) = (Content::Encoded { batch, record_count }, Promise::new(completion.clone()));
        state.closed.push_back(QueuedBatch { content, acks, promise, room });
        self.filled.notify_one();
        Ok(PendingBatch::new(completion))
    }

    /// Begins to watch a batch.
    fn begin(&self, state: &mut State, sender: &Sender) -> Arc<Completion> {
        let Sender { settings: BatchSettings { delivery_timeout, .. }, deadline, .. } = sender;
        let completion = Completion::new(self.topic.clone(), self.partition, *deadline, *delivery_timeout);
        let completion = Arc::new(completion);
        while state.unanswered.front().is_some_and(|first| first.is_told()) {
            state.unanswered.pop_front();
        }
        state.unanswered.push_back(completion.clone());
        if state.watched_until.is_none_or(|at| *deadline < at) {
            state.watched_until = Some(*deadline);
            self.earlier.notify_one();
        }
        completion
    }

    /// Whether a record that comes now would wait for others.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.state();
        state.is_busy || state.open.is_some() || !state.closed.is_empty()
    }

    /// Ends the waiting for more records; the batches that have some of this producer's.
    pub(super) fn flush(&self, account: &Arc<Account>) -> Vec<Arc<Completion>> {
        let mut state = self.state();
        if state.open.as_ref().is_some_and(|open| open.promise.completion().has_records_of(account)) {
            state.close_open();
            self.filled.notify_one();
        }
        state.unanswered.iter().filter(|batch| batch.has_records_of(account)).cloned().collect()
    }

    /// Takes no more. The lane ends when it has sent what there is.
    pub(super) fn retire(&self) {
        self.state().is_retired = true;
        self.filled.notify_one();
    }

    /// As [`PartitionQueue::retire`], if there is nothing to send; whether it did.
    pub(super) fn retire_if_idle(&self) -> bool {
        let mut state = self.state();
        let is_told = state.unanswered.iter().all(|batch| batch.is_told());
        let is_idle = !state.is_busy && state.open.is_none() && state.closed.is_empty() && is_told;
        state.is_retired |= is_idle;
        self.filled.notify_one();
        is_idle
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lanes do with their queue.
impl PartitionQueue {
    /// Waits until there is something to take; `false` when there never will be. `is_idle`: nothing is in flight.
    pub(crate) async fn filled(&self, is_idle: bool) -> bool {
        loop {
            let next = self.state().next(is_idle);
            match next {
                Next::Take => return true,
                Next::End => return false,
                Next::Wait => self.filled.notified().await,
                Next::WaitUntil(at) => tokio::select! {
                    () = self.filled.notified() => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    /// The next batch, if it is to go now. A batch that cannot be encoded is answered, and the one behind it looked at.
    pub(crate) fn take(&self, is_idle: bool) -> Option<EncodedBatch> {
        loop {
            let batch = {
                let mut state = self.state();
                let Next::Take = state.next(is_idle) else { return None };
                if state.closed.is_empty() {
                    state.close_open();
                }
                state.is_busy = true;
                state.closed.pop_front()?
            };
            // Compressing takes its time: producers go on meanwhile.
            if let Some(encoded) = batch.encode() {
                return Some(encoded);
            }
        }
    }

    /// The lane has nothing any more of what it took.
    pub(crate) fn rest(&self) {
        self.state().is_busy = false;
    }

    /// Nobody will empty it any more: everyone who waits is told. Besides what is here, so many records are lost that the
    /// lane had taken, and a word is said about both.
    pub(crate) fn abandon(&self, taken: u64) {
        let batches = {
            let mut state = self.state();
            state.is_retired = true;
            state.close_open();
            std::mem::take(&mut state.closed)
        };
        let records = taken + batches.iter().map(|batch| batch.promise.record_count()).sum::<u64>();
        if records > 0 {
            let Self { topic, partition, .. } = self;
            tracing::warn!(topic = &**topic, %partition, records, "the client's runtime ended before records were acknowledged");
        }
    }

    /// Gives up batches whose time is up, wherever they are, until the lane ends.
    pub(crate) async fn served_by(&self, lane: impl Future<Output = ()>) {
        tokio::select! {
            () = lane => {}
            () = self.watch_deadlines() => {}
        }
    }

    /// Gives up batches whose time is up, for ever.
    pub(super) async fn watch_deadlines(&self) {
        loop {
            match self.give_up_overdue() {
                None => self.earlier.notified().await,
                Some(next) => tokio::select! {
                    () = self.earlier.notified() => {}
                    () = sleep_until(next) => {}
                },
            }
        }
    }

    /// Gives the deadline that comes next.
    fn give_up_overdue(&self) -> Option<Instant> {
        let now = Instant::now();
        let (overdue, _unsent, next) = {
            let mut state = self.state();
            state.unanswered.retain(|batch| !batch.is_told());
            // They stay: a flush waits until they are told.
            let (overdue, left): (Vec<_>, Vec<_>) =
                state.unanswered.iter().cloned().partition(|batch| batch.deadline() <= now);
            let is_overdue = |promise: &Promise| promise.deadline() <= now;
            let open = state.open.take_if(|open| is_overdue(&open.promise)).map(OpenBatch::close);
            let (mut unsent, closed): (VecDeque<_>, _) =
                std::mem::take(&mut state.closed).into_iter().partition(|batch| is_overdue(&batch.promise));
            state.closed = closed;
            unsent.extend(open);
            state.watched_until = left.iter().map(|batch| batch.deadline()).min();
            (overdue, unsent, state.watched_until)
        };
        for batch in overdue {
            batch.give_up();
        }
        next
    }
}

impl State {
    fn close_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.last_batch_bytes = open.builder.len_bytes();
            self.closed.push_back(open.close());
        }
    }

    fn next(&self, is_idle: bool) -> Next {
        match &self.open {
            _ if !self.closed.is_empty() => Next::Take,
            Some(open) if is_idle || open.send_at <= Instant::now() => Next::Take,
            Some(open) => Next::WaitUntil(open.send_at),
            None if self.is_retired => Next::End,
            None => Next::Wait,
        }
    }
}

impl OpenBatch {
    /// Makes room for as much as the batch before it had, once it has a part of that. Until then the buffer grows as it has
    /// to: no permit counts what is reserved, and there may be a batch with two records for each of thousands of partitions.
    fn make_room(&mut self, last_batch_bytes: usize) {
        let foreseen = last_batch_bytes.min(self.settings.batch_bytes_max);
        if self.builder.len_bytes() >= foreseen / RESERVING_SHARE {
            self.builder.reserve(foreseen);
        }
    }

    /// Whether another record goes with those that it has.
    fn takes(&self, Parcel { record, sender, .. }: &Parcel) -> bool {
        let Sender { settings: BatchSettings { acks, compression, batch_bytes_max, delivery_timeout, .. }, .. } =
            sender;
        let limit = self.settings.batch_bytes_max.min(*batch_bytes_max);
        let deadline = self.promise.deadline();
        *acks == self.settings.acks
            && *compression == self.settings.compression
            && self.builder.len_bytes().saturating_add(size_bound(record)) <= limit
            && self.builder.record_count() < RECORDS_MAX
            && sender.deadline <= deadline + *delivery_timeout / GATHERING_SHARE
            && deadline <= sender.deadline + *delivery_timeout / GATHERING_SHARE
    }

    /// Whether no other record can join.
    fn is_full(&self) -> bool {
        self.builder.len_bytes() >= self.settings.batch_bytes_max || self.builder.record_count() >= RECORDS_MAX
    }

    fn close(self) -> QueuedBatch {
        let Self { builder, settings: BatchSettings { acks, .. }, promise, room, .. } = self;
        QueuedBatch { content: Content::Records(builder), acks, promise, room }
    }
}

impl QueuedBatch {
    /// `None` when it cannot be encoded, which is told.
    fn encode(self) -> Option<EncodedBatch> {
        let Self { content, acks, promise, room } = self;
        let (batch, record_count) = match content {
            Content::Encoded { batch, record_count } => (batch, record_count),
            Content::Records(builder) => {
                let record_count = builder.record_count();
                match builder.finish() {
                    Ok(batch) => (batch, record_count),
                    Err(error) => {
                        promise.complete(Err(error.into()));
                        return None;
                    }
                }
            }
        };
        Some(EncodedBatch { batch, record_count, acks, promise, room })
    }
}

fn push(builder: &mut BatchBuilder, record: &Record) -> Result<(), BuildError> {
    let headers = record.headers.iter().map(|header| (header.key.as_str(), header.value.as_deref()));
    let timestamp = record.timestamp.unwrap_or_else(|| Timestamp::from(SystemTime::now()));
    builder.append_parts(timestamp, record.key.as_deref(), record.value.as_deref(), headers)
}

/// What a record takes in a batch at most, in bytes, before compression.
pub(crate) fn size_bound(record: &Record) -> usize {
    // Its length, timestamp, offset and number of headers, and the lengths of key and value, as variable-length numbers.
    const FIXED: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
    let bytes = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
    let headers: usize = record.headers.iter().map(|header| header.key.len() + bytes(&header.value) + 5 + 5).sum();
    FIXED + bytes(&record.key) + bytes(&record.value) + headers
}
