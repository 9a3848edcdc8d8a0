//! Many threads doing the same for a measured time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often the progress that is shown on a terminal moves.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// Runs `work` with each of `workers` on a thread of its own. Gives their results in order, and the time from the start
/// to the end of the last one. On a terminal it shows how many of `total` records are done, which `work` counts up.
pub(crate) fn run<W: Send, R: Send>(
    workers: &mut [W],
    what: &'static str,
    total: u64,
    work: impl Fn(&mut W, &AtomicU64) -> R + Sync,
) -> (Vec<R>, Duration) {
    let done = AtomicU64::new(0);
    let bar = progress_bar(what, total);
    let watcher = std::thread::current();
    let started = Instant::now();
    let results = std::thread::scope(|scope| {
        let mut running = Vec::with_capacity(workers.len());
        for worker in workers {
            let (work, done, watcher) = (&work, &done, watcher.clone());
            running.push(scope.spawn(move || {
                let result = work(worker, done);
                let ended = Instant::now();
                watcher.unpark();
                (result, ended)
            }));
        }
        while !running.iter().all(|thread| thread.is_finished()) {
            std::thread::park_timeout(SHOWN_EVERY);
            bar.set_position(done.load(Ordering::Relaxed));
        }
        let results = running.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.collect::<Vec<_>>()
    });
    bar.finish_and_clear();
    let ended = results.iter().map(|(_, ended)| *ended).max().unwrap_or(started);
    (results.into_iter().map(|(result, _)| result).collect(), ended - started)
}

fn progress_bar(what: &'static str, total: u64) -> ProgressBar {
    let template = "{msg} [{bar:40}] {human_pos}/{human_len} records, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_message(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_runs_once_and_results_keep_their_order() {
        let mut workers = vec![1, 2, 3];
        let (results, elapsed) = run(&mut workers, "test", 3, |worker, done| {
            done.fetch_add(1, Ordering::Relaxed);
            *worker *= 10;
            *worker + 1
        });
        assert_eq!((results, workers), (vec![11, 21, 31], vec![10, 20, 30]));
        assert!(elapsed > Duration::ZERO);
    }
}
