//! Data directories of earlier releases, and of this one, are still read: every record, by content and offset.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringmq_tests::sample::{SampleRecord, records, unpack};
use ringmq_tests::{Broker, BrokerOptions, data_dir, new_directory, run_ringmq};
use serde_json::Value;

/// What is in the repository, by name.
fn samples() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let entries = std::fs::read_dir(dir).expect("the samples are there").flatten();
    let mut samples: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    samples.sort();
    samples
}

fn consumed(broker: &Broker, topic: &str, partition: u32) -> Vec<SampleRecord> {
    let partition_text = partition.to_string();
    let args = ["consume", topic, "--partition", &partition_text, "--format", "json"];
    let output = broker.run(&args, b"").expect_success().stdout_text();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let record = |line: &str| {
        let json: Value = serde_json::from_str(line).expect("an object a line");
        let headers = json["headers"].as_array().expect("headers").iter();
        let header = |header: &Value| (text(&header["key"]).expect("a key"), text(&header["value"]).expect("a value"));
        SampleRecord {
            topic: topic.to_owned(),
            partition,
            offset: json["offset"].as_i64().expect("an offset"),
            timestamp: json["timestamp"].as_i64().expect("a timestamp"),
            key: text(&json["key"]),
            value: text(&json["value"]),
            headers: headers.map(header).collect(),
        }
    };
    output.lines().map(record).collect()
}

#[test]
fn every_sample_is_served_as_it_was_written_and_goes_on() {
    let samples = samples();
    assert!(!samples.is_empty(), "there is at least one sample");
    for sample in samples {
        let mut expected: BTreeMap<(String, u32), Vec<SampleRecord>> = BTreeMap::new();
        for record in records(&sample).expect("a sample") {
            expected.entry((record.topic.clone(), record.partition)).or_default().push(record);
        }
        assert!(expected.len() > 3, "{}: several topics and partitions", sample.display());
        // With the number of cores that it was made with, and with another one.
        for cores in ["0,1", "1"] {
            let directory = new_directory();
            let data = data_dir(directory.path());
            unpack(&sample, &data).expect("a sample");
            let check = run_ringmq(&["log", "check", &data.display().to_string()], b"").expect_success();
            assert!(check.stdout_text().contains("of the journal into segments"), "{}", check.stdout_text());

            // Their records are old, and may be compacted further: both would be right, and are not looked at here.
            let config =
                "journal_ring_bytes = 4194304\nretention_interval_ms = 3600000\ncompaction_interval_ms = 3600000\n";
            let config = Some(config.to_owned());
            let options = BrokerOptions { cores: cores.into(), config, ..BrokerOptions::default() };
            let broker = Broker::start_in(directory, options).unwrap_or_else(|exit| panic!("no start:\n{}", exit.log));
            let topics = broker.run(&["topic", "list"], b"").expect_success().stdout_text();
            assert!(!topics.contains("gone"), "deleted before: {topics}");
            for ((topic, partition), records) in &expected {
                assert_eq!(&consumed(&broker, topic, *partition), records, "{}", sample.display());
                let next = records.last().map_or(0, |last| last.offset + 1);
                let args =
                    ["produce", topic, "--partition", &partition.to_string(), "--key", "next", "--message", "next"];
                let produced = broker.run(&args, b"").expect_success().stdout_text();
                assert!(produced.contains(&format!("first_offset={next} ")), "{produced}");
            }
            let broker = broker.kill_and_restart();
            for ((topic, partition), records) in &expected {
                assert_eq!(consumed(&broker, topic, *partition).len(), records.len() + 1);
            }
        }
    }
}

#[test]
fn samples_stay_small() {
    for sample in samples() {
        let (mut bytes, mut open) = (0, vec![sample.clone()]);
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
                match entry.path().is_dir() {
                    true => open.push(entry.path()),
                    false => bytes += entry.metadata().expect("a file").len(),
                }
            }
        }
        assert!((1_000..200_000).contains(&bytes), "{} has {bytes} bytes", sample.display());
    }
}
