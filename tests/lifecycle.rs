//! Starting, stopping, starting again: what a broker does with its directory, its port and its topics.

use ringmq_tests::{Broker, BrokerOptions, run_ringmq};

fn topic(broker: &Broker, args: &[&str]) -> ringmq_tests::CommandOutput {
    let address = broker.address().to_string();
    let mut all = vec!["topic"];
    all.extend_from_slice(args);
    all.extend_from_slice(&["--brokers", &address]);
    run_ringmq(&all, b"")
}

fn produce(broker: &Broker, args: &[&str], stdin: &[u8]) -> ringmq_tests::CommandOutput {
    let address = broker.address().to_string();
    let mut all = vec!["produce"];
    all.extend_from_slice(args);
    all.extend_from_slice(&["--brokers", &address]);
    run_ringmq(&all, stdin)
}

fn consume(broker: &Broker, args: &[&str]) -> ringmq_tests::CommandOutput {
    let address = broker.address().to_string();
    let mut all = vec!["consume"];
    all.extend_from_slice(args);
    all.extend_from_slice(&["--brokers", &address]);
    run_ringmq(&all, b"")
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Bytes that the files below a directory really occupy.
fn disk_bytes(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let metadata = entry.metadata().expect("an entry of the data directory has metadata");
        sum += metadata.blocks() * 512;
        if metadata.is_dir() {
            sum += disk_bytes(&entry.path());
        }
    }
    sum
}

#[test]
fn a_topic_is_created_listed_described_and_deleted() {
    let broker = Broker::start();
    topic(&broker, &["create", "orders", "--partitions", "4"]).expect_success();
    let listed = topic(&broker, &["list", "--output", "json"]).expect_success();
    assert!(listed.stdout_text().contains("\"orders\""), "{}", listed.stdout_text());
    let described = topic(&broker, &["describe", "orders", "--output", "json"]).expect_success();
    let json: serde_json::Value = serde_json::from_slice(&described.stdout).expect("describe prints JSON");
    assert!(json.to_string().contains("orders"), "{json}");
    topic(&broker, &["delete", "orders"]).expect_success();
    let gone = topic(&broker, &["describe", "orders"]);
    assert!(!gone.success && gone.stderr.contains("orders"), "{gone:?}");
}

#[test]
fn records_are_there_after_a_clean_restart_and_after_a_kill() {
    let broker = Broker::start();
    topic(&broker, &["create", "log", "--partitions", "3"]).expect_success();
    let text: String = (0..2_000).map(|n| format!("line {n}\n")).collect();
    produce(&broker, &["log", "-"], text.as_bytes()).expect_success();

    let broker = broker.restart();
    assert_eq!(lines(&consume(&broker, &["log"]).expect_success().stdout), lines(text.as_bytes()));

    let more: String = (2_000..4_000).map(|n| format!("line {n}\n")).collect();
    produce(&broker, &["log", "-"], more.as_bytes()).expect_success();
    let broker = broker.kill_and_restart();
    let all = format!("{text}{more}");
    assert_eq!(lines(&consume(&broker, &["log"]).expect_success().stdout), lines(all.as_bytes()));
}

#[test]
fn a_deleted_topic_frees_its_files_and_comes_back_empty() {
    let broker = Broker::start();
    topic(&broker, &["create", "twice", "--partitions", "2"]).expect_success();
    let text = "old data ".repeat(200) + "\n";
    produce(&broker, &["twice", "-"], text.repeat(2_000).as_bytes()).expect_success();
    let full = disk_bytes(&broker.data_dir());
    topic(&broker, &["delete", "twice"]).expect_success();
    let freed = disk_bytes(&broker.data_dir());
    assert!(freed + 3_000_000 < full, "{full} bytes before the delete, {freed} after");

    topic(&broker, &["create", "twice", "--partitions", "2"]).expect_success();
    assert_eq!(consume(&broker, &["twice"]).expect_success().stdout, b"");
    produce(&broker, &["twice", "--message", "new"], b"").expect_success();
    let broker = broker.restart();
    assert_eq!(consume(&broker, &["twice"]).expect_success().stdout, b"new\n");
}

