//! Makes a sample data directory of today's format, for `tests/data/`.
//!
//! `ringmq-make-sample DIR` starts the `ringmq` beside it on a directory below `target/`, and leaves in DIR what
//! `ringmq_tests::sample` describes: topics with several partitions, keys and headers, segments that were rolled, a topic
//! that was altered and one that was deleted, a compacted topic, a trimmed one, one that was damaged and repaired,
//! snapshots of producers, clean stops, and behind them appends that only the journals have, because the broker was killed.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command: what it prints is its report")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ringmq_client::{
    Client, DeleteBefore, FetchOptions, NewTopic, Offset, PartitionIndex, Record, Timestamp, TopicAlteration,
};
use ringmq_tests::sample::{SampleRecord, pack};
use ringmq_tests::{Broker, BrokerOptions, data_dir, run_ringmq};

/// Topics with their partitions.
const TOPICS: [(&str, u32); 2] = [("orders", 3), ("events", 1)];
/// Topics with one partition each, for what becomes of their records.
const LATEST: &str = "latest";
const TRIMMED: &str = "trimmed";
const REPAIRED: &str = "repaired";
/// Segments get as old as that, in milliseconds, and are sealed with the next frame.
const SEGMENT_AGE_MS: u64 = 1_000;
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
    const CONFIG: &str = "journal_ring_bytes = 4194304\njournal_append_bytes_max = 4096\n\
                          compaction_interval_ms = 100\nretention_interval_ms = 3600000\n";
    let options = BrokerOptions { cores: "0,1".into(), config: Some(CONFIG.to_owned()), ..BrokerOptions::default() };
    let broker = Broker::start_with(options.clone());
    let mut sample = Sample { client: Client::connect(broker.address()).await?, records: Vec::new() };
    let admin = sample.client.admin();
    for (topic, partitions) in TOPICS {
        admin
            .create_topic(
                NewTopic::new(topic).partitions(partitions).setting("segment_age_ms", SEGMENT_AGE_MS.to_string()),
            )
            .await?;
    }
    for (topic, cleanup) in [(LATEST, "compact"), (TRIMMED, "delete"), (REPAIRED, "delete")] {
        let topic = NewTopic::new(topic).setting("segment_age_ms", SEGMENT_AGE_MS.to_string());
        admin.create_topic(topic.setting("cleanup", cleanup)).await?;
    }
    admin.create_topic(NewTopic::new("gone")).await?;
    sample.client.producer().send("gone", Record::value("deleted")).await?;
    admin.delete_topic("gone").await?;

    sample.send_round().await?;
    sample.send_large().await?;
    grow_old().await;
    sample.send_large().await?;
    sample.compact().await?;
    sample.trim().await?;
    admin.alter_topic(TopicAlteration::new("events").partitions(2)).await?;
    sample.send_round().await?;
    let broker = sample.repair(broker, options).await?;
    sample.client = Client::connect(broker.address()).await?;
    for _ in 0..2 {
        broker.log().until("the journal is in use");
    }
    sample.send_round().await?;
    sample.forget_what_compaction_took().await?;
    let exit = broker.kill();
    sample.records.sort_by_key(|record| (record.topic.clone(), record.partition, record.offset));
    pack(&data_dir(exit.directory.path()), &sample.records, dir)?;
    Ok(sample.records.len())
}

/// Waits until the next frame seals the segment.
async fn grow_old() {
    tokio::time::sleep(Duration::from_millis(SEGMENT_AGE_MS + 100)).await;
}

