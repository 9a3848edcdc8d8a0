//! What can go wrong in the client, with causes and advice.

use std::sync::Arc;
use std::time::Duration;

use ringmq_wire::batch::{BatchError, BuildError};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, TopicName, TopicNameError, WireError};

use crate::address::{AddressError, BrokerAddress};
use crate::connection::{ConnectionError, RequestError};

/// What a subscription's handler may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why an operation failed. The text names what happened, where, and what to do; causes are in it already, and
/// [`source`](std::error::Error::source) leads to them one by one.
///
/// A clone is the same error, for another who waits for the same thing.
///
/// ```no_run
/// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::{Error, ErrorCode};
/// match producer.send("orders", "12.50").await {
///     Ok(delivery) => println!("stored at {}", delivery.offset),
///     Err(Error::MaybeStored { .. }) => println!("stored once or not at all; sent again, it may be there twice"),
///     Err(error) if error.code() == Some(ErrorCode::UnknownTopic) => println!("create the topic first"),
///     Err(error) if error.is_retriable() => println!("not stored; later, perhaps: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
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
    #[error("the records cannot be put into one batch, and none was sent: {0}")]
    Batch(#[source] Arc<BuildError>),
    /// The records that producers of the client hold are as many as they may be.
    #[error(
        "the client's producers hold {bytes_max} bytes of records that are not acknowledged; wait for some of them, or \
         raise producer_bytes_max"
    )]
    Full {
        /// [`ClientOptions::producer_bytes_max`](crate::ClientOptions::producer_bytes_max).
        bytes_max: u32,
    },
    /// Nobody has asked yet how many partitions a topic has, and there was no time to.
    #[error("how many partitions topic `{topic}` has is not known yet; await `partition_count` once, or use `enqueue`")]
    PartitionsUnknown {
        /// The topic.
        topic: String,
    },
    /// The producer was closed. The record was not sent.
    #[error("the producer is closed; send before that, or with another producer of the client")]
    Closed,
    /// Of the records that were handed over, some were not acknowledged.
    #[error(
        "{records} of the records handed over were not acknowledged; what became of each, its delivery or callback tells; \
         the first that failed: {first}"
    )]
    Undelivered {
        /// How many.
        records: u64,
        /// Why the first of them failed.
        #[source]
        first: Box<Error>,
    },
    /// A subscription's handler failed, which ends the subscription. The record it failed on counts as not handled.
    #[error(
        "the handler failed on partition {partition}, offset {offset}: {source}; when that is mended, subscribe again from \
         that offset"
    )]
    Handler {
        /// The record's partition.
        partition: PartitionIndex,
        /// The record's offset: where to start again.
        offset: Offset,
        /// The handler's error.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The blocking face's thread could not be started, or a task of the client ended without a result.
    #[error("the client's own runtime failed: {0}")]
    Runtime(String),
}

/// One address that was tried.
///
/// ```no_run
/// # async fn example() -> Result<(), ringmq_client::Error> {
/// use ringmq_client::{Client, Error};
/// if let Err(Error::Unreachable { attempts }) = Client::connect("queue-1, queue-2").await {
///     for attempt in attempts {
///         println!("{}: {}", attempt.address, attempt.error);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The address.
    pub address: BrokerAddress,
    /// What happened there.
    pub error: ConnectionError,
}

