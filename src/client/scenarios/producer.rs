//! Sending records, and what happens when that fails half-way.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use ringmq_wire::ErrorCode;
use ringmq_wire::protocol::RequestType;

use super::{LONG, with_topic};
use crate::client::Client;
use crate::error::Error;
use crate::fakes::{FakeBroker, Fault};
use crate::fetch::FetchOptions;
use crate::record::Record;
use crate::topic::NewTopic;
use crate::{Offset, PartitionIndex};

const FIRST: PartitionIndex = PartitionIndex::new(0);

async fn values(client: &Client, partition: PartitionIndex) -> Vec<String> {
    let fetched = client.consumer().fetch("t", partition, Offset::ZERO, FetchOptions::no_wait()).await.unwrap();
    let value = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    fetched.records.iter().map(|record| value(record.value.as_deref().unwrap())).collect()
}

#[tokio::test]
async fn without_an_identity_a_lost_acknowledgement_is_told_and_nothing_is_sent_again() {
    let (broker, client) = with_topic().await;
    let producer = client.producer().idempotent(false);
    for fault in [Fault::CloseAfterDoing, Fault::CloseUnread] {
        let before = broker.ports_of(RequestType::Produce).len();
        broker.fail_next(RequestType::Produce, fault);
        let error = producer.send_to("t", FIRST, "once").await.unwrap_err();
        assert!(matches!(error, Error::MaybeStored { .. }) && !error.is_retriable(), "{error}");
        assert_eq!(broker.ports_of(RequestType::Produce).len(), before + 1);
    }
    assert_eq!(values(&client, FIRST).await, ["once"]);
}

#[tokio::test]
async fn what_surely_was_not_stored_is_sent_again() {
    let (broker, client) = with_topic().await;
    broker.fail_next(RequestType::Produce, Fault::Refuse(ErrorCode::Overloaded.into()));
    broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::ShuttingDown));
    broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::StorageFull));
    client.producer().send_to("t", FIRST, "x").await.unwrap();
    assert_eq!(broker.ports_of(RequestType::Produce).len(), 4);
    assert_eq!(values(&client, FIRST).await, ["x"]);
}

#[tokio::test]
async fn what_surely_was_not_stored_is_told_as_such_when_the_time_is_up() {
    let broker = FakeBroker::start(2).await;
    let client = Client::builder().brokers(broker.address()).timeout(Duration::from_secs(1)).connect().await.unwrap();
    client.admin().create_topic(NewTopic::new("t").partitions(4)).await.unwrap();
    for _ in 0..100 {
        broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::StorageNotReady));
    }
    let short = Duration::from_secs(1);
    let (one, other) = (client.producer().delivery_timeout(short), client.producer().delivery_timeout(short));
    let (one, other) = tokio::join!(one.send_to("t", FIRST, "x"), other.send_to("t", FIRST, "y"));
    for error in [one.unwrap_err(), other.unwrap_err()] {
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        assert_eq!(error.code(), Some(ErrorCode::StorageNotReady));
    }
}

#[tokio::test]
async fn errors_that_leave_it_open_are_told_as_such() {
    let (broker, client) = with_topic().await;
    for code in [ErrorCode::StorageFailed, ErrorCode::RequestTimedOut, ErrorCode::UnknownServerError] {
        broker.fail_next(RequestType::Produce, Fault::RefuseItems(code));
        let error = client.producer().idempotent(false).send_to("t", FIRST, "x").await.unwrap_err();
        assert!(matches!(error, Error::MaybeStored { .. }), "{error}");
        assert_eq!(error.code(), Some(code));
    }
    broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::RecordTooLarge));
    let error = client.producer().send_to("t", FIRST, "x").await.unwrap_err();
    assert!(matches!(error, Error::Broker { .. }), "{error}");
    assert_eq!(broker.ports_of(RequestType::Produce).len(), 4);
}

#[tokio::test]
async fn a_silent_broker_leaves_it_open_whether_records_are_stored() {
    let (broker, _) = with_topic().await;
    let short = Duration::from_millis(200);
    let client = Client::builder().brokers(broker.address()).timeout(short).connect().await.unwrap();
    client.producer().partition_count("t").await.unwrap();
    broker.fail_next(RequestType::Produce, Fault::Silence);
    let error = client.producer().delivery_timeout(short).send_to("t", FIRST, "x").await.unwrap_err();
    assert!(matches!(error, Error::MaybeStored { .. }), "{error}");
}

