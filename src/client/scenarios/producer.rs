//! Sending records, and what happens when that fails half-way.

use ringmq_wire::ErrorCode;
use ringmq_wire::protocol::RequestType;

use super::{LONG, with_topic};
use crate::client::Client;
use crate::error::Error;
use crate::fetch::FetchOptions;
use crate::testing::Fault;
use crate::{Offset, PartitionIndex};

const FIRST: PartitionIndex = PartitionIndex::new(0);

async fn values(client: &Client, partition: PartitionIndex) -> Vec<String> {
    let fetched = client.consumer().fetch("t", partition, Offset::ZERO, FetchOptions::no_wait()).await.unwrap();
    let value = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    fetched.records.iter().map(|record| value(record.value.as_deref().unwrap())).collect()
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
