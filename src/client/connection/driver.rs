//! The task that owns one connection's socket: it writes requests, reads responses and matches the two.
//!
//! One task does both directions, so the table of waiting requests needs no lock, and what has reached the kernel and
//! what has not is known exactly when the connection breaks.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use ringmq_wire::CorrelationId;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::error::{ConnectionError, RequestError};
use super::inbound::{Inbound, Response};
use super::outbound::{Outbound, StreamPosition};

/// Reads in one turn before requests get their turn again.
const READS_PER_TURN: usize = 16;

/// Where a request's outcome goes: the response's body or the broker's refusal, or why there is neither.
pub(super) type Answer = oneshot::Sender<Result<Bytes, RequestError>>;

/// A request on its way to the socket.
pub(super) struct Submission {
    pub(super) correlation_id: CorrelationId,
    /// The frame in the pieces that it is written from.
    pub(super) pieces: Vec<Bytes>,
    /// Produce without acknowledgement has no response; it is done when it is written.
    pub(super) has_response: bool,
    pub(super) answer: Answer,
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
}

impl Status {
    pub(super) fn new() -> Self {
        Self {
            ended_by: OnceLock::new(),
            given_up: Notify::new(),
            opened_at: Instant::now(),
            received_after_us: AtomicU64::new(0),
        }
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
    answer: Answer,
    /// Where the request ends in what is written.
    end: StreamPosition,
    _permit: OwnedSemaphorePermit,
}

pub(super) struct Driver {
    stream: TcpStream,
    submissions: mpsc::Receiver<Submission>,
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
        inbound: Inbound,
        status: Arc<Status>,
    ) -> Self {
        let (waiting, unacknowledged) = (HashMap::new(), VecDeque::new());
        Self { stream, submissions, outbound: Outbound::new(), inbound, waiting, unacknowledged, status }
    }

    /// Drives the connection until it breaks or its last handle is dropped, then tells everyone who waits.
    pub(super) async fn run(mut self) {
        let cause = match self.drive().await {
            Ok(()) => ConnectionError::Closed,
            Err(cause) => cause,
        };
        let cause = self.status.ended_by.get_or_init(|| cause).clone();
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
        if submission.answer.is_closed() {
            // Its caller left before anything was sent, so nothing is.
            return;
        }
        for piece in submission.pieces {
            self.outbound.push(piece);
        }
        let waiting = Waiting { answer: submission.answer, end: self.outbound.end(), _permit: submission.permit };
        if submission.has_response {
            self.waiting.insert(submission.correlation_id, waiting);
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
            if let Some(done) = self.unacknowledged.pop_front() {
                // A caller that left does not want to know.
                let _ = done.answer.send(Ok(Bytes::new()));
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
                self.answer(response);
            }
        }
        Ok(())
    }

    fn answer(&mut self, response: Response) {
        if let Some(waiting) = self.waiting.remove(&response.correlation_id) {
            // A caller that left does not want to know.
            let _ = waiting.answer.send(response.outcome.map_err(RequestError::Refused));
        }
    }

    fn fail_everyone(&mut self, cause: &ConnectionError) {
        let written = self.outbound.written();
        let waiting = self.waiting.drain().map(|(_, waiting)| waiting);
        for waiting in waiting.chain(self.unacknowledged.drain(..)) {
            let error = RequestError::Failed { may_have_arrived: waiting.end <= written, cause: cause.clone() };
            let _ = waiting.answer.send(Err(error));
        }
        self.submissions.close();
        while let Ok(submission) = self.submissions.try_recv() {
            let _ = submission.answer.send(Err(RequestError::unsent(cause.clone())));
        }
    }
}
