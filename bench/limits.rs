//! `ringmq-bench limits`: what this machine can do, measured in one go, as the yardstick for the broker.
//!
//! Machines differ, and one machine differs from minute to minute, by a factor of two. So a figure of the broker means
//! something only beside what the same machine did in the same minute. The measurements use the broker's own runtime
//! (executors pinned to the processors that the process may use, direct I/O, TCP on the loopback interface) and
//! nothing of the broker above it. What stands in the broker's place looks for work for 0.1 ms before it sleeps, as a broker
//! does by default (`spin_before_park_us`); the other ends of connections sleep at once, as the load generator's threads do.
//! - `disk`: sequential direct writes and reads, and small durable writes, without a network;
//! - `loopback`: bytes and round trips over TCP, without a disk;
//! - `pipe`: both together, doing what a durable produce cannot do without: receive, checksum, write, flush, reply.

mod cores;
mod disk;
mod loopback;
mod paced;
mod pipe;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use ringmq_runtime::{executor, probe};
use serde::{Deserialize, Serialize};

use crate::latency::Latency;
use paced::Load;
use pipe::Flush;

/// Bytes in one frame of [`pipe`] and in one request of [`disk`].
const FRAME_BYTES: usize = 1 << 20;

/// What a histogram of nanoseconds reaches to.
const MINUTE_NS: u64 = 60_000_000_000;

/// Connections of [`loopback`] and [`pipe`].
const CONNECTIONS: usize = 8;

/// What this machine can do: disk, loopback network, and both together without any broker
#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory on the disk to measure; needs free space for the bytes of one measurement
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// GiB that each measurement of throughput moves (1 to 1024)
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub gib: u64,
    /// Also how long durable writes take at a constant 50 MB/s, in batches of 10 KB and of 100 KB: half a minute more
    #[arg(long)]
    pub paced: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// The machine lacks something that the broker needs too.
    #[error(transparent)]
    Machine(#[from] probe::Problem),
    /// A measurement failed.
    #[error("cannot measure {what}: {source}")]
    Measurement {
        /// Which one.
        what: &'static str,
        /// What happened.
        source: io::Error,
    },
}

/// The figures. Rates count payload bytes; a gigabyte is 10^9 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Sequential direct writes of 1 MiB, 8 in flight, into preallocated space, flushed once at the end.
    pub disk_write_bytes_per_second: f64,
    /// Sequential direct reads of the same, 8 in flight.
    pub disk_read_bytes_per_second: f64,
    /// Median time of a 4 KiB direct `O_DSYNC` write over blocks written before, one at a time.
    pub dsync_4k_us_p50: f64,
    /// 8 TCP connections, senders and receivers on the same processors.
    pub loopback_bytes_per_second: f64,
    /// Median round trip of 64 bytes on one connection, one at a time, between two processors if there are two.
    pub rtt_us_p50: f64,
    /// The better of the two below.
    pub pipe_bytes_per_second: f64,
    /// `pipe` with each write durable by itself (`O_DSYNC`).
    pub pipe_dsync_bytes_per_second: f64,
    /// `pipe` with an `fdatasync` for all writes of a file that completed before it.
    pub pipe_fdatasync_bytes_per_second: f64,
    /// Processors used.
    pub cores: usize,
    /// Where it was asked for: batches of 10 KB that are due at a constant 50 MB/s, from then to when they are durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paced_10k_us: Option<Latency>,
    /// The same in batches of 100 KB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paced_100k_us: Option<Latency>,
}

/// Batches of 10 KB at 50 MB/s.
const PACED_10K: Load = Load { batch_bytes: 10_000, interval: Duration::from_micros(200), batches: 75_000 };
/// Batches of 100 KB at 50 MB/s.
const PACED_100K: Load = Load { batch_bytes: 100_000, interval: Duration::from_millis(2), batches: 7_500 };

/// Measures and prints.
///
/// # Errors
/// What the machine lacks, or what failed; the measurements' files are removed in any case.
pub fn run(arguments: &Arguments) -> Result<(), LimitsError> {
    let limits = measure(arguments)?;
    let printed = if arguments.json { print_json(&limits) } else { print_table(&limits) };
    printed.map_err(failed("the output"))
}

