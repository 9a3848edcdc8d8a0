//! What runs behind a subscription of a topic.
//!
//! A *guide* task knows the position of every partition. It groups partitions by the shard that owns them and runs one
//! *follower* task for each group, which verifies what comes and passes it on: as frames that the broker sends under
//! credit ([`crate::subscriber`]), or else as answers to fetches ([`crate::fetcher`]). No more comes than the reader has
//! room for. When a follower meets an error that may pass (the partition has moved, the broker restarts) it hands its
//! positions back, and the guide groups anew.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use ringmq_wire::protocol::{FetchedPartition, OffsetSpec};
use ringmq_wire::{Offset, PartitionIndex, TopicName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::address::BrokerAddress;
use crate::cluster::Cluster;
use crate::connection::{Connection, SubscriptionSlot};
use crate::error::Error;
use crate::fetch::RawFetched;
use crate::fetched::{Source, Verified};
use crate::list_offsets::{PartitionOffset, list_offsets};
use crate::retry::Retry;
use crate::subscription::{Start, SubscribeOptions, Until};
use crate::window::{Held, Window};

/// Responses of one shard that are on their way or wait for the reader; as frames, as many bytes as these could have.
const RESPONSES_AHEAD: u32 = 2;

/// A topic that is being followed.
#[derive(Debug)]
pub(crate) struct Following {
    /// Where every partition starts.
    pub(crate) positions: BTreeMap<PartitionIndex, Offset>,
    /// Bounded by the room that each response takes up.
    pub(crate) responses: mpsc::UnboundedReceiver<Result<Response, Error>>,
    /// Its tasks end when it is dropped.
    pub(crate) guide: JoinSet<()>,
}

/// What one response or frame brought.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) sections: VecDeque<Section>,
    /// There is room for others once this one has been read.
    pub(crate) _room: Room,
}

/// What a response takes up.
#[derive(Debug)]
pub(crate) enum Room {
    /// One of the responses that may be ahead.
    #[expect(dead_code, reason = "is held")]
    Response(OwnedSemaphorePermit),
    /// Bytes of those that may be ahead.
    #[expect(dead_code, reason = "is held")]
    Bytes(Held),
}

/// Verified batches of one partition.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) verified: Verified,
    pub(crate) until: Option<Offset>,
}

/// How far a partition has been read, and how far it is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    pub(crate) partition: PartitionIndex,
    pub(crate) next: Offset,
    pub(crate) until: Option<Offset>,
}

impl Position {
    pub(crate) fn is_done(&self) -> bool {
        self.until.is_some_and(|until| self.next >= until)
    }

    /// Moves past what a broker gave for it; `None` when that was nothing.
    ///
    /// # Errors
    /// The broker's for this partition; batches that are damaged or were not asked for.
    pub(crate) fn take(
        &mut self,
        topic: &TopicName,
        found: (FetchedPartition, Bytes),
    ) -> Result<Option<Section>, Error> {
        let source = Source { topic: topic.clone(), partition: self.partition, from: self.next };
        let raw = RawFetched::new(&source, found)?;
        let verified = Verified::new(source, raw.batches)?;
        if verified.next_offset <= self.next {
            return Ok(None);
        }
        self.next = verified.next_offset;
        Ok(Some(Section { verified, until: self.until }))
    }
}

impl Following {
    /// Finds out where to start, and starts.
    ///
    /// # Errors
    /// [`Error::Broker`] when the topic is unknown; no answer in time.
    pub(crate) async fn start(cluster: Arc<Cluster>, topic: &str, options: SubscribeOptions) -> Result<Self, Error> {
        let (topic, starts) = positions(&cluster, topic, &options).await?;
        let positions = starts.iter().map(|start| (start.partition, start.next)).collect();
        let (sender, responses) = mpsc::unbounded_channel();
        let mut guide = JoinSet::new();
        let shared = Shared { cluster, topic, sender, options };
        // Whoever started it may be done long before.
        let span = tracing::info_span!(target: "ringmq_client", parent: None, "subscribe", topic = %shared.topic);
        let guiding = async move {
            if let Err(error) = shared.guide(starts).await {
                // A reader that left does not want to know.
                let _ = shared.sender.send(Err(error));
            }
        };
        guide.spawn(guiding.instrument(span));
        Ok(Self { positions, responses, guide })
    }
}

