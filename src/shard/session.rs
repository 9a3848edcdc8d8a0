//! One open connection: what its reader, its handlers and the upkeep share, from letting a request in to putting its
//! answer out.

use std::cell::Cell;
use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::BytesMut;
use ringmq_runtime::local::{Permit, Semaphore};
use ringmq_runtime::task::{self, Gate, Stop, StopHandle};
use ringmq_runtime::time::{self, Instant};
use ringmq_wire::protocol::Message;
use ringmq_wire::protocol::frame::{FrameError, RequestHead, encode_error_response, encode_response};
use ringmq_wire::{CorrelationId, ErrorCode, WireError};

use crate::handlers::fetch::subscribe::Subscriptions;
use crate::limits::{ALLOWANCE_BYTES, ALLOWANCE_PARTS, Limits};
use crate::outbox::{Hold, Outbox, Slice};
use crate::reply_bytes::Account;
use crate::room::{Held, Room};
use crate::server::{Endpoints, Shard};
use crate::stats::{Counter, Stage};

/// Memory for encoding answers that is kept between them.
const SCRATCH_BYTES_KEPT: usize = 4 * 1024;

/// One connection while it is open.
pub(crate) struct Session {
    pub(crate) shard: Rc<Shard>,
    pub(crate) endpoints: Rc<Endpoints>,
    pub(crate) peer: SocketAddr,
    /// The address that the peer reached.
    pub(crate) local: SocketAddr,
    pub(crate) outbox: Outbox,
    /// Requests that are being worked on.
    pub(crate) tasks: Gate,
    /// Turns of requests other than produce and fetch.
    pub(crate) control: Semaphore,
    /// Bytes of answers that the peer has not taken yet.
    pub(crate) responses: Room,
    /// Record bytes that other shards have sent and that the peer has not taken yet.
    pub(crate) forwarded_bytes: Account,
    /// Subscriptions of the peer that are open.
    pub(crate) subscriptions: Subscriptions,
    in_flight: Semaphore,
    request_bytes: Room,
    request_parts: Room,
    /// Where answers are encoded.
    scratch: Cell<BytesMut>,
    /// No request will come any more; what waits for something answers with what there is.
    pub(crate) ended: Stop,
    end: StopHandle,
    stop_reading: StopHandle,
    kill: StopHandle,
    /// Since when part of a request is here and the rest is not.
    receiving_since: Cell<Option<Instant>>,
    last_request: Cell<Instant>,
}

/// Part of a request is here, and the rest is awaited from the peer.
#[must_use = "the peer is given time only while this is held"]
pub(crate) struct Receiving<'s>(&'s Session);

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.receiving_since.set(None);
    }
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
    room: Held,
    /// Its sections, in the bounds of the shard.
    parts: Held,
}

impl Call {
    /// Keeps room for its sections until it is answered.
    pub(crate) fn hold_parts(&mut self, parts: Held) {
        self.parts = parts;
    }

    /// Gives its bytes back, and keeps `room` until it is answered: for a request that may wait for long.
    pub(crate) fn trade_room(&mut self, room: Permit) {
        self.room = Held::new(None, room);
    }

    /// What its answer keeps. The request's own room is given back: only the answer has to go out still.
    fn into_hold(self, room: Held, stage: (Stage, Instant)) -> Hold {
        Hold { _slot: Some(self.slot), _turn: None, _room: room, stage }
    }
}

/// An answer that there was no room for.
#[must_use = "nobody else answers the request"]
pub(crate) struct Unplaced {
    call: Call,
    encoded: BytesMut,
    records: Vec<Slice>,
    stage: (Stage, Instant),
}

impl Unplaced {
    /// Puts it out once there is room.
    pub(crate) async fn put(self: Box<Self>, session: &Session) {
        let room = session.responses.acquire(self.encoded.len());
        // Without room nobody is there to take the answer.
        let Some(room) = session.outbox.or_broken(room).await else { return };
        session.put_encoded(self.call.into_hold(room, self.stage), self.encoded, self.records);
    }

    /// The same for a request that changes nothing: one that finds no room for long is refused, and its place is free for
    /// others.
    pub(crate) async fn put_or_refuse(self: Box<Self>, session: &Session) {
        match session.room_until(ready(()), self.encoded.len()).await {
            Ok(room) => session.put_encoded(self.call.into_hold(room, self.stage), self.encoded, self.records),
            Err(error) => session.refuse(self.call, &error),
        }
    }
}

