//! Brokers for the tests of those who use the client.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

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

    let address = broker.address();
    broker.stop().unwrap();
    is_left(address);
    let address = other.address();
    drop(other);
    is_left(address);
}

/// Waits until nobody listens there any more: then the address can be bound.
fn is_left(address: SocketAddr) {
    let patience = Instant::now() + Duration::from_secs(60);
    while let Err(error) = TcpListener::bind(address) {
        assert!(Instant::now() < patience, "the broker at {address} lives on: {error}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_broker_that_does_not_start_says_why() {
    let error = Broker::start_with("no_such_key = 1\n").unwrap_err();
    assert!(matches!(&error, BrokerError::NotReady { log, .. } if log.contains("no_such_key")), "{error}");
}
