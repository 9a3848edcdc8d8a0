//! Which broker a request goes to, and what happens when it cannot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ringmq_wire::protocol::{DiscoverControllerRequest, DiscoverControllerResponse, Message, MetadataRequest, Request};
use ringmq_wire::{BrokerId, ErrorCode, PartitionIndex, TopicName, WireError};
use tokio::time::{Instant, timeout_at};

use crate::address::BrokerAddress;
use crate::connection::Connection;
use crate::error::{Attempt, Error};
use crate::metadata::{MetadataCache, TopicRoute};
use crate::options::ClientOptions;
use crate::pool::Pool;
use crate::retry::Retry;

/// The broker that decides on the cluster's metadata.
///
/// ```no_run
/// # async fn example(admin: ringmq_client::Admin) -> Result<(), ringmq_client::Error> {
/// let controller = admin.discover_controller().await?;
/// println!("broker {} at {}, epoch {}", controller.id, controller.address, controller.epoch);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerInfo {
    /// The broker.
    pub id: BrokerId,
    /// Its public address.
    pub address: BrokerAddress,
    /// How often the cluster has had a new controller.
    pub epoch: u64,
}

/// Where a topic's partitions are, or why that is not known.
pub(crate) type RouteOutcome = Result<Arc<TopicRoute>, Error>;

/// What all of a client's handles share: connections, and what is known of the cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) options: ClientOptions,
    bootstrap: Vec<BrokerAddress>,
    pool: Pool,
    metadata: MetadataCache,
    controller: Mutex<Option<ControllerInfo>>,
}

impl Cluster {
    pub(crate) fn new(bootstrap: Vec<BrokerAddress>, options: ClientOptions) -> Self {
        let pool = Pool::new(options.clone());
        let metadata = MetadataCache::new(options.metadata_age_max);
        Self { options, bootstrap, pool, metadata, controller: Mutex::default() }
    }

    /// A connection to whichever broker answers: an open one if there is one, else the first that can be opened.
    pub(crate) async fn any_broker(&self, deadline: Instant) -> Result<(BrokerAddress, Connection), Error> {
        let mut candidates = self.bootstrap.clone();
        for broker in self.metadata.brokers() {
            if !candidates.contains(&broker) {
                candidates.push(broker);
            }
        }
        for candidate in &candidates {
            if let Some(connection) = self.pool.established(candidate) {
                return Ok((candidate.clone(), connection));
            }
        }

        // Stable, so the user's order holds among the others.
        candidates.sort_by_key(|candidate| self.pool.failed_lately(candidate));
        let mut attempts = Vec::new();
        for candidate in &candidates {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(candidates.len() - attempts.len()).unwrap_or(u32::MAX);
            match self.pool.connection(candidate, Instant::now() + share).await {
                Ok(connection) => return Ok((candidate.clone(), connection)),
                Err(error) => attempts.push(Attempt { address: candidate.clone(), error }),
            }
        }
        Err(Error::Unreachable { attempts })
    }

    /// Asks any broker something that may be asked twice, until it answers or the time is up.
    #[tracing::instrument(target = "ringmq_client", name = "ask", skip_all, fields(operation = operation))]
    pub(crate) async fn ask_any<R>(
        &self,
        operation: &'static str,
        request: &R,
        retry: &mut Retry,
    ) -> Result<R::Response, Error>
    where
        R: Request<Response: Message> + Message,
    {
        loop {
            match self.try_any(operation, request, retry.attempt_deadline()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => retry.pause_after(error).await?,
            }
        }
    }

