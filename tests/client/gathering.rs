//! Records that nobody waits for one by one, while a broker goes away and comes back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringmq_client::{Client, Delivery, Error, FetchOptions, NewTopic, Offset, PartitionIndex, Producer, Record};
use ringmq_tests::{Broker, BrokerOptions, Exit};
use tokio::sync::watch;

use super::{LONG, connect, with_topic};

const PARTITIONS: u32 = 4;
const KEYS: u64 = 16;

fn record(number: u64) -> Record {
    Record::value(number.to_string()).with_key(format!("key {}", number % KEYS))
}

/// The numbers that are stored, by partition.
async fn stored(client: &Client) -> BTreeMap<u32, Vec<u64>> {
    let mut stored: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let (index, mut next) = (PartitionIndex::new(partition), Offset::ZERO);
        loop {
            let fetched = client.consumer().fetch("t", index, next, FetchOptions::no_wait()).await.unwrap();
            if fetched.next_offset == next {
                break;
            }
            next = fetched.next_offset;
            let numbers = fetched
                .records
                .iter()
                .map(|record| std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse::<u64>().unwrap());
            stored.entry(partition).or_default().extend(numbers);
        }
    }
    stored
}

/// Each is where its answer said, there is nothing else, and the order of each key holds.
fn assert_stored_once(stored: &BTreeMap<u32, Vec<u64>>, delivered: &[(u64, Delivery)]) {
    for (number, Delivery { partition, offset }) in delivered {
        let found = stored[&partition.get()][usize::try_from(offset.get()).unwrap()];
        assert_eq!(found, *number, "{partition}, {offset}");
    }
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), delivered.len());
    for numbers in stored.values() {
        let mut last = BTreeMap::new();
        for number in numbers {
            assert!(last.insert(number % KEYS, number).is_none_or(|before| before < number), "key {}", number % KEYS);
        }
    }
}

/// Hands records over until it is told to stop; `delivered` counts what is acknowledged.
async fn send(
    producer: Producer,
    delivered: Arc<watch::Sender<Vec<(u64, Delivery)>>>,
    stop: Arc<AtomicBool>,
) -> Result<u64, Error> {
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            producer.close().await?;
            return Ok(number);
        }
        let delivered = delivered.clone();
        let on_delivery = move |outcome: Result<Delivery, Error>| match outcome {
            Ok(delivery) => delivered.send_modify(|delivered| delivered.push((number, delivery))),
            Err(error) => panic!("record {number}: {error}"),
        };
        producer.enqueue_with("t", record(number), on_delivery).await?;
    }
    Ok(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_in_flight_are_stored_once_and_in_order_by_brokers_that_are_killed() {
    const EACH: usize = 2_000;
    let mut broker = Broker::start();
    let client = Client::builder().brokers(broker.address()).timeout(LONG).producer_bytes_max(64 << 10);
    let client = client.connect().await.expect("the broker answers");
    client.admin().create_topic(NewTopic::new("t").partitions(PARTITIONS)).await.expect("a new topic");
    let (sender, mut delivered) = watch::channel(Vec::new());
    let stop = Arc::new(AtomicBool::new(false));
    // Small batches, so that several are in flight to each partition.
    let producer = client.producer().batch_bytes_max(500).delivery_timeout(LONG);
    let sending = tokio::spawn(send(producer, Arc::new(sender), stop.clone()));
    for round in 1..=3 {
        delivered.wait_for(|delivered| delivered.len() >= round * EACH).await.expect("the sender goes on");
        let returned = tokio::task::spawn_blocking(move || broker.kill_and_restart());
        broker = returned.await.expect("the broker comes back");
    }
    stop.store(true, Ordering::SeqCst);
    let sent = sending.await.expect("no panic").expect("everything is acknowledged");
    let delivered = delivered.borrow().clone();
    assert_eq!(delivered.len() as u64, sent, "each was told of");
    assert_stored_once(&stored(&connect(&broker).await).await, &delivered);
}

/// Records that are gathered while there is no broker, and where it was.
async fn without_broker() -> (Exit, SocketAddr, Producer) {
    let (broker, client) = with_topic().await;
    let producer = client.producer();
    producer.send("t", record(0)).await.unwrap();
    let address = broker.address();
    let exit = tokio::task::spawn_blocking(move || broker.kill()).await.unwrap();
    (exit, address, producer)
}

#[tokio::test]
async fn closing_without_a_broker_ends_in_time_and_says_how_many_records_failed() {
    let (_exit, _, producer) = without_broker().await;
    let producer = producer.delivery_timeout(Duration::from_secs(1));
    for number in 1..=10 {
        drop(producer.try_enqueue("t", record(number)).unwrap());
    }
    let error = producer.flush().await.unwrap_err();
    assert!(matches!(error, Error::Undelivered { records: 10, .. }), "{error}");
    drop(producer.try_enqueue("t", record(11)).unwrap());
    let error = producer.close().await.unwrap_err();
    assert!(matches!(error, Error::Undelivered { records: 1, .. }), "{error}");
    assert!(matches!(producer.enqueue("t", record(12)).await, Err(Error::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_waits_for_a_broker_that_comes_back() {
    let (exit, address, producer) = without_broker().await;
    for number in 1..=1_000 {
        drop(producer.try_enqueue("t", record(number)).unwrap());
    }
    let closing = tokio::spawn({
        let producer = producer.clone();
        async move { producer.close().await }
    });
    let options = BrokerOptions { listen: address.to_string(), ..BrokerOptions::default() };
    let started = tokio::task::spawn_blocking(move || Broker::start_in(exit.directory, options)).await.unwrap();
    let broker = started.expect("it starts again");
    closing.await.unwrap().expect("everything is acknowledged");
    let stored = stored(&connect(&broker).await).await;
    let mut numbers: Vec<u64> = stored.into_values().flatten().collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..=1_000));
}
