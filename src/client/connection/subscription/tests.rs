//! Subscriptions against a peer that sends what a test orders.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use ringmq_wire::protocol::{
    FetchPartition, FetchTopic, FetchedPartition, FetchedTopic, GrantCreditResponse, ListTopicsRequest,
    ListTopicsResponse, RequestType, SubscribeRequest, SubscribedHead, UnsubscribeRequest, UnsubscribeResponse, frame,
};
use ringmq_wire::{CorrelationId, Detail, ErrorCode, Offset, PartitionIndex, TopicName, WireError};
use tokio::time::Instant;

use super::super::{Connection, ConnectionError, RequestError};
use super::{Frame, Subscription};
use crate::fakes::{Peer, PeerConnection};
use crate::options::ClientOptions;

/// Long enough for a busy machine; nothing waits for it unless it is broken.
const LONG: Duration = Duration::from_secs(60);

fn deadline() -> Instant {
    Instant::now() + LONG
}

fn topic() -> TopicName {
    TopicName::parse("t").unwrap()
}

/// What a frame says of partition 0: so many bytes of records, or an error.
fn told(records_bytes: u32, error: ErrorCode) -> FetchedPartition {
    FetchedPartition {
        partition: PartitionIndex::new(0),
        error,
        detail: Detail::NONE,
        log_start_offset: Offset::ZERO,
        high_watermark: Offset::ZERO,
        records_bytes,
    }
}

/// A frame of so many bytes of records, each byte `mark`; one of none is a sign of life.
fn frame_of(id: CorrelationId, is_last: bool, mark: u8, bytes: u32) -> BytesMut {
    let partitions = vec![told(bytes, ErrorCode::None)];
    let topics = if bytes == 0 { Vec::new() } else { vec![FetchedTopic { topic: topic(), partitions }] };
    let mut out = BytesMut::new();
    frame::encode_response_head(id, &SubscribedHead { is_last, topics }, &mut out).unwrap();
    out.resize(out.len() + bytes as usize, mark);
    out
}

/// An open subscription to one partition with this credit, and the peer that has just learned of it.
async fn subscribed(credit_bytes: u32) -> (Connection, Subscription, PeerConnection, CorrelationId) {
    let peer = Peer::listen().await;
    let (address, options) = (peer.address().into(), ClientOptions::default());
    let (opened, mut remote) = tokio::join!(Connection::open(&address, &options, deadline()), peer.accept());
    let connection = opened.unwrap();
    let subscription = subscribe(&connection, credit_bytes).await;
    let received = remote.receive().await.unwrap();
    assert_eq!(received.request_type(), RequestType::Subscribe);
    (connection, subscription, remote, received.id())
}

async fn subscribe(connection: &Connection, credit_bytes: u32) -> Subscription {
    let wanted =
        FetchPartition { partition: PartitionIndex::new(0), fetch_offset: Offset::ZERO, partition_max_bytes: 1000 };
    let topics = vec![FetchTopic { topic: topic(), partitions: vec![wanted] }];
    let request = SubscribeRequest { credit_bytes, max_bytes: 1000, heartbeat_ms: 1000, topics };
    let slot = connection.subscription_slot().expect("the peer has subscriptions");
    connection.subscribe(&request, slot, deadline()).await.unwrap()
}

fn mark(frame: &Frame) -> (u8, usize, bool) {
    (frame.sections.first().copied().unwrap_or_default(), frame.sections.len(), frame.head.is_last)
}

fn cause(failed: Result<Option<Frame>, RequestError>) -> ConnectionError {
    match failed {
        Err(RequestError::Failed { cause, .. }) => cause,
        other => panic!("the connection should have failed: {other:?}"),
    }
}

/// One request and its answer, by which everything that was sent before it has been taken in on both sides.
async fn round_trip(connection: &Connection, remote: &mut PeerConnection) {
    let answering = async {
        let received = remote.receive().await.unwrap();
        assert_eq!(received.request_type(), RequestType::ListTopics);
        remote.respond(received.id(), &ListTopicsResponse { topics: Vec::new() }).await;
    };
    let (answer, ()) = tokio::join!(connection.call(&ListTopicsRequest {}, deadline()), answering);
    answer.unwrap();
}

