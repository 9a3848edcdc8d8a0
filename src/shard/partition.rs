//! One partition on the shard that owns it: its checks, and its log. Nothing here waits for anything.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use ringmq_segment::{
    AppendError, Appending, CompactError, Corruption, DeleteRecordsError, InvalidConfig, Log, LogConfig, LogId,
    Payload, ReadError, RetainError, Validation,
};
use ringmq_wire::batch::BatchLimits;
use ringmq_wire::{ErrorCode, Offset, TopicName, WireError};

use crate::error;
use crate::throttle::Throttle;
use crate::turns::Turns;

/// A partition that this shard owns.
pub(crate) struct Partition {
    id: LogId,
    topic: TopicName,
    /// What a batch may ask for; may change at any time.
    limits: Cell<BatchLimits>,
    state: RefCell<State>,
    failure_log: Throttle,
}

/// The most often that one partition's failures are logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

enum State {
    Online(Log),
    /// The log cannot be used: why, as clients see it.
    Offline(WireError),
    Deleted,
}

impl Partition {
    pub(crate) fn online(id: LogId, topic: TopicName, limits: BatchLimits, log: Log) -> Self {
        Self::new(id, topic, limits, State::Online(log))
    }

    /// A partition whose log could not be opened; the caller has logged why.
    pub(crate) fn offline(id: LogId, topic: TopicName, limits: BatchLimits, reason: WireError) -> Self {
        Self::new(id, topic, limits, State::Offline(reason))
    }

    fn new(id: LogId, topic: TopicName, limits: BatchLimits, state: State) -> Self {
        Self { id, topic, limits: Cell::new(limits), state: RefCell::new(state), failure_log: Throttle::new(LOG_EVERY) }
    }

    pub(crate) fn id(&self) -> LogId {
        self.id
    }

    /// The largest batch that is taken, in bytes.
    pub(crate) fn batch_bytes_max(&self) -> usize {
        self.limits.get().batch_bytes_max as usize
    }

    /// Goes by other limits from the next append on.
    ///
    /// # Errors
    /// When no log can be kept so; the batches' limits hold all the same.
    pub(crate) fn reconfigure(&self, limits: BatchLimits, config: LogConfig) -> Result<(), InvalidConfig> {
        self.limits.set(limits);
        match &*self.state.borrow() {
            State::Online(log) => log.reconfigure(config),
            // It is opened with what holds then.
            State::Offline(_) | State::Deleted => Ok(()),
        }
    }

    /// The partition's log, for reading.
    ///
    /// # Errors
    /// `PartitionOffline` with the reason, `TopicDeleted`.
    pub(crate) fn log(&self) -> Result<Log, WireError> {
        match &*self.state.borrow() {
            State::Online(log) => Ok(log.clone()),
            State::Offline(reason) => Err(reason.clone()),
            State::Deleted => Err(self.deleted()),
        }
    }

    /// Checks the batches and stages them; what it returns is done when they are durable. A payload of many batches gives
    /// way between them, so one caller's appends keep their order only if it awaits each before the next.
    ///
    /// # Errors
    /// What is wrong with the batches, or why the partition takes none. Nothing was staged then.
    pub(crate) async fn append(&self, payload: Payload, turns: &mut Turns) -> Result<Appending, WireError> {
        let (log, limits) = (self.usable_log()?, self.limits.get());
        let rejected = |rejected| error::rejected(&rejected);
        let mut validation = Validation::of(payload);
        while let Some(bytes) = validation.next_batch(&limits).map_err(rejected)? {
            turns.give_way_for(bytes).await;
        }
        Ok(log.append(validation.finish(&limits).map_err(rejected)?))
    }

    /// What a client is told of an append that was not acknowledged.
    pub(crate) fn append_failed(&self, cause: &AppendError) -> WireError {
        let error = error::append_failed(cause).unwrap_or_else(|| self.closed());
        // The log has said once that it went offline, and why; and what a producer does wrong is told to the producer.
        if !matches!(cause, AppendError::Poisoned(_) | AppendError::OutOfSequence(_)) {
            self.log_failure("an append was not acknowledged", &error);
        }
        error
    }

    /// What a client is told of a read that failed.
    pub(crate) fn read_failed(&self, cause: &ReadError) -> WireError {
        let error = error::read_failed(cause).unwrap_or_else(|| self.closed());
        if error.code != ErrorCode::OffsetOutOfRange {
            self.log_failure("a read failed", &error);
        }
        error
    }

    /// A round of compaction did not come to its end; the next one tries again.
    pub(crate) fn compaction_failed(&self, cause: &CompactError) {
        let error = error::chain(cause);
        if let Some(held_back) = self.failure_log.pass() {
            tracing::warn!(topic = %self.topic, partition = %self.id.partition, %error, held_back, "compaction failed");
        }
    }

