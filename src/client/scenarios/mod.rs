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

use tracing::dispatcher::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber, Subscriber};

use crate::client::Client;
use crate::fakes::FakeBroker;
use crate::topic::NewTopic;

/// Long enough for a busy machine; nothing waits for it unless it is broken.
const LONG: Duration = Duration::from_secs(60);

async fn connect(broker: &FakeBroker) -> Client {
    Client::builder().brokers(broker.address()).timeout(LONG).connect().await.unwrap()
}

/// Has `subscriber` hear of what this thread does, as long as both are kept.
///
/// A place in the code that no thread has passed asks all subscribers of the process whether they want to hear of it, but
/// where there is one alone, that of the thread which passes it first: another test's, which has none, and then nobody
/// hears of it any more. So there is a second one, which wants nothing.
fn listen(subscriber: impl Subscriber + Send + Sync) -> (DefaultGuard, Dispatch) {
    let second = Dispatch::new(NoSubscriber::new());
    (tracing::subscriber::set_default(subscriber), second)
}

/// A broker of two shards with topic `t` of four partitions, and a client of it.
async fn with_topic() -> (FakeBroker, Client) {
    let broker = FakeBroker::start(2).await;
    let client = connect(&broker).await;
    client.admin().create_topic(NewTopic::new("t").partitions(4)).await.unwrap();
    (broker, client)
}