    async fn try_any<R>(&self, operation: &'static str, request: &R, deadline: Instant) -> Result<R::Response, Error>
    where
        R: Request<Response: Message> + Message,
    {
        let (address, connection) = self.any_broker(deadline).await?;
        let answer = connection.call(request, deadline).await;
        answer.map_err(|error| Error::of_request(operation, &address, error))
    }

    /// Asks any broker for the controller, and remembers it.
    pub(crate) async fn discover_controller(&self, retry: &mut Retry) -> Result<ControllerInfo, Error> {
        let answer = self.ask_any("discover controller", &DiscoverControllerRequest {}, retry).await?;
        let DiscoverControllerResponse { controller, host, port, controller_epoch } = answer;
        let found = ControllerInfo { id: controller, address: BrokerAddress::new(host, port), epoch: controller_epoch };
        *self.controller.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        Ok(found)
    }

    /// The controller as it is remembered, else as it is discovered now.
    pub(crate) async fn controller(&self, retry: &mut Retry) -> Result<ControllerInfo, Error> {
        let remembered = self.controller.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match remembered {
            Some(controller) => Ok(controller),
            None => self.discover_controller(retry).await,
        }
    }

    /// Asks the controller. When it is another broker by now, or cannot be reached, it is discovered again and asked
    /// again. `moved` recognises an answer in which every item says so.
    ///
    /// Besides the answer, tells whether an earlier attempt may have been carried out although its answer was lost.
    #[tracing::instrument(target = "ringmq_client", name = "ask", skip_all, fields(operation = operation))]
    pub(crate) async fn ask_controller<R>(
        &self,
        operation: &'static str,
        request: &R,
        retry: &mut Retry,
        moved: impl Fn(&R::Response) -> bool,
    ) -> Result<(R::Response, AnswerLost), Error>
    where
        R: Request<Response: Message> + Message,
    {
        let mut lost = AnswerLost(false);
        loop {
            let error = match self.try_controller(operation, request, retry).await {
                Ok(answer) if moved(&answer) => {
                    let source = WireError::from(ErrorCode::NotController);
                    Error::Broker { subject: operation.to_owned(), source }
                }
                Ok(answer) => return Ok((answer, lost)),
                Err(error) => error,
            };
            lost.0 |= matches!(error, Error::Connection { may_have_arrived: true, .. });
            *self.controller.lock().unwrap_or_else(PoisonError::into_inner) = None;
            retry.pause_after(error).await?;
        }
    }

    async fn try_controller<R>(
        &self,
        operation: &'static str,
        request: &R,
        retry: &mut Retry,
    ) -> Result<R::Response, Error>
    where
        R: Request<Response: Message> + Message,
    {
        let controller = self.controller(retry).await?.address;
        let (address, connection) = match self.pool.connection(&controller, retry.attempt_deadline()).await {
            Ok(connection) => (controller, connection),
            Err(error) => {
                // A broker that is not the controller may forward the request.
                tracing::warn!(address = %controller, %error, "the controller cannot be reached; asking another broker");
                self.any_broker(retry.attempt_deadline()).await?
            }
        };
        let answer = connection.call(request, retry.deadline()).await;
        answer.map_err(|error| Error::of_request(operation, &address, error))
    }

    /// Where a topic's partitions are: as remembered, else asked for now.
    pub(crate) async fn route(&self, topic: &str, retry: &mut Retry) -> Result<Arc<TopicRoute>, Error> {
        if let Some(route) = self.metadata.topic(topic) {
            return Ok(route);
        }
        let parsed = TopicName::parse(topic);
        let name = parsed.map_err(|source| Error::TopicName { name: topic.to_owned(), source })?;
        let asking = timeout_at(retry.deadline(), self.metadata.asking.lock()).await;
        let _asking = asking.map_err(|_| retry.timed_out(None))?;
        // Somebody else may have asked in the meantime.
        if let Some(route) = self.metadata.topic(topic) {
            return Ok(route);
        }

        let request = MetadataRequest { topics: Some(vec![name]) };
        loop {
            let answer = self.ask_any("metadata", &request, retry).await?;
            let refusal = answer.topics.iter().find(|found| &*found.name == topic && !found.error.is_none());
            if let Some(found) = refusal {
                let source = WireError { code: found.error, detail: found.detail.clone() };
                retry.pause_after(Error::about_topic(topic, source)).await?;
                continue;
            }
            let routes = self.metadata.remember(&answer).map_err(Error::Nonsense)?;
            // Not out of the memory: another operation may have it forgotten already.
            let found = routes.into_iter().find(|route| &*route.topic == topic);
            let missing = || Error::Nonsense(format!("metadata was asked for topic `{topic}` and does not mention it"));
            return found.ok_or_else(missing);
        }
    }

    /// As [`Cluster::route`], of many topics, in their order; those that are not remembered are asked for together.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub(crate) async fn routes(&self, topics: &[&str], retry: &mut Retry) -> Result<Vec<RouteOutcome>, Error> {
        let refused = self.learn(topics.iter().copied(), retry).await?;
        let mut routes = Vec::with_capacity(topics.len());
        for topic in topics {
            routes.push(match refused.get(*topic) {
                Some(error) => Err(error.clone()),
                None => self.route(topic, retry).await,
            });
        }
        Ok(routes)
    }