#[tokio::test]
async fn a_broker_that_comes_back_gets_what_waited() {
    let (broker, _) = with_topic().await;
    let client = Client::builder()
        .brokers(broker.address())
        .timeout(LONG)
        .unreachable_for(Duration::ZERO)
        .connect()
        .await
        .unwrap();
    // Nothing can be sent while every port refuses.
    let port = {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        taken.local_addr().unwrap().port()
    };
    broker.state().shard_ports = vec![Some(port); 2];
    broker.fail_next(RequestType::Metadata, Fault::CloseUnread);
    broker.fail_next(RequestType::Produce, Fault::Refuse(ErrorCode::ShuttingDown.into()));
    client.producer().send_to("t", FIRST, "x").await.unwrap();
    assert_eq!(broker.end("t", 0), 1);
}

#[tokio::test]
async fn a_lost_acknowledgement_is_asked_for_until_it_comes_and_nothing_is_stored_twice() {
    let (broker, client) = with_topic().await;
    let producer = client.producer();
    for (number, fault) in (0..).zip([
        Fault::CloseAfterDoing,
        Fault::CloseUnread,
        Fault::RefuseItems(ErrorCode::RequestTimedOut),
        Fault::RefuseItems(ErrorCode::StorageFull),
        Fault::Refuse(ErrorCode::ShuttingDown.into()),
    ]) {
        broker.fail_next(RequestType::Produce, fault.clone());
        broker.fail_next(RequestType::Produce, fault);
        let delivery = producer.send_to("t", FIRST, format!("{number}")).await.unwrap();
        assert_eq!(delivery.offset, Offset::new(number));
    }
    assert_eq!(values(&client, FIRST).await, ["0", "1", "2", "3", "4"]);
    assert_eq!(broker.state().producers, 1, "one identity did for all of it");
}

#[tokio::test]
async fn what_is_in_flight_stays_in_order_when_a_connection_is_lost() {
    let (broker, client) = with_topic().await;
    let producer = client.producer().batch_bytes_max(1);
    producer.send_to("t", FIRST, "first").await.unwrap();
    for fault in [Fault::CloseAfterDoing, Fault::CloseUnread, Fault::RefuseItems(ErrorCode::StorageFull)] {
        let before = usize::try_from(broker.end("t", 0)).unwrap();
        broker.fail_next(RequestType::Produce, fault);
        let names: Vec<String> = (0..40).map(|number| format!("{before}-{number}")).collect();
        let sent = names.iter().map(|name| producer.send_to("t", FIRST, name.clone()));
        let offsets: Vec<Offset> =
            all(sent.collect()).await.into_iter().map(|delivery| delivery.unwrap().offset).collect();
        assert!(offsets.is_sorted(), "in the order of the calls");
        assert_eq!(values(&client, FIRST).await[before..], names, "each once");
    }
}

