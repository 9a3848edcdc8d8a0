//! `ringmq log` on directories of real brokers, damaged on purpose.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringmq_tests::{Broker, BrokerOptions, CommandOutput, Exit, data_dir, run_ringmq};
use serde_json::Value;
use tempfile::TempDir;

/// Small segments, and every append in its segment when it is acknowledged.
fn options() -> BrokerOptions {
    let config = Some("journal_append_bytes_max = 0\n".to_owned());
    BrokerOptions { cores: "0".into(), config, ..BrokerOptions::default() }
}

/// A stopped broker's directory: topic `kept` with 3 partitions of [`RECORDS`] each, in segments of a few frames.
struct Stopped {
    directory: TempDir,
}

impl Stopped {
    fn new(end: fn(Broker) -> Exit) -> Self {
        let broker = Broker::start_with(options());
        let create = ["topic", "create", "kept", "--partitions", "3", "--set", "segment_bytes=1048576"];
        broker.run(&[&create[..], &["--set", "batch_bytes_max=524288"]].concat(), b"").expect_success();
        for number in 0..RECORDS {
            for partition in ["0", "1", "2"] {
                let line = record(partition, number);
                broker.run(&["produce", "kept", "--partition", partition, "-"], line.as_bytes()).expect_success();
            }
        }
        Self { directory: end(broker).directory }
    }

    fn data(&self) -> PathBuf {
        data_dir(self.directory.path())
    }

    /// Runs a command on the directory, `DIR` standing for it; nothing in it may change.
    fn look(&self, args: &[&str]) -> CommandOutput {
        let before = content(&self.data());
        let output = self.run(args);
        assert!(content(&self.data()) == before, "{args:?} changed something");
        output
    }

    fn run(&self, args: &[&str]) -> CommandOutput {
        let data = self.data().display().to_string();
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "DIR" { data.as_str() } else { arg }).collect();
        run_ringmq(&args, b"")
    }

    fn check(&self) -> Value {
        let output = self.look(&["log", "check", "DIR", "--output", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
        let expected = if report["sound"] == Value::Bool(true) { Some(0) } else { Some(1) };
        assert_eq!(output.code, expected, "{report}");
        report
    }

    /// The files of a partition that end so, by name.
    fn files(&self, partition: u32, suffix: &str) -> Vec<PathBuf> {
        let ends = |path: &PathBuf| path.to_string_lossy().ends_with(suffix);
        let of = |path: &PathBuf| path.parent().is_some_and(|dir| dir.ends_with(partition.to_string()));
        let of_topic = |path: &PathBuf| !path.components().any(|part| part.as_os_str() == "metadata");
        content(&self.data()).into_keys().filter(|path| ends(path) && of(path) && of_topic(path)).collect()
    }

    /// What each partition gives, damage left out.
    fn start(self) -> Broker {
        Broker::start_in(self.directory, options()).unwrap_or_else(|exit| panic!("no start:\n{}", exit.log))
    }
}

/// In each partition. Each is a frame, and five are a segment.
const RECORDS: u32 = 12;

fn record(partition: &str, number: u32) -> String {
    format!("record {number} of partition {partition} {}", "x".repeat(200_000))
}

/// Every file below a directory, byte by byte.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        found.insert(dir.clone(), Vec::new());
        for entry in std::fs::read_dir(&dir).expect("a directory of the broker").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("readable");
                found.insert(path, bytes);
            }
        }
    }
    found
}

fn flip(path: &Path, position: usize) {
    let mut bytes = std::fs::read(path).expect("readable");
    bytes[position] ^= 1;
    std::fs::write(path, bytes).expect("writable");
}

/// Where the frame begins that holds this text.
fn frame_of(path: &Path, text: &str) -> usize {
    let bytes = std::fs::read(path).expect("readable");
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("it is there");
    (0..=at / 4096).rev().map(|block| block * 4096).find(|at| bytes[*at..].starts_with(b"RQLF")).expect("a frame")
}

fn partition(report: &Value, number: usize) -> &Value {
    &report["partitions"][number]
}

