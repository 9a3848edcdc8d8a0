//! The settings of one shard.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use ringmq_controller::metadata::TopicSettings;
use ringmq_segment::LogConfig;
use ringmq_wire::{BrokerId, ShardIndex};

use crate::compaction::CompactionSettings;
use crate::limits::Limits;
use crate::scrub::ScrubSettings;
use crate::storage::JournalSettings;

/// The settings of one shard.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Which shard this is, from 0.
    pub shard: ShardIndex,
    /// How many shards the broker has; placement depends on it.
    pub shard_count: NonZeroU16,
    /// The CPU that the shard is pinned to, for `DescribeCluster`; `None` when it floats.
    pub cpu: Option<u32>,
    /// The broker's id in the cluster.
    pub broker: BrokerId,
    /// The broker's version, for `DescribeCluster`.
    pub version: String,
    /// The directory that holds the partitions.
    pub data_dir: PathBuf,
    /// The shared public address. The port is not 0: the broker resolves it (and probes that it is free) first.
    pub listen: SocketAddr,
    /// The port of this shard alone; `None` lets the kernel choose.
    pub shard_port: Option<u16>,
    /// What metadata tells clients instead of the listening address.
    pub advertise: Option<Advertise>,
    /// How logs are written; what topics set (segment size and age) goes before it.
    pub log: LogConfig,
    /// How the journal is kept.
    pub journal: JournalSettings,
    /// What holds for topics that do not choose otherwise.
    pub topic_defaults: TopicSettings,
    /// When and how topics are compacted that are to be.
    pub compaction: CompactionSettings,
    /// How often the shard looks for records whose retention is over. Default: 30 s.
    pub retention_interval: Duration,
    /// How sealed segments are looked after.
    pub scrub: ScrubSettings,
    /// Sealed segments of the shard's partitions whose files may be open at the same time; each costs a descriptor. Active
    /// ones are open always. Default 256.
    pub sealed_open_max: usize,
    /// Memory for recent frames, per shard. Default 64 MiB.
    pub tail_cache_bytes: usize,
    /// What peers are allowed.
    pub limits: Limits,
}

/// The address that clients are told, where it differs from the one that is listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    /// A host name or address, as clients reach it.
    pub host: String,
    /// The port, when it differs from the public port.
    pub port: Option<u16>,
}
