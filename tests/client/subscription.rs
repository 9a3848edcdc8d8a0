//! Following a topic.

use std::collections::BTreeMap;
use std::ops::Range;

use ringmq_client::{Client, Compression, Error, ErrorCode, FetchOptions, Offset, PartitionIndex, Record, Start};
use ringmq_client::{SubscribeOptions, Timestamp, Until};

use super::with_topic;

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

fn each_partition(offsets: Range<i64>) -> BTreeMap<u32, Vec<i64>> {
    (0..4).map(|partition| (partition, offsets.clone().collect())).collect()
}

#[tokio::test]
async fn every_record_comes_once_and_in_order() {
    let (_broker, client) = with_topic().await;
    fill(&client, 100).await;
    assert_eq!(collect(&client, to_the_end(Start::Earliest)).await.unwrap(), each_partition(0..100));
    assert_eq!(collect(&client, to_the_end(Start::Offset(Offset::new(50)))).await.unwrap(), each_partition(50..100));
    assert_eq!(collect(&client, to_the_end(Start::Latest)).await.unwrap(), BTreeMap::new());
    // In the middle of a batch, whose records have times of their own.
    let at = to_the_end(Start::Time(Timestamp::new(50)));
    assert_eq!(collect(&client, at).await.unwrap(), each_partition(50..100));
}

#[tokio::test]
async fn small_responses_serve_every_partition_in_turn() {
    let (_broker, client) = with_topic().await;
    fill(&client, 30).await;
    let fetch = FetchOptions { max_bytes: 1, partition_max_bytes: 1, ..FetchOptions::default() };
    let options = SubscribeOptions { fetch, ..to_the_end(Start::Earliest) };
    assert_eq!(collect(&client, options).await.unwrap(), each_partition(0..30));
}

#[tokio::test]
async fn some_partitions_can_be_chosen() {
    let (_broker, client) = with_topic().await;
    fill(&client, 10).await;
    let partitions = Some(vec![PartitionIndex::new(2)]);
    let found = collect(&client, SubscribeOptions { partitions, ..to_the_end(Start::Earliest) }).await.unwrap();
    assert_eq!(found, BTreeMap::from([(2, (0..10).collect())]));

    let partitions = Some(vec![PartitionIndex::new(7)]);
    let error = collect(&client, SubscribeOptions { partitions, ..to_the_end(Start::Earliest) }).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownPartition));
}

#[tokio::test]
async fn it_goes_on_in_every_partition_where_another_one_ended() {
    let (_broker, client) = with_topic().await;
    fill(&client, 30).await;
    let mut found: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    let mut positions = BTreeMap::new();
    // Steps that end within batches and at their ends; the last one finds nothing.
    for wanted in [7, 0, 33, 1, 79, 5] {
        let options = SubscribeOptions { positions, ..to_the_end(Start::Earliest) };
        let mut stream = client.consumer().stream("t", options).await.unwrap();
        for _ in 0..wanted {
            let Some(record) = stream.next().await.unwrap() else { break };
            found.entry(record.partition.get()).or_default().push(record.offset.get());
        }
        positions = stream.positions();
    }
    assert_eq!(found, each_partition(0..30));

    let ends: BTreeMap<_, _> = (0..4).map(|partition| (PartitionIndex::new(partition), Offset::new(30))).collect();
    assert_eq!(positions, ends);
    let stray = SubscribeOptions {
        positions: ends,
        partitions: Some(vec![PartitionIndex::new(1)]),
        ..SubscribeOptions::default()
    };
    let error = client.consumer().stream("t", stray).await.unwrap_err();
    assert!(error.to_string().contains("partition 0, which is not subscribed to"), "{error}");
}

#[tokio::test]
async fn what_is_written_later_comes_too() {
    let (_broker, client) = with_topic().await;
    let mut stream = client.consumer().stream("t", SubscribeOptions::default()).await.unwrap();
    for offset in 0..3 {
        client.producer().send_to("t", PartitionIndex::new(1), "x").await.unwrap();
        let record = stream.next().await.unwrap().unwrap();
        assert_eq!((record.partition, record.offset), (PartitionIndex::new(1), Offset::new(offset)));
    }
}

#[tokio::test]
async fn a_deleted_topic_ends_it() {
    let (_broker, client) = with_topic().await;
    let mut stream = client.consumer().stream("t", SubscribeOptions::default()).await.unwrap();
    client.admin().delete_topic("t").await.unwrap();
    let error = stream.next().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic), "{error}");
}

#[tokio::test]
async fn a_handler_that_fails_ends_it_and_names_the_record() {
    let (_broker, client) = with_topic().await;
    fill(&client, 9).await;
    let mut handled = 0;
    let consumer = client.consumer();
    let subscription = consumer.subscribe("t", Start::Earliest, |record| {
        handled += 1;
        async move { if record.offset == Offset::new(5) { Err("no fives") } else { Ok(()) } }
    });
    let error = subscription.await.unwrap_err();
    assert!(matches!(&error, Error::Handler { offset, .. } if *offset == Offset::new(5)), "{error}");
    assert!(error.to_string().contains("no fives"), "{error}");
    assert!(handled > 5);
}
