//! Clients as programs use them: records are handed over one by one, and come one by one; the client batches, sends and asks as it
//! sees fit.
//!
//! A [`Driver`](crate::driver::Driver) tells what a broker does with prepared batches on connections of ours, which no program
//! has. This tells what programs get of it: RingMQ by the client crate, Kafka by librdkafka, where this program is built with
//! it. A client's own time is part of what is measured, and its checks of what it receives are trusted.

mod heard;
#[cfg(feature = "rdkafka")]
mod librdkafka;
mod native;
mod producer;
mod stream;
mod values;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringmq_client::{BrokerAddress, PartitionIndex};
use ringmq_wire::Offset;
use tokio::runtime::Runtime;

use crate::arguments::AcksArgument;
use crate::error::{LoadError, WorkerError};
use crate::load::Load;

pub(crate) use self::heard::Heard;
#[cfg(feature = "rdkafka")]
pub(crate) use self::librdkafka::Librdkafka;
pub(crate) use self::native::Native;
pub(crate) use self::producer::ClientProducer;
pub(crate) use self::stream::Stream;
pub(crate) use self::values::Block;

/// Why a client has not done what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// RingMQ's.
    #[error(transparent)]
    Native(#[from] ringmq_client::Error),
    /// Kafka's.
    #[cfg(feature = "rdkafka")]
    #[error("librdkafka: {0}")]
    Librdkafka(#[from] rdkafka::error::KafkaError),
}

/// A client.
pub(crate) trait Client: Debug + Sync {
    /// Connects one that sends. What becomes of the records is told to `heard`.
    fn sender(&self, to: &Sending<'_>, heard: Arc<Heard>) -> Result<Arc<dyn Sender>, LoadError>;

    /// Connects one that receives, about so many bytes at once.
    fn receiver(&self, at: &Endpoint<'_>, bytes: u32) -> Result<Box<dyn Receiver>, LoadError>;
}

/// The topic, and where it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint<'a> {
    /// Brokers to start from.
    pub(crate) brokers: &'a [BrokerAddress],
    pub(crate) topic: &'a str,
}

/// Where records go, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending<'a> {
    pub(crate) at: Endpoint<'a>,
    pub(crate) load: &'a Load,
}

/// What is handed over at once: values of one length, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    pub(crate) values: Bytes,
    pub(crate) value_bytes: usize,
    /// `None` leaves it to the client.
    pub(crate) partition: Option<PartitionIndex>,
    /// From when on the time of the first of them counts, or of all.
    pub(crate) timed: Timed,
}

/// Of which records one wants to hear how long they took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timed {
    /// Of the first one, from when it is handed over.
    First,
    /// Of all, from then on.
    All(Instant),
}

impl Timed {
    /// When the time of the record with this number begins.
    fn started(self, number: usize) -> Option<Instant> {
        match self {
            Self::First => (number == 0).then(Instant::now),
            Self::All(started) => Some(started),
        }
    }
}

/// What a call comes to: a number of records, and what went wrong.
pub(crate) type Outcome<'a> = Pin<Box<dyn Future<Output = (u64, Option<ClientError>)> + Send + 'a>>;

/// A client that sends.
pub(crate) trait Sender: Send + Sync {
    /// Hands records over, and waits where there is no room for one. Gives how many it took.
    fn send(&self, records: Records) -> Outcome<'_>;

    /// Waits until all is acknowledged or given up. Gives how many were given up since it was asked last.
    fn flush(&self) -> Outcome<'_>;
}

/// A client that receives.
pub(crate) trait Receiver: Send {
    /// Receives from here on, and nothing else.
    fn begin(&mut self, from: &[(PartitionIndex, Offset)]) -> Result<(), WorkerError>;

    /// Waits for what comes, at most so long. Calls `each` with partition, offset and value of each record; they are of one
    /// partition.
    fn receive(&mut self, wait: Duration, each: &mut Each<'_>) -> Result<(), WorkerError>;
}

/// What becomes of a record.
pub(crate) type Each<'a> = dyn FnMut(PartitionIndex, Offset, &[u8]) -> Result<(), WorkerError> + 'a;

/// The runtime that all clients of this process share, as tasks of one program do.
pub(crate) fn runtime() -> Result<&'static Runtime, LoadError> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let started = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(LoadError::Runtime)?;
    Ok(RUNTIME.get_or_init(|| started))
}

/// What clients decide by themselves, or have no word for, is not left out without a word.
pub(crate) fn check(load: &Load, by: &'static str) -> Result<(), LoadError> {
    let refused = [
        ("--acks none", load.acks == AcksArgument::None),
        ("--keys", load.keys.is_some()),
        ("--payload", load.payload.is_some()),
    ];
    match refused.into_iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) => Err(LoadError::NotByClient { flag, by }),
        None => Ok(()),
    }
}
