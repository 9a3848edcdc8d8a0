//! The disk alone.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::rc::Rc;

use hdrhistogram::Histogram;
use ringmq_runtime::buffer::{AlignedBuf, BLOCK_BYTES};
use ringmq_runtime::executor::CpuId;
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::task::Gate;
use ringmq_runtime::time::Instant;
use ringmq_runtime::{fs, random};

use super::cores::{SPIN_BEFORE_PARK, Span, spawn_pinned};
use super::{FRAME_BYTES, MINUTE_NS};

/// Requests at the device at the same time.
const DEPTH: usize = 8;

/// What the disk does with large requests.
pub(super) struct Throughput {
    pub(super) write_bytes_per_second: f64,
    pub(super) read_bytes_per_second: f64,
}

/// Writes a new file of `bytes` and reads it.
pub(super) fn throughput(cpu: CpuId, dir: &Path, bytes: u64) -> io::Result<Throughput> {
    let path = dir.join("throughput");
    spawn_pinned("disk", cpu, Some(SPIN_BEFORE_PARK), move || async move {
        let file = File::open(&path, OpenOptions { write: true, create_new: true, dsync: false }).await?;
        file.preallocate(bytes).await?;
        let mut block = AlignedBuf::with_len(FRAME_BYTES);
        random::fill(&mut block);
        let block = block.freeze();

        let start = Instant::now();
        side_by_side(bytes, {
            let file = file.clone();
            async move |pos| file.write_at(&block, pos, IoClass::Append).await
        })
        .await?;
        file.fdatasync().await?;
        let written = Span::since(start);

        let start = Instant::now();
        side_by_side(bytes, {
            let file = file.clone();
            async move |pos| file.read_at(pos, FRAME_BYTES, IoClass::ColdRead).await.map(drop)
        })
        .await?;
        let read = Span::since(start);
        file.close().await?;
        fs::remove_file(&path).await?;
        Ok(Throughput {
            write_bytes_per_second: Span::rate(&[written], bytes),
            read_bytes_per_second: Span::rate(&[read], bytes),
        })
    })?
    .join()?
}

/// Runs `request` for each frame of `bytes` in order, [`DEPTH`] at a time.
async fn side_by_side(bytes: u64, request: impl AsyncFn(u64) -> io::Result<()> + 'static) -> io::Result<()> {
    let request = Rc::new(request);
    let next = Rc::new(Cell::new(0));
    let failed = Rc::new(Cell::new(None));
    let gate = Gate::new();
    for _ in 0..DEPTH {
        let (request, next, failed) = (request.clone(), next.clone(), failed.clone());
        let worker = async move {
            while next.get() < bytes {
                let pos = next.replace(next.get() + FRAME_BYTES as u64);
                if let Err(error) = request(pos).await {
                    failed.set(Some(error));
                    next.set(bytes);
                }
            }
        };
        gate.spawn("request", worker).map_err(io::Error::other)?;
    }
    gate.close().await;
    failed.take().map_or(Ok(()), Err)
}

/// The median time, in microseconds, of a durable write of one block over blocks that were written before.
pub(super) fn dsync_latency(cpu: CpuId, dir: &Path) -> io::Result<f64> {
    const BLOCKS: u64 = 1024;
    const WRITES: u64 = 4096;
    let path = dir.join("dsync");
    spawn_pinned("disk", cpu, Some(SPIN_BEFORE_PARK), move || async move {
        let file = File::open(&path, OpenOptions { write: true, create_new: true, dsync: true }).await?;
        let mut everything = AlignedBuf::with_len(usize::try_from(BLOCKS).map_err(io::Error::other)? * BLOCK_BYTES);
        random::fill(&mut everything);
        file.write_at(&everything.freeze(), 0, IoClass::Append).await?;

        let mut block = AlignedBuf::with_len(BLOCK_BYTES);
        random::fill(&mut block);
        let block = block.freeze();
        let mut nanoseconds = Histogram::<u64>::new_with_bounds(1, MINUTE_NS, 3).map_err(io::Error::other)?;
        for write in 0..WRITES {
            let start = Instant::now();
            file.write_at(&block, write % BLOCKS * BLOCK_BYTES as u64, IoClass::Journal).await?;
            nanoseconds
                .record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
                .map_err(io::Error::other)?;
        }
        file.close().await?;
        fs::remove_file(&path).await?;
        Ok(nanoseconds.value_at_quantile(0.5) as f64 / 1e3)
    })?
    .join()?
}
