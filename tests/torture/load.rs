//! The load: producers that send again what a killed broker did not acknowledge, and consumers at the tail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringmq_client::{Client, FetchOptions, Offset, PartitionIndex, Record};
use tokio::task::JoinHandle;

use crate::TOPIC;
use crate::ledger::Ledger;

const PRODUCERS: u64 = 24;
const CONSUMERS: u32 = 4;
/// After an error: the broker is down, or comes up.
const PAUSE: Duration = Duration::from_millis(20);

/// Tags are drawn once in a run.
static TAGS: AtomicU64 = AtomicU64::new(1);

/// Tasks that write and read until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    pub(crate) fn start(client: &Client, ledger: &Arc<Ledger>, partitions: u32, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let producers = (0..PRODUCERS).map(|producer| {
            let (client, ledger, stop) = (client.clone(), Arc::clone(ledger), Arc::clone(&stop));
            tokio::spawn(produce(client, ledger, stop, partitions, dice(seed ^ (producer << 32))))
        });
        let consumers = (0..CONSUMERS).map(|consumer| {
            let (client, ledger, stop) = (client.clone(), Arc::clone(ledger), Arc::clone(&stop));
            tokio::spawn(consume(client, ledger, stop, (consumer..partitions).step_by(CONSUMERS as usize).collect()))
        });
        let tasks = producers.chain(consumers).collect();
        Self { stop, tasks }
    }

    /// Ends when every task has.
    ///
    /// # Errors
    /// The first thing that a client was told and that cannot be.
    pub(crate) async fn stop(self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.map_err(|error| format!("a client panicked: {error}"))??;
        }
        Ok(())
    }
}

/// A generator of numbers below a bound (xorshift).
pub(crate) fn dice(seed: u64) -> impl FnMut(u64) -> u64 + Send + 'static {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

/// A record's value: its tag, and bytes that follow from it.
pub(crate) fn value(tag: u64) -> Vec<u8> {
    let mut draw = dice(tag);
    let len = match draw(100) {
        0 => 100_000 + draw(100_000),
        1..8 => 2_000 + draw(20_000),
        _ => draw(1_000),
    };
    let mut value = tag.to_be_bytes().to_vec();
    value.extend((0..len).map(|_| draw(256).to_be_bytes()[7]));
    value
}

/// The tag that a value says it has.
pub(crate) fn tag_of(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|tag| u64::from_be_bytes(*tag))
}

/// Sends batches of new records, each until it is acknowledged: the broker knows what it has stored.
async fn produce(
    client: Client,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    partitions: u32,
    mut dice: impl FnMut(u64) -> u64 + Send,
) -> Result<(), String> {
    while !stop.load(Ordering::Relaxed) {
        let partition = PartitionIndex::new(u32::try_from(dice(partitions.into())).unwrap_or(0));
        let count = if dice(4) == 0 { 1 + dice(20) } else { 1 };
        let tags: Vec<u64> = (0..count).map(|_| TAGS.fetch_add(1, Ordering::Relaxed)).collect();
        let records = tags.iter().map(|tag| Record::value(value(*tag))).collect();
        // The producer tries again by itself, longer than a broker is down.
        let sent = client.producer().send_batch_to(TOPIC, partition, records).await;
        let deliveries = sent.map_err(|error| format!("partition {partition}: {error}"))?;
        ledger.acknowledge(partition, deliveries.offsets.start, &tags)?;
    }
    Ok(())
}

/// Reads some partitions in turn, each from where it was left.
async fn consume(
    client: Client,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    partitions: Vec<u32>,
) -> Result<(), String> {
    let mut next = vec![Offset::ZERO; partitions.len()];
    while !stop.load(Ordering::Relaxed) {
        for (partition, next) in partitions.iter().zip(&mut next) {
            let partition = PartitionIndex::new(*partition);
            match client.consumer().fetch(TOPIC, partition, *next, FetchOptions::no_wait()).await {
                Ok(fetched) => {
                    for record in &fetched.records {
                        ledger.read(partition, record.offset, record.value.as_deref().unwrap_or_default())?;
                    }
                    *next = fetched.next_offset.max(*next);
                }
                Err(error) if error.code().is_some() && !error.is_retriable() => {
                    return Err(format!("partition {partition}: {error}"));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    Ok(())
}
