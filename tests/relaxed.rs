//! Topics with relaxed flush: acknowledged when the kernel has it, on disk within the interval.

use std::time::{Duration, Instant};

use ringmq_client::blocking::Client;
use ringmq_client::{FetchOptions, Offset, OffsetSpec, PartitionIndex, Record};
use ringmq_tests::Broker;

const TOPIC: &str = "readings";
const PARTITION: PartitionIndex = PartitionIndex::new(0);
/// How long to wait for what happens in the background.
const PATIENCE: Duration = Duration::from_secs(60);

fn create(broker: &Broker, flush_interval_ms: &str) -> Client {
    let setting = format!("flush_interval_ms={flush_interval_ms}");
    broker.run(&["topic", "create", TOPIC, "--set", &setting], b"").expect_success();
    Client::connect(broker.address()).expect("connected")
}

/// Sends so many records, each in a request of its own; returns their offsets.
fn send(client: &Client, numbers: std::ops::Range<u32>) -> Vec<i64> {
    let send = |number: u32| {
        let record = Record::value(format!("record {number}"));
        client.producer().send_batch_to(TOPIC, PARTITION, vec![record]).expect("acknowledged").offsets.start.get()
    };
    numbers.map(send).collect()
}

/// All that can be read: offset and value.
fn read(client: &Client) -> Vec<(i64, String)> {
    let end = client.consumer().list_offset(TOPIC, PARTITION, OffsetSpec::Latest).expect("an offset").offset;
    let (mut next, mut found) = (Offset::ZERO, Vec::new());
    while Some(next) < end {
        let fetched = client.consumer().fetch(TOPIC, PARTITION, next, FetchOptions::no_wait()).expect("readable");
        assert!(fetched.next_offset > next, "a fetch below the end makes progress");
        for record in &fetched.records {
            found.push((
                record.offset.get(),
                String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned(),
            ));
        }
        next = fetched.next_offset;
    }
    found
}

/// The size of the relaxed rings that there are.
fn relaxed_rings(broker: &Broker) -> Vec<u64> {
    let journals = std::fs::read_dir(broker.data_dir().join("journals")).expect("journals").flatten();
    let relaxed = journals.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "relaxed"));
    relaxed.map(|entry| entry.metadata().map_or(0, |file| file.len())).collect()
}

#[test]
fn a_killed_broker_loses_nothing_that_was_acknowledged_and_gives_no_offset_again() {
    let broker = Broker::start();
    // Longer than the test: nothing is flushed for the interval's sake.
    let client = create(&broker, "60000");
    let mut sent = send(&client, 0..20);
    let since = Instant::now();
    while relaxed_rings(&broker).is_empty() {
        assert!(since.elapsed() < PATIENCE, "the first append has a relaxed ring prepared");
        std::thread::sleep(Duration::from_millis(20));
    }
    sent.extend(send(&client, 20..500));
    drop(client);

    let broker = broker.kill_and_restart();
    let client = Client::connect(broker.address()).expect("connected");
    let expected: Vec<_> = sent.iter().copied().zip((0..).map(|number| format!("record {number}"))).collect();
    assert_eq!(read(&client), expected);
    // The start cannot know that nothing was lost.
    let next = send(&client, 500..501)[0];
    assert!((501..2_000_000).contains(&next), "the log goes on behind what was reserved, at {next}");
    drop(client);

    let broker = broker.restart();
    let client = Client::connect(broker.address()).expect("connected");
    assert_eq!(send(&client, 501..502)[0], next + 1, "a clean stop skips nothing");
    assert_eq!(read(&client).len(), 502);
}

#[test]
fn the_flush_is_relaxed_and_tightened_while_the_topic_is_in_use() {
    let broker = Broker::start();
    let client = create(&broker, "0");
    assert_eq!(send(&client, 0..50).len(), 50);
    assert!(relaxed_rings(&broker).is_empty(), "nobody asked for one");
    broker.run(&["topic", "alter", TOPIC, "--set", "flush_interval_ms=100"], b"").expect_success();
    assert_eq!(send(&client, 50..300).last(), Some(&299));
    broker.run(&["topic", "alter", TOPIC, "--unset", "flush_interval_ms"], b"").expect_success();
    assert_eq!(send(&client, 300..350).last(), Some(&349));
    let found: Vec<_> = read(&client).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(found, (0..350).collect::<Vec<_>>());
    let refused = broker.run(&["topic", "alter", TOPIC, "--set", "flush_interval_ms=60001"], b"");
    assert!(refused.code != Some(0) && refused.stderr.contains("60000"), "{}", refused.stderr);
}
