//! Sending records.

mod encoded;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmq_wire::PartitionIndex;
use ringmq_wire::batch::Compression;
use ringmq_wire::protocol::Acks;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::accumulator::{
    Accumulator, BatchSettings, OnDelivery, OpenAccount, Parcel, PendingDelivery, Sender, Target, size_bound,
};
use crate::cluster::Cluster;
use crate::delivery::{Deliveries, Delivery};
use crate::error::Error;
use crate::options;
use crate::partitioner::Partitioner;
use crate::record::Record;
use crate::retry::Retry;

/// The least delivery time-out that is given by default.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// By default, as Kafka's since 4.0 (KIP-1030).
const LINGER: Duration = Duration::from_millis(5);
/// By default.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Whose disk an acknowledgement speaks for.
///
/// ```no_run
/// # fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::AckedBy;
/// let quick = client.producer().acked_by(AckedBy::Leader);
/// # Ok(())
/// # }
/// ```
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

/// Sends records.
///
/// | to | use |
/// |---|---|
/// | send a record and know where it is | [`send`](Producer::send), [`send_to`](Producer::send_to) |
/// | go on while records are on their way | [`enqueue`](Producer::enqueue), or with a callback [`enqueue_with`](Producer::enqueue_with) |
/// | never wait for room | [`try_enqueue`](Producer::try_enqueue) |
/// | send many | [`send_batch`](Producer::send_batch); in one piece [`send_batch_to`](Producer::send_batch_to) |
/// | be sure that everything has arrived | [`flush`](Producer::flush), [`close`](Producer::close) |
///
/// ```no_run
/// # async fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::Record;
/// let producer = client.producer();
/// let delivery = producer.send("orders", Record::value("12.50").with_key("order 7")).await?;
/// println!("on disk in partition {} at offset {}", delivery.partition, delivery.offset);
///
/// for number in 0..1_000_000 {
///     // Waits only while the client's producers hold as much as they may.
///     producer.enqueue_with("numbers", number.to_string(), |delivery| {
///         if let Err(error) = delivery {
///             eprintln!("{error}");
///         }
///     }).await?;
/// }
/// producer.flush().await?;
/// # Ok(())
/// # }
/// ```
///
/// **Clones** are one producer: what one hands over, another flushes. Each call of
/// [`Client::producer`](crate::Client::producer) gives a producer of its own; all of a client share connections, batches,
/// the bound on memory, and an identity for each partition.
///
/// **Batches.** A record is sent at once while nothing is in flight to its partition. While something is, records gather,
/// until that is acknowledged, a batch is [full](Producer::batch_bytes_max), or [`linger`](Producer::linger) is over. So
/// the batches of an idle producer are small and quick, those of a busy one large. Up to five are in flight to a partition;
/// only one, which neither a full batch nor linger hurries, until the partition has answered once, after a failure, and
/// when it has been quiet for 30 s; with [`idempotent(false)`](Producer::idempotent) five from the start. Memory is
/// bounded by [`producer_bytes_max`](crate::ClientOptions::producer_bytes_max) over everything that is gathered or in
/// flight; who hands over more waits, first come, first served.
///
/// **Partitions.** A record that [names one](Record::to_partition) goes there. Records of one key go to one partition, the
/// one that Kafka's clients choose. The others go to one partition after the other: record by record while these are idle,
/// otherwise batch by batch.
///
/// **Order.** Records of one partition, and so of one key, are stored in the order in which they were handed over, as long
/// as one task does so: also where several requests are in flight (five at most), and where they have to be sent again.
///
/// **Retries.** A producer is idempotent: the broker recognises what it sends again, stores it once, and answers with the
/// first offset. So whatever may pass is tried again until the [delivery time-out](Producer::delivery_timeout): a broker
/// that is away or full, a connection that breaks, an acknowledgement that is lost or takes longer than the client's
/// [`timeout`](crate::ClientOptions::timeout). [`Error::MaybeStored`] says that the time was up before it was
/// known whether records are stored; they are stored once or not at all, and if the program itself sends them again, they
/// are other records to the broker. Two things are left to the program: what [`Producer::send_encoded`] sends as it is,
/// and [`Producer::send_unacknowledged`], go without the identity. And a partition remembers a producer for as long as
/// the broker's `producer_expiry_ms` says, a day by default.
///
/// With [`idempotent(false)`](Producer::idempotent) only what surely was not stored is sent again, and not in order then.
///
/// **Errors.** When the broker refuses a batch for good, the records in that one alone fail. [`ErrorCode::OutOfOrderSequence`]:
/// the partition has lost something that this producer was told to be stored. Whatever it is, the producer goes on: it begins
/// a new epoch by itself, or takes a new identity.
///
/// **Its end.** Records that were handed over are sent also when the producer is dropped, as long as the runtime lives that
/// the client was connected on. Dropping the last clone with records on their way logs how many; so does the end of the
/// runtime, which loses them. [`Producer::close`] waits for them instead.
///
/// [`ErrorCode::OutOfOrderSequence`]: ringmq_wire::ErrorCode::OutOfOrderSequence
#[derive(Debug, Clone)]
pub struct Producer {
    cluster: Arc<Cluster>,
    accumulator: Arc<Accumulator>,
    account: Arc<OpenAccount>,
    partitioner: Arc<Partitioner>,
    settings: BatchSettings,
    is_idempotent: bool,
}