#[test]
fn a_sound_directory_is_counted_and_told_so() {
    for end in [Broker::terminate, Broker::kill] {
        let stopped = Stopped::new(end);
        let report = stopped.check();
        assert_eq!(report["sound"], true, "{report}");
        for number in 0..3 {
            let log = partition(&report, number);
            assert_eq!((&log["topic"], &log["partition"]), (&"kept".into(), &number.into()));
            assert_eq!((&log["records"], &log["end_offset"]), (&RECORDS.into(), &RECORDS.into()), "{log}");
            assert!(log["segments"].as_u64() > Some(1), "rolled: {log}");
        }
        let text = stopped.look(&["log", "check", "DIR", "--topic", "kept", "--partition", "1"]).expect_success();
        let text = text.stdout_text();
        assert!(text.contains("topic kept partition 1") && !text.contains("partition 2"), "{text}");
        assert!(text.ends_with("everything is sound\n"), "{text}");
    }
}

#[test]
fn nobody_looks_into_the_directory_of_a_running_broker() {
    let broker = Broker::start_with(options());
    let data = broker.data_dir().display().to_string();
    let format = format!("{data}/metadata");
    for args in [
        vec!["log", "check", &data],
        vec!["log", "dump", &format],
        vec!["log", "repair", &data, "--topic", "t", "--partition", "0", "--yes"],
    ] {
        let output = run_ringmq(&args, b"");
        assert_eq!(output.code, Some(2), "{}", output.stderr);
        assert!(output.stderr.contains("a broker runs on") && output.stderr.contains("stop it"), "{}", output.stderr);
    }
    let nowhere = run_ringmq(&["log", "check", broker.directory().to_str().expect("text")], b"");
    assert_eq!(nowhere.code, Some(2));
    assert!(nowhere.stderr.contains("is no data directory"), "{}", nowhere.stderr);
}

#[test]
fn what_is_damaged_is_told_with_file_position_and_outlook() {
    // A sealed segment: it is served but for that frame.
    let stopped = Stopped::new(Broker::terminate);
    let segment = stopped.files(1, ".log")[0].clone();
    let position = frame_of(&segment, "record 4 of partition 1");
    flip(&segment, position + 500);
    let report = stopped.check();
    let damage = &partition(&report, 1)["damage"][0];
    assert_eq!((&damage["part"], &damage["position"]), (&"frame".into(), &position.into()), "{report}");
    assert_eq!((&damage["file"], &damage["expected_offset"]), (&segment.display().to_string().into(), &4.into()));
    assert_eq!(damage["found"], "the checksum of a frame's payload is wrong");
    assert_eq!(partition(&report, 1)["next_start"]["serves"], true);
    assert_eq!((&partition(&report, 0)["sound"], &partition(&report, 2)["sound"]), (&true.into(), &true.into()));

    // An index.
    let stopped = Stopped::new(Broker::terminate);
    let index = stopped.files(0, ".timeindex")[0].clone();
    flip(&index, 30);
    let damage = partition(&stopped.check(), 0)["damage"][0].clone();
    assert_eq!((&damage["part"], &damage["file"]), (&"index".into(), &index.display().to_string().into()), "{damage}");

    // A segment that is missing, and one that is acknowledged and cut off.
    let stopped = Stopped::new(Broker::kill);
    std::fs::remove_file(&stopped.files(2, ".log")[1]).expect("removed");
    let report = stopped.check();
    assert_eq!(partition(&report, 2)["next_start"]["serves"], false, "{report}");

    // The generation tables, both copies of the first block: no broker starts.
    let stopped = Stopped::new(Broker::terminate);
    let tables = content(&stopped.data().join("generations"));
    for table in tables.keys().filter(|path| path.extension().is_some_and(|extension| extension == "table")) {
        flip(table, 100);
        flip(table, 4196);
    }
    let report = stopped.check();
    let what = report["generation_tables"].as_str().unwrap_or_default();
    assert!(what.contains("block 0") || partition(&report, 0)["next_start"]["serves"] == false, "{report}");

    // The metadata log: after a clean stop its end is known; after a kill, what it was there for is.
    for end in [Broker::terminate, Broker::kill] {
        let stopped = Stopped::new(end);
        let metadata = content(&stopped.data().join("metadata"));
        let log = metadata.keys().find(|path| path.extension().is_some_and(|extension| extension == "log"));
        flip(log.expect("the metadata log"), 500);
        let report = stopped.check();
        assert!(report["metadata"]["sound"] == false || report["metadata_lost"] == true, "{report}");
    }
}

