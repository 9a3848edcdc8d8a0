//! The figures of one run.

use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::json;
use crate::latency::{Latencies, Latency, Percentile};
use crate::load::Load;
use crate::meter::{Sample, Spent};
use crate::pace::Rate;
use crate::volume::Volume;

/// What a run did. `bytes` are those of record batches, without the protocol around them; those of values alone where records go
/// through a client, which makes the batches. A gigabyte is 10^9 bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What tells it from others: the command, the step of a scenario, or the file that it was read from.
    pub name: String,
    /// The command, such as `produce`.
    pub verb: String,
    /// The command line.
    pub command: String,
    /// Version and commit of the generator.
    pub version: String,
    /// Records that were acknowledged (produce) or received and verified (all others).
    pub records: u64,
    /// From the first request to the last answer, without the warm-up.
    pub seconds: f64,
    /// Records by seconds.
    pub records_per_second: f64,
    /// Bytes by seconds.
    pub bytes_per_second: f64,
    /// The constant rate that was asked for; none for as fast as answers come.
    pub rate: Option<String>,
    /// Connections that failed. Records that they had under way are not counted.
    pub errors: u64,
    /// What was waited for: `none`, `leader` or `all`. None when consuming.
    pub acks: Option<String>,
    /// Producers had an identity, and the broker checked their sequences. None when consuming.
    #[serde(default)]
    pub idempotent: Option<bool>,
    /// How records were asked for, `subscribe` or `fetch`; when producing, how they were sent: prepared `batches`, or the
    /// same `forwarded` by another shard than the owner. Through a client one by one: `enqueue`, or `client` where they are
    /// received.
    pub by: Option<String>,
    /// When records are on the disk: `durable`, before they are acknowledged; or the topic's setting.
    pub flush: String,
    /// Of each batch, from sending its request to having the whole answer; at a constant rate, from when it was due. End to
    /// end, to having received it. Consuming by subscription: from what came before. End to end through a client it is of each
    /// record, so that much in one second weighs more; by `enqueue`, of one record in 64, from being handed over.
    pub latency_us: Latency,
    /// End to end: from when a batch (through a client a record) was due to having its acknowledgement.
    pub produce_latency_us: Option<Latency>,
    /// What was read of a backlog meanwhile; none where there was none.
    pub backlog_bytes_per_second: Option<f64>,
    /// What the broker's process spent; none when it does not run on this machine.
    pub broker_cpu_seconds_per_gb: Option<f64>,
    /// What this process spent.
    pub generator_cpu_seconds_per_gb: Option<f64>,
    /// The most resident memory that the broker had during the run.
    pub broker_peak_memory_bytes: Option<u64>,
    /// That is the most of `samples`, and not of every moment: this program may not have the kernel count anew.
    #[serde(default)]
    pub broker_peak_memory_is_sampled: bool,
    /// `latency_us` as a curve.
    pub latency_curve: Vec<Percentile>,
    /// How it went.
    pub samples: Vec<Sample>,
}

/// What was counted and timed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) verb: &'static str,
    pub(crate) done: Volume,
    pub(crate) errors: u64,
    pub(crate) elapsed: Duration,
}