#[tokio::test]
async fn frames_come_in_order_between_answers_and_without_requests_until_the_last() {
    let (connection, mut subscription, mut remote, id) = subscribed(1000).await;
    remote.write(&frame_of(id, false, 1, 10)).await;
    round_trip(&connection, &mut remote).await;
    for frame in [frame_of(id, false, 0, 0), frame_of(id, false, 2, 20), frame_of(id, true, 3, 30)] {
        remote.write(&frame).await;
    }
    for expected in [(1, 10, false), (2, 20, false), (3, 30, true)] {
        assert_eq!(mark(&subscription.next(LONG).await.unwrap().unwrap()), expected);
    }
    assert_eq!(subscription.next(LONG).await.unwrap(), None);
    // It has ended by itself: nobody is asked to end it.
    drop(subscription);
    round_trip(&connection, &mut remote).await;

    remote.write(&frame_of(id, false, 4, 10)).await;
    let error = connection.call(&ListTopicsRequest {}, deadline()).await.unwrap_err();
    let RequestError::Failed { cause, .. } = error else { panic!("{error}") };
    assert!(matches!(cause, ConnectionError::UnknownCorrelation(found) if found == id), "{cause}");
}

#[tokio::test]
async fn giving_up_a_wait_loses_no_frame() {
    let (_connection, mut subscription, mut remote, id) = subscribed(1000).await;
    for mark in 1..=50 {
        remote.write(&frame_of(id, false, mark, 1)).await;
    }
    remote.write(&frame_of(id, true, 51, 1)).await;
    let (mut found, mut given_up) = (Vec::new(), 0);
    while found.len() < 51 {
        let polled = pin!(subscription.next(LONG)).poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(next) => found.push(mark(&next.unwrap().unwrap()).0),
            Poll::Pending => {
                given_up += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    assert!(given_up > 0);
    assert_eq!(found, (1..=51).collect::<Vec<u8>>());
}

#[tokio::test]
async fn one_that_is_dropped_is_ended_and_its_late_frames_are_thrown_away() {
    let (connection, subscription, mut remote, id) = subscribed(1000).await;
    drop(subscription);
    let received = remote.receive().await.unwrap();
    assert_eq!(received.decode::<UnsubscribeRequest>().subscription, id.get());
    remote.write(&frame_of(id, false, 1, 10)).await;
    // Refused, it is asked again with the next sign of life.
    remote.refuse(received.id(), &WireError::from(ErrorCode::Overloaded)).await;
    remote.write(&frame_of(id, false, 0, 0)).await;
    let again = remote.receive().await.unwrap();
    assert_eq!(again.decode::<UnsubscribeRequest>().subscription, id.get());
    assert_ne!(again.id(), received.id());
    remote.respond(again.id(), &UnsubscribeResponse {}).await;

    let places = connection.shared.subscriptions.available_permits();
    remote.write(&frame_of(id, false, 2, 10)).await;
    round_trip(&connection, &mut remote).await;
    assert_eq!(connection.shared.subscriptions.available_permits(), places);
    remote.write(&frame_of(id, true, 3, 10)).await;
    round_trip(&connection, &mut remote).await;
    assert_eq!(connection.shared.subscriptions.available_permits(), places + 1);
}

#[tokio::test]
async fn no_more_comes_than_was_granted() {
    let (connection, mut subscription, mut remote, id) = subscribed(10).await;
    // As long as any credit is left a whole batch may come.
    remote.write(&frame_of(id, false, 1, 25)).await;
    assert_eq!(subscription.next(LONG).await.unwrap().unwrap().sections.len(), 25);
    let grants = subscription.grants();
    let answering = async {
        let refused = remote.receive().await.unwrap();
        remote.refuse(refused.id(), &WireError::from(ErrorCode::Overloaded)).await;
        let granted = remote.receive().await.unwrap();
        remote.respond(granted.id(), &GrantCreditResponse {}).await;
    };
    let granting = async {
        assert!(matches!(grants.grant(1000, deadline()).await, Err(RequestError::Refused(_))));
        grants.grant(20, deadline()).await.unwrap();
    };
    tokio::join!(granting, answering);
    remote.write(&frame_of(id, false, 2, 5)).await;
    assert_eq!(subscription.next(LONG).await.unwrap().unwrap().sections.len(), 5);
    // 10 - 25 + 20 - 5: nothing is left, and signs of life need nothing.
    remote.write(&frame_of(id, false, 0, 0)).await;
    round_trip(&connection, &mut remote).await;
    remote.write(&frame_of(id, false, 3, 1)).await;
    let error = cause(subscription.next(LONG).await);
    assert!(matches!(error, ConnectionError::BeyondCredit { bytes: 1 }), "{error}");
}

#[tokio::test]
async fn errors_are_told_once_for_each_partition() {
    let (_connection, mut subscription, mut remote, id) = subscribed(10).await;
    let topics = vec![FetchedTopic { topic: topic(), partitions: vec![told(0, ErrorCode::OffsetOutOfRange)] }];
    let mut lost = BytesMut::new();
    frame::encode_response_head(id, &SubscribedHead { is_last: false, topics }, &mut lost).unwrap();
    remote.write(&lost).await;
    let found = subscription.next(LONG).await.unwrap().unwrap();
    assert_eq!(found.head.topics[0].partitions[0].error, ErrorCode::OffsetOutOfRange);
    remote.write(&lost).await;
    let error = cause(subscription.next(LONG).await);
    assert!(matches!(error, ConnectionError::Malformed(_)), "{error}");
}

#[tokio::test]
async fn a_connection_cut_anywhere_in_a_frame_gives_what_came_whole_and_then_the_loss() {
    let whole = frame_of(CorrelationId::new(0), false, 1, 10).len();
    for length in 0..whole {
        let (connection, mut subscription, mut remote, id) = subscribed(1000).await;
        remote.write(&frame_of(id, false, 1, 10)).await;
        remote.write(&frame_of(id, false, 2, 10)[..length]).await;
        drop(remote);
        assert_eq!(mark(&subscription.next(LONG).await.unwrap().unwrap()), (1, 10, false));
        let error = cause(subscription.next(LONG).await);
        let expected = matches!(error, ConnectionError::Closed | ConnectionError::Io(_));
        assert!(expected && connection.is_closed(), "cut at {length}: {error}");
        assert_eq!(subscription.next(LONG).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_refusal_ends_it_alone() {
    let (connection, mut subscription, mut remote, id) = subscribed(1000).await;
    let refusal = WireError::new(ErrorCode::Overloaded, "too much");
    remote.refuse(id, &refusal).await;
    let refused = subscription.next(LONG).await;
    assert!(matches!(&refused, Err(RequestError::Refused(found)) if *found == refusal), "{refused:?}");
    assert!(!subscription.is_answered());
    round_trip(&connection, &mut remote).await;
}

#[tokio::test]
async fn signs_of_life_keep_it_and_silence_ends_it() {
    let (connection, mut subscription, mut remote, id) = subscribed(1000).await;
    let waiting = tokio::spawn(async move {
        let found = subscription.next(LONG).await;
        (subscription, found)
    });
    remote.write(&frame_of(id, false, 0, 0)).await;
    round_trip(&connection, &mut remote).await;
    assert!(!waiting.is_finished());
    remote.write(&frame_of(id, false, 1, 10)).await;
    let (mut subscription, found) = waiting.await.unwrap();
    assert_eq!(mark(&found.unwrap().unwrap()), (1, 10, false));
    assert!(subscription.is_answered());

    let error = cause(subscription.next(Duration::from_millis(30)).await);
    assert!(matches!(error, ConnectionError::AnswerTimedOut(_)), "{error}");
    let error = connection.call(&ListTopicsRequest {}, deadline()).await.unwrap_err();
    let RequestError::Failed { cause, .. } = error else { panic!("{error}") };
    assert!(matches!(cause, ConnectionError::Silent(_)), "{cause}");
}

#[tokio::test]
async fn they_leave_half_of_the_requests_in_flight_to_others() {
    let mut peer = Peer::listen().await;
    peer.hello.in_flight_max = 5;
    let (address, options) = (peer.address().into(), ClientOptions::default());
    let (opened, mut remote) = tokio::join!(Connection::open(&address, &options, deadline()), peer.accept());
    let connection = opened.unwrap();
    let _both = [subscribe(&connection, 1).await, subscribe(&connection, 1).await];
    assert!(connection.subscription_slot().is_none());
    let ids = [remote.receive().await.unwrap().id(), remote.receive().await.unwrap().id()];
    assert_ne!(ids[0], ids[1]);
    round_trip(&connection, &mut remote).await;

    peer.hello.request_types.retain(|known| known.request_type != RequestType::Subscribe.to_u16());
    let (opened, _remote) = tokio::join!(Connection::open(&address, &options, deadline()), peer.accept());
    assert!(opened.unwrap().subscription_slot().is_none());
}
