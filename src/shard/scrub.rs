//! Reads the sealed segments of this shard's partitions at a bounded rate, one after the other, and reports what has
//! rotted there. What is damaged stays as it is: reads of that frame fail, and the rest serves (`docs/durability.md`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::task::{self, Stop};
use ringmq_runtime::time::{self, Instant};
use ringmq_segment::{Corruption, Log};
use ringmq_wire::Offset;

use crate::partition::Partition;
use crate::server::Shard;

/// Bytes that are read before it is seen how long that was to take.
const SLICE_BYTES: u64 = 512 << 10;
/// Frames that are checked in one go, however short they are.
const FRAMES_IN_A_ROW_MAX: u32 = 64;
/// Damaged places that are remembered, so that each is reported once.
const REPORTED_MAX: usize = 10_000;

/// How sealed segments are looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubSettings {
    /// What a shard reads, in bytes a second; 0 is not at all. Default: 8 MiB.
    pub bytes_per_second: u64,
    /// A round begins at least so long after the one before. Default: a day.
    pub round: Duration,
}

impl Default for ScrubSettings {
    fn default() -> ScrubSettings {
        ScrubSettings { bytes_per_second: 8 << 20, round: Duration::from_secs(24 * 60 * 60) }
    }
}

/// What the scrubber of a shard has done.
#[derive(Default)]
pub(crate) struct Scrubber {
    frames: Cell<u64>,
    bytes: Cell<u64>,
    /// Damaged places that were found, each counted once.
    damaged: Cell<u64>,
    reported: RefCell<BTreeSet<(PathBuf, u64)>>,
}

impl Scrubber {
    /// By name.
    pub(crate) fn counters(&self) -> [(&'static str, u64); 3] {
        let (frames, bytes, damaged) = (self.frames.get(), self.bytes.get(), self.damaged.get());
        [("scrubbed_frames", frames), ("scrubbed_bytes", bytes), ("scrubbed_damaged", damaged)]
    }

    /// Whether this place is new.
    fn is_new(&self, damage: &Corruption) -> bool {
        let mut reported = self.reported.borrow_mut();
        if reported.len() >= REPORTED_MAX {
            return false;
        }
        let new = reported.insert((damage.segment.clone(), damage.position));
        self.damaged.set(self.damaged.get() + u64::from(new));
        new
    }
}

/// Goes round until the shard stops.
pub(crate) async fn run(shard: Rc<Shard>) {
    let settings = shard.config.scrub;
    if settings.bytes_per_second == 0 {
        return;
    }
    let mut pace = Pace::new(settings.bytes_per_second, shard.stop.clone());
    loop {
        let began = Instant::now();
        let partitions = shard.directory.borrow().all_owned();
        for partition in partitions {
            scrub(&shard, &partition, &mut pace).await;
            if shard.stop.is_stopped() {
                return;
            }
            task::yield_to_io().await;
        }
        let rest = settings.round.saturating_sub(began.elapsed());
        if shard.stop.or_stop(time::sleep(rest.max(Duration::from_secs(1)))).await.is_none() {
            return;
        }
    }
}

async fn scrub(shard: &Shard, partition: &Partition, pace: &mut Pace) {
    let Ok(log) = partition.log() else { return };
    for base in log.sealed_segments() {
        if shard.stop.is_stopped() {
            return;
        }
        scrub_segment(shard, partition, &log, base, pace).await;
    }
}

async fn scrub_segment(shard: &Shard, partition: &Partition, log: &Log, base: Offset, pace: &mut Pace) {
    let scrubber = &shard.scrubber;
    match log.scrub(base, async |bytes| pace.read(bytes).await).await {
        Ok(scrubbed) => {
            scrubber.frames.set(scrubber.frames.get() + scrubbed.frames);
            scrubber.bytes.set(scrubber.bytes.get() + scrubbed.bytes);
            for damage in scrubbed.damage.iter().filter(|damage| scrubber.is_new(damage)) {
                partition.rotted(damage);
            }
        }
        Err(error) => partition.scrub_failed(base, &error),
    }
}

/// Keeps to the rate.
struct Pace {
    bytes_per_second: u64,
    stop: Stop,
    bytes: u64,
    frames: u32,
    since: Instant,
}

impl Pace {
    fn new(bytes_per_second: u64, stop: Stop) -> Pace {
        Pace { bytes_per_second, stop, bytes: 0, frames: 0, since: Instant::now() }
    }

