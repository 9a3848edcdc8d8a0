//! Asking the owners of partitions for one thing each, until all have answered.

use std::collections::HashMap;
use std::sync::Arc;

use ringmq_wire::protocol::{Message, Request};
use ringmq_wire::{ErrorCode, PartitionIndex, TopicName, WireError};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use crate::address::BrokerAddress;
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::Error;
use crate::metadata::{PartitionRoute, TopicRoute};
use crate::retry::Retry;

/// A partition, and what is wanted of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'t, W> {
    pub(crate) topic: &'t str,
    pub(crate) partition: PartitionIndex,
    pub(crate) what: W,
}

impl<'t, W> From<(&'t str, PartitionIndex, W)> for Wanted<'t, W> {
    fn from((topic, partition, what): (&'t str, PartitionIndex, W)) -> Self {
        Self { topic, partition, what }
    }
}

impl<'t, W> Wanted<'t, W> {
    fn key(&self) -> Key<'t> {
        (self.topic, self.partition)
    }
}

/// Which partition.
type Key<'t> = (&'t str, PartitionIndex);

/// What is wanted of a partition, behind its place in the caller's order.
type Place<'t, W> = (usize, Wanted<'t, W>);

/// What is wanted of partitions, by topic.
pub(crate) type ByTopic<W> = Vec<(TopicName, Vec<(PartitionIndex, W)>)>;

/// What a response says of each partition.
pub(crate) type Answers<A> = Vec<(TopicName, PartitionIndex, Result<A, WireError>)>;

/// What a response says, by partition.
type AnswerOf<A> = HashMap<(TopicName, PartitionIndex), Result<A, WireError>>;

/// What became of each partition that was asked for.
type Outcomes<'t, W, A> = Vec<(Wanted<'t, W>, Result<A, Error>)>;

/// A request that names partitions, each with what is wanted of it. Asking again is harmless.
pub(crate) struct Question<W, Q: Request, A> {
    /// What errors call it.
    pub(crate) operation: &'static str,
    pub(crate) request: fn(ByTopic<W>) -> Q,
    pub(crate) answers: fn(Q::Response) -> Answers<A>,
}

/// Partitions with one owner, in the order of their topics.
struct Group<W> {
    /// Of the first of them.
    route: Arc<TopicRoute>,
    asked: Vec<Asked<W>>,
}

/// A partition that is asked about, and what is wanted of it.
struct Asked<W> {
    /// Its place among all that are asked about at the same time.
    place: usize,
    /// As the broker takes it.
    topic: TopicName,
    partition: PartitionIndex,
    what: W,
}

