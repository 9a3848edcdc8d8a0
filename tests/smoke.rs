//! A broker and its commands end to end: serve, produce, consume, signals, restart.

use std::io::Write;
use std::process::{Child, ChildStdin};

use ringmq_tests::{Broker, BrokerOptions, Lines, data_dir, new_directory, ringmq, run_ringmq, send_signal};

/// Somebody who types records into topic `t`, and somebody who watches them come; the watcher is killed at the end.
struct Terminals {
    producer: Child,
    input: ChildStdin,
    follower: Child,
    seen: Lines,
}

impl Terminals {
    fn open(broker: &Broker) -> Self {
        let mut follower = broker.command(&["consume", "t", "--follow"]).spawn().expect("it starts");
        let seen = Lines::of(follower.stdout.take().expect("a pipe"));
        let mut producer = broker.command(&["produce", "t"]).spawn().expect("it starts");
        let input = producer.stdin.take().expect("a pipe");
        Self { producer, input, follower, seen }
    }

    /// Ends the watcher; gives the producer with its input.
    fn close(mut self) -> (Child, ChildStdin) {
        self.follower.kill().expect("it runs");
        self.follower.wait().expect("it ends");
        (self.producer, self.input)
    }
}

fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn what_was_produced_is_there_after_a_clean_restart() {
    let broker = Broker::start();
    broker.create_topic("t", 3);
    let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
    let printed =
        broker.run(&["produce", "t", "-", "--output", "json"], text.as_bytes()).expect_success().stdout_text();
    let counts = printed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    assert_eq!(counts.map(|line| line["count"].as_u64().expect("a count")).sum::<u64>(), 1000);

    let exit = broker.end("TERM");
    assert_eq!(exit.status.code(), Some(0), "{}", exit.log);
    let options = BrokerOptions { args: vec!["--log-format".into(), "json".into()], ..BrokerOptions::default() };
    let broker = Broker::start_in(exit.directory, options).expect("it starts again");
    assert_eq!(lines(&broker.run(&["consume", "t"], b"").expect_success().stdout_text()), lines(&text));
    let exit = broker.end("INT");
    assert_eq!(exit.status.code(), Some(0), "{}", exit.log);
    for line in exit.log.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).expect("every log line is a JSON object");
        assert!(entry["level"].is_string(), "{entry}");
    }
}

#[test]
fn results_come_as_json_for_scripts() {
    let broker = Broker::start();
    let json = |args: &[&str]| -> serde_json::Value {
        let all: Vec<_> = args.iter().copied().chain(["--output", "json"]).collect();
        serde_json::from_slice(&broker.run(&all, b"").expect_success().stdout).expect("JSON")
    };
    let created = json(&["topic", "create", "t", "--partitions", "2", "--set", "segment_bytes=1048576"]);
    assert_eq!((created["name"].as_str(), created["partitions"].as_u64()), (Some("t"), Some(2)));
    let listed = json(&["topic", "list"]);
    assert_eq!(listed[0]["topic_id"], created["topic_id"]);
    json(&["produce", "t", "--partition", "1", "--message", "m", "--count", "3"]);
    let described = json(&["topic", "describe", "t"]);
    let setting = described["settings"].as_array().expect("settings").iter().find(|one| one["key"] == "segment_bytes");
    let setting = setting.expect("segment_bytes");
    assert_eq!((setting["value"].as_str(), setting["is_default"].as_bool()), (Some("1048576"), Some(false)));
    assert_eq!(described["partitions"][1]["log_end_offset"], 3);
    assert_eq!(json(&["topic", "delete", "t"])["name"], "t");
    assert_eq!(json(&["topic", "list"]), serde_json::json!([]));
}

/// What is typed at a terminal must not wait for a batch to fill up.
#[test]
fn a_record_is_sent_when_the_input_pauses() {
    let broker = Broker::start();
    broker.create_topic("t", 1);
    let mut terminals = Terminals::open(&broker);
    for line in ["one", "two"] {
        writeln!(terminals.input, "{line}").expect("it reads");
        assert_eq!(terminals.seen.next().as_deref(), Some(line), "before the input ends");
    }
    let (mut producer, input) = terminals.close();
    drop(input);
    assert!(producer.wait().expect("it ends").success());
}

#[test]
fn an_interrupted_produce_says_what_was_acknowledged() {
    let broker = Broker::start();
    broker.create_topic("t", 1);
    let mut terminals = Terminals::open(&broker);
    terminals.input.write_all(b"one\ntwo\n").expect("it reads");
    assert_eq!((terminals.seen.next().as_deref(), terminals.seen.next().as_deref()), (Some("one"), Some("two")));
    let (producer, _input) = terminals.close();
    send_signal(&producer, "INT");
    let output = producer.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "partition=0 first_offset=0 last_offset=1 count=2\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("2 records were acknowledged"));
}

