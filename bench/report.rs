//! The figures of one run.

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cpu::Spent;
use crate::error::LoadError;

/// What a run did. `bytes` are those of record batches, without the protocol around them; a gigabyte is 10^9 bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Records that were acknowledged (produce) or read and verified (consume).
    pub records: u64,
    /// From the first request to the last answer, without the warm-up.
    pub seconds: f64,
    /// Records by seconds.
    pub records_per_second: f64,
    /// Bytes of record batches by seconds.
    pub bytes_per_second: f64,
    /// Connections that failed. Records that they had under way are not counted.
    pub errors: u64,
    /// What was waited for: `none`, `leader` or `all`. None when consuming.
    pub acks: Option<&'static str>,
    /// When records are on the disk: `durable`, before they are acknowledged; or the topic's setting.
    pub flush: String,
    /// From sending a request to having its whole answer.
    pub latency_us: Latency,
    /// What the broker's process spent; none when it does not run on this machine.
    pub broker_cpu_seconds_per_gb: Option<f64>,
    /// What this process spent.
    pub generator_cpu_seconds_per_gb: Option<f64>,
}

/// Quantiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// 90 of 100 are not longer.
    pub p90: f64,
    /// 99 of 100 are not longer.
    pub p99: f64,
    /// 999 of 1000 are not longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// Durations of requests, in nanoseconds, to three digits.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Histogram::new(3).map(Self)
    }

    /// Those of many workers together.
    pub(crate) fn of_all<'a>(workers: impl Iterator<Item = &'a Self>) -> Result<Self, hdrhistogram::CreationError> {
        let mut all = Self::new()?;
        workers.for_each(|worker| all.add(worker));
        Ok(all)
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        // It grows by itself, to 2^63 nanoseconds; what is longer counts as that.
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX >> 1);
        let _ = self.0.record(nanoseconds);
    }

    fn add(&mut self, other: &Self) {
        // They have the same precision and grow by themselves.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn summary(&self) -> Latency {
        let microseconds = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            p50: microseconds(0.5),
            p90: microseconds(0.9),
            p99: microseconds(0.99),
            p999: microseconds(0.999),
            max: self.0.max() as f64 / 1e3,
        }
    }
}

/// What was counted and timed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    pub(crate) elapsed: Duration,
}

impl Report {
    pub(crate) fn new(run: Run, latencies: &Latencies, spent: Spent, acks: Option<&'static str>, flush: &str) -> Self {
        let seconds = run.elapsed.as_secs_f64();
        let each_gigabyte = |spent: f64| spent / (run.bytes as f64 / 1e9);
        Self {
            records: run.records,
            seconds,
            records_per_second: run.records as f64 / seconds,
            bytes_per_second: run.bytes as f64 / seconds,
            errors: run.errors,
            acks,
            flush: flush.to_owned(),
            latency_us: latencies.summary(),
            broker_cpu_seconds_per_gb: spent.broker_seconds.map(each_gigabyte).filter(|figure| figure.is_finite()),
            generator_cpu_seconds_per_gb: spent.own_seconds.map(each_gigabyte).filter(|figure| figure.is_finite()),
        }
    }

    /// Prints one JSON object, or a table.
    pub(crate) fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer_pretty(&mut out, self)?;
            return writeln!(out);
        }
        let Latency { p50, p90, p99, p999, max } = self.latency_us;
        writeln!(out, "{:18} {:>14} in {:.2} s, {} errors", "records", self.records, self.seconds, self.errors)?;
        writeln!(out, "{:18} {:>14.0} /s", "", self.records_per_second)?;
        writeln!(out, "{:18} {:>14.3} GB/s", "record batches", self.bytes_per_second / 1e9)?;
        writeln!(out, "{:18} p50 {p50:.0}  p90 {p90:.0}  p99 {p99:.0}  p99.9 {p999:.0}  max {max:.0} µs", "latency")?;
        for (who, seconds) in
            [("broker", self.broker_cpu_seconds_per_gb), ("generator", self.generator_cpu_seconds_per_gb)]
        {
            if let Some(seconds) = seconds {
                writeln!(out, "{:18} {seconds:>14.3} CPU s/GB", who)?;
            }
        }
        writeln!(out, "{:18} acks {}, flush {}", "mode", self.acks.unwrap_or("-"), self.flush)
    }
}

/// Ends a run: prints its figures, also those of a run in which something failed, and then gives what failed.
pub(crate) fn conclude((report, failure): (Report, Option<LoadError>), json: bool) -> Result<(), LoadError> {
    report.print(json).map_err(LoadError::Output)?;
    failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_all_workers_together() {
        let (mut all, mut other) = (Latencies::new().unwrap(), Latencies::new().unwrap());
        for number in 1..=500 {
            all.record(Duration::from_micros(number));
            other.record(Duration::from_micros(500 + number));
        }
        all.add(&other);
        let found = all.summary();
        for (found, expected) in [(found.p50, 500.0), (found.p90, 900.0), (found.p99, 990.0), (found.max, 1000.0)] {
            assert!((found / expected - 1.0).abs() < 0.002, "{found} instead of {expected}");
        }
    }
}
