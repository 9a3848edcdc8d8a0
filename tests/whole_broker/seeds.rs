//! Which seeds are tried, and what a failure says.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use ringmq_runtime::time::Instant;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Names the one seed to try.
const SEED: &str = "RINGMQ_SIM_SEED";
/// Names how many seeds to try, from 0.
const SEEDS: &str = "RINGMQ_SIM_SEEDS";

fn number_in(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {value:?}")))
}

/// Prints what the broker writes to its log, with the simulation's own time.
fn show_log() {
    let log =
        tracing_subscriber::fmt().with_test_writer().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG);
    log.with_timer(VirtualTime).init();
}

struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:?}", Instant::now())
    }
}

/// Tries seeds on as many threads as there are processors: the one that the environment names, or the first `count`. Returns
/// how many.
///
/// # Panics
/// When a seed fails, with the command that replays it.
pub(crate) fn try_all(count: u64, scenario: impl Fn(u64) + Sync) -> u64 {
    let (first, end) = match number_in(SEED) {
        Some(seed) => {
            show_log();
            (seed, seed + 1)
        }
        None => (0, number_in(SEEDS).unwrap_or(count)),
    };
    let (next, failed) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    thread::scope(|threads| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            threads.spawn(|| {
                while failed.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    // What panics has printed why, with the last events of its simulation.
                    if catch_unwind(AssertUnwindSafe(|| scenario(seed))).is_err() {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(
        failed.is_empty(),
        "seed {} fails (why is printed above); it does so each time with\n    \
         {SEED}={} cargo test -p ringmq-tests --test whole_broker -- --nocapture outlives",
        failed[0],
        failed[0]
    );
    end - first
}
