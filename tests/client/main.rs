//! The client crate against real brokers. What a broker does wrong is ordered from one in memory: `src/client/scenarios`.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod blocking;
#[cfg(test)]
mod consumer;
#[cfg(test)]
mod gathering;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod producer;
#[cfg(test)]
mod subscription;
#[cfg(test)]
mod testing;

use std::time::Duration;

use ringmq_client::{Client, NewTopic};
use ringmq_tests::Broker;

/// Long enough for a debug broker on a busy machine; nothing waits for it unless it is broken.
const LONG: Duration = Duration::from_secs(60);

async fn connect(broker: &Broker) -> Client {
    Client::builder().brokers(broker.address()).timeout(LONG).connect().await.expect("the broker is up")
}

/// A broker with topic `t` of four partitions, and a client of it.
async fn with_topic() -> (Broker, Client) {
    let broker = Broker::start();
    let client = connect(&broker).await;
    client.admin().create_topic(NewTopic::new("t").partitions(4)).await.expect("a new topic");
    (broker, client)
}
