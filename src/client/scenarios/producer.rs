//! Sending records, and what happens when that fails half-way.

use ringmq_wire::ErrorCode;
use ringmq_wire::batch::Compression;
use ringmq_wire::protocol::{Acks, RequestType};

use super::{LONG, with_topic};
use crate::client::Client;
use crate::error::Error;
use crate::fetch::FetchOptions;
use crate::record::{Header, Record};
use crate::testing::Fault;
use crate::{AckedBy, Offset, PartitionIndex, Timestamp};

const FIRST: PartitionIndex = PartitionIndex::new(0);

async fn values(client: &Client, partition: PartitionIndex) -> Vec<String> {
    let fetched = client.consumer().fetch("t", partition, Offset::ZERO, FetchOptions::no_wait()).await.unwrap();
    let value = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    fetched.records.iter().map(|record| value(record.value.as_deref().unwrap())).collect()
}

#[tokio::test]
async fn a_record_comes_back_as_it_was_sent() {
    let (_broker, client) = with_topic().await;
    let record = Record::value("value")
        .with_key("key")
        .with_header("name", "ring")
        .with_header("empty", "")
        .with_timestamp(Timestamp::new(1234));
    for compression in [Compression::None, Compression::Lz4] {
        let producer = client.producer().compression(compression).acked_by(AckedBy::Leader);
        let delivery = producer.send("t", record.clone()).await.unwrap();
        let (partition, offset) = (delivery.partition, delivery.offset);
        let fetched = client.consumer().fetch("t", partition, offset, FetchOptions::no_wait()).await.unwrap();
        let [found] = &fetched.records[..] else { panic!("{:?}", fetched.records) };
        assert_eq!((found.partition, found.offset, found.timestamp), (partition, offset, Timestamp::new(1234)));
        assert_eq!((&found.key, &found.value, &found.headers), (&record.key, &record.value, &record.headers));
    }
}

#[tokio::test]
async fn absent_differs_from_empty() {
    let (_broker, client) = with_topic().await;
    let header = Header { key: "h".to_owned(), value: None };
    let absent = Record { headers: vec![header], ..Record::default() };
    let empty = Record::value("").with_key("");
    client.producer().send_batch("t", FIRST, vec![absent.clone(), empty.clone()]).await.unwrap();
    let fetched = client.consumer().fetch("t", FIRST, Offset::ZERO, FetchOptions::no_wait()).await.unwrap();
    for (found, sent) in fetched.records.iter().zip([absent, empty]) {
        assert_eq!((&found.key, &found.value, &found.headers), (&sent.key, &sent.value, &sent.headers));
    }
}

#[tokio::test]
async fn a_key_keeps_its_partition_and_records_without_one_spread() {
    let (broker, client) = with_topic().await;
    let producer = client.producer();
    let keyed = producer.send("t", Record::value("a").with_key("k")).await.unwrap();
    assert_eq!(producer.partition_for("t", Some(b"k")).await.unwrap(), keyed.partition);
    for _ in 0..5 {
        let again = client.producer().send("t", Record::value("a").with_key("k")).await.unwrap();
        assert_eq!(again.partition, keyed.partition);
    }
    let before: Vec<i64> = (0..4).map(|partition| broker.end("t", partition)).collect();
    for _ in 0..8 {
        producer.send("t", "x").await.unwrap();
    }
    let after: Vec<i64> = (0..4).map(|partition| broker.end("t", partition)).collect();
    assert!(before.iter().zip(&after).all(|(before, after)| after - before == 2), "{before:?} {after:?}");
    assert_eq!(producer.partition_count("t").await.unwrap(), 4);
}

#[tokio::test]
async fn a_batch_is_stored_side_by_side() {
    let (_broker, client) = with_topic().await;
    let producer = client.producer();
    producer.send_to("t", FIRST, "0").await.unwrap();
    let stored = producer.send_batch("t", FIRST, ["1", "2", "3"].map(Record::value).to_vec()).await.unwrap();
    assert_eq!((stored.count(), stored.offsets.clone()), (3, Offset::new(1)..Offset::new(4)));
    let offsets: Vec<i64> = stored.iter().map(|delivery| delivery.offset.get()).collect();
    assert_eq!(offsets, [1, 2, 3]);
    assert_eq!(values(&client, FIRST).await, ["0", "1", "2", "3"]);
    assert!(matches!(producer.send_batch("t", FIRST, Vec::new()).await, Err(Error::Argument(_))));
}

#[tokio::test]
async fn a_lost_acknowledgement_is_told_and_nothing_is_sent_again() {
    let (broker, client) = with_topic().await;
    for fault in [Fault::CloseAfterDoing, Fault::CloseUnread] {
        let before = broker.ports_of(RequestType::Produce).len();
        broker.fail_next(RequestType::Produce, fault);
        let error = client.producer().send_to("t", FIRST, "once").await.unwrap_err();
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
async fn errors_that_leave_it_open_are_told_as_such() {
    let (broker, client) = with_topic().await;
    for code in [ErrorCode::StorageFailed, ErrorCode::RequestTimedOut, ErrorCode::UnknownServerError] {
        broker.fail_next(RequestType::Produce, Fault::RefuseItems(code));
        let error = client.producer().send_to("t", FIRST, "x").await.unwrap_err();
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
    let short = std::time::Duration::from_millis(200);
    let client = Client::builder().brokers(broker.address()).timeout(short).connect().await.unwrap();
    client.producer().partition_count("t").await.unwrap();
    broker.fail_next(RequestType::Produce, Fault::Silence);
    let error = client.producer().send_to("t", FIRST, "x").await.unwrap_err();
    assert!(matches!(error, Error::MaybeStored { .. }), "{error}");
}

#[tokio::test]
async fn unacknowledged_records_arrive_too() {
    let (broker, client) = with_topic().await;
    let partition = client.producer().send_unacknowledged("t", "x").await.unwrap();
    broker.has_received(RequestType::Produce, 1).await;
    // A request behind it on the same connection is answered after it.
    client.producer().send_to("t", partition, "y").await.unwrap();
    assert_eq!(values(&client, partition).await, ["x", "y"]);
}

#[tokio::test]
async fn encoded_batches_are_stored_as_they_are() {
    let (broker, client) = with_topic().await;
    client.producer().send_batch("t", FIRST, ["a", "b"].map(Record::value).to_vec()).await.unwrap();
    let raw = client.consumer().fetch_raw("t", FIRST, Offset::ZERO, FetchOptions::no_wait()).await.unwrap();
    assert_eq!(raw.high_watermark, Offset::new(2));
    let other = PartitionIndex::new(3);
    let twice = [raw.batches.clone(), raw.batches].concat();
    let stored = client.producer().send_encoded("t", other, twice.into(), Acks::All).await.unwrap().unwrap();
    assert_eq!(stored.offsets, Offset::ZERO..Offset::new(4));
    assert_eq!(values(&client, other).await, ["a", "b", "a", "b"]);
    assert_eq!(broker.end("t", 3), 4);
}

#[tokio::test]
async fn a_broker_that_comes_back_gets_what_waited() {
    let (broker, _) = with_topic().await;
    let client = Client::builder()
        .brokers(broker.address())
        .timeout(LONG)
        .unreachable_for(std::time::Duration::ZERO)
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