    /// A frame of a sealed segment is not what was written. The scrubber reports each once.
    pub(crate) fn rotted(&self, damage: &Corruption) {
        let Corruption { segment, position, expected, damage: found, proven_end, .. } = damage;
        tracing::error!(
            topic = %self.topic, partition = %self.id.partition, segment = %segment.display(), position, offset = %expected,
            found = %found, end = %proven_end,
            "a sealed segment is damaged: its records there cannot be read, the rest of the partition serves. Restore the \
             file from a copy while the broker is stopped"
        );
    }

    /// A sealed segment could not be read as a whole.
    pub(crate) fn scrub_failed(&self, segment: Offset, error: &std::io::Error) {
        if let Some(held_back) = self.failure_log.pass() {
            let (topic, partition) = (&self.topic, self.id.partition);
            tracing::error!(%topic, %partition, %segment, %error, held_back, "a sealed segment cannot be read");
        }
    }

    /// Records that should go are still there; the next look tries again.
    pub(crate) fn retention_failed(&self, cause: &RetainError) {
        let error = error::chain(cause);
        if let Some(held_back) = self.failure_log.pass() {
            tracing::warn!(topic = %self.topic, partition = %self.id.partition, %error, held_back, "retention failed");
        }
    }

    /// What a client is told of records that were not deleted.
    pub(crate) fn delete_records_failed(&self, cause: &DeleteRecordsError) -> WireError {
        let error = error::delete_records_failed(cause).unwrap_or_else(|| self.closed());
        if let DeleteRecordsError::Record { .. } = cause {
            self.log_failure("records were not deleted", &error);
        }
        error
    }

    fn log_failure(&self, what: &str, error: &WireError) {
        if let Some(held_back) = self.failure_log.pass() {
            tracing::warn!(topic = %self.topic, partition = %self.id.partition, %error, held_back, "{what}");
        }
    }

    /// Takes the log out to be deleted; from here on everyone is told that the topic is gone.
    pub(crate) fn delete(&self) -> Option<Log> {
        match self.state.replace(State::Deleted) {
            State::Online(log) => Some(log),
            State::Offline(_) | State::Deleted => None,
        }
    }

    /// The partition's log, if it can be written as well.
    ///
    /// # Errors
    /// As [`Self::log`], and when its storage failed.
    pub(crate) fn usable_log(&self) -> Result<Log, WireError> {
        let log = self.log()?;
        match log.poisoned() {
            Some(poison) => Err(error::poisoned(&poison)),
            None => Ok(log),
        }
    }

    /// A log that was closed under a request: the topic was deleted, or the shard stops.
    fn closed(&self) -> WireError {
        match &*self.state.borrow() {
            State::Deleted => self.deleted(),
            State::Online(_) | State::Offline(_) => WireError::from(ErrorCode::ShuttingDown),
        }
    }