/// Where each partition of the subscription starts and ends.
async fn positions(
    cluster: &Arc<Cluster>,
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
pub(crate) struct Shared {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) topic: TopicName,
    pub(crate) sender: mpsc::UnboundedSender<Result<Response, Error>>,
    pub(crate) options: SubscribeOptions,
}

/// Bounds what one shard sends ahead: it outlives the followers.
struct Ahead {
    responses: Arc<Semaphore>,
    window: Arc<Window>,
}

impl Ahead {
    fn new(response_bytes: u32) -> Self {
        let window = Window::new(response_bytes.saturating_mul(RESPONSES_AHEAD));
        Self { responses: Arc::new(Semaphore::new(RESPONSES_AHEAD as usize)), window: Arc::new(window) }
    }
}

/// How a follower ended: what is left to read, and why it stopped if not for having read all or for the broker's wish.
pub(crate) struct Ended {
    pub(crate) left: Vec<Position>,
    pub(crate) error: Option<Error>,
    /// Whether it had got any answer.
    pub(crate) progressed: bool,
}

impl Shared {
    /// Runs followers until every partition is done.
    async fn guide(&self, positions: Vec<Position>) -> Result<(), Error> {
        let mut followers: JoinSet<Ended> = JoinSet::new();
        let mut outage = Retry::new("subscribe", self.options.outage_max);
        let mut ahead = HashMap::new();
        let mut idle = positions;
        idle.retain(|position| !position.is_done());
        loop {
            if !idle.is_empty()
                && let Err(error) = self.start_followers(&mut idle, &mut ahead, &mut followers).await
            {
                self.pause(error, &mut outage).await?;
                continue;
            }
            let Some(ended) = followers.join_next().await else { return Ok(()) };
            let ended = ended.map_err(|error| Error::Runtime(error.to_string()))?;
            idle.extend(ended.left.into_iter().filter(|position| !position.is_done()));
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

    /// Groups idle partitions by owner and starts a follower for each group.
    async fn start_followers(
        &self,
        idle: &mut Vec<Position>,
        ahead: &mut HashMap<BrokerAddress, Ahead>,
        followers: &mut JoinSet<Ended>,
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
            let ahead = ahead.entry(address.clone()).or_insert_with(|| Ahead::new(self.options.fetch.max_bytes));
            self.start_follower(address, connection, ahead, positions, followers);
        }
        Ok(())
    }

    fn start_follower(
        &self,
        address: BrokerAddress,
        connection: Connection,
        ahead: &Ahead,
        left: Vec<Position>,
        followers: &mut JoinSet<Ended>,
    ) {
        let shared = self.clone();
        match self.place(&connection, ahead) {
            Some(place) => {
                let follow = async move { shared.subscribe(&address, &connection, place, left).await };
                followers.spawn(follow.in_current_span());
            }
            None => {
                let responses = ahead.responses.clone();
                let follow = async move { shared.fetch(&address, &connection, responses, left).await };
                followers.spawn(follow.in_current_span());
            }
        }
    }

    /// A place for a subscription of the broker; `None` where the group is to be fetched.
    fn place(&self, connection: &Connection, ahead: &Ahead) -> Option<Place> {
        if self.options.fetch.min_bytes > 1 {
            return None;
        }
        // A second group of the same shard would share the window, and one of both might starve.
        let entered = ahead.window.enter()?;
        Some(Place { slot: connection.subscription_slot()?, window: ahead.window.clone(), _entered: entered })
    }
}

/// What a follower needs to subscribe.
pub(crate) struct Place {
    pub(crate) slot: SubscriptionSlot,
    pub(crate) window: Arc<Window>,
    pub(crate) _entered: OwnedSemaphorePermit,
}
