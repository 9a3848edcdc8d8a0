//! Brokers that may open few files: they serve what they can, and say what to do about the rest.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ringmq_client::{Client, FetchOptions, NewTopic, Offset, PartitionIndex, Record};
use ringmq_tests::{Broker, BrokerOptions, new_directory, target_binary};

const FIRST: PartitionIndex = PartitionIndex::new(0);
/// Long enough for a debug broker on a busy machine.
const LONG: Duration = Duration::from_secs(60);
/// So many files may be open.
const LIMIT: usize = 64;

/// On one core, so that the numbers do not depend on the machine, and behind a limit.
fn options(open_files: usize) -> BrokerOptions {
    let launcher = ["bash", "-c", &format!("ulimit -n {open_files}; exec \"$@\""), "bash"].map(str::to_owned);
    BrokerOptions { cores: "0".into(), launcher: launcher.to_vec(), ..BrokerOptions::default() }
}

async fn connect(broker: &Broker, timeout: Duration) -> Client {
    Client::builder().brokers(broker.address()).timeout(timeout).connect().await.expect("connected")
}

fn open_files(broker: &Broker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).expect("the broker runs").count()
}

/// Files below a directory whose names end so.
fn count(directory: &Path, ending: &str) -> usize {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    let counted = entries.map(|entry| match entry.path() {
        path if path.is_dir() => count(&path, ending),
        path => usize::from(path.to_string_lossy().ends_with(ending)),
    });
    counted.sum()
}

/// Record n: 100 KiB that say so.
fn value(number: i64) -> Vec<u8> {
    let mut value = format!("record {number} ").into_bytes();
    value.resize(100 << 10, b'.');
    value
}

/// Reads all of topic `deep`, which is as it was sent.
async fn read_all(client: Client, end: i64) {
    let mut next = Offset::ZERO;
    while next.get() < end {
        let fetched = client.consumer().fetch("deep", FIRST, next, FetchOptions::no_wait()).await.expect("readable");
        assert!(fetched.next_offset > next, "a fetch below the end makes progress");
        for record in &fetched.records {
            assert_eq!(record.value.as_deref(), Some(&value(record.offset.get())[..]));
        }
        next = fetched.next_offset;
    }
}

#[tokio::test]
async fn a_log_of_more_segments_than_files_may_be_open_is_written_and_read() {
    const BATCHES: i64 = 800;
    let mut broker = Broker::start_with(options(LIMIT));
    let client = connect(&broker, LONG).await;
    client.admin().create_topic(NewTopic::new("deep").setting("segment_bytes", "1048576")).await.expect("a new topic");
    for number in 0..BATCHES {
        let sent = client.producer().send_to("deep", FIRST, Record::value(value(number))).await;
        assert_eq!(sent.expect("acknowledged").offset.get(), number);
    }
    let segments = count(&broker.data_dir(), "0.log");
    assert!(segments > LIMIT, "{segments} segments");
    drop(client);
    let starts: [fn(Broker) -> Broker; 3] = [|broker| broker, Broker::restart, Broker::kill_and_restart];
    for start in starts {
        broker = tokio::task::spawn_blocking(move || start(broker)).await.expect("it starts");
        let mut readers = Vec::new();
        for _ in 0..4 {
            readers.push(tokio::spawn(read_all(connect(&broker, LONG).await, BATCHES)));
        }
        for reader in readers {
            reader.await.expect("readable");
        }
        assert!(open_files(&broker) < LIMIT, "{}", open_files(&broker));
    }
}

/// Sends a record to each partition of topic `wide`: which ones took it, at which offset, and what the others said.
async fn send_to_each(broker: &Broker, partitions: u32) -> (BTreeMap<u32, i64>, Vec<String>) {
    // Refusals are tried again for as long.
    let timeout = Duration::from_secs(3);
    let producer = connect(broker, timeout).await.producer().delivery_timeout(timeout);
    let send = |partition: u32| {
        let producer = producer.clone();
        tokio::spawn(async move { producer.send_to("wide", PartitionIndex::new(partition), "here").await })
    };
    let sending: Vec<_> = (0..partitions).map(send).collect();
    let (mut taken, mut refused) = (BTreeMap::new(), Vec::new());
    for (partition, sending) in (0..).zip(sending) {
        match sending.await.expect("no panic") {
            Ok(delivery) => assert_eq!(taken.insert(partition, delivery.offset.get()), None),
            Err(error) => refused.push(error.to_string()),
        }
    }
    (taken, refused)
}

