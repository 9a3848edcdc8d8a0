//! Compacts the partitions of this shard whose topics ask for it: several at a time, which take turns.

use std::rc::Rc;
use std::time::Duration;

use ringmq_controller::metadata::TopicSettings;
use ringmq_runtime::local::Semaphore;
use ringmq_runtime::task::{self, Gate};
use ringmq_runtime::time;
use ringmq_segment::{CompactError, Compacted, CompactionBudget, CompactionPolicy};
use ringmq_wire::Timestamp;

use crate::partition::Partition;
use crate::server::Shard;

/// Rounds that are under way. One that takes long leaves the others to those that do not.
const ROUNDS_MAX: usize = 4;

/// Partitions that are looked at before others get their turn. A look is at memory alone.
const PARTITIONS_AT_A_TIME: usize = 64;

/// When and how topics are compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionSettings {
    /// How often the shard looks for partitions with enough that is new. Default: 15 s.
    pub interval: Duration,
    /// Memory for the keys of the partitions that are being compacted, in bytes. Default: 32 MiB, some 590,000 keys, of
    /// which one partition has half at most.
    pub key_bytes_max: usize,
}

impl Default for CompactionSettings {
    fn default() -> CompactionSettings {
        CompactionSettings { interval: Duration::from_secs(15), key_bytes_max: CompactionBudget::KEY_BYTES_DEFAULT }
    }
}

impl CompactionSettings {
    /// How the partitions of a topic with these settings are compacted.
    pub(crate) fn policy(settings: &TopicSettings) -> CompactionPolicy {
        CompactionPolicy {
            dirty_percent_min: settings.compaction_dirty_percent.try_into().unwrap_or(100),
            tombstone_retention: Duration::from_millis(settings.tombstone_retention_ms),
        }
    }
}

/// Compacts until the shard stops. Each time it looks, every partition that is due gets one round, in the order of their
/// numbers, before any gets another.
pub(crate) async fn run(shard: Rc<Shard>) {
    let budget = CompactionBudget::new(shard.config.compaction.key_bytes_max);
    let (rounds, running) = (Semaphore::new(ROUNDS_MAX), Gate::new());
    while shard.stop.or_stop(time::sleep(shard.config.compaction.interval)).await.is_some() {
        let partitions = shard.directory.borrow().all_owned();
        for (seen, partition) in (1..).zip(partitions) {
            if is_due(&partition) {
                let Some(round) = shard.stop.or_stop(rounds.acquire(1)).await else { break };
                let (shard, budget) = (shard.clone(), budget.clone());
                let compacted = async move {
                    compact(&shard, &partition, &budget).await;
                    drop(round);
                };
                // The gate is closed only below.
                let _ = running.spawn_background("compaction", compacted);
            }
            if seen % PARTITIONS_AT_A_TIME == 0 {
                task::yield_to_io().await;
            }
        }
    }
    running.close().await;
}

fn is_due(partition: &Partition) -> bool {
    partition.usable_log().is_ok_and(|log| log.is_compaction_due(Timestamp::new(time::wall_clock())))
}

async fn compact(shard: &Shard, partition: &Partition, budget: &CompactionBudget) {
    let Ok(log) = partition.usable_log() else { return };
    match log.compact(Timestamp::new(time::wall_clock()), budget, &|| shard.stop.is_stopped()).await {
        Ok(None) | Err(CompactError::Closed) => {}
        Ok(Some(Compacted { until, bytes_read, bytes_before, bytes_after, records_removed })) => {
            let partition = log.id();
            tracing::info!(%partition, %until, bytes_read, bytes_before, bytes_after, records_removed, "compacted a log");
        }
        Err(cause) => partition.compaction_failed(&cause),
    }
}
