//! Which broker and which port requests go to.

use std::time::Duration;

use ringmq_wire::protocol::RequestType;
use ringmq_wire::{ErrorCode, Offset, PartitionIndex};
use tokio::net::TcpListener;

use super::{connect, with_topic};
use crate::client::Client;
use crate::connection::ConnectionError;
use crate::error::Error;
use crate::fakes::{FakeBroker, Fault, Peer};
use crate::fetch::FetchOptions;
use crate::topic::NewTopic;

fn partition(index: u32) -> PartitionIndex {
    PartitionIndex::new(index)
}

/// A loopback port on which nobody listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn the_first_address_that_answers_is_used() {
    let broker = FakeBroker::start(1).await;
    let brokers = format!("127.0.0.1:{},localhost:{}", closed_port().await, broker.address().port());
    let client = Client::connect(&brokers).await.unwrap();
    assert!(client.admin().list_topics().await.unwrap().is_empty());
}

#[tokio::test]
async fn when_nobody_answers_every_address_is_named() {
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = stranger.local_addr().unwrap().port();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = stranger.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.6\r\n").await.unwrap();
    });
    let closed = closed_port().await;
    let error = Client::connect(format!("127.0.0.1:{closed},127.0.0.1:{port}")).await.unwrap_err();
    answering.await.unwrap();
    let text = error.to_string();
    assert!(text.contains(&closed.to_string()) && text.contains(&port.to_string()), "{text}");
    let Error::Unreachable { attempts } = error else { panic!("{error}") };
    assert!(matches!(attempts[0].error, ConnectionError::Connect { .. }));
    assert!(matches!(attempts[1].error, ConnectionError::NotBroker { .. }), "{}", attempts[1].error);
}

#[tokio::test]
async fn addresses_that_make_no_sense_are_refused_before_connecting() {
    assert!(matches!(Client::connect("host:port").await, Err(Error::Address(_))));
    assert!(matches!(Client::connect(Vec::<String>::new()).await, Err(Error::Address(_))));
}

#[tokio::test]
async fn data_goes_straight_to_the_shard_that_owns_the_partition() {
    let (broker, client) = with_topic().await;
    let shards: Vec<u16> = broker.state().shard_ports.iter().copied().flatten().collect();
    for index in 0..4 {
        client.producer().send_to("t", partition(index), "x").await.unwrap();
    }
    assert_eq!(broker.ports_of(RequestType::Produce), [shards[0], shards[1], shards[0], shards[1]]);
    assert_eq!(broker.ports_of(RequestType::Metadata), [broker.address().port()]);
}

#[tokio::test]
async fn metadata_is_asked_for_again_when_it_is_too_old() {
    let broker = FakeBroker::start(2).await;
    let age = Duration::from_secs(1_000);
    let client = Client::builder().brokers(broker.address()).metadata_age_max(age).connect().await.unwrap();
    client.admin().create_topic(NewTopic::new("t").partitions(4)).await.unwrap();
    let asked = || broker.ports_of(RequestType::Metadata).len();
    let later = async |time: Duration| {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    };
    for (wait, answers) in [(Duration::ZERO, 1), (age - Duration::from_secs(100), 1), (age, 2), (Duration::ZERO, 2)] {
        later(wait).await;
        client.producer().send_to("t", partition(0), "x").await.unwrap();
        client.consumer().fetch("t", partition(0), Offset::ZERO, FetchOptions::no_wait()).await.unwrap();
        assert_eq!(asked(), answers, "{wait:?} later");
    }
    // How many partitions there are is as old.
    later(age).await;
    assert_eq!(client.producer().partition_count("t").await.unwrap(), 4);
    assert_eq!(asked(), 3);
}

#[tokio::test]
async fn a_shard_without_a_port_of_its_own_is_reached_through_the_public_one() {
    let (broker, client) = with_topic().await;
    broker.state().shard_ports = vec![None, None];
    client.producer().send_to("t", partition(1), "x").await.unwrap();
    assert_eq!(broker.ports_of(RequestType::Produce), [broker.address().port()]);
}