impl Session {
    pub(crate) fn new(
        shard: Rc<Shard>,
        endpoints: Rc<Endpoints>,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> (Rc<Self>, Signals) {
        let limits = &shard.config.limits;
        let (stop_reading, stop_reading_signal) = task::stop();
        let (kill, kill_signal) = task::stop();
        let (end, ended) = task::stop();
        let session = Rc::new(Self {
            endpoints,
            peer,
            local,
            outbox: Outbox::default(),
            tasks: Gate::new(),
            control: Semaphore::new(limits.control_in_flight_max),
            responses: Room::new(ALLOWANCE_BYTES, limits.connection_response_bytes_max, &shard.response_bytes),
            forwarded_bytes: Account::new(limits.connection_response_bytes_max),
            subscriptions: Subscriptions::default(),
            in_flight: Semaphore::new(limits.in_flight_max as usize),
            request_bytes: Room::new(ALLOWANCE_BYTES, limits.connection_bytes_max, &shard.request_bytes),
            request_parts: Room::new(ALLOWANCE_PARTS, limits.shard_parts_max, &shard.request_parts),
            scratch: Cell::default(),
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
        let room = self.request_bytes.acquire(bytes).await;
        let received = Instant::now();
        self.last_request.set(received);
        Call { correlation: head.correlation_id, received, slot, room, parts: Held::default() }
    }

    /// Waits for room for the sections of a produce whose head is here.
    pub(crate) async fn room_for_parts<'s>(&'s self, count: usize, receiving: Receiving<'s>) -> (Held, Receiving<'s>) {
        if let Some(room) = self.request_parts.of_allowance(count) {
            return (room, receiving);
        }
        // It is not the peer who is slow now.
        drop(receiving);
        let room = self.request_parts.acquire(count).await;
        (room, self.receiving())
    }

    /// Runs a request's handler. The connection is not closed before it has ended.
    pub(crate) fn spawn(&self, name: &'static str, handler: impl Future<Output = ()> + 'static) {
        // The gate is closed by the reader after its last request.
        let _ = self.tasks.spawn(name, handler);
    }

    /// Answers a produce or fetch. `records` are those of its sections, with room for them and for the answer's own bytes.
    /// Where there are none, room is needed here, and only then: who holds some and waits for more of it could wait for
    /// ever. What finds none is handed back, to be put once there is.
    pub(crate) fn put(
        &self,
        call: Call,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), FrameError>,
        (room, records): (Held, Vec<Slice>),
        stage: (Stage, Instant),
    ) -> Result<(), Box<Unplaced>> {
        let encoded = match self.encode(encode) {
            Ok(encoded) => encoded,
            Err(error) => {
                self.refuse(call, &error);
                return Ok(());
            }
        };
        let room = if room.is_none() { self.responses.of_allowance(encoded.len()) } else { Some(room) };
        match room {
            Some(room) => {
                self.put_encoded(call.into_hold(room, stage), encoded, records);
                Ok(())
            }
            None => Err(Box::new(Unplaced { call, encoded, records, stage })),
        }
    }

    /// Puts out one of the answers to a request of which more come, with its records and room for both, and its `slot`
    /// among those that the peer has not taken. Where there is no room it is waited for here, until `hurry` is done and a
    /// moment longer.
    ///
    /// # Errors
    /// `Overloaded` when there was none; what the request is refused with when it cannot be encoded.
    pub(crate) async fn put_part(
        &self,
        slot: Permit,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), FrameError>,
        (room, records): (Held, Vec<Slice>),
        stage: (Stage, Instant),
        hurry: impl Future<Output = ()>,
    ) -> Result<(), WireError> {
        let encoded = self.encode(encode)?;
        let room = if room.is_none() { self.room_until(hurry, encoded.len()).await? } else { room };
        self.put_encoded(Hold { _slot: Some(slot), _turn: None, _room: room, stage }, encoded, records);
        Ok(())
    }

