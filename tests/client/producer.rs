//! Sending records.

use std::time::Duration;

use ringmq_client::{AckedBy, Acks, Client, Compression, Error, FetchOptions, Header, NewTopic, Offset, OffsetSpec};
use ringmq_client::{PartitionIndex, Record, SubscribeOptions, Timestamp, TopicAlteration, Until};
use ringmq_tests::Broker;

use super::{LONG, connect, with_topic};

const FIRST: PartitionIndex = PartitionIndex::new(0);
const EVERY_CODEC: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// The end of each partition.
async fn ends(client: &Client) -> Vec<i64> {
    let listed = client.consumer().list_offsets("t", OffsetSpec::Latest).await.unwrap();
    listed.iter().map(|found| found.offset.unwrap().get()).collect()
}

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
    for compression in EVERY_CODEC {
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
async fn batches_of_every_codec_are_stored_so_and_come_back_fetched_and_streamed() {
    let (_broker, client) = with_topic().await;
    let value = |compression: Compression, number: usize| format!("{compression:?} {number} {}", "again ".repeat(20));
    let mut sent = Vec::new();
    let mut sizes = Vec::new();
    for compression in EVERY_CODEC {
        let producer = client.producer().compression(compression);
        let records = (0..50).map(|number| Record::value(value(compression, number))).collect();
        let stored = producer.send_batch_to("t", FIRST, records).await.unwrap();
        let raw = client.consumer().fetch_raw("t", FIRST, stored.offsets.start, FetchOptions::no_wait()).await.unwrap();
        sizes.push(raw.batches.len());
        // And gathered by the producer itself.
        for number in 50..100 {
            drop(producer.enqueue("t", Record::value(value(compression, number)).to_partition(FIRST)).await.unwrap());
        }
        producer.close().await.unwrap();
        sent.extend((0..100).map(|number| value(compression, number)));
    }
    assert!(sizes[1..].iter().all(|size| size * 4 < sizes[0]), "stored as they were compressed: {sizes:?}");
    assert_eq!(values(&client, FIRST).await, sent);
    let options = SubscribeOptions { until: Until::CurrentEnd, ..SubscribeOptions::default() };
    let mut stream = client.consumer().stream("t", options).await.unwrap();
    for sent in &sent {
        let record = stream.next().await.unwrap().expect("as many as were sent");
        assert_eq!(record.value.as_deref(), Some(sent.as_bytes()));
    }
    assert!(stream.next().await.unwrap().is_none());
}

#[tokio::test]
async fn absent_differs_from_empty() {
    let (_broker, client) = with_topic().await;
    let header = Header { key: "h".to_owned(), value: None };
    let absent = Record { headers: vec![header], ..Record::default() };
    let empty = Record::value("").with_key("");
    client.producer().send_batch_to("t", FIRST, vec![absent.clone(), empty.clone()]).await.unwrap();
    let fetched = client.consumer().fetch("t", FIRST, Offset::ZERO, FetchOptions::no_wait()).await.unwrap();
    for (found, sent) in fetched.records.iter().zip([absent, empty]) {
        assert_eq!((&found.key, &found.value, &found.headers), (&sent.key, &sent.value, &sent.headers));
    }
}

#[tokio::test]
async fn a_key_keeps_its_partition_and_records_without_one_spread() {
    let (_broker, client) = with_topic().await;
    let producer = client.producer();
    let keyed = producer.send("t", Record::value("a").with_key("k")).await.unwrap();
    assert_eq!(producer.partition_for("t", Some(b"k")).await.unwrap(), keyed.partition);
    for _ in 0..5 {
        let again = client.producer().send("t", Record::value("a").with_key("k")).await.unwrap();
        assert_eq!(again.partition, keyed.partition);
    }
    let before = ends(&client).await;
    for _ in 0..8 {
        producer.send("t", "x").await.unwrap();
    }
    let after = ends(&client).await;
    assert!(before.iter().zip(&after).all(|(before, after)| after - before == 2), "{before:?} {after:?}");
    assert_eq!(producer.partition_count("t").await.unwrap(), 4);
}

#[tokio::test]
async fn a_batch_is_stored_side_by_side() {
    let (_broker, client) = with_topic().await;
    let producer = client.producer();
    producer.send_to("t", FIRST, "0").await.unwrap();
    let stored = producer.send_batch_to("t", FIRST, ["1", "2", "3"].map(Record::value).to_vec()).await.unwrap();
    assert_eq!((stored.count(), stored.offsets.clone()), (3, Offset::new(1)..Offset::new(4)));
    let offsets: Vec<i64> = stored.iter().map(|delivery| delivery.offset.get()).collect();
    assert_eq!(offsets, [1, 2, 3]);
    assert_eq!(values(&client, FIRST).await, ["0", "1", "2", "3"]);
    assert!(matches!(producer.send_batch_to("t", FIRST, Vec::new()).await, Err(Error::Argument(_))));
}

#[tokio::test]
async fn unacknowledged_records_arrive_too() {
    let (_broker, client) = with_topic().await;
    let partition = client.producer().send_unacknowledged("t", "x").await.unwrap();
    // A request behind it on the same connection is answered after it.
    client.producer().send_to("t", partition, "y").await.unwrap();
    assert_eq!(values(&client, partition).await, ["x", "y"]);
}

#[tokio::test]
async fn encoded_batches_are_stored_as_they_are() {
    let (_broker, client) = with_topic().await;
    // With an identity they would be another producer's, and the same batch twice.
    let producer = client.producer().idempotent(false);
    producer.send_batch_to("t", FIRST, ["a", "b"].map(Record::value).to_vec()).await.unwrap();
    let raw = client.consumer().fetch_raw("t", FIRST, Offset::ZERO, FetchOptions::no_wait()).await.unwrap();
    assert_eq!(raw.high_watermark, Offset::new(2));
    let other = PartitionIndex::new(3);
    let twice = [raw.batches.clone(), raw.batches].concat();
    let stored = client.producer().send_encoded("t", other, twice.into(), Acks::All).await.unwrap().unwrap();
    assert_eq!(stored.offsets, Offset::ZERO..Offset::new(4));
    assert_eq!(values(&client, other).await, ["a", "b", "a", "b"]);
    assert_eq!(ends(&client).await[3], 4);
}

#[tokio::test]
async fn records_go_on_while_partitions_are_added() {
    let broker = Broker::start();
    let admin = connect(&broker).await.admin();
    admin.create_topic(NewTopic::new("t")).await.unwrap();

    // Metadata that is asked for all the time meets shards that have not opened what it names.
    let eager = Client::builder().brokers(broker.address()).timeout(LONG).metadata_age_max(Duration::ZERO);
    let client = eager.connect().await.unwrap();
    let sending = tokio::spawn({
        let producer = client.producer();
        async move {
            let (mut sent, mut used) = (0, std::collections::BTreeSet::new());
            while used.len() < 24 {
                let delivery = producer.send("t", Record::value(sent.to_string())).await.unwrap();
                used.insert(delivery.partition);
                sent += 1;
            }
            sent
        }
    });
    for partitions in 2..=24 {
        admin.alter_topic(TopicAlteration::new("t").partitions(partitions)).await.unwrap();
    }
    let sent: i64 = sending.await.unwrap();
    assert_eq!(ends(&client).await.iter().sum::<i64>(), sent, "each is stored once");
}
