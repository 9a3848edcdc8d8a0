//! One connection: the preamble, then requests in the order they come, each handed to its handler.
//!
//! The reader goes no further while the connection or the shard has as many bytes or requests in flight as it may: then
//! the socket is not read, and the peer's own buffers fill. Responses leave through the [`Outbox`] as they are ready.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use ringmq_runtime::local;
use ringmq_runtime::net::{TcpStream, WriteHalf};
use ringmq_runtime::task;
use ringmq_runtime::time;
use ringmq_wire::codec::Codec;
use ringmq_wire::protocol::frame::{FrameError, REQUEST_HEAD_BYTES, RequestHead, decode_request_head};
use ringmq_wire::protocol::preamble::{ClientPreamble, PREAMBLE_BYTES};
use ringmq_wire::protocol::{Hello, Message, RequestType, SubscribeRequest};
use ringmq_wire::{CorrelationId, ErrorCode, WireError};

use crate::frame_reader::{FrameReader, ReadEnd};
use crate::handlers::fetch::subscribe::{self, Subscriptions};
use crate::handlers::{
    alter_topics, create_topics, delete_records, delete_topics, describe_cluster, describe_topics, discover_controller,
    fetch, init_producer_id, list_offsets, list_topics, metadata, produce, stats,
};
use crate::limits::REQUESTS_IN_A_ROW_MAX;
use crate::outbox;
use crate::server::{Endpoints, Shard};
use crate::session::{Call, Receiving, Session};
use crate::stats::Counter;

/// A peer whose connection the broker ends is given this long to take its last responses and close.
const LINGER: Duration = Duration::from_secs(1);

/// What it may send meanwhile.
const LINGER_BYTES: usize = 16 << 20;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// Nothing more could be read.
    #[error(transparent)]
    Read(#[from] ReadEnd),
    /// The peer sent what no request can follow. It has been told.
    #[error("the peer broke the protocol: {0}")]
    Fault(WireError),
    /// The peer did not say what it speaks in time.
    #[error("no whole preamble came within {0:?}")]
    HandshakeTimedOut(Duration),
}

/// Serves one connection to its end.
pub(crate) async fn serve(shard: Rc<Shard>, endpoints: Rc<Endpoints>, stream: TcpStream, peer: SocketAddr) {
    let local = stream.local_addr().unwrap_or(shard.config.listen);
    let (session, signals) = Session::new(shard.clone(), endpoints, peer, local);
    let Some(_registered) = shard.connections.register(&session) else { return };
    let (read, mut write) = stream.into_split();
    let mut reader = FrameReader::new(read, signals.stop_reading);

    let end = match greet(&shard, &mut reader, &mut write).await {
        Err(end) => end,
        Ok(()) => {
            let (ended, writer_ended) = local::oneshot();
            task::spawn("write responses", {
                let (session, kill) = (session.clone(), signals.kill.clone());
                async move {
                    let written = outbox::write_responses(&session.outbox, &mut write, &session.shard.stats);
                    let written = kill.or_stop(written).await;
                    if !matches!(written, Some(Ok(()))) {
                        // The peer is gone or takes nothing: there is no point in reading more from it.
                        session.outbox.break_off();
                        session.stop_reading();
                    }
                    let _ = ended.send(write);
                }
            });
            let end = read_requests(&session, &mut reader).await;
            session.finish().await;
            // Both halves live until the last response is written.
            let _write = writer_ended.await;
            end
        }
    };
    if matches!(end, End::Fault(_) | End::Read(ReadEnd::Stopped)) {
        // Closing a socket with unread bytes resets it (RFC 1122, 4.2.2.13), and what the peer has not read yet is lost:
        // the error, or acknowledgements of what was stored.
        let _ = signals.kill.or_stop(time::timeout(LINGER, reader.discard(LINGER_BYTES))).await;
    }
    report(&shard, peer, &end);
}

fn report(shard: &Shard, peer: SocketAddr, end: &End) {
    match end {
        End::Read(ReadEnd::Closed | ReadEnd::Stopped) => tracing::debug!(%peer, %end, "connection ended"),
        End::Read(ReadEnd::Failed(_)) => tracing::debug!(%peer, %end, "connection lost"),
        End::Fault(_) | End::HandshakeTimedOut(_) => {
            shard.stats.add(Counter::ConnectionFaults, 1);
            tracing::info!(%peer, %end, "connection closed");
        }
    }
}