    /// Answers a request other than produce and fetch. `turn` is kept until the peer has taken the answer. One that finds
    /// no room, because this peer or others do not take their answers, is refused: it can be asked for again.
    pub(crate) async fn answer<M: Message>(&self, call: Call, turn: Permit, response: &M) {
        let placed = async {
            let encoded = self.encode(|out| encode_response(call.correlation, response, out))?;
            let room = self.room_until(ready(()), encoded.len()).await?;
            Ok((encoded, room))
        };
        match placed.await {
            Ok((encoded, room)) => {
                let stage = (Stage::OtherAnswered, call.received);
                let hold = Hold { _turn: Some(turn), ..call.into_hold(room, stage) };
                self.put_encoded(hold, encoded, Vec::new());
            }
            Err(error) => self.refuse(call, &error),
        }
    }

    /// Room for an answer of so many bytes, which is waited for until `hurry` is done, and a moment longer.
    async fn room_until(&self, hurry: impl Future<Output = ()>, bytes: usize) -> Result<Held, WireError> {
        let (mut room, mut hurry) = (pin!(self.responses.acquire(bytes)), pin!(hurry));
        let in_time = std::future::poll_fn(|cx| match room.as_mut().poll(cx) {
            Poll::Ready(room) => Poll::Ready(Some(room)),
            Poll::Pending => hurry.as_mut().poll(cx).map(|()| None),
        });
        if let Some(room) = in_time.await {
            return Ok(room);
        }
        time::timeout(self.shard.config.limits.forward_wait_max, room).await.map_err(|_| {
            let detail =
                "there is no room for the answer, because earlier ones are not taken; read them, or wait a moment";
            WireError::new(ErrorCode::Overloaded, detail)
        })
    }

    /// Answers a request with an error of the whole.
    pub(crate) fn refuse(&self, call: Call, error: &WireError) {
        tracing::debug!(peer = %self.peer, %error, "request refused");
        self.shard.stats.add(Counter::Errors, 1);
        let (correlation, stage) = (call.correlation, (Stage::OtherAnswered, call.received));
        self.put_error(call.into_hold(Held::default(), stage), correlation, error);
    }

    /// Answers what cannot be a request. The connection ends behind it.
    pub(crate) async fn refuse_unread(&self, correlation: CorrelationId, error: &WireError) {
        self.shard.stats.add(Counter::Errors, 1);
        let slot = self.in_flight.acquire(1).await;
        let stage = (Stage::OtherAnswered, Instant::now());
        self.put_error(Hold { _slot: Some(slot), _turn: None, _room: Held::default(), stage }, correlation, error);
    }

    /// Errors are short: how many may wait is bounded by `OUTBOX_BYTES_MAX` and the requests in flight.
    fn put_error(&self, hold: Hold, correlation: CorrelationId, error: &WireError) {
        let mut encoded = self.scratch.take();
        encode_error_response(correlation, error, &mut encoded);
        self.put_encoded(hold, encoded, Vec::new());
    }

    /// An answer's bytes.
    fn encode(&self, encode: impl FnOnce(&mut BytesMut) -> Result<(), FrameError>) -> Result<BytesMut, WireError> {
        let mut encoded = self.scratch.take();
        encode(&mut encoded).map_err(|error| WireError::from(&error))?;
        Ok(encoded)
    }

    fn put_encoded(&self, hold: Hold, mut encoded: BytesMut, records: Vec<Slice>) {
        self.outbox.put(hold, &encoded, records);
        if encoded.capacity() <= SCRATCH_BYTES_KEPT {
            encoded.clear();
            self.scratch.set(encoded);
        }
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
        Address { host, port: port.unwrap_or(self.endpoints.public_port) }
    }

    /// Says that from now on the rest of a request is awaited from the peer, until this is dropped: for so long it may take.
    pub(crate) fn receiving(&self) -> Receiving<'_> {
        self.receiving_since.set(Some(Instant::now()));
        Receiving(self)
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
    pub(crate) fn overdue(&self, now: Instant, limits: &Limits) -> Option<&'static str> {
        let receiving = self.receiving_since.get().map(|since| now.saturating_duration_since(since));
        let receive_max = if self.shard.is_crowded() {
            limits.frame_receive_crowded_max.min(limits.frame_receive_max)
        } else {
            limits.frame_receive_max
        };
        if receiving.is_some_and(|age| age > receive_max) {
            return Some("it began a request and did not finish it in time");
        }
        if self.outbox.stalled_for(now) > limits.write_stall_max {
            return Some("it does not take its responses");
        }
        let idle = self.tasks.running() == 0 && receiving.is_none();
        (idle && now.saturating_duration_since(self.last_request.get()) > limits.idle_max).then_some("it was idle")
    }
}
