//! What a simulation is made from: a seed, and how its disk behaves.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How a simulation is set up. The same configuration and the same program give the same run, event by event.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Decides everything that is left open: which task runs next, how long a request takes, what the program's
    /// random numbers are, what a crash keeps. Default: 0.
    pub seed: u64,
    /// The disk.
    pub disk: DiskConfig,
    /// The time of day when the simulation begins, in milliseconds since the Unix epoch.
    /// Default: 2027-01-15, 08:00 UTC.
    pub wall_clock_ms: i64,
    /// How many polls one [`Sim::run`](super::Sim::run) may take before it is taken for a livelock and panics.
    /// Default: 50 million.
    pub polls_max: u64,
    /// How many of the latest events are kept as text for [`Sim::trace_tail`](super::Sim::trace_tail).
    /// Default: 64.
    pub trace_tail_max: usize,
}

impl Default for SimConfig {
    fn default() -> SimConfig {
        SimConfig {
            seed: 0,
            disk: DiskConfig::default(),
            wall_clock_ms: 1_800_000_000_000,
            polls_max: 50_000_000,
            trace_tail_max: 64,
        }
    }
}

impl SimConfig {
    /// The defaults with this seed.
    pub fn with_seed(seed: u64) -> SimConfig {
        SimConfig { seed, ..SimConfig::default() }
    }
}

/// How the simulated disk behaves.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// How much file content fits, in bytes. Names and directories are free. Default: 64 GiB.
    pub capacity_bytes: u64,
    /// Whether a crash may keep parts of a write; otherwise it keeps or drops it whole. Default: yes.
    pub tear: bool,
    /// How long requests take.
    pub latency: LatencyConfig,
}

impl Default for DiskConfig {
    fn default() -> DiskConfig {
        DiskConfig { capacity_bytes: 64 << 30, tear: true, latency: LatencyConfig::default() }
    }
}

/// How long requests take: each draws its latency from the range of its kind, so that they overtake each other.
#[derive(Clone, Debug)]
pub struct LatencyConfig {
    /// A read. Default: 20 to 300 µs.
    pub read: RangeInclusive<Duration>,
    /// A write. Default: 20 to 500 µs.
    pub write: RangeInclusive<Duration>,
    /// A flush of a file or a directory. Default: 100 to 2,000 µs.
    pub flush: RangeInclusive<Duration>,
    /// Everything about names and sizes: open, rename, preallocate, list. Default: 5 to 100 µs.
    pub metadata: RangeInclusive<Duration>,
    /// One request in this many takes twenty times as long; 0 for none. Default: 64.
    pub slow_one_in: u32,
}

impl Default for LatencyConfig {
    fn default() -> LatencyConfig {
        let micros = |from, to| Duration::from_micros(from)..=Duration::from_micros(to);
        LatencyConfig {
            read: micros(20, 300),
            write: micros(20, 500),
            flush: micros(100, 2_000),
            metadata: micros(5, 100),
            slow_one_in: 64,
        }
    }
}
