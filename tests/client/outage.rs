//! A broker that goes away and comes back.

use std::collections::BTreeMap;

use ringmq_client::{Client, ConsumedRecord, Delivery, Error, NewTopic, Record, Start};
use ringmq_tests::Broker;
use tokio::sync::mpsc;

/// Sends numbered records one after the other until `enough` is closed, and tells each outcome.
async fn send_numbers(client: Client, outcomes: mpsc::Sender<(u64, Result<Delivery, Error>)>) {
    for number in 0.. {
        let sent = client.producer().send("numbers", Record::value(number.to_string())).await;
        if outcomes.send((number, sent)).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_goes_on_through_a_stop_and_a_kill() {
    const EACH: usize = 100;
    let mut broker = Broker::start();
    // Longer than the broker takes to come back: what a lost connection leaves open is sent again until it is answered.
    let patient = Client::builder().brokers(broker.address()).timeout(std::time::Duration::from_secs(60));
    let client = patient.connect().await.expect("the broker answers");
    client.admin().create_topic(NewTopic::new("numbers").partitions(4)).await.expect("a new topic");

    let (seen_sender, mut seen) = mpsc::unbounded_channel();
    let consumer = client.consumer();
    let subscription = tokio::spawn(async move {
        let handler = |record: ConsumedRecord| std::future::ready(seen_sender.send(record));
        consumer.subscribe("numbers", Start::Earliest, handler).await
    });
    let (outcome_sender, mut outcomes) = mpsc::channel(1);
    let sending = tokio::spawn(send_numbers(client.clone(), outcome_sender));

    let mut delivered: BTreeMap<(u32, i64), u64> = BTreeMap::new();
    for round in 0..3 {
        let enough = delivered.len() + EACH;
        // Produces and fetches are in flight whenever the broker goes.
        while delivered.len() < enough {
            match outcomes.recv().await.expect("the sender goes on") {
                (number, Ok(Delivery { partition, offset })) => {
                    assert_eq!(
                        delivered.insert((partition.get(), offset.get()), number),
                        None,
                        "an offset given twice"
                    );
                }
                (number, Err(error)) => panic!("record {number}: {error}"),
            }
        }
        let returned = tokio::task::spawn_blocking(move || match round {
            0 => broker.restart(),
            1 => broker.kill_and_restart(),
            _ => broker,
        });
        broker = returned.await.expect("the broker comes back");
    }
    drop(outcomes);
    sending.await.expect("the sender does not panic");

    let mut next: BTreeMap<u32, i64> = BTreeMap::new();
    let mut missing = delivered.clone();
    while !missing.is_empty() {
        let record = seen.recv().await.expect("the subscription goes on");
        let place = (record.partition.get(), record.offset.get());
        let due = next.entry(place.0).or_default();
        assert_eq!(place.1, *due, "partition {}", place.0);
        *due += 1;
        let value: u64 = std::str::from_utf8(&record.value.expect("a value")).expect("text").parse().expect("a number");
        match missing.remove(&place) {
            Some(number) => assert_eq!(value, number),
            // Sent after the count had ended.
            None => assert!(!delivered.values().any(|sent| *sent == value), "{value} is there twice"),
        }
    }
    subscription.abort();
}
