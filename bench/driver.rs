//! What differs between the protocols that a broker may speak: how bytes are framed, and how topics are made and found.
//!
//! Everything else is the same for all of them, so that figures of two brokers compare what the brokers do: the same batches,
//! byte for byte (the record batch is Kafka's in both protocols), the same schedule, the same threads and system calls.

mod kafka;
mod native;

use std::fmt::Debug;
use std::io;

use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use ringmq_client::{Acks, BrokerAddress, OffsetSpec, PartitionIndex, TopicName};
use ringmq_wire::protocol::InitProducerIdResponse;
use ringmq_wire::protocol::frame::ResponseHead;
use ringmq_wire::{CorrelationId, Offset, WireError};

use crate::client::Client;
use crate::connection::Connection;
use crate::error::WorkerError;
use crate::topic::{Topic, TopicError};

/// Which protocol the broker is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DriverArgument {
    /// RingMQ's own
    Native,
    /// Kafka's, of any broker that speaks it
    Kafka,
    /// Kafka's, by way of librdkafka: records go and come through that client alone
    #[cfg(feature = "rdkafka")]
    Rdkafka,
}

impl DriverArgument {
    pub(crate) fn driver(self) -> &'static dyn Driver {
        match self {
            Self::Native => &native::Native,
            Self::Kafka => &kafka::Kafka,
            #[cfg(feature = "rdkafka")]
            Self::Rdkafka => &kafka::Kafka,
        }
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Kafka => "kafka",
            #[cfg(feature = "rdkafka")]
            Self::Rdkafka => "rdkafka",
        }
    }

    /// Records go and come through a client, and in no other way.
    pub(crate) fn is_client_alone(self) -> bool {
        match self {
            Self::Native | Self::Kafka => false,
            #[cfg(feature = "rdkafka")]
            Self::Rdkafka => true,
        }
    }
}

/// A protocol.
pub(crate) trait Driver: Debug + Sync {
    /// Exchanges what comes before the first request.
    fn greet(&self, connection: &mut Connection) -> io::Result<Greeting>;

    /// Where a request's correlation id stands: four bytes, big-endian.
    fn correlation_id_at(&self) -> usize;

    /// All of a produce request that comes before its one batch, of so many bytes, with any correlation id.
    fn produce_head(&self, to: &Destination<'_>, batch_bytes: u32) -> io::Result<Bytes>;

    /// Appends a fetch request for one partition.
    fn encode_fetch(&self, id: CorrelationId, fetch: &Fetch<'_>, out: &mut BytesMut) -> io::Result<()>;

    /// Appends a request for a producer's identity.
    fn encode_init_producer_id(&self, out: &mut BytesMut) -> io::Result<()>;

    /// The head of a response and its length, if all of it is there.
    fn decode_response_head(&self, bytes: &[u8]) -> io::Result<Option<(ResponseHead, usize)>>;

    /// How many records a produce response acknowledges, where so many were sent.
    fn acknowledged(&self, head: &ResponseHead, body: &[u8], sent: u64) -> Result<u64, WorkerError>;

    /// What comes before the batches in the response to a fetch of one partition, and its length, if all of it is there.
    fn fetched(&self, head: &ResponseHead, arrived: &[u8]) -> Result<Option<(Fetched, usize)>, WorkerError>;

    /// Whether the last batch of a fetch may end in the middle.
    fn may_cut_batches(&self) -> bool;

    /// A producer's identity.
    fn decode_init_producer_id(&self, head: &ResponseHead, body: &[u8]) -> io::Result<InitProducerIdResponse>;

    /// The client that programs use, if this program is built with it.
    fn client(&self) -> Option<&'static dyn Client>;

    /// Connects to where topics are made and found.
    fn connect(&self, brokers: &[BrokerAddress]) -> Result<Box<dyn Topics>, TopicError>;
}

/// What a broker says of itself when a connection begins.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Greeting {
    /// The longest request that it takes.
    pub(crate) request_bytes_max: u32,
    /// It sends records by itself (RingMQ's own protocol alone has that).
    pub(crate) has_subscriptions: bool,
}

/// Topics of a cluster.
pub(crate) trait Topics {
    /// Creates a topic with these settings, if it is missing.
    fn create(&mut self, topic: &str, partitions: u32, settings: &[(String, String)]) -> Result<(), TopicError>;

    /// Finds a topic, whatever its partitions.
    fn find(&mut self, topic: &str) -> Result<Topic, TopicError>;

    /// One offset of each partition, by index.
    fn offsets(&mut self, topic: &Topic, at: OffsetSpec) -> Result<Vec<i64>, TopicError>;

    /// Deletes a topic, if it is there.
    fn delete(&mut self, topic: &str) -> Result<(), TopicError>;
}

/// Where a batch goes, and what is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) topic: &'a TopicName,
    pub(crate) partition: PartitionIndex,
    pub(crate) acks: Acks,
}

/// What is fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetch<'a> {
    pub(crate) topic: &'a TopicName,
    pub(crate) partition: PartitionIndex,
    pub(crate) offset: Offset,
    /// About so many bytes.
    pub(crate) bytes: u32,
    /// How long the broker may wait for the first one.
    pub(crate) max_wait_ms: u32,
}

/// What a response says of its one partition.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) partition: PartitionIndex,
    pub(crate) error: Option<WireError>,
    pub(crate) records_bytes: usize,
}