impl<W, Q, A> Question<W, Q, A>
where
    W: Copy + PartialEq + Send + Sync + 'static,
    Q: Request<Response: Message + Send> + Message + Send + Sync + 'static,
    A: Copy + Send + 'static,
{
    /// As [`Question::ask`], about partitions of one topic.
    ///
    /// # Errors
    /// When there is no such topic or partition, or nobody says in time where it is.
    #[tracing::instrument(target = "ringmq_client", name = "ask", skip_all, fields(operation = self.operation, topic = topic))]
    pub(crate) async fn ask_of_topic(
        &'static self,
        cluster: &Arc<Cluster>,
        topic: &str,
        wanted: impl IntoIterator<Item = (PartitionIndex, W)>,
        retry: &mut Retry,
    ) -> Result<Vec<Result<A, Error>>, Error> {
        cluster.route(topic, retry).await?;
        let wanted: Vec<_> = wanted.into_iter().map(|(partition, what)| Wanted { topic, partition, what }).collect();
        for one in &wanted {
            cluster.route_to(topic, one.partition, retry).await?;
        }
        self.ask_each(cluster, &wanted, retry).await
    }

    /// The answer for each of `wanted`, in their order, or why there is none: [`Error::TimedOut`] where it did not come in
    /// time, whatever the others were told.
    ///
    /// # Errors
    /// When nobody says in time where the topics are.
    #[tracing::instrument(target = "ringmq_client", name = "ask", skip_all, fields(operation = self.operation, partitions = wanted.len()))]
    pub(crate) async fn ask(
        &'static self,
        cluster: &Arc<Cluster>,
        wanted: &[Wanted<'_, W>],
        retry: &mut Retry,
    ) -> Result<Vec<Result<A, Error>>, Error> {
        self.ask_each(cluster, wanted, retry).await
    }

    async fn ask_each(
        &'static self,
        cluster: &Arc<Cluster>,
        wanted: &[Wanted<'_, W>],
        retry: &mut Retry,
    ) -> Result<Vec<Result<A, Error>>, Error> {
        let mut open: Vec<Place<'_, W>> = wanted.iter().copied().enumerate().collect();
        // Stable: what is wanted of one partition stays in its order.
        open.sort_by_key(|(_, one)| one.key());
        let mut told: Vec<(usize, Result<A, Error>)> = Vec::with_capacity(wanted.len());
        while !open.is_empty() {
            // The broker refuses a request that names one twice.
            let first: Vec<_> = of_each_partition(&open).filter_map(<[_]>::first).map(|(_, one)| *one).collect();
            let outcomes = match self.try_ask(cluster, &first, retry).await {
                Err(error) if told.is_empty() => return Err(error),
                Err(error) => {
                    give_up(&open, &mut told, |_| error.clone());
                    break;
                }
                Ok(outcomes) => outcomes,
            };
            let (mut lasting, mut passing) = (HashMap::new(), HashMap::new());
            for (one, outcome) in outcomes {
                if let Err(error) = &outcome {
                    cluster.doubt(one.topic, error);
                }
                match outcome {
                    Err(error) if error.is_retriable() => drop(passing.insert(one.key(), error)),
                    outcome => drop(lasting.insert(one.key(), outcome)),
                }
            }
            open = tell(&open, &lasting, &mut told);
            let Some(error) = first.iter().find_map(|one| passing.get(&one.key())) else { continue };
            if retry.pause_after(error.clone()).await.is_err() {
                give_up(&open, &mut told, |one| retry.timed_out(passing.get(&one.key()).cloned()));
                break;
            }
        }
        told.sort_unstable_by_key(|(place, _)| *place);
        Ok(told.into_iter().map(|(_, outcome)| outcome).collect())
    }

    /// Asks each owner once, all at the same time. All of `wanted` come back, which are in the order of their topics.
    async fn try_ask<'t>(
        &'static self,
        cluster: &Arc<Cluster>,
        wanted: &[Wanted<'t, W>],
        retry: &mut Retry,
    ) -> Result<Outcomes<'t, W, A>, Error> {
        let refused = cluster.learn(wanted.iter().map(|one| one.topic), retry).await?;
        let mut groups: HashMap<PartitionRoute, Group<W>> = HashMap::new();
        let mut outcomes = Vec::with_capacity(wanted.len());
        for (place, &one) in wanted.iter().enumerate() {
            let found = match refused.get(one.topic) {
                Some(error) => Err(error.clone()),
                None => find(cluster, one, retry).await,
            };
            match found {
                Ok((route, owner)) => {
                    let asked = Asked { place, topic: route.topic.clone(), partition: one.partition, what: one.what };
                    let group = groups.entry(owner).or_insert_with(|| Group { route, asked: Vec::new() });
                    group.asked.push(asked);
                }
                Err(error) => outcomes.push((one, Err(error))),
            }
        }
        let deadline = retry.attempt_deadline();
        let mut asking = JoinSet::new();
        for group in groups.into_values() {
            asking.spawn(self.ask_owner(cluster.clone(), group, deadline).in_current_span());
        }
        while let Some(joined) = asking.join_next().await {
            let answered = joined.map_err(|error| Error::Runtime(error.to_string()))?;
            outcomes.extend(answered.into_iter().filter_map(|(place, outcome)| Some((*wanted.get(place)?, outcome))));
        }
        Ok(outcomes)
    }

    /// What became of each place of a group. What is too large for one request is cut in half.
    async fn ask_owner(
        &'static self,
        cluster: Arc<Cluster>,
        Group { route, asked }: Group<W>,
        deadline: Instant,
    ) -> Vec<(usize, Result<A, Error>)> {
        let fail = |asked: &[Asked<W>], error: &Error| -> Vec<_> {
            asked.iter().map(|one| (one.place, Err(error.clone()))).collect()
        };
        let Some(first) = asked.first() else { return Vec::new() };
        let (address, connection) = match cluster.owner(&route, first.partition, deadline).await {
            Ok(owner) => owner,
            Err(error) => return fail(&asked, &error),
        };
        let mut told = Vec::with_capacity(asked.len());
        let mut parts = vec![asked.as_slice()];
        while let Some(part) = parts.pop() {
            match self.call(&address, &connection, part, deadline).await {
                Ok(mut answers) => told.extend(part.iter().map(|one| (one.place, self.outcome(&mut answers, one)))),
                Err(error) if error.asks_too_much_at_once() && part.len() > 1 => {
                    let (front, back) = part.split_at(part.len() / 2);
                    parts.extend([back, front]);
                }
                Err(error) => {
                    told.extend(fail(part, &error));
                    // What may pass is waited for before the rest is asked as well.
                    if error.is_retriable() {
                        told.extend(parts.drain(..).flat_map(|part| fail(part, &error)));
                    }
                }
            }
        }
        told
    }

    async fn call(
        &self,
        address: &BrokerAddress,
        connection: &Connection,
        asked: &[Asked<W>],
        deadline: Instant,
    ) -> Result<AnswerOf<A>, Error> {
        let mut topics: ByTopic<W> = Vec::new();
        for one in asked {
            match topics.last_mut() {
                Some((last, partitions)) if *last == one.topic => partitions.push((one.partition, one.what)),
                _ => topics.push((one.topic.clone(), vec![(one.partition, one.what)])),
            }
        }
        let answer = connection.call(&(self.request)(topics), deadline).await;
        let answer = answer.map_err(|error| Error::of_request(self.operation, address, error))?;
        Ok((self.answers)(answer).into_iter().map(|(topic, partition, one)| ((topic, partition), one)).collect())
    }

    fn outcome(&self, answers: &mut AnswerOf<A>, asked: &Asked<W>) -> Result<A, Error> {
        let (topic, partition, operation) = (&asked.topic, asked.partition, self.operation);
        let left_out = || format!("the answer to {operation} of topic `{topic}` leaves out partition {partition}");
        let answer = answers.remove(&(topic.clone(), partition)).ok_or_else(|| Error::Nonsense(left_out()))?;
        answer.map_err(|error| Error::about_partition(topic, partition, error))
    }
}

/// `open`, which is in the order of partitions, cut where another partition begins.
fn of_each_partition<'o, 't, W>(open: &'o [Place<'t, W>]) -> impl Iterator<Item = &'o [Place<'t, W>]> {
    open.chunk_by(|(_, one), (_, next)| one.key() == next.key())
}