/// Agrees on a version and says what is spoken here and how much is taken.
async fn greet(shard: &Shard, reader: &mut FrameReader, write: &mut WriteHalf) -> Result<(), End> {
    let limits = &shard.config.limits;
    let exchanged = time::timeout(limits.handshake_max, async {
        let mut preamble = [0; PREAMBLE_BYTES];
        preamble.copy_from_slice(reader.peek(PREAMBLE_BYTES).await?);
        reader.consume(PREAMBLE_BYTES);
        let (answer, fault) = match ClientPreamble::decode(preamble) {
            Ok(client) => {
                let fault = format!("it speaks versions {} to {}", client.version_min, client.version_max);
                let answer = client.answer();
                (answer, answer.version.is_none().then_some(WireError::new(ErrorCode::UnsupportedVersion, fault)))
            }
            // A version of none tells whoever does speak the protocol that this connection leads nowhere.
            Err(error) => {
                let none = ClientPreamble { version_min: u8::MAX, version_max: u8::MAX, flags: 0 }.answer();
                (none, Some(WireError::new(ErrorCode::MalformedRequest, error.to_string())))
            }
        };
        let mut bytes = BytesMut::from(&answer.encode()[..]);
        if fault.is_none() {
            Hello::current(limits.request_bytes_max, limits.in_flight_max).encode_with_length(&mut bytes);
        }
        write.write_all(&bytes).await.map_err(ReadEnd::Failed)?;
        match fault {
            None => Ok(()),
            Some(fault) => {
                // It may be gone already; then there is nobody to tell.
                let _ = write.shutdown();
                Err(End::Fault(fault))
            }
        }
    });
    exchanged.await.unwrap_or(Err(End::HandshakeTimedOut(limits.handshake_max)))
}

/// Takes requests until the connection ends, one way or another.
async fn read_requests(session: &Rc<Session>, reader: &mut FrameReader) -> End {
    let mut in_a_row = 0;
    loop {
        // What one read has brought costs no wait of its own, and the other connections would have none either.
        in_a_row = if reader.available() == 0 { 0 } else { in_a_row + 1 };
        if in_a_row >= REQUESTS_IN_A_ROW_MAX {
            in_a_row = 0;
            task::yield_to_io().await;
        }
        // Nobody would get the answer to what is still in the buffer.
        if session.outbox.is_broken() {
            return End::Read(ReadEnd::Stopped);
        }
        if let Err(end) = read_request(session, reader).await {
            return end;
        }
    }
}

/// One request: its head, room for it, its body, its handler.
async fn read_request(session: &Rc<Session>, reader: &mut FrameReader) -> Result<(), End> {
    reader.peek(1).await?;
    let receiving_head = (reader.available() < REQUEST_HEAD_BYTES).then(|| session.receiving());
    let head = match receive_head(session, reader).await {
        Ok(head) => head,
        Err(end) => return Err(tell_if_truncated(session, CorrelationId::new(0), end).await),
    };
    let body_bytes = head.body_bytes as usize;
    // What is announced takes up nothing until it begins to come.
    if let Err(end) = reader.peek(body_bytes.min(1)).await {
        return Err(tell_if_truncated(session, head.correlation_id, end.into()).await);
    }
    drop(receiving_head);
    let call = session.admit(&head).await;
    let receiving = session.receiving();
    let handled = match head.known_type() {
        Ok(request_type) => {
            session.shard.stats.count_request(request_type);
            handle(session, reader, receiving, request_type, call, body_bytes).await
        }
        Err(error) => {
            let skipped = reader.skip(body_bytes).await;
            drop(receiving);
            session.refuse(call, &error);
            skipped.map_err(End::from)
        }
    };
    match handled {
        Ok(()) => Ok(()),
        Err(end) => Err(tell_if_truncated(session, head.correlation_id, end).await),
    }
}

/// Tells a peer that has stopped sending in the middle of a request; it may still be listening.
async fn tell_if_truncated(session: &Session, correlation: CorrelationId, end: End) -> End {
    if !matches!(end, End::Read(ReadEnd::Closed)) {
        return end;
    }
    let error = WireError::new(ErrorCode::MalformedRequest, "the connection ended before the request was whole");
    session.refuse_unread(correlation, &error).await;
    End::Fault(error)
}

/// Hands a request to its handler, which answers when it is ready.
async fn handle(
    session: &Rc<Session>,
    reader: &mut FrameReader,
    receiving: Receiving<'_>,
    request_type: RequestType,
    call: Call,
    body_bytes: usize,
) -> Result<(), End> {
    if request_type == RequestType::Produce {
        return produce::handle(session, reader, receiving, call, body_bytes).await;
    }
    // Bounded by `CONTROL_REQUEST_BYTES_MAX`, which the head was checked against.
    let body = reader.peek(body_bytes).await?;
    drop(receiving);
    match request_type {
        RequestType::Fetch => start_fetch(session, call, body),
        RequestType::ListOffsets => start(session, call, body, AnswerSize::OfRequest, list_offsets::handle),
        RequestType::Metadata => start(session, call, body, AnswerSize::OfCluster, metadata::handle),
        RequestType::DiscoverController => {
            start(session, call, body, AnswerSize::OfRequest, discover_controller::handle)
        }
        RequestType::CreateTopics => start(session, call, body, AnswerSize::OfRequest, create_topics::handle),
        RequestType::DeleteTopics => start(session, call, body, AnswerSize::OfRequest, delete_topics::handle),
        RequestType::ListTopics => start(session, call, body, AnswerSize::OfCluster, list_topics::handle),
        RequestType::DescribeTopics => start(session, call, body, AnswerSize::OfCluster, describe_topics::handle),
        RequestType::DescribeCluster => start(session, call, body, AnswerSize::OfRequest, describe_cluster::handle),
        RequestType::DeleteRecords => start(session, call, body, AnswerSize::OfRequest, delete_records::handle),
        RequestType::AlterTopics => start(session, call, body, AnswerSize::OfRequest, alter_topics::handle),
        RequestType::Stats => start(session, call, body, AnswerSize::OfCluster, stats::handle),
        RequestType::InitProducerId => start(session, call, body, AnswerSize::OfRequest, init_producer_id::handle),
        RequestType::Subscribe => start_subscription(session, call, body),
        RequestType::GrantCredit => do_at_once(session, call, body, Subscriptions::grant_credit),
        RequestType::Unsubscribe => do_at_once(session, call, body, Subscriptions::unsubscribe),
        RequestType::Produce => {}
    }
    reader.consume(body_bytes);
    Ok(())
}

