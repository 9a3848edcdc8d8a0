//! Sends the text: one worker a partition, a batch at a time; the producer sends each again until it is acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmq_client::PartitionIndex;
use ringmq_client::{Client, Record};
use tokio::sync::Notify;

use crate::TOPIC;
use crate::corpus::Corpus;

/// Small enough that many batches are in flight over the whole run, large enough to be a real load.
const BATCH_BYTES: usize = 256 << 10;
/// About what a record takes beside its key and value.
const RECORD_OVERHEAD_BYTES: usize = 12;

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
    let mut all = Sent { batches: Vec::new() };
    for worker in workers {
        let mut sent = worker.await.map_err(|error| format!("a worker panicked: {error}"))??;
        all.batches.append(&mut sent.batches);
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
    let mut sent = Sent { batches: Vec::new() };
    for &file in files {
        let text = &corpus.files()[file];
        let (mut batch, mut bytes, mut first_line) = (Vec::new(), 0, 0);
        for (number, line) in text.lines().enumerate() {
            bytes += line.len() + text.key.len() + RECORD_OVERHEAD_BYTES;
            batch.push(Record::value(line).with_key(text.key.clone()));
            if bytes >= BATCH_BYTES {
                let lines = batch.len();
                let base_offset = send_batch(client, partition, std::mem::take(&mut batch), progress).await?;
                sent.batches.push(Acknowledged { partition, base_offset, file, first_line, lines });
                (bytes, first_line) = (0, number + 1);
            }
        }
        if !batch.is_empty() {
            let lines = batch.len();
            let base_offset = send_batch(client, partition, batch, progress).await?;
            sent.batches.push(Acknowledged { partition, base_offset, file, first_line, lines });
        }
    }
    Ok(sent)
}

async fn send_batch(
    client: &Client,
    partition: PartitionIndex,
    records: Vec<Record>,
    progress: &Progress,
) -> Result<i64, String> {
    let text_bytes: usize = records.iter().map(|record| record.value.as_ref().map_or(0, |line| line.len() + 1)).sum();
    progress.shared.in_flight.fetch_add(1, Ordering::Relaxed);
    // While the broker is down the producer tries on by itself.
    let answer = client.producer().send_batch_to(TOPIC, partition, records).await;
    progress.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    if answer.is_ok() {
        progress.shared.acknowledged.fetch_add(text_bytes as u64, Ordering::Relaxed);
    }
    progress.shared.moved.notify_waiters();
    answer.map(|deliveries| deliveries.offsets.start.get()).map_err(|error| format!("partition {partition}: {error}"))
}
