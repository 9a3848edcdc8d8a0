//! The disk at a constant rate: what an open loop of durable appends cannot be faster than.
//!
//! Batches are due one after the other, evenly. Whoever of [`DEPTH`] writers is free takes all that are due by then and
//! makes them durable with one direct `O_DSYNC` write over blocks that were written before, as the broker's journal does.
//! The time of a batch counts from when it was due.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::buffer::{AlignedBuf, BLOCK_BYTES};
use ringmq_runtime::executor::CpuId;
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::task::Gate;
use ringmq_runtime::time::{self, Instant};
use ringmq_runtime::{fs, random};

use super::FRAME_BYTES;
use super::cores::{SPIN_BEFORE_PARK, spawn_pinned};
use crate::latency::{Latencies, Latency};

/// Writes at the device at the same time.
const DEPTH: usize = 4;
/// The blocks that are written again and again.
const RING_BYTES: usize = 64 << 20;

/// What is due when.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) batch_bytes: usize,
    /// From one batch to the next.
    pub(super) interval: Duration,
    pub(super) batches: u32,
}

impl Load {
    /// When a batch is due, after the start.
    fn due(self, batch: u32) -> Duration {
        self.interval * batch
    }
}

/// How long batches took.
pub(super) fn latency(cpu: CpuId, dir: &Path, load: Load) -> io::Result<Latency> {
    let path = dir.join("paced");
    spawn_pinned("disk", cpu, Some(SPIN_BEFORE_PARK), move || async move {
        let file = File::open(&path, OpenOptions { write: true, create_new: true, dsync: true }).await?;
        let mut block = AlignedBuf::with_len(FRAME_BYTES);
        random::fill(&mut block);
        let block = block.freeze();
        for pos in (0..RING_BYTES).step_by(FRAME_BYTES) {
            file.write_at(&block, pos as u64, IoClass::Append).await?;
        }

        let latencies = Latencies::new().map_err(io::Error::other)?;
        let run = Rc::new(Run {
            file: file.clone(),
            load,
            start: Instant::now(),
            next: Cell::new(0),
            pos: Cell::new(0),
            latencies: RefCell::new(latencies),
            failed: Cell::new(None),
        });
        let gate = Gate::new();
        for _ in 0..DEPTH {
            let run = run.clone();
            let writer = async move {
                if let Err(error) = run.write_what_is_due().await {
                    run.next.set(load.batches);
                    run.failed.set(Some(error));
                }
            };
            gate.spawn("writer", writer).map_err(io::Error::other)?;
        }
        gate.close().await;
        file.close().await?;
        fs::remove_file(&path).await?;
        let summary = run.latencies.borrow().summary();
        run.failed.take().map_or(Ok(summary), Err)
    })?
    .join()?
}

/// What the writers share.
struct Run {
    file: File,
    load: Load,
    start: Instant,
    /// The batch that is due next, and where it goes.
    next: Cell<u32>,
    pos: Cell<usize>,
    latencies: RefCell<Latencies>,
    failed: Cell<Option<io::Error>>,
}

impl Run {
    async fn write_what_is_due(&self) -> io::Result<()> {
        let Load { batch_bytes, batches, .. } = self.load;
        loop {
            let first = self.next.get();
            if first >= batches {
                return Ok(());
            }
            let early = self.load.due(first).saturating_sub(self.start.elapsed());
            if !early.is_zero() {
                time::sleep(early).await;
                continue;
            }
            let (mut end, mut bytes) = (first + 1, batch_bytes);
            while end < batches && bytes + batch_bytes <= FRAME_BYTES && self.load.due(end) <= self.start.elapsed() {
                (end, bytes) = (end + 1, bytes + batch_bytes);
            }
            self.next.set(end);

            let block = Self::block(bytes);
            let pos = self.place(block.len());
            self.file.write_at(&block.freeze(), pos, IoClass::Journal).await?;
            let now = self.start.elapsed();
            let mut latencies = self.latencies.borrow_mut();
            (first..end).for_each(|batch| latencies.record(now.saturating_sub(self.load.due(batch))));
        }
    }

    /// Memory that is copied into, as the bytes of batches are.
    fn block(bytes: usize) -> AlignedBuf {
        let mut block = AlignedBuf::with_len(bytes.next_multiple_of(BLOCK_BYTES));
        block.fill(0x5A);
        block
    }

    fn place(&self, bytes: usize) -> u64 {
        let pos = if self.pos.get() + bytes > RING_BYTES { 0 } else { self.pos.get() };
        self.pos.set(pos + bytes);
        pos as u64
    }
}