#[test]
fn a_torn_end_is_what_the_next_start_cuts() {
    let stopped = Stopped::new(Broker::kill);
    let segment = stopped.files(0, ".log").pop().expect("a segment");
    let last = frame_of(&segment, "record 11 of partition 0");
    let mut bytes = std::fs::read(&segment).expect("readable");
    let frame_bytes: [u8; 4] = bytes[last + 112..last + 116].try_into().expect("four bytes");
    let behind = last + u32::from_be_bytes(frame_bytes) as usize;
    bytes.resize(bytes.len().max(behind + 4096), 0);
    bytes[behind..behind + 4096].fill(0xa5);
    // The rest of a header that was torn.
    bytes[behind..behind + 4].copy_from_slice(b"RQLF");
    bytes[behind + 4..behind + 8].copy_from_slice(&[0, 1, 0, 128]);
    std::fs::write(&segment, bytes).expect("writable");
    let report = stopped.check();
    let log = partition(&report, 0);
    assert_eq!((&log["sound"], &log["end_offset"]), (&true.into(), &RECORDS.into()), "{log}");
    let what = log["next_start"]["what"][0].as_str().expect("a sentence");
    let cut = format!("cuts {} at position {behind}", segment.display());
    assert!(what.contains(&cut) && what.contains("never acknowledged"), "{what}");

    let broker = stopped.start();
    let read = broker.run(&["consume", "kept", "--partition", "0"], b"").expect_success();
    assert_eq!(read.stdout_text().lines().count(), RECORDS as usize);
}

#[test]
fn what_the_journals_have_is_what_the_next_start_puts_into_segments() {
    let options = BrokerOptions { cores: "0".into(), ..BrokerOptions::default() };
    let broker = Broker::start_with(options);
    broker.log().until("the journal is in use");
    broker.create_topic("small", 1);
    for number in 0..3 {
        broker.run(&["produce", "small", "--message", &format!("small {number}")], b"").expect_success();
    }
    let stopped = Stopped { directory: broker.kill().directory };
    let report = stopped.check();
    let log = partition(&report, 0);
    assert_eq!((&log["records"], &log["end_offset"]), (&0.into(), &3.into()), "{log}");
    let what = log["next_start"]["what"][0].as_str().expect("a sentence");
    assert!(what.contains("puts 3 append(s) of the journal into segments, offsets 0 to 3"), "{what}");

    let ring = content(&stopped.data().join("journals")).into_keys().find(|path| path.extension().is_some());
    let ring = ring.expect("a ring").display().to_string();
    let appends = stopped.look(&["log", "dump", &ring]).expect_success().stdout_text();
    assert_eq!(appends.lines().filter(|line| line.starts_with("append ")).count(), 3, "{appends}");
    let records = stopped.look(&["log", "dump", &ring, "--records", "--from", "1", "--limit", "1"]).expect_success();
    assert!(records.stdout_text().contains("offset=1 ") && records.stdout_text().contains("value=\"small 1\""));
    assert_eq!(records.stdout_text().lines().count(), 1);
}

