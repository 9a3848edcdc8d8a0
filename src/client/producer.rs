//! Sending records.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use ringmq_wire::batch::{BATCH_HEADER_BYTES, BatchBuilder, Compression};
use ringmq_wire::protocol::{Acks, ProduceHead, ProducePartition, ProduceTopic, ProducedPartition};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, Timestamp, TopicName, WireError};

use crate::cluster::Cluster;
use crate::error::Error;
use crate::partitioner::Partitioner;
use crate::record::Record;
use crate::retry::Retry;

/// Whose disk an acknowledgement speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckedBy {
    /// The partition's leader alone.
    Leader,
    /// Every in-sync replica.
    #[default]
    All,
}

impl AckedBy {
    fn to_wire(self) -> Acks {
        match self {
            Self::Leader => Acks::Leader,
            Self::All => Acks::All,
        }
    }
}

/// Sends records. Clones share connections and the round of partitions.
///
/// **Retries.** What surely was not stored is sent again until the client's time-out: the connection could not be
/// opened, or broke before the whole request had left, or the broker said that it stored nothing and may do so later.
/// When an acknowledgement is lost after the request has left, [`Error::MaybeStored`] says so, and nothing is sent
/// again: a producer without an identity cannot tell the broker that it is the same record.
///
/// **Order.** Records of one partition are stored in the order of the calls when each call ends before the next begins.
///
/// **Cancelling.** Dropping a future before its records have left sends nothing; later, they may be stored or not.
///
/// ```no_run
/// # async fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::Record;
/// let delivery = client.producer().send("orders", Record::value("12.50").with_key("order 7")).await?;
/// println!("on disk in partition {} at offset {}", delivery.partition, delivery.offset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Producer {
    cluster: Arc<Cluster>,
    partitioner: Arc<Partitioner>,
    acked_by: AckedBy,
    compression: Compression,
}

/// Where one record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The partition.
    pub partition: PartitionIndex,
    /// Its offset there.
    pub offset: Offset,
}

/// Where records that were sent together were stored: in one partition, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliveries {
    /// The partition.
    pub partition: PartitionIndex,
    /// From the first record's offset to the one after the last record's.
    pub offsets: Range<Offset>,
    /// The time that the broker gave them, on a topic that asks for that.
    pub append_time: Option<Timestamp>,
}

impl Deliveries {
    /// How many records there are.
    pub fn count(&self) -> u64 {
        self.offsets.end.checked_sub(self.offsets.start).unwrap_or(0)
    }

    /// Where each record is, in the order in which they were sent.
    pub fn iter(&self) -> impl Iterator<Item = Delivery> + use<> {
        let partition = self.partition;
        let offsets = self.offsets.start.get()..self.offsets.end.get();
        offsets.map(move |offset| Delivery { partition, offset: Offset::new(offset) })
    }
}

/// Why records were not acknowledged, and whether they can have been stored.
enum Failure {
    NotStored(Error),
    MaybeStored(Error),
}

