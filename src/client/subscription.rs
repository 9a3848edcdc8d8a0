//! Following a topic: all partitions at once, fetched ahead within a bound.
//!
//! A *guide* task knows the position of every partition. It groups partitions by the shard that owns them and runs one
//! *fetcher* task for each group. A fetcher asks for all its partitions in one request, verifies what comes and passes
//! it on; it asks again only when the reader has room for the answer. When it meets an error that may pass (the
//! partition has moved, the broker restarts) it hands its positions back, and the guide groups anew.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmq_wire::protocol::{FetchedPartition, OffsetSpec};
use ringmq_wire::{Offset, PartitionIndex, Timestamp, TopicName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::address::BrokerAddress;
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::Error;
use crate::fetch::{FetchOptions, RawFetched, request};
use crate::fetched::{BatchReader, Source, Verified};
use crate::list_offsets::{PartitionOffset, list_offsets};
use crate::record::ConsumedRecord;
use crate::retry::Retry;

/// Responses of one shard that are on their way or wait for the reader.
const RESPONSES_AHEAD: usize = 2;

/// Where a subscription starts, in every partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the first record that is still there.
    #[default]
    Earliest,
    /// Behind the last record that is there now.
    Latest,
    /// At this offset.
    Offset(Offset),
    /// At the first record with this timestamp or a later one; where there is none, behind the last record.
    Time(Timestamp),
}

/// When a subscription ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Until {
    /// Not by itself.
    #[default]
    Cancelled,
    /// When it has given every record that was there when it started.
    CurrentEnd,
}

/// What to subscribe to, and how.
#[derive(Debug, Clone)]
pub struct SubscribeOptions {
    /// Where it starts. Default [`Start::Earliest`].
    pub start: Start,
    /// Where single partitions start instead, as [`RecordStream::positions`] gave it to a program that now goes on where
    /// it ended. Default: none.
    pub positions: BTreeMap<PartitionIndex, Offset>,
    /// When it ends. Default [`Until::Cancelled`].
    pub until: Until,
    /// The partitions; `None`, the default, for all.
    pub partitions: Option<Vec<PartitionIndex>>,
    /// How each fetch asks. At most two responses of about `max_bytes` are held ahead of the reader for each shard of
    /// the topic.
    pub fetch: FetchOptions,
    /// How long it goes on without any answer from a partition's broker before it fails. Default 60 s, so that a
    /// restart of the broker goes by.
    pub outage_max: Duration,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            start: Start::default(),
            positions: BTreeMap::new(),
            until: Until::default(),
            partitions: None,
            fetch: FetchOptions::default(),
            outage_max: Duration::from_secs(60),
        }
    }
}

/// A running subscription, read record by record. Dropping it ends it.
#[derive(Debug)]
pub struct RecordStream {
    /// Bounded by the permits in it.
    responses: mpsc::UnboundedReceiver<Result<Response, Error>>,
    /// The response that is being read.
    response: Option<Response>,
    reader: Option<BatchReader>,
    records: VecDeque<ConsumedRecord>,
    /// Behind what was given out of the batches before this one.
    positions: BTreeMap<PartitionIndex, Offset>,
    /// Behind what was given last.
    position: Option<(PartitionIndex, Offset)>,
    /// Behind its end, or behind an error.
    is_over: bool,
    /// Its tasks end when it is dropped.
    _guide: JoinSet<()>,
}

/// What one request brought.
#[derive(Debug)]
struct Response {
    sections: VecDeque<Section>,
    /// Room for the next response once this one has been read.
    _room: OwnedSemaphorePermit,
}

/// Verified batches of one partition.
#[derive(Debug)]
struct Section {
    verified: Verified,
    until: Option<Offset>,
}