#[test]
fn snapshots_of_producers_are_dumped_and_checked() {
    let stopped = Stopped::new(Broker::terminate);
    let snapshots = stopped.files(0, ".producers");
    let last = snapshots.last().expect("a snapshot");
    let path = last.display().to_string();
    let dump = stopped.look(&["log", "dump", &path]).expect_success().stdout_text();
    let mut lines = dump.lines();
    let head = lines.next().expect("a line on the snapshot");
    assert!(
        head.starts_with("producers ") && head.contains(&format!("offset={RECORDS} producers={RECORDS}")),
        "{head}"
    );
    // Each command was a producer of its own, with one record.
    for (offset, line) in lines.enumerate() {
        assert!(line.contains("/0 next_sequence=1 "), "{line}");
        assert!(line.contains(" run=0@"), "{offset}: {line}");
    }
    let json = stopped.look(&["log", "dump", &path, "--output", "json", "--limit", "2"]).expect_success().stdout_text();
    let producer: Value = serde_json::from_str(json.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&producer["epoch"], &producer["runs"][0]["first_sequence"]), (&0.into(), &0.into()), "{producer}");

    let report = stopped.check();
    let checked = partition(&report, 0)["producer_snapshots"].as_array().expect("an array").clone();
    assert_eq!(checked.len(), snapshots.len());
    assert!(checked.iter().all(|snapshot| snapshot.get("damage").is_none()), "{checked:?}");
    assert_eq!(checked.last().expect("one")["producers"], RECORDS);

    flip(last, 70);
    let other = stopped.files(1, ".producers").pop().expect("a snapshot");
    std::fs::copy(stopped.files(2, ".producers").pop().expect("a snapshot"), &other).expect("writable");
    let report = stopped.check();
    let damage = |number: usize| {
        let snapshots = partition(&report, number)["producer_snapshots"].as_array().expect("an array").clone();
        snapshots.last().and_then(|last| last["damage"].as_str()).map(str::to_owned).expect("damage")
    };
    assert!(damage(0).contains("checksum of its body") && damage(0).contains("Nothing is lost"), "{}", damage(0));
    assert!(damage(1).contains("of another log"), "{}", damage(1));
    assert_eq!((&report["sound"], &partition(&report, 2)["sound"]), (&false.into(), &true.into()));
    let text = stopped.look(&["log", "check", "DIR"]).stdout_text();
    assert!(text.contains(&format!("producers damaged: {path}: ")), "{text}");
    let refused = stopped.run(&["log", "dump", &path]);
    assert!(!refused.success && refused.stderr.contains("checksum of its body"), "{}", refused.stderr);

    let broker = stopped.start();
    for partition in ["0", "1"] {
        let read = broker.run(&["consume", "kept", "--partition", partition], b"").expect_success();
        assert_eq!(read.stdout_text().lines().count(), RECORDS as usize);
    }
}

#[test]
fn a_dump_shows_frames_batches_records_indexes_and_tables() {
    let stopped = Stopped::new(Broker::terminate);
    let segments = stopped.files(0, ".log");
    let dir = segments[0].parent().expect("a directory").display().to_string();
    let frames = stopped.look(&["log", "dump", &dir]).expect_success().stdout_text();
    assert_eq!(frames.lines().filter(|line| line.starts_with("frame ")).count(), RECORDS as usize, "{frames}");
    let records = stopped.look(&["log", "dump", &dir, "--records", "--output", "json"]).expect_success();
    let records: Vec<Value> =
        records.stdout_text().lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let values: Vec<_> = records.iter().filter_map(|line| line["value"].as_str()).collect();
    assert_eq!(values, (0..RECORDS).map(|number| record("0", number)).collect::<Vec<_>>());
    let batches = stopped.look(&["log", "dump", &dir, "--batches", "--from", "11"]).expect_success().stdout_text();
    assert!(batches.contains("offsets=11..12 records=1"), "{batches}");

    let index = stopped.files(0, ".index")[0].display().to_string();
    assert!(
        stopped.look(&["log", "dump", &index]).expect_success().stdout_text().contains("entry offset=0 position=0")
    );
    let times = stopped.files(0, ".timeindex")[0].display().to_string();
    stopped.look(&["log", "dump", &times]).expect_success();
    let tables = content(&stopped.data().join("generations"));
    let tables: Vec<_> = tables.keys().filter(|path| path.extension().is_some()).collect();
    let shown: String = tables
        .iter()
        .map(|table| stopped.look(&["log", "dump", &table.display().to_string()]).expect_success().stdout_text())
        .collect();
    assert!(shown.contains("opened log=") && shown.contains("closed log="), "{shown}");

    let metadata = content(&stopped.data().join("metadata"));
    let log = metadata.keys().find(|path| path.extension().is_some_and(|extension| extension == "log"));
    let log = log.expect("the metadata log").display().to_string();
    let commands = stopped.look(&["log", "dump", &log, "--records"]).expect_success().stdout_text();
    assert!(commands.contains("command=CreateTopic"), "{commands}");

    let other = stopped.look(&["log", "dump", &stopped.data().join("format").display().to_string()]);
    assert_eq!(other.code, Some(2), "{}", other.stderr);
}

