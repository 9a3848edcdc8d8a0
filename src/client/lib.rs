//! The client of RingMQ: async on tokio, with a [`blocking`] face.
//!
//! ```no_run
//! use ringmq_client::{Client, FetchOptions, NewTopic, Record};
//!
//! # async fn example() -> Result<(), ringmq_client::Error> {
//! let client = Client::connect("localhost:9092").await?;
//! client.admin().create_topic(NewTopic::new("greetings").partitions(4)).await?;
//!
//! // `Ok` means: on disk, unless the topic relaxes that.
//! let delivery = client.producer().send("greetings", Record::value("hello, ring").with_key("a key")).await?;
//!
//! let consumer = client.consumer();
//! let fetched = consumer.fetch("greetings", delivery.partition, delivery.offset, FetchOptions::default()).await?;
//! for record in fetched.records {
//!     println!("{}: {:?}", record.offset, record.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | to | use |
//! |---|---|
//! | connect, with one address or several | [`Client::connect`], [`Client::builder`] |
//! | create, alter, delete, list and describe topics, delete old records, see statistics, find the controller | [`Admin`] |
//! | send records, one by one or many, waiting for each or not | [`Producer`] |
//! | fetch from an offset, ask for offsets, subscribe | [`Consumer`] |
//! | test a program with a broker of its own | `testing` (with the feature of that name) |
//! | speak the protocol on a connection of one's own | [`Connection`], with the messages of the crate `ringmq-wire` |
//!
//! **Where requests go.** Data operations go straight to the port of the shard that owns the partition, or to the
//! broker's public port where that one cannot be reached. Operations on topics go to the controller, which is discovered
//! and, when it moves, discovered again.
//!
//! **Time-outs and retries.** An operation has [`ClientOptions::timeout`] for all its attempts; records have longer, their
//! [delivery time-out](Producer::delivery_timeout). Errors that may pass are tried again with growing, random pauses; the
//! broker recognises records that it gets again and stores them once: see [`Producer`].
//!
//! **Compatibility.** Keys choose partitions by the hash of Kafka's clients; batches have Kafka's v2 layout.
#![forbid(unsafe_code)]

mod accumulator;
mod address;
mod admin;
pub mod blocking;
mod client;
mod cluster;
mod connection;
mod consumer;
mod delete_records;
mod delivery;
mod each_partition;
mod error;
#[cfg(test)]
mod fakes;
mod fetch;
mod fetched;
mod fetcher;
mod guide;
mod lane;
mod list_offsets;
mod metadata;
mod murmur2;
mod options;
mod partitioner;
mod plain_lane;
mod pool;
mod produce;
mod producer;
mod record;
mod retry;
#[cfg(test)]
mod scenarios;
mod subscriber;
mod subscription;
#[cfg(feature = "testing")]
pub mod testing;
mod topic;
mod window;

/// The programs of the README compile.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("README.md")]
struct Readme;

pub use ringmq_wire::batch::Compression;
pub use ringmq_wire::protocol::{
    Acks, DescribeClusterResponse as ClusterDescription, DescribedBroker, DescribedPartition, DescribedSetting,
    DescribedShard, DeviceUse, ListedTopic, NamedValue, OffsetSpec, PartitionMetadata, ShardStats, StageLatency,
    TaskStall,
};
pub use ringmq_wire::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, ShardIndex, Timestamp, TopicId, TopicName,
    TopicNameError, WireError,
};

pub use accumulator::PendingDelivery;
pub use address::{AddressError, BrokerAddress, DEFAULT_PORT, HostPort, IntoBrokers};
pub use admin::{Admin, BrokerStats};
pub use client::{Client, ClientBuilder};
pub use cluster::ControllerInfo;
pub use connection::{Connection, ConnectionError, FetchResponse, RequestError};
pub use consumer::Consumer;
pub use delete_records::{DeleteBefore, DeleteRecords, PartitionStart};
pub use delivery::{Deliveries, Delivery};
pub use error::{Attempt, BoxError, Error};
pub use fetch::{FetchFrom, FetchOptions, Fetched, RawFetched};
pub use list_offsets::{ListOffset, PartitionOffset, TopicOffsets};
pub use metadata::PartitionAddresses;
pub use options::ClientOptions;
pub use partitioner::Partitioner;
pub use producer::{AckedBy, Producer};
pub use record::{ConsumedRecord, Header, Record};
pub use subscription::{RecordStream, Start, SubscribeOptions, Until};
pub use topic::{NewTopic, TopicAlteration, TopicDescription};
