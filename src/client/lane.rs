//! The way of all idempotent producers of a client to one partition: batches go out in order, a few at a time, and what is
//! not answered is sent again, from the first one on.
//!
//! The broker recognises a batch by producer id, epoch and sequence (`docs/formats/native-protocol.md`, "Idempotent
//! producers"), so that what it has stored already is answered and not stored again. Whatever goes wrong, the lane does
//! the same: it sends everything that is unanswered again, in order, before anything new. Three things it has to see to:
//!
//! - **One at a time at first.** A partition that does not know the producer takes whatever sequence comes. Until it has
//!   answered, there is one batch in flight: of two, the first could be refused for want of space and the second stored.
//! - **Batches that nobody waits for any more.** When their callers have been told that they may be stored, they are sent
//!   again as long as others stand behind them, for without them these would be refused as out of order. When they have
//!   been told that they are not, nothing may store them any more: they are left out, and the lane begins anew.
//! - **Beginning anew.** A batch that is given up leaves a gap, so the lane goes on in a new epoch. That also keeps away
//!   what may still be on its way in an old connection. What may have been stored in the old epoch is never sent in a new
//!   one: its callers are told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmq_wire::batch::{BatchProducer, set_producer};
use ringmq_wire::protocol::{InitProducerIdRequest, ProduceResponse};
use ringmq_wire::{ErrorCode, ProducerEpoch, ProducerId, Sequence, TopicName};
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::accumulator::{EncodedBatch, PartitionQueue, Promise};
use crate::address::BrokerAddress;
use crate::cluster::Cluster;
use crate::connection::{Connection, PendingProduce, RequestError};
use crate::delivery::Deliveries;
use crate::error::Error;
use crate::produce::{self, Failure};
use crate::retry::Retry;

/// Requests in flight: what the broker recognises at least, whoever else sends to the partition.
pub(crate) const IN_FLIGHT_MAX: usize = 5;
/// After so long without a word the partition may have forgotten the producer.
const KNOWN_FOR: Duration = Duration::from_secs(30);

/// How the partition's owner is reached.
type Route = (BrokerAddress, Connection);

/// Who the lane is to its partition.
#[derive(Debug, Clone, Copy)]
struct Identity {
    id: ProducerId,
    epoch: ProducerEpoch,
}

/// A batch on its way.
struct Batch {
    encoded: EncodedBatch,
    /// With its identity, once it was sent for the first time.
    sequenced: Option<Bytes>,
    /// Whether an attempt in this epoch left it open.
    may_be_stored: bool,
}

impl Batch {
    fn promise(&self) -> &Promise {
        &self.encoded.promise
    }

    /// Whether those who wait for it were told that the time is up.
    fn is_abandoned(&self) -> bool {
        self.promise().is_decided()
    }

    /// Whether it may not be sent: it surely is not stored, and those who wait for it were told so.
    fn is_left_out(&self) -> bool {
        self.is_abandoned() && !self.may_be_stored
    }

    fn answer(self, outcome: Result<Deliveries, Error>) {
        // Who waits for it may use its room at once.
        drop(self.encoded.room);
        self.encoded.promise.complete(outcome);
    }
}

/// A batch that has its place in the order of a connection.
struct Sent {
    answer: PendingProduce,
    span: Span,
}

impl Sent {
    /// Its response. May be given up and called again.
    async fn wait(&mut self) -> Result<ProduceResponse, RequestError> {
        self.answer.wait().instrument(self.span.clone()).await
    }
}

/// Sends what one queue has, under an identity of its own.
pub(crate) struct Lane {
    cluster: Arc<Cluster>,
    queue: Arc<PartitionQueue>,
    identity: Option<Identity>,
    next_sequence: Sequence,
    /// When the partition last answered that it stored something of this identity.
    known_at: Option<Instant>,
    /// Attempts that failed since something was last stored.
    failed: u32,
    /// Those that have been taken from the queue, in the order in which they are to be stored. The first ones may have
    /// been sent.
    batches: VecDeque<Batch>,
}

impl Lane {
    pub(crate) fn new(cluster: Arc<Cluster>, queue: Arc<PartitionQueue>) -> Self {
        let (identity, next_sequence, known_at, batches) = (None, Sequence::ZERO, None, VecDeque::new());
        Self { cluster, queue, identity, next_sequence, known_at, failed: 0, batches }
    }

