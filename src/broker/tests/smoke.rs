//! A broker and its commands end to end: serve, produce, consume, signals, restart.

mod support;

use std::io::Write;

use support::{Broker, Lines, signal};

fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn what_was_produced_is_there_after_a_clean_restart() {
    let broker = Broker::start();
    broker.stdout(&["topic", "create", "t", "--partitions", "3"], b"");
    let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
    let printed = broker.stdout(&["produce", "t", "-", "--output", "json"], text.as_bytes());
    let counts = printed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    assert_eq!(counts.map(|line| line["count"].as_u64().expect("a count")).sum::<u64>(), 1000);

    let (status, log, dir) = broker.end("TERM");
    assert_eq!(status.code(), Some(0), "{log:?}");
    let broker = Broker::start_in(dir, &["--log-format", "json"]);
    assert_eq!(lines(&broker.stdout(&["consume", "t"], b"")), lines(&text));
    let (status, log, _dir) = broker.end("INT");
    assert_eq!(status.code(), Some(0), "{log:?}");
    for line in log {
        let entry: serde_json::Value = serde_json::from_str(&line).expect("every log line is a JSON object");
        assert!(entry["level"].is_string(), "{entry}");
    }
}

#[test]
fn results_come_as_json_for_scripts() {
    let broker = Broker::start();
    let json = |args: &[&str]| -> serde_json::Value {
        let all: Vec<_> = args.iter().copied().chain(["--output", "json"]).collect();
        serde_json::from_str(&broker.stdout(&all, b"")).expect("JSON")
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
    broker.stdout(&["topic", "create", "t"], b"");
    let mut follower = broker.command(&["consume", "t", "--follow"]).spawn().expect("it starts");
    let seen = Lines::of(follower.stdout.take().expect("a pipe"));
    let mut producer = broker.command(&["produce", "t"]).spawn().expect("it starts");
    let mut input = producer.stdin.take().expect("a pipe");
    for line in ["one", "two"] {
        writeln!(input, "{line}").expect("it reads");
        assert_eq!(seen.next().as_deref(), Some(line), "before the input ends");
    }
    drop(input);
    assert!(producer.wait().expect("it ends").success());
    follower.kill().expect("it runs");
    follower.wait().expect("it ends");
}

#[test]
fn an_interrupted_produce_says_what_was_acknowledged() {
    let broker = Broker::start();
    broker.stdout(&["topic", "create", "t"], b"");
    let mut follower = broker.command(&["consume", "t", "--follow"]).spawn().expect("it starts");
    let seen = Lines::of(follower.stdout.take().expect("a pipe"));
    let mut producer = broker.command(&["produce", "t"]).spawn().expect("it starts");
    let mut input = producer.stdin.take().expect("a pipe");
    input.write_all(b"one\ntwo\n").expect("it reads");
    assert_eq!((seen.next().as_deref(), seen.next().as_deref()), (Some("one"), Some("two")));
    signal(&producer, "INT");
    let output = producer.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "partition=0 first_offset=0 last_offset=1 count=2\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("2 records were acknowledged"));
    follower.kill().expect("it runs");
    follower.wait().expect("it ends");
}

#[test]
fn a_line_that_no_batch_holds_ends_a_produce_with_its_number() {
    let broker = Broker::start();
    broker.stdout(&["topic", "create", "t", "--set", "batch_bytes_max=2048"], b"");
    let text = format!("short\n{}\nafter\n", "x".repeat(3000));
    let output = broker.run(&["produce", "t", "-"], text.as_bytes());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("line 2") && stderr.contains("batch_bytes_max"), "{stderr}");
    let fits = "x".repeat(1900);
    broker.stdout(&["produce", "t", "-"], format!("{fits}\n{fits}\n").as_bytes());
    assert!(broker.stdout(&["consume", "t"], b"").ends_with(&format!("{fits}\n{fits}\n")));
}

#[test]
fn a_reader_that_has_enough_ends_a_consume_quietly() {
    let broker = Broker::start();
    broker.stdout(&["topic", "create", "t"], b"");
    let text: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    broker.stdout(&["produce", "t", "-"], text.as_bytes());
    let mut consumer = broker.command(&["consume", "t"]).spawn().expect("it starts");
    drop(consumer.stdout.take());
    let output = consumer.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn offsets_and_partitions_that_are_not_there_are_told_with_what_is() {
    let broker = Broker::start();
    broker.stdout(&["topic", "create", "t", "--partitions", "2"], b"");
    broker.stdout(&["produce", "t", "--partition", "0", "--message", "m", "--count", "5"], b"");
    let cases: [(&[&str], &str); 3] = [
        (&["consume", "t", "--partition", "0", "--from", "6"], "valid: 0 to 5"),
        (&["produce", "t", "--partition", "2", "--message", "m"], "its 2 partitions are numbered from 0"),
        (&["produce", "t", "/no/such/file"], "/no/such/file"),
    ];
    for (args, expected) in cases {
        let output = broker.run(args, b"");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
}

#[test]
fn statistics_are_logged_when_asked_for() {
    let broker = Broker::start();
    broker.stdout(&["topic", "create", "t"], b"");
    broker.stdout(&["produce", "t", "--message", "m"], b"");
    broker.signal("USR1");
    let line = broker.log.until("Produce=");
    assert!(line.contains("Produce=1"), "{line}");
}

#[test]
fn a_signal_during_the_start_is_a_clean_end() {
    let dir = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let data = dir.path().join("data");
    let data = data.to_str().expect("a text path");
    let flags = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data, "--log-level", "debug"];
    let mut child = support::ringmq(&flags).spawn().expect("it starts");
    let log = Lines::of(child.stderr.take().expect("a pipe"));
    log.until("the machine has what a broker needs");
    signal(&child, "TERM");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0), "{:?}", log.rest());
}

#[test]
fn doctor_tells_what_a_broker_needs() {
    let dir = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let data = dir.path().join("data");
    let data = data.to_str().expect("a text path");
    let output = support::ringmq(&["doctor", "--data-dir", data, "--output", "json"]).output().expect("it runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = report.as_array().expect("a list");
    let subjects: Vec<_> = checks.iter().map(|check| check["subject"].as_str().expect("a subject")).collect();
    assert_eq!(subjects, ["kernel", "io_uring", "locked memory", "direct I/O", "disk polling", "free disk", "CPUs"]);
    let healthy = checks.iter().all(|check| check["ok"] == true);
    assert_eq!(output.status.success(), healthy, "{report}");
    assert!(!std::path::Path::new(data).exists(), "an examination makes nothing");

    let text = support::ringmq(&["doctor", "--data-dir", data]).output().expect("it runs").stdout;
    let text = String::from_utf8(text).expect("text");
    let good = checks.iter().filter(|check| check["ok"] == true).count();
    assert_eq!(text.lines().filter(|line| line.starts_with("ok ")).count(), good, "{text}");
}
