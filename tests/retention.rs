//! Records that go: when they are old, when there are too many, and when someone says so.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringmq_client::blocking::Client;
use ringmq_client::{DeleteBefore, ErrorCode, FetchOptions, Offset, OffsetSpec, PartitionIndex, Record};
use ringmq_tests::{Broker, BrokerOptions};

const TOPIC: &str = "clicks";
const PARTITION: PartitionIndex = PartitionIndex::new(0);
/// How long to wait for what happens in the background.
const PATIENCE: Duration = Duration::from_secs(60);
/// The smallest segments there are.
const SMALL: [&str; 2] = ["--set", "segment_bytes=1048576"];

fn start() -> Broker {
    let mut options = BrokerOptions::default();
    options.config.get_or_insert_default().push_str("retention_interval_ms = 100\n");
    Broker::start_with(options)
}

fn create(broker: &Broker, settings: &[&str]) -> Client {
    broker.run(&[&["topic", "create", TOPIC][..], &SMALL, settings].concat(), b"").expect_success();
    Client::connect(broker.address()).expect("connected")
}

/// Sends so many batches of about 100 KiB, of one record each; record n says so.
fn send(client: &Client, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let mut value = format!("record {number} ").into_bytes();
        value.resize(100_000, b'.');
        let sent = client.producer().send_batch_to(TOPIC, PARTITION, vec![Record::value(value)]);
        assert_eq!(sent.expect("acknowledged").offsets.start.get(), number, "offsets go on");
    }
}

fn offset(client: &Client, at: OffsetSpec) -> i64 {
    client.consumer().list_offset(TOPIC, PARTITION, at).expect("an offset").offset.expect("one").get()
}

/// Waits until the log begins where it should.
fn wait_for_start(client: &Client, what: &str, is_so: impl Fn(i64) -> bool) -> i64 {
    let since = Instant::now();
    loop {
        let start = offset(client, OffsetSpec::Earliest);
        if is_so(start) {
            return start;
        }
        assert!(since.elapsed() < PATIENCE, "{what}: the log begins at {start}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What can be read is what was sent, from the start to the end.
fn check(client: &Client, start: i64, end: i64) {
    assert_eq!((offset(client, OffsetSpec::Earliest), offset(client, OffsetSpec::Latest)), (start, end));
    let mut next = Offset::new(start);
    while next.get() < end {
        let fetched = client.consumer().fetch(TOPIC, PARTITION, next, FetchOptions::no_wait()).expect("readable");
        for record in &fetched.records {
            let value = record.value.as_deref().expect("a value");
            assert!(value.starts_with(format!("record {} ", record.offset).as_bytes()), "{}", record.offset);
        }
        assert!(fetched.next_offset > next, "a fetch below the end makes progress");
        next = fetched.next_offset;
    }
    if let Some(deleted) = Offset::checked(start - 1) {
        let error = client.consumer().fetch(TOPIC, PARTITION, deleted, FetchOptions::no_wait()).expect_err("deleted");
        assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange), "{error}");
        assert!(error.to_string().contains(&format!("{start} to {end}")), "the range is told: {error}");
    }
}

/// Bytes of the segments on the disk.
fn disk_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = |path: PathBuf| match path.is_dir() {
        true => disk_bytes(&path),
        false if path.extension().is_some_and(|extension| extension == "log") => {
            path.metadata().map_or(0, |file| file.len())
        }
        false => 0,
    };
    entries.map(|entry| bytes(entry.path())).sum()
}

#[test]
fn the_oldest_segments_go_while_the_others_have_enough() {
    let broker = start();
    let client = create(&broker, &["--set", "retention_bytes=3000000"]);
    send(&client, 0..100);
    // Ten batches fill a segment, so three of them have as much. They go one after the other.
    wait_for_start(&client, "all but three megabytes go", |start| start >= 70);
    check(&client, 70, 100);
    drop(client);

    let broker = broker.kill_and_restart();
    let client = Client::connect(broker.address()).expect("connected");
    check(&client, offset(&client, OffsetSpec::Earliest), 100);
    broker.run(&["topic", "alter", TOPIC, "--set", "retention_bytes=1"], b"").expect_success();
    let start = wait_for_start(&client, "all but the active segment goes", |start| start >= 90);
    send(&client, 100..105);
    drop(client);
    let broker = broker.restart();
    let client = Client::connect(broker.address()).expect("connected");
    let begins = offset(&client, OffsetSpec::Earliest);
    assert!(begins >= start, "deleted is deleted");
    check(&client, begins, 105);
}

