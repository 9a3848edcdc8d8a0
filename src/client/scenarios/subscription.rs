//! Following a topic.

use std::collections::BTreeMap;

use ringmq_wire::ErrorCode;
use ringmq_wire::protocol::RequestType;

use super::with_topic;
use crate::client::Client;
use crate::error::Error;
use crate::fakes::{FakeBroker, Fault};
use crate::fetch::FetchOptions;
use crate::record::{ConsumedRecord, Record};
use crate::subscription::{Start, SubscribeOptions, Until};
use crate::{Compression, PartitionIndex, Timestamp};

/// A broker that has subscriptions or has to be asked with fetches, its client, and how it is asked.
async fn with_topic_by(has_subscriptions: bool) -> (FakeBroker, Client, RequestType) {
    let (broker, client) = with_topic().await;
    broker.state().has_subscriptions = has_subscriptions;
    (broker, client, if has_subscriptions { RequestType::Subscribe } else { RequestType::Fetch })
}

/// Sends `count` records to each partition, in batches of three, each holding its own offset as text.
async fn fill(client: &Client, count: i64) {
    for partition in (0..4).map(PartitionIndex::new) {
        let offsets: Vec<i64> = (0..count).collect();
        for (place, batch) in offsets.chunks(3).enumerate() {
            let compression = if place % 2 == 0 { Compression::None } else { Compression::Lz4 };
            let record = |offset: &i64| Record::value(offset.to_string()).with_timestamp(Timestamp::new(*offset));
            let records = batch.iter().map(record).collect();
            client.producer().compression(compression).send_batch_to("t", partition, records).await.unwrap();
        }
    }
}

fn to_the_end(start: Start) -> SubscribeOptions {
    SubscribeOptions { start, until: Until::CurrentEnd, ..SubscribeOptions::default() }
}

/// The offsets of each partition in the order in which they came; each record holds its own.
async fn collect(client: &Client, options: SubscribeOptions) -> Result<BTreeMap<u32, Vec<i64>>, Error> {
    let mut stream = client.consumer().stream("t", options).await?;
    let mut found: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    while let Some(record) = stream.next().await? {
        let value = std::str::from_utf8(record.value.as_deref().unwrap()).unwrap();
        assert_eq!(value, record.offset.to_string());
        found.entry(record.partition.get()).or_default().push(record.offset.get());
    }
    Ok(found)
}

fn each_partition(offsets: std::ops::Range<i64>) -> BTreeMap<u32, Vec<i64>> {
    (0..4).map(|partition| (partition, offsets.clone().collect())).collect()
}

#[tokio::test]
async fn broken_connections_and_moved_partitions_lose_and_repeat_nothing() {
    for has_subscriptions in [false, true] {
        let (broker, client, way) = with_topic_by(has_subscriptions).await;
        fill(&client, 60).await;
        for fault in [
            Fault::CloseUnread,
            Fault::CloseAfterDoing,
            Fault::RefuseItems(ErrorCode::NotLeader),
            Fault::Refuse(ErrorCode::Overloaded.into()),
        ] {
            broker.fail_next(way, fault);
        }
        let fetch = FetchOptions { max_bytes: 300, partition_max_bytes: 200, ..FetchOptions::default() };
        let options = SubscribeOptions { fetch, ..to_the_end(Start::Earliest) };
        assert_eq!(collect(&client, options).await.unwrap(), each_partition(0..60));
        let others = [RequestType::Fetch, RequestType::Subscribe].into_iter().filter(|other| *other != way);
        assert!(others.map(|other| broker.ports_of(other).len()).all(|count| count == 0));
    }
}