impl Report {
    pub(crate) fn new(run: Run, latencies: &Latencies, spent: Spent, flush: &str) -> Self {
        let Volume { records, bytes } = run.done;
        let seconds = run.elapsed.as_secs_f64();
        let each_second = |number: u64| if seconds > 0.0 { number as f64 / seconds } else { 0.0 };
        let each_gigabyte = |spent: f64| spent / (bytes as f64 / 1e9);
        // Behind the end nothing is done but to wait for nothing more.
        let samples = spent.samples.into_iter().filter(|sample| sample.seconds <= seconds).collect();
        Self {
            name: run.verb.to_owned(),
            verb: run.verb.to_owned(),
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
            version: crate::VERSION.to_owned(),
            records,
            seconds,
            records_per_second: each_second(records),
            bytes_per_second: each_second(bytes),
            rate: None,
            errors: run.errors,
            acks: None,
            idempotent: None,
            by: None,
            flush: flush.to_owned(),
            latency_us: latencies.summary(),
            produce_latency_us: None,
            backlog_bytes_per_second: None,
            broker_cpu_seconds_per_gb: spent.broker_seconds.map(each_gigabyte).filter(|figure| figure.is_finite()),
            generator_cpu_seconds_per_gb: spent.own_seconds.map(each_gigabyte).filter(|figure| figure.is_finite()),
            broker_peak_memory_bytes: spent.broker_peak_memory.map(|peak| peak.bytes),
            broker_peak_memory_is_sampled: spent.broker_peak_memory.is_some_and(|peak| peak.is_sampled),
            latency_curve: latencies.curve(),
            samples,
        }
    }

    /// What the broker promised those who sent so.
    pub(crate) fn sent(self, load: &Load) -> Self {
        Self { acks: Some(load.acks.name().to_owned()), idempotent: Some(load.idempotent), ..self }
    }

    /// How records were asked for, or sent.
    pub(crate) fn by(self, by: Option<&str>) -> Self {
        Self { by: by.map(str::to_owned), ..self }
    }

    /// Records went through a client, so bytes are those of values.
    fn counts_values(&self) -> bool {
        matches!(self.by.as_deref(), Some("enqueue" | "client"))
    }

    /// The rate that was asked for.
    pub(crate) fn at_rate(self, rate: Option<Rate>) -> Self {
        Self { rate: rate.map(|rate| rate.to_string()), ..self }
    }

    /// What was read of a backlog meanwhile. Processor time is for all bytes then: nobody can tell which it was for.
    pub(crate) fn backlog_read(self, read: Volume) -> Self {
        let bytes_per_second = if self.seconds > 0.0 { read.bytes as f64 / self.seconds } else { 0.0 };
        let own_part = self.bytes_per_second / (self.bytes_per_second + bytes_per_second);
        let for_all = |figure: f64| figure * own_part;
        Self {
            backlog_bytes_per_second: Some(bytes_per_second),
            broker_cpu_seconds_per_gb: self.broker_cpu_seconds_per_gb.map(for_all),
            generator_cpu_seconds_per_gb: self.generator_cpu_seconds_per_gb.map(for_all),
            ..self
        }
    }

    /// How long acknowledgements took.
    pub(crate) fn produce_latency(self, latencies: &Latencies) -> Self {
        Self { produce_latency_us: Some(latencies.summary()), ..self }
    }

    /// Prints one JSON object, or a table.
    pub(crate) fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json { json::write_lines(self, &mut out) } else { self.write_table(&mut out) }
    }

    /// Prints its name, and its table indented.
    pub(crate) fn print_named(&self) -> io::Result<()> {
        let mut table = Vec::new();
        self.write_table(&mut table)?;
        let mut out = io::stdout().lock();
        writeln!(out, "{}", self.name)?;
        String::from_utf8_lossy(&table).lines().try_for_each(|line| writeln!(out, "  {line}"))
    }

    fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{:18} {:>14} in {:.2} s, {} errors", "records", self.records, self.seconds, self.errors)?;
        writeln!(out, "{:18} {:>14.0} /s", "", self.records_per_second)?;
        let what = if self.counts_values() { "values" } else { "record batches" };
        writeln!(out, "{what:18} {:>14.3} GB/s", self.bytes_per_second / 1e9)?;
        if let Some(rate) = &self.rate {
            writeln!(out, "{:18} {rate:>14} asked for", "")?;
        }
        if let Some(bytes) = self.backlog_bytes_per_second {
            writeln!(out, "{:18} {:>14.3} GB/s", "backlog read", bytes / 1e9)?;
        }
        print_latency(out, "latency", self.latency_us)?;
        if let Some(latency) = self.produce_latency_us {
            print_latency(out, "  acknowledged", latency)?;
        }
        for (who, seconds) in
            [("broker", self.broker_cpu_seconds_per_gb), ("generator", self.generator_cpu_seconds_per_gb)]
        {
            if let Some(seconds) = seconds {
                writeln!(out, "{:18} {seconds:>14.3} CPU s/GB", who)?;
            }
        }
        if let Some(bytes) = self.broker_peak_memory_bytes {
            let of = if self.broker_peak_memory_is_sampled { ", of samples" } else { "" };
            writeln!(out, "{:18} {:>14.0} MB at most{of}", "broker memory", bytes as f64 / 1e6)?;
        }
        let by = self.by.as_ref().map_or_else(String::new, |by| format!(", by {by}"));
        let identity = if self.idempotent == Some(true) { ", idempotent" } else { "" };
        let acks = self.acks.as_deref().unwrap_or("-");
        writeln!(out, "{:18} acks {acks}{identity}, flush {}{by}", "mode", self.flush)
    }
}