/// Everything that these give, all begun in their order before any is waited for.
async fn all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outcomes: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, outcome) in futures.iter_mut().zip(&mut outcomes).filter(|(_, outcome)| outcome.is_none()) {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                *outcome = Some(value);
            }
        }
        if outcomes.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_batch_that_is_refused_for_good_fails_alone() {
    let (broker, client) = with_topic().await;
    let producer = client.producer().batch_bytes_max(1);
    producer.send_to("t", FIRST, "0").await.unwrap();
    broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::RecordTooLarge));
    let sent = ["refused", "1", "2", "3"].map(|name| producer.send_to("t", FIRST, name));
    let outcomes = all(sent.into()).await;
    assert_eq!(outcomes[0].as_ref().unwrap_err().code(), Some(ErrorCode::RecordTooLarge));
    assert!(outcomes[1..].iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(values(&client, FIRST).await, ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn everyone_whose_records_wait_for_a_partition_gets_the_same_error() {
    let (_broker, client) = with_topic().await;
    let producer = client.producer();
    let sent = ["x", "y", "z"].map(|value| producer.send_to("not a name", FIRST, value));
    for outcome in all(sent.into()).await {
        assert!(matches!(outcome, Err(Error::TopicName { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn after_errors_of_its_sequence_a_producer_begins_anew() {
    let (broker, client) = with_topic().await;
    let producer = client.producer();
    producer.send_to("t", FIRST, "0").await.unwrap();
    for (code, ids) in [(ErrorCode::OutOfOrderSequence, 1), (ErrorCode::InvalidProducerEpoch, 2)] {
        broker.fail_next(RequestType::Produce, Fault::RefuseItems(code));
        let error = producer.send_to("t", FIRST, "lost").await.unwrap_err();
        assert_eq!(error.code(), Some(code), "{error}");
        assert!(!error.is_retriable());
        producer.send_to("t", FIRST, "stored").await.unwrap();
        assert_eq!(broker.state().producers, ids, "a new epoch, or another identity");
    }
    assert_eq!(values(&client, FIRST).await, ["0", "stored", "stored"]);
}

#[tokio::test]
async fn what_was_given_up_is_not_stored_behind_what_comes_later() {
    let (broker, _) = with_topic().await;
    let short = Duration::from_millis(300);
    let client = Client::builder().brokers(broker.address()).timeout(short).connect().await.unwrap();
    let producer = client.producer().delivery_timeout(short);
    producer.send_to("t", FIRST, "0").await.unwrap();
    for _ in 0..8 {
        broker.fail_next(RequestType::Produce, Fault::Silence);
    }
    let error = producer.send_to("t", FIRST, "given up").await.unwrap_err();
    assert!(matches!(error, Error::MaybeStored { .. }), "{error}");
    // It goes on in a new epoch, whatever became of that one.
    while producer.send_to("t", FIRST, "later").await.is_err() {}
    let seen = values(&client, FIRST).await;
    assert!(seen.iter().filter(|value| *value == "given up").count() <= 1, "{seen:?}");
    assert_eq!(seen.last().map(String::as_str), Some("later"));
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_no_gap() {
    let (broker, _) = with_topic().await;
    let short = Duration::from_secs(2);
    let client = Client::builder().brokers(broker.address()).timeout(short).connect().await.unwrap();
    let producer = client.producer();
    producer.send_to("t", FIRST, "0").await.unwrap();
    broker.fail_next(RequestType::Produce, Fault::Silence);
    let abandoned = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send_to("t", FIRST, "1").await }
    });
    broker.has_received(RequestType::Produce, 2).await;
    abandoned.abort();
    producer.send_to("t", FIRST, "2").await.unwrap();
    let seen = values(&client, FIRST).await;
    assert!(seen == ["0", "1", "2"] || seen == ["0", "2"], "{seen:?}");
}

#[tokio::test]
async fn a_lane_that_is_never_idle_gives_each_batch_its_own_time() {
    let (broker, _) = with_topic().await;
    let timeout = Duration::from_millis(500);
    let client = Client::builder().brokers(broker.address()).timeout(timeout).connect().await.unwrap();
    let begun = tokio::time::Instant::now();
    let senders = (0..8).map(|sender| {
        let producer = client.producer().delivery_timeout(timeout);
        tokio::spawn(async move {
            let mut sent = 0;
            while begun.elapsed() < 3 * timeout {
                producer.send_to("t", FIRST, format!("{sender}-{sent}")).await.unwrap();
                sent += 1;
            }
            sent
        })
    });
    let mut sent = 0;
    for sender in senders.collect::<Vec<_>>() {
        sent += sender.await.unwrap();
    }
    assert_eq!(broker.end("t", 0), sent);
}

#[tokio::test(start_paused = true)]
async fn what_came_late_to_a_lane_that_is_never_idle_is_tried_again_within_its_own_time() {
    let (broker, client) = with_topic().await;
    let (timeout, pace) = (Duration::from_secs(2), Duration::from_millis(100));
    let producer = client.producer().batch_bytes_max(1).delivery_timeout(timeout);
    producer.send_to("t", FIRST, "first").await.unwrap();
    broker.state().produce_takes = pace;
    let mut pending = VecDeque::new();
    for number in 0..40 {
        if number == 30 {
            broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::StorageNotReady));
        }
        pending.push_back(producer.enqueue("t", Record::value(number.to_string()).to_partition(FIRST)).await.unwrap());
        // Two are on their way at any time.
        if pending.len() > 2 {
            pending.pop_front().unwrap().await.unwrap();
        }
    }
    producer.flush().await.unwrap();
    assert_eq!(broker.end("t", 0), 41);
}

#[tokio::test(start_paused = true)]
async fn what_was_told_as_surely_not_stored_is_not_sent_again_before_others() {
    let (broker, client) = with_topic().await;
    let producer = || client.producer().batch_bytes_max(1).linger(Duration::ZERO);
    producer().send_to("t", FIRST, "0").await.unwrap();
    broker.fail_until_over(RequestType::Produce, &Fault::RefuseItems(ErrorCode::StorageFull));
    let impatient = producer().delivery_timeout(Duration::from_secs(5));
    let patient = producer().delivery_timeout(Duration::from_secs(30));
    let sent = all(vec![impatient.send_to("t", FIRST, "1"), patient.send_to("t", FIRST, "2")]);
    let (sent, ()) = tokio::join!(sent, async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        broker.faults_are_over();
    });
    let told = sent[0].as_ref().unwrap_err();
    assert!(matches!(told, Error::TimedOut { .. }) && told.is_retriable(), "{told}");
    assert!(sent[1].is_ok(), "{:?}", sent[1]);
    assert_eq!(values(&client, FIRST).await, ["0", "2"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_while_the_broker_could_not_be_reached_is_not_sent() {
    let (broker, client) = with_topic().await;
    let producer = || client.producer().batch_bytes_max(1).linger(Duration::ZERO);
    producer().send_to("t", FIRST, "0").await.unwrap();
    for _ in 0..2 {
        broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::NotLeader));
    }
    broker.fail_next(RequestType::Metadata, Fault::Silence);
    let impatient = producer().delivery_timeout(Duration::from_secs(1));
    let patient = producer().delivery_timeout(Duration::from_secs(30));
    let sent = all(vec![impatient.send_to("t", FIRST, "1"), patient.send_to("t", FIRST, "2")]).await;
    assert!(matches!(sent[0], Err(Error::TimedOut { .. })), "{:?}", sent[0]);
    assert!(sent[1].is_ok(), "{:?}", sent[1]);
    assert_eq!(values(&client, FIRST).await, ["0", "2"]);
}

#[tokio::test(start_paused = true)]
async fn without_an_identity_too_what_was_given_up_before_it_was_sent_is_not() {
    let (broker, client) = with_topic().await;
    let producer = || client.producer().idempotent(false).batch_bytes_max(1);
    producer().partition_count("t").await.unwrap();
    broker.state().greeting_takes = Duration::from_secs(3);
    let impatient = producer().delivery_timeout(Duration::from_secs(1));
    let patient = producer().delivery_timeout(Duration::from_secs(30));
    // The second waits until the first has opened the connection.
    let sent = all(vec![patient.send_to("t", FIRST, "1"), impatient.send_to("t", FIRST, "2")]).await;
    assert!(sent[0].is_ok(), "{:?}", sent[0]);
    assert!(matches!(sent[1], Err(Error::TimedOut { .. })), "{:?}", sent[1]);
    // What is sent on the connection now comes behind it.
    patient.send_to("t", FIRST, "3").await.unwrap();
    assert_eq!(values(&client, FIRST).await, ["1", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_identity_too_batches_go_out_in_order() {
    let (_broker, client) = with_topic().await;
    let producer = client.producer().idempotent(false).batch_bytes_max(1);
    let handed: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    for value in &handed {
        drop(producer.enqueue("t", Record::value(value.clone()).to_partition(FIRST)).await.unwrap());
    }
    producer.flush().await.unwrap();
    assert_eq!(values(&client, FIRST).await, handed);
}

#[tokio::test]
async fn times_without_an_end_are_none() {
    let broker = FakeBroker::start(1).await;
    let client = Client::builder().brokers(broker.address()).timeout(Duration::MAX).connect_timeout(Duration::MAX);
    let client = client.connect().await.unwrap();
    client.admin().create_topic(NewTopic::new("t")).await.unwrap();
    for idempotent in [true, false] {
        let producer = client.producer().idempotent(idempotent).delivery_timeout(Duration::MAX).linger(Duration::MAX);
        broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::StorageFull));
        let pending = ["1", "2", "3"].map(|value| producer.send_to("t", FIRST, value));
        assert!(all(pending.into()).await.iter().all(Result::is_ok));
        producer.close().await.unwrap();
    }
    assert_eq!(broker.end("t", 0), 6);
}