    /// Asks where these topics are, at once for all that are not remembered, in requests as large as the broker takes.
    /// Gives the errors of those that it is no use to ask for again; of the others [`Cluster::route`] tells.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub(crate) async fn learn(
        &self,
        topics: impl Iterator<Item = &str>,
        retry: &mut Retry,
    ) -> Result<HashMap<TopicName, Error>, Error> {
        let unknown = topics.filter(|topic| self.metadata.topic(topic).is_none());
        let mut unknown: Vec<TopicName> = unknown.filter_map(|topic| TopicName::parse(topic).ok()).collect();
        unknown.sort_unstable();
        unknown.dedup();
        let mut refused = HashMap::new();
        // One alone is asked for by who needs it, and by nobody else meanwhile.
        if unknown.len() < 2 {
            return Ok(refused);
        }
        let mut parts = vec![unknown.as_slice()];
        while let Some(part) = parts.pop() {
            let answer = match self.ask_any("metadata", &MetadataRequest { topics: Some(part.to_vec()) }, retry).await {
                Err(error) if error.asks_too_much_at_once() && part.len() > 1 => {
                    let (front, back) = part.split_at(part.len() / 2);
                    parts.extend([back, front]);
                    continue;
                }
                answer => answer?,
            };
            self.metadata.remember(&answer).map_err(Error::Nonsense)?;
            for topic in answer.topics.into_iter().filter(|topic| !topic.error.is_none()) {
                let source = WireError { code: topic.error, detail: topic.detail };
                let error = Error::about_topic(&topic.name, source);
                if !error.is_retriable() {
                    refused.insert(topic.name, error);
                }
            }
        }
        Ok(refused)
    }

    /// Asks one broker something that may be asked twice, until it answers or the time is up.
    #[tracing::instrument(target = "ringmq_client", name = "ask", skip_all, fields(operation = operation, %address))]
    pub(crate) async fn ask_broker<R>(
        &self,
        operation: &'static str,
        address: &BrokerAddress,
        request: &R,
        retry: &mut Retry,
    ) -> Result<R::Response, Error>
    where
        R: Request<Response: Message> + Message,
    {
        loop {
            let deadline = retry.attempt_deadline();
            let answer = match self.pool.connection(address, deadline).await {
                Ok(connection) => {
                    let answer = connection.call(request, deadline).await;
                    answer.map_err(|error| Error::of_request(operation, address, error))
                }
                Err(error) => Err(Error::Unreachable { attempts: vec![Attempt { address: address.clone(), error }] }),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => retry.pause_after(error).await?,
            }
        }
    }

    /// How many partitions a topic had when that was last heard.
    pub(crate) fn last_partition_count(&self, topic: &str) -> Option<u32> {
        self.metadata.last_partition_count(topic)
    }

    /// How many partitions a topic has. Nobody is asked because a broker cannot be reached: how many there are does not
    /// depend on that, and who goes there asks where it is now.
    pub(crate) async fn partition_count(&self, topic: &str, retry: &mut Retry) -> Result<u32, Error> {
        match self.metadata.partition_count(topic) {
            Some(count) => Ok(count),
            None => Ok(self.route(topic, retry).await?.partition_count()),
        }
    }

    /// As [`Cluster::route`], and sure that the topic has `partition`.
    pub(crate) async fn route_to(
        &self,
        topic: &str,
        partition: PartitionIndex,
        retry: &mut Retry,
    ) -> Result<Arc<TopicRoute>, Error> {
        let route = self.route(topic, retry).await?;
        if route.partition(partition).is_some() {
            return Ok(route);
        }
        // It may have got more partitions, or have been deleted and created again with more.
        self.metadata.invalidate(topic);
        let route = self.route(topic, retry).await?;
        if route.partition(partition).is_some() {
            return Ok(route);
        }
        let detail = format!("the topic has partitions 0 to {}", route.partition_count().saturating_sub(1));
        let source = WireError::new(ErrorCode::UnknownPartition, detail);
        Err(Error::about_partition(topic, partition, source))
    }

    /// A connection to the shard that owns a partition. When its own port cannot be reached, to its broker's public
    /// port, and when that cannot be reached either, to any broker; the detour is remembered for a while.
    pub(crate) async fn owner(
        &self,
        route: &TopicRoute,
        partition: PartitionIndex,
        deadline: Instant,
    ) -> Result<(BrokerAddress, Connection), Error> {
        let Some(addresses) = route.partition(partition) else {
            let source = WireError::from(ErrorCode::UnknownPartition);
            return Err(Error::about_partition(&route.topic, partition, source));
        };
        let mut attempts = Vec::new();
        for address in addresses.direct.iter().chain([&addresses.public]) {
            if self.pool.failed_lately(address) {
                continue;
            }
            // Half of the time is left for the other way.
            let left = deadline.saturating_duration_since(Instant::now());
            match self.pool.connection(address, Instant::now() + left / 2).await {
                Ok(connection) => return Ok((BrokerAddress::clone(address), connection)),
                Err(error) => {
                    tracing::warn!(%address, %error, topic = %route.topic, %partition, "going another way");
                    attempts.push(Attempt { address: BrokerAddress::clone(address), error });
                    // The broker may have started again, with other ports.
                    self.metadata.invalidate(&route.topic);
                }
            }
        }
        match self.any_broker(deadline).await {
            Err(Error::Unreachable { attempts: others }) => {
                attempts.extend(others);
                Err(Error::Unreachable { attempts })
            }
            found => found,
        }
    }

    /// Forgets where a topic is: it was created, altered or deleted.
    pub(crate) fn forget(&self, topic: &str) {
        self.metadata.forget(topic);
    }

    /// Forgets where a topic is when `error` shows that what is remembered may be wrong.
    pub(crate) fn doubt(&self, topic: &str, error: &Error) {
        let stale = match error.code() {
            Some(ErrorCode::UnknownTopic | ErrorCode::TopicDeleted) => {
                return self.forget(topic);
            }
            Some(code) => {
                matches!(code, ErrorCode::NotLeader | ErrorCode::UnknownPartition | ErrorCode::ShuttingDown)
            }
            None => matches!(error, Error::Connection { .. } | Error::Unreachable { .. } | Error::MaybeStored { .. }),
        };
        if stale {
            self.metadata.invalidate(topic);
        }
    }
}

/// Whether an earlier attempt of a request may have been carried out although its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnswerLost(pub(crate) bool);