#[test]
fn a_thousand_empty_partitions_take_little_disk() {
    let broker = Broker::start();
    topic(&broker, &["create", "wide", "--partitions", "1000"]).expect_success();
    let used = disk_bytes(&broker.data_dir());
    assert!(used < 100_000_000, "1,000 empty partitions take {used} bytes");
    let broker = broker.restart();
    produce(&broker, &["wide", "--partition", "999", "--message", "last"], b"").expect_success();
    assert_eq!(consume(&broker, &["wide", "--partition", "999"]).expect_success().stdout, b"last\n");
}

#[test]
fn a_port_in_use_is_refused_also_by_a_second_broker() {
    let first = Broker::start();
    let options = BrokerOptions { listen: first.address().to_string(), ..BrokerOptions::default() };
    let directory = tempfile::tempdir_in(first.data_dir().parent().expect("a parent")).expect("a directory");
    let exit = Broker::start_in(directory, options).expect_err("a second broker on the same port must not start");
    assert!(!exit.status.success());
    assert!(exit.log.contains("in use") && exit.log.contains(&first.address().port().to_string()), "{}", exit.log);

    let foreign = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = foreign.local_addr().expect("an address").to_string();
    let directory = tempfile::tempdir_in(first.data_dir().parent().expect("a parent")).expect("a directory");
    let exit = Broker::start_in(directory, BrokerOptions { listen, ..BrokerOptions::default() })
        .expect_err("a port of another program must not be shared");
    assert!(exit.log.contains("in use"), "{}", exit.log);
}

#[test]
fn a_data_directory_has_one_owner() {
    let first = Broker::start();
    let data = first.data_dir();
    let refused =
        run_ringmq(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().expect("a text path")], b"");
    assert!(!refused.success, "two brokers on one directory");
    assert!(refused.stderr.contains(data.to_str().expect("a text path")), "{}", refused.stderr);
    topic(&first, &["create", "still-serving"]).expect_success();
}

#[test]
fn a_directory_of_a_newer_version_is_refused_untouched() {
    let broker = Broker::start();
    let options = BrokerOptions::default();
    let (exit, directory) = broker.terminate();
    assert!(exit.status.success(), "{}", exit.log);
    let format = directory.path().join("data/format");
    let text = std::fs::read_to_string(&format).expect("the format file is text");
    let (content, _checksum) = text.rsplit_once("crc32 ").expect("it ends in a checksum");
    let content = content.replace("format_version 1\n", "format_version 99\n").replace("0.1.0", "9.0.0");
    let newer = format!("{content}crc32 {:08x}\n", crc32fast::hash(content.as_bytes()));
    assert_ne!(text, newer);
    std::fs::write(&format, &newer).expect("the format file can be written");
    let exit = Broker::start_in(directory, options).expect_err("a newer directory must be refused");
    assert!(!exit.status.success());
    assert!(exit.log.contains("format 99") && exit.log.contains("9.0.0 or newer"), "{}", exit.log);
}

#[test]
fn sigterm_ends_the_broker_with_success() {
    let (exit, _directory) = Broker::start().terminate();
    assert!(exit.status.success(), "{}:\n{}", exit.status, exit.log);
}

#[test]
fn localhost_is_reached_on_ipv6_too() {
    let broker = Broker::start_with(BrokerOptions { listen: "[::1]:0".into(), ..BrokerOptions::default() });
    let brokers = format!("localhost:{}", broker.address().port());
    run_ringmq(&["topic", "create", "six", "--brokers", &brokers], b"").expect_success();
    run_ringmq(&["produce", "six", "--message", "hello", "--brokers", &brokers], b"").expect_success();
    let read = run_ringmq(&["consume", "six", "--brokers", &brokers], b"").expect_success();
    assert_eq!(read.stdout, b"hello\n");
}
