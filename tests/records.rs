//! Records at the command line: how they are chosen, printed and gone on with.

use std::io::Read;
use std::process::{Child, ExitStatus};

use ringmq_client::blocking::Client;
use ringmq_client::{Header, PartitionIndex, Record, Timestamp};
use ringmq_tests::{Broker, Lines, run_ringmq, send_signal};

/// What `consume` with these flags prints.
fn consumed(broker: &Broker, flags: &[&str]) -> String {
    broker.run(&[&["consume"], flags].concat(), b"").expect_success().stdout_text()
}

#[test]
fn a_format_string_tells_null_from_empty() {
    let broker = Broker::start();
    broker.create_topic("t", 2);
    let null_header = Header { key: "none".into(), value: None };
    let mut full = Record::value("v").with_key("k").with_header("trace", "1").with_timestamp(Timestamp::new(1_763_820));
    full.headers.push(null_header);
    let deletion = Record { value: None, ..Record::value("").with_key("k") };
    let empty = Record::value("").with_key("");
    let plain = Record::value("plain");
    let client = Client::connect(broker.address().to_string()).expect("it answers");
    let producer = client.producer();
    producer.send_batch_to("t", PartitionIndex::new(1), vec![full, deletion, empty, plain]).expect("stored");

    let format = r"%t:%p:%o %k=%v [%h]\n";
    let printed = consumed(&broker, &["t", "--format", format]);
    assert_eq!(printed, "t:1:0 k=v [trace=1,none=\\N]\nt:1:1 k=\\N []\nt:1:2 = []\nt:1:3 \\N=plain []\n");
    let marked = consumed(&broker, &["t", "--format", "%k=%v;", "--null", "<null>"]);
    assert_eq!(marked, "k=v;k=<null>;=;<null>=plain;");
    assert_eq!(consumed(&broker, &["t", "--format", "%T%%", "--count", "1"]), "1763820%");
    assert_eq!(consumed(&broker, &["t"]), "v\n\\N\n\nplain\n");
    let json = consumed(&broker, &["t", "--output", "json"]);
    let records: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(
        records[0]["headers"],
        serde_json::json!([{"key": "trace", "value": "1"}, {"key": "none", "value": null}])
    );
    assert_eq!((&records[1]["value"], &records[2]["value"]), (&serde_json::Value::Null, &serde_json::json!("")));
    assert_eq!((&records[3]["key"], &records[2]["key"]), (&serde_json::Value::Null, &serde_json::json!("")));
}

#[test]
fn some_partitions_up_to_an_offset_or_a_time_are_read() {
    let broker = Broker::start();
    broker.create_topic("t", 4);
    let client = Client::connect(broker.address().to_string()).expect("it answers");
    for partition in 0..4 {
        let record = |n: i64| Record::value(format!("{partition}.{n}")).with_timestamp(Timestamp::new(1000 + n));
        let records = (0..5).map(record).collect();
        client.producer().send_batch_to("t", PartitionIndex::new(partition), records).expect("stored");
    }
    let sorted = |flags: &[&str]| {
        let printed = consumed(&broker, &[&["t", "--format", r"%v "], flags].concat());
        let mut values: Vec<&str> = printed.split_whitespace().collect();
        values.sort_unstable();
        values.join(" ")
    };
    assert_eq!(sorted(&["--partition", "1,3", "--from", "3"]), "1.3 1.4 3.3 3.4");
    assert_eq!(sorted(&["--partition", "0-1", "--to", "2"]), "0.0 0.1 1.0 1.1");
    assert_eq!(sorted(&["--partition", "2", "--from", "@1001", "--to", "@1003"]), "2.1 2.2");
    assert_eq!(sorted(&["--partition", "2", "--from", "4", "--to", "4"]), "");
    assert_eq!(sorted(&["--partition", "2", "--from", "3", "--to", "@9999"]), "2.3 2.4");
    assert_eq!(sorted(&["--from", "4"]), "0.4 1.4 2.4 3.4");

    let missing = broker.run(&["consume", "t", "--partition", "3,4"], b"");
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains('4') && missing.stdout.is_empty(), "{missing:?}");
}

