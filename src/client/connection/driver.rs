//! The task that owns one connection's socket: it writes requests, reads responses and matches the two.
//!
//! One task does both directions, so the table of waiting requests needs no lock, and what has reached the kernel and
//! what has not is known exactly when the connection breaks.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmq_wire::CorrelationId;
use ringmq_wire::protocol::{UnsubscribeRequest, frame};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::error::{ConnectionError, RequestError};
use super::inbound::{Inbound, Response};
use super::outbound::{Outbound, StreamPosition};
use super::subscription::Frames;

/// Reads in one turn before requests get their turn again.
const READS_PER_TURN: usize = 16;

/// Where a request's outcome goes: the response's body or the broker's refusal, or why there is neither.
pub(super) type Answer = oneshot::Sender<Result<Bytes, RequestError>>;

/// Correlation ids of subscriptions have this bit, so that none of the many requests during a long one gets its id.
const SUBSCRIPTION_BIT: u32 = 1 << 31;

/// Who gets what comes under a correlation id.
pub(super) enum Recipient {
    /// One response.
    Caller(Answer),
    /// Frames until the last one.
    Subscription(Frames),
    /// Nobody: it says that the subscription of this id will end.
    Unsubscribed(CorrelationId),
}

impl Recipient {
    fn is_gone(&self) -> bool {
        match self {
            Self::Caller(answer) => answer.is_closed(),
            Self::Subscription(frames) => frames.is_closed(),
            Self::Unsubscribed(_) => false,
        }
    }

    /// Tells why nothing comes. One that left does not want to know.
    fn fail(self, error: RequestError) {
        match self {
            Self::Caller(answer) => drop(answer.send(Err(error))),
            Self::Subscription(frames) => frames.end(error),
            Self::Unsubscribed(_) => {}
        }
    }
}

/// A request on its way to the socket.
pub(super) struct Submission {
    pub(super) correlation_id: CorrelationId,
    /// The frame in the pieces that it is written from.
    pub(super) pieces: Vec<Bytes>,
    /// Produce without acknowledgement has no response; it is done when it is written.
    pub(super) has_response: bool,
    pub(super) recipient: Recipient,
    /// Held until the request is done, so that requests in flight stay bounded even when callers leave.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What the task and the handles of one connection share.
#[derive(Debug)]
pub(super) struct Status {
    ended_by: OnceLock<ConnectionError>,
    given_up: Notify,
    opened_at: Instant,
    /// Microseconds from `opened_at` to the last bytes that arrived.
    received_after_us: AtomicU64,
    next_request: AtomicU32,
    next_subscription: AtomicU32,
}

impl Status {
    pub(super) fn new() -> Self {
        Self {
            ended_by: OnceLock::new(),
            given_up: Notify::new(),
            opened_at: Instant::now(),
            received_after_us: AtomicU64::new(0),
            next_request: AtomicU32::new(0),
            next_subscription: AtomicU32::new(0),
        }
    }

    /// An id for a request that gets one response or none.
    pub(super) fn next_request_id(&self) -> CorrelationId {
        CorrelationId::new(self.next_request.fetch_add(1, Ordering::Relaxed) & !SUBSCRIPTION_BIT)
    }

    pub(super) fn next_subscription_id(&self) -> CorrelationId {
        CorrelationId::new(self.next_subscription.fetch_add(1, Ordering::Relaxed) | SUBSCRIPTION_BIT)
    }

    /// Why the connection ended, if it has.
    pub(super) fn ended_by(&self) -> Option<&ConnectionError> {
        self.ended_by.get()
    }

    /// Ends the connection when nothing at all has arrived since `sent`.
    pub(super) fn give_up_if_silent_since(&self, sent: Instant) {
        let last = self.opened_at + Duration::from_micros(self.received_after_us.load(Ordering::Relaxed));
        if last < sent {
            // The first cause stands.
            let _ = self.ended_by.set(ConnectionError::Silent(sent.elapsed()));
            self.given_up.notify_one();
        }
    }

    fn received(&self) {
        let elapsed = u64::try_from(self.opened_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.received_after_us.store(elapsed, Ordering::Relaxed);
    }
}

/// A request whose response is awaited.
struct Waiting {
    recipient: Recipient,
    /// Where the request ends in what is written.
    end: StreamPosition,
    _permit: Option<OwnedSemaphorePermit>,
}

pub(super) struct Driver {
    stream: TcpStream,
    submissions: mpsc::Receiver<Submission>,
    /// Subscriptions whose readers left.
    left: mpsc::UnboundedReceiver<CorrelationId>,
    outbound: Outbound,
    inbound: Inbound,
    waiting: HashMap<CorrelationId, Waiting>,
    /// Requests without a response, in the order in which they are written.
    unacknowledged: VecDeque<Waiting>,
    status: Arc<Status>,
}

impl Driver {
    pub(super) fn new(
        stream: TcpStream,
        submissions: mpsc::Receiver<Submission>,
        left: mpsc::UnboundedReceiver<CorrelationId>,
        inbound: Inbound,
        status: Arc<Status>,
    ) -> Self {
        let (waiting, unacknowledged) = (HashMap::new(), VecDeque::new());
        Self { stream, submissions, left, outbound: Outbound::new(), inbound, waiting, unacknowledged, status }
    }

