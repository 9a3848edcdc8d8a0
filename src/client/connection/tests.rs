//! One connection against a peer that answers late, in pieces, out of order, wrongly, or not at all.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use ringmq_wire::protocol::frame;
use ringmq_wire::protocol::{
    Acks, FetchRequest, FetchResponseHead, FetchedPartition, FetchedTopic, ListTopicsRequest, ListTopicsResponse,
    ListedTopic, MetadataRequest, ProduceHead, ProducePartition, ProduceTopic, RequestType,
};
use ringmq_wire::{CorrelationId, Detail, ErrorCode, Offset, PartitionIndex, TopicId, TopicName, WireError};
use tokio::time::Instant;

use super::{Connection, ConnectionError, RequestError};
use crate::address::BrokerAddress;
use crate::fakes::{Peer, PeerConnection, encode};
use crate::options::ClientOptions;

/// Long enough for a busy machine; nothing waits for it unless it is broken.
const LONG: Duration = Duration::from_secs(60);

fn deadline() -> Instant {
    Instant::now() + LONG
}

async fn open(peer: &Peer) -> (Connection, PeerConnection) {
    open_with(peer, ClientOptions::default()).await
}

async fn open_with(peer: &Peer, options: ClientOptions) -> (Connection, PeerConnection) {
    let address = peer.address().into();
    let (opened, accepted) = tokio::join!(Connection::open(&address, &options, deadline()), peer.accept());
    (opened.unwrap(), accepted)
}

/// A response that can be told from others by its number.
fn numbered(number: u32) -> ListTopicsResponse {
    let name = TopicName::parse("t").unwrap();
    let topic = ListedTopic { name, topic_id: TopicId::METADATA, partitions: number, replicas: 1 };
    ListTopicsResponse { topics: vec![topic] }
}

fn list(connection: &Connection) -> tokio::task::JoinHandle<Result<ListTopicsResponse, RequestError>> {
    let connection = connection.clone();
    tokio::spawn(async move { connection.call(&ListTopicsRequest {}, deadline()).await })
}

