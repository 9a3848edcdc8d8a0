//! What the reader, the handlers and the upkeep of one connection share.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::local::{Permit, Semaphore};
use ringmq_runtime::random::Map;
use ringmq_runtime::task::{self, Gate, GatePass, Stop, StopHandle};
use ringmq_runtime::time::{self, Instant};
use ringmq_wire::protocol::Message;
use ringmq_wire::protocol::frame::{RequestHead, encode_error_response, encode_response};
use ringmq_wire::{CorrelationId, WireError};

use crate::limits::Limits;
use crate::outbox::{Hold, Outbox};
use crate::reply_bytes::Account;
use crate::server::Shard;
use crate::stats::{Counter, Stage};
use crate::throttle::Throttle;

/// One connection while it is open.
pub(crate) struct Session {
    pub(crate) shard: Rc<Shard>,
    pub(crate) peer: SocketAddr,
    /// The address that the peer reached.
    pub(crate) local: SocketAddr,
    pub(crate) outbox: Outbox,
    /// Requests that are being worked on.
    pub(crate) tasks: Gate,
    /// Turns of requests other than produce and fetch.
    pub(crate) control: Semaphore,
    /// Record bytes that the peer has not taken yet.
    pub(crate) response_bytes: Semaphore,
    /// The same, of those that other shards have sent.
    pub(crate) forwarded_bytes: Account,
    in_flight: Semaphore,
    request_bytes: Semaphore,
    /// No request will come any more; what waits for something answers with what there is.
    pub(crate) ended: Stop,
    end: StopHandle,
    stop_reading: StopHandle,
    kill: StopHandle,
    /// Since when part of a request is here and the rest is not.
    receiving_since: Cell<Option<Instant>>,
    last_request: Cell<Instant>,
}

/// Where clients reach a broker.
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What ends the two directions of a connection.
pub(crate) struct Signals {
    pub(crate) stop_reading: Stop,
    pub(crate) kill: Stop,
}

/// A request that was let in: what ties the answer to it, and the room that it takes up.
pub(crate) struct Call {
    pub(crate) correlation: CorrelationId,
    pub(crate) received: Instant,
    /// Its place among the connection's requests in flight.
    slot: Permit,
    /// Its bytes, in the bounds of the connection and of the shard.
    room: (Permit, Permit),
    /// Its partitions, in the bounds of the shard.
    parts: Option<Permit>,
}

impl Call {
    /// Keeps room for its partitions until it is answered.
    pub(crate) fn hold_parts(&mut self, parts: Permit) {
        self.parts = Some(parts);
    }

    /// Gives its bytes back: only the answer is still to come.
    pub(crate) fn done_with_request(self) -> Permit {
        drop((self.room, self.parts));
        self.slot
    }
}

impl Session {
    pub(crate) fn new(shard: Rc<Shard>, peer: SocketAddr, local: SocketAddr) -> (Rc<Self>, Signals) {
        let limits = &shard.config.limits;
        let (stop_reading, stop_reading_signal) = task::stop();
        let (kill, kill_signal) = task::stop();
        let (end, ended) = task::stop();
        let session = Rc::new(Self {
            peer,
            local,
            outbox: Outbox::default(),
            tasks: Gate::new(),
            control: Semaphore::new(limits.control_in_flight_max),
            response_bytes: Semaphore::new(limits.connection_response_bytes_max),
            forwarded_bytes: Account::new(limits.connection_response_bytes_max),
            in_flight: Semaphore::new(limits.in_flight_max as usize),
            request_bytes: Semaphore::new(limits.connection_bytes_max),
            ended,
            end,
            stop_reading,
            kill,
            receiving_since: Cell::new(None),
            last_request: Cell::new(Instant::now()),
            shard,
        });
        (session, Signals { stop_reading: stop_reading_signal, kill: kill_signal })
    }

    /// Waits until the connection and the shard have room for a request. Meanwhile nothing is read: this is the
    /// backpressure.
    pub(crate) async fn admit(&self, head: &RequestHead) -> Call {
        self.outbox.has_room().await;
        let bytes = head.body_bytes as usize;
        let slot = self.in_flight.acquire(1).await;
        let room = (self.request_bytes.acquire(bytes).await, self.shard.request_bytes.acquire(bytes).await);
        let received = Instant::now();
        self.last_request.set(received);
        Call { correlation: head.correlation_id, received, slot, room, parts: None }
    }

    /// Runs a request's handler. The connection is not closed before it has ended.
    pub(crate) fn spawn(&self, name: &'static str, handler: impl Future<Output = ()> + 'static) {
        // The gate is closed by the reader after its last request.
        let _ = self.tasks.spawn(name, handler);
    }

    /// Answers a request other than produce and fetch. `turn` is kept until the peer has taken the answer.
    pub(crate) fn answer<M: Message>(&self, call: Call, turn: Permit, response: &M) {
        let (correlation, received) = (call.correlation, call.received);
        let hold = Hold {
            _slot: call.done_with_request(),
            _room: [Some(turn), None],
            stage: (Stage::OtherAnswered, received),
        };
        self.put(hold, correlation, response);
    }

    /// Puts a whole response into the outbox.
    pub(crate) fn put<M: Message>(&self, hold: Hold, correlation: CorrelationId, response: &M) {
        self.outbox.put(hold, correlation, |out| encode_response(correlation, response, out));
    }

