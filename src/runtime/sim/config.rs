//! What a simulation is made from: a seed, and how its cores, disk and network behave.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::seeded_bug::SeededBug;

/// How a simulation is set up. The same configuration and the same program give the same run, event by event.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Decides everything that is left open: which task runs next, how long a request takes, what the program's
    /// random numbers are, what a crash keeps. Default: 0.
    pub seed: u64,
    /// The disk.
    pub disk: DiskConfig,
    /// The cores.
    pub cores: CoreConfig,
    /// The network.
    pub network: NetworkConfig,
    /// The time of day when the simulation begins, in milliseconds since the Unix epoch.
    /// Default: 2027-01-15, 08:00 UTC.
    pub wall_clock_ms: i64,
    /// How many polls one [`Sim::run`](super::Sim::run) may take before it is taken for a livelock and panics.
    /// Default: 50 million.
    pub polls_max: u64,
    /// A bug that the program has, to see that it is found. Default: none.
    pub seeded_bug: Option<SeededBug>,
    /// How many of the latest events are kept as text for [`Sim::trace_tail`](super::Sim::trace_tail).
    /// Default: 64.
    pub trace_tail_max: usize,
}

impl Default for SimConfig {
    fn default() -> SimConfig {
        SimConfig {
            seed: 0,
            disk: DiskConfig::default(),
            cores: CoreConfig::default(),
            network: NetworkConfig::default(),
            wall_clock_ms: 1_800_000_000_000,
            polls_max: 50_000_000,
            seeded_bug: None,
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

/// How simulated cores behave.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// From the moment that another core wakes a task to the moment that the task is ready: what a doorbell takes.
    /// Default: 0 to 50 µs.
    pub wake: RangeInclusive<Duration>,
    /// One wake-up in this many takes twenty times as long; 0 for none. Default: 64.
    pub slow_one_in: u32,
    /// With several cores, one poll in this many finds that its core stands still, as if the kernel had taken the
    /// thread off its processor; 0 for never. Default: 2,048.
    pub pause_one_in: u32,
    /// For how long. Default: 50 µs to 10 ms.
    pub pause: RangeInclusive<Duration>,
}

impl Default for CoreConfig {
    fn default() -> CoreConfig {
        CoreConfig {
            wake: Duration::ZERO..=Duration::from_micros(50),
            slow_one_in: 64,
            pause_one_in: 2_048,
            pause: Duration::from_micros(50)..=Duration::from_millis(10),
        }
    }
}

/// How the simulated network behaves.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// From one side of a connection to the other, for each piece. Default: 5 to 100 µs.
    pub latency: RangeInclusive<Duration>,
    /// One piece in this many takes twenty times as long, and what was sent after it waits; 0 for none. Default: 64.
    pub slow_one_in: u32,
    /// One call in this many moves only a part of what it could; 0 for none. Default: 4.
    pub cut_one_in: u32,
    /// Bytes that one direction of a connection holds between the two sides, at least 1; drawn for each, small ones as
    /// likely as large ones. Default: 1 KiB to 256 KiB.
    pub window_bytes: RangeInclusive<usize>,
}

impl Default for NetworkConfig {
    fn default() -> NetworkConfig {
        NetworkConfig {
            latency: Duration::from_micros(5)..=Duration::from_micros(100),
            slow_one_in: 64,
            cut_one_in: 4,
            window_bytes: 1 << 10..=256 << 10,
        }
    }
}
