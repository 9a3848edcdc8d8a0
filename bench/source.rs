//! Where a consumer's records come from: fetches, a subscription, or a client that asks by itself.

use std::collections::VecDeque;
use std::time::Duration;

use clap::ValueEnum;
use ringmq_client::PartitionIndex;

use crate::client::Stream;
use crate::connection::{Connection, invalid};
use crate::error::{LoadError, WorkerError};
use crate::fetcher::{Fetcher, Fetching};
use crate::span::Span;
use crate::stamp::Stamp;
use crate::subscriber::Subscriber;
use crate::topic::{Place, Topic};
use crate::volume::Volume;

/// How records are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Once: the broker sends what is there and what comes, as far as it is granted
    Subscribe,
    /// Each time anew
    Fetch,
    /// As the client does that programs use: the client crate, or librdkafka
    Client,
}

impl By {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Fetch => "fetch",
            Self::Client => "client",
        }
    }
}

/// What came at once of one partition; or nothing, to let the consumer look around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) partition: Option<PartitionIndex>,
    pub(crate) counted: Volume,
    /// From the request to the last byte of the answer; by a subscription, from the answer before.
    pub(crate) took: Duration,
    /// With it a span is read to its end.
    pub(crate) ends_span: bool,
}

/// What records come by.
pub(crate) enum Source {
    Fetches { fetcher: Fetcher, idle: VecDeque<Span> },
    Subscription(Subscriber),
    Client(Stream),
}

impl Source {
    /// Connects to where the first of `places` is. Without a wish it is a subscription where the broker has them. Where batches
    /// are to have stamps, every record that comes by a client has one.
    pub(crate) fn connect(
        topic: &Topic,
        places: &[Place],
        by: Option<By>,
        fetching: Fetching,
    ) -> Result<Self, LoadError> {
        let Some(home) = places.first() else {
            return Err(LoadError::Connect(invalid("a consumer has no partition")));
        };
        if by == Some(By::Client) {
            let has_stamps = fetching.stamp_position.is_some();
            return Ok(Self::Client(Stream::connect(topic, home, fetching.bytes, has_stamps)?));
        }
        let connection = Connection::open(topic.driver, &home.addresses).map_err(LoadError::Connect)?;
        let topic = topic.name.clone();
        match (by, connection.has_subscriptions()) {
            (Some(By::Subscribe), false) => Err(LoadError::NoSubscriptions),
            (Some(By::Subscribe) | None, true) => Ok(Self::Subscription(Subscriber::new(connection, topic, fetching))),
            (Some(By::Fetch | By::Client), _) | (None, false) => {
                let fetcher = Fetcher::new(connection, topic, fetching);
                Ok(Self::Fetches { fetcher, idle: VecDeque::new() })
            }
        }
    }

    /// How it asks.
    pub(crate) fn by(&self) -> By {
        match self {
            Self::Fetches { .. } => By::Fetch,
            Self::Subscription(_) => By::Subscribe,
            Self::Client(_) => By::Client,
        }
    }

    /// Asks for these from now on, and for nothing else. What was asked for before has come, or is waited for here.
    pub(crate) fn begin(&mut self, spans: impl IntoIterator<Item = Span>) -> Result<(), WorkerError> {
        let spans = spans.into_iter();
        match self {
            Self::Fetches { idle, .. } => {
                *idle = spans.collect();
                Ok(())
            }
            Self::Subscription(subscriber) => {
                subscriber.end()?;
                subscriber.begin(spans.collect())
            }
            Self::Client(stream) => stream.begin(spans),
        }
    }

    /// Waits for what comes next. `received` gets the stamp of each batch as soon as the whole batch is there.
    pub(crate) fn next(
        &mut self,
        received: impl FnMut(PartitionIndex, Stamp) -> Result<(), WorkerError>,
    ) -> Result<Received, WorkerError> {
        match self {
            Self::Fetches { fetcher, idle } => {
                fetcher.ask(idle)?;
                let answer = fetcher.take_answer(received)?;
                let (partition, ends_span) = (Some(answer.span.partition()), answer.span.is_read());
                if !ends_span {
                    idle.push_back(answer.span);
                }
                Ok(Received { partition, counted: answer.counted, took: answer.took, ends_span })
            }
            Self::Subscription(subscriber) => subscriber.next(received),
            Self::Client(stream) => stream.next(received),
        }
    }

    /// Ends what is open, so that nothing comes that counts later.
    pub(crate) fn rest(&mut self) -> Result<(), WorkerError> {
        match self {
            Self::Fetches { .. } => Ok(()),
            Self::Subscription(subscriber) => subscriber.end(),
            Self::Client(stream) => stream.end(),
        }
    }
}
