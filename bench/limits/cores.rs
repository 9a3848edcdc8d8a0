//! Executors on the processors, and the time that all of them together took.

use std::future::Future;
use std::io;
use std::time::Duration;

use ringmq_runtime::device::DeviceBudgetConfig;
use ringmq_runtime::executor::{CpuId, ExecutorConfig, ExecutorHandle, spawn_executor};
use ringmq_runtime::time::Instant;

/// As long a broker's shards look for work before they sleep, by default (`spin_before_park_us`).
pub(super) const SPIN_BEFORE_PARK: Duration = Duration::from_micros(100);

/// Starts an executor pinned to `cpu`. Its device budget lets everything through: a measurement asks for no more
/// than it wants in flight. What stands in the broker's place looks for work for [`SPIN_BEFORE_PARK`] before it sleeps; what
/// stands in that of a load generator sleeps at once, as its threads do.
pub(super) fn spawn_pinned<T, Fut>(
    name: &str,
    cpu: CpuId,
    spin_before_park: Option<Duration>,
    main: impl FnOnce() -> Fut + Send + 'static,
) -> io::Result<ExecutorHandle<T>>
where
    T: Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    const UNBOUNDED: usize = 1 << 30;
    let device = DeviceBudgetConfig {
        journal_bytes_max: UNBOUNDED,
        append_bytes_max: UNBOUNDED,
        tail_read_bytes_max: UNBOUNDED,
        background_bytes_max: UNBOUNDED,
    };
    let config =
        ExecutorConfig { name: name.to_owned(), cpu: Some(cpu), spin_before_park, device, ..ExecutorConfig::default() };
    spawn_executor(config, main)
}

/// Waits for all, and fails with the first that failed.
pub(super) fn join_all<T: Send + 'static>(handles: Vec<ExecutorHandle<io::Result<T>>>) -> io::Result<Vec<T>> {
    // Every one is joined, so that none still uses what the caller is about to remove.
    let joined: Vec<_> = handles.into_iter().map(ExecutorHandle::join).collect();
    joined.into_iter().map(|result| result?).collect()
}

/// From when to when something was under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: Instant,
    end: Instant,
}

impl Span {
    /// From `start` to now.
    pub(super) fn since(start: Instant) -> Span {
        Span { start, end: Instant::now() }
    }

    /// Bytes per second from the start of the first of `spans` to the end of the last.
    pub(super) fn rate(spans: &[Span], bytes: u64) -> f64 {
        let start = spans.iter().map(|span| span.start).min();
        let end = spans.iter().map(|span| span.end).max();
        match (start, end) {
            (Some(start), Some(end)) => bytes as f64 / end.saturating_duration_since(start).as_secs_f64(),
            _ => 0.0,
        }
    }
}
