//! The example of the README: one record in, and out again. `tests/readme.rs` compares and runs it.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use ringmq_client::{Client, FetchOptions, Record};

#[tokio::main]
async fn main() -> Result<(), ringmq_client::Error> {
    let brokers = std::env::var("RINGMQ_BROKERS").unwrap_or("localhost:9092".to_owned());
    let client = Client::connect(brokers).await?;

    // `Ok` means: on disk, unless the topic relaxes that.
    let stored = client.producer().send("hello", Record::value("hello from Rust").with_key("a key")).await?;
    println!("stored in partition {} at offset {}", stored.partition, stored.offset);

    let fetched = client.consumer().fetch("hello", stored.partition, stored.offset, FetchOptions::default()).await?;
    for record in fetched.records {
        println!("read {:?} at offset {}", record.value, record.offset);
    }
    Ok(())
}
