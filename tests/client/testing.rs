//! Brokers for the tests of those who use the client.

use ringmq_client::testing::{Broker, BrokerError};
use ringmq_client::{FetchOptions, NewTopic};

#[tokio::test]
async fn a_test_of_a_user_has_a_broker_of_its_own() {
    let (broker, other) = (Broker::start().unwrap(), Broker::start().unwrap());
    assert_ne!(broker.address(), other.address());
    let client = broker.client().await.unwrap();
    client.admin().create_topic(NewTopic::new("orders")).await.unwrap();
    let stored = client.producer().send("orders", "12.50").await.unwrap();
    let consumer = client.consumer();
    let fetched = consumer.fetch("orders", stored.partition, stored.offset, FetchOptions::no_wait()).await.unwrap();
    assert_eq!(fetched.records[0].value.as_deref(), Some(&b"12.50"[..]));
    assert!(other.client().await.unwrap().admin().list_topics().await.unwrap().is_empty());

    broker.stop().unwrap();
    assert!(client.admin().list_topics().await.is_err(), "it has ended");
    let address = other.address();
    drop(other);
    assert!(ringmq_client::Client::connect(address).await.is_err(), "dropping it ends it too");
}

#[test]
fn a_broker_that_does_not_start_says_why() {
    let error = Broker::start_with("no_such_key = 1\n").unwrap_err();
    assert!(matches!(&error, BrokerError::NotReady { log, .. } if log.contains("no_such_key")), "{error}");
}
