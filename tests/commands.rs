//! The command line as scripts use it: flags, output, exit codes.

use ringmq_tests::{Broker, BrokerOptions, Lines, run_ringmq, send_signal};

#[test]
fn the_aliases_of_the_reference_do_the_same() {
    let broker = Broker::start();
    broker.run(&["create-topic", "alias", "--partitions", "2"], b"").expect_success();
    assert!(broker.run(&["list-topics"], b"").expect_success().stdout_text().contains("alias"));
    assert!(broker.run(&["describe-topic", "alias"], b"").expect_success().stdout_text().contains("alias"));
    broker.run(&["delete-topic", "alias"], b"").expect_success();
    assert!(!broker.run(&["list-topics"], b"").expect_success().stdout_text().contains("alias"));
}

#[test]
fn produce_prints_a_line_for_each_partition_with_what_was_acknowledged() {
    let broker = Broker::start();
    broker.create_topic("counts", 2);
    let output = broker.run(&["produce", "counts", "--partition", "1", "--message", "x", "--count", "5"], b"");
    let output = output.expect_success();
    let text = output.stdout_text();
    assert_eq!(text.lines().count(), 1, "{text}");
    let numbers: Vec<u64> =
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
    assert_eq!(numbers, [1, 0, 4, 5], "partition, first offset, last offset, count: {text}");
}

#[test]
fn records_without_a_key_spread_and_records_with_one_stay_together() {
    let broker = Broker::start();
    broker.create_topic("spread", 4);
    let text: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    let output = broker.run(&["produce", "spread", "-"], text.as_bytes()).expect_success();
    assert_eq!(output.stdout_text().lines().count(), 4, "every partition got records: {}", output.stdout_text());

    broker.create_topic("keyed", 4);
    let output = broker.run(&["produce", "keyed", "--key", "one", "-"], text.as_bytes()).expect_success();
    assert_eq!(output.stdout_text().lines().count(), 1, "one key, one partition: {}", output.stdout_text());
    let read = broker.run(&["consume", "keyed"], b"").expect_success();
    assert!(read.stdout == text.as_bytes(), "order holds inside a partition");
}

#[test]
fn bytes_pass_unchanged() {
    let broker = Broker::start();
    broker.create_topic("bytes", 1);
    // Invalid UTF-8, a carriage return, an empty line, and no newline at the end.
    let text = b"\xff\xfe\x00\r\n\nlast";
    broker.run(&["produce", "bytes", "-"], text).expect_success();
    let read = broker.run(&["consume", "bytes"], b"").expect_success();
    assert_eq!(read.stdout, b"\xff\xfe\x00\r\n\nlast\n");
    let raw = broker.run(&["consume", "bytes", "--format", "raw"], b"").expect_success();
    assert_eq!(raw.stdout, b"\xff\xfe\x00\rlast");
    let json = broker.run(&["consume", "bytes", "--format", "json"], b"").expect_success();
    let records: Vec<serde_json::Value> =
        json.stdout_text().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(records.len(), 3);
    assert!(records[0].get("value_base64").is_some(), "{}", records[0]);
    assert_eq!(records[2]["value"], "last");
    assert_eq!(records[2]["offset"], 2);
    assert_eq!(records[2]["partition"], 0);
    assert!(records[2]["timestamp"].as_i64().is_some_and(|ms| ms > 1_600_000_000_000));
    assert!(records[2].get("key").is_some() && records[2].get("headers").is_some());
}

#[test]
fn records_come_as_json_by_the_flag_that_every_command_has() {
    let broker = Broker::start();
    broker.create_topic("records", 1);
    broker.run(&["produce", "records", "-"], b"one\ntwo\n").expect_success();
    let printed =
        |flags: [&str; 2]| broker.run(&["consume", "records", flags[0], flags[1]], b"").expect_success().stdout;
    assert_eq!(printed(["--output", "json"]), printed(["--format", "json"]));
    assert_eq!(printed(["--output", "text"]), b"one\ntwo\n");
    let both = broker.run(&["consume", "records", "--output", "json", "--format", "raw"], b"");
    assert_eq!(both.code, Some(2), "{both:?}");
}

