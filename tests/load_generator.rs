//! `ringmq-bench` against a real broker.

use std::path::Path;
use std::process::{Command, Output};

use ringmq_tests::{Broker, BrokerOptions, not_examined, run_bench, target_binary};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is below the root")
}

#[test]
fn what_was_acknowledged_is_counted() {
    let broker = Broker::start();
    let address = broker.address().to_string();
    let load = |flags: &str| {
        let flags: Vec<&str> = flags.split_whitespace().chain(["--brokers", &address, "--topic", "load"]).collect();
        run_bench(&flags)
    };
    let flags = "--producers 2 --record-bytes 1000 --batch-bytes 20000 --in-flight 2 --acks all --records 2000";
    let produced = load(&format!("produce --partitions 4 {flags} --json")).expect_success();
    let json: serde_json::Value = serde_json::from_slice(&produced.stdout).expect("--json prints JSON");
    assert_eq!((json["records"].as_u64(), json["errors"].as_u64()), (Some(2000), Some(0)), "{json}");
    for field in ["seconds", "records_per_second", "bytes_per_second", "acks", "flush"] {
        assert!(json.get(field).is_some(), "{field} is missing in {json}");
    }
    for field in ["p50", "p90", "p99", "p999", "max"] {
        assert!(json["latency_us"].get(field).is_some(), "{field} is missing in {json}");
    }
    assert!(json["broker_cpu_seconds_per_gb"].as_f64().is_some_and(|seconds| seconds > 0.0), "{json}");

    let consumed = load("consume --partitions 4 --consumers 2 --records 2000 --json").expect_success();
    let read: serde_json::Value = serde_json::from_slice(&consumed.stdout).expect("--json prints JSON");
    assert_eq!((read["records"].as_u64(), read["errors"].as_u64()), (Some(2000), Some(0)), "{read}");

    // What arrived is what the generator promises: no record is there twice, also not one of another run.
    load(&format!("produce --partitions 4 {flags}")).expect_success();
    let raw = broker.run(&["consume", "load", "--format", "raw"], b"").expect_success().stdout;
    let distinct: std::collections::BTreeSet<&[u8]> = raw.chunks(1000).collect();
    assert_eq!((raw.len(), distinct.len()), (4_000_000, 4000));

    let other = load("produce --partitions 5 --producers 1 --records 1");
    let why = "topic `load` has 4 partitions and --partitions says 5";
    assert!(!other.success && other.stderr.contains(why), "{other:?}");
}

