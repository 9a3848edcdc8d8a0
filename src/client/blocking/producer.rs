//! Sending records.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmq_wire::PartitionIndex;
use ringmq_wire::batch::Compression;
use ringmq_wire::protocol::Acks;

use super::runtime_thread::RuntimeThread;
use crate::delivery::{Deliveries, Delivery};
use crate::error::Error;
use crate::producer::AckedBy;
use crate::record::Record;

/// As [`crate::Producer`], but for what is on its way when it is dropped.
///
/// **Dropping** the client and all that was made from it ends their thread, and records that were
/// [enqueued](Producer::enqueue) and are not acknowledged then are lost: [`flush`](Producer::flush) or
/// [`close`](Producer::close) first. A producer that is dropped with such records logs how many they are, as the thread
/// does that ends before they are sent. A [`PendingDelivery`] keeps the thread.
///
/// ```no_run
/// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
/// let delivery = producer.send("orders", "12.50")?;
/// println!("on disk in partition {} at offset {}", delivery.partition, delivery.offset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Producer {
    inner: crate::Producer,
    thread: Arc<RuntimeThread>,
}

impl Producer {
    pub(super) fn new(inner: crate::Producer, thread: Arc<RuntimeThread>) -> Self {
        Self { inner, thread }
    }

    /// As [`crate::Producer::acked_by`].
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::blocking::Client) -> Result<(), ringmq_client::Error> {
    /// let producer = client.producer().acked_by(ringmq_client::AckedBy::Leader);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn acked_by(self, acked_by: AckedBy) -> Self {
        Self { inner: self.inner.acked_by(acked_by), thread: self.thread }
    }

    /// As [`crate::Producer::compression`].
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::blocking::Client) -> Result<(), ringmq_client::Error> {
    /// let producer = client.producer().compression(ringmq_client::Compression::Lz4);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn compression(self, compression: Compression) -> Self {
        Self { inner: self.inner.compression(compression), thread: self.thread }
    }

    /// As [`crate::Producer::idempotent`].
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::blocking::Client) -> Result<(), ringmq_client::Error> {
    /// let producer = client.producer().idempotent(false);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn idempotent(self, idempotent: bool) -> Self {
        Self { inner: self.inner.idempotent(idempotent), thread: self.thread }
    }

    /// As [`crate::Producer::linger`].
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::blocking::Client) -> Result<(), ringmq_client::Error> {
    /// let producer = client.producer().linger(std::time::Duration::from_millis(50));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn linger(self, linger: Duration) -> Self {
        Self { inner: self.inner.linger(linger), thread: self.thread }
    }

    /// As [`crate::Producer::batch_bytes_max`].
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::blocking::Client) -> Result<(), ringmq_client::Error> {
    /// let producer = client.producer().batch_bytes_max(1_000_000);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn batch_bytes_max(self, bytes: usize) -> Self {
        Self { inner: self.inner.batch_bytes_max(bytes), thread: self.thread }
    }

    /// As [`crate::Producer::delivery_timeout`].
    ///
    /// ```no_run
    /// # fn example(client: ringmq_client::blocking::Client) -> Result<(), ringmq_client::Error> {
    /// let producer = client.producer().delivery_timeout(std::time::Duration::MAX);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn delivery_timeout(self, timeout: Duration) -> Self {
        Self { inner: self.inner.delivery_timeout(timeout), thread: self.thread }
    }

    /// As [`crate::Producer::send`].
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// let delivery = producer.send("orders", "12.50")?;
    /// println!("on disk at offset {}", delivery.offset);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::send`].
    pub fn send(&self, topic: &str, record: impl Into<Record>) -> Result<Delivery, Error> {
        self.thread.wait(self.inner.send(topic, record))
    }

    /// As [`crate::Producer::send_to`].
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::PartitionIndex;
    /// producer.send_to("orders", PartitionIndex::new(3), "12.50")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::send_to`].
    pub fn send_to(
        &self,
        topic: &str,
        partition: PartitionIndex,
        record: impl Into<Record>,
    ) -> Result<Delivery, Error> {
        self.thread.wait(self.inner.send_to(topic, partition, record))
    }

    /// As [`crate::Producer::send_batch`].
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// for delivery in producer.send_batch("orders", ["12.50", "8.00"])? {
    ///     println!("{:?}", delivery?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::send_batch`].
    pub fn send_batch(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = impl Into<Record>>,
    ) -> Result<Vec<Result<Delivery, Error>>, Error> {
        self.thread.wait(self.inner.send_batch(topic, records))
    }

    /// As [`crate::Producer::send_batch_to`].
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{PartitionIndex, Record};
    /// let lines = ["Dear Ada,", "it runs."].map(Record::value);
    /// let stored = producer.send_batch_to("letters", PartitionIndex::new(0), lines.into())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::send_batch_to`].
    pub fn send_batch_to(
        &self,
        topic: &str,
        partition: PartitionIndex,
        records: Vec<Record>,
    ) -> Result<Deliveries, Error> {
        self.thread.wait(self.inner.send_batch_to(topic, partition, records))
    }

    /// As [`crate::Producer::enqueue`]: waits for room alone.
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// let pending: Result<Vec<_>, _> = (0..1000).map(|number| producer.enqueue("numbers", number.to_string())).collect();
    /// for pending in pending? {
    ///     println!("offset {}", pending.wait()?.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::enqueue`].
    pub fn enqueue(&self, topic: &str, record: impl Into<Record>) -> Result<PendingDelivery, Error> {
        let inner = self.thread.wait(self.inner.enqueue(topic, record))?;
        Ok(PendingDelivery { inner, thread: self.thread.clone() })
    }

    /// As [`crate::Producer::enqueue_with`]. The callback runs on the client's thread, and must not wait for anything of
    /// this client.
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// producer.enqueue_with("orders", "12.50", |delivery| println!("{delivery:?}"))?;
    /// producer.flush()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::enqueue_with`].
    pub fn enqueue_with(
        &self,
        topic: &str,
        record: impl Into<Record>,
        on_delivery: impl FnOnce(Result<Delivery, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        self.thread.wait(self.inner.enqueue_with(topic, record, on_delivery))
    }

    /// As [`crate::Producer::try_enqueue`].
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// producer.partition_count("load")?;
    /// drop(producer.try_enqueue("load", "0.7")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::try_enqueue`].
    pub fn try_enqueue(&self, topic: &str, record: impl Into<Record>) -> Result<PendingDelivery, Error> {
        let inner = self.inner.try_enqueue(topic, record)?;
        Ok(PendingDelivery { inner, thread: self.thread.clone() })
    }

    /// As [`crate::Producer::flush`].
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// drop(producer.enqueue("orders", "12.50")?);
    /// producer.flush()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::flush`].
    pub fn flush(&self) -> Result<(), Error> {
        self.thread.wait(self.inner.flush())
    }

    /// As [`crate::Producer::close`]. Without it, what is on its way is lost when the client and all that was made from it
    /// are dropped: their thread ends then.
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// drop(producer.enqueue("orders", "12.50")?);
    /// producer.close()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::close`].
    pub fn close(&self) -> Result<(), Error> {
        self.thread.wait(self.inner.close())
    }

    /// As [`crate::Producer::send_encoded`].
    ///
    /// ```no_run
    /// # fn example(batch: bytes::Bytes, producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{Acks, PartitionIndex};
    /// producer.send_encoded("orders", PartitionIndex::new(0), batch, Acks::All)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::send_encoded`].
    pub fn send_encoded(
        &self,
        topic: &str,
        partition: PartitionIndex,
        batches: Bytes,
        acks: Acks,
    ) -> Result<Option<Deliveries>, Error> {
        self.thread.wait(self.inner.send_encoded(topic, partition, batches, acks))
    }

    /// As [`crate::Producer::send_unacknowledged`].
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// producer.send_unacknowledged("load", "0.7")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::send_unacknowledged`].
    pub fn send_unacknowledged(&self, topic: &str, record: impl Into<Record>) -> Result<PartitionIndex, Error> {
        self.thread.wait(self.inner.send_unacknowledged(topic, record))
    }

    /// As [`crate::Producer::partition_for`].
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// let partition = producer.partition_for("orders", Some(b"order 7"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::partition_for`].
    pub fn partition_for(&self, topic: &str, key: Option<&[u8]>) -> Result<PartitionIndex, Error> {
        self.thread.wait(self.inner.partition_for(topic, key))
    }

    /// As [`crate::Producer::partition_count`].
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// let count = producer.partition_count("orders")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::partition_count`].
    pub fn partition_count(&self, topic: &str) -> Result<u32, Error> {
        self.thread.wait(self.inner.partition_count(topic))
    }
}

/// As [`crate::PendingDelivery`]: a record that is on its way. It keeps the client's thread.
///
/// ```no_run
/// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
/// let pending = producer.enqueue("orders", "12.50")?;
/// println!("stored at offset {}", pending.wait()?.offset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "whether the record is stored is known when this has waited; drop it where a flush is to tell"]
pub struct PendingDelivery {
    inner: crate::PendingDelivery,
    thread: Arc<RuntimeThread>,
}

impl PendingDelivery {
    /// Waits until the record is acknowledged or given up.
    ///
    /// ```no_run
    /// # fn example(producer: ringmq_client::blocking::Producer) -> Result<(), ringmq_client::Error> {
    /// let delivery = producer.enqueue("orders", "12.50")?.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Producer::send`].
    pub fn wait(self) -> Result<Delivery, Error> {
        self.thread.wait(self.inner)
    }
}
