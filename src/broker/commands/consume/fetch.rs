//! Brings the batches of partitions as they are stored, several partitions at a time, ahead of what is printed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmq_client::{Consumer, Error, FetchOptions, OffsetSpec};
use ringmq_wire::batch::{BatchError, split_batches};
use ringmq_wire::{Offset, PartitionIndex};
use tokio::sync::{Semaphore, mpsc};

use super::range::Range;
use crate::commands::CommandError;
use crate::exit;

/// Memory of all fetches under way together.
const FETCHED_BYTES_MAX: usize = 64 << 20;

/// Bounds of a single fetch.
const FETCH_BYTES_MAX: usize = 4 << 20;
const FETCH_BYTES_MIN: usize = 64 << 10;

/// Partitions that are read at the same time; one that follows reads all, since each may get a record next.
const PARTITIONS_AT_A_TIME: usize = 8;

/// Chunks that wait to be printed.
const CHUNKS_WAITING_MAX: usize = 4;

/// How long a fetch at the end of a partition waits for more.
const FOLLOW_WAIT: Duration = Duration::from_secs(1);

/// How often one that follows all partitions looks for new ones.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// What one fetch brought.
#[derive(Debug)]
pub(super) struct Chunk {
    /// What it is a part of; `from` is the first offset wanted of this chunk.
    pub range: Range,
    /// Whole batches; the first may start before what is wanted.
    pub batches: Bytes,
    /// The offset behind the last of them.
    pub next: Offset,
}

/// Starts to read `ranges`; the receiver ends when all of them are read or have met an error. Partitions from the number
/// `watch_from` on, where there is one, are read from their starts as they are added.
pub(super) fn start(
    consumer: &Consumer,
    topic: &str,
    ranges: Vec<Range>,
    watch_from: Option<usize>,
) -> mpsc::Receiver<Result<Chunk, CommandError>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    let follows = ranges.iter().any(|range| range.end.is_none());
    let at_a_time = if follows { ranges.len().max(1) } else { PARTITIONS_AT_A_TIME };
    let turns = Arc::new(Semaphore::new(at_a_time));
    let bytes_max = (FETCHED_BYTES_MAX / at_a_time).clamp(FETCH_BYTES_MIN, FETCH_BYTES_MAX);
    let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
    let options =
        FetchOptions { max_wait: FOLLOW_WAIT, min_bytes: 1, max_bytes: bytes_max, partition_max_bytes: bytes_max };
    let reader = Reader { consumer: consumer.clone(), topic: topic.to_owned(), options, chunks: sender };
    if let Some(count) = watch_from {
        let chunks = reader.chunks.downgrade();
        tokio::spawn(watch(consumer.clone(), topic.to_owned(), options, chunks, count));
    }
    for range in ranges {
        let reader = reader.clone();
        let turns = turns.clone();
        tokio::spawn(async move {
            // The semaphore is never closed.
            let Ok(_turn) = turns.acquire().await else { return };
            reader.read(range).await;
        });
    }
    receiver
}

/// Reads partitions that are added, as long as others are read.
async fn watch(
    consumer: Consumer,
    topic: String,
    options: FetchOptions,
    chunks: mpsc::WeakSender<Result<Chunk, CommandError>>,
    mut count: usize,
) {
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let listed = consumer.list_offsets_each(&topic, OffsetSpec::Earliest).await;
        let Some(chunks) = chunks.upgrade() else { return };
        // During an outage there is nothing new; the readers tell of it.
        let Ok(listed) = listed else { continue };
        for (place, added) in listed.into_iter().enumerate().skip(count) {
            // Not ready yet: the next look finds it.
            let Ok(added) = added else { break };
            count = place + 1;
            let (consumer, topic, chunks) = (consumer.clone(), topic.clone(), chunks.clone());
            let range = Range { partition: added.partition, from: added.offset.unwrap_or(Offset::ZERO), end: None };
            // Nothing yet to print; its position is known from now on.
            let beginning = Chunk { range, batches: Bytes::new(), next: range.from };
            if chunks.send(Ok(beginning)).await.is_err() {
                return;
            }
            tokio::spawn(async move { Reader { consumer, topic, options, chunks }.read(range).await });
        }
    }
}

/// Reads one partition.
#[derive(Clone)]
struct Reader {
    consumer: Consumer,
    topic: String,
    options: FetchOptions,
    chunks: mpsc::Sender<Result<Chunk, CommandError>>,
}

impl Reader {
    async fn read(&self, mut range: Range) {
        while range.end.is_none_or(|end| range.from < end) {
            let step = match self.consumer.fetch_raw(&self.topic, range.partition, range.from, self.options).await {
                Ok(fetched) => self.hand_over(range, fetched.batches).await,
                Err(error) if range.end.is_none() && error.is_retriable() => {
                    // Whoever follows a log outlives the broker's restart.
                    exit::report(&format!("partition {}: {error}; trying again", range.partition));
                    Ok(Some(range.from))
                }
                Err(error) => Err(error.into()),
            };
            match step {
                Ok(Some(next)) => range.from = next,
                Ok(None) => return,
                Err(error) => {
                    // Nobody listens any more after an error that is not of this partition alone.
                    let _ = self.chunks.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    /// Passes a chunk on: the offset to go on from, or `None` when nobody wants more.
    async fn hand_over(&self, range: Range, batches: Bytes) -> Result<Option<Offset>, CommandError> {
        if batches.is_empty() {
            return Ok(Some(range.from));
        }
        let next = next_offset(range.partition, range.from, &batches)?;
        let sent = self.chunks.send(Ok(Chunk { range, batches, next })).await;
        Ok(sent.is_ok().then_some(next))
    }
}

/// The offset behind the last of `batches`.
fn next_offset(partition: PartitionIndex, from: Offset, batches: &[u8]) -> Result<Offset, CommandError> {
    let mut next = from;
    for batch in split_batches(batches) {
        let batch = batch.map_err(|source| damaged(partition, from, source))?;
        next = batch.header().next_offset().max(next);
    }
    if next == from {
        let reason = format!("a fetch of partition {partition} from offset {from} brought only older records");
        return Err(Error::Nonsense(reason).into());
    }
    Ok(next)
}

/// The error for bytes that are no batches.
pub(super) fn damaged(partition: PartitionIndex, from: Offset, source: BatchError) -> CommandError {
    CommandError::Batch { partition: partition.get(), offset: from.get(), source }
}