/// Moves to `told` what the first place of each partition was answered; the places right behind it that want the same are
/// told the same. Gives the places that are still open.
fn tell<'t, W: Copy + PartialEq, A: Copy>(
    open: &[Place<'t, W>],
    answered: &HashMap<Key<'t>, Result<A, Error>>,
    told: &mut Vec<(usize, Result<A, Error>)>,
) -> Vec<Place<'t, W>> {
    let mut left = Vec::new();
    for places in of_each_partition(open) {
        let Some((_, first)) = places.first() else { continue };
        let Some(outcome) = answered.get(&first.key()) else {
            left.extend_from_slice(places);
            continue;
        };
        let same = places.iter().take_while(|(_, one)| one.what == first.what).count();
        let (now, later) = places.split_at(same);
        told.extend(now.iter().map(|(place, _)| (*place, outcome.clone())));
        left.extend_from_slice(later);
    }
    left
}

/// Tells each place that is still open why nobody asks any more.
fn give_up<'t, W, A>(
    open: &[Place<'t, W>],
    told: &mut Vec<(usize, Result<A, Error>)>,
    error: impl Fn(&Wanted<'t, W>) -> Error,
) {
    told.extend(open.iter().map(|(place, one)| (*place, Err(error(one)))));
}

/// Where a partition is, and who is to be asked about it.
async fn find<W>(
    cluster: &Cluster,
    wanted: Wanted<'_, W>,
    retry: &mut Retry,
) -> Result<(Arc<TopicRoute>, PartitionRoute), Error> {
    let route = cluster.route_to(wanted.topic, wanted.partition, retry).await?;
    let owner = route.partition(wanted.partition).cloned();
    let unknown = || WireError::from(ErrorCode::UnknownPartition);
    let owner = owner.ok_or_else(|| Error::about_partition(wanted.topic, wanted.partition, unknown()))?;
    Ok((route, owner))
}