#[test]
fn a_consume_goes_on_where_the_one_before_ended() {
    let broker = Broker::start();
    broker.create_topic("t", 3);
    let file = broker.directory().join("positions.json");
    let resume = file.to_str().expect("a text path");
    let text: String = (0..100).map(|n| format!("{n}\n")).collect();
    broker.run(&["produce", "t", "-"], text.as_bytes()).expect_success();

    let mut seen: Vec<u32> = Vec::new();
    let mut read_on = |flags: &[&str]| {
        let printed = consumed(&broker, &[&["t", "--resume", resume], flags].concat());
        let before = seen.len();
        seen.extend(printed.lines().map(|line| line.parse::<u32>().expect("a number")));
        seen.len() - before
    };
    assert_eq!([read_on(&["--count", "1"]), read_on(&["--count", "40"])], [1, 40]);
    assert_eq!([read_on(&[]), read_on(&[])], [59, 0]);
    // A partition that comes later begins as --from says; those that the file has do not.
    broker.run(&["topic", "alter", "t", "--partitions", "4"], b"").expect_success();
    broker.run(&["produce", "t", "--partition", "3", "-"], b"100\n101\n").expect_success();
    assert_eq!(read_on(&["--from", "earliest"]), 2);
    seen.sort_unstable();
    assert_eq!(seen, (0..=101).collect::<Vec<_>>());

    // What was printed is saved soon, and by an interrupt.
    let mut following = broker.command(&["consume", "t", "--resume", resume, "--follow"]).spawn().expect("it starts");
    let lines = Lines::of(following.stdout.take().expect("piped"));
    broker.run(&["produce", "t", "--message", "102"], b"").expect_success();
    assert_eq!(lines.next().as_deref(), Some("102"));
    let sum_saved = || {
        let saved: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&file).expect("it is there")).expect("whole at any time");
        saved["positions"].as_object().expect("positions").values().filter_map(serde_json::Value::as_u64).sum::<u64>()
    };
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while sum_saved() < 103 {
        assert!(std::time::Instant::now() < patience, "it is not saved while the topic rests");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    broker.run(&["produce", "t", "--message", "103"], b"").expect_success();
    assert_eq!(lines.next().as_deref(), Some("103"));
    send_signal(&following, "INT");
    assert_eq!(following.wait().expect("it ends").code(), Some(130));
    assert_eq!(consumed(&broker, &["t", "--resume", resume]), "");

    // What the file says is no longer there.
    broker.run(&["topic", "trim", "t", "--before", "latest"], b"").expect_success();
    let saved = std::fs::read_to_string(&file).expect("it is there");
    let mut old: serde_json::Value = serde_json::from_str(&saved).expect("JSON");
    old["positions"]["0"] = 1.into();
    std::fs::write(&file, old.to_string()).expect("written");
    let refused = broker.run(&["consume", "t", "--resume", resume], b"");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("goes on with offset 1 of partition 0"), "{}", refused.stderr);
    broker.run(&["topic", "delete", "t"], b"").expect_success();
    broker.create_topic("t", 3);
    let refused = broker.run(&["consume", "t", "--resume", resume], b"");
    assert!(refused.stderr.contains("topic `t` that was deleted"), "{}", refused.stderr);
}