    /// Sends what comes, until nobody can send any more and everything is answered or given up.
    pub(crate) async fn run(mut self) {
        let queue = self.queue.clone();
        queue.served_by(self.send_until_retired()).await;
    }

    async fn send_until_retired(&mut self) {
        loop {
            self.forget_abandoned();
            if self.batches.is_empty() {
                self.failed = 0;
                self.queue.rest();
                if !self.queue.filled(true).await {
                    return;
                }
                self.take();
                continue;
            }
            match self.send_all().await {
                Err(Stopped::Again(error)) => {
                    self.note(&error);
                    // As long as there is something to send, a round goes on: what is left now came late in it.
                    let mut retry = self.retry();
                    if let Err(too_late) = retry.pause_after_answer(error).await {
                        tokio::time::sleep_until(retry.deadline()).await;
                        self.give_up_all(&too_late);
                    }
                    self.failed = retry.failed();
                }
                Ok(()) | Err(Stopped::GivenUp) => {}
            }
        }
    }
}

impl Drop for Lane {
    /// Its runtime ends, unless there is nothing left.
    fn drop(&mut self) {
        let taken = self.batches.iter().filter(|batch| !batch.is_abandoned());
        let taken: u64 = taken.map(|batch| u64::from(batch.encoded.record_count)).sum();
        self.queue.abandon(taken);
    }
}

/// Why a round of sending ended before everything was answered.
enum Stopped {
    /// For a reason that may pass.
    Again(Error),
    /// The first batch, or all of them, were given up.
    GivenUp,
}

/// What leaving out a batch comes to.
enum LeftOut {
    /// It had no sequence: it is gone.
    Dropped,
    /// Those before it in its epoch are answered first.
    Later,
    /// It is gone, and a new epoch begins.
    WithItsEpoch,
}

impl Lane {
    /// Takes the next batch of the queue, if there is one that is to go now.
    fn take(&mut self) -> bool {
        match self.queue.take(self.batches.is_empty()) {
            Some(encoded) => self.batches.push_back(Batch { encoded, sequenced: None, may_be_stored: false }),
            None => return false,
        }
        true
    }

    /// The time that there is until the last of the batches is given up.
    fn retry(&self) -> Retry {
        let waiting = self.batches.iter().filter(|batch| !batch.is_abandoned());
        let last = waiting.map(Batch::promise).max_by_key(|promise| promise.deadline());
        let (deadline, timeout) =
            last.map_or((Instant::now(), Duration::ZERO), |promise| (promise.deadline(), promise.timeout()));
        Retry::until("produce", deadline, timeout, self.failed).attempts_within(self.cluster.options.timeout)
    }

    /// Drops what nobody waits for, but for batches that were sent and stand before others.
    fn forget_abandoned(&mut self) {
        self.batches.retain(|batch| batch.sequenced.is_some() || !batch.is_abandoned());
        if !self.batches.is_empty() && self.batches.iter().all(Batch::is_abandoned) {
            self.batches.clear();
            self.begin_epoch();
        }
    }

    /// The next batches are those of a new epoch, or of another producer where there is none left.
    fn begin_epoch(&mut self) {
        let next = |Identity { id, epoch }: Identity| Some(Identity { id, epoch: epoch.next()? });
        self.identity = self.identity.and_then(next);
        (self.next_sequence, self.known_at) = (Sequence::ZERO, None);
        for batch in &mut self.batches {
            batch.sequenced = None;
        }
    }

    /// Sends everything, what was sent before first, and what comes meanwhile.
    async fn send_all(&mut self) -> Result<(), Stopped> {
        let mut retry = self.retry();
        let opened = self.open(&mut retry).await;
        self.failed = retry.failed();
        let (topic, connection) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(self.cannot_open(error)),
        };
        let queue = self.queue.clone();
        let mut pending: VecDeque<Sent> = VecDeque::new();
        loop {
            while pending.len() < self.in_flight_max() {
                if pending.len() == self.batches.len() && !self.take() {
                    break;
                }
                if self.batches[pending.len()].is_left_out() {
                    match self.leave_out(pending.len()) {
                        LeftOut::Dropped => continue,
                        LeftOut::Later => break,
                        LeftOut::WithItsEpoch => return Err(Stopped::GivenUp),
                    }
                }
                match self.submit(pending.len(), &topic, &connection).await {
                    Ok(sent) => pending.push_back(sent),
                    // What was sent before it comes first.
                    Err(_) if !pending.is_empty() => break,
                    Err(error) => return Err(self.failed(Failure::of(error), &topic, &mut pending).await),
                }
            }
            // What is taken already comes first, and waits for an answer.
            let has_room = pending.len() < self.in_flight_max() && pending.len() == self.batches.len();
            let Some(first) = pending.front_mut() else { return Ok(()) };
            tokio::select! {
                answer = first.wait() => {
                    pending.pop_front();
                    let answer = answer.map_err(|error| Error::of_request("produce", &connection.0, error));
                    match produce::outcome(&topic, self.queue.partition, answer.map(Some)) {
                        Ok(stored) => self.stored(stored),
                        Err(failure) => return Err(self.failed(failure, &topic, &mut pending).await),
                    }
                }
                true = queue.filled(false), if has_room => {}
            }
        }
    }
}

