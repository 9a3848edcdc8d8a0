//! One produce request, and what its answer says.

use bytes::Bytes;
use ringmq_wire::protocol::{Acks, ProduceHead, ProducePartition, ProduceResponse, ProduceTopic, ProducedPartition};
use ringmq_wire::{ErrorCode, PartitionIndex, TopicName, WireError};
use tracing::{Instrument as _, Span};

use crate::cluster::Cluster;
use crate::delivery::Deliveries;
use crate::error::Error;
use crate::retry::Retry;

/// Why records were not acknowledged, and whether they can have been stored.
pub(crate) enum Failure {
    NotStored(Error),
    MaybeStored(Error),
}

/// The head of a request with one section.
pub(crate) fn head(
    topic: &TopicName,
    partition: PartitionIndex,
    batches: &Bytes,
    acks: Acks,
    retry: &Retry,
) -> Result<ProduceHead, Error> {
    let too_large = |_| {
        Error::Argument(format!(
            "{} bytes of batches are more than one request takes; send them in several",
            batches.len()
        ))
    };
    let records_bytes = u32::try_from(batches.len()).map_err(too_large)?;
    let partitions = vec![ProducePartition { partition, records_bytes }];
    Ok(ProduceHead {
        acks,
        timeout_ms: retry.attempt_ms(),
        topics: vec![ProduceTopic { topic: topic.clone(), partitions }],
    })
}

/// Whom a request tells how it goes.
pub(crate) trait Attempts {
    /// From now on its records may be stored; `false` when nobody wants them to be any more.
    fn begin(&self) -> bool;

    /// What is sent on its connection afterwards comes behind it.
    fn placed(&self);

    /// They surely were not stored.
    fn not_stored(&self, failure: &Error);
}

/// Sends one request, again and again as long as its records surely were not stored, and `attempts` wants it.
pub(crate) async fn until_open(
    cluster: &Cluster,
    topic: &str,
    partition: PartitionIndex,
    (batches, acks): (Bytes, Acks),
    retry: &mut Retry,
    attempts: &impl Attempts,
) -> Result<Option<Deliveries>, Error> {
    loop {
        match attempt(cluster, topic, partition, (&batches, acks), retry, attempts).await {
            Ok(stored) => return Ok(stored),
            Err(Failure::NotStored(error)) => {
                attempts.not_stored(&error);
                cluster.doubt(topic, &error);
                retry.pause_after_answer(error).await?;
            }
            Err(Failure::MaybeStored(error)) => {
                cluster.doubt(topic, &error);
                return Err(may_be_stored(topic, partition, error));
            }
        }
    }
}

async fn attempt(
    cluster: &Cluster,
    topic: &str,
    partition: PartitionIndex,
    (batches, acks): (&Bytes, Acks),
    retry: &mut Retry,
    attempts: &impl Attempts,
) -> Result<Option<Deliveries>, Failure> {
    let route = cluster.route_to(topic, partition, retry).await.map_err(Failure::NotStored)?;
    let deadline = retry.only_attempt_deadline();
    let owner = cluster.owner(&route, partition, deadline).await;
    let (address, connection) = owner.map_err(Failure::NotStored)?;
    let head = head(&route.topic, partition, batches, acks, retry).map_err(Failure::NotStored)?;
    if !attempts.begin() {
        return Err(Failure::NotStored(retry.timed_out(None)));
    }
    let sending = async {
        if acks == Acks::None {
            return connection.produce(&head, [batches.clone()], deadline).await;
        }
        let mut pending = connection.submit_produce(&head, [batches.clone()], deadline).await?;
        attempts.placed();
        pending.wait().await.map(Some)
    };
    let answer = sending.instrument(span(&route.topic, partition, batches)).await;
    outcome(&route.topic, partition, answer.map_err(|error| Error::of_request("produce", &address, error)))
}

/// Covers one attempt, until it is answered.
pub(crate) fn span(topic: &TopicName, partition: PartitionIndex, batches: &Bytes) -> Span {
    tracing::debug_span!(target: "ringmq_client", "send", %topic, %partition, bytes = batches.len())
}

/// What an answer says about the one partition that was asked for.
pub(crate) fn outcome(
    topic: &TopicName,
    partition: PartitionIndex,
    answer: Result<Option<ProduceResponse>, Error>,
) -> Result<Option<Deliveries>, Failure> {
    let response = match answer {
        Ok(Some(response)) => response,
        Ok(None) => return Ok(None),
        Err(error) => return Err(Failure::of(error)),
    };
    let mut topics = response.topics.into_iter().filter(|produced| produced.topic == *topic);
    let mut partitions = topics.next().map(|produced| produced.partitions).unwrap_or_default().into_iter();
    match partitions.find(|produced| produced.partition == partition) {
        Some(ProducedPartition { error: ErrorCode::None, base_offset, next_offset, append_time, .. }) => {
            Ok(Some(Deliveries { partition, offsets: base_offset..next_offset, append_time }))
        }
        Some(ProducedPartition { error: code, detail, .. }) => {
            Err(Failure::of(Error::about_partition(topic, partition, WireError { code, detail })))
        }
        None => {
            let reason = "a produce request was answered without a word on its partition";
            Err(Failure::MaybeStored(Error::Nonsense(reason.to_owned())))
        }
    }
}

impl Failure {
    /// Whether records can have been stored in spite of `error`.
    pub(crate) fn of(error: Error) -> Failure {
        let may_be_stored = match &error {
            Error::Connection { may_have_arrived, .. } => *may_have_arrived,
            Error::Broker { source, .. } => matches!(
                source.code,
                ErrorCode::UnknownServerError
                    | ErrorCode::StorageFailed
                    | ErrorCode::RequestTimedOut
                    | ErrorCode::Unknown
            ),
            _ => false,
        };
        if may_be_stored { Failure::MaybeStored(error) } else { Failure::NotStored(error) }
    }
}

/// The offsets of a batch with so many records.
pub(crate) fn offsets_of(record_count: u32, stored: Option<Deliveries>) -> Result<Deliveries, Error> {
    let nonsense = |what: &str| Error::Nonsense(format!("a produce request was answered {what}"));
    let stored = stored.ok_or_else(|| nonsense("without offsets"))?;
    if stored.count() == u64::from(record_count) { Ok(stored) } else { Err(nonsense("with offsets of other records")) }
}

/// The error for records of which nobody can tell whether they are stored.
pub(crate) fn may_be_stored(topic: &str, partition: PartitionIndex, source: Error) -> Error {
    Error::MaybeStored { topic: topic.to_owned(), partition, source: Box::new(source) }
}
