//! Compacts the partitions of this shard whose topics ask for it, one after the other.

use std::rc::Rc;
use std::time::Duration;

use ringmq_controller::metadata::TopicSettings;
use ringmq_runtime::{task, time};
use ringmq_segment::{CompactError, Compacted, CompactionPolicy};
use ringmq_wire::Timestamp;

use crate::partition::Partition;
use crate::server::Shard;

/// When and how topics are compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionSettings {
    /// How often the shard looks for partitions with enough that is new. Default: 15 s.
    pub interval: Duration,
    /// Memory for the keys of the partition that is being compacted, in bytes. Default: 16 MiB, some 290,000 keys.
    pub key_bytes_max: usize,
}

impl Default for CompactionSettings {
    fn default() -> CompactionSettings {
        CompactionSettings { interval: Duration::from_secs(15), key_bytes_max: 16 << 20 }
    }
}

impl CompactionSettings {
    /// How the partitions of a topic with these settings are compacted.
    pub(crate) fn policy(&self, settings: &TopicSettings) -> CompactionPolicy {
        CompactionPolicy {
            dirty_percent_min: settings.compaction_dirty_percent.try_into().unwrap_or(100),
            tombstone_retention: Duration::from_millis(settings.tombstone_retention_ms),
            key_bytes_max: self.key_bytes_max,
        }
    }
}

/// Compacts until the shard stops.
pub(crate) async fn run(shard: Rc<Shard>) {
    while shard.stop.or_stop(time::sleep(shard.config.compaction.interval)).await.is_some() {
        let partitions = shard.directory.borrow().all_owned();
        for partition in partitions {
            if shard.stop.is_stopped() {
                return;
            }
            compact(&shard, &partition).await;
            task::yield_to_io().await;
        }
    }
}

async fn compact(shard: &Shard, partition: &Partition) {
    let Ok(log) = partition.usable_log() else { return };
    match log.compact(Timestamp::new(time::wall_clock()), &|| shard.stop.is_stopped()).await {
        Ok(None) | Err(CompactError::Closed) => {}
        Ok(Some(Compacted { until, bytes_before, bytes_after, records_removed })) => {
            tracing::info!(partition = %log.id(), %until, bytes_before, bytes_after, records_removed, "compacted a log");
        }
        Err(cause) => partition.compaction_failed(&cause),
    }
}