    /// After so many more bytes; `false` when the shard stops.
    async fn read(&mut self, bytes: u64) -> bool {
        (self.bytes, self.frames) = (self.bytes + bytes, self.frames + 1);
        if self.bytes >= SLICE_BYTES {
            let due = Duration::from_secs_f64(self.bytes as f64 / self.bytes_per_second as f64);
            let rest = due.saturating_sub(self.since.elapsed());
            (self.bytes, self.frames) = (0, 0);
            let slept = self.stop.or_stop(time::sleep(rest)).await.is_some();
            self.since = Instant::now();
            return slept;
        }
        if self.frames >= FRAMES_IN_A_ROW_MAX {
            self.frames = 0;
            task::yield_to_io().await;
        }
        !self.stop.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use ringmq_runtime::fs;
    use ringmq_runtime::sim::{Sim, SimConfig};
    use ringmq_segment::{Append, Generations, LogConfig, LogDeps, LogId, Payload, TailCache};
    use ringmq_wire::batch::{BatchBuilder, BatchLimits, Compression, RecordRef};
    use ringmq_wire::{PartitionIndex, ShardIndex, Timestamp, TopicId};

    use super::*;

    fn batch(value_bytes: usize) -> Bytes {
        let mut builder = BatchBuilder::new(Compression::None);
        let (timestamp, value) = (Timestamp::new(1), vec![7; value_bytes]);
        builder.append(&RecordRef { timestamp, key: None, value: Some(&value), headers: &[] }).expect("a record");
        builder.finish().expect("a batch")
    }

    /// A log of many sealed segments of a mebibyte, with frames of all sizes.
    async fn sealed_log() -> Log {
        fs::create_dir_all("/data").await.expect("a directory");
        let generations = Generations::open(Path::new("/data/generations"), ShardIndex::new(0)).await;
        let deps = LogDeps::without_journal(generations.expect("no tables yet"), TailCache::new(0));
        let id = LogId { topic_id: TopicId::from_random_bytes([1; 16]), partition: PartitionIndex::new(0) };
        let config = LogConfig { segment_bytes: 1 << 20, ..LogConfig::default() };
        let (log, _) = Log::open(Path::new("/data"), id, config, &deps).await.expect("an empty log");
        for value_bytes in [100, 3_000, 40_000, 700_000].into_iter().cycle().take(60) {
            let append = Append::validated(Payload::Copied(batch(value_bytes)), &BatchLimits::default());
            log.append(append.expect("a sound batch")).await.expect("acknowledged");
        }
        log
    }

    #[test]
    fn sealed_segments_are_read_at_the_rate() {
        Sim::new(SimConfig::default()).run(|| async {
            let log = sealed_log().await;
            let (_running, stop) = task::stop();
            for rate in [256_u32 << 10, 8 << 20] {
                let takes = |bytes: u64| Duration::from_secs_f64(bytes as f64 / f64::from(rate));
                let mut pace = Pace::new(u64::from(rate), stop.clone());
                let (began, mut bytes) = (Instant::now(), 0);
                for base in log.sealed_segments() {
                    let read = log.scrub(base, async |bytes| pace.read(bytes).await).await.expect("readable");
                    bytes += read.bytes;
                    let longest_slice = SLICE_BYTES + (1 << 20);
                    assert!(began.elapsed() >= takes(bytes.saturating_sub(longest_slice)), "no faster");
                }
                assert!(bytes > 10 << 20, "{bytes} bytes");
                assert!(began.elapsed() <= takes(bytes) + Duration::from_millis(100), "nor slower");
            }
        });
    }
}
