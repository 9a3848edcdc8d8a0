//! Fetching and asking for offsets.

use ringmq_client::{Client, ErrorCode, FetchOptions, Offset, OffsetSpec, PartitionIndex, Record, Timestamp};

use super::{LONG, connect, with_topic};

const FIRST: PartitionIndex = PartitionIndex::new(0);

async fn send(client: &Client, partition: u32, values: &[&'static str]) {
    let records = values.iter().map(|value| Record::value(*value)).collect();
    client.producer().send_batch_to("t", PartitionIndex::new(partition), records).await.unwrap();
}

#[tokio::test]
async fn a_fetch_starts_in_the_middle_of_a_batch() {
    let (_broker, client) = with_topic().await;
    send(&client, 0, &["a", "b", "c"]).await;
    send(&client, 0, &["d"]).await;
    let fetched = client.consumer().fetch("t", FIRST, Offset::new(1), FetchOptions::no_wait()).await.unwrap();
    let offsets: Vec<i64> = fetched.records.iter().map(|record| record.offset.get()).collect();
    assert_eq!(offsets, [1, 2, 3]);
    assert_eq!((fetched.next_offset, fetched.high_watermark), (Offset::new(4), Offset::new(4)));
}

#[tokio::test]
async fn a_fetch_at_the_end_waits_for_records() {
    let (broker, client) = with_topic().await;
    let waiting = {
        let consumer = client.consumer();
        let options = FetchOptions { max_wait: LONG, ..FetchOptions::default() };
        tokio::spawn(async move { consumer.fetch("t", FIRST, Offset::ZERO, options).await })
    };
    let other = connect(&broker).await;
    // A broker that does not wait has answered before these are on disk.
    for _ in 0..10 {
        send(&other, 1, &["elsewhere"]).await;
    }
    assert!(!waiting.is_finished());
    send(&other, 0, &["a"]).await;
    assert_eq!(waiting.await.unwrap().unwrap().next_offset, Offset::new(1));
}

#[tokio::test]
async fn an_offset_beyond_the_end_is_an_error() {
    let (_broker, client) = with_topic().await;
    let fetched = client.consumer().fetch("t", FIRST, Offset::new(1), FetchOptions::no_wait()).await;
    assert_eq!(fetched.unwrap_err().code(), Some(ErrorCode::OffsetOutOfRange));
}

#[tokio::test]
async fn offsets_are_listed_by_partition() {
    let (_broker, client) = with_topic().await;
    let record = |value: &'static str, time| Record::value(value).with_timestamp(Timestamp::new(time));
    let records = vec![record("a", 10), record("b", 20)];
    client.producer().send_batch_to("t", PartitionIndex::new(2), records).await.unwrap();
    let consumer = client.consumer();
    let offsets = async |at| {
        let listed = consumer.list_offsets("t", at).await.unwrap();
        listed.iter().map(|found| found.offset.map(Offset::get)).collect::<Vec<_>>()
    };
    assert_eq!(offsets(OffsetSpec::Latest).await, [Some(0), Some(0), Some(2), Some(0)]);
    assert_eq!(offsets(OffsetSpec::Earliest).await, [Some(0); 4]);
    for (time, found) in [(0, Some(0)), (10, Some(0)), (11, Some(1)), (20, Some(1)), (21, None)] {
        assert_eq!(offsets(OffsetSpec::Timestamp(Timestamp::new(time))).await, [None, None, found, None], "{time}");
    }
    let one = consumer.list_offset("t", PartitionIndex::new(2), OffsetSpec::Latest).await.unwrap();
    assert_eq!((one.partition, one.offset), (PartitionIndex::new(2), Some(Offset::new(2))));
    let error = consumer.list_offset("t", PartitionIndex::new(4), OffsetSpec::Latest).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownPartition));
}
