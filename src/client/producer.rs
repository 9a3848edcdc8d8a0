//! Sending records.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use ringmq_wire::batch::{BATCH_HEADER_BYTES, BatchBuilder, Compression, split_batches};
use ringmq_wire::protocol::Acks;
use ringmq_wire::{Offset, PartitionIndex, Timestamp};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::idempotence::Idempotence;
use crate::lane::{Outgoing, Trace};
use crate::partitioner::Partitioner;
use crate::produce::{self, Failure};
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

/// Sends records. Clones share connections, the round of partitions, and an identity.
///
/// **Retries.** A producer is idempotent: the broker recognises what it sends again, stores it once, and answers with the
/// first offset. So whatever may pass is tried again until the client's time-out: a broker that is away or full, a
/// connection that breaks, an acknowledgement that is lost. [`Error::MaybeStored`] says that the time was up before it was
/// known whether records are stored; they are stored once or not at all, and if the program itself sends them again, they
/// are other records to the broker. Two things are left to the program: several batches in one
/// [`Producer::send_encoded`], and [`Producer::send_unacknowledged`], go without the identity. And a partition remembers a producer for as long as the
/// broker's `producer_expiry_ms` says, a day by default.
///
/// With [`idempotent(false)`](Producer::idempotent) only what surely was not stored is sent again.
///
/// **Order.** Records of one partition are stored in the order of the calls, also where a later call does not wait for the
/// end of an earlier one, as long as they are made by one task. Five requests are in flight for a partition at the same
/// time, and further ones wait: [`Producer::send_batch`] makes more of each.
///
/// **Errors.** When the broker refuses a batch for good, that one alone fails. [`ErrorCode::OutOfOrderSequence`]: the
/// partition has lost something that this producer was told to be stored. Whatever it is, the producer goes on: it begins a
/// new epoch by itself, or takes a new identity.
///
/// [`ErrorCode::OutOfOrderSequence`]: ringmq_wire::ErrorCode::OutOfOrderSequence
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
    /// `None`: without an identity.
    idempotence: Option<Arc<Idempotence>>,
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

impl Producer {
    pub(crate) fn new(cluster: Arc<Cluster>, idempotence: Arc<Idempotence>) -> Self {
        let (acked_by, compression) = (AckedBy::default(), Compression::None);
        let idempotence = Some(idempotence);
        Self { cluster, partitioner: Arc::new(Partitioner::new()), acked_by, compression, idempotence }
    }

    /// The same producer, with or without an identity. Default: with one, so that nothing is stored twice (see
    /// [Retries](Producer)). Without one, nothing is sent again that may have been stored, and requests for one partition
    /// are not held back to [five in flight](Producer).
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        let shared = self.idempotence.take();
        self.idempotence = idempotent.then(|| shared.unwrap_or_default());
        self
    }

    /// The same producer, waiting for other acknowledgements. Default [`AckedBy::All`].
    #[must_use]
    pub fn acked_by(mut self, acked_by: AckedBy) -> Self {
        self.acked_by = acked_by;
        self
    }

    /// The same producer with other compression; none is the default.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sends one record. Its key chooses the partition, by the same hash as Kafka's clients; without a key the
    /// partitions take turns.
    ///
    /// # Errors
    /// [`Error::Broker`] when the broker refuses; [`Error::MaybeStored`] when the time is up and the acknowledgement has
    /// not come.
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
    /// A single batch without an identity gets this producer's (copied for that when `batches` is shared). Several go as
    /// they are, as does one that has an identity: what may have been stored is not sent again then.
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
        let mut retry = self.retry();
        if let Some(idempotence) = self.idempotence.as_ref().filter(|_| acks != Acks::None)
            && let Some(record_count) = records_of_plain_batch(&batches)
        {
            let batch = (batches, record_count);
            return self.send_once(idempotence, topic, partition, batch, acks, &retry).await.map(Some);
        }
        self.produce(topic, partition, batches, acks, &mut retry).await
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
        let acks = self.acked_by.to_wire();
        if let Some(idempotence) = &self.idempotence {
            let record_count = u32::try_from(records.len()).map_err(|_| too_many(records.len()))?;
            return self.send_once(idempotence, topic, partition, (batch, record_count), acks, retry).await;
        }
        let stored = self.produce(topic, partition, batch, acks, retry).await?;
        stored.ok_or_else(|| Error::Nonsense("a produce request was answered without offsets".to_owned()))
    }

    /// By the partition's lane, which sends it again until it is answered or the time is up.
    async fn send_once(
        &self,
        idempotence: &Idempotence,
        topic: &str,
        partition: PartitionIndex,
        (batch, record_count): (Bytes, u32),
        acks: Acks,
        retry: &Retry,
    ) -> Result<Deliveries, Error> {
        let (deadline, trace) = (retry.deadline(), Arc::new(Trace::default()));
        let ended =
            || Error::Runtime("the task that sends to the partition has ended; keep the client's runtime".into());
        let (reply, answer) = oneshot::channel();
        let outgoing = Outgoing { batch, record_count, acks, deadline, trace: trace.clone(), reply };
        let lane = idempotence.lane(&self.cluster, topic, partition);
        match timeout_at(deadline, lane.send(outgoing)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(ended()),
            Err(_) => return Err(retry.timed_out(None)),
        }
        match timeout_at(deadline, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(ended())),
            Err(_) => {
                let (is_open, last) = trace.outcome();
                let timed_out = retry.timed_out(last);
                Err(if is_open { produce::may_be_stored(topic, partition, timed_out) } else { timed_out })
            }
        }
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
                    let head = produce::head(&route.topic, partition, &batches, acks, retry)?;
                    let answer = connection.produce(&head, [batches.clone()], retry.deadline()).await;
                    let answer = answer.map_err(|error| Error::of_request("produce", &address, error));
                    produce::outcome(&route.topic, partition, answer)
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
                    return Err(produce::may_be_stored(topic, partition, error));
                }
            }
        }
    }

    fn retry(&self) -> Retry {
        Retry::new("produce", self.cluster.options.timeout)
    }
}

/// How many records there are, if this is one sound batch of nobody's.
fn records_of_plain_batch(batches: &Bytes) -> Option<u32> {
    let batch = split_batches(batches).next()?.ok()?;
    let is_plain = batch.bytes().len() == batches.len() && batch.header().producer() == Ok(None);
    // With another checksum the broker could not tell any more that it is damaged.
    (is_plain && batch.verify_checksum().is_ok()).then_some(batch.header().record_count)
}

fn too_many(records: usize) -> Error {
    Error::Argument(format!("{records} records are more than one batch can hold; send them in several"))
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