impl RecordStream {
    pub(crate) async fn start(cluster: Arc<Cluster>, topic: &str, options: SubscribeOptions) -> Result<Self, Error> {
        let (topic, starts) = positions(&cluster, topic, &options).await?;
        let positions = starts.iter().map(|start| (start.partition, start.next)).collect();
        let (sender, responses) = mpsc::unbounded_channel();
        let mut guide = JoinSet::new();
        let shared = Shared { cluster, topic, sender, options };
        guide.spawn(async move {
            if let Err(error) = shared.guide(starts).await {
                // A reader that left does not want to know.
                let _ = shared.sender.send(Err(error));
            }
        });
        let (response, reader, records) = (None, None, VecDeque::new());
        Ok(Self { responses, response, reader, records, positions, position: None, is_over: false, _guide: guide })
    }

    /// Of every partition the offset behind the last record that was given, or where it started: what a program saves,
    /// once it is done with these records, to go on there by [`SubscribeOptions::positions`].
    ///
    /// ```no_run
    /// # async fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::SubscribeOptions;
    /// let consumer = client.consumer();
    /// let mut stream = consumer.stream("orders", SubscribeOptions::default()).await?;
    /// let first = stream.next().await?;
    /// let positions = stream.positions();
    /// drop(stream);
    ///
    /// // Later: the record behind the first one of its partition, and what no partition has given yet.
    /// let mut stream = consumer.stream("orders", SubscribeOptions { positions, ..SubscribeOptions::default() }).await?;
    /// # let _ = (first, stream.next().await?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn positions(&self) -> BTreeMap<PartitionIndex, Offset> {
        let mut positions = self.positions.clone();
        positions.extend(self.position);
        positions
    }

    /// The next record; `None` when the subscription's end is reached.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Error::Broker`] when the topic was deleted or the position is no longer in the log, [`Error::Unreadable`] for a
    /// damaged batch, [`Error::TimedOut`] after an outage. The subscription is then over.
    pub async fn next(&mut self) -> Result<Option<ConsumedRecord>, Error> {
        while self.records.is_empty() {
            if !self.fill().await? {
                return Ok(None);
            }
        }
        let record = self.records.pop_front();
        self.position = record.as_ref().and_then(behind).or(self.position);
        Ok(record)
    }

    /// As [`RecordStream::next`], with all records of the next batch at once; they are of one partition.
    ///
    /// # Errors
    /// As [`RecordStream::next`].
    pub async fn next_batch(&mut self) -> Result<Option<Vec<ConsumedRecord>>, Error> {
        while self.records.is_empty() {
            if !self.fill().await? {
                return Ok(None);
            }
        }
        self.position = self.records.back().and_then(behind).or(self.position);
        Ok(Some(std::mem::take(&mut self.records).into()))
    }

    /// Decodes one more batch, if need be out of the next response. `false` at the end.
    async fn fill(&mut self) -> Result<bool, Error> {
        if self.is_over {
            return Ok(false);
        }
        // The records of one batch are of one partition.
        self.positions.extend(self.position.take());
        let filled = self.try_fill().await;
        self.is_over = !matches!(filled, Ok(true));
        filled
    }

    async fn try_fill(&mut self) -> Result<bool, Error> {
        if let Some(reader) = &mut self.reader {
            let mut records = Vec::from(std::mem::take(&mut self.records));
            let more = reader.read_batch(&mut records)?;
            self.records = records.into();
            if more {
                return Ok(true);
            }
        }
        loop {
            if let Some(section) = self.response.as_mut().and_then(|response| response.sections.pop_front()) {
                self.reader = Some(BatchReader::new(section.verified, section.until));
                return Ok(true);
            }
            self.reader = None;
            self.response = None;
            match self.responses.recv().await {
                Some(response) => self.response = Some(response?),
                None => return Ok(false),
            }
        }
    }
}

/// The position behind a record.
fn behind(record: &ConsumedRecord) -> Option<(PartitionIndex, Offset)> {
    record.offset.checked_add(1).map(|next| (record.partition, next))
}

