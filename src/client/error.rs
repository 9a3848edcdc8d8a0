//! What can go wrong in the client, with causes and advice.

use std::time::Duration;

use ringmq_wire::batch::{BatchError, BuildError};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, TopicName, TopicNameError, WireError};

use crate::address::{AddressError, BrokerAddress};
use crate::connection::{ConnectionError, RequestError};

/// What a subscription's handler may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why an operation failed. The text names what happened, where, and what to do; causes are in it already, and
/// [`source`](std::error::Error::source) leads to them one by one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text that is not a broker address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Text that cannot name a topic.
    #[error("`{name}` is not a topic name: {source}")]
    TopicName {
        /// The text.
        name: String,
        /// The rule that it breaks.
        source: TopicNameError,
    },
    /// An argument that no broker could act on.
    #[error("{0}")]
    Argument(String),
    /// No address led to a broker.
    #[error("no broker can be reached: {}", AttemptList(.attempts))]
    Unreachable {
        /// Every address that was tried and what happened there.
        attempts: Vec<Attempt>,
    },
    /// A connection broke, or did not answer in time. The broker may have acted on the request.
    #[error("{operation} on {address}: {source}")]
    Connection {
        /// What was asked.
        operation: &'static str,
        /// The broker's address.
        address: BrokerAddress,
        /// Whether the broker may have received the request.
        may_have_arrived: bool,
        /// What happened.
        source: ConnectionError,
    },
    /// The broker refused.
    #[error("{subject}: {source}")]
    Broker {
        /// What the answer is about: a topic, a partition, the whole request.
        subject: String,
        /// The broker's code and words.
        source: WireError,
    },
    /// The operation's time is used up. Nothing that could not be repeated safely was left half done.
    #[error("{operation} did not succeed within {timeout:?}{}", LastError(.last))]
    TimedOut {
        /// What was tried.
        operation: &'static str,
        /// How long.
        timeout: Duration,
        /// The last attempt's error, if an attempt ended.
        #[source]
        last: Option<Box<Error>>,
    },
    /// Records were sent and no acknowledgement came. They are stored once or not at all; sending them again may store
    /// them twice.
    #[error(
        "the records for partition {partition} of topic `{topic}` may or may not be stored, because the \
         acknowledgement is missing: {source}; read the partition's end to find out, or send again if a duplicate does \
         no harm"
    )]
    MaybeStored {
        /// The topic.
        topic: String,
        /// The partition.
        partition: PartitionIndex,
        /// How the acknowledgement was lost.
        source: Box<Error>,
    },
    /// A fetched batch has a wrong checksum, is malformed, or is compressed in a way that this client cannot read.
    #[error(
        "the batch at offset {offset} of partition {partition} of topic `{topic}` cannot be read: {source}; fetch it \
         again, and if that does not help look into the broker's log for that partition"
    )]
    Unreadable {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
        /// The offset at or behind which the batch lies.
        offset: Offset,
        /// What is wrong with it.
        source: BatchError,
    },
    /// A broker's answer can be decoded but does not fit the request.
    #[error(
        "the broker's answer does not fit the request: {0}; use a client and a broker of the same version, and if they \
         are, report it as a fault"
    )]
    Nonsense(String),
    /// Records that cannot be put into a batch.
    #[error("the records cannot be put into one batch: {0}")]
    Batch(#[from] BuildError),
    /// A subscription's handler failed, which ends the subscription. The record it failed on counts as not handled.
    #[error("the handler failed on partition {partition}, offset {offset}: {source}")]
    Handler {
        /// The record's partition.
        partition: PartitionIndex,
        /// The record's offset: where to start again.
        offset: Offset,
        /// The handler's error.
        source: BoxError,
    },
    /// The blocking face's thread could not be started, or a task of the client ended without a result.
    #[error("the client's own runtime failed: {0}")]
    Runtime(String),
}

/// One address that was tried.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The address.
    pub address: BrokerAddress,
    /// What happened there.
    pub error: ConnectionError,
}

impl Error {
    /// Whether the same call may succeed later. Never true when repeating it could store records twice.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { attempts } => attempts.iter().any(|attempt| attempt.error.is_retriable()),
            Self::Connection { source, .. } => source.is_retriable(),
            Self::Broker { source, .. } => source.is_retriable(),
            Self::TimedOut { .. } => true,
            Self::Address(_)
            | Self::TopicName { .. }
            | Self::Argument(_)
            | Self::MaybeStored { .. }
            | Self::Unreadable { .. }
            | Self::Nonsense(_)
            | Self::Batch(_)
            | Self::Handler { .. }
            | Self::Runtime(_) => false,
        }
    }

    /// The broker's error code, if a broker's answer is behind this error.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { source, .. } => Some(source.code),
            Self::TimedOut { last, .. } => last.as_ref().and_then(|last| last.code()),
            Self::MaybeStored { source, .. } => source.code(),
            _ => None,
        }
    }

    /// The same once more, for another caller; without causes that cannot be told twice, whose text it has.
    pub(crate) fn alike(&self) -> Self {
        match self {
            Self::Unreachable { attempts } => Self::Unreachable { attempts: attempts.clone() },
            Self::Connection { operation, address, may_have_arrived, source } => Self::Connection {
                operation,
                address: address.clone(),
                may_have_arrived: *may_have_arrived,
                source: source.clone(),
            },
            Self::Broker { subject, source } => Self::Broker { subject: subject.clone(), source: source.clone() },
            Self::TimedOut { operation, timeout, last } => {
                let last = last.as_ref().map(|last| Box::new(last.alike()));
                Self::TimedOut { operation, timeout: *timeout, last }
            }
            other => Self::Argument(other.to_string()),
        }
    }

    /// The failure of a request as a whole.
    pub(crate) fn of_request(operation: &'static str, address: &BrokerAddress, error: RequestError) -> Self {
        match error {
            RequestError::Refused(source) => Self::Broker { subject: operation.to_owned(), source },
            RequestError::Failed { may_have_arrived, cause: source } => {
                Self::Connection { operation, address: address.clone(), may_have_arrived, source }
            }
        }
    }

    /// The broker's refusal for one topic.
    pub(crate) fn about_topic(topic: &str, source: WireError) -> Self {
        Self::Broker { subject: format!("topic `{topic}`"), source }
    }

    /// The broker's refusal for one partition.
    pub(crate) fn about_partition(topic: &str, partition: PartitionIndex, source: WireError) -> Self {
        Self::Broker { subject: format!("partition {partition} of topic `{topic}`"), source }
    }
}

/// `a:1 (why); b:2 (why)`.
struct AttemptList<'a>(&'a [Attempt]);

impl std::fmt::Display for AttemptList<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, attempt) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", attempt.address, attempt.error)?;
        }
        Ok(())
    }
}

/// `; the last attempt: why`, or nothing.
struct LastError<'a>(&'a Option<Box<Error>>);

impl std::fmt::Display for LastError<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(last) => write!(f, "; the last attempt: {last}"),
            None => f.write_str("; check the network and the broker's load, or give it more time"),
        }
    }
}
