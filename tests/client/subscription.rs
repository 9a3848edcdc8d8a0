//! Following a topic.

use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ringmq_client::{
    Client, Compression, DeleteBefore, Error, ErrorCode, FetchOptions, Offset, PartitionIndex, Record, Start,
};
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
async fn from_the_latest_on_comes_what_is_sent_later_and_nothing_else() {
    let (_broker, client) = with_topic().await;
    fill(&client, 10).await;
    let options = SubscribeOptions { start: Start::Latest, ..SubscribeOptions::default() };
    let mut stream = client.consumer().stream("t", options).await.unwrap();
    for (partition, offset) in [(2, 10), (0, 10), (2, 11), (3, 10), (1, 10)] {
        client.producer().send_to("t", PartitionIndex::new(partition), "later").await.unwrap();
        let record = stream.next().await.unwrap().expect("it goes on");
        assert_eq!((record.partition.get(), record.offset.get()), (partition, offset));
        assert_eq!(record.value.as_deref(), Some(&b"later"[..]));
    }
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

/// How many fetches the broker was asked for, and how many bytes of records it sent.
async fn fetched(client: &Client) -> (u64, u64) {
    let shards = client.admin().stats().await.unwrap();
    let fetches = shards.iter().flat_map(|shard| &shard.requests).filter(|requests| requests.name == "Fetch");
    let bytes = shards.iter().flat_map(|shard| &shard.counters).filter(|counter| counter.name == "fetched_bytes");
    (fetches.map(|requests| requests.value).sum(), bytes.map(|counter| counter.value).sum())
}

#[tokio::test]
async fn records_arrive_without_being_asked_for() {
    let (_broker, client) = with_topic().await;
    let mut stream = client.consumer().stream("t", SubscribeOptions::default()).await.unwrap();
    for offset in 0..5 {
        for partition in (0..4).map(PartitionIndex::new) {
            client.producer().send_to("t", partition, "x").await.unwrap();
            let record = stream.next().await.unwrap().unwrap();
            assert_eq!((record.partition, record.offset), (partition, Offset::new(offset)));
        }
    }
    let (fetches, bytes) = fetched(&client).await;
    assert!(fetches == 0 && bytes > 0, "{fetches} fetches, {bytes} bytes");
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_sent_no_more_than_it_granted() {
    const VALUE_BYTES: usize = 10_000;
    let (_broker, client) = with_topic().await;
    let first = PartitionIndex::new(0);
    let send = async |count: u32| {
        for _ in 0..count {
            client.producer().send_to("t", first, vec![7_u8; VALUE_BYTES]).await.unwrap();
        }
    };
    send(100).await;
    let max_bytes = 50_000;
    let fetch = FetchOptions { max_bytes, ..FetchOptions::default() };
    let mut stream =
        client.consumer().stream("t", SubscribeOptions { fetch, ..SubscribeOptions::default() }).await.unwrap();
    let record = stream.next().await.unwrap().unwrap();
    assert_eq!(record.offset, Offset::ZERO);
    drop(record);
    // What is on its way by then has come when these have been stored, one after the other.
    send(100).await;
    let (fetches, bytes) = fetched(&client).await;
    let most = 2 * u64::from(max_bytes) + u64::try_from(VALUE_BYTES).unwrap() + 1000;
    assert!(fetches == 0 && (10_000..=most).contains(&bytes), "{fetches} fetches, {bytes} bytes");
    for offset in 1..200 {
        assert_eq!(stream.next().await.unwrap().unwrap().offset, Offset::new(offset));
    }
}

#[tokio::test]
async fn giving_up_a_wait_again_and_again_loses_no_record() {
    let (_broker, client) = with_topic().await;
    let mut stream = client.consumer().stream("t", SubscribeOptions::default()).await.unwrap();
    let sending = tokio::spawn(async move {
        fill(&client, 60).await;
        client
    });
    let (mut found, mut given_up) = (BTreeMap::<u32, Vec<i64>>::new(), 0);
    while found.values().map(Vec::len).sum::<usize>() < 4 * 60 {
        let polled = pin!(stream.next()).poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(next) => {
                let record = next.unwrap().unwrap();
                found.entry(record.partition.get()).or_default().push(record.offset.get());
            }
            Poll::Pending => {
                given_up += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    assert!(given_up > 0);
    assert_eq!(found, each_partition(0..60));
    sending.await.unwrap();
}

#[tokio::test]
async fn many_streams_share_a_connection_with_those_who_send() {
    let (_broker, client) = with_topic().await;
    let mut streams = Vec::new();
    // More than a connection has places for subscriptions: the others fetch.
    for _ in 0..40 {
        streams.push(client.consumer().stream("t", SubscribeOptions::default()).await.unwrap());
    }
    for offset in 0..3 {
        client.producer().send_to("t", PartitionIndex::new(1), "x").await.unwrap();
        for stream in &mut streams {
            assert_eq!(stream.next().await.unwrap().unwrap().offset, Offset::new(offset));
        }
    }
}

#[tokio::test]
async fn records_that_retention_removed_end_it_where_it_stands() {
    let (_broker, client) = with_topic().await;
    let first = PartitionIndex::new(0);
    for _ in 0..10 {
        client.producer().send_to("t", first, "x").await.unwrap();
    }
    client.admin().delete_records("t", &[(first, DeleteBefore::Offset(Offset::new(5)))]).await.unwrap();
    let options = SubscribeOptions { start: Start::Offset(Offset::new(3)), ..SubscribeOptions::default() };
    let partitions = Some(vec![first]);
    let mut stream = client.consumer().stream("t", SubscribeOptions { partitions, ..options }).await.unwrap();
    let error = stream.next().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange), "{error}");
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
