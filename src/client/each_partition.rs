//! Asking the owners of partitions for one thing each, until all have answered.

use std::collections::HashMap;

use ringmq_wire::protocol::{Message, Request};
use ringmq_wire::{PartitionIndex, TopicName, WireError};
use tokio::time::Instant;

use crate::address::BrokerAddress;
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::Error;
use crate::retry::Retry;

/// What a response says of each partition.
pub(crate) type Answers<A> = Vec<(PartitionIndex, Result<A, WireError>)>;

/// A request that names partitions of one topic, each with what is wanted of it. Asking again is harmless.
pub(crate) struct Question<W, Q: Request, A> {
    /// What errors call it.
    pub(crate) operation: &'static str,
    pub(crate) request: fn(TopicName, Vec<(PartitionIndex, W)>) -> Q,
    pub(crate) answers: fn(Q::Response) -> Answers<A>,
}

impl<W: Copy, Q, A: Copy> Question<W, Q, A>
where
    Q: Request + Message,
    Q::Response: Message,
{
    /// The answer for each of `wanted`, in their order, or why there is none.
    ///
    /// # Errors
    /// When the topic is unknown, or not all have answered in time.
    #[tracing::instrument(target = "ringmq_client", name = "ask", skip_all, fields(operation = self.operation, topic = topic))]
    pub(crate) async fn ask(
        &self,
        cluster: &Cluster,
        topic: &str,
        wanted: &[(PartitionIndex, W)],
        retry: &mut Retry,
    ) -> Result<Vec<Result<A, Error>>, Error> {
        let mut answered: HashMap<PartitionIndex, Result<A, Error>> = HashMap::new();
        loop {
            let mut open: Vec<_> =
                wanted.iter().copied().filter(|(partition, _)| !answered.contains_key(partition)).collect();
            // The broker refuses a request that names one twice.
            open.sort_by_key(|(partition, _)| *partition);
            open.dedup_by_key(|(partition, _)| *partition);
            let error = match self.try_ask(cluster, topic, &open, retry).await {
                Ok(answers) => {
                    let (passing, lasting): (Vec<_>, Vec<_>) =
                        answers.into_iter().partition(|(_, answer)| answer.as_ref().is_err_and(Error::is_retriable));
                    answered.extend(lasting);
                    match passing.into_iter().find_map(|(_, answer)| answer.err()) {
                        Some(error) => error,
                        None => break,
                    }
                }
                Err(error) => error,
            };
            cluster.doubt(topic, &error);
            retry.pause_after(error).await?;
        }
        let outcome = |(partition, _): &(PartitionIndex, W)| match answered.get(partition) {
            Some(Ok(found)) => Ok(*found),
            _ => answered.remove(partition).unwrap_or_else(|| {
                let operation = self.operation;
                let problem = format!("the answer to {operation} of topic `{topic}` leaves out partition {partition}");
                Err(Error::Nonsense(problem))
            }),
        };
        Ok(wanted.iter().map(outcome).collect())
    }

    async fn try_ask(
        &self,
        cluster: &Cluster,
        topic: &str,
        wanted: &[(PartitionIndex, W)],
        retry: &mut Retry,
    ) -> Result<Vec<(PartitionIndex, Result<A, Error>)>, Error> {
        let mut groups: HashMap<BrokerAddress, (Connection, Vec<(PartitionIndex, W)>)> = HashMap::new();
        for &(partition, what) in wanted {
            let route = cluster.route_to(topic, partition, retry).await?;
            let (address, connection) = cluster.owner(&route, partition, retry.attempt_deadline()).await?;
            groups.entry(address).or_insert_with(|| (connection, Vec::new())).1.push((partition, what));
        }
        let name = cluster.route(topic, retry).await?.topic.clone();
        let mut answers = Vec::with_capacity(wanted.len());
        for (address, (connection, group)) in groups {
            answers.extend(self.call(&connection, &address, &name, group, retry.attempt_deadline()).await?);
        }
        Ok(answers)
    }

    async fn call(
        &self,
        connection: &Connection,
        address: &BrokerAddress,
        topic: &TopicName,
        wanted: Vec<(PartitionIndex, W)>,
        deadline: Instant,
    ) -> Result<Vec<(PartitionIndex, Result<A, Error>)>, Error> {
        let answer = connection.call(&(self.request)(topic.clone(), wanted), deadline).await;
        let answer = answer.map_err(|error| Error::of_request(self.operation, address, error))?;
        let about = |(partition, answer): (PartitionIndex, Result<A, WireError>)| {
            (partition, answer.map_err(|error| Error::about_partition(topic, partition, error)))
        };
        Ok((self.answers)(answer).into_iter().map(about).collect())
    }
}