impl Producer {
    pub(crate) fn new(cluster: Arc<Cluster>, accumulator: Arc<Accumulator>) -> Self {
        let settings = BatchSettings {
            acks: AckedBy::default().to_wire(),
            compression: Compression::None,
            linger: LINGER,
            batch_bytes_max: BATCH_BYTES_MAX,
            delivery_timeout: DELIVERY_TIMEOUT.max(cluster.options.timeout),
        };
        let (account, partitioner) = (Arc::default(), Arc::new(Partitioner::new()));
        Self { cluster, accumulator, account, partitioner, settings, is_idempotent: true }
    }

    /// The same producer, with or without an identity. Default: with one, so that nothing is stored twice (see
    /// [Retries](Producer)). Without one, nothing is sent again that may have been stored.
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// let producer = client.producer().idempotent(false);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn idempotent(self, idempotent: bool) -> Self {
        Self { is_idempotent: idempotent, ..self }
    }

    /// The same producer, waiting for other acknowledgements. Default [`AckedBy::All`].
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// let producer = client.producer().acked_by(ringmq_client::AckedBy::Leader);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn acked_by(mut self, acked_by: AckedBy) -> Self {
        self.settings.acks = acked_by.to_wire();
        self
    }

    /// The same producer with other compression; none is the default.
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// let producer = client.producer().compression(ringmq_client::Compression::Lz4);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// The same producer, gathering records for another time at most while earlier ones are on their way. Default 5 ms.
    /// With zero a batch never waits while fewer than five may be and are in flight to its partition (see
    /// [Batches](Producer)).
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::Client) {
    /// use std::time::Duration;
    /// let bulk = client.producer().linger(Duration::from_millis(50)).batch_bytes_max(1 << 20);
    /// # }
    /// ```
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = options::bounded(linger);
        self
    }

    /// The same producer with batches of another size at most, in bytes before compression. Default 256 KiB. A record
    /// that is larger goes alone. Topics bound batches too, by their setting `batch_bytes_max` (1 MiB by default): stay
    /// below it, or whole batches are refused.
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// let bulk = client.producer().batch_bytes_max(1_000_000);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn batch_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.batch_bytes_max = bytes;
        self
    }

    /// The same producer with another time from a call until its record is acknowledged or given up, the wait for room and
    /// all attempts included. Default 30 s, or the client's [`timeout`](crate::ClientOptions::timeout) if that is longer:
    /// that one bounds a single request. A batch is given up as a whole: a record that joined one in which others wait may
    /// be given up by an eighth of this time earlier than by itself, or later. `Duration::MAX` is as good as for ever.
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// use std::time::Duration;
    /// let patient = client.producer().delivery_timeout(Duration::MAX);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.settings.delivery_timeout = options::bounded(timeout);
        self
    }

    /// Sends one record, and waits until it is acknowledged.
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// let delivery = producer.send("orders", "12.50").await?;
    /// println!("on disk at offset {}", delivery.offset);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future before there is room for the record sends nothing. Later the record is sent all the same.
    ///
    /// # Errors
    /// [`Error::Broker`] when the broker refuses; [`Error::TimedOut`] when the delivery time-out is over and it is not
    /// stored, [`Error::MaybeStored`] when it may be; [`Error::Closed`] when the producer is closed.
    pub async fn send(&self, topic: &str, record: impl Into<Record>) -> Result<Delivery, Error> {
        self.enqueue(topic, record).await?.await
    }

    /// Sends one record to a partition, and waits until it is acknowledged.
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::PartitionIndex;
    /// let delivery = producer.send_to("orders", PartitionIndex::new(3), "12.50").await?;
    /// assert_eq!(delivery.partition, PartitionIndex::new(3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// As [`Producer::send`].
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_to(
        &self,
        topic: &str,
        partition: PartitionIndex,
        record: impl Into<Record>,
    ) -> Result<Delivery, Error> {
        self.send(topic, record.into().to_partition(partition)).await
    }

    /// Sends records, each to its partition, and waits until all are answered: what became of each, in their order.
    ///
    /// Those of one partition are stored in their order, though not side by side: see [`Producer::send_batch_to`].
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::Record;
    /// let records = ["a", "b", "c"].map(|key| Record::value("1").with_key(key));
    /// for delivery in producer.send_batch("counts", records).await? {
    ///     println!("{:?}", delivery?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future leaves those unsent for which there was no room yet. The others are sent.
    ///
    /// # Errors
    /// When nothing was sent, as [`Producer::partition_count`] and [`Error::Closed`]; of each record as
    /// [`Producer::send`].
    pub async fn send_batch(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = impl Into<Record>>,
    ) -> Result<Vec<Result<Delivery, Error>>, Error> {
        self.account.check_open()?;
        let deadline = self.deadline();
        self.count_partitions(topic, deadline).await?;
        let mut pending = Vec::new();
        for record in records {
            pending.push(self.hand_over(topic, record.into(), deadline, None).await);
        }
        let mut outcomes = Vec::with_capacity(pending.len());
        for pending in pending {
            outcomes.push(match pending {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            });
        }
        Ok(outcomes)
    }

    /// Sends records to a partition as one batch, and waits until it is acknowledged: all are stored, side by side, or
    /// none. A topic bounds the size of a batch (1 MiB by default).
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{PartitionIndex, Record};
    /// let lines = ["Dear Ada,", "it runs."].map(Record::value);
    /// let stored = producer.send_batch_to("letters", PartitionIndex::new(0), lines.into()).await?;
    /// println!("side by side at offsets {:?}", stored.offsets);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// As [`Producer::send`], for all of them.
    ///
    /// # Errors
    /// As [`Producer::send`]; [`Error::Argument`] without a record.
    pub async fn send_batch_to(
        &self,
        topic: &str,
        partition: PartitionIndex,
        records: Vec<Record>,
    ) -> Result<Deliveries, Error> {
        if records.is_empty() {
            return Err(Error::Argument("a batch needs at least one record; give it one, or send nothing".to_owned()));
        }
        let batch = encoded::encode(&records, self.settings.compression)?;
        let record_count = u32::try_from(records.len()).map_err(|_| encoded::too_many(records.len()))?;
        drop(records);
        self.send_whole(topic, partition, (batch, record_count), self.settings.acks).await
    }

    /// Hands one record over: waits for room, and not for its acknowledgement. It is on its way when this returns, whatever
    /// becomes of what it returns: a future that tells where the record is stored.
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// let pending = producer.enqueue("orders", "12.50").await?;
    /// println!("it is on its way");
    /// println!("it is stored at offset {}", pending.await?.offset);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future before there is room for the record sends nothing; later there is nothing to drop.
    ///
    /// # Errors
    /// As [`Producer::partition_count`] unless the record names its partition; [`Error::TimedOut`] when there is no room
    /// within the delivery time-out; [`Error::Closed`]; [`Error::Argument`] and [`Error::Batch`] for a record that no batch
    /// can hold. Everything else is told by what it returns.
    pub async fn enqueue(&self, topic: &str, record: impl Into<Record>) -> Result<PendingDelivery, Error> {
        self.hand_over(topic, record.into(), self.deadline(), None).await
    }

    /// As [`Producer::enqueue`], with a callback that hears what became of the record, once. It is called on the client's
    /// runtime: it should be quick and must not block. It is not called where this fails.
    ///
    /// Callbacks come in the order of the records of a partition, as far as these are answered in order: not without an
    /// [identity](Producer::idempotent), nor where producers with other delivery time-outs send to the partition too.
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// producer.enqueue_with("orders", "12.50", |delivery| match delivery {
    ///     Ok(delivery) => println!("stored at offset {}", delivery.offset),
    ///     Err(error) => eprintln!("{error}"),
    /// }).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// As [`Producer::enqueue`].
    ///
    /// # Errors
    /// As [`Producer::enqueue`].
    pub async fn enqueue_with(
        &self,
        topic: &str,
        record: impl Into<Record>,
        on_delivery: impl FnOnce(Result<Delivery, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        let pending = self.hand_over(topic, record.into(), self.deadline(), Some(Box::new(on_delivery))).await?;
        drop(pending);
        Ok(())
    }

    /// As [`Producer::enqueue`], at once or not at all, from any thread. A clone of a record costs little: keep one to try
    /// again.
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::Error;
    /// producer.partition_count("metrics").await?;
    /// match producer.try_enqueue("metrics", "load 0.7") {
    ///     Ok(pending) => drop(pending),
    ///     Err(Error::Full { .. }) => println!("one measurement is left out"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Full`] when there is no room; [`Error::PartitionsUnknown`] when the client has not heard yet how many
    /// partitions the topic has, and the record names none; otherwise as [`Producer::enqueue`].
    pub fn try_enqueue(&self, topic: &str, record: impl Into<Record>) -> Result<PendingDelivery, Error> {
        let record = record.into();
        let count = || {
            let known = self.cluster.last_partition_count(topic);
            known.ok_or_else(|| Error::PartitionsUnknown { topic: topic.to_owned() })
        };
        let target = match record.partition {
            Some(partition) => Target::Partition(partition),
            None => self.target(topic, &record, count()?)?,
        };
        let room = self.accumulator.try_room(size_bound(&record))?;
        self.put(topic, target, record, room, self.deadline(), None)
    }

    /// Sends what is gathered without waiting for more, and waits until every record that this producer and its clones have
    /// handed over before is acknowledged or given up, and until their callbacks have been called. It ends with their
    /// [delivery time-outs](Producer::delivery_timeout).
    ///
    /// What goes past the batches of a producer is known only to who sent it: [`Producer::send_unacknowledged`], and what
    /// [`Producer::send_encoded`] sends as it is.
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// for line in ["one", "two"] {
    ///     drop(producer.enqueue("lines", line).await?);
    /// }
    /// // `Ok`: both are on disk.
    /// producer.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future loses nothing: the records are sent, and the next flush tells what failed.
    ///
    /// # Errors
    /// [`Error::Undelivered`] when records have failed since the last flush, also such whose failure was told already.
    pub async fn flush(&self) -> Result<(), Error> {
        self.accumulator.flush(&self.account).await;
        self.account.take_failures()
    }

    /// Refuses further records, of clones too, and waits for those that it has as [`Producer::flush`] does. Closing again
    /// does no harm. Other producers of the client go on.
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// drop(producer.enqueue("orders", "12.50").await?);
    /// producer.close().await?;
    /// assert!(producer.send("orders", "too late").await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future loses nothing: the records are sent, and the producer is closed.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(&self) -> Result<(), Error> {
        self.account.close();
        self.flush().await
    }

    /// The partition to which [`Producer::send`] would send a record with this key; without a key, one after the other.
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// let partition = producer.partition_for("orders", Some(b"order 7")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future changes nothing.
    ///
    /// # Errors
    /// As [`Producer::partition_count`].
    pub async fn partition_for(&self, topic: &str, key: Option<&[u8]>) -> Result<PartitionIndex, Error> {
        let count = self.count_partitions(topic, self.deadline()).await?;
        self.partitioner.choose(key, count).ok_or_else(|| no_partition(topic))
    }

    /// How many partitions a topic has.
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// let count = producer.partition_count("orders").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future changes nothing.
    ///
    /// # Errors
    /// [`Error::Broker`] when the topic is unknown; when no broker answers within the delivery time-out.
    pub async fn partition_count(&self, topic: &str) -> Result<u32, Error> {
        Ok(self.cluster.route(topic, &mut self.retry(self.deadline())).await?.partition_count())
    }

    async fn hand_over(
        &self,
        topic: &str,
        record: Record,
        deadline: Instant,
        on_delivery: Option<OnDelivery>,
    ) -> Result<PendingDelivery, Error> {
        self.account.check_open()?;
        let target = match record.partition {
            Some(partition) => Target::Partition(partition),
            None => self.target(topic, &record, self.count_partitions(topic, deadline).await?)?,
        };
        let room = self.accumulator.room(size_bound(&record), deadline).await?;
        self.put(topic, target, record, room, deadline, on_delivery)
    }

    fn put(
        &self,
        topic: &str,
        target: Target,
        record: Record,
        room: OwnedSemaphorePermit,
        deadline: Instant,
        on_delivery: Option<OnDelivery>,
    ) -> Result<PendingDelivery, Error> {
        let bytes = size_bound(&record);
        let parcel = Parcel { record, on_delivery, sender: self.sender(self.settings.acks, deadline, room) };
        self.accumulator.append(topic, target, self.is_idempotent, parcel, bytes)
    }

    /// By the partition's lane, as a batch of its own.
    async fn send_whole(
        &self,
        topic: &str,
        partition: PartitionIndex,
        batch: (Bytes, u32),
        acks: Acks,
    ) -> Result<Deliveries, Error> {
        self.account.check_open()?;
        let deadline = self.deadline();
        let room = self.accumulator.room(batch.0.len(), deadline).await?;
        let sender = self.sender(acks, deadline, room);
        self.accumulator.append_batch(topic, partition, self.is_idempotent, batch, sender)?.await
    }

    fn sender(&self, acks: Acks, deadline: Instant, room: OwnedSemaphorePermit) -> Sender {
        let settings = BatchSettings { acks, ..self.settings };
        Sender { account: (**self.account).clone(), settings, deadline, room }
    }

    /// Where a record goes that names no partition, out of `count`.
    fn target(&self, topic: &str, record: &Record, count: u32) -> Result<Target, Error> {
        match &record.key {
            Some(key) => self.partitioner.choose(Some(key), count).map(Target::Partition),
            None => Some(Target::AnyOf(count)).filter(|_| count > 0),
        }
        .ok_or_else(|| no_partition(topic))
    }

    async fn count_partitions(&self, topic: &str, deadline: Instant) -> Result<u32, Error> {
        self.cluster.partition_count(topic, &mut self.retry(deadline)).await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.delivery_timeout
    }

    fn retry(&self, deadline: Instant) -> Retry {
        let retry = Retry::until("produce", deadline, self.settings.delivery_timeout, 0);
        retry.attempts_within(self.cluster.options.timeout)
    }
}

fn no_partition(topic: &str) -> Error {
    Error::Nonsense(format!("topic `{topic}` has no partition"))
}
