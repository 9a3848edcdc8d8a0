//! Many threads doing the same for a measured time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::meter::Meter;
use crate::pace::Extent;
use crate::volume::Volume;

/// How often the progress that is shown on a terminal moves, and the meter is read.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// What all workers together have done since the start.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    records: AtomicU64,
    bytes: AtomicU64,
    /// The longest latency since it was asked last, in nanoseconds.
    longest: AtomicU64,
}

impl Progress {
    /// Nothing, from now on.
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            longest: AtomicU64::new(0),
        }
    }

    /// Of others, with the same start.
    pub(crate) fn beside(&self) -> Self {
        Self { started: self.started, ..Self::start() }
    }

    /// The start.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Adds what was done, and the longest that any of it took.
    pub(crate) fn add(&self, done: Volume, longest: Duration) {
        self.records.fetch_add(done.records, Ordering::Relaxed);
        self.bytes.fetch_add(done.bytes, Ordering::Relaxed);
        self.longest.fetch_max(u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The longest that anything took since the last time that this was asked.
    pub(crate) fn take_longest(&self) -> Duration {
        Duration::from_nanos(self.longest.swap(0, Ordering::Relaxed))
    }

    pub(crate) fn done(&self) -> Volume {
        Volume { records: self.records.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// Runs `work` with each of `workers` on a thread of its own. Gives their results in order, and the time from the start
/// to the end of the last one. Meanwhile it reads the meter, and shows on a terminal how much of `extent` is done.
pub(crate) fn run<W: Send, R: Send>(
    workers: &mut [W],
    what: &'static str,
    extent: Extent,
    mut meter: Option<&mut Meter>,
    work: impl Fn(&mut W, &Progress) -> R + Sync,
) -> (Vec<R>, Duration) {
    let watcher = std::thread::current();
    let display = Display::new(what, extent);
    let progress = Progress::start();
    let results = std::thread::scope(|scope| {
        let mut running = Vec::with_capacity(workers.len());
        for worker in workers {
            let (work, progress, watcher) = (&work, &progress, watcher.clone());
            running.push(scope.spawn(move || {
                let result = work(worker, progress);
                let ended = Instant::now();
                watcher.unpark();
                (result, ended)
            }));
        }
        while !running.iter().all(|thread| thread.is_finished()) {
            std::thread::park_timeout(SHOWN_EVERY);
            display.show(&progress);
            if let Some(meter) = &mut meter {
                meter.sample(&progress);
            }
        }
        let results = running.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.collect::<Vec<_>>()
    });
    let ended = results.iter().map(|(_, ended)| *ended).max().unwrap_or(progress.started);
    (results.into_iter().map(|(result, _)| result).collect(), ended - progress.started)
}

/// The progress on a terminal: a bar of records, or of time.
struct Display {
    bar: ProgressBar,
    extent: Extent,
}

impl Display {
    fn new(what: &'static str, extent: Extent) -> Self {
        let (template, length) = match extent {
            Extent::Records(records) => {
                ("{msg} [{bar:40}] {human_pos}/{human_len} records, {prefix}, {eta} left", records)
            }
            Extent::Time(time) => {
                ("{msg} [{bar:40}] {prefix}, {eta} left", u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            }
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self { bar: ProgressBar::new(length).with_style(style).with_message(what), extent }
    }

    fn show(&self, progress: &Progress) {
        let (elapsed, done) = (progress.started.elapsed(), progress.done());
        let position = match self.extent {
            Extent::Records(_) => done.records,
            Extent::Time(_) => u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        };
        let each_second = |number: u64| number as f64 / elapsed.as_secs_f64().max(f64::EPSILON);
        let (records, megabytes) = (each_second(done.records), each_second(done.bytes) / 1e6);
        self.bar.set_position(position.min(self.bar.length().unwrap_or(u64::MAX)));
        self.bar.set_prefix(format!("{records:.0} records/s, {megabytes:.1} MB/s"));
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_runs_once_and_results_keep_their_order() {
        let mut workers = vec![1, 2, 3];
        let (results, elapsed) = run(&mut workers, "test", Extent::Records(3), None, |worker, progress| {
            progress.add(Volume { records: 1, bytes: 2 }, Duration::ZERO);
            *worker *= 10;
            *worker + 1
        });
        assert_eq!((results, workers), (vec![11, 21, 31], vec![10, 20, 30]));
        assert!(elapsed > Duration::ZERO);
    }
}