    /// Answers a request with an error of the whole.
    pub(crate) fn refuse(&self, call: Call, error: &WireError) {
        tracing::debug!(peer = %self.peer, %error, "request refused");
        self.shard.stats.add(Counter::Errors, 1);
        let (correlation, received) = (call.correlation, call.received);
        let hold =
            Hold { _slot: call.done_with_request(), _room: [None, None], stage: (Stage::OtherAnswered, received) };
        self.put_error(hold, correlation, error);
    }

    /// Answers what cannot be a request. The connection ends behind it.
    pub(crate) async fn refuse_unread(&self, correlation: CorrelationId, error: &WireError) {
        self.shard.stats.add(Counter::Errors, 1);
        let slot = self.in_flight.acquire(1).await;
        let hold = Hold { _slot: slot, _room: [None, None], stage: (Stage::OtherAnswered, Instant::now()) };
        self.put_error(hold, correlation, error);
    }

    fn put_error(&self, hold: Hold, correlation: CorrelationId, error: &WireError) {
        self.outbox.put(hold, correlation, |out| {
            encode_error_response(correlation, error, out);
            Ok(())
        });
    }

    /// How the peer, and others where it comes from, reach this broker: what is advertised, or the address that is
    /// listened on, or, on a wildcard, the address that the peer has reached.
    pub(crate) fn advertised(&self) -> Address {
        let config = &self.shard.config;
        let listening = config.listen.ip();
        let reached = if listening.is_unspecified() { self.local.ip() } else { listening };
        let host = match &config.advertise {
            Some(advertise) => advertise.host.clone(),
            // A dual-stack listener shows IPv4 peers as mapped addresses, which not every client takes.
            None => reached.to_canonical().to_string(),
        };
        let port = config.advertise.as_ref().and_then(|advertise| advertise.port);
        Address { host, port: port.unwrap_or(self.shard.public_port()) }
    }

    /// Says since when part of a request is here and the rest is awaited; `None` when it is all here.
    pub(crate) fn receiving_since(&self, since: Option<Instant>) {
        self.receiving_since.set(since);
    }

    /// Says that no request will come any more, and waits until those that came are answered.
    pub(crate) async fn finish(&self) {
        self.end.stop();
        self.tasks.close().await;
        self.outbox.finish();
    }

    /// Reads no further request; those that were read are answered.
    pub(crate) fn stop_reading(&self) {
        self.stop_reading.stop();
    }

    /// Ends the connection although its peer has not taken its responses.
    pub(crate) fn kill(&self) {
        self.stop_reading.stop();
        self.kill.stop();
    }

    /// Why the connection should be ended now, if it should.
    fn overdue(&self, now: Instant, limits: &Limits) -> Option<&'static str> {
        let receiving = self.receiving_since.get().map(|since| now.saturating_duration_since(since));
        if receiving.is_some_and(|age| age > limits.frame_receive_max) {
            return Some("it began a request and did not finish it in time");
        }
        if self.outbox.stalled_for(now) > limits.write_stall_max {
            return Some("it does not take its responses");
        }
        let idle = self.tasks.running() == 0 && receiving.is_none();
        (idle && now.saturating_duration_since(self.last_request.get()) > limits.idle_max).then_some("it was idle")
    }
}

/// The open connections of a shard.
pub(crate) struct Connections {
    gate: Gate,
    open: RefCell<Map<u64, Rc<Session>>>,
    next: Cell<u64>,
    refused_log: Throttle,
}

/// A connection's place among the open ones, until it is dropped.
pub(crate) struct Registered {
    shard: Rc<Shard>,
    number: u64,
    _pass: GatePass,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shard.connections.open.borrow_mut().remove(&self.number);
    }
}

impl Connections {
    pub(crate) fn new() -> Self {
        let refused_log = Throttle::new(Duration::from_secs(10));
        Self { gate: Gate::new(), open: RefCell::default(), next: Cell::new(0), refused_log }
    }

    /// Counts a connection; `None` when there are as many as there may be, or the shard stops.
    pub(crate) fn register(&self, session: &Rc<Session>) -> Option<Registered> {
        let pass = self.gate.enter().ok()?;
        let mut open = self.open.borrow_mut();
        let connections_max = session.shard.config.limits.connections_max;
        if open.len() >= connections_max {
            if let Some(held_back) = self.refused_log.pass() {
                tracing::warn!(peer = %session.peer, connections_max, held_back, "a connection too many was closed");
            }
            return None;
        }
        let number = self.next.replace(self.next.get() + 1);
        open.insert(number, session.clone());
        session.shard.stats.add(Counter::Connections, 1);
        Some(Registered { shard: session.shard.clone(), number, _pass: pass })
    }

    /// Ends the connections whose peers are too slow or too quiet.
    pub(crate) fn end_overdue(&self, now: Instant, limits: &Limits) {
        for session in self.open.borrow().values() {
            if let Some(reason) = session.overdue(now, limits) {
                tracing::info!(peer = %session.peer, reason, "connection closed");
                session.shard.stats.add(Counter::ConnectionFaults, 1);
                session.kill();
            }
        }
    }

    /// Reads nothing more, answers what was read, and closes every connection. A peer that does not take its answers
    /// within `drain_max` goes without them.
    pub(crate) async fn drain(&self, drain_max: Duration) {
        let closed = self.gate.close();
        self.open.borrow().values().for_each(|session| session.stop_reading());
        if time::timeout(drain_max, closed).await.is_err() {
            tracing::warn!(connections = self.gate.running(), "peers do not take their last responses; closing them");
            self.open.borrow().values().for_each(|session| session.kill());
            self.gate.close().await;
        }
    }
}