#[test]
fn a_line_that_no_batch_holds_ends_a_produce_with_its_number() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t", "--set", "batch_bytes_max=2048"], b"").expect_success();
    let text = format!("short\n{}\nafter\n", "x".repeat(3000));
    let output = broker.run(&["produce", "t", "-"], text.as_bytes());
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    assert!(output.stderr.contains("line 2") && output.stderr.contains("batch_bytes_max"), "{}", output.stderr);
    let fits = "x".repeat(1900);
    broker.run(&["produce", "t", "-"], format!("{fits}\n{fits}\n").as_bytes()).expect_success();
    let read = broker.run(&["consume", "t"], b"").expect_success().stdout_text();
    assert!(read.ends_with(&format!("{fits}\n{fits}\n")));
}

#[test]
fn a_reader_that_has_enough_ends_a_consume_quietly() {
    let broker = Broker::start();
    broker.create_topic("t", 1);
    let text: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    broker.run(&["produce", "t", "-"], text.as_bytes()).expect_success();
    let mut consumer = broker.command(&["consume", "t"]).spawn().expect("it starts");
    drop(consumer.stdout.take());
    let output = consumer.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn offsets_and_partitions_that_are_not_there_are_told_with_what_is() {
    let broker = Broker::start();
    broker.create_topic("t", 2);
    broker.run(&["produce", "t", "--partition", "0", "--message", "m", "--count", "5"], b"").expect_success();
    let cases: [(&[&str], &str); 3] = [
        (&["consume", "t", "--partition", "0", "--from", "6"], "valid: 0 to 5"),
        (&["produce", "t", "--partition", "2", "--message", "m"], "its 2 partitions are numbered from 0"),
        (&["produce", "t", "/no/such/file"], "/no/such/file"),
    ];
    for (args, expected) in cases {
        let output = broker.run(args, b"");
        assert_eq!(output.code, Some(1), "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(expected), "{args:?}: {}", output.stderr);
    }
}

#[test]
fn statistics_are_logged_when_asked_for() {
    let broker = Broker::start();
    broker.create_topic("t", 1);
    broker.run(&["produce", "t", "--message", "m"], b"").expect_success();
    broker.signal("USR1");
    // Each executor writes when it comes to it.
    let (mut shard, mut controller) = (None, None);
    while shard.is_none() || controller.is_none() {
        let line = broker.log().until("statistics");
        if line.contains("statistics of the controller") {
            controller = Some(line);
        } else if line.contains("Produce=") {
            shard = Some(line);
        }
    }
    let line = shard.expect("it was written");
    assert!(line.contains("Produce=1") && line.contains("_us[n=") && line.contains("p99="), "{line}");
}

#[test]
fn a_signal_during_the_start_is_a_clean_end() {
    let directory = new_directory();
    let data = data_dir(directory.path());
    let data = data.to_str().expect("a text path");
    let flags = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data, "--log-level", "debug"];
    let mut child = ringmq(&flags).spawn().expect("it starts");
    let log = Lines::of(child.stderr.take().expect("a pipe"));
    log.until("the machine has what a broker needs");
    send_signal(&child, "TERM");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0), "{:?}", log.rest());
}

#[test]
fn doctor_tells_what_a_broker_needs() {
    let directory = new_directory();
    let data = data_dir(directory.path());
    let data = data.to_str().expect("a text path");
    let output = run_ringmq(&["doctor", "--data-dir", data, "--output", "json"], b"");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = report.as_array().expect("a list");
    let subjects: Vec<_> = checks.iter().map(|check| check["subject"].as_str().expect("a subject")).collect();
    let examined = ["kernel", "io_uring", "locked memory", "direct I/O", "data directory", "disk polling", "free disk"];
    assert_eq!(subjects, [&examined[..], &["open files", "CPUs"]].concat());
    let healthy = checks.iter().all(|check| check["ok"] == true);
    assert_eq!(output.success, healthy, "{report}");
    assert!(!std::path::Path::new(data).exists(), "an examination makes nothing");

    let text = run_ringmq(&["doctor", "--data-dir", data], b"").stdout_text();
    let good = checks.iter().filter(|check| check["ok"] == true).count();
    assert_eq!(text.lines().filter(|line| line.starts_with("ok ")).count(), good, "{text}");
}
