//! The statistics of one shard, as its own clients, other shards and the log get them.

use std::rc::Rc;

use ringmq_runtime::file::IoClass;
use ringmq_wire::ShardIndex;
use ringmq_wire::protocol::{DeviceUse, NamedValue, ShardStats, StageLatency, TaskStall};

use crate::server::Shard;
use crate::stats::StatsSnapshot;
use crate::turns::Turns;

impl Shard {
    /// What was counted, and what is so now. Looks at every partition, in turns.
    pub(crate) async fn statistics(&self) -> StatsSnapshot {
        let partitions = self.directory.borrow().all_owned();
        let (mut offline, mut turns) = (0, Turns::default());
        for partition in &partitions {
            offline += u64::from(partition.usable_log().is_err());
            turns.give_way_if_due().await;
        }
        let used = |max: usize, available: usize| max.saturating_sub(available) as u64;
        let limits = &self.config.limits;
        let mut gauges = vec![
            ("partitions", partitions.len() as u64),
            ("partitions_offline", offline),
            ("sealed_segments_open", self.storage.logs.open_segments.count() as u64),
            ("connections_open", self.connections.count() as u64),
            ("request_bytes", used(limits.shard_bytes_max, self.request_bytes.available())),
            ("request_sections", used(limits.shard_parts_max, self.request_parts.available())),
            ("fetch_bytes", used(limits.shard_fetch_bytes_max, self.fetches.available())),
            ("response_bytes", used(limits.shard_response_bytes_max, self.response_bytes.available())),
        ];
        gauges.extend(self.storage.journal_gauges());
        let mut snapshot = self.stats.snapshot();
        snapshot.counters.extend(self.scrubber.counters());
        StatsSnapshot { gauges, ..snapshot }
    }

    /// Writes the statistics into the log, in one line.
    pub(crate) fn log_stats(self: &Rc<Self>) {
        let shard = self.clone();
        self.spawn_forwarded("log statistics", async move {
            let stats = shard.statistics().await;
            tracing::info!(shard = %shard.config.shard, %stats, "statistics");
        });
    }
}

impl StatsSnapshot {
    /// As it goes over the wire.
    pub(crate) fn to_wire(&self, shard: ShardIndex) -> ShardStats {
        let named = |(name, value): (&str, u64)| NamedValue { name: name.to_owned(), value };
        let requests = self.requests.iter().map(|(request_type, count)| (request_type.name(), *count));
        let counters = self.counters.iter().copied().chain([("flushes", self.io.flushes)]);
        let stages = self.stages.iter().map(|(stage, took)| StageLatency {
            name: stage.name().to_owned(),
            count: took.count,
            p50_ns: nanoseconds(took.p50),
            p99_ns: nanoseconds(took.p99),
            p999_ns: nanoseconds(took.p999),
            max_ns: nanoseconds(took.max),
        });
        let device = IoClass::ALL.iter().zip(&self.io.classes).filter(|(_, counts)| counts.requests > 0);
        let device = device.map(|(class, counts)| DeviceUse {
            name: class.name().to_owned(),
            requests: counts.requests,
            bytes: counts.bytes,
            busy_ns: nanoseconds(counts.busy),
            longest_ns: nanoseconds(counts.longest),
        });
        let stalls = self.stalls.iter().map(|stall| TaskStall {
            task: stall.task.to_owned(),
            count: stall.count,
            longest_ns: nanoseconds(stall.longest),
        });
        ShardStats {
            shard,
            requests: requests.map(named).collect(),
            counters: counters.map(named).collect(),
            gauges: self.gauges.iter().copied().map(named).collect(),
            stages: stages.collect(),
            device: device.collect(),
            stalls: stalls.collect(),
        }
    }
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