#[test]
fn keys_are_split_from_lines() {
    let broker = Broker::start();
    broker.create_topic("pairs", 3);
    let text = b"a:1\nb:2\na:3:x\n";
    broker.run(&["produce", "pairs", "--key-separator", ":", "-"], text).expect_success();
    let json = broker.run(&["consume", "pairs", "--format", "json"], b"").expect_success();
    let mut pairs: Vec<(String, String)> = json
        .stdout_text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"))
        .map(|record| (record["key"].to_string(), record["value"].to_string()))
        .collect();
    pairs.sort();
    assert_eq!(
        pairs,
        [("\"a\"", "\"1\""), ("\"a\"", "\"3:x\""), ("\"b\"", "\"2\"")].map(|(k, v)| (k.into(), v.into()))
    );

    let refused = broker.run(&["produce", "pairs", "--key-separator", ":", "-"], b"a:1\nno separator\n");
    assert!(!refused.success && refused.stderr.contains("line 2"), "{refused:?}");
}

#[test]
fn consume_starts_where_it_is_told() {
    let broker = Broker::start();
    broker.create_topic("from", 1);
    let text: String = (0..100).map(|n| format!("{n}\n")).collect();
    broker.run(&["produce", "from", "-"], text.as_bytes()).expect_success();
    let partial = broker.run(&["consume", "from", "--partition", "0", "--from", "97"], b"").expect_success();
    assert_eq!(partial.stdout, b"97\n98\n99\n");
    let counted = broker.run(&["consume", "from", "--count", "2"], b"").expect_success();
    assert_eq!(counted.stdout, b"0\n1\n");
    assert_eq!(broker.run(&["consume", "from", "--from", "latest"], b"").expect_success().stdout, b"");
    assert_eq!(broker.run(&["consume", "from", "--from", "@0", "--count", "1"], b"").expect_success().stdout, b"0\n");
    let beyond = broker.run(&["consume", "from", "--partition", "0", "--from", "101"], b"");
    assert!(!beyond.success && beyond.stderr.contains("offset 101 of partition 0"), "{beyond:?}");
    assert!(beyond.stderr.contains("valid: 0 to 100"), "{beyond:?}");
}

#[test]
fn what_cannot_be_done_says_why_and_what_to_do() {
    let broker = Broker::start();
    let long = "a".repeat(250);
    let refused: &[(&[&str], &str)] = &[
        (&["topic", "create", ""], "a topic name cannot be empty; use 1 to 249 characters"),
        (&["topic", "create", &long], "the topic name is 250 bytes long; use at most 249"),
        (
            &["topic", "create", "../x"],
            "topic `../x`: INVALID_TOPIC_NAME: the topic name holds '/' at byte 2; use only",
        ),
        (&["topic", "create", "none", "--partitions", "0"], "0 partitions are out of range; ask for 1 to 10000"),
        (&["topic", "create", "copies", "--replicas", "3"], "3 replicas cannot be met; ask for at least 1"),
        (&["topic", "create", "set", "--set", "segment_bites=1"], "the nearest key is segment_bytes"),
        (&["topic", "create", "set", "--set", "segment_bytes=1"], "give a value from 1048576 to 1099511627776"),
        (&["topic", "alter", "absent", "--partitions", "2"], "there is no topic \"absent\"; check the name"),
        (&["topic", "delete", "absent"], "there is no topic \"absent\"; check the name, or list the topics"),
        (&["produce", "absent", "--message", "x"], "there is no topic \"absent\"; create it, or check the name"),
        (&["consume", "absent"], "there is no topic \"absent\"; create it, or check the name"),
    ];
    for (args, expected) in refused {
        let output = broker.run(args, b"");
        assert!(!output.success, "{args:?} was accepted");
        assert!(output.stderr.contains(expected), "{args:?} says: {}", output.stderr);
    }
    broker.create_topic("twice", 1);
    let again = broker.run(&["topic", "create", "twice"], b"");
    assert!(!again.success && again.stderr.contains("TOPIC_ALREADY_EXISTS"), "{again:?}");
    let missing = broker.run(&["produce", "twice", "--partition", "7", "--message", "x"], b"");
    let why = "topic `twice` has no partition 7: its 1 partitions are numbered from 0";
    assert!(!missing.success && missing.stderr.contains(why), "{missing:?}");
}