impl Error {
    /// Whether the same call may succeed later. Never true when repeating it could store records twice.
    ///
    /// ```
    /// use ringmq_client::Error;
    /// assert!(Error::Full { bytes_max: 1024 }.is_retriable());
    /// assert!(!Error::Closed.is_retriable());
    /// ```
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { attempts } => attempts.iter().any(|attempt| attempt.error.is_retriable()),
            Self::Connection { source, .. } => source.is_retriable(),
            Self::Broker { source, .. } => source.is_retriable(),
            Self::TimedOut { .. } | Self::Full { .. } | Self::PartitionsUnknown { .. } => true,
            Self::Address(_)
            | Self::TopicName { .. }
            | Self::Argument(_)
            | Self::MaybeStored { .. }
            | Self::Unreadable { .. }
            | Self::Nonsense(_)
            | Self::Batch(_)
            | Self::Closed
            | Self::Undelivered { .. }
            | Self::Handler { .. }
            | Self::Runtime(_) => false,
        }
    }

    /// The broker's error code, if a broker's answer is behind this error.
    ///
    /// ```no_run
    /// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{ErrorCode, NewTopic};
    /// match admin.create_topic(NewTopic::new("orders")).await {
    ///     Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => println!("it is there already"),
    ///     created => println!("{}", created?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { source, .. } => Some(source.code),
            Self::TimedOut { last, .. } => last.as_ref().and_then(|last| last.code()),
            Self::MaybeStored { source, .. } => source.code(),
            Self::Undelivered { first, .. } => first.code(),
            _ => None,
        }
    }

    /// The runtime that carried the client's tasks is gone.
    pub(crate) fn runtime_ended() -> Self {
        Self::Runtime(
            "the task that sends to the partition has ended; keep the runtime as long as the client".to_owned(),
        )
    }

    /// Whether a request was not sent because it is larger than the broker takes; two smaller ones may do.
    pub(crate) fn asks_too_much_at_once(&self) -> bool {
        matches!(self, Self::Connection { source: ConnectionError::RequestTooLarge { .. }, .. })
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

    /// What a handler said of the record that it failed on.
    pub(crate) fn of_handler(partition: PartitionIndex, offset: Offset, source: BoxError) -> Self {
        Self::Handler { partition, offset, source: source.into() }
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

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Self {
        Self::Batch(Arc::new(error))
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
            Some(last) => write!(f, "; try again or give it more time; the last attempt: {last}"),
            None => f.write_str("; check the network and the broker's load, or give it more time"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::Timestamp;

    /// Makes of each variant one error with what its text tells to do (`each`), and tells which of them an error is
    /// (`place`). A variant that is added does not compile before it has its line.
    macro_rules! one_of_each {
        ($type:ty { $($variant:pat => $error:expr, $advice:literal;)* }) => {
            fn each() -> Vec<($type, &'static str)> {
                vec![$(($error, $advice)),*]
            }

            fn place(error: &$type) -> Option<usize> {
                let variant = match error {
                    $($variant => stringify!($variant),)*
                };
                [$(stringify!($variant)),*].iter().position(|known| *known == variant)
            }
        };
    }
    pub(crate) use one_of_each;

    const PARTITION: PartitionIndex = PartitionIndex::new(3);

    fn broken() -> Error {
        Error::Connection {
            operation: "produce",
            address: BrokerAddress::new("localhost", 9092),
            may_have_arrived: true,
            source: ConnectionError::Io(Arc::new(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn refused() -> Error {
        Error::about_topic("t", ErrorCode::Overloaded.into())
    }

    fn unreachable() -> Error {
        let attempts = vec![Attempt { address: BrokerAddress::new("a", 1), error: ConnectionError::Closed }];
        Error::Unreachable { attempts }
    }

    fn timed_out() -> Error {
        Error::TimedOut { operation: "fetch", timeout: Duration::from_secs(1), last: Some(Box::new(refused())) }
    }

    fn invalid_name() -> Error {
        let name = "a b".to_owned();
        Error::TopicName { source: TopicName::parse(&name).unwrap_err(), name }
    }

    fn unreadable() -> Error {
        Error::Unreadable {
            topic: TopicName::parse("t").unwrap(),
            partition: PARTITION,
            offset: Offset::new(7),
            source: BatchError::DecompressedTooLarge { bytes_max: 1 },
        }
    }

    fn maybe_stored() -> Error {
        Error::MaybeStored { topic: "t".to_owned(), partition: PARTITION, source: Box::new(broken()) }
    }

    // What a text does not know itself, its cause says.
    one_of_each!(Error {
        Error::Address(_) => Error::Address(AddressError::Empty), "write HOST, HOST:PORT";
        Error::TopicName { .. } => invalid_name(), "use only a-z";
        Error::Argument(_) => Error::Argument("x; give it one".to_owned()), "give it one";
        Error::Unreachable { .. } => unreachable(), "try again";
        Error::Connection { .. } => broken(), "check that the broker runs";
        Error::Broker { .. } => refused(), "wait a moment and send again";
        Error::TimedOut { .. } => timed_out(), "try again or give it more time";
        Error::MaybeStored { .. } => maybe_stored(), "read the partition's end to find out, or send again";
        Error::Unreadable { .. } => unreadable(), "fetch it again";
        Error::Nonsense(_) => Error::Nonsense("x".to_owned()), "use a client and a broker of the same version";
        Error::Batch(_) => Error::from(BuildError::Timestamp { timestamp: Timestamp::new(-1) }),
            "use milliseconds since the Unix epoch";
        Error::Handler { .. } => Error::of_handler(PARTITION, Offset::ZERO, "enough".into()),
            "subscribe again from that offset";
        Error::Runtime(_) => Error::runtime_ended(), "keep the runtime as long as the client";
        Error::Full { .. } => Error::Full { bytes_max: 1 }, "wait for some of them, or raise producer_bytes_max";
        Error::PartitionsUnknown { .. } => Error::PartitionsUnknown { topic: "t".to_owned() },
            "await `partition_count` once, or use `enqueue`";
        Error::Closed => Error::Closed, "send before that, or with another producer";
        Error::Undelivered { .. } => Error::Undelivered { records: 2, first: Box::new(refused()) },
            "what became of each, its delivery or callback tells";
    });

    #[test]
    fn each_says_what_to_do() {
        for (number, (error, advice)) in each().into_iter().enumerate() {
            assert_eq!(place(&error), Some(number), "{error}");
            assert!(error.to_string().contains(advice), "{error}");
        }
    }

    #[test]
    fn a_clone_is_the_same_error() {
        for (number, (error, _)) in each().into_iter().enumerate() {
            let clone = error.clone();
            assert_eq!(place(&clone), Some(number), "{error}");
            assert_eq!(clone.to_string(), error.to_string());
            assert_eq!((clone.is_retriable(), clone.code()), (error.is_retriable(), error.code()), "{error}");
            assert_eq!(clone.source().map(ToString::to_string), error.source().map(ToString::to_string));
        }
    }
}
