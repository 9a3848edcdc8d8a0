//! Sends the text: one worker a partition, a batch at a time, again and again until each batch is acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringmq_client::PartitionIndex;
use ringmq_client::{Client, Record};
use tokio::sync::Notify;

use crate::TOPIC;
use crate::corpus::Corpus;

/// Small enough that many batches are in flight over the whole run, large enough to be a real load.
const BATCH_BYTES: usize = 256 << 10;
/// About what a record takes beside its key and value.
const RECORD_OVERHEAD_BYTES: usize = 12;
/// How often an unanswered batch is sent again before the run gives up: a minute, at the pause below.
const ATTEMPTS_MAX: u32 = 600;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A batch that was acknowledged: which lines of which file, and where they are now.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    pub(crate) partition: PartitionIndex,
    pub(crate) base_offset: i64,
    pub(crate) file: usize,
    pub(crate) first_line: usize,
    pub(crate) lines: usize,
}

/// What was sent.
#[derive(Debug)]
pub(crate) struct Sent {
    /// In the order of acknowledgement within a partition.
    pub(crate) batches: Vec<Acknowledged>,
    /// Batches that needed more than one attempt.
    pub(crate) sent_again: u64,
}

/// How far the workers are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    acknowledged: AtomicU64,
    in_flight: AtomicU64,
    moved: Notify,
}

impl Progress {
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// Waits until so many bytes are acknowledged and, right then, produces are in flight.
    pub(crate) async fn reached(&self, bytes: u64) {
        loop {
            // Registered before the look, so that no move is missed.
            let moved = self.shared.moved.notified();
            if self.acknowledged() >= bytes && self.in_flight() > 0 {
                return;
            }
            moved.await;
        }
    }
}

/// Sends the whole corpus; ends when every batch is acknowledged.
pub(crate) async fn send_all(client: Client, corpus: Arc<Corpus>, progress: Progress) -> Result<Sent, String> {
    let mut by_partition: BTreeMap<PartitionIndex, Vec<usize>> = BTreeMap::new();
    for (index, file) in corpus.files().iter().enumerate() {
        let partition = client.producer().partition_for(TOPIC, Some(&file.key)).await;
        let partition = partition.map_err(|error| format!("no partition for a key: {error}"))?;
        by_partition.entry(partition).or_default().push(index);
    }
    let mut workers = Vec::new();
    for (partition, files) in by_partition {
        let (client, corpus, progress) = (client.clone(), Arc::clone(&corpus), progress.clone());
        workers.push(tokio::spawn(async move { send_files(&client, partition, &corpus, &files, &progress).await }));
    }
    let mut all = Sent { batches: Vec::new(), sent_again: 0 };
    for worker in workers {
        let mut sent = worker.await.map_err(|error| format!("a worker panicked: {error}"))??;
        all.batches.append(&mut sent.batches);
        all.sent_again += sent.sent_again;
    }
    Ok(all)
}

async fn send_files(
    client: &Client,
    partition: PartitionIndex,
    corpus: &Corpus,
    files: &[usize],
    progress: &Progress,
) -> Result<Sent, String> {
    let mut sent = Sent { batches: Vec::new(), sent_again: 0 };
    for &file in files {
        let text = &corpus.files()[file];
        let (mut batch, mut bytes, mut first_line) = (Vec::new(), 0, 0);
        for (number, line) in text.lines().enumerate() {
            bytes += line.len() + text.key.len() + RECORD_OVERHEAD_BYTES;
            batch.push(Record::value(line).with_key(text.key.clone()));
            if bytes >= BATCH_BYTES {
                let lines = batch.len();
                let base_offset = send_batch(client, partition, &batch, progress, &mut sent.sent_again).await?;
                sent.batches.push(Acknowledged { partition, base_offset, file, first_line, lines });
                batch.clear();
                (bytes, first_line) = (0, number + 1);
            }
        }
        if !batch.is_empty() {
            let lines = batch.len();
            let base_offset = send_batch(client, partition, &batch, progress, &mut sent.sent_again).await?;
            sent.batches.push(Acknowledged { partition, base_offset, file, first_line, lines });
        }
    }
    Ok(sent)
}

async fn send_batch(
    client: &Client,
    partition: PartitionIndex,
    records: &[Record],
    progress: &Progress,
    sent_again: &mut u64,
) -> Result<i64, String> {
    let text_bytes: usize = records.iter().map(|record| record.value.as_ref().map_or(0, |line| line.len() + 1)).sum();
    for attempt in 0..ATTEMPTS_MAX {
        progress.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let answer = client.producer().send_batch(TOPIC, partition, records.to_vec()).await;
        progress.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        progress.shared.moved.notify_waiters();
        match answer {
            Ok(deliveries) => {
                progress.shared.acknowledged.fetch_add(text_bytes as u64, Ordering::Relaxed);
                *sent_again += u64::from(attempt > 0);
                return Ok(deliveries.offsets.start.get());
            }
            // The broker refuses this batch, now and later.
            Err(error) if error.code().is_some() && !error.is_retriable() => {
                return Err(format!("partition {partition}: {error}"));
            }
            Err(error) if attempt + 1 == ATTEMPTS_MAX => return Err(format!("partition {partition}: {error}")),
            // The broker is down: the run has ended it on purpose and starts it again.
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
    Err(format!("partition {partition}: not acknowledged after {ATTEMPTS_MAX} attempts"))
}