fn cause(result: Result<ListTopicsResponse, RequestError>) -> (bool, ConnectionError) {
    match result {
        Err(RequestError::Failed { may_have_arrived, cause }) => (may_have_arrived, cause),
        other => panic!("the request should have failed: {other:?}"),
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_any_order() {
    let peer = Peer::listen().await;
    let (connection, mut remote) = open(&peer).await;
    let mut calls = Vec::new();
    let mut received = Vec::new();
    for _ in 0..20 {
        calls.push(list(&connection));
        received.push(remote.receive().await.unwrap().id());
    }
    for id in received.iter().rev() {
        remote.respond(*id, &numbered(id.get())).await;
    }
    for (call, id) in calls.into_iter().zip(received) {
        assert_eq!(call.await.unwrap().unwrap(), numbered(id.get()));
    }
}

#[tokio::test]
async fn a_response_in_single_bytes_is_whole() {
    let peer = Peer::listen().await;
    let (connection, mut remote) = open(&peer).await;
    let call = list(&connection);
    let id = remote.receive().await.unwrap().id();
    for byte in encode(id, &numbered(5)) {
        remote.write(&[byte]).await;
    }
    assert_eq!(call.await.unwrap().unwrap(), numbered(5));
}

#[tokio::test]
async fn a_connection_cut_anywhere_in_a_response_fails_every_request_that_waits() {
    let peer = Peer::listen().await;
    let whole = encode(CorrelationId::new(0), &numbered(5)).len();
    for length in 0..whole {
        let (connection, mut remote) = open(&peer).await;
        let calls = [list(&connection), list(&connection)];
        let first = remote.receive().await.unwrap().id();
        remote.receive().await.unwrap();
        remote.write(&encode(first, &numbered(5))[..length]).await;
        drop(remote);
        for call in calls {
            let (may_have_arrived, cause) = cause(call.await.unwrap());
            let expected = matches!(cause, ConnectionError::Closed | ConnectionError::Io(_));
            assert!(may_have_arrived && expected, "cut at {length}: {cause}");
        }
        // Later requests learn the same cause, and surely were not sent.
        let (may_have_arrived, _) = cause(list(&connection).await.unwrap());
        assert!(connection.is_closed() && !may_have_arrived);
    }
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_in_use() {
    let peer = Peer::listen().await;
    let (connection, mut remote) = open(&peer).await;
    let call = list(&connection);
    let error = WireError::new(ErrorCode::Overloaded, "too much");
    let id = remote.receive().await.unwrap().id();
    remote.refuse(id, &error).await;
    assert!(matches!(call.await.unwrap(), Err(RequestError::Refused(found)) if found == error));

    let call = list(&connection);
    let id = remote.receive().await.unwrap().id();
    remote.respond(id, &numbered(1)).await;
    assert_eq!(call.await.unwrap().unwrap(), numbered(1));
}

#[tokio::test]
async fn a_response_that_nobody_waits_for_ends_the_connection() {
    let peer = Peer::listen().await;
    let (connection, mut remote) = open(&peer).await;
    let call = list(&connection);
    let id = remote.receive().await.unwrap().id();
    let other = CorrelationId::new(id.get() + 1);
    remote.respond(other, &numbered(1)).await;
    let (_, cause) = cause(call.await.unwrap());
    assert!(matches!(cause, ConnectionError::UnknownCorrelation(found) if found == other), "{cause}");
}

#[tokio::test]
async fn a_response_beyond_the_limit_ends_the_connection() {
    let peer = Peer::listen().await;
    let options = ClientOptions { response_bytes_max: 20, ..ClientOptions::default() };
    let (connection, mut remote) = open_with(&peer, options).await;
    let call = list(&connection);
    let id = remote.receive().await.unwrap().id();
    remote.respond(id, &numbered(1)).await;
    let (_, cause) = cause(call.await.unwrap());
    assert!(matches!(cause, ConnectionError::ResponseTooLarge { max: 20, .. }), "{cause}");
}

#[tokio::test]
async fn a_response_that_cannot_be_decoded_fails_its_request_alone() {
    let peer = Peer::listen().await;
    let (connection, mut remote) = open(&peer).await;
    let call = list(&connection);
    let id = remote.receive().await.unwrap().id();
    let mut garbage = BytesMut::new();
    garbage.put_u32(6 + 4);
    garbage.put_u32(id.get());
    garbage.put_u16(0);
    garbage.put_u32(u32::MAX);
    remote.write(&garbage).await;
    let (_, cause) = cause(call.await.unwrap());
    assert!(matches!(cause, ConnectionError::Malformed(_)), "{cause}");
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn what_the_hello_rules_out_is_not_sent() {
    let mut peer = Peer::listen().await;
    peer.hello.request_types.retain(|known| known.request_type != RequestType::ListTopics.to_u16());
    peer.hello.request_bytes_max = 1000;
    let (connection, mut remote) = open(&peer).await;
    let (may_have_arrived, cause) = cause(connection.call(&ListTopicsRequest {}, deadline()).await);
    assert!(!may_have_arrived && matches!(cause, ConnectionError::UnsupportedRequest { request: "ListTopics" }));

    let error = produce(&connection, Acks::All, 1001).await.unwrap_err();
    let RequestError::Failed { may_have_arrived: false, cause } = error else { panic!("{error:?}") };
    assert!(matches!(cause, ConnectionError::RequestTooLarge { max: 1000, .. }), "{cause}");
    drop(connection);
    assert!(remote.receive().await.is_none(), "something was sent");
}

#[tokio::test]
async fn only_a_request_with_records_may_be_larger_than_the_control_limit() {
    let mut peer = Peer::listen().await;
    peer.hello.request_bytes_max = 8 << 20;
    let (connection, mut remote) = open(&peer).await;
    let names = vec![TopicName::parse(&"n".repeat(200)).unwrap(); 6_000];
    let error = connection.call(&MetadataRequest { topics: Some(names) }, deadline()).await.unwrap_err();
    let RequestError::Failed { may_have_arrived: false, cause } = error else { panic!("{error:?}") };
    assert!(matches!(cause, ConnectionError::RequestTooLarge { max: frame::CONTROL_REQUEST_BYTES_MAX, .. }), "{cause}");

    let larger = usize::try_from(frame::CONTROL_REQUEST_BYTES_MAX).unwrap() + 1;
    let (_, received) = tokio::join!(produce(&connection, Acks::None, larger), remote.receive());
    assert_eq!(received.expect("the connection is as it was").request_type(), RequestType::Produce);
}

#[tokio::test]
async fn requests_in_flight_are_bounded_by_the_hello() {
    let mut peer = Peer::listen().await;
    peer.hello.in_flight_max = 2;
    let (connection, mut remote) = open(&peer).await;
    let calls: Vec<_> = (0..6).map(|_| list(&connection)).collect();
    let mut waiting = vec![remote.receive().await.unwrap().id(), remote.receive().await.unwrap().id()];
    for _ in 2..6 {
        assert_eq!(connection.shared.in_flight.available_permits(), 0);
        remote.respond(waiting.remove(0), &numbered(1)).await;
        waiting.push(remote.receive().await.unwrap().id());
    }
    for id in waiting {
        remote.respond(id, &numbered(1)).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_time_out_on_a_silent_connection_ends_it_and_on_a_busy_one_does_not() {
    let peer = Peer::listen().await;
    let (connection, mut remote) = open(&peer).await;
    let short = Duration::from_millis(30);
    // The quick answer has to come before it even on a busy machine.
    let patient = Duration::from_secs(1);

    let (slow, quick) = (connection.clone(), connection.clone());
    let slow = tokio::spawn(async move { slow.call(&ListTopicsRequest {}, Instant::now() + patient).await });
    remote.receive().await.unwrap();
    let quick = tokio::spawn(async move { quick.call(&ListTopicsRequest {}, deadline()).await });
    let id = remote.receive().await.unwrap().id();
    remote.respond(id, &numbered(1)).await;
    quick.await.unwrap().unwrap();
    let (may_have_arrived, error) = cause(slow.await.unwrap());
    assert!(may_have_arrived && matches!(error, ConnectionError::AnswerTimedOut(_)), "{error}");
    assert!(!connection.is_closed());

    let waiting = list(&connection);
    remote.receive().await.unwrap();
    cause(connection.call(&ListTopicsRequest {}, Instant::now() + short).await);
    let (_, error) = cause(waiting.await.unwrap());
    assert!(matches!(error, ConnectionError::Silent(_)), "{error}");
}

#[tokio::test]
async fn a_late_response_to_a_cancelled_request_is_thrown_away() {
    let peer = Peer::listen().await;
    let (connection, mut remote) = open(&peer).await;
    let cancelled = list(&connection);
    let late = remote.receive().await.unwrap().id();
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    let call = list(&connection);
    let id = remote.receive().await.unwrap().id();
    remote.respond(late, &numbered(1)).await;
    remote.respond(id, &numbered(2)).await;
    assert_eq!(call.await.unwrap().unwrap(), numbered(2));
}

#[tokio::test]
async fn a_request_that_is_cancelled_while_it_waits_for_its_turn_is_not_sent() {
    let mut peer = Peer::listen().await;
    peer.hello.in_flight_max = 1;
    let (connection, mut remote) = open(&peer).await;
    let first = list(&connection);
    let id = remote.receive().await.unwrap().id();
    let second = list(&connection);
    tokio::task::yield_now().await;
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    remote.respond(id, &numbered(1)).await;
    first.await.unwrap().unwrap();
    drop(connection);
    assert!(remote.receive().await.is_none(), "the cancelled request was sent");
}

/// Produces so many bytes, which need not be batches: the peer does not look.
async fn produce(connection: &Connection, acks: Acks, bytes: usize) -> Result<(), RequestError> {
    let partition = PartitionIndex::new(0);
    let partitions = vec![ProducePartition { partition, records_bytes: u32::try_from(bytes).unwrap() }];
    let topics = vec![ProduceTopic { topic: TopicName::parse("t").unwrap(), partitions }];
    let head = ProduceHead { acks, timeout_ms: 0, topics };
    connection.produce(&head, [Bytes::from(vec![7; bytes])], deadline()).await.map(|_| ())
}

#[tokio::test]
async fn unacknowledged_records_are_done_when_they_are_written() {
    let peer = Peer::listen().await;
    let (connection, mut remote) = open(&peer).await;
    produce(&connection, Acks::None, 100).await.unwrap();
    let received = remote.receive().await.unwrap();
    assert_eq!(received.request_type(), RequestType::Produce);
    assert!(received.body.ends_with(&[7; 100]));
}

#[tokio::test]
async fn a_request_that_left_only_in_part_surely_did_not_arrive() {
    let peer = Peer::listen().await;
    let (connection, remote) = open(&peer).await;
    let whole = {
        let connection = connection.clone();
        tokio::spawn(async move { produce(&connection, Acks::All, 10).await })
    };
    // More than the socket buffers of both ends take while the peer does not read.
    let partial = {
        let connection = connection.clone();
        tokio::spawn(async move { produce(&connection, Acks::All, 60 << 20).await })
    };
    remote.readable().await;
    drop(remote);
    let arrived = |error| matches!(error, RequestError::Failed { may_have_arrived: true, .. });
    assert!(arrived(whole.await.unwrap().unwrap_err()));
    assert!(!arrived(partial.await.unwrap().unwrap_err()));
}

#[tokio::test]
async fn a_large_fetch_comes_back_whole_and_sliced() {
    let peer = Peer::listen().await;
    let (connection, mut remote) = open(&peer).await;
    let call = {
        let connection = connection.clone();
        let request = FetchRequest { max_wait_ms: 0, min_bytes: 0, max_bytes: 0, topics: Vec::new() };
        tokio::spawn(async move { connection.fetch(&request, deadline()).await })
    };
    let id = remote.receive().await.unwrap().id();
    let section: Vec<u8> = (0..251).cycle().take(3 << 20).collect();
    let partition = FetchedPartition {
        partition: PartitionIndex::new(0),
        error: ErrorCode::None,
        detail: Detail::NONE,
        log_start_offset: Offset::ZERO,
        high_watermark: Offset::ZERO,
        records_bytes: u32::try_from(section.len()).unwrap(),
    };
    let topics = vec![FetchedTopic { topic: TopicName::parse("t").unwrap(), partitions: vec![partition] }];
    let mut response = BytesMut::new();
    frame::encode_response_head(id, &FetchResponseHead { topics: topics.clone() }, &mut response).unwrap();
    response.extend_from_slice(&section);
    remote.write(&response).await;
    let fetched = call.await.unwrap().unwrap();
    assert_eq!(fetched.head.topics, topics);
    assert_eq!(fetched.sections, section);
}

#[tokio::test]
async fn opening_names_what_is_wrong_at_the_address() {
    let closed = {
        let peer = Peer::listen().await;
        peer.address()
    };
    let options = ClientOptions::default();
    let error = Connection::open(&closed.into(), &options, deadline()).await.unwrap_err();
    assert!(matches!(error, ConnectionError::Connect { address, .. } if address == closed), "{error}");

    let silent = Peer::listen().await;
    let soon = Instant::now() + Duration::from_millis(30);
    let error = Connection::open(&silent.address().into(), &options, soon).await.unwrap_err();
    assert!(matches!(error, ConnectionError::OpenTimedOut { .. }), "{error}");
}

#[tokio::test]
async fn localhost_finds_a_broker_on_either_loopback_address() {
    for loopback in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(peer) = Peer::listen_at(loopback).await else {
            // A machine without IPv6 has no second loopback address to find.
            assert_eq!(loopback, "[::1]:0");
            continue;
        };
        let address = BrokerAddress::new("localhost", peer.address().port());
        let options = ClientOptions::default();
        let (opened, _accepted) = tokio::join!(Connection::open(&address, &options, deadline()), peer.accept());
        assert_eq!(opened.unwrap().peer(), peer.address());
    }
}
