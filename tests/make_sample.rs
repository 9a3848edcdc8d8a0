//! Makes a sample data directory of today's format, for `tests/data/`.
//!
//! `ringmq-make-sample DIR` starts the `ringmq` beside it on a directory below `target/`, and leaves in DIR what
//! `ringmq_tests::sample` describes: topics with several partitions, keys and headers, segments that were rolled, a topic
//! that was altered and one that was deleted, a clean stop, and behind it appends that only the journals have, because
//! the broker was killed.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command: what it prints is its report")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ringmq_client::{Client, NewTopic, PartitionIndex, Record, Timestamp, TopicAlteration};
use ringmq_tests::sample::{SampleRecord, pack};
use ringmq_tests::{Broker, BrokerOptions, data_dir};

/// Topics with their partitions.
const TOPICS: [(&str, u32); 2] = [("orders", 3), ("events", 1)];
/// The first record's timestamp; each next one is a second later.
const EPOCH_MS: i64 = 1_763_820_000_000;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(dir) = std::env::args().nth(1).map(PathBuf::from) else {
        eprintln!("usage: ringmq-make-sample DIR");
        return ExitCode::from(2);
    };
    match run(&dir).await {
        Ok(count) => {
            println!("counted {count} records in {}", dir.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("make-sample: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(dir: &Path) -> Result<usize, Box<dyn std::error::Error>> {
    // Little is large enough to go straight to its segment.
    let config = Some("journal_ring_bytes = 4194304\njournal_append_bytes_max = 4096\n".to_owned());
    let options = BrokerOptions { cores: "0,1".into(), config, ..BrokerOptions::default() };
    let broker = Broker::start_with(options);
    let mut sample = Sample { client: Client::connect(broker.address()).await?, records: Vec::new() };
    let admin = sample.client.admin();
    for (topic, partitions) in TOPICS {
        admin.create_topic(NewTopic::new(topic).partitions(partitions).setting("segment_age_ms", "1000")).await?;
    }
    admin.create_topic(NewTopic::new("gone")).await?;
    sample.client.producer().send("gone", Record::value("deleted")).await?;
    admin.delete_topic("gone").await?;

    sample.send_round().await?;
    sample.send_large().await?;
    // A segment whose first frame is that old is sealed before the next one.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    sample.send_large().await?;
    admin.alter_topic(TopicAlteration::new("events").partitions(2)).await?;
    sample.send_round().await?;
    let broker = broker.restart();
    sample.client = Client::connect(broker.address()).await?;
    for _ in 0..2 {
        broker.log().until("the journal is in use");
    }
    sample.send_round().await?;
    let exit = broker.kill();
    sample.records.sort_by_key(|record| (record.topic.clone(), record.partition, record.offset));
    pack(&data_dir(exit.directory.path()), &sample.records, dir)?;
    Ok(sample.records.len())
}

struct Sample {
    client: Client,
    /// Acknowledged.
    records: Vec<SampleRecord>,
}

impl Sample {
    /// Three records to every partition.
    async fn send_round(&mut self) -> Result<(), ringmq_client::Error> {
        for (topic, _) in TOPICS {
            for partition in 0..self.client.producer().partition_count(topic).await? {
                for number in 0..3 {
                    let value = format!("{topic} {partition}: record {number} of {}", self.records.len());
                    self.send(topic, partition, value).await?;
                }
            }
        }
        Ok(())
    }

    /// One record that goes straight to its segment.
    async fn send_large(&mut self) -> Result<(), ringmq_client::Error> {
        self.send("orders", 0, "large ".repeat(1_000)).await
    }

    async fn send(&mut self, topic: &str, partition: u32, value: String) -> Result<(), ringmq_client::Error> {
        let number = self.records.len();
        let timestamp = EPOCH_MS + i64::try_from(number).unwrap_or_default() * 1_000;
        let key = (!number.is_multiple_of(4)).then(|| format!("key {}", number % 5));
        let headers: Vec<_> = (0..number % 3).map(|n| (format!("header {n}"), format!("of {number}"))).collect();
        let mut record = Record::value(value.clone()).with_timestamp(Timestamp::new(timestamp));
        record.key = key.clone().map(Into::into);
        for (name, value) in &headers {
            record = record.with_header(name.as_str(), value.clone());
        }
        let delivery = self.client.producer().send_to(topic, PartitionIndex::new(partition), record).await?;
        let (topic, offset) = (topic.to_owned(), delivery.offset.get());
        let value = Some(value);
        self.records.push(SampleRecord { topic, partition, offset, timestamp, key, value, headers });
        Ok(())
    }
}
