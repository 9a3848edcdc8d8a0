//! A compacted topic: of each key the latest record stays, while it is served and over restarts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringmq_client::blocking::Client;
use ringmq_client::{FetchOptions, Offset, PartitionIndex, Record};
use ringmq_tests::{Broker, BrokerOptions};

const TOPIC: &str = "accounts";
const PARTITION: PartitionIndex = PartitionIndex::new(0);
const KEYS: u32 = 40;
/// How long to wait for what happens in the background.
const PATIENCE: Duration = Duration::from_secs(60);

fn start() -> Broker {
    let mut options = BrokerOptions::default();
    let config = options.config.get_or_insert_default();
    config.push_str("compaction_interval_ms = 100\n");
    Broker::start_with(options)
}

/// A kibibyte that says which round it is of.
fn value(round: u32) -> Vec<u8> {
    let mut value = format!("round {round} ").into_bytes();
    value.resize(1024, b'.');
    value
}

fn key(number: u32) -> String {
    format!("account {number}")
}

/// One value for every key.
fn send_round(client: &Client, round: u32) {
    let records = (0..KEYS).map(|number| Record::value(value(round)).with_key(key(number))).collect();
    client.producer().send_batch_to(TOPIC, PARTITION, records).expect("acknowledged");
}

/// All records from the log's start on, by offset.
fn read_all(client: &Client) -> BTreeMap<i64, Record> {
    let (mut all, mut next) = (BTreeMap::new(), Offset::ZERO);
    loop {
        let fetched = client.consumer().fetch(TOPIC, PARTITION, next, FetchOptions::no_wait()).expect("readable");
        for record in fetched.records {
            let kept = Record { key: record.key, value: record.value, ..Record::default() };
            all.insert(record.offset.get(), kept);
        }
        if fetched.next_offset == fetched.high_watermark {
            return all;
        }
        assert!(fetched.next_offset > next, "a fetch below the end makes progress");
        next = fetched.next_offset;
    }
}

/// Reads until what is there is as it should be.
fn wait_until(client: &Client, what: &str, is_so: impl Fn(&BTreeMap<i64, Record>) -> bool) -> BTreeMap<i64, Record> {
    let since = Instant::now();
    loop {
        let all = read_all(client);
        if is_so(&all) {
            return all;
        }
        assert!(since.elapsed() < PATIENCE, "{what}: {} records are there", all.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn latest(all: &BTreeMap<i64, Record>) -> BTreeMap<String, Option<Vec<u8>>> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let record = |record: &Record| {
        let key = record.key.as_deref().map(text).expect("a key");
        (key, record.value.as_deref().map(<[u8]>::to_vec))
    };
    all.values().map(record).collect()
}

#[test]
fn a_topic_keeps_the_latest_record_of_each_key() {
    let broker = start();
    let set = ["--set", "cleanup=compact", "--set", "segment_bytes=1048576", "--set", "tombstone_retention_ms=500"];
    broker.run(&[&["topic", "create", TOPIC][..], &set].concat(), b"").expect_success();
    let described = broker.run(&["topic", "describe", TOPIC], b"").expect_success().stdout_text();
    assert!(described.contains("cleanup") && described.contains("compact"), "{described}");

    let client = Client::connect(broker.address()).expect("connected");
    let rounds = 100;
    for round in 0..rounds {
        send_round(&client, round);
    }
    // Of four megabytes what is not sealed stays, and one record a key.
    let all = wait_until(&client, "old rounds go", |all| all.len() < 1_200);
    let expected: BTreeMap<_, _> = (0..KEYS).map(|number| (key(number), Some(value(rounds - 1)))).collect();
    assert_eq!(latest(&all), expected);
    let end = i64::from(KEYS * rounds);
    assert_eq!(all.last_key_value().map(|(offset, _)| *offset), Some(end - 1), "offsets stay");

    // Every account but one is closed.
    let closed = (1..KEYS).map(|number| Record { key: Some(key(number).into()), ..Record::default() }).collect();
    client.producer().send_batch_to(TOPIC, PARTITION, closed).expect("acknowledged");
    let open = |number: u32| Record::value(value(number)).with_key(key(0));
    for round in 0..60 {
        client
            .producer()
            .send_batch_to(TOPIC, PARTITION, (0..KEYS).map(|_| open(round)).collect())
            .expect("acknowledged");
    }
    let is_gone =
        |all: &BTreeMap<i64, Record>| all.values().all(|record| record.key.as_deref() == Some(key(0).as_bytes()));
    let all = wait_until(&client, "closed accounts and their tombstones go", is_gone);
    assert_eq!(latest(&all), BTreeMap::from([(key(0), Some(value(59)))]));

    drop(client);
    let broker = still_so(broker.restart());
    still_so(broker.kill_and_restart());
}

fn still_so(broker: Broker) -> Broker {
    let client = Client::connect(broker.address()).expect("connected");
    assert_eq!(latest(&read_all(&client)), BTreeMap::from([(key(0), Some(value(59)))]));
    broker
}

#[test]
fn compaction_is_turned_on_while_a_topic_is_in_use() {
    let broker = start();
    broker.run(&["topic", "create", TOPIC, "--set", "segment_bytes=1048576"], b"").expect_success();
    let client = Client::connect(broker.address()).expect("connected");
    for round in 0..60 {
        send_round(&client, round);
    }
    assert_eq!(read_all(&client).len(), 60 * KEYS as usize);
    let refused = broker.run(&["topic", "alter", TOPIC, "--set", "cleanup=compress"], b"");
    assert!(!refused.success && refused.stderr.contains("compact,delete"), "{}", refused.stderr);
    broker.run(&["topic", "alter", TOPIC, "--set", "cleanup=compact,delete"], b"").expect_success();
    let all = wait_until(&client, "old rounds go", |all| all.len() < 1_200);
    assert_eq!(latest(&all).len(), KEYS as usize);
}
