//! Fetching and asking for offsets.

use ringmq_wire::ErrorCode;
use ringmq_wire::protocol::RequestType;

use super::with_topic;
use crate::client::Client;
use crate::error::Error;
use crate::fakes::Fault;
use crate::fetch::{FetchFrom, FetchOptions};
use crate::record::Record;
use crate::{Offset, OffsetSpec, PartitionIndex};

const FIRST: PartitionIndex = PartitionIndex::new(0);

async fn send(client: &Client, partition: u32, values: &[&'static str]) {
    let records = values.iter().map(|value| Record::value(*value)).collect();
    client.producer().send_batch_to("t", PartitionIndex::new(partition), records).await.unwrap();
}

#[tokio::test]
async fn damage_is_found_and_raw_bytes_come_as_they_are() {
    let (broker, client) = with_topic().await;
    send(&client, 0, &["a", "b", "c"]).await;
    let consumer = client.consumer();
    broker.fail_next(RequestType::Fetch, Fault::FlipLastBit);
    let error = consumer.fetch("t", FIRST, Offset::ZERO, FetchOptions::no_wait()).await.unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");

    broker.fail_next(RequestType::Fetch, Fault::FlipLastBit);
    let damaged = consumer.fetch_raw("t", FIRST, Offset::ZERO, FetchOptions::no_wait()).await.unwrap();
    let whole = consumer.fetch_raw("t", FIRST, Offset::ZERO, FetchOptions::no_wait()).await.unwrap();
    assert_ne!(damaged.batches, whole.batches);
}

#[tokio::test]
async fn many_partitions_take_one_request_to_each_shard() {
    let (broker, client) = with_topic().await;
    for partition in 0..4 {
        send(&client, partition, &["a", "b"]).await;
    }
    let from = |partition: u32, offset: i64| FetchFrom {
        topic: "t".to_owned(),
        partition: PartitionIndex::new(partition),
        offset: Offset::new(offset),
    };
    let targets = [from(3, 0), from(0, 1), from(2, 2), from(1, 0)];
    let fetched = client.consumer().fetch_many(&targets, FetchOptions::no_wait()).await;
    let counts: Vec<usize> = fetched.iter().map(|fetched| fetched.as_ref().unwrap().records.len()).collect();
    assert_eq!(counts, [2, 1, 0, 2]);
    assert_eq!(broker.ports_of(RequestType::Fetch).len(), 2);
    for (fetched, target) in fetched.into_iter().zip(&targets) {
        assert!(fetched.unwrap().records.iter().all(|record| record.partition == target.partition));
    }
}

#[tokio::test]
async fn one_bad_target_does_not_spoil_the_others() {
    let (broker, client) = with_topic().await;
    send(&client, 0, &["a"]).await;
    let from = |topic: &str, partition: u32, offset: i64| FetchFrom {
        topic: topic.to_owned(),
        partition: PartitionIndex::new(partition),
        offset: Offset::new(offset),
    };
    let targets = [from("t", 0, 0), from("none", 0, 0), from("t", 2, 5), from("t", 9, 0)];
    broker.fail_next(RequestType::Fetch, Fault::CloseUnread);
    let fetched = client.consumer().fetch_many(&targets, FetchOptions::no_wait()).await;
    assert_eq!(fetched[0].as_ref().unwrap().records.len(), 1);
    let codes: Vec<_> = fetched[1..].iter().map(|fetched| fetched.as_ref().unwrap_err().code()).collect();
    let expected = [ErrorCode::UnknownTopic, ErrorCode::OffsetOutOfRange, ErrorCode::UnknownPartition];
    assert_eq!(codes, expected.map(Some));
}

#[tokio::test]
async fn offsets_of_partitions_that_have_moved_are_asked_for_again() {
    let (broker, client) = with_topic().await;
    send(&client, 2, &["a", "b"]).await;
    let consumer = client.consumer();
    broker.fail_next(RequestType::ListOffsets, Fault::RefuseItems(ErrorCode::NotLeader));
    let offsets = async |at| {
        let listed = consumer.list_offsets("t", at).await.unwrap();
        listed.iter().map(|found| found.offset.map(Offset::get)).collect::<Vec<_>>()
    };
    assert_eq!(offsets(OffsetSpec::Latest).await, [Some(0), Some(0), Some(2), Some(0)]);
    assert_eq!(offsets(OffsetSpec::Earliest).await, [Some(0); 4]);
}

#[tokio::test]
async fn partitions_that_are_offline_do_not_hide_the_others() {
    let (broker, client) = with_topic().await;
    let consumer = client.consumer();
    let is_offline = |error: &Error| error.code() == Some(ErrorCode::PartitionOffline);
    // All partitions of the shard that is asked first.
    broker.fail_next(RequestType::ListOffsets, Fault::RefuseItems(ErrorCode::PartitionOffline));
    let listed = consumer.list_offsets_each("t", OffsetSpec::Latest).await.unwrap();
    let offline = listed.iter().filter(|found| found.as_ref().is_err_and(is_offline)).count();
    assert_eq!((listed.len(), offline), (4, 2));
    assert!(listed.iter().flatten().all(|found| found.offset == Some(Offset::ZERO)));

    broker.fail_next(RequestType::ListOffsets, Fault::RefuseItems(ErrorCode::PartitionOffline));
    let error = consumer.list_offsets("t", OffsetSpec::Latest).await.unwrap_err();
    assert!(is_offline(&error), "{error}");
    let unknown = consumer.list_offsets_each("none", OffsetSpec::Latest).await.unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::UnknownTopic));
}

#[tokio::test]
async fn the_addresses_of_partitions_are_those_of_their_shards() {
    let (_broker, client) = with_topic().await;
    let found = client.admin().partition_addresses("t").await.unwrap();
    let indexes: Vec<u32> = found.iter().map(|place| place.partition.get()).collect();
    assert_eq!(indexes, [0, 1, 2, 3]);
    assert!(found.iter().all(|place| place.public == found[0].public));
    let direct: Vec<_> = found.iter().map(|place| place.direct.clone().unwrap()).collect();
    assert_ne!(direct[0], direct[1]);
    assert_eq!((&direct[0], &direct[1]), (&direct[2], &direct[3]));
}
