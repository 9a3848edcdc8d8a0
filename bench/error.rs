//! Why a run has no figures, or bad ones.

use std::io;
use std::path::PathBuf;

use ringmq_wire::{PartitionIndex, WireError};

use crate::checker::CheckError;
use crate::client::ClientError;
use crate::topic::TopicError;

/// Why a load generator failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The broker cannot be reached, or refuses the topic.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// A client has not done what it was asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The payload file.
    #[error("the payload file {}: {source}", .path.display())]
    Payload {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A record or batch that no format can hold.
    #[error("the payload cannot be encoded: {0}")]
    Encode(#[from] ringmq_wire::batch::BuildError),
    /// A connection of a worker cannot be opened.
    #[error("a worker cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// Records are to come by subscription, and the broker has none.
    #[error("the broker, or the protocol that it is spoken to in, has no subscriptions; use --by fetch")]
    NoSubscriptions,
    /// What clients have no word for.
    #[error("`{flag}` does not go with {by}: the client batches, sends and asks by itself")]
    NotByClient {
        /// What was given.
        flag: &'static str,
        /// What it does not go with.
        by: &'static str,
    },
    /// What is for clients alone.
    #[error("`{flag}` is for records that go through a client: {ways}")]
    OnlyByClient {
        /// What was given.
        flag: &'static str,
        /// The commands that take it.
        ways: &'static str,
    },
    /// What a driver does that has nothing but a client.
    #[error(
        "--driver rdkafka hands records to librdkafka; use --driver kafka for batches and fetches of this program's own"
    )]
    OnlyClient,
    /// A protocol that no client is there for.
    #[error("this build has no client for Kafka's protocol; build it with `--features rdkafka`")]
    NoClient,
    /// The runtime of the client cannot be started.
    #[error("the runtime of the client cannot be started: {0}")]
    Runtime(#[source] io::Error),
    /// A request that the broker would not take.
    #[error("a request of {bytes} bytes is more than the broker takes ({max}); use smaller --batch-bytes")]
    RequestTooLarge {
        /// The request.
        bytes: u64,
        /// The broker's limit.
        max: u64,
    },
    /// Fewer records are there than are to be read.
    #[error("topic `{topic}` holds {found} records and --records and --warmup ask for {wanted}; produce more first")]
    TooFewRecords {
        /// The topic.
        topic: String,
        /// What it holds.
        found: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// Workers failed; their figures are printed without what they had under way.
    #[error("{count} of the connections failed; the first: {first}")]
    Workers {
        /// How many.
        count: usize,
        /// Why the first one did.
        first: WorkerError,
    },
    /// Records that were sent without acknowledgements did not all arrive.
    #[error("{missing} of {sent} records that were sent without acknowledgement are not in the topic")]
    Missing {
        /// How many.
        missing: u64,
        /// Of how many.
        sent: u64,
    },
    /// Records that were acknowledged did not all come to the consumers.
    #[error("{missing} of {acknowledged} acknowledged records were not received")]
    Lost {
        /// How many.
        missing: u64,
        /// Of how many.
        acknowledged: u64,
    },
    /// Values in which a batch cannot say when it was due.
    #[error("--record-bytes {record_bytes} leaves no room for the time that each batch carries; give at least {min}")]
    NoRoomForStamp {
        /// What was asked for.
        record_bytes: u32,
        /// What it takes.
        min: usize,
    },
    /// Fewer keys than partitions.
    #[error("--keys {keys} is less than one for each of {partitions} partitions; give more keys or fewer partitions")]
    TooFewKeys {
        /// What was asked for.
        keys: u64,
        /// How many partitions there are.
        partitions: u32,
    },
    /// The histogram of latencies cannot be made.
    #[error("the latencies cannot be counted: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// Standard output is gone.
    #[error("the figures cannot be written: {0}")]
    Output(#[source] io::Error),
}

impl LoadError {
    /// What `--linger` is for.
    pub(crate) const LINGER: Self = Self::OnlyByClient {
        flag: "--linger",
        ways: "`produce --by enqueue`, or `end-to-end` and `mixed` with --by client",
    };
    /// What `--burst` is for.
    pub(crate) const BURST: Self =
        Self::OnlyByClient { flag: "--burst", ways: "`end-to-end` and `mixed` with --by client" };

    /// What the workers' failures come to, if there is one.
    pub(crate) fn of_workers(failures: Vec<Option<WorkerError>>) -> Option<Self> {
        let mut failures = failures.into_iter().flatten();
        let first = failures.next()?;
        Some(Self::Workers { count: 1 + failures.count(), first })
    }

    /// How many errors it stands for.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Workers { count, .. } => *count as u64,
            _ => 1,
        }
    }
}

/// Why one connection failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The connection broke, or what came makes no sense.
    #[error("the connection: {0}")]
    Connection(#[from] io::Error),
    /// A client has not done what it was asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The broker refused a whole request.
    #[error("the broker refused a request: {0}")]
    Request(WireError),
    /// The broker refused a partition's part.
    #[error("partition {partition}: {source}")]
    Partition {
        /// Which partition.
        partition: PartitionIndex,
        /// Why.
        source: WireError,
    },
    /// An acknowledgement for another number of records than were sent.
    #[error("{acknowledged} records were acknowledged where {sent} had been sent")]
    Count {
        /// By the broker.
        acknowledged: u64,
        /// By us.
        sent: u64,
    },
    /// A batch came twice, or after a later one of the same producer.
    #[error("partition {partition}: batch {number} of producer {producer} came behind its batch {last}")]
    Order {
        /// Which partition.
        partition: PartitionIndex,
        /// Which producer.
        producer: u16,
        /// What came.
        number: u64,
        /// What had come before.
        last: u64,
    },
    /// What was fetched is damaged.
    #[error("partition {partition} came damaged: {source}")]
    Check {
        /// Which partition.
        partition: PartitionIndex,
        /// What is wrong.
        source: CheckError,
    },
}

impl From<ringmq_client::Error> for LoadError {
    fn from(error: ringmq_client::Error) -> Self {
        Self::Client(error.into())
    }
}