    /// Drives the connection until it breaks or its last handle is dropped, then tells everyone who waits.
    pub(super) async fn run(mut self) {
        let cause = match self.drive().await {
            Ok(()) => ConnectionError::Closed,
            Err(cause) => cause,
        };
        let cause = self.status.ended_by.get_or_init(|| cause).clone();
        tracing::debug!(%cause, "the connection has ended");
        self.fail_everyone(&cause);
    }

    async fn drive(&mut self) -> Result<(), ConnectionError> {
        loop {
            self.take_submissions();
            if let Err(error) = self.write() {
                // The broker may have said why before it closed.
                self.read()?;
                return Err(error);
            }
            self.read()?;

            let mut interest = Interest::READABLE;
            if !self.outbound.is_empty() {
                interest |= Interest::WRITABLE;
            }
            tokio::select! {
                ready = self.stream.ready(interest) => { ready?; }
                submission = self.submissions.recv(), if self.outbound.has_room() => match submission {
                    Some(submission) => self.enqueue(submission),
                    None => return Ok(()),
                },
                Some(id) = self.left.recv() => self.unsubscribe(id)?,
                () = self.status.given_up.notified() => return Ok(()),
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Moves requests from the channel to the queue while there is room, so that one write takes many.
    fn take_submissions(&mut self) {
        while self.outbound.has_room()
            && let Ok(submission) = self.submissions.try_recv()
        {
            self.enqueue(submission);
        }
    }

    fn enqueue(&mut self, submission: Submission) {
        if submission.recipient.is_gone() {
            // Its caller left before anything was sent, so nothing is.
            return;
        }
        let Submission { correlation_id, pieces, has_response, recipient, permit } = submission;
        for piece in pieces {
            self.outbound.push(piece);
        }
        let waiting = Waiting { recipient, end: self.outbound.end(), _permit: Some(permit) };
        if has_response {
            self.waiting.insert(correlation_id, waiting);
        } else {
            self.unacknowledged.push_back(waiting);
        }
    }

    /// Writes until the queue is empty or the socket is full.
    fn write(&mut self) -> Result<(), ConnectionError> {
        while !self.outbound.is_empty() {
            let (slices, filled) = self.outbound.slices();
            match self.stream.try_write_vectored(&slices[..filled]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => self.outbound.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        while self.unacknowledged.front().is_some_and(|first| first.end <= self.outbound.written()) {
            if let Some(Waiting { recipient: Recipient::Caller(answer), .. }) = self.unacknowledged.pop_front() {
                // A caller that left does not want to know.
                let _ = answer.send(Ok(Bytes::new()));
            }
        }
        Ok(())
    }

    /// Reads what has arrived, up to a bound, and hands out the responses in it.
    fn read(&mut self) -> Result<(), ConnectionError> {
        for _ in 0..READS_PER_TURN {
            match self.stream.try_read_buf(&mut self.inbound.room()) {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(_) => self.status.received(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            while let Some(response) = self.inbound.next_response(|id| self.waiting.contains_key(&id))? {
                self.answer(response)?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, response: Response) -> Result<(), ConnectionError> {
        let Response { correlation_id: id, outcome } = response;
        if let Some(Waiting { recipient: Recipient::Subscription(frames), .. }) = self.waiting.get_mut(&id) {
            if !frames.take(outcome)? {
                self.waiting.remove(&id);
            } else if frames.is_closed() {
                self.unsubscribe(id)?;
            }
            return Ok(());
        }
        match self.waiting.remove(&id).map(|waiting| waiting.recipient) {
            // A caller that left does not want to know.
            Some(Recipient::Caller(answer)) => drop(answer.send(outcome.map_err(RequestError::Refused))),
            Some(Recipient::Unsubscribed(subscription)) if outcome.is_err() => self.unsubscribe_later(subscription),
            _ => {}
        }
        Ok(())
    }

    /// Asks the broker to end a subscription, unless it has ended or has been asked. Its id stays until its last frame.
    fn unsubscribe(&mut self, id: CorrelationId) -> Result<(), ConnectionError> {
        let Some(Waiting { recipient: Recipient::Subscription(frames), .. }) = self.waiting.get_mut(&id) else {
            return Ok(());
        };
        if std::mem::replace(&mut frames.is_withdrawn, true) {
            return Ok(());
        }
        let (asking, mut request) = (self.status.next_request_id(), BytesMut::new());
        frame::encode_request(asking, &UnsubscribeRequest { subscription: id.get() }, &mut request)?;
        self.outbound.push(request.freeze());
        let recipient = Recipient::Unsubscribed(id);
        self.waiting.insert(asking, Waiting { recipient, end: self.outbound.end(), _permit: None });
        Ok(())
    }

    /// The broker refused to end it: its next frame, if only a sign of life, is the time to ask again.
    fn unsubscribe_later(&mut self, id: CorrelationId) {
        if let Some(Waiting { recipient: Recipient::Subscription(frames), .. }) = self.waiting.get_mut(&id) {
            frames.is_withdrawn = false;
        }
    }

    fn fail_everyone(&mut self, cause: &ConnectionError) {
        let written = self.outbound.written();
        let waiting = self.waiting.drain().map(|(_, waiting)| waiting);
        for waiting in waiting.chain(self.unacknowledged.drain(..)) {
            let may_have_arrived = waiting.end <= written;
            waiting.recipient.fail(RequestError::Failed { may_have_arrived, cause: cause.clone() });
        }
        self.submissions.close();
        while let Ok(submission) = self.submissions.try_recv() {
            submission.recipient.fail(RequestError::unsent(cause.clone()));
        }
    }
}