#[tokio::test]
async fn a_wait_that_a_select_gives_up_loses_no_record() {
    for has_subscriptions in [false, true] {
        let (_broker, client, _) = with_topic_by(has_subscriptions).await;
        fill(&client, 60).await;
        let mut stream = client.consumer().stream("t", to_the_end(Start::Earliest)).await.unwrap();
        let (mut found, mut given_up) = (BTreeMap::<u32, Vec<i64>>::new(), 0);
        loop {
            tokio::select! {
                next = stream.next() => match next.unwrap() {
                    Some(record) => found.entry(record.partition.get()).or_default().push(record.offset.get()),
                    None => break,
                },
                () = tokio::task::yield_now() => given_up += 1,
            }
        }
        assert!(given_up > 0);
        assert_eq!(found, each_partition(0..60));
    }
}

#[tokio::test]
async fn portions_of_a_size_are_fetched() {
    let (broker, client, _) = with_topic_by(true).await;
    fill(&client, 10).await;
    let fetch = FetchOptions { min_bytes: 1000, ..FetchOptions::no_wait() };
    let options = SubscribeOptions { fetch, ..to_the_end(Start::Earliest) };
    assert_eq!(collect(&client, options).await.unwrap(), each_partition(0..10));
    assert!(broker.ports_of(RequestType::Subscribe).is_empty());
}

#[tokio::test]
async fn an_outage_ends_it_when_it_lasts_too_long() {
    for has_subscriptions in [false, true] {
        let (broker, client, way) = with_topic_by(has_subscriptions).await;
        for _ in 0..1000 {
            broker.fail_next(way, Fault::Refuse(ErrorCode::Overloaded.into()));
        }
        let outage_max = std::time::Duration::from_millis(50);
        let options = SubscribeOptions { outage_max, ..SubscribeOptions::default() };
        let mut stream = client.consumer().stream("t", options).await.unwrap();
        let error = stream.next().await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        assert_eq!(error.code(), Some(ErrorCode::Overloaded));
        assert!(stream.next().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn damage_and_positions_outside_of_the_log_end_it() {
    for has_subscriptions in [false, true] {
        let (broker, client, way) = with_topic_by(has_subscriptions).await;
        fill(&client, 3).await;
        let partitions = Some(vec![PartitionIndex::new(0)]);
        let options = SubscribeOptions { partitions, ..SubscribeOptions::default() };
        broker.fail_next(way, Fault::FlipLastBit);
        let mut stream = client.consumer().stream("t", options.clone()).await.unwrap();
        let error = stream.next().await.unwrap_err();
        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
        assert!(stream.next().await.unwrap().is_none());

        broker.fail_next(way, Fault::RefuseItems(ErrorCode::OffsetOutOfRange));
        let mut stream = client.consumer().stream("t", options).await.unwrap();
        assert_eq!(stream.next().await.unwrap_err().code(), Some(ErrorCode::OffsetOutOfRange));
        assert!(stream.next().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_fetching() {
    let (broker, client) = with_topic().await;
    fill(&client, 60).await;
    let fetch = FetchOptions { max_bytes: 1, partition_max_bytes: 1, ..FetchOptions::default() };
    let options = SubscribeOptions { fetch, ..to_the_end(Start::Earliest) };
    let mut stream = client.consumer().stream("t", options).await.unwrap();
    // Two responses for each of the two shards.
    broker.has_received(RequestType::Fetch, 4).await;
    for _ in 0..50 {
        client.admin().list_topics().await.unwrap();
    }
    assert_eq!(broker.ports_of(RequestType::Fetch).len(), 4);
    let mut count = 0;
    while stream.next().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 4 * 60);
}

#[tokio::test]
async fn dropping_it_ends_it_and_it_can_be_spawned() {
    let (broker, client) = with_topic().await;
    let consumer = client.consumer();
    let (seen, _kept) = tokio::sync::mpsc::channel(1);
    let handler = move |record: ConsumedRecord| {
        let seen = seen.clone();
        async move { seen.send(record).await }
    };
    let running = tokio::spawn(async move { consumer.subscribe("t", Start::Latest, handler).await });
    broker.has_received(RequestType::Fetch, 2).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    // Its connections are the client's; without either they close.
    drop(client);
    broker.is_alone().await;
}
