//! Fetching records, asking for offsets, subscribing.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmq_wire::protocol::OffsetSpec;
use ringmq_wire::{Offset, PartitionIndex};

use super::runtime_thread::RuntimeThread;
use crate::error::{BoxError, Error};
use crate::fetch::{FetchFrom, FetchOptions, Fetched, RawFetched};
use crate::list_offsets::PartitionOffset;
use crate::record::ConsumedRecord;
use crate::subscription::{Start, SubscribeOptions};

/// As [`crate::Consumer`].
#[derive(Debug, Clone)]
pub struct Consumer {
    inner: crate::Consumer,
    thread: Arc<RuntimeThread>,
}

impl Consumer {
    pub(super) fn new(inner: crate::Consumer, thread: Arc<RuntimeThread>) -> Self {
        Self { inner, thread }
    }

    /// As [`crate::Consumer::fetch`].
    ///
    /// # Errors
    /// As [`crate::Consumer::fetch`].
    pub fn fetch(
        &self,
        topic: &str,
        partition: PartitionIndex,
        offset: Offset,
        options: FetchOptions,
    ) -> Result<Fetched, Error> {
        self.thread.wait(self.inner.fetch(topic, partition, offset, options))
    }

    /// As [`crate::Consumer::fetch_many`].
    ///
    /// # Errors
    /// As [`crate::Consumer::fetch_many`].
    pub fn fetch_many(&self, targets: &[FetchFrom], options: FetchOptions) -> Vec<Result<Fetched, Error>> {
        self.thread.wait(self.inner.fetch_many(targets, options))
    }

    /// As [`crate::Consumer::fetch_raw`].
    ///
    /// # Errors
    /// As [`crate::Consumer::fetch_raw`].
    pub fn fetch_raw(
        &self,
        topic: &str,
        partition: PartitionIndex,
        offset: Offset,
        options: FetchOptions,
    ) -> Result<RawFetched, Error> {
        self.thread.wait(self.inner.fetch_raw(topic, partition, offset, options))
    }

    /// As [`crate::Consumer::list_offsets`].
    ///
    /// # Errors
    /// As [`crate::Consumer::list_offsets`].
    pub fn list_offsets(&self, topic: &str, at: OffsetSpec) -> Result<Vec<PartitionOffset>, Error> {
        self.thread.wait(self.inner.list_offsets(topic, at))
    }

    /// As [`crate::Consumer::list_offsets_each`].
    ///
    /// # Errors
    /// As [`crate::Consumer::list_offsets_each`].
    pub fn list_offsets_each(&self, topic: &str, at: OffsetSpec) -> Result<Vec<Result<PartitionOffset, Error>>, Error> {
        self.thread.wait(self.inner.list_offsets_each(topic, at))
    }

    /// As [`crate::Consumer::list_offsets_of`].
    ///
    /// # Errors
    /// As [`crate::Consumer::list_offsets_of`].
    pub fn list_offsets_of(
        &self,
        topic: &str,
        partitions: &[PartitionIndex],
        at: OffsetSpec,
    ) -> Result<Vec<Result<PartitionOffset, Error>>, Error> {
        self.thread.wait(self.inner.list_offsets_of(topic, partitions, at))
    }

    /// As [`crate::Consumer::list_offset`].
    ///
    /// # Errors
    /// As [`crate::Consumer::list_offset`].
    pub fn list_offset(
        &self,
        topic: &str,
        partition: PartitionIndex,
        at: OffsetSpec,
    ) -> Result<PartitionOffset, Error> {
        self.thread.wait(self.inner.list_offset(topic, partition, at))
    }

    /// Calls `handler` with every record of a topic from `start` on, on this thread, until the handler fails.
    ///
    /// # Errors
    /// As [`crate::Consumer::subscribe`].
    pub fn subscribe<H, E>(&self, topic: &str, start: Start, handler: H) -> Result<(), Error>
    where
        H: FnMut(ConsumedRecord) -> Result<(), E>,
        E: Into<BoxError>,
    {
        self.subscribe_with(topic, SubscribeOptions { start, ..SubscribeOptions::default() }, handler)
    }

    /// As [`Consumer::subscribe`], with options. Returns without an error when the options have an end and it is
    /// reached.
    ///
    /// # Errors
    /// As [`crate::Consumer::subscribe`].
    pub fn subscribe_with<H, E>(&self, topic: &str, options: SubscribeOptions, mut handler: H) -> Result<(), Error>
    where
        H: FnMut(ConsumedRecord) -> Result<(), E>,
        E: Into<BoxError>,
    {
        let handler = |record| std::future::ready(handler(record));
        self.thread.wait(self.inner.subscribe_with(topic, options, handler))
    }

    /// A subscription that is read record by record: an iterator that waits.
    ///
    /// # Errors
    /// As [`crate::Consumer::stream`].
    pub fn stream(&self, topic: &str, options: SubscribeOptions) -> Result<RecordStream, Error> {
        let inner = self.thread.wait(self.inner.stream(topic, options))?;
        Ok(RecordStream { inner, thread: self.thread.clone() })
    }
}

/// As [`crate::RecordStream`]. It ends behind an error.
#[derive(Debug)]
pub struct RecordStream {
    inner: crate::RecordStream,
    thread: Arc<RuntimeThread>,
}

impl RecordStream {
    /// As [`crate::RecordStream::positions`].
    #[must_use]
    pub fn positions(&self) -> BTreeMap<PartitionIndex, Offset> {
        self.inner.positions()
    }

    /// As [`crate::RecordStream::next_batch`].
    ///
    /// # Errors
    /// As [`crate::RecordStream::next_batch`].
    pub fn next_batch(&mut self) -> Result<Option<Vec<ConsumedRecord>>, Error> {
        self.thread.wait(self.inner.next_batch())
    }
}

impl Iterator for RecordStream {
    type Item = Result<ConsumedRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.thread.wait(self.inner.next()).transpose()
    }
}