#[test]
fn a_partition_that_is_refused_is_repaired_and_serves_what_is_before_the_damage() {
    let stopped = Stopped::new(Broker::kill);
    // Acknowledged, in the active segment: what stands behind proves it.
    let segment = stopped.files(1, ".log").pop().expect("a segment");
    let first = std::fs::read(&segment).expect("readable");
    let first_record = (0..RECORDS).find(|number| {
        let text = record("1", *number);
        first.windows(text.len()).any(|window| window == text.as_bytes())
    });
    let kept = first_record.expect("a record");
    flip(&segment, 300);
    assert_eq!(kept, 10, "two frames in the last of three segments");

    let nothing = stopped.look(&["log", "repair", "DIR", "--topic", "kept", "--partition", "0", "--yes"]);
    assert_eq!(nothing.code, Some(2));
    assert!(nothing.stderr.contains("nothing to repair"), "{}", nothing.stderr);
    let explained = stopped.look(&["log", "repair", "DIR", "--topic", "kept", "--partition", "1"]);
    assert_eq!(explained.code, Some(2));
    let text = explained.stdout_text();
    for part in ["damaged:", "lost:", &format!("offsets 0 to {kept} (exclusive)"), "the next record gets offset"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(explained.stderr.contains("--yes"), "{}", explained.stderr);

    let as_json = ["log", "repair", "DIR", "--topic", "kept", "--partition", "1", "--output", "json"];
    let plan = |output: &CommandOutput| -> Value { serde_json::from_slice(&output.stdout).expect("one object") };
    let explained = stopped.look(&as_json);
    let planned = plan(&explained);
    assert_eq!((explained.code, explained.stderr.contains("--yes")), (Some(2), true), "{}", explained.stderr);
    assert_eq!((&planned["kept_start_offset"], &planned["kept_end_offset"]), (&0.into(), &kept.into()), "{planned}");
    let cut = Value::from(segment.display().to_string());
    assert_eq!((&planned["last_segment"], &planned["repaired"]), (&cut, &false.into()), "{planned}");
    assert_eq!(planned["moved"], Value::from(Vec::<String>::new()), "{planned}");
    let (lost, aside) = (planned["acknowledged_end_offset"].as_u64(), planned["aside"].as_str().expect("a directory"));
    assert!(lost.is_some_and(|lost| lost > u64::from(kept)), "{planned}");
    assert!(Path::new(aside).starts_with(stopped.data().join("damaged")), "{planned}");
    assert!(planned["damage"].as_str().is_some_and(|damage| text.contains(damage)), "{planned}");

    let damaged = std::fs::read(&segment).expect("readable");
    let repaired = plan(&stopped.run(&[&as_json[..], &["--yes"]].concat()).expect_success());
    assert_eq!((&repaired["repaired"], &repaired["last_segment"]), (&true.into(), &cut), "{repaired}");
    let again = stopped.look(&["log", "repair", "DIR", "--topic", "kept", "--partition", "1", "--yes"]);
    assert!(again.stderr.contains("nothing to repair"), "{}", again.stderr);
    let aside = content(&stopped.data().join("damaged"));
    assert!(aside.values().any(|content| *content == damaged), "the damaged segment is kept: {:?}", aside.keys());

    let broker = stopped.start();
    let expect =
        |partition: &str, end: u32| -> String { (0..end).map(|number| record(partition, number) + "\n").collect() };
    for (partition, end) in [("0", RECORDS), ("1", kept), ("2", RECORDS)] {
        let read = broker.run(&["consume", "kept", "--partition", partition], b"").expect_success();
        assert!(read.stdout_text() == expect(partition, end), "partition {partition}");
    }
    let produced = broker.run(&["produce", "kept", "--partition", "1", "--message", "next"], b"").expect_success();
    assert!(produced.stdout_text().contains(&format!("first_offset={kept} ")), "{}", produced.stdout_text());
    let broker = broker.kill_and_restart();
    let read = broker.run(&["consume", "kept", "--partition", "1"], b"").expect_success();
    assert!(read.stdout_text() == expect("1", kept) + "next\n");
}

#[test]
fn damaged_metadata_refuses_the_start_and_is_repaired_with_all_that_can_be_read() {
    let broker = Broker::start_with(options());
    for topic in ["first", "second", "third"] {
        broker.run(&["topic", "create", topic, "--partitions", "2"], b"").expect_success();
    }
    broker.run(&["produce", "third", "--partition", "1", "--message", "kept"], b"").expect_success();
    broker.run(&["topic", "delete", "first"], b"").expect_success();
    let stopped = Stopped { directory: broker.kill().directory };
    let metadata = content(&stopped.data().join("metadata"));
    let log = metadata.keys().find(|path| path.extension().is_some_and(|extension| extension == "log"));
    let log = log.expect("the metadata log");
    let position = frame_of(log, "second");
    flip(log, position + 150);
    let damaged = std::fs::read(log).expect("readable");

    let exit = Broker::start_in(stopped.directory, options()).expect_err("half of the metadata is no metadata");
    for part in [&*log.display().to_string(), &format!("position {position}"), "ringmq log repair DIR --metadata"] {
        assert!(exit.log.contains(part), "{part}: {}", exit.log);
    }
    let stopped = Stopped { directory: exit.directory };
    let report = stopped.check();
    assert!(report["metadata"].to_string().contains("log repair DIR --metadata"), "{report}");
    let explained = stopped.look(&["log", "repair", "DIR", "--metadata"]);
    assert_eq!(explained.code, Some(2));
    assert!(explained.stderr.contains("--yes"), "{}", explained.stderr);
    let text = explained.stdout_text();
    for part in ["damaged:", "1 topic(s) with 2 partition(s)", "third", "the changes of offsets 1 to 2 (exclusive)"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    stopped.run(&["log", "repair", "DIR", "--metadata", "--yes"]).expect_success();
    let again = stopped.look(&["log", "repair", "DIR", "--metadata", "--yes"]);
    assert_eq!(again.code, Some(2));
    assert!(again.stderr.contains("nothing to repair"), "{}", again.stderr);
    let aside = content(&stopped.data().join("damaged"));
    assert!(aside.values().any(|content| *content == damaged), "the damaged log is kept: {:?}", aside.keys());

    let topics = |broker: &Broker| broker.run(&["topic", "list"], b"").expect_success().stdout_text();
    let broker = stopped.start();
    let listed = topics(&broker);
    assert!(listed.contains("third") && !listed.contains("first") && !listed.contains("second"), "{listed}");
    broker.run(&["topic", "create", "second"], b"").expect_success();
    let broker = broker.kill_and_restart();
    let listed = topics(&broker);
    assert!(listed.contains("third") && listed.contains("second"), "{listed}");
    let read = broker.run(&["consume", "third"], b"").expect_success();
    assert_eq!(read.stdout_text(), "kept\n");
}

#[test]
fn a_running_broker_finds_what_has_rotted_in_its_sealed_segments() {
    let stopped = Stopped::new(Broker::terminate);
    let segment = stopped.files(1, ".log")[0].clone();
    let position = frame_of(&segment, "record 2 of partition 1");
    flip(&segment, position + 500);
    let broker = stopped.start();
    let told = broker.log().until("a sealed segment is damaged");
    let place = format!("position={position}");
    for part in ["topic=kept", "partition=1", &segment.display().to_string(), &place, "offset=2"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // That frame cannot be read; everything else can, and appends go on.
    let read = broker.run(&["consume", "kept", "--partition", "1", "--from", "3"], b"").expect_success();
    assert_eq!(read.stdout_text().lines().count(), RECORDS as usize - 3);
    assert!(!broker.run(&["consume", "kept", "--partition", "1", "--from", "2"], b"").success);
    let read = broker.run(&["consume", "kept", "--partition", "1"], b"");
    assert_eq!((read.success, read.stdout_text().lines().count()), (false, 2), "what stands before it");
    assert!(read.stderr.contains("What stands before and behind that frame can be read"), "{}", read.stderr);
    broker.run(&["produce", "kept", "--partition", "1", "--message", "more"], b"").expect_success();
    let printed = broker.run(&["stats", "--output", "json"], b"").expect_success();
    let stats: Value = serde_json::from_slice(&printed.stdout).expect("an array of shards");
    assert_eq!(
        (&stats[0]["counters"]["scrubbed_damaged"], &stats[0]["gauges"]["partitions_offline"]),
        (&1.into(), &0.into())
    );
}