#[test]
fn a_topic_is_altered_while_it_is_in_use_and_stays_so() {
    let broker = Broker::start();
    broker.create_topic("live", 2);
    let large = vec![b'x'; 3_000];
    broker.run(&["produce", "live", "--partition", "0", "-"], &large).expect_success();
    let alter = |flags: &[&str]| broker.run(&[&["topic", "alter", "live"], flags].concat(), b"");

    let text = alter(&["--set", "batch_bytes_max=2000", "--set", "segment_age_ms=60000"]).expect_success();
    assert_eq!(text.stdout_text(), "altered topic live\n");
    let refused = broker.run(&["produce", "live", "--partition", "0", "-"], &large);
    assert!(!refused.success && refused.stderr.contains("longer than 1939 bytes"), "{refused:?}");

    let json = alter(&["--unset", "batch_bytes_max", "--partitions", "5", "--output", "json"]).expect_success();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("--output json prints JSON");
    assert_eq!(json["partitions"].as_array().map(Vec::len), Some(5), "{json}");
    let chosen = |json: &serde_json::Value| -> Vec<(String, String)> {
        let settings = json["settings"].as_array().expect("settings").iter();
        let chosen = settings.filter(|setting| setting["is_default"] == false);
        chosen.map(|setting| (setting["key"].to_string(), setting["value"].to_string())).collect()
    };
    assert_eq!(chosen(&json), [("\"segment_age_ms\"".to_owned(), "\"60000\"".to_owned())]);
    broker.run(&["produce", "live", "--partition", "4", "-"], &large).expect_success();

    for (flags, why) in [
        (["--partitions", "4"], "the topic has 5 partitions, and they cannot become 4"),
        (["--partitions", "0"], "0 partitions are out of range; ask for 1 to 10000"),
        (["--set", "batch_bytes=1"], "the nearest key is batch_bytes_max"),
        (["--unset", "segment"], "there is no setting \"segment\""),
        (["--set", "batch_bytes_max=1"], "give a value from 1024 to 16777216"),
    ] {
        let refused = alter(&flags);
        assert_eq!(refused.code, Some(1), "{flags:?}");
        assert!(refused.stderr.contains(why), "{flags:?} says: {}", refused.stderr);
    }
    alter(&["--partitions", "5"]).expect_success();

    let broker = broker.restart();
    let described = broker.run(&["topic", "describe", "live", "--output", "json"], b"").expect_success();
    let described: serde_json::Value = serde_json::from_slice(&described.stdout).expect("JSON");
    assert_eq!(chosen(&described), chosen(&json));
    let ends = described["partitions"].as_array().expect("partitions").iter();
    let ends: Vec<_> = ends.map(|partition| partition["log_end_offset"].as_i64()).collect();
    assert_eq!(ends, [Some(1), Some(0), Some(0), Some(0), Some(1)]);
}

#[test]
fn nobody_listening_is_a_clear_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let output = run_ringmq(&["topic", "list", "--brokers", &address, "--timeout", "2s"], b"");
    assert!(!output.success && output.stderr.contains(&address), "{output:?}");
}

