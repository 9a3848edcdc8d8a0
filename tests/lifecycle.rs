//! Starting, stopping, starting again: what a broker does with its directory, its port and its topics.

use ringmq_tests::{Broker, BrokerOptions, new_directory, run_ringmq};

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
    broker.run(&["topic", "create", "orders", "--partitions", "4"], b"").expect_success();
    let listed = broker.run(&["topic", "list", "--output", "json"], b"").expect_success();
    assert!(listed.stdout_text().contains("\"orders\""), "{}", listed.stdout_text());
    let described = broker.run(&["topic", "describe", "orders", "--output", "json"], b"").expect_success();
    let json: serde_json::Value = serde_json::from_slice(&described.stdout).expect("describe prints JSON");
    assert!(json.to_string().contains("orders"), "{json}");
    broker.run(&["topic", "delete", "orders"], b"").expect_success();
    let gone = broker.run(&["topic", "describe", "orders"], b"");
    assert!(!gone.success && gone.stderr.contains("orders"), "{gone:?}");
}

#[test]
fn records_are_there_after_a_clean_restart_and_after_a_kill() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "log", "--partitions", "3"], b"").expect_success();
    let text: String = (0..2_000).map(|n| format!("line {n}\n")).collect();
    broker.run(&["produce", "log", "-"], text.as_bytes()).expect_success();

    let broker = broker.restart();
    assert_eq!(lines(&broker.run(&["consume", "log"], b"").expect_success().stdout), lines(text.as_bytes()));

    let more: String = (2_000..4_000).map(|n| format!("line {n}\n")).collect();
    broker.run(&["produce", "log", "-"], more.as_bytes()).expect_success();
    let broker = broker.kill_and_restart();
    let all = format!("{text}{more}");
    assert_eq!(lines(&broker.run(&["consume", "log"], b"").expect_success().stdout), lines(all.as_bytes()));
}

#[test]
fn a_deleted_topic_frees_its_files_and_comes_back_empty() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "twice", "--partitions", "2"], b"").expect_success();
    let text = "old data ".repeat(200) + "\n";
    broker.run(&["produce", "twice", "-"], text.repeat(2_000).as_bytes()).expect_success();
    let full = disk_bytes(&broker.data_dir());
    broker.run(&["topic", "delete", "twice"], b"").expect_success();
    let freed = disk_bytes(&broker.data_dir());
    assert!(freed + 3_000_000 < full, "{full} bytes before the delete, {freed} after");

    broker.run(&["topic", "create", "twice", "--partitions", "2"], b"").expect_success();
    assert_eq!(broker.run(&["consume", "twice"], b"").expect_success().stdout, b"");
    broker.run(&["produce", "twice", "--message", "new"], b"").expect_success();
    let broker = broker.restart();
    assert_eq!(broker.run(&["consume", "twice"], b"").expect_success().stdout, b"new\n");
}

#[test]
fn a_thousand_empty_partitions_take_little_disk() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "wide", "--partitions", "1000"], b"").expect_success();
    let used = disk_bytes(&broker.data_dir());
    assert!(used < 100_000_000, "1,000 empty partitions take {used} bytes");
    let broker = broker.restart();
    broker.run(&["produce", "wide", "--partition", "999", "--message", "last"], b"").expect_success();
    assert_eq!(broker.run(&["consume", "wide", "--partition", "999"], b"").expect_success().stdout, b"last\n");
}

#[test]
fn a_port_in_use_is_refused_also_by_a_second_broker() {
    let first = Broker::start();
    let options = BrokerOptions { listen: first.address().to_string(), ..BrokerOptions::default() };
    let directory = new_directory();
    let exit = Broker::start_in(directory, options).expect_err("a second broker on the same port must not start");
    assert!(!exit.status.success());
    assert!(exit.log.contains("in use") && exit.log.contains(&first.address().port().to_string()), "{}", exit.log);

    let foreign = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = foreign.local_addr().expect("an address").to_string();
    let directory = new_directory();
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
    first.run(&["topic", "create", "still-serving"], b"").expect_success();
}

#[test]
fn a_directory_of_a_newer_version_is_refused_untouched() {
    let broker = Broker::start();
    let options = BrokerOptions::default();
    let exit = broker.terminate();
    assert!(exit.status.success(), "{}", exit.log);
    let format = exit.directory.path().join("data/format");
    let text = std::fs::read_to_string(&format).expect("the format file is text");
    let (content, _checksum) = text.rsplit_once("crc32 ").expect("it ends in a checksum");
    let content = content.replace("format_version 2\n", "format_version 99\n").replace("0.2.0", "9.0.0");
    let newer = format!("{content}crc32 {:08x}\n", crc32fast::hash(content.as_bytes()));
    assert_ne!(text, newer);
    std::fs::write(&format, &newer).expect("the format file can be written");
    let exit = Broker::start_in(exit.directory, options).expect_err("a newer directory must be refused");
    assert!(!exit.status.success());
    assert!(exit.log.contains("format 99") && exit.log.contains("9.0.0 or newer"), "{}", exit.log);
}

#[test]
fn a_name_is_listened_on_at_its_first_address() {
    let broker = Broker::start_with(BrokerOptions { listen: "localhost:0".into(), ..BrokerOptions::default() });
    assert_eq!(broker.address().ip().to_string(), "127.0.0.1");
    let line = broker.log().until("several addresses");
    assert!(line.contains("127.0.0.1") && line.contains("::1"), "it says which is used and which is not: {line}");

    // A label of more than 63 characters is one that no resolver needs to be asked for.
    let nowhere = format!("{}:9092", "a".repeat(64));
    let exit = Broker::start_in(new_directory(), BrokerOptions { listen: nowhere.clone(), ..BrokerOptions::default() });
    let exit = exit.expect_err("nobody has that name");
    assert_eq!(exit.status.code(), Some(2), "{}", exit.log);
    assert!(exit.log.contains(&nowhere), "{}", exit.log);
}

#[test]
fn sigterm_ends_the_broker_with_success() {
    let exit = Broker::start().terminate();
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

#[test]
fn a_log_that_cannot_be_written_ends_no_broker() {
    // As a log file on a full disk.
    let launcher = ["sh", "-c", "exec \"$@\" 2>/dev/full", "sh"].map(str::to_owned).to_vec();
    let broker = Broker::start_with(BrokerOptions { launcher, ..BrokerOptions::default() });
    broker.create_topic("t", 2);
    broker.run(&["produce", "t", "-"], b"a\nb\n").expect_success();
    let consumed = broker.run(&["consume", "t"], b"").expect_success().stdout;
    assert_eq!(lines(&consumed), ["a", "b"]);
    assert!(broker.terminate().status.success());
}