/// Takes all measurements, one after the other.
///
/// # Errors
/// As [`run`].
pub fn measure(arguments: &Arguments) -> Result<Limits, LimitsError> {
    let cores = executor::cpus_allowed().map_err(failed("the processors"))?;
    probe::kernel()?;
    probe::io_uring()?;
    probe::locked_memory(2 * cores.len(), executor::ExecutorConfig::default().io_memory_bytes)?;
    probe::prepare_data_dir(&arguments.dir)?;
    let scratch = Scratch::new(arguments.dir.join(format!("ringmq-limits-{}", std::process::id())))
        .map_err(failed("the disk"))?;
    let dir = &scratch.0;
    let bytes = arguments.gib << 30;

    let steps = Steps::new();
    let disk = steps.run("disk, large writes and reads", || disk::throughput(cores[0], dir, bytes))?;
    let dsync = steps.run("disk, small durable writes", || disk::dsync_latency(cores[0], dir))?;
    let loopback = steps.run("loopback, throughput", || loopback::throughput(&cores, bytes))?;
    let rtt = steps.run("loopback, round trips", || loopback::round_trip(&cores))?;
    let dsync_pipe = steps.run("pipe, O_DSYNC", || pipe::throughput(&cores, dir, bytes, Flush::EachWrite))?;
    let fdatasync_pipe = steps.run("pipe, fdatasync", || pipe::throughput(&cores, dir, bytes, Flush::Together))?;
    let paced = |what, load| {
        let measurement = || paced::latency(cores[0], dir, load);
        arguments.paced.then(|| steps.run(what, measurement)).transpose()
    };
    let paced_10k = paced("disk, 50 MB/s in batches of 10 KB", PACED_10K)?;
    let paced_100k = paced("disk, 50 MB/s in batches of 100 KB", PACED_100K)?;
    Ok(Limits {
        disk_write_bytes_per_second: disk.write_bytes_per_second,
        disk_read_bytes_per_second: disk.read_bytes_per_second,
        dsync_4k_us_p50: dsync,
        loopback_bytes_per_second: loopback,
        rtt_us_p50: rtt,
        pipe_bytes_per_second: dsync_pipe.max(fdatasync_pipe),
        pipe_dsync_bytes_per_second: dsync_pipe,
        pipe_fdatasync_bytes_per_second: fdatasync_pipe,
        cores: cores.len(),
        paced_10k_us: paced_10k,
        paced_100k_us: paced_100k,
    })
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> LimitsError {
    move |source| LimitsError::Measurement { what, source }
}

/// Says on a terminal what is being measured.
struct Steps(ProgressBar);

impl Steps {
    fn new() -> Steps {
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        Steps(bar)
    }

    fn run<T>(&self, what: &'static str, measurement: impl FnOnce() -> io::Result<T>) -> Result<T, LimitsError> {
        self.0.set_message(what);
        measurement().map_err(failed(what))
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A directory that goes, with what is in it, when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: PathBuf) -> io::Result<Scratch> {
        std::fs::create_dir(&dir)?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failure leaves files behind, which the next `ls` shows; there is nobody to tell here.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn print_json(limits: &Limits) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, limits)?;
    writeln!(out)
}

fn print_table(limits: &Limits) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let rates = [
        ("disk write", limits.disk_write_bytes_per_second),
        ("disk read", limits.disk_read_bytes_per_second),
        ("loopback", limits.loopback_bytes_per_second),
        ("pipe", limits.pipe_bytes_per_second),
        ("  with O_DSYNC", limits.pipe_dsync_bytes_per_second),
        ("  with fdatasync", limits.pipe_fdatasync_bytes_per_second),
    ];
    for (name, bytes_per_second) in rates {
        writeln!(out, "{name:18} {:8.2} GB/s", bytes_per_second / 1e9)?;
    }
    writeln!(out, "{:18} {:8.1} µs", "4 KiB O_DSYNC, p50", limits.dsync_4k_us_p50)?;
    writeln!(out, "{:18} {:8.1} µs", "round trip, p50", limits.rtt_us_p50)?;
    for (name, latency) in [("50 MB/s, 10 KB", limits.paced_10k_us), ("50 MB/s, 100 KB", limits.paced_100k_us)] {
        if let Some(Latency { p50, p99, p999, max, .. }) = latency {
            writeln!(out, "{name:18} p50 {p50:.0}  p99 {p99:.0}  p99.9 {p999:.0}  max {max:.0} µs")?;
        }
    }
    writeln!(out, "{:18} {:8}", "processors", limits.cores)
}

#[cfg(test)]
pub(crate) mod tests;
