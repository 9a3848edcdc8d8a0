//! The shortest useful program: a topic, a record in, the record out.
//!
//! `cargo run --example simple [BROKERS]`
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::process::ExitCode;

use ringmq_client::{Client, Error, ErrorCode, FetchOptions, NewTopic, Record};

const TOPIC: &str = "simple";

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
    let client = Client::connect(&brokers).await?;
    println!("connected to {brokers}");

    create_if_missing(&client).await?;

    // `Ok` means that the record is on disk, unless the topic relaxes that.
    let record = Record::value("hello, ring").with_key("greeting").with_header("language", "en");
    let delivery = client.producer().send(TOPIC, record).await?;
    println!("stored in partition {} at offset {}", delivery.partition, delivery.offset);

    let fetched = client.consumer().fetch(TOPIC, delivery.partition, delivery.offset, FetchOptions::default()).await?;
    let record = fetched.records.first().ok_or("the record that was stored did not come back")?;
    let value = record.value.as_deref().unwrap_or_default();
    println!("fetched offset {}: {}", record.offset, String::from_utf8_lossy(value));
    if record.offset != delivery.offset || value != b"hello, ring" {
        return Err("another record came back than was stored".into());
    }
    Ok(())
}

async fn create_if_missing(client: &Client) -> Result<(), Error> {
    match client.admin().create_topic(NewTopic::new(TOPIC).partitions(4)).await {
        Ok(id) => println!("created topic {TOPIC} ({id})"),
        Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => println!("topic {TOPIC} is there already"),
        Err(error) => return Err(error),
    }
    Ok(())
}