impl Lane {
    /// An identity, and a connection to the partition's owner.
    async fn open(&mut self, retry: &mut Retry) -> Result<(TopicName, Route), Error> {
        if self.identity.is_none() {
            let timeout_ms = retry.attempt_ms();
            let asked = self.cluster.ask_any("init producer id", &InitProducerIdRequest { timeout_ms }, retry).await?;
            self.identity = Some(Identity { id: asked.producer_id, epoch: asked.producer_epoch });
        }
        let PartitionQueue { topic, partition, .. } = &*self.queue;
        let route = self.cluster.route_to(topic, *partition, retry).await?;
        let owner = self.cluster.owner(&route, *partition, retry.attempt_deadline()).await?;
        Ok((route.topic.clone(), owner))
    }

    fn in_flight_max(&self) -> usize {
        let is_known = self.known_at.is_some_and(|at| at.elapsed() < KNOWN_FOR);
        if is_known { IN_FLIGHT_MAX } else { 1 }
    }

    /// Hands a batch to the connection. When this returns, those after it can only follow it.
    async fn submit(&mut self, place: usize, topic: &TopicName, (address, connection): &Route) -> Result<Sent, Error> {
        let batch = self.sequenced(place)?;
        let acks = self.batches[place].encoded.acks;
        // A round may last long: what comes meanwhile has time of its own.
        let retry = self.retry();
        let head = produce::head(topic, self.queue.partition, &batch, acks, &retry)?;
        // Before: when its time is up while it waits for its place in the connection, it is sent all the same.
        self.batches[place].promise().begin_attempt();
        let span = produce::span(topic, self.queue.partition, &batch);
        let submitting = connection.submit_produce(&head, [batch], retry.attempt_deadline());
        let submitted = submitting.instrument(span.clone()).await;
        submitted.map(|answer| Sent { answer, span }).map_err(|error| {
            let batch = &self.batches[place];
            batch.promise().note(batch.may_be_stored, None);
            Error::of_request("produce", address, error)
        })
    }

    /// Sees to it that a batch is not sent which [is to be left out](Batch::is_left_out).
    fn leave_out(&mut self, place: usize) -> LeftOut {
        if self.batches[place].sequenced.is_none() {
            self.batches.remove(place);
            return LeftOut::Dropped;
        }
        if place > 0 {
            return LeftOut::Later;
        }
        // Without it the partition takes none that is behind it in this epoch.
        let promise = self.batches[place].promise();
        let (timeout, last) = (promise.timeout(), None);
        self.give_up_first(Error::TimedOut { operation: "produce", timeout, last });
        LeftOut::WithItsEpoch
    }

    /// The batch with its identity, which it gets when it is sent for the first time.
    fn sequenced(&mut self, place: usize) -> Result<Bytes, Error> {
        let no_identity = || Error::Nonsense("a lane sends without an identity".to_owned());
        let Identity { id, epoch } = self.identity.ok_or_else(no_identity)?;
        let batch = &mut self.batches[place];
        if let Some(sequenced) = &batch.sequenced {
            return Ok(sequenced.clone());
        }
        let mut bytes = match std::mem::take(&mut batch.encoded.batch).try_into_mut() {
            Ok(bytes) => bytes,
            Err(shared) => BytesMut::from(&shared[..]),
        };
        set_producer(&mut bytes, BatchProducer { id, epoch, base_sequence: self.next_sequence });
        self.next_sequence = self.next_sequence.advance(batch.encoded.record_count);
        let bytes = bytes.freeze();
        // What it is made anew of, should there be another epoch.
        batch.encoded.batch = bytes.clone();
        batch.sequenced = Some(bytes.clone());
        Ok(bytes)
    }

