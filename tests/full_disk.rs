//! A real broker on a file system without a free block. It is one in memory, of a size of its own: without privileges there
//! is no other. Where the machine does not let its user mount one, nothing is examined.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringmq_client::blocking::Client;
use ringmq_client::{ErrorCode, FetchOptions, Offset, OffsetSpec, PartitionIndex, Record};
use ringmq_tests::{Broker, BrokerOptions, Lines, new_directory, not_examined};
use tempfile::TempDir;

const FIRST: PartitionIndex = PartitionIndex::new(0);
/// How long to wait for what happens in the background.
const PATIENCE: Duration = Duration::from_secs(60);

/// A small file system in a mount namespace of its own, for as long as this lives.
struct SmallDisk {
    holder: Child,
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts 48 MiB where a broker in `directory` has its data; `None` where that is not allowed.
    fn mount(directory: &Path) -> Option<Self> {
        const MOUNT: &str = "mount -t tmpfs -o size=48m ringmq \"$0\" && echo mounted && cat";
        let path = ringmq_tests::data_dir(directory);
        std::fs::create_dir(&path).expect("a new directory");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "bash", "-c", MOUNT]).arg(&path);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let said = Lines::of(holder.stdout.take().expect("it is piped"));
        let disk = Self { holder, path };
        (said.next().as_deref() == Some("mounted")).then_some(disk)
    }

    /// A command line that runs what follows it where the file system is mounted.
    fn inside(&self) -> Vec<String> {
        let holder = self.holder.id().to_string();
        ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", &holder, "--"]
            .map(str::to_owned)
            .to_vec()
    }

    fn run(&self, script: &str) -> String {
        let inside = self.inside();
        let mut command = Command::new(&inside[0]);
        let output =
            command.args(&inside[1..]).args(["bash", "-c", script]).arg(&self.path).output().expect("bash runs");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Takes every block that is free.
    fn fill(&self) {
        self.run("cat /dev/zero > \"$0/ballast\"");
        assert_eq!(self.run("df --output=avail \"$0\" | tail -n 1").trim(), "0");
    }

    fn give_back(&self) {
        self.run("rm \"$0/ballast\"");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It ends with its input; already ended is fine.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A directory with a small disk in it, and a broker there.
fn start(test: &str) -> Option<(SmallDisk, Broker)> {
    let directory = new_directory();
    let Some(disk) = SmallDisk::mount(directory.path()) else {
        not_examined(test, "this machine lets its user mount no file system");
        return None;
    };
    match start_in(&disk, directory) {
        Ok(broker) => Some((disk, broker)),
        Err(log) => {
            // Before Linux 6.6 tmpfs has no direct I/O.
            assert!(log.contains("direct I/O"), "{log}");
            not_examined(test, "tmpfs has no direct I/O here");
            None
        }
    }
}

fn start_in(disk: &SmallDisk, directory: TempDir) -> Result<Broker, String> {
    let mut options = BrokerOptions { cores: "0".into(), launcher: disk.inside(), ..BrokerOptions::default() };
    options.config.get_or_insert_default().push_str("retention_interval_ms = 100\n");
    Broker::start_in(directory, options).map_err(|exit| exit.log)
}

/// For what a full disk refuses.
const TIMEOUT: Duration = Duration::from_secs(2);

fn connect(broker: &Broker) -> Client {
    Client::connect_with(ringmq_client::Client::builder().brokers(broker.address()).timeout(TIMEOUT))
        .expect("connected")
}

/// Sends records of so many bytes until there is no room for another; the end.
fn send_until_full(client: &Client, topic: &str, bytes: usize) -> i64 {
    let producer = client.producer().idempotent(false).delivery_timeout(TIMEOUT);
    loop {
        match producer.send_to(topic, FIRST, Record::value(vec![b'x'; bytes])) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.code(), Some(ErrorCode::StorageFull), "{error}");
                return offset(client, topic, OffsetSpec::Latest);
            }
        }
    }
}

fn offset(client: &Client, topic: &str, at: OffsetSpec) -> i64 {
    client.consumer().list_offset(topic, FIRST, at).expect("an offset").offset.expect("one").get()
}

#[test]
fn a_full_disk_is_started_from_trimmed_and_written_to_again() {
    let Some((disk, broker)) = start("a_full_disk_is_started_from_trimmed_and_written_to_again") else { return };
    for topic in ["small", "large", "gone"] {
        let settings = ["--set", "segment_bytes=1048576"];
        broker.run(&[&["topic", "create", topic][..], &settings].concat(), b"").expect_success();
    }
    let client = connect(&broker);
    client.producer().send_to("gone", FIRST, "a record").expect("acknowledged");
    // The journal has small ones when the disk is full, and its blocks are needed.
    client.producer().send_to("small", FIRST, "a record").expect("acknowledged");
    send_until_full(&client, "large", 100_000);
    disk.fill();
    let small = send_until_full(&client, "small", 1_000);
    let large = send_until_full(&client, "large", 100_000);
    drop(client);

    let (options_of, exit) = (&disk, broker.kill());
    let broker = start_in(options_of, exit.directory).expect("a full disk can be started from");
    let client = connect(&broker);
    assert_eq!(
        (offset(&client, "small", OffsetSpec::Latest), offset(&client, "large", OffsetSpec::Latest)),
        (small, large)
    );
    let all = client.consumer().fetch("small", FIRST, Offset::ZERO, FetchOptions::no_wait()).expect("readable");
    assert_eq!(all.records[0].value.as_deref(), Some(&b"a record"[..]));
    let refused =
        client.producer().delivery_timeout(TIMEOUT).send_to("large", FIRST, Record::value(vec![b'x'; 900_000]));
    assert!(refused.is_err(), "the disk is full");

    // What deletes works: a trim, a topic, retention.
    let before = (large / 2).to_string();
    broker.run(&["topic", "trim", "large", "--before", &before], b"").expect_success();
    assert_eq!(offset(&client, "large", OffsetSpec::Earliest), large / 2);
    broker.run(&["topic", "delete", "gone"], b"").expect_success();
    broker.run(&["topic", "alter", "large", "--set", "retention_bytes=1"], b"").expect_success();
    let since = Instant::now();
    while offset(&client, "large", OffsetSpec::Earliest) < large - 11 {
        assert!(since.elapsed() < PATIENCE, "all but the active segment goes");
        std::thread::sleep(Duration::from_millis(20));
    }
    // There is room again, for the reserve first and then for this.
    let producer = client.producer();
    let sent = producer.send_to("large", FIRST, Record::value(vec![b'x'; 900_000])).expect("there is room");
    assert_eq!(sent.offset.get(), large, "no offset was used for what was refused");
    drop(client);
    let exit = broker.terminate();
    assert!(exit.status.success(), "{}", exit.log);
    assert!(exit.log.contains("is given up"), "it says that the reserve was used: {}", exit.log);
    assert!(exit.log.contains("space is kept for deletions"), "and that it is kept again: {}", exit.log);
    disk.give_back();
}
