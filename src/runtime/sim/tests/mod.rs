//! The simulation seen as the crates above see it.

mod cores;
mod crash;
mod determinism;
mod durability;
mod faults;
mod network;
mod tasks;

use std::future::Future;
use std::io;
use std::time::Duration;

use super::{CrashReport, DiskConfig, LatencyConfig, Sim, SimConfig};
use crate::buffer::{AlignedBuf, BLOCK_BYTES, IoBuf};
use crate::file::{File, IoClass, OpenOptions};

/// One block as a position.
const BLOCK: u64 = BLOCK_BYTES as u64;

/// Enough that an event with a chance of one in sixteen is missing in one of thirty million test runs.
const SEEDS: std::ops::Range<u64> = 0..256;

const CREATE: OpenOptions = OpenOptions { write: true, create_new: true, dsync: false };
const CREATE_DSYNC: OpenOptions = OpenOptions { write: true, create_new: true, dsync: true };
const WRITE: OpenOptions = OpenOptions { write: true, create_new: false, dsync: false };

/// Blocks filled with one byte.
fn blocks(count: usize, fill: u8) -> IoBuf {
    let mut buf = AlignedBuf::with_len(count * BLOCK_BYTES);
    buf.fill(fill);
    buf.freeze()
}

async fn write(file: &File, fill: u8, block: u64) -> io::Result<()> {
    file.write_at(&blocks(1, fill), block * BLOCK, IoClass::Append).await
}

async fn read(file: &File, block: u64) -> Vec<u8> {
    file.read_at(block * BLOCK, BLOCK_BYTES, IoClass::ColdRead).await.unwrap().to_vec()
}

/// A file of that many preallocated blocks of zeros, durable with its name.
async fn durable_file(path: &str, block_count: u64) -> File {
    let file = File::open(path, CREATE).await.unwrap();
    file.preallocate(block_count * BLOCK).await.unwrap();
    file.fdatasync().await.unwrap();
    crate::fs::sync_dir("/").await.unwrap();
    file
}

/// Runs a history to its end under one seed, then the power goes.
fn crash_after<Fut: Future<Output = ()>>(seed: u64, history: impl FnOnce() -> Fut) -> (Sim, CrashReport) {
    let sim = Sim::new(SimConfig::with_seed(seed));
    sim.run(history);
    let report = sim.crash();
    (sim, report)
}

/// A machine on which every flush takes longer than anything else.
fn with_slow_flushes(seed: u64) -> Sim {
    let flush = Duration::from_secs(1)..=Duration::from_secs(2);
    let latency = LatencyConfig { flush, ..LatencyConfig::default() };
    Sim::new(SimConfig { seed, disk: DiskConfig { latency, ..DiskConfig::default() }, ..SimConfig::default() })
}

/// How many seeds the check holds for, after a history and a crash.
fn count_seeds<Fut: Future<Output = ()>>(history: impl Fn() -> Fut, check: impl Fn(&Sim) -> bool) -> usize {
    SEEDS.filter(|seed| check(&crash_after(*seed, &history).0)).count()
}

/// The history leaves the outcome open: some seeds have it, others have not.
fn assert_open<Fut: Future<Output = ()>>(history: impl Fn() -> Fut, check: impl Fn(&Sim) -> bool) {
    let hits = count_seeds(history, check);
    assert!(hits > 0, "no seed shows it");
    assert!(hits < SEEDS.count(), "every seed shows it: nothing was left open");
}

/// The history settles the outcome: every seed has it.
fn assert_settled<Fut: Future<Output = ()>>(history: impl Fn() -> Fut, check: impl Fn(&Sim) -> bool) {
    for seed in SEEDS {
        let (sim, report) = crash_after(seed, &history);
        assert!(check(&sim), "seed {seed} breaks the promise; {report:?}; files {:?}", sim.disk().files());
    }
}

/// Whether a block of the file is filled with one byte.
fn block_is(sim: &Sim, path: &str, block: usize, fill: u8) -> bool {
    sim.disk().read(path).is_some_and(|bytes| {
        let range = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
        bytes.get(range).is_some_and(|bytes| bytes.iter().all(|byte| *byte == fill))
    })
}

fn exists(sim: &Sim, path: &str) -> bool {
    sim.disk().read(path).is_some()
}
