//! Following a topic: all partitions at once, sent or fetched ahead within a bound.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ringmq_wire::{Offset, PartitionIndex, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::fetch::FetchOptions;
use crate::fetched::BatchReader;
use crate::guide::{self, Response};
use crate::record::ConsumedRecord;

/// Where a subscription starts, in every partition.
///
/// ```no_run
/// # async fn example(consumer: ringmq_client::Consumer) -> Result<(), ringmq_client::Error> {
/// use std::time::SystemTime;
/// use ringmq_client::{Start, SubscribeOptions};
/// let start = Start::Time(SystemTime::now().into());
/// let stream = consumer.stream("orders", SubscribeOptions { start, ..SubscribeOptions::default() }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the first record that is still there.
    #[default]
    Earliest,
    /// Behind the last record that is there now.
    Latest,
    /// At this offset.
    Offset(Offset),
    /// At the first record with this timestamp or a later one; where there is none, behind the last record.
    Time(Timestamp),
}

/// When a subscription ends.
///
/// ```
/// use ringmq_client::{SubscribeOptions, Until};
/// let what_is_there_now = SubscribeOptions { until: Until::CurrentEnd, ..SubscribeOptions::default() };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Until {
    /// Not by itself.
    #[default]
    Cancelled,
    /// When it has given every record that was there when it started.
    CurrentEnd,
}

/// What to subscribe to, and how.
///
/// ```
/// use ringmq_client::{FetchOptions, PartitionIndex, Start, SubscribeOptions};
/// let options = SubscribeOptions {
///     start: Start::Latest,
///     partitions: Some(vec![PartitionIndex::new(0)]),
///     // No more than 2 MiB of a shard are held ahead of the reader.
///     fetch: FetchOptions { max_bytes: 1 << 20, ..FetchOptions::default() },
///     ..SubscribeOptions::default()
/// };
/// ```
#[derive(Debug, Clone)]
pub struct SubscribeOptions {
    /// Where it starts. Default [`Start::Earliest`].
    pub start: Start,
    /// Where single partitions start instead, as [`RecordStream::positions`] gave it to a program that now goes on where
    /// it ended. Default: none.
    pub positions: BTreeMap<PartitionIndex, Offset>,
    /// When it ends. Default [`Until::Cancelled`].
    pub until: Until,
    /// The partitions; `None`, the default, for all.
    pub partitions: Option<Vec<PartitionIndex>>,
    /// How much is held ahead of the reader: for each shard of the topic at most twice `max_bytes` of batches, and what
    /// one batch may have beyond that.
    ///
    /// A broker sends records by itself, as many as that allows. It is asked for them with fetches instead, as these
    /// options say, where it cannot, where `min_bytes` is above 1, where half of the connection's requests in flight are
    /// subscriptions, and for partitions that come to a shard while others of it are subscribed to.
    pub fetch: FetchOptions,
    /// How long it goes on without any answer from a partition's broker before it fails. Default 60 s, so that a
    /// restart of the broker goes by.
    pub outage_max: Duration,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            start: Start::default(),
            positions: BTreeMap::new(),
            until: Until::default(),
            partitions: None,
            fetch: FetchOptions::default(),
            outage_max: Duration::from_secs(60),
        }
    }
}

/// A running subscription, read record by record. Dropping it ends it.
///
/// ```no_run
/// # async fn example(mut stream: ringmq_client::RecordStream) -> Result<(), ringmq_client::Error> {
/// while let Some(record) = stream.next().await? {
///     println!("{} of partition {}: {:?}", record.offset, record.partition, record.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RecordStream {
    /// Bounded by the permits in it.
    responses: mpsc::UnboundedReceiver<Result<Response, Error>>,
    /// The response that is being read.
    response: Option<Response>,
    reader: Option<BatchReader>,
    records: VecDeque<ConsumedRecord>,
    /// Behind what was given out of the batches before this one.
    positions: BTreeMap<PartitionIndex, Offset>,
    /// Behind what was given last.
    position: Option<(PartitionIndex, Offset)>,
    /// Behind its end, or behind an error.
    is_over: bool,
    /// Its tasks end when it is dropped.
    _guide: JoinSet<()>,
}

