//! A program's test with a broker of its own: the real one, on a free port, gone behind the test.
//!
//! `cargo build -p ringmq && cargo run --example own_broker`; `RINGMQ_BINARY` names another broker.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use ringmq_client::testing::Broker;
use ringmq_client::{Client, Error, NewTopic, OffsetSpec};

/// What is to be tested: says how many orders there are.
async fn count_orders(client: &Client) -> Result<i64, Error> {
    let ends = client.consumer().list_offsets("orders", OffsetSpec::Latest).await?;
    Ok(ends.iter().filter_map(|end| end.offset).map(|offset| offset.get()).sum())
}

// In a test this is a function with #[tokio::test] above it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start()?;
    let client = broker.client().await?;
    client.admin().create_topic(NewTopic::new("orders").partitions(3)).await?;
    client.producer().send_batch("orders", ["12.50", "8.00"]).await?;
    assert_eq!(count_orders(&client).await?, 2);
    broker.stop()?;
    println!("ok: two orders were counted");
    Ok(())
}