impl Producer {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        let (acked_by, compression) = (AckedBy::default(), Compression::None);
        Self { cluster, partitioner: Arc::new(Partitioner::new()), acked_by, compression }
    }

    /// The same producer, waiting for other acknowledgements. Default [`AckedBy::All`].
    #[must_use]
    pub fn acked_by(mut self, acked_by: AckedBy) -> Self {
        self.acked_by = acked_by;
        self
    }

    /// The same producer with other compression: none (the default) or LZ4.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sends one record. Its key chooses the partition, by the same hash as Kafka's clients; without a key the
    /// partitions take turns.
    ///
    /// # Errors
    /// [`Error::Broker`] when the broker refuses, [`Error::MaybeStored`] when the acknowledgement is lost.
    pub async fn send(&self, topic: &str, record: impl Into<Record>) -> Result<Delivery, Error> {
        let record = record.into();
        let mut retry = self.retry();
        let partition = self.choose(topic, record.key.as_deref(), &mut retry).await?;
        let stored = self.send_records(topic, partition, &[record], &mut retry).await?;
        Ok(Delivery { partition, offset: stored.offsets.start })
    }

    /// Sends one record to a partition.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_to(
        &self,
        topic: &str,
        partition: PartitionIndex,
        record: impl Into<Record>,
    ) -> Result<Delivery, Error> {
        let stored = self.send_records(topic, partition, &[record.into()], &mut self.retry()).await?;
        Ok(Delivery { partition, offset: stored.offsets.start })
    }

    /// Sends records to a partition as one batch: all are stored, side by side, or none. A topic bounds the size of a
    /// batch (1 MiB by default).
    ///
    /// # Errors
    /// As [`Producer::send`]; [`Error::Argument`] without a record.
    pub async fn send_batch(
        &self,
        topic: &str,
        partition: PartitionIndex,
        records: Vec<Record>,
    ) -> Result<Deliveries, Error> {
        self.send_records(topic, partition, &records, &mut self.retry()).await
    }

    /// Sends batches that are encoded already (see [`ringmq_wire::batch`]) to a partition: all are stored, side by side,
    /// or none. They are written from where they are, without a copy.
    ///
    /// `None` without acknowledgement ([`Acks::None`]): the records were handed to the operating system, no more.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_encoded(
        &self,
        topic: &str,
        partition: PartitionIndex,
        batches: Bytes,
        acks: Acks,
    ) -> Result<Option<Deliveries>, Error> {
        self.produce(topic, partition, batches, acks, &mut self.retry()).await
    }

    /// Sends one record and waits for no acknowledgement, only until the operating system has taken it. A record that
    /// the broker refuses is lost without a word. Gives the partition that it went to.
    ///
    /// # Errors
    /// When no connection can be opened, or it breaks meanwhile.
    pub async fn send_unacknowledged(&self, topic: &str, record: impl Into<Record>) -> Result<PartitionIndex, Error> {
        let record = record.into();
        let mut retry = self.retry();
        let partition = self.choose(topic, record.key.as_deref(), &mut retry).await?;
        let batch = encode(&[record], self.compression)?;
        self.produce(topic, partition, batch, Acks::None, &mut retry).await?;
        Ok(partition)
    }

    /// The partition to which [`Producer::send`] would send a record with this key; without a key, the next in turn.
    ///
    /// # Errors
    /// [`Error::Broker`] when the topic is unknown; when no broker answers.
    pub async fn partition_for(&self, topic: &str, key: Option<&[u8]>) -> Result<PartitionIndex, Error> {
        self.choose(topic, key, &mut self.retry()).await
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// [`Error::Broker`] when the topic is unknown; when no broker answers.
    pub async fn partition_count(&self, topic: &str) -> Result<u32, Error> {
        self.cluster.route(topic, &mut self.retry()).await.map(|route| route.partition_count())
    }

    async fn choose(&self, topic: &str, key: Option<&[u8]>, retry: &mut Retry) -> Result<PartitionIndex, Error> {
        let route = self.cluster.route(topic, retry).await?;
        let chosen = self.partitioner.choose(key, route.partition_count());
        chosen.ok_or_else(|| Error::Nonsense(format!("topic `{topic}` has no partition")))
    }

    async fn send_records(
        &self,
        topic: &str,
        partition: PartitionIndex,
        records: &[Record],
        retry: &mut Retry,
    ) -> Result<Deliveries, Error> {
        if records.is_empty() {
            return Err(Error::Argument("a batch needs at least one record; give it one, or send nothing".to_owned()));
        }
        let batch = encode(records, self.compression)?;
        let stored = self.produce(topic, partition, batch, self.acked_by.to_wire(), retry).await?;
        stored.ok_or_else(|| Error::Nonsense("a produce request was answered without offsets".to_owned()))
    }

    async fn produce(
        &self,
        topic: &str,
        partition: PartitionIndex,
        batches: Bytes,
        acks: Acks,
        retry: &mut Retry,
    ) -> Result<Option<Deliveries>, Error> {
        loop {
            let route = self.cluster.route_to(topic, partition, retry).await?;
            let owner = self.cluster.owner(&route, partition, retry.deadline()).await;
            let attempt = match owner {
                Ok((address, connection)) => {
                    let head = head(&route.topic, partition, &batches, acks, retry)?;
                    let answer = connection.produce(&head, [batches.clone()], retry.deadline()).await;
                    let answer = answer.map_err(|error| Error::of_request("produce", &address, error));
                    outcome(&route.topic, partition, answer)
                }
                Err(error) => Err(Failure::NotStored(error)),
            };
            match attempt {
                Ok(stored) => return Ok(stored),
                Err(Failure::NotStored(error)) => {
                    self.cluster.doubt(topic, &error);
                    retry.pause_after_answer(error).await?;
                }
                Err(Failure::MaybeStored(error)) => {
                    self.cluster.doubt(topic, &error);
                    return Err(Error::MaybeStored { topic: route.topic.clone(), partition, source: Box::new(error) });
                }
            }
        }
    }

    fn retry(&self) -> Retry {
        Retry::new("produce", self.cluster.options.timeout)
    }
}

