//! Fetching records, asking for offsets, subscribing.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmq_wire::protocol::OffsetSpec;
use ringmq_wire::{Offset, PartitionIndex};

use super::runtime_thread::RuntimeThread;
use crate::error::{BoxError, Error};
use crate::fetch::{FetchFrom, FetchOptions, Fetched, RawFetched};
use crate::list_offsets::{ListOffset, PartitionOffset, TopicOffsets};
use crate::record::ConsumedRecord;
use crate::subscription::{Start, SubscribeOptions};

/// As [`crate::Consumer`].
///
/// ```no_run
/// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
/// use ringmq_client::SubscribeOptions;
/// for record in consumer.stream("orders", SubscribeOptions::default())? {
///     println!("{:?}", record?.value);
/// }
/// # Ok(())
/// # }
/// ```
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
    /// ```no_run
    /// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{FetchOptions, Offset, PartitionIndex};
    /// let fetched = consumer.fetch("orders", PartitionIndex::new(0), Offset::ZERO, FetchOptions::default())?;
    /// # Ok(())
    /// # }
    /// ```
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
    /// ```no_run
    /// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{FetchFrom, FetchOptions, Offset, PartitionIndex};
    /// let target = FetchFrom { topic: "orders".to_owned(), partition: PartitionIndex::new(0), offset: Offset::ZERO };
    /// let fetched = consumer.fetch_many(&[target], FetchOptions::no_wait());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Consumer::fetch_many`].
    pub fn fetch_many(&self, targets: &[FetchFrom], options: FetchOptions) -> Vec<Result<Fetched, Error>> {
        self.thread.wait(self.inner.fetch_many(targets, options))
    }

    /// As [`crate::Consumer::fetch_raw`].
    ///
    /// ```no_run
    /// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{FetchOptions, Offset, PartitionIndex};
    /// let raw = consumer.fetch_raw("orders", PartitionIndex::new(0), Offset::ZERO, FetchOptions::no_wait())?;
    /// # Ok(())
    /// # }
    /// ```
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
    /// ```no_run
    /// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::OffsetSpec;
    /// for end in consumer.list_offsets("orders", OffsetSpec::Latest)? {
    ///     println!("partition {} ends at {:?}", end.partition, end.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Consumer::list_offsets`].
    pub fn list_offsets(&self, topic: &str, at: OffsetSpec) -> Result<Vec<PartitionOffset>, Error> {
        self.thread.wait(self.inner.list_offsets(topic, at))
    }

    /// As [`crate::Consumer::list_offsets_each`].
    ///
    /// ```no_run
    /// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::OffsetSpec;
    /// for end in consumer.list_offsets_each("orders", OffsetSpec::Latest)? {
    ///     println!("{:?}", end.map(|end| end.offset));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Consumer::list_offsets_each`].
    pub fn list_offsets_each(&self, topic: &str, at: OffsetSpec) -> Result<Vec<Result<PartitionOffset, Error>>, Error> {
        self.thread.wait(self.inner.list_offsets_each(topic, at))
    }

    /// As [`crate::Consumer::list_offsets_of`].
    ///
    /// ```no_run
    /// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{OffsetSpec, PartitionIndex};
    /// let some = [PartitionIndex::new(0), PartitionIndex::new(3)];
    /// let starts = consumer.list_offsets_of("orders", &some, OffsetSpec::Earliest)?;
    /// # Ok(())
    /// # }
    /// ```
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

    /// As [`crate::Consumer::list_offsets_of_topics`].
    ///
    /// ```no_run
    /// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::OffsetSpec;
    /// for ends in consumer.list_offsets_of_topics(&["orders", "letters"], OffsetSpec::Latest)? {
    ///     for end in ends? {
    ///         println!("{:?}", end?);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Consumer::list_offsets_of_topics`].
    pub fn list_offsets_of_topics(
        &self,
        topics: &[impl AsRef<str>],
        at: OffsetSpec,
    ) -> Result<Vec<TopicOffsets>, Error> {
        self.thread.wait(self.inner.list_offsets_of_topics(topics, at))
    }

    /// As [`crate::Consumer::list_offsets_many`].
    ///
    /// ```no_run
    /// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{ListOffset, OffsetSpec, PartitionIndex};
    /// let (partition, at) = (PartitionIndex::new(0), OffsetSpec::Latest);
    /// let wanted = ["orders", "letters"].map(|topic| ListOffset { topic: topic.to_owned(), partition, at });
    /// for end in consumer.list_offsets_many(&wanted)? {
    ///     println!("{:?}", end?.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Consumer::list_offsets_many`].
    pub fn list_offsets_many(&self, wanted: &[ListOffset]) -> Result<Vec<Result<PartitionOffset, Error>>, Error> {
        self.thread.wait(self.inner.list_offsets_many(wanted))
    }

    /// As [`crate::Consumer::list_offset`].
    ///
    /// ```no_run
    /// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{OffsetSpec, PartitionIndex, Timestamp};
    /// let at = OffsetSpec::Timestamp(Timestamp::new(1_763_856_000_000));
    /// let first = consumer.list_offset("orders", PartitionIndex::new(0), at)?;
    /// # Ok(())
    /// # }
    /// ```
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
    /// ```no_run
    /// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{ConsumedRecord, Start};
    /// consumer.subscribe("orders", Start::Earliest, |record: ConsumedRecord| {
    ///     println!("{:?}", record.value);
    ///     Ok::<_, std::io::Error>(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
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
    /// ```no_run
    /// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::{ConsumedRecord, SubscribeOptions, Until};
    /// let options = SubscribeOptions { until: Until::CurrentEnd, ..SubscribeOptions::default() };
    /// let mut count = 0;
    /// consumer.subscribe_with("orders", options, |_: ConsumedRecord| {
    ///     count += 1;
    ///     Ok::<_, std::io::Error>(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
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
    /// ```no_run
    /// # fn example(consumer: ringmq_client::blocking::Consumer) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::SubscribeOptions;
    /// for record in consumer.stream("orders", SubscribeOptions::default())? {
    ///     println!("{:?}", record?.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Consumer::stream`].
    pub fn stream(&self, topic: &str, options: SubscribeOptions) -> Result<RecordStream, Error> {
        let inner = self.thread.wait(self.inner.stream(topic, options))?;
        Ok(RecordStream { inner, thread: self.thread.clone() })
    }
}

/// As [`crate::RecordStream`]. It ends behind an error.
///
/// ```no_run
/// # fn example(mut stream: ringmq_client::blocking::RecordStream) -> Result<(), ringmq_client::Error> {
/// for record in &mut stream {
///     println!("{:?}", record?.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RecordStream {
    inner: crate::RecordStream,
    thread: Arc<RuntimeThread>,
}

impl RecordStream {
    /// As [`crate::RecordStream::positions`].
    ///
    /// ```no_run
    /// # fn example(mut stream: ringmq_client::blocking::RecordStream) -> Result<(), ringmq_client::Error> {
    /// let first = stream.next().transpose()?;
    /// println!("to go on there: {:?}", stream.positions());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn positions(&self) -> BTreeMap<PartitionIndex, Offset> {
        self.inner.positions()
    }

    /// As [`crate::RecordStream::next_batch`].
    ///
    /// ```no_run
    /// # fn example(mut stream: ringmq_client::blocking::RecordStream) -> Result<(), ringmq_client::Error> {
    /// while let Some(records) = stream.next_batch()? {
    ///     println!("{} records", records.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
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