    /// The first batch is stored.
    fn stored(&mut self, stored: Option<Deliveries>) {
        (self.known_at, self.failed) = (Some(Instant::now()), 0);
        if let Some(first) = self.batches.pop_front() {
            let stored = produce::offsets_of(first.encoded.record_count, stored);
            first.answer(stored);
        }
    }

    /// Nothing was sent in this round.
    fn cannot_open(&mut self, error: Error) -> Stopped {
        self.cluster.doubt(&self.queue.topic, &error);
        if error.is_retriable() {
            return Stopped::Again(error);
        }
        self.give_up_all(&error);
        Stopped::GivenUp
    }

    /// Tells all callers why, and begins a new epoch. Another attempt at a time when nobody can wait for its answer would
    /// only leave open whether their records are stored.
    fn give_up_all(&mut self, error: &Error) {
        for batch in std::mem::take(&mut self.batches) {
            let outcome = if batch.may_be_stored { self.may_be_stored(error.clone()) } else { error.clone() };
            batch.answer(Err(outcome));
        }
        self.begin_epoch();
    }

    /// The first batch of those that are pending failed. What became of the others is looked at before anything is sent
    /// again.
    async fn failed(&mut self, failure: Failure, topic: &TopicName, pending: &mut VecDeque<Sent>) -> Stopped {
        self.known_at = None;
        let (error, left_open) = match failure {
            Failure::NotStored(error) => (error, false),
            Failure::MaybeStored(error) => (error, true),
        };
        if let Some(first) = self.batches.front_mut() {
            first.may_be_stored |= left_open;
        }
        self.cluster.doubt(&self.queue.topic, &error);
        self.look_at_others(topic, pending).await;
        match error.code() {
            Some(ErrorCode::DuplicateSequence) => {
                // Stored, and nobody knows where. What follows it is not concerned.
                if let Some(first) = self.batches.pop_front() {
                    first.answer(Err(error));
                }
                Stopped::GivenUp
            }
            Some(ErrorCode::InvalidProducerEpoch) => {
                self.give_up_first(error);
                self.identity = None;
                Stopped::GivenUp
            }
            _ if error.is_retriable() || error.code() == Some(ErrorCode::UnknownPartition) => Stopped::Again(error),
            _ => {
                self.give_up_first(error);
                Stopped::GivenUp
            }
        }
    }

    /// Waits for the answers to what was sent behind the first batch. Those that were stored are sent again all the same:
    /// the broker knows them, and answers alike.
    async fn look_at_others(&mut self, topic: &TopicName, pending: &mut VecDeque<Sent>) {
        for (place, mut sent) in pending.drain(..).enumerate() {
            let answer = sent.wait().await;
            let open = match answer {
                Ok(response) => !matches!(
                    produce::outcome(topic, self.queue.partition, Ok(Some(response))),
                    Err(Failure::NotStored(_))
                ),
                Err(error) => error.may_have_arrived(),
            };
            if let Some(batch) = self.batches.get_mut(place + 1) {
                batch.may_be_stored |= open;
            }
        }
    }

    /// Tells the first batch's caller why, and begins a new epoch. Of others that may have been stored in this one, that
    /// stays open.
    fn give_up_first(&mut self, error: Error) {
        let reason = error.clone();
        if let Some(first) = self.batches.pop_front() {
            let outcome = if first.may_be_stored { self.may_be_stored(error) } else { error };
            first.answer(Err(outcome));
        }
        let (open, left): (VecDeque<Batch>, VecDeque<Batch>) =
            std::mem::take(&mut self.batches).into_iter().partition(|batch| batch.may_be_stored);
        self.batches = left;
        for batch in open {
            batch.answer(Err(self.may_be_stored(reason.clone())));
        }
        self.begin_epoch();
    }

    fn may_be_stored(&self, source: Error) -> Error {
        produce::may_be_stored(&self.queue.topic, self.queue.partition, source)
    }

    /// Leaves word for those whose time is up before the next attempt ends.
    fn note(&self, error: &Error) {
        for batch in &self.batches {
            batch.promise().note(batch.may_be_stored, Some(error));
        }
    }
}
