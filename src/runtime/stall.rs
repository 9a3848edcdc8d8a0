//! Who held the core: every task's poll is timed, and what took longer than the executor's threshold is counted, told
//! on request, and logged at level `debug` as it happens.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use crate::backend;

/// A poll that takes longer than this is a stall where nobody says otherwise: nothing else of the core ran meanwhile.
pub(crate) const THRESHOLD_DEFAULT: Duration = Duration::from_millis(5);

/// An executor logs one stall in this time; the others are only counted.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// A task that held the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The name that the task was spawned with.
    pub task: &'static str,
    /// Its longest single poll.
    pub longest: Duration,
    /// How many of its polls took longer than [`ExecutorConfig::stall_threshold`](crate::executor::ExecutorConfig).
    pub count: u64,
}

/// As it stands in the log.
impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stall[{} longest_ms={:.1} n={}]", self.task, self.longest.as_secs_f64() * 1e3, self.count)
    }
}

/// The stalls of one executor since it started, one entry a task name.
#[derive(Debug)]
pub(crate) struct StallLog {
    threshold: Duration,
    stalls: RefCell<Vec<Stall>>,
    logged: Cell<Option<Instant>>,
}

impl Default for StallLog {
    fn default() -> StallLog {
        StallLog::new(THRESHOLD_DEFAULT)
    }
}

impl StallLog {
    /// An empty log of polls that take longer than `threshold`.
    pub(crate) fn new(threshold: Duration) -> StallLog {
        StallLog { threshold, stalls: RefCell::default(), logged: Cell::default() }
    }

    /// Every stall so far, worst first.
    pub(crate) fn snapshot(&self) -> Vec<Stall> {
        let mut stalls = self.stalls.borrow().clone();
        stalls.sort_by_key(|stall| std::cmp::Reverse(stall.longest));
        stalls
    }

    fn record(&self, task: &'static str, held: Duration, now: Instant) {
        let mut stalls = self.stalls.borrow_mut();
        match stalls.iter_mut().find(|stall| stall.task == task) {
            Some(stall) => {
                stall.longest = stall.longest.max(held);
                stall.count += 1;
            }
            None => stalls.push(Stall { task, longest: held, count: 1 }),
        }
        if self.logged.get().is_none_or(|logged| now.saturating_duration_since(logged) >= LOG_INTERVAL) {
            self.logged.set(Some(now));
            tracing::debug!(
                task,
                held_ms = held.as_secs_f64() * 1e3,
                "a task held its core: nothing else ran meanwhile"
            );
        }
    }
}

pin_project! {
    /// A future whose polls are timed.
    pub(crate) struct Timed<F> {
        name: &'static str,
        #[pin]
        future: F,
    }
}

impl<F> Timed<F> {
    pub(crate) fn new(name: &'static str, future: F) -> Timed<F> {
        Timed { name, future }
    }
}

impl<F: Future> Future for Timed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let timed = self.project();
        let start = Instant::now();
        let polled = timed.future.poll(cx);
        let end = Instant::now();
        let held = end.saturating_duration_since(start);
        if let Some(context) = backend::try_current()
            && held > context.stalls.threshold
        {
            context.stalls.record(timed.name, held, end);
        }
        polled
    }
}