fn print_latency(out: &mut impl Write, what: &str, latency: Latency) -> io::Result<()> {
    let Latency { p50, p90, p99, p999, p9999, max } = latency;
    writeln!(
        out,
        "{what:18} p50 {p50:.0}  p90 {p90:.0}  p99 {p99:.0}  p99.9 {p999:.0}  p99.99 {p9999:.0}  max {max:.0} µs"
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::meter::PeakMemory;

    /// Figures of a run of two seconds.
    pub(crate) fn report(name: &str) -> Report {
        let mut latencies = Latencies::new().unwrap();
        (1..=10_000).for_each(|number| latencies.record(Duration::from_micros(number)));
        let sample = |number: u64| Sample {
            seconds: number as f64 / 4.0,
            records: 1000 * number,
            bytes: 1_000_000 * number,
            latency_max_us: 500.0 * number as f64,
            broker_cpu_seconds: Some(number as f64 / 10.0),
            broker_memory_bytes: Some(40_000_000 + number),
            broker_written_bytes: Some(1_100_000 * number),
            broker_read_bytes: None,
        };
        let spent = Spent {
            broker_seconds: Some(0.8),
            own_seconds: None,
            broker_peak_memory: Some(PeakMemory { bytes: 50_000_000, is_sampled: false }),
            samples: (1..=8).map(sample).collect(),
        };
        let done = Volume { records: 8000, bytes: 8_000_000 };
        let run = Run { verb: "produce", done, errors: 0, elapsed: Duration::from_secs(2) };
        let report = Report::new(run, &latencies, spent, "durable").at_rate(Some(Rate::Records(4000)));
        Report { name: name.to_owned(), acks: Some("all".to_owned()), idempotent: Some(true), ..report }
    }

    #[test]
    fn figures_are_those_of_the_time_that_was_measured() {
        let found = report("x");
        assert_eq!((found.records_per_second, found.bytes_per_second), (4000.0, 4_000_000.0));
        assert_eq!(found.broker_cpu_seconds_per_gb, Some(100.0));
        let mut table = Vec::new();
        found.write_table(&mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert!(table.contains("record batches"), "{table}");
        for by in ["enqueue", "client"] {
            let mut of_client = Vec::new();
            Report { by: Some(by.to_owned()), ..found.clone() }.write_table(&mut of_client).unwrap();
            let of_client = String::from_utf8(of_client).unwrap();
            assert!(of_client.contains("values") && !of_client.contains("record batches"), "{of_client}");
        }
        let sampled = Report { broker_peak_memory_is_sampled: true, ..found };
        let mut other = Vec::new();
        sampled.write_table(&mut other).unwrap();
        assert!(String::from_utf8(other).unwrap().contains("50 MB at most, of samples"));
        for part in [
            "8000 in 2.00 s, 0 errors",
            "4000 records/s asked for",
            "p99.99 10002",
            "50 MB at most",
            "acks all, idempotent,",
        ] {
            assert!(table.contains(part), "{part}: {table}");
        }
    }
}