/// How far a partition has been fetched, and how far it is to be.
#[derive(Debug, Clone, Copy)]
struct Position {
    partition: PartitionIndex,
    next: Offset,
    until: Option<Offset>,
}

impl Position {
    fn is_done(&self) -> bool {
        self.until.is_some_and(|until| self.next >= until)
    }
}

/// Where each partition of the subscription starts and ends.
async fn positions(
    cluster: &Cluster,
    topic: &str,
    options: &SubscribeOptions,
) -> Result<(TopicName, Vec<Position>), Error> {
    let mut retry = Retry::new("subscribe", cluster.options.timeout);
    let route = cluster.route(topic, &mut retry).await?;
    let partitions = match &options.partitions {
        Some(chosen) => chosen.clone(),
        None => route.indexes(),
    };
    if let Some(other) = options.positions.keys().find(|partition| !partitions.contains(partition)) {
        return Err(Error::Argument(format!(
            "there is a position of partition {other}, which is not subscribed to; subscribe to it, or leave it out"
        )));
    }
    let mut ask = async |at| list_offsets(cluster, topic, &partitions, at, &mut retry).await;
    let known = |listed: &PartitionOffset| {
        listed.offset.ok_or_else(|| Error::Nonsense(format!("partition {} has no such offset", listed.partition)))
    };
    // The end is asked for first: with `Start::Latest` it must not lie before the start.
    let latest = ask(OffsetSpec::Latest).await?.iter().map(known).collect::<Result<Vec<_>, _>>()?;
    let start = match options.start {
        Start::Earliest => ask(OffsetSpec::Earliest).await?.iter().map(known).collect::<Result<Vec<_>, _>>()?,
        Start::Latest => latest.clone(),
        Start::Offset(offset) => vec![offset; partitions.len()],
        Start::Time(time) => {
            let at = ask(OffsetSpec::Timestamp(time)).await?;
            at.iter().zip(&latest).map(|(found, latest)| found.offset.unwrap_or(*latest)).collect()
        }
    };
    let position = |((&partition, next), &latest)| {
        let until = (options.until == Until::CurrentEnd).then_some(latest);
        let next = options.positions.get(&partition).copied().unwrap_or(next);
        Position { partition, next, until }
    };
    Ok((route.topic.clone(), partitions.iter().zip(start).zip(&latest).map(position).collect()))
}

/// What the tasks of one subscription share.
#[derive(Clone)]
struct Shared {
    cluster: Arc<Cluster>,
    topic: TopicName,
    sender: mpsc::UnboundedSender<Result<Response, Error>>,
    options: SubscribeOptions,
}

/// Bounds what is fetched ahead, for each address: it outlives the fetchers.
type Rooms = HashMap<BrokerAddress, Arc<Semaphore>>;

/// How a fetcher ended: what is left to fetch, and why it stopped if not for having fetched all.
struct Ended {
    left: Vec<Position>,
    error: Option<Error>,
    /// Whether it had got any answer.
    progressed: bool,
}

impl Shared {
    /// Runs fetchers until every partition is done.
    async fn guide(&self, positions: Vec<Position>) -> Result<(), Error> {
        let mut fetchers: JoinSet<Ended> = JoinSet::new();
        let mut outage = Retry::new("subscribe", self.options.outage_max);
        let mut rooms = Rooms::new();
        let mut idle = positions;
        idle.retain(|position| !position.is_done());
        loop {
            if !idle.is_empty()
                && let Err(error) = self.start_fetchers(&mut idle, &mut rooms, &mut fetchers).await
            {
                self.pause(error, &mut outage).await?;
                continue;
            }
            let Some(ended) = fetchers.join_next().await else { return Ok(()) };
            let ended = ended.map_err(|error| Error::Runtime(error.to_string()))?;
            idle.extend(ended.left);
            if ended.progressed {
                outage = Retry::new("subscribe", self.options.outage_max);
            }
            if let Some(error) = ended.error {
                self.pause(error, &mut outage).await?;
            }
        }
    }