#[tokio::test]
async fn a_shard_port_that_cannot_be_reached_is_passed_over_and_remembered() {
    let (broker, client) = with_topic().await;
    let stranger = Peer::listen().await;
    broker.state().shard_ports = vec![Some(closed_port().await), Some(stranger.address().port())];
    let answering = tokio::spawn(async move {
        // It hangs up on the first connection, and would hang on a second one.
        drop(stranger.accept_raw().await);
        stranger
    });
    for _ in 0..3 {
        client.producer().send_to("t", partition(0), "x").await.unwrap();
        client.producer().send_to("t", partition(1), "x").await.unwrap();
    }
    let public = broker.address().port();
    assert_eq!(broker.ports_of(RequestType::Produce), [public; 6]);
    drop(answering.await.unwrap());
}

#[tokio::test]
async fn many_that_miss_the_same_metadata_ask_once() {
    let (broker, client) = with_topic().await;
    let mut sending = tokio::task::JoinSet::new();
    for index in 0..20 {
        let producer = client.producer();
        sending.spawn(async move { producer.send_to("t", partition(index % 4), "x").await });
    }
    for sent in sending.join_all().await {
        sent.unwrap();
    }
    assert_eq!(broker.ports_of(RequestType::Metadata).len(), 1);
}

#[tokio::test]
async fn a_partition_that_has_moved_is_looked_up_again() {
    let (broker, client) = with_topic().await;
    client.producer().send_to("t", partition(0), "x").await.unwrap();
    broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::NotLeader));
    client.producer().send_to("t", partition(0), "y").await.unwrap();
    assert_eq!(broker.ports_of(RequestType::Metadata).len(), 2);
    assert_eq!(broker.end("t", 0), 2);
}

#[tokio::test]
async fn a_topic_that_was_created_again_with_more_partitions_is_looked_up_again() {
    let (broker, client) = with_topic().await;
    client.producer().send_to("t", partition(0), "x").await.unwrap();
    // By somebody else, so this client does not know.
    let other = connect(&broker).await;
    other.admin().delete_topic("t").await.unwrap();
    other.admin().create_topic(crate::NewTopic::new("t").partitions(9)).await.unwrap();
    client.producer().send_to("t", partition(8), "y").await.unwrap();
    assert_eq!(broker.end("t", 8), 1);

    let error = client.producer().send_to("t", partition(9), "z").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownPartition), "{error}");
}

#[tokio::test]
async fn an_unknown_topic_is_told_at_once_and_asked_for_again_the_next_time() {
    let broker = FakeBroker::start(1).await;
    let client = connect(&broker).await;
    let error = client.producer().send("none", "x").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic), "{error}");
    assert!(matches!(client.producer().send("../x", "x").await, Err(Error::TopicName { .. })));
    connect(&broker).await.admin().create_topic(crate::NewTopic::new("none")).await.unwrap();
    client.producer().send("none", "x").await.unwrap();
}

#[tokio::test]
async fn a_broken_connection_is_replaced() {
    let (broker, client) = with_topic().await;
    for request in [RequestType::Metadata, RequestType::ListOffsets, RequestType::Fetch] {
        broker.fail_next(request, Fault::CloseUnread);
    }
    let consumer = client.consumer();
    consumer.list_offsets("t", crate::OffsetSpec::Latest).await.unwrap();
    let options = crate::FetchOptions::no_wait();
    assert!(consumer.fetch("t", partition(0), crate::Offset::ZERO, options).await.unwrap().records.is_empty());
}

#[tokio::test]
async fn when_the_time_is_up_the_last_error_is_told() {
    let (broker, _) = with_topic().await;
    let short = std::time::Duration::from_millis(400);
    let client = Client::builder().brokers(broker.address()).timeout(short).connect().await.unwrap();
    for _ in 0..100 {
        broker.fail_next(RequestType::ListTopics, Fault::Refuse(ErrorCode::Overloaded.into()));
    }
    let error = client.admin().list_topics().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { operation: "list topics", .. }), "{error}");
    assert_eq!(error.code(), Some(ErrorCode::Overloaded));
    assert!(error.is_retriable());
}