    fn deleted(&self) -> WireError {
        WireError::new(ErrorCode::TopicDeleted, format!("topic {:?} was deleted", &*self.topic))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::io;
    use std::path::Path;
    use std::pin::pin;

    use bytes::Bytes;
    use ringmq_runtime::fs;
    use ringmq_runtime::sim::{Sim, SimConfig};
    use ringmq_segment::{GenerationHistory, Generations, LogDeps, TailCache};
    use ringmq_wire::batch::{BatchBuilder, Compression, RecordRef};
    use ringmq_wire::{Offset, PartitionIndex, ShardIndex, Timestamp, TopicId};

    use super::*;
    use crate::limits::BYTES_IN_A_ROW_MAX;

    fn batch(bytes: usize) -> Bytes {
        let mut builder = BatchBuilder::new(Compression::None);
        let value = vec![7; bytes];
        let record = RecordRef { timestamp: Timestamp::new(1), key: None, value: Some(&value), headers: &[] };
        builder.append(&record).unwrap();
        builder.finish().unwrap()
    }

    async fn open() -> Partition {
        fs::create_dir_all("/data").await.unwrap();
        fs::sync_dir("/").await.unwrap();
        let tables = Path::new("/data/generations");
        let history = GenerationHistory::load(tables).await.unwrap();
        let generations = Generations::new(tables, ShardIndex::new(0), history);
        let deps = LogDeps::without_journal(generations, TailCache::new(1 << 20));
        let id = LogId { topic_id: TopicId::from_random_bytes([7; 16]), partition: PartitionIndex::new(0) };
        let (log, _) = Log::open(Path::new("/data"), id, LogConfig::default(), &deps).await.unwrap();
        let limits = BatchLimits { batch_bytes_max: 10_000, ..BatchLimits::default() };
        Partition::online(id, TopicName::parse("t").unwrap(), limits, log)
    }

    /// What a producer is told.
    async fn append(partition: &Partition, batches: Bytes) -> Result<Offset, ErrorCode> {
        let appending =
            partition.append(Payload::Copied(batches), &mut Turns::default()).await.map_err(|error| error.code)?;
        let appended = appending.await.map_err(|cause| partition.append_failed(&cause).code)?;
        Ok(appended.base_offset)
    }

    /// What a consumer is told.
    async fn read(partition: &Partition, from: i64) -> Result<usize, ErrorCode> {
        let log = partition.log().map_err(|error| error.code)?;
        let read = log.read(Offset::new(from), 1 << 20).await;
        read.map(|read| read.bytes).map_err(|cause| partition.read_failed(&cause).code)
    }

    #[test]
    fn a_batch_that_breaks_a_rule_is_refused_and_takes_no_offset() {
        Sim::new(SimConfig::with_seed(1)).run(|| async {
            let partition = open().await;
            let mut corrupt = batch(10).to_vec();
            *corrupt.last_mut().unwrap() ^= 1;
            for (batches, expected) in [
                (batch(20_000), ErrorCode::RecordTooLarge),
                (Bytes::from(corrupt), ErrorCode::CorruptBatch),
                (batch(10).slice(..20), ErrorCode::InvalidBatch),
                (Bytes::new(), ErrorCode::InvalidBatch),
            ] {
                assert_eq!(append(&partition, batches).await, Err(expected));
            }
            assert_eq!(append(&partition, batch(10)).await, Ok(Offset::ZERO));
            assert_eq!(read(&partition, 2).await, Err(ErrorCode::OffsetOutOfRange));
        });
    }

    #[test]
    fn new_limits_hold_from_the_next_append_on() {
        Sim::new(SimConfig::with_seed(6)).run(|| async {
            let partition = open().await;
            assert_eq!(append(&partition, batch(20_000)).await, Err(ErrorCode::RecordTooLarge));
            let larger = BatchLimits { batch_bytes_max: 30_000, ..BatchLimits::default() };
            partition.reconfigure(larger, LogConfig::default()).unwrap();
            assert_eq!(append(&partition, batch(20_000)).await, Ok(Offset::ZERO));
            let smaller = BatchLimits { batch_bytes_max: 1_000, ..BatchLimits::default() };
            partition.reconfigure(smaller, LogConfig::default()).unwrap();
            assert_eq!(append(&partition, batch(2_000)).await, Err(ErrorCode::RecordTooLarge));
            assert_eq!(read(&partition, 0).await, Ok(batch(20_000).len()), "what is there stays as it is");
        });
    }

    #[test]
    fn the_core_works_for_others_between_the_batches_of_a_long_append() {
        Sim::new(SimConfig::with_seed(5)).run(|| async {
            let partition = open().await;
            let batches = Bytes::from(batch(9_000).repeat(400));
            let mut turns = Turns::default();
            let mut appending = pin!(partition.append(Payload::Copied(batches.clone()), &mut turns));
            let mut given_way = 0;
            let staged = poll_fn(|cx| {
                let polled = appending.as_mut().poll(cx);
                given_way += usize::from(polled.is_pending());
                polled
            });
            let appended = staged.await.unwrap().await.unwrap();
            assert_eq!(appended.next_offset, Offset::new(400));
            assert_eq!(given_way, batches.len() / BYTES_IN_A_ROW_MAX);
        });
    }

    #[test]
    fn a_full_disk_refuses_appends_until_there_is_room() {
        let sim = Sim::new(SimConfig::with_seed(2));
        sim.run(|| async {
            let partition = open().await;
            sim.disk().set_capacity(0);
            assert_eq!(append(&partition, batch(10)).await, Err(ErrorCode::StorageFull));
            sim.disk().set_capacity(1 << 30);
            assert_eq!(append(&partition, batch(10)).await, Ok(Offset::ZERO));
        });
    }

    #[test]
    fn a_failed_write_takes_the_partition_offline_and_leaves_what_is_durable() {
        let sim = Sim::new(SimConfig::with_seed(3));
        sim.run(|| async {
            let partition = open().await;
            assert_eq!(append(&partition, batch(10)).await, Ok(Offset::ZERO));
            sim.disk().fail_next_write("*.log", io::ErrorKind::Other);
            assert_eq!(append(&partition, batch(10)).await, Err(ErrorCode::StorageFailed));
            assert_eq!(append(&partition, batch(10)).await, Err(ErrorCode::PartitionOffline));
            assert!(partition.usable_log().is_err());
            assert_eq!(read(&partition, 0).await, Ok(batch(10).len()));
        });
    }

    #[test]
    fn who_asks_for_a_closed_log_is_told_whether_it_comes_back() {
        Sim::new(SimConfig::with_seed(4)).run(|| async {
            let partition = open().await;
            assert_eq!(append(&partition, batch(10)).await, Ok(Offset::ZERO));
            partition.log().unwrap().close().await.unwrap();
            assert_eq!(append(&partition, batch(10)).await, Err(ErrorCode::ShuttingDown));
            assert_eq!(read(&partition, 0).await, Err(ErrorCode::ShuttingDown));

            let log = partition.delete().unwrap();
            assert!(partition.delete().is_none(), "only one takes it out");
            assert_eq!(append(&partition, batch(10)).await, Err(ErrorCode::TopicDeleted));
            let read = log.read(Offset::ZERO, 1).await.unwrap_err();
            assert_eq!(partition.read_failed(&read).code, ErrorCode::TopicDeleted, "also who began before");
        });
    }
}