#[test]
fn a_consume_that_is_killed_before_it_has_printed_anything_leaves_nothing_out() {
    let broker = Broker::start();
    broker.create_topic("t", 1);
    broker.run(&["produce", "t", "--message", "before"], b"").expect_success();
    let file = broker.directory().join("positions.json");
    let resume = file.to_str().expect("a text path");
    let flags = ["t", "--resume", resume, "--from", "latest"];
    let following = [&["consume"], flags.as_slice(), &["--follow"]].concat();
    let mut following = broker.command(&following).spawn().expect("it starts");
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let becomes_saved = |partition: &str| {
        let named = format!("\"{partition}\":");
        while !std::fs::read_to_string(&file).unwrap_or_default().contains(&named) {
            assert!(std::time::Instant::now() < patience, "the beginning of partition {partition} is not saved");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    becomes_saved("0");
    // Also of a partition that comes while it follows.
    broker.run(&["topic", "alter", "t", "--partitions", "2"], b"").expect_success();
    becomes_saved("1");
    following.kill().expect("killed");
    following.wait().expect("it ends");
    broker.run(&["produce", "t", "--partition", "0", "-"], b"1\n2\n").expect_success();
    broker.run(&["produce", "t", "--partition", "1", "-"], b"3\n").expect_success();
    let mut printed: Vec<String> = consumed(&broker, &flags).lines().map(str::to_owned).collect();
    printed.sort_unstable();
    assert_eq!(printed, ["1", "2", "3"]);
}

#[test]
fn a_consume_that_nobody_reads_ends_when_it_is_told_to() {
    let broker = Broker::start();
    broker.create_topic("t", 1);
    // More than a pipe holds, in one batch.
    let text: String = (0..40_000).map(|n| format!("record {n}\n")).collect();
    broker.run(&["produce", "t", "-"], text.as_bytes()).expect_success();
    let file = broker.directory().join("positions.json");
    let flags = ["t", "--resume", file.to_str().expect("a text path")];
    let mut consuming = broker.command(&[&["consume"], flags.as_slice()].concat()).spawn().expect("it starts");
    let mut output = consuming.stdout.take().expect("piped");
    let mut first = [0; 1];
    output.read_exact(&mut first).expect("it prints");
    send_signal(&consuming, "TERM");
    assert_eq!(ended(&mut consuming).code(), Some(130));
    drop(output);
    assert_eq!(consumed(&broker, &flags), text, "what did not go out comes again");
}

/// How a command ended.
#[track_caller]
fn ended(child: &mut Child) -> ExitStatus {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            return status;
        }
        if std::time::Instant::now() > patience {
            child.kill().expect("killed");
            panic!("it does not end");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn headers_nulls_and_compression_go_out_and_come_back() {
    let broker = Broker::start();
    broker.create_topic("t", 1);
    let lines = b"k1\tv1\nk2\t\\N\n\\N\tv3\nk4\t\n";
    let flags = ["--key-separator", r"\t", "--null", r"\N", "--header", "source=shop", "--header", "none"];
    let produce = [&["produce", "t", "-"], &flags[..], &["--compression", "lz4"]].concat();
    broker.run(&produce, lines).expect_success();
    let printed = consumed(&broker, &["t", "--format", r"%k\t%v\n"]);
    assert_eq!(printed.as_bytes(), lines, "what one prints the other takes");
    let json = consumed(&broker, &["t", "--output", "json", "--from", "1", "--count", "1"]);
    let record: serde_json::Value = serde_json::from_str(&json).expect("a line of JSON");
    assert_eq!((&record["key"], &record["value"]), (&serde_json::json!("k2"), &serde_json::Value::Null));
    let headers = serde_json::json!([{"key": "source", "value": "shop"}, {"key": "none", "value": null}]);
    assert_eq!(record["headers"], headers);

    // The help says what does not come back as it was.
    broker.create_topic("marks", 1);
    broker.run(&["produce", "marks", "--message", r"\N"], b"").expect_success();
    let marked = broker.run(&["consume", "marks"], b"").expect_success().stdout;
    broker.run(&["produce", "marks", "-", "--null", r"\N"], &marked).expect_success();
    let json = consumed(&broker, &["marks", "--output", "json"]);
    let values: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&values[0]["value"], &values[1]["value"]), (&serde_json::json!(r"\N"), &serde_json::Value::Null));
    let help = run_ringmq(&["produce", "--help"], b"").expect_success().stdout_text();
    let help: String = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains(r"a tab or a newline in it, or is `\N` itself"), "{help}");

    let message = ["produce", "t", "--message", "gone", "--null", "gone", "--key", "k", "--count", "2"];
    broker.run(&message, b"").expect_success();
    assert_eq!(consumed(&broker, &["t", "--from", "4", "--format", "%k=%v;"]), "k=\\N;k=\\N;");

    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        broker.create_topic(codec, 1);
        let text: String = (0..5_000).map(|n| format!("{codec} {n}\n")).collect();
        broker.run(&["produce", codec, "-", "--compression", codec], text.as_bytes()).expect_success();
        assert_eq!(consumed(&broker, &[codec]), text);
    }

    // What was compressed is stored so.
    let dump = |path: &std::path::Path| run_ringmq(&["log", "dump", path.to_str().expect("text"), "--batches"], b"");
    let data = broker.data_dir();
    let broker_ended = broker.terminate();
    let log = partition_dirs(&data).into_iter().find_map(|dir| {
        let text = dump(&dir).stdout_text();
        text.contains("lz4").then_some(text)
    });
    assert!(log.is_some(), "a batch is stored as it was sent, in {}", broker_ended.directory.path().display());
}

#[test]
fn whoever_follows_reads_partitions_that_are_added() {
    let broker = Broker::start();
    broker.create_topic("t", 1);
    broker.run(&["produce", "t", "--message", "first"], b"").expect_success();
    let mut following = broker.command(&["consume", "t", "--follow"]).spawn().expect("it starts");
    let lines = Lines::of(following.stdout.take().expect("piped"));
    assert_eq!(lines.next().as_deref(), Some("first"), "it has begun");
    broker.run(&["topic", "alter", "t", "--partitions", "3"], b"").expect_success();
    for partition in ["2", "0", "1"] {
        broker.run(&["produce", "t", "--partition", partition, "--message", partition], b"").expect_success();
    }
    let mut seen: Vec<_> = (0..3).filter_map(|_| lines.next()).collect();
    seen.sort();
    assert_eq!(seen, ["0", "1", "2"]);
    send_signal(&following, "TERM");
    following.wait().expect("it ends");
}

/// The directories of all partitions below a data directory.
fn partition_dirs(data: &std::path::Path) -> Vec<std::path::PathBuf> {
    let dirs = |dir: &std::path::Path| -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(dir).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect()
    };
    dirs(data).iter().flat_map(|topic| dirs(topic)).collect()
}
