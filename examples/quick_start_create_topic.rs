//! Creating a topic through whichever broker is at hand: the client finds the controller by itself.
//!
//! `cargo run --example quick_start_create_topic [BROKERS]`
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringmq_client::{Client, ErrorCode, NewTopic};

const TOPIC: &str = "quick-start";
const PARTITIONS: u32 = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let brokers = std::env::args().nth(1).or_else(|| std::env::var("RINGMQ_BROKERS").ok());
    let brokers = brokers.unwrap_or_else(|| "localhost:9092".to_owned());
    // Several addresses stand with commas between them; one that answers is enough.
    let client = Client::builder().brokers(&brokers).timeout(Duration::from_secs(5)).connect().await?;
    let admin = client.admin();

    let started = Instant::now();
    let controller = admin.discover_controller().await?;
    println!("broker {} at {} is the controller (found in {:?})", controller.id, controller.address, started.elapsed());

    match admin.create_topic(NewTopic::new(TOPIC).partitions(PARTITIONS)).await {
        Ok(id) => println!("created topic {TOPIC} ({id})"),
        Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => println!("topic {TOPIC} is there already"),
        Err(error) => return Err(error.into()),
    }

    for topic in admin.list_topics().await? {
        println!("topic {}: {} partitions", topic.name, topic.partitions);
    }

    let described = admin.describe_topic(TOPIC).await?;
    for partition in &described.partitions {
        let place = &partition.metadata;
        println!("partition {} is led by broker {}, shard {}", place.partition, place.leader, place.shard);
    }
    if described.partitions.len() != PARTITIONS as usize {
        return Err(
            format!("topic {TOPIC} has {} partitions instead of {PARTITIONS}", described.partitions.len()).into()
        );
    }
    Ok(())
}