#[tokio::test]
async fn partitions_beyond_the_limit_are_refused_with_what_to_do_and_the_others_serve() {
    const PARTITIONS: u32 = 100;
    let broker = Broker::start_with(options(LIMIT));
    let client = connect(&broker, LONG).await;
    client.admin().create_topic(NewTopic::new("wide").partitions(PARTITIONS)).await.expect("a new topic");
    let (taken, refused) = send_to_each(&broker, PARTITIONS).await;
    let (told, cut_off): (Vec<_>, Vec<_>) = refused.into_iter().partition(|text| text.contains("ulimit -n"));
    assert!(taken.len() >= 10 && told.len() >= 30, "{} were taken and {} refused", taken.len(), told.len());
    assert!(told.iter().all(|text| text.contains("LimitNOFILE")), "{told:#?}");
    // Tried once more when hardly any time was left.
    assert!(cut_off.iter().all(|text| text.contains("no answer within")), "{cut_off:#?}");
    assert!(open_files(&broker) < LIMIT, "room for connections is left: {}", open_files(&broker));

    // No less is served after a kill, and by a broker that may open as many as it needs, all of it.
    drop(client);
    let exit = broker.kill();
    let broker = Broker::start_in(exit.directory, options(LIMIT)).expect("the broker always boots");
    let (again, _) = send_to_each(&broker, PARTITIONS).await;
    assert!(again.len() >= 10, "{} were taken", again.len());
    let exit = broker.terminate();
    assert!(exit.status.success(), "{}", exit.log);
    assert!(exit.log.contains("ulimit -n"), "{}", exit.log);

    let broker = Broker::start_in(exit.directory, BrokerOptions::default()).expect("a start");
    let client = connect(&broker, LONG).await;
    for (partition, offset) in taken {
        let (index, offset) = (PartitionIndex::new(partition), Offset::new(offset));
        let fetched = client.consumer().fetch("wide", index, offset, FetchOptions::no_wait()).await.expect("readable");
        assert_eq!(fetched.records[0].value.as_deref(), Some(&b"here"[..]), "partition {partition}");
        let stored = 1 + i64::from(again.contains_key(&partition));
        assert_eq!(fetched.next_offset.get(), stored, "partition {partition}: none is there twice");
    }
}

#[test]
fn too_few_for_a_start_are_told_by_the_broker_and_by_doctor() {
    let exit = Broker::start_in(new_directory(), options(32)).expect_err("too few");
    assert_eq!(exit.status.code(), Some(1), "{}", exit.log);
    for limit in [32, 200] {
        let doctor = format!("ulimit -n {limit}; exec \"$@\"");
        let mut command = Command::new("bash");
        command.args(["-c", &doctor, "bash"]).arg(target_binary("ringmq")).arg("doctor");
        let found = command.output().expect("doctor runs");
        let text = String::from_utf8_lossy(&found.stdout).into_owned();
        let problem =
            text.lines().skip_while(|line| !line.contains("open files:")).take(2).collect::<Vec<_>>().join("\n");
        assert!(!found.status.success() && problem.starts_with("problem"), "{text}");
        for word in [&format!("only {limit}"), "ulimit -n 1024", "LimitNOFILE=1024"] {
            assert!(problem.contains(word), "{word} is missing in {problem}");
        }
        if limit == 32 {
            assert!(problem.contains("to start"), "{problem}");
            let said = exit.log.contains("open files: only 32") && exit.log.contains("ulimit -n 1024");
            assert!(said, "the broker says so, too: {}", exit.log);
        }
    }
}
