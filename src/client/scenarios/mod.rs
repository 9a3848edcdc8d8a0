//! The client as a whole against brokers in memory, which fail as a test orders. What a sound broker answers is tested
//! with real ones: `tests/client/`.

mod admin;
mod consumer;
mod gathering;
mod producer;
mod routing;
mod spans;
mod subscription;

use std::time::Duration;

use crate::admin::NewTopic;
use crate::client::Client;
use crate::fakes::FakeBroker;

/// Long enough for a busy machine; nothing waits for it unless it is broken.
const LONG: Duration = Duration::from_secs(60);

async fn connect(broker: &FakeBroker) -> Client {
    Client::builder().brokers(broker.address()).timeout(LONG).connect().await.unwrap()
}

/// A broker of two shards with topic `t` of four partitions, and a client of it.
async fn with_topic() -> (FakeBroker, Client) {
    let broker = FakeBroker::start(2).await;
    let client = connect(&broker).await;
    client.admin().create_topic(NewTopic::new("t").partitions(4)).await.unwrap();
    (broker, client)
}
