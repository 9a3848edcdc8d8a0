//! Sending records.

use std::sync::Arc;

use bytes::Bytes;
use ringmq_wire::PartitionIndex;
use ringmq_wire::batch::Compression;
use ringmq_wire::protocol::Acks;

use super::runtime_thread::RuntimeThread;
use crate::error::Error;
use crate::producer::{AckedBy, Deliveries, Delivery};
use crate::record::Record;

/// As [`crate::Producer`].
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
    #[must_use]
    pub fn acked_by(self, acked_by: AckedBy) -> Self {
        Self { inner: self.inner.acked_by(acked_by), thread: self.thread }
    }

    /// As [`crate::Producer::compression`].
    #[must_use]
    pub fn compression(self, compression: Compression) -> Self {
        Self { inner: self.inner.compression(compression), thread: self.thread }
    }

    /// As [`crate::Producer::idempotent`].
    #[must_use]
    pub fn idempotent(self, idempotent: bool) -> Self {
        Self { inner: self.inner.idempotent(idempotent), thread: self.thread }
    }

    /// As [`crate::Producer::send`].
    ///
    /// # Errors
    /// As [`crate::Producer::send`].
    pub fn send(&self, topic: &str, record: impl Into<Record>) -> Result<Delivery, Error> {
        self.thread.wait(self.inner.send(topic, record))
    }

    /// As [`crate::Producer::send_to`].
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
    /// # Errors
    /// As [`crate::Producer::send_batch`].
    pub fn send_batch(
        &self,
        topic: &str,
        partition: PartitionIndex,
        records: Vec<Record>,
    ) -> Result<Deliveries, Error> {
        self.thread.wait(self.inner.send_batch(topic, partition, records))
    }

    /// As [`crate::Producer::send_encoded`].
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
    /// # Errors
    /// As [`crate::Producer::send_unacknowledged`].
    pub fn send_unacknowledged(&self, topic: &str, record: impl Into<Record>) -> Result<PartitionIndex, Error> {
        self.thread.wait(self.inner.send_unacknowledged(topic, record))
    }

    /// As [`crate::Producer::partition_for`].
    ///
    /// # Errors
    /// As [`crate::Producer::partition_for`].
    pub fn partition_for(&self, topic: &str, key: Option<&[u8]>) -> Result<PartitionIndex, Error> {
        self.thread.wait(self.inner.partition_for(topic, key))
    }

    /// As [`crate::Producer::partition_count`].
    ///
    /// # Errors
    /// As [`crate::Producer::partition_count`].
    pub fn partition_count(&self, topic: &str) -> Result<u32, Error> {
        self.thread.wait(self.inner.partition_count(topic))
    }
}