/// One batch of `records`, in their order.
fn encode(records: &[Record], compression: Compression) -> Result<Bytes, Error> {
    let payload = |record: &Record| {
        let headers =
            record.headers.iter().map(|header| header.key.len() + header.value.as_ref().map_or(0, Bytes::len));
        let sides = record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
        // Lengths, deltas and counts of a small record take fewer bytes.
        sides + headers.sum::<usize>() + 24
    };
    let capacity = BATCH_HEADER_BYTES + records.iter().map(payload).sum::<usize>();
    let mut builder = BatchBuilder::with_capacity(compression, capacity);
    let now = Timestamp::from(SystemTime::now());
    for record in records {
        let headers = record.headers.iter().map(|header| (header.key.as_str(), header.value.as_deref()));
        let timestamp = record.timestamp.unwrap_or(now);
        builder.append_parts(timestamp, record.key.as_deref(), record.value.as_deref(), headers)?;
    }
    Ok(builder.finish()?)
}

fn head(
    topic: &TopicName,
    partition: PartitionIndex,
    batches: &Bytes,
    acks: Acks,
    retry: &Retry,
) -> Result<ProduceHead, Error> {
    let too_large = |_| Error::Argument(format!("{} bytes of batches are more than one request takes", batches.len()));
    let records_bytes = u32::try_from(batches.len()).map_err(too_large)?;
    let partitions = vec![ProducePartition { partition, records_bytes }];
    Ok(ProduceHead {
        acks,
        timeout_ms: u32::try_from(retry.remaining().as_millis()).unwrap_or(u32::MAX),
        topics: vec![ProduceTopic { topic: topic.clone(), partitions }],
    })
}

/// What an answer says about the one partition that was asked for.
fn outcome(
    topic: &TopicName,
    partition: PartitionIndex,
    answer: Result<Option<ringmq_wire::protocol::ProduceResponse>, Error>,
) -> Result<Option<Deliveries>, Failure> {
    let response = match answer {
        Ok(Some(response)) => response,
        Ok(None) => return Ok(None),
        Err(error) => return Err(classify(error)),
    };
    let mut topics = response.topics.into_iter().filter(|produced| produced.topic == *topic);
    let mut partitions = topics.next().map(|produced| produced.partitions).unwrap_or_default().into_iter();
    match partitions.find(|produced| produced.partition == partition) {
        Some(ProducedPartition { error: ErrorCode::None, base_offset, next_offset, append_time, .. }) => {
            Ok(Some(Deliveries { partition, offsets: base_offset..next_offset, append_time }))
        }
        Some(ProducedPartition { error: code, detail, .. }) => {
            Err(classify(Error::about_partition(topic, partition, WireError { code, detail })))
        }
        None => {
            let reason = "a produce request was answered without a word on its partition";
            Err(Failure::MaybeStored(Error::Nonsense(reason.to_owned())))
        }
    }
}

/// Whether records can have been stored in spite of `error`.
fn classify(error: Error) -> Failure {
    let may_be_stored = match &error {
        Error::Connection { may_have_arrived, .. } => *may_have_arrived,
        Error::Broker { source, .. } => matches!(
            source.code,
            ErrorCode::UnknownServerError | ErrorCode::StorageFailed | ErrorCode::RequestTimedOut | ErrorCode::Unknown
        ),
        _ => false,
    };
    if may_be_stored { Failure::MaybeStored(error) } else { Failure::NotStored(error) }
}