#[test]
fn records_are_followed_from_end_to_end_at_a_constant_rate() {
    let broker = Broker::start();
    let address = broker.address().to_string();
    let load = |flags: &str| {
        let flags: Vec<&str> = flags.split_whitespace().chain(["--brokers", &address, "--json"]).collect();
        run_bench(&flags)
    };
    let json = |stdout: &[u8]| -> serde_json::Value { serde_json::from_slice(stdout).expect("--json prints JSON") };
    let flags =
        "--partitions 5 --producers 2 --batch-bytes 2000 --record-bytes 100 --rate 4000 --idempotent --keys 100";
    let command = format!("end-to-end --topic way {flags} --consumers 3 --warmup 50 --records 2005");
    let found = json(&load(&command).expect_success().stdout);
    // What was sent to warm up is not counted.
    assert_eq!((found["records"].as_u64(), found["errors"].as_u64()), (Some(2005), Some(0)), "{found}");
    assert_eq!(found["rate"], "4000 records/s");
    let quantile = |which: &str, name: &str| found[which][name].as_f64().expect("a quantile");
    for which in ["latency_us", "produce_latency_us"] {
        let rising = ["p50", "p90", "p99", "p999", "p9999", "max"].map(|name| quantile(which, name));
        assert!(rising.is_sorted() && rising[0] > 0.0, "{found}");
    }
    assert!(found["broker_peak_memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{found}");
    assert!(!found["latency_curve"].as_array().expect("a curve").is_empty());

    // All are there, each with a key of its partition, for as long as was said.
    let raw = broker.run(&["consume", "way", "--format", "raw"], b"").expect_success().stdout;
    let warmed_up = raw.len() / 100 - 2005;
    assert!((50..100).contains(&warmed_up), "{warmed_up}: whole batches of less than 20 records of two producers");
    let timed = json(
        &load(&format!("produce --topic way {flags} --duration 500ms --key-distribution zipf")).expect_success().stdout,
    );
    let records = timed["records"].as_u64().expect("a number");
    // Fewer where the machine stands still; never more than are due.
    assert!((1..=2020).contains(&records), "{records} records in half a second at 4000 a second");

    // A broker that goes away in the middle is told, with the figures of what had come.
    let ending = std::thread::spawn({
        let command = format!("end-to-end --topic gone {flags} --consumers 2 --duration 60s");
        let address = address.clone();
        move || {
            let flags: Vec<&str> = command.split_whitespace().chain(["--brokers", &address, "--json"]).collect();
            run_bench(&flags)
        }
    });
    let grown = || {
        let described = broker.run(&["topic", "describe", "gone", "--output", "json"], b"");
        let described: Option<serde_json::Value> = serde_json::from_slice(&described.stdout).ok();
        let ends = described.and_then(|described| Some(described["partitions"].as_array()?.clone()));
        ends.is_some_and(|ends| ends.iter().all(|end| end["log_end_offset"].as_i64() > Some(0)))
    };
    while !grown() && !ending.is_finished() {}
    broker.kill();
    let ended = ending.join().expect("it ends");
    assert!(!ended.success && ended.stderr.contains("connections failed"), "{ended:?}");
    assert!(json(&ended.stdout)["records"].as_u64() > Some(0), "{ended:?}");
}

#[test]
fn records_come_by_subscription_or_fetch_as_is_asked_for() {
    let broker = Broker::start();
    let address = broker.address().to_string();
    let load = |flags: &str| {
        let flags: Vec<&str> = flags.split_whitespace().chain(["--brokers", &address, "--json"]).collect();
        let ended = run_bench(&flags).expect_success();
        serde_json::from_slice::<serde_json::Value>(&ended.stdout).expect("--json prints JSON")
    };
    let requests = |name: &str| {
        let stats = broker.run(&["stats", "--output", "json"], b"").expect_success().stdout;
        let shards: Vec<serde_json::Value> = serde_json::from_slice(&stats).expect("JSON");
        shards.iter().filter_map(|shard| shard["requests"][name].as_u64()).sum::<u64>()
    };
    let subscriptions = || requests("Subscribe");
    let flags = "--partitions 5 --record-bytes 100 --batch-bytes 2000";
    load(&format!("produce --topic held {flags} --producers 2 --records 4000"));
    for (by, asked, subscribes) in [
        ("", "subscribe", true),
        ("--by fetch", "fetch", false),
        ("--by subscribe", "subscribe", true),
        ("--by client", "client", true),
    ] {
        let before = subscriptions();
        let way = format!("end-to-end --topic way {flags} {by} --producers 2 --consumers 3 --rate 4000 --warmup 50");
        let found = load(&format!("{way} --records 2005"));
        assert_eq!((found["records"].as_u64(), found["by"].as_str()), (Some(2005), Some(asked)), "{found}");
        let between = subscriptions();
        assert_eq!(between > before, subscribes, "{between} subscriptions after {before}");
        // Less than is there, behind a warm-up; more consumers than partitions.
        let found = load(&format!(
            "consume --topic held --partitions 5 {by} --batch-bytes 10000 --consumers 7 --warmup 1000 --records 2500"
        ));
        assert_eq!((found["records"].as_u64(), found["by"].as_str()), (Some(2500), Some(asked)), "{found}");
        let p50 = found["latency_us"]["p50"].as_f64();
        assert!(p50 > Some(0.0), "{found}");
        assert_eq!(subscriptions() > between, subscribes);
    }
    let produced = load(&format!("produce --topic held {flags} --records 100"));
    assert_eq!(produced["by"], "batches");
    // What is there is read again and again for so long.
    let found = load("consume --topic held --partitions 5 --consumers 2 --batch-bytes 10000 --duration 300ms");
    assert!(found["records"].as_u64() > Some(4100) && found["seconds"].as_f64() >= Some(0.3), "{found}");
    // One by one, through the client: all are there, and none twice.
    let enqueue = "produce --by enqueue --topic one-by-one --partitions 5 --record-bytes 100 --producers 3";
    let found = load(&format!("{enqueue} --records 10007 --warmup 500"));
    assert_eq!((found["records"].as_u64(), found["by"].as_str()), (Some(10_007), Some("enqueue")), "{found}");
    assert!(found["latency_us"]["p50"].as_f64() > Some(0.0), "{found}");
    let raw = broker.run(&["consume", "one-by-one", "--format", "raw"], b"").expect_success().stdout;
    let distinct: std::collections::BTreeSet<&[u8]> = raw.chunks(100).collect();
    assert_eq!((raw.len(), distinct.len()), (1_050_700, 10_507));
    assert_eq!((found["acks"].as_str(), found["idempotent"].as_bool()), (Some("all"), Some(false)), "{found}");
    // An identity is asked for where it was asked for, by the client as by prepared batches.
    for by in ["produce --by enqueue", "produce --by batches", "end-to-end --by client --rate 4000"] {
        let command = format!("{by} --topic identified --partitions 5 --record-bytes 100 --producers 2 --records 100");
        let asked = requests("InitProducerId");
        assert_eq!(load(&command)["idempotent"], false, "{command}");
        assert_eq!(requests("InitProducerId"), asked, "{command}");
        assert_eq!(load(&format!("{command} --idempotent"))["idempotent"], true, "{command}");
        assert!(requests("InitProducerId") > asked, "{command}");
    }
    let found = load(&format!("{enqueue} --duration 200ms"));
    assert!(found["records"].as_u64() > Some(0) && found["seconds"].as_f64() >= Some(0.2), "{found}");
    let refused: Vec<&str> = enqueue.split_whitespace().chain(["--rate", "5", "--brokers", &address]).collect();
    assert!(run_bench(&refused).stderr.contains("`--rate` does not go with --by enqueue"));
    let linger: Vec<&str> = enqueue.split_whitespace().chain(["--linger", "1ms", "--brokers", &address]).collect();
    run_bench(&[&linger[..], &["--records", "100"]].concat()).expect_success();
    let batches: Vec<&str> = linger.iter().copied().filter(|flag| !["--by", "enqueue"].contains(flag)).collect();
    assert!(
        run_bench(&batches)
            .stderr
            .contains("`--linger` is for records that go through a client: `produce --by enqueue`")
    );
    // What takes a flag is named where it does not belong, and takes it.
    for way in ["produce", "produce --by enqueue", "end-to-end --rate 9"] {
        let command = format!("{way} --topic one-by-one --partitions 5 --burst 5 --brokers {address}");
        let refused = run_bench(&command.split_whitespace().collect::<Vec<_>>());
        assert!(refused.stderr.contains("client: `end-to-end` and `mixed` with --by client"), "{refused:?}");
    }
    let asking = ["consume", "--topic", "held", "--by", "client", "--in-flight", "3", "--brokers", &address];
    assert!(run_bench(&asking).stderr.contains("`--in-flight` does not go with --by client"));

    let found = load("discover --clients 5 --count 50");
    assert_eq!(found["controller"], address);
    let figures = ["first_us", "wanted_us"].map(|name| found[name].as_f64());
    let quantiles = ["with_connect_us", "open_us"].map(|name| found[name]["p50"].as_f64());
    assert!(figures.iter().chain(&quantiles).all(|figure| *figure > Some(0.0)), "{found}");
    let flags = ["consume", "--driver", "kafka", "--by", "subscribe", "--topic", "t", "--brokers", &address];
    assert!(!run_bench(&flags).success, "that protocol has none");

    // By the client each record tells how long it took, and a drain beside it goes through the client, too.
    let flags =
        "--partitions 5 --producers 2 --consumers 3 --record-bytes 100 --batch-bytes 2000 --rate 4000 --by client";
    let found = load(&format!("mixed --topic way --backlog held {flags} --burst 7 --linger 0ms --duration 500ms"));
    let records = found["records"].as_u64().expect("a number");
    assert!((1900..=2020).contains(&records), "{records} records in half a second at 4000 a second");
    assert!(found["backlog_bytes_per_second"].as_f64() > Some(0.0), "{found}");
    for which in ["latency_us", "produce_latency_us"] {
        assert!(found[which]["p50"].as_f64() > Some(0.0), "{found}");
    }
}

#[test]
fn a_scenario_runs_step_by_step_and_becomes_a_page() {
    let broker = Broker::start();
    let address = broker.address().to_string();
    let dir = broker.directory();
    let (scenario, page) = (dir.join("scenario.toml"), dir.join("page.html"));
    let steps = r#"
        title = "A drain"
        [[step]]
        name = "fill"
        run = "produce"
        topic = "backlog"
        partitions = 3
        producers = 2
        batch-bytes = 20_000
        records = 5_000
        [[step]]
        name = "beside the drain"
        run = "mixed"
        topic = "live"
        backlog = "backlog"
        partitions = 3
        producers = 2
        consumers = 2
        batch-bytes = 2_000
        rate = "2000"
        duration = "5s"
        [[step]]
        name = "as fast as it goes"
        run = "mixed"
        topic = "live"
        backlog = "backlog"
        partitions = 3
        producers = 2
        consumers = 2
        readers = 5
        batch-bytes = 2_000
        records = 2_000
    "#;
    std::fs::write(&scenario, steps).expect("the scenario can be written");
    let (scenario, html) = (scenario.display().to_string(), page.display().to_string());
    let line = ["run", &scenario, "--brokers", &address, "--scale", "0.1", "--json", "--html", &html];
    let printed = run_bench(&line).expect_success();
    let found: serde_json::Value = serde_json::from_slice(&printed.stdout).expect("--json prints JSON");
    assert_eq!(found["title"], "A drain");
    let results = found["results"].as_array().expect("results");
    let names: Vec<_> = results.iter().map(|result| result["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["fill", "beside the drain", "as fast as it goes"]);
    assert_eq!(results[0]["records"], 500);
    let drained = |result: &serde_json::Value| result["backlog_bytes_per_second"].as_f64();
    assert_eq!(drained(&results[0]), None);
    assert!(drained(&results[1]) > Some(0.0), "{}", results[1]);
    let records = results[1]["records"].as_u64().expect("a number");
    assert!((950..=1010).contains(&records), "{records} records in half a second at 2000 a second");
    assert_eq!(results[2]["records"], 200);
    let topics = broker.run(&["topic", "list", "--output", "json"], b"").expect_success().stdout_text();
    assert!(!topics.contains("backlog-") && !topics.contains("live-"), "{topics}");

    // What was printed can be compared with others later, and says the same.
    let written = std::fs::read_to_string(&page).expect("the page is there");
    assert!(written.contains("<h1>A drain</h1>") && written.contains("beside the drain"), "{written}");
    let json = dir.join("drain.json");
    std::fs::write(&json, &printed.stdout).expect("the figures can be written");
    let again = dir.join("again.html").display().to_string();
    run_bench(&["report", &json.display().to_string(), "--html", &again]).expect_success();
    assert_eq!(std::fs::read_to_string(&again).expect("the page is there"), written);

    // What was to be removed and is still there fails the step.
    std::fs::write(
        &scenario,
        "title = \"t\"\n[[step]]\nname = \"n\"\nrun = \"produce\"\ntopic = \"t\"\nrecords = 10\nremoves = true",
    )
    .expect("it can be written");
    let kept = run_bench(&["run", &scenario, "--brokers", &address]);
    assert!(!kept.success && kept.stderr.contains("still has its first records"), "{kept:?}");

    // Nothing to drain, and no such step, are errors that say so.
    broker.create_topic("empty", 3);
    let flags = "mixed --topic live --backlog empty --partitions 3 --records 10";
    let flags: Vec<&str> = flags.split_whitespace().chain(["--brokers", &address]).collect();
    let refused = run_bench(&flags);
    assert!(!refused.success && refused.stderr.contains("topic `empty` holds 0 records"), "{refused:?}");
    std::fs::write(&scenario, "title = \"t\"\n[[step]]\nname = \"n\"\nrun = \"fly\"").expect("it can be written");
    let refused = run_bench(&["run", &scenario, "--brokers", &address]);
    assert!(!refused.success && refused.stderr.contains("step `n`"), "{refused:?}");
}

#[test]
fn a_step_that_removes_ends_well_once_something_is_removed() {
    let mut options = BrokerOptions::default();
    options.config.get_or_insert_default().push_str("retention_interval_ms = 100\n");
    let broker = Broker::start_with(options);
    let address = broker.address().to_string();
    let scenario = broker.directory().join("scenario.toml");
    let step = r#"
        title = "Retention"
        [[step]]
        name = "n"
        run = "produce"
        topic = "t"
        set = ["segment_bytes=1048576", "retention_bytes=1048576"]
        partitions = 2
        rate = "20MB"
        duration = "1s"
        removes = true
    "#;
    std::fs::write(&scenario, step).expect("the scenario can be written");
    let scenario = scenario.display().to_string();
    // A broker that is kept from its work may take more than one.
    let since = std::time::Instant::now();
    loop {
        let ran = run_bench(&["run", &scenario, "--brokers", &address]);
        if ran.success {
            break;
        }
        assert!(ran.stderr.contains("still has its first records"), "{ran:?}");
        assert!(since.elapsed() < std::time::Duration::from_secs(60), "nothing is removed");
    }
}

#[test]
fn every_scenario_of_the_repository_runs() {
    let broker = Broker::start();
    let address = broker.address().to_string();
    let files =
        std::fs::read_dir(root().join("bench/scenarios")).expect("scenarios").flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a scenario");
        let path = file.display().to_string();
        let ran = run_bench(&["run", &path, "--brokers", &address, "--scale", "0.001", "--json"]).expect_success();
        let found: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("--json prints JSON");
        let results = found["results"].as_array().expect("results");
        assert_eq!(results.len(), text.matches("[[step]]").count(), "{path}");
        for result in results {
            assert!(result["errors"] == 0 && result["records"].as_u64() > Some(0), "{path}: {result}");
        }
    }
    let topics = broker.run(&["topic", "list", "--output", "json"], b"").expect_success().stdout_text();
    assert_eq!(topics.trim(), "[]", "they leave none");
}

#[test]
fn the_marks_are_measured_by_group() {
    let dir = tempfile::tempdir_in(target_binary("ringmq").parent().expect("a directory")).expect("a directory");
    let marks = |group: &str| -> Output {
        let mut command = Command::new(root().join("bench/marks"));
        command
            .arg(group)
            .env("WORK_DIR", dir.path())
            .env("BIN", target_binary("ringmq").parent().expect("a directory"));
        command.env_remove("PORT").env_remove("CONFIG").output().expect("it starts")
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let wrong = marks("mark");
    let groups = "throughput small relaxed cold forwarded discover idle constant drain";
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(text(&wrong.stderr).contains(&format!("there is no group mark: {groups}")), "{wrong:?}");
    let help = marks("--help");
    assert!(help.status.success() && text(&help.stdout).contains(groups), "{help:?}");

    let measured = marks("discover");
    if Command::new("jq").arg("--version").output().is_err() {
        assert!(!measured.status.success() && text(&measured.stderr).contains("jq is missing"), "{measured:?}");
        not_examined("the_marks_are_measured_by_group", "there is no jq");
        return;
    }
    assert!(measured.status.success(), "{measured:?}");
    let table = text(&measured.stdout);
    let cells: Vec<Vec<&str>> = table.lines().skip(2).map(|row| row.split('|').map(str::trim).collect()).collect();
    assert_eq!(cells.len(), 4, "{table}");
    for row in cells {
        assert!(row[1].starts_with("discovery") && row[2].parse::<f64>().is_ok_and(|figure| figure > 0.0), "{table}");
        assert!(row[3] == "at-most 1" && ["met", "**missed**"].contains(&row[4]), "{table}");
    }
    // What was printed stays, the data do not.
    let left = |name: &str| dir.path().join(name).exists();
    assert!(left("discover-then.json") && !left("data"), "{measured:?}");
}