#[test]
fn stats_count_what_a_broker_does() {
    let broker = Broker::start_with(BrokerOptions { cores: "0,1".into(), ..BrokerOptions::default() });
    let stats = || -> Vec<serde_json::Value> {
        let printed = broker.run(&["stats", "--output", "json"], b"").expect_success();
        serde_json::from_slice(&printed.stdout).expect("an array of shards")
    };
    let sum = |kind: &str, name: &str| -> u64 {
        stats().iter().map(|shard| shard[kind][name].as_u64().unwrap_or_default()).sum()
    };
    let flushes = sum("counters", "flushes");
    broker.create_topic("counted", 2);
    for partition in ["0", "1"] {
        broker.run(&["produce", "counted", "--partition", partition, "--message", "x"], b"").expect_success();
    }
    broker.run(&["consume", "counted"], b"").expect_success();
    assert_eq!((sum("gauges", "partitions"), sum("gauges", "partitions_offline")), (2, 0));
    assert_eq!(sum("requests", "Produce"), 2);
    assert!(sum("counters", "flushes") >= flushes + 2, "each produce is flushed by itself");
    assert!(sum("counters", "produced_bytes") > 100 && sum("counters", "fetched_bytes") > 100);
    assert!(sum("gauges", "connections_open") >= 1, "this one");
    for shard in stats() {
        assert_eq!(shard["broker"], 0, "whose shard it is");
        let stages = shard["stages"].as_array().expect("stages");
        let durable = stages.iter().find(|stage| stage["name"] == "produce_durable").expect("one produce a shard");
        assert!(durable["count"] == 1 && durable["p50_ns"].as_u64() > Some(0), "{durable}");
        assert!(!shard["device"].as_array().expect("device").is_empty());
    }
    let text = broker.run(&["stats"], b"").expect_success().stdout_text();
    for part in ["SHARD_1", "partitions_offline", "produce_durable", "LONGEST_US", "requests Produce"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // Again and again, until it is told to end.
    let mut watching = broker.command(&["stats", "--watch", "1", "--output", "json"]).spawn().expect("it starts");
    let lines = Lines::of(watching.stdout.take().expect("piped"));
    for _ in 0..2 {
        assert!(lines.next().expect("a line").starts_with("[{\"broker\":0,\"shard\":0"));
    }
    send_signal(&watching, "INT");
    assert_eq!(watching.wait().expect("it ends").code(), Some(130));
}

#[test]
fn many_topics_go_in_one_call_and_each_is_told_of() {
    let broker = Broker::start();
    let run = |args: &[&str]| broker.run(args, b"");
    let created = run(&["topic", "create", "a", "b", "../c", "d", "--partitions", "2"]);
    assert_eq!(created.code, Some(1), "{created:?}");
    let lines = "created topic a with 2 partition(s)\ncreated topic b with 2 partition(s)\ncreated topic d with 2 partition(s)\n";
    assert_eq!(created.stdout_text(), lines, "what can be done is done");
    assert!(created.stderr.contains("topic `../c`: INVALID_TOPIC_NAME"), "{}", created.stderr);

    run(&["topic", "alter", "a", "b", "--set", "segment_age_ms=60000"]).expect_success();
    let described = run(&["topic", "describe", "a", "b", "nothing", "--output", "json"]);
    assert_eq!(described.code, Some(1));
    let names: Vec<String> = described
        .stdout_text()
        .lines()
        .map(|line| {
            let topic: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            let age = topic["settings"].as_array().expect("settings").iter().find(|one| one["key"] == "segment_age_ms");
            assert_eq!(age.expect("it is there")["value"], "60000");
            topic["name"].as_str().expect("a name").to_owned()
        })
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert!(described.stderr.contains("there is no topic \"nothing\""), "{}", described.stderr);

    for topic in ["a", "b"] {
        run(&["produce", topic, "--partition", "1", "--message", "m", "--count", "3"]).expect_success();
    }
    let trimmed = run(&["topic", "trim", "a", "b", "nothing", "--partition", "1", "--before", "2"]);
    assert_eq!(trimmed.code, Some(1));
    let rows: Vec<Vec<String>> = trimmed
        .stdout_text()
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect();
    assert_eq!(rows, [["a", "1", "2"], ["b", "1", "2"]]);
    // A line tells all of a topic, however often it is named.
    let again = run(&["topic", "trim", "a", "b", "a", "--partition", "1", "--before", "3", "--output", "json"]);
    let line = |name: &str| format!(r#"{{"name":"{name}","partitions":[{{"partition":1,"log_start_offset":3}}]}}"#);
    assert_eq!(again.expect_success().stdout_text().lines().collect::<Vec<_>>(), [line("a"), line("b")]);

    let deleted = run(&["topic", "delete", "a", "nothing", "b"]);
    assert_eq!((deleted.code, deleted.stdout_text().as_str()), (Some(1), "deleted topic a\ndeleted topic b\n"));
    assert_eq!(run(&["topic", "list"]).expect_success().stdout_text().lines().count(), 2, "a head and d");
}