type Failure = Box<dyn std::error::Error>;

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

    /// Some keys again and again, in several segments, until compaction has been there.
    async fn compact(&mut self) -> Result<(), Failure> {
        for round in 0..4 {
            for _ in 0..6 {
                let value = (self.records.len() % 5 != 2 || round < 2).then(|| format!("round {round}"));
                self.send_record(LATEST, 0, value).await?;
            }
            // Into the segment, with those before it.
            self.send(LATEST, 0, format!("round {round} ").repeat(600)).await?;
            grow_old().await;
        }
        let sent = self.records.iter().filter(|record| record.topic == LATEST).count();
        for _ in 0..600 {
            if self.offsets_of_latest().await?.len() < sent {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err("compaction takes nothing".into())
    }

    async fn offsets_of_latest(&self) -> Result<Vec<i64>, Failure> {
        let (consumer, mut next, mut offsets) = (self.client.consumer(), Offset::ZERO, Vec::new());
        loop {
            let fetched = consumer.fetch(LATEST, PartitionIndex::new(0), next, FetchOptions::no_wait()).await?;
            offsets.extend(fetched.records.iter().map(|record| record.offset.get()));
            if fetched.next_offset == fetched.high_watermark {
                return Ok(offsets);
            }
            next = fetched.next_offset;
        }
    }

    async fn forget_what_compaction_took(&mut self) -> Result<(), Failure> {
        let there = self.offsets_of_latest().await?;
        self.records.retain(|record| record.topic != LATEST || there.contains(&record.offset));
        Ok(())
    }

    /// Deletes all of the first segment, and a part of the second.
    async fn trim(&mut self) -> Result<(), Failure> {
        const BEFORE: i64 = 4;
        for _ in 0..2 {
            for times in [1, 1, 200] {
                self.send(TRIMMED, 0, "straight to its segment ".repeat(times)).await?;
            }
            grow_old().await;
        }
        let before = DeleteBefore::Offset(Offset::new(BEFORE));
        self.client.admin().delete_records(TRIMMED, &[(PartitionIndex::new(0), before)]).await?;
        self.records.retain(|record| record.topic != TRIMMED || record.offset >= BEFORE);
        Ok(())
    }

    /// Stops the broker, damages the last record of a topic, has it repaired, and starts the broker again.
    async fn repair(&mut self, broker: Broker, options: BrokerOptions) -> Result<Broker, Failure> {
        for number in 0..3 {
            self.send(REPAIRED, 0, format!("number {number} of what is repaired ").repeat(160)).await?;
        }
        let id = self.client.admin().describe_topic(REPAIRED).await?.topic_id;
        let exit = broker.terminate();
        let data = data_dir(exit.directory.path());
        let segment = data.join(id.to_string()).join("0").join(format!("{:020}.log", 0));
        let mut bytes = std::fs::read(&segment)?;
        let is_last = |window: &[u8]| window == b"number 2";
        let at = bytes.windows(8).position(is_last).ok_or("the last record is in the segment")?;
        bytes[at] ^= 1;
        std::fs::write(&segment, bytes)?;
        let repair = ["log", "repair", &data.display().to_string(), "--topic", REPAIRED, "--partition", "0", "--yes"];
        run_ringmq(&repair, b"").expect_success();
        self.records.retain(|record| record.topic != REPAIRED || record.offset < 2);
        Broker::start_in(exit.directory, options).map_err(|exit| exit.log.into())
    }

    /// One record that goes straight to its segment.
    async fn send_large(&mut self) -> Result<(), ringmq_client::Error> {
        self.send("orders", 0, "large ".repeat(1_000)).await
    }

    async fn send(&mut self, topic: &str, partition: u32, value: String) -> Result<(), ringmq_client::Error> {
        self.send_record(topic, partition, Some(value)).await
    }

    async fn send_record(
        &mut self,
        topic: &str,
        partition: u32,
        value: Option<String>,
    ) -> Result<(), ringmq_client::Error> {
        let number = self.records.len();
        let timestamp = EPOCH_MS + i64::try_from(number).unwrap_or_default() * 1_000;
        let key = (topic == LATEST || !number.is_multiple_of(4)).then(|| format!("key {}", number % 5));
        let headers: Vec<_> = (0..number % 3).map(|n| (format!("header {n}"), format!("of {number}"))).collect();
        let mut record = Record { value: value.clone().map(Into::into), ..Record::default() };
        record = record.with_timestamp(Timestamp::new(timestamp));
        record.key = key.clone().map(Into::into);
        for (name, value) in &headers {
            record = record.with_header(name.as_str(), value.clone());
        }
        let delivery = self.client.producer().send_to(topic, PartitionIndex::new(partition), record).await?;
        let (topic, offset) = (topic.to_owned(), delivery.offset.get());
        self.records.push(SampleRecord { topic, partition, offset, timestamp, key, value, headers });
        Ok(())
    }
}