impl RecordStream {
    pub(crate) async fn start(cluster: Arc<Cluster>, topic: &str, options: SubscribeOptions) -> Result<Self, Error> {
        let following = guide::Following::start(cluster, topic, options).await?;
        let (positions, responses, guide) = (following.positions, following.responses, following.guide);
        let (response, reader, records) = (None, None, VecDeque::new());
        Ok(Self { responses, response, reader, records, positions, position: None, is_over: false, _guide: guide })
    }

    /// Of every partition the offset behind the last record that was given, or where it started: what a program saves,
    /// once it is done with these records, to go on there by [`SubscribeOptions::positions`].
    ///
    /// ```no_run
    /// # async fn example(client: ringmq_client::Client) -> Result<(), ringmq_client::Error> {
    /// use ringmq_client::SubscribeOptions;
    /// let consumer = client.consumer();
    /// let mut stream = consumer.stream("orders", SubscribeOptions::default()).await?;
    /// let first = stream.next().await?;
    /// let positions = stream.positions();
    /// drop(stream);
    ///
    /// // Later: the record behind the first one of its partition, and what no partition has given yet.
    /// let mut stream = consumer.stream("orders", SubscribeOptions { positions, ..SubscribeOptions::default() }).await?;
    /// # let _ = (first, stream.next().await?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn positions(&self) -> BTreeMap<PartitionIndex, Offset> {
        let mut positions = self.positions.clone();
        positions.extend(self.position);
        positions
    }

    /// The next record; `None` when the subscription's end is reached.
    ///
    /// ```no_run
    /// # async fn example(mut stream: ringmq_client::RecordStream) -> Result<(), ringmq_client::Error> {
    /// use std::time::Duration;
    /// loop {
    ///     tokio::select! {
    ///         record = stream.next() => println!("{record:?}"),
    ///         // No record is lost by it.
    ///         () = tokio::time::sleep(Duration::from_secs(1)) => println!("still waiting"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future loses nothing: the next call gives what this one would have given.
    ///
    /// # Errors
    /// [`Error::Broker`] when the topic was deleted or the position is no longer in the log, [`Error::Unreadable`] for a
    /// damaged batch, [`Error::TimedOut`] after an outage. The subscription is then over.
    pub async fn next(&mut self) -> Result<Option<ConsumedRecord>, Error> {
        while self.records.is_empty() {
            if !self.fill().await? {
                return Ok(None);
            }
        }
        let record = self.records.pop_front();
        self.position = record.as_ref().and_then(behind).or(self.position);
        Ok(record)
    }

    /// As [`RecordStream::next`], with all records of the next batch at once; they are of one partition.
    ///
    /// ```no_run
    /// # async fn example(mut stream: ringmq_client::RecordStream) -> Result<(), ringmq_client::Error> {
    /// while let Some(records) = stream.next_batch().await? {
    ///     println!("{} records of partition {}", records.len(), records[0].partition);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// As [`RecordStream::next`].
    ///
    /// # Errors
    /// As [`RecordStream::next`].
    pub async fn next_batch(&mut self) -> Result<Option<Vec<ConsumedRecord>>, Error> {
        while self.records.is_empty() {
            if !self.fill().await? {
                return Ok(None);
            }
        }
        self.position = self.records.back().and_then(behind).or(self.position);
        Ok(Some(std::mem::take(&mut self.records).into()))
    }

    /// Decodes one more batch, if need be out of the next response. `false` at the end.
    async fn fill(&mut self) -> Result<bool, Error> {
        if self.is_over {
            return Ok(false);
        }
        // The records of one batch are of one partition.
        self.positions.extend(self.position.take());
        let filled = self.try_fill().await;
        self.is_over = !matches!(filled, Ok(true));
        filled
    }

    async fn try_fill(&mut self) -> Result<bool, Error> {
        if let Some(reader) = &mut self.reader {
            let mut records = Vec::from(std::mem::take(&mut self.records));
            let more = reader.read_batch(&mut records)?;
            self.records = records.into();
            if more {
                return Ok(true);
            }
        }
        loop {
            if let Some(section) = self.response.as_mut().and_then(|response| response.sections.pop_front()) {
                self.reader = Some(BatchReader::new(section.verified, section.until));
                return Ok(true);
            }
            self.reader = None;
            self.response = None;
            match self.responses.recv().await {
                Some(response) => self.response = Some(response?),
                None => return Ok(false),
            }
        }
    }
}

/// The position behind a record.
fn behind(record: &ConsumedRecord) -> Option<(PartitionIndex, Offset)> {
    record.offset.checked_add(1).map(|next| (record.partition, next))
}