    async fn pause(&self, error: Error, outage: &mut Retry) -> Result<(), Error> {
        self.cluster.doubt(&self.topic, &error);
        if error.is_retriable() {
            tracing::warn!(topic = %self.topic, %error, "the subscription goes on when the broker answers again");
        }
        outage.pause_after(error).await
    }

    /// Groups idle partitions by owner and starts a fetcher for each group.
    async fn start_fetchers(
        &self,
        idle: &mut Vec<Position>,
        rooms: &mut Rooms,
        fetchers: &mut JoinSet<Ended>,
    ) -> Result<(), Error> {
        let mut retry = Retry::new("subscribe", self.cluster.options.timeout);
        let mut groups: HashMap<BrokerAddress, (Connection, Vec<Position>)> = HashMap::new();
        for position in idle.iter() {
            let route = self.cluster.route_to(&self.topic, position.partition, &mut retry).await?;
            let owner = self.cluster.owner(&route, position.partition, retry.deadline()).await?;
            groups.entry(owner.0).or_insert_with(|| (owner.1, Vec::new())).1.push(*position);
        }
        idle.clear();
        for (address, (connection, positions)) in groups {
            let room =
                rooms.entry(address.clone()).or_insert_with(|| Arc::new(Semaphore::new(RESPONSES_AHEAD))).clone();
            let shared = self.clone();
            fetchers.spawn(async move { shared.fetch(&address, &connection, room, positions).await });
        }
        Ok(())
    }

    /// Fetches a group of partitions over one connection until all are done, or an error comes.
    async fn fetch(
        &self,
        address: &BrokerAddress,
        connection: &Connection,
        room: Arc<Semaphore>,
        mut left: Vec<Position>,
    ) -> Ended {
        let mut progressed = false;
        let error = loop {
            // Asked for only when there is room for the answer.
            let Ok(permit) = room.clone().acquire_owned().await else { break None };
            let (sections, error) = self.fetch_once(address, connection, &mut left).await;
            if !sections.is_empty() && self.sender.send(Ok(Response { sections, _room: permit })).is_err() {
                // The reader left.
                break None;
            }
            if error.is_some() {
                break error;
            }
            progressed = true;
            left.retain(|position| !position.is_done());
            if left.is_empty() {
                break None;
            }
            // The broker serves partitions in the order of the request until the response is full.
            left.rotate_left(1);
        };
        left.retain(|position| !position.is_done());
        Ended { left, error, progressed }
    }

    /// One request for all of `left`. Positions move past the sections that are given, error or not.
    async fn fetch_once(
        &self,
        address: &BrokerAddress,
        connection: &Connection,
        left: &mut [Position],
    ) -> (VecDeque<Section>, Option<Error>) {
        let source = |position: &Position| Source {
            topic: self.topic.clone(),
            partition: position.partition,
            from: position.next,
        };
        let sources: Vec<Source> = left.iter().map(source).collect();
        let deadline = Instant::now() + self.cluster.options.timeout + self.options.fetch.max_wait;
        let answer = match request(connection, address, &sources, self.options.fetch, deadline).await {
            Ok(answer) => answer,
            Err(error) => return (VecDeque::new(), Some(error)),
        };
        let (mut sections, mut failure) = (VecDeque::new(), None);
        for ((position, source), found) in left.iter_mut().zip(sources).zip(answer) {
            match verified(source, found) {
                Ok(verified) if verified.next_offset > position.next => {
                    position.next = verified.next_offset;
                    sections.push_back(Section { verified, until: position.until });
                }
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        (sections, failure)
    }
}

fn verified(source: Source, found: (FetchedPartition, Bytes)) -> Result<Verified, Error> {
    let raw = RawFetched::new(&source, found)?;
    Verified::new(source, raw.batches)
}