#[test]
fn records_go_when_they_are_old() {
    let broker = start();
    let client = create(&broker, &["--set", "retention_ms=0"]);
    send(&client, 0..45);
    check(&client, 0, 45);
    broker.run(&["topic", "alter", TOPIC, "--set", "retention_ms=1500"], b"").expect_success();
    // The active segment, too: nothing younger came.
    wait_for_start(&client, "all of them grow old", |start| start == 45);
    check(&client, 45, 45);
    broker.run(&["topic", "alter", TOPIC, "--unset", "retention_ms"], b"").expect_success();
    drop(client);
    let broker = broker.kill_and_restart();
    let client = Client::connect(broker.address()).expect("connected");
    send(&client, 45..60);
    check(&client, 45, 60);
}

#[test]
fn a_topic_is_trimmed_by_offset_by_time_and_as_a_whole() {
    let broker = start();
    let client = create(&broker, &[]);
    send(&client, 0..35);
    let before = disk_bytes(&broker.data_dir());
    let trimmed = broker.run(&["topic", "trim", TOPIC, "--before", "17"], b"").expect_success().stdout_text();
    assert!(trimmed.contains("PARTITION") && trimmed.contains("17"), "{trimmed}");
    check(&client, 17, 35);
    let described = broker.run(&["topic", "describe", TOPIC], b"").expect_success().stdout_text();
    assert!(described.contains("17"), "{described}");
    let beyond = broker.run(&["topic", "trim", TOPIC, "--before", "36", "--partition", "0"], b"");
    assert!(!beyond.success && beyond.stderr.contains("17 to 35"), "{}", beyond.stderr);
    let again = client.admin().delete_records(TOPIC, &[(PARTITION, DeleteBefore::Offset(Offset::new(3)))]);
    assert_eq!(again.expect("nothing to do")[0].log_start.get(), 17);

    // Of all records none is as young as that.
    let later = "@2999-01-01T00:00:00Z";
    broker.run(&["topic", "create", "two", "--partitions", "2"], b"").expect_success();
    let all = ["topic", "trim", TOPIC, "two", "--before", later, "--output", "json"];
    let trimmed = broker.run(&all, b"").expect_success().stdout_text();
    let of_topic = format!(r#"{{"name":"{TOPIC}","partitions":[{{"partition":0,"log_start_offset":35}}]}}"#);
    let of_two = [0, 1].map(|partition| format!(r#"{{"partition":{partition},"log_start_offset":0}}"#)).join(",");
    let of_two = format!(r#"{{"name":"two","partitions":[{of_two}]}}"#);
    assert_eq!(trimmed.lines().collect::<Vec<_>>(), [of_topic, of_two], "a line for each topic");
    check(&client, 35, 35);
    assert!(disk_bytes(&broker.data_dir()) < before / 4, "the space is given back");
    send(&client, 35..40);
    broker.run(&["topic", "trim", TOPIC, "--before", "@0"], b"").expect_success();
    check(&client, 35, 40);
    broker.run(&["topic", "trim", TOPIC, "--before", "latest"], b"").expect_success();
    drop(client);

    let broker = broker.restart();
    let client = Client::connect(broker.address()).expect("connected");
    check(&client, 40, 40);
    send(&client, 40..43);
    drop(client);
    let broker = broker.kill_and_restart();
    let client = Client::connect(broker.address()).expect("connected");
    check(&client, 40, 43);
    let unknown = broker.run(&["topic", "trim", "nothing", "--before", "latest"], b"");
    assert!(!unknown.success && unknown.stderr.contains("nothing"), "{}", unknown.stderr);
}
