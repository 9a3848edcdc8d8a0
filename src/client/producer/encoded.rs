//! Sending what goes past the gathering: batches that are encoded already, and what nobody acknowledges.

use std::time::SystemTime;

use bytes::Bytes;
use ringmq_wire::batch::{BATCH_HEADER_BYTES, BatchBuilder, Compression, split_batches};
use ringmq_wire::protocol::Acks;
use ringmq_wire::{PartitionIndex, Timestamp};

use super::Producer;
use crate::accumulator::size_bound;
use crate::delivery::Deliveries;
use crate::error::Error;
use crate::produce::{self, Attempts};
use crate::record::Record;

impl Producer {
    /// Sends batches that are encoded already (see [`ringmq_wire::batch`]) to a partition: all are stored, side by side,
    /// or none. They are written from where they are, without a copy.
    ///
    /// A single batch without an identity gets this producer's (copied for that when `batches` is shared). What goes as it
    /// is, past this producer's batches, is not sent again when it may have been stored: several batches, one that has an
    /// identity, one whose checksum is wrong, and anything with [`Acks::None`] or from a producer that is not
    /// [idempotent](Producer::idempotent).
    ///
    /// `None` without acknowledgement ([`Acks::None`]): the records were handed to the operating system, no more.
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{Acks, Compression, PartitionIndex, Timestamp};
    /// use ringmq_wire::batch::{BatchBuilder, RecordRef};
    ///
    /// let mut batch = BatchBuilder::new(Compression::None);
    /// let record = RecordRef { timestamp: Timestamp::new(0), key: None, value: Some(b"12.50"), headers: &[] };
    /// batch.append(&record)?;
    /// producer.send_encoded("orders", PartitionIndex::new(0), batch.finish()?, Acks::All).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// As [`Producer::send`] for what gets this producer's identity. Other batches may be stored or not once they have
    /// been written.
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
        if self.is_idempotent
            && acks != Acks::None
            && let Some(record_count) = records_of_plain_batch(&batches)
        {
            return self.send_whole(topic, partition, (batches, record_count), acks).await.map(Some);
        }
        self.send_aside(topic, partition, batches, acks).await
    }

    /// Sends one record and waits for no acknowledgement, only until the operating system has taken it. A record that
    /// the broker refuses is lost without a word. Gives the partition that it went to.
    ///
    /// ```no_run
    /// # async fn example(producer: ringmq_client::Producer) -> Result<(), ringmq_client::Error> {
    /// let partition = producer.send_unacknowledged("load", "0.7").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future before the record was written sends nothing.
    ///
    /// # Errors
    /// When no connection can be opened, or it breaks meanwhile.
    pub async fn send_unacknowledged(&self, topic: &str, record: impl Into<Record>) -> Result<PartitionIndex, Error> {
        let record = record.into();
        let partition = match record.partition {
            Some(partition) => partition,
            None => self.partition_for(topic, record.key.as_deref()).await?,
        };
        let batch = encode(&[record], self.settings.compression)?;
        self.send_aside(topic, partition, batch, Acks::None).await?;
        Ok(partition)
    }

    /// Past the lanes, in no order to what they send.
    async fn send_aside(
        &self,
        topic: &str,
        partition: PartitionIndex,
        batches: Bytes,
        acks: Acks,
    ) -> Result<Option<Deliveries>, Error> {
        self.account.check_open()?;
        let mut retry = self.retry(self.deadline());
        let _room = self.accumulator.room(batches.len(), retry.deadline()).await?;
        produce::until_open(&self.cluster, topic, partition, (batches, acks), &mut retry, &Aside).await
    }
}

/// What goes past the lanes belongs to who waits for it: nobody else gives it up.
struct Aside;

impl Attempts for Aside {
    fn begin(&self) -> bool {
        true
    }

    fn placed(&self) {}

    fn not_stored(&self, _: &Error) {}
}

/// How many records there are, if this is one sound batch of nobody's.
fn records_of_plain_batch(batches: &Bytes) -> Option<u32> {
    let batch = split_batches(batches).next()?.ok()?;
    let is_plain = batch.bytes().len() == batches.len() && batch.header().producer() == Ok(None);
    // With another checksum the broker could not tell any more that it is damaged.
    (is_plain && batch.verify_checksum().is_ok()).then_some(batch.header().record_count)
}

/// One batch of `records`, in their order.
pub(super) fn encode(records: &[Record], compression: Compression) -> Result<Bytes, Error> {
    let capacity = BATCH_HEADER_BYTES + records.iter().map(size_bound).sum::<usize>();
    let mut builder = BatchBuilder::with_capacity(compression, capacity);
    let now = Timestamp::from(SystemTime::now());
    for record in records {
        let headers = record.headers.iter().map(|header| (header.key.as_str(), header.value.as_deref()));
        let timestamp = record.timestamp.unwrap_or(now);
        builder.append_parts(timestamp, record.key.as_deref(), record.value.as_deref(), headers)?;
    }
    Ok(builder.finish()?)
}

pub(super) fn too_many(records: usize) -> Error {
    Error::Argument(format!("{records} records are more than one batch can hold; send them in several"))
}