/// The head of the next request. One that cannot be right leaves no way to find the request behind it.
async fn receive_head(session: &Session, reader: &mut FrameReader) -> Result<RequestHead, End> {
    let bytes = reader.peek(REQUEST_HEAD_BYTES).await?;
    let fault = match decode_request_head(bytes, session.shard.config.limits.request_bytes_max) {
        Ok(Some(head)) => {
            reader.consume(REQUEST_HEAD_BYTES);
            return Ok(head);
        }
        Ok(None) => WireError::new(ErrorCode::MalformedRequest, "the request's head is not whole"),
        Err(fault) => {
            let error = WireError::from(&fault);
            // Without its id the answer still says what is wrong; 0 is as good as any.
            let correlation = match fault {
                FrameError::TooLong { correlation_id, .. } => correlation_id,
                FrameError::TooShort { .. } => CorrelationId::new(0),
            };
            session.refuse_unread(correlation, &error).await;
            error
        }
    };
    Err(End::Fault(fault))
}

/// Starts a fetch, which answers for itself: its records are sent from where they lie.
fn start_fetch(session: &Rc<Session>, call: Call, body: &[u8]) {
    match Codec::decode_whole(body) {
        Ok(request) => session.spawn("fetch", fetch::handle(session.clone(), call, request)),
        Err(error) => session.refuse(call, &WireError::from(&error)),
    }
}

/// Opens a subscription, which answers for itself until it ends. It is known by its id before the next request is read.
fn start_subscription(session: &Rc<Session>, call: Call, body: &[u8]) {
    let request: SubscribeRequest = match Codec::decode_whole(body) {
        Ok(request) => request,
        Err(error) => return session.refuse(call, &WireError::from(&error)),
    };
    // Requests that grant credit, or end it, have to come through as well.
    let open_max = session.shard.config.limits.in_flight_max as usize / 2;
    match session.subscriptions.open(call.correlation, request.credit_bytes, open_max) {
        Ok(subscription) => {
            let serving = session.clone();
            session.spawn("subscription", async move {
                subscribe::handle(serving, call, request, &subscription).await;
            });
        }
        Err(error) => session.refuse(call, &error),
    }
}

/// Does what is asked of a subscription before the next request is read: later its id may be another one's.
fn do_at_once<Q: Codec, R: Message + 'static>(
    session: &Rc<Session>,
    call: Call,
    body: &[u8],
    handler: impl FnOnce(&Subscriptions, &Q) -> R,
) {
    match Q::decode_whole(body) {
        Ok(request) => {
            let response = handler(&session.subscriptions, &request);
            let answering = session.clone();
            session.spawn("answer", async move {
                let turn = answering.control.acquire(1).await;
                answering.answer(call, turn, &response).await;
            });
        }
        Err(error) => session.refuse(call, &WireError::from(&error)),
    }
}

/// Starts any other request and answers it with what its handler returns.
fn start<Q, R, F>(
    session: &Rc<Session>,
    call: Call,
    body: &[u8],
    size: AnswerSize,
    handler: impl FnOnce(Rc<Session>, Q) -> F + 'static,
) where
    Q: Codec + 'static,
    R: Message,
    F: Future<Output = Result<R, WireError>> + 'static,
{
    match Q::decode_whole(body) {
        Ok(request) => {
            let answering = session.clone();
            session.spawn("request", async move {
                // Few at a time: all answers are held until the peer takes them.
                let turn = answering.control.acquire(1).await;
                let _description = match size {
                    AnswerSize::OfRequest => None,
                    AnswerSize::OfCluster => Some(answering.shard.descriptions.acquire(1).await),
                };
                match handler(answering.clone(), request).await {
                    Ok(response) => answering.answer(call, turn, &response).await,
                    Err(error) => answering.refuse(call, &error),
                }
            });
        }
        Err(error) => session.refuse(call, &WireError::from(&error)),
    }
}

/// What the size of an answer goes by.
#[derive(Clone, Copy)]
enum AnswerSize {
    /// What was asked for, whose bytes are bounded already.
    OfRequest,
    /// All topics that there are, for a request of a few bytes: few of them are put together at the same time.
    OfCluster,
}
