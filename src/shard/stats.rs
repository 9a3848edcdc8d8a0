//! What one shard has done and how long each stage took. Recording costs some ten nanoseconds and allocates nothing.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use ringmq_runtime::file::{self, IoStats};
use ringmq_runtime::task::{self, Stall};
use ringmq_wire::protocol::RequestType;

/// Longer than any stage may take; what is longer counts as this.
const LONGEST: Duration = Duration::from_secs(600);

/// A stage of a request's way through the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Produce: from room for the request to its last byte.
    ProduceReceived,
    /// Produce: from there to the last section in the staging of its log, or in a mailbox.
    ProduceStaged,
    /// Produce: from there to the durable offset having passed it.
    ProduceDurable,
    /// Produce: from there to the response handed to the kernel.
    ProduceAnswered,
    /// Fetch: from the decoded request to enough records (or the end of the wait).
    FetchReady,
    /// Fetch: from there to the response handed to the kernel.
    FetchAnswered,
    /// Any other request: from the decoded request to the response handed to the kernel.
    OtherAnswered,
    /// A message to another shard: from the mailbox to its answer.
    Forwarded,
}

impl Stage {
    /// Every stage, in the order of the histograms.
    pub const ALL: [Stage; 8] = [
        Stage::ProduceReceived,
        Stage::ProduceStaged,
        Stage::ProduceDurable,
        Stage::ProduceAnswered,
        Stage::FetchReady,
        Stage::FetchAnswered,
        Stage::OtherAnswered,
        Stage::Forwarded,
    ];

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::ProduceReceived => "produce_received",
            Stage::ProduceStaged => "produce_staged",
            Stage::ProduceDurable => "produce_durable",
            Stage::ProduceAnswered => "produce_answered",
            Stage::FetchReady => "fetch_ready",
            Stage::FetchAnswered => "fetch_answered",
            Stage::OtherAnswered => "other_answered",
            Stage::Forwarded => "forwarded",
        }
    }
}

/// What is counted. Counters only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Connections accepted.
    Connections,
    /// Connections ended because of what the peer sent, or did not send.
    ConnectionFaults,
    /// Record bytes received in produces.
    ProducedBytes,
    /// Record bytes sent in fetch responses.
    FetchedBytes,
    /// Requests (or parts of one) that went on to another shard.
    ForwardedMessages,
    /// Record bytes copied to or from another shard.
    ForwardedBytes,
    /// Requests, or parts of one, answered with an error.
    Errors,
}

impl Counter {
    const ALL: [(Counter, &'static str); 7] = [
        (Counter::Connections, "connections"),
        (Counter::ConnectionFaults, "connection_faults"),
        (Counter::ProducedBytes, "produced_bytes"),
        (Counter::FetchedBytes, "fetched_bytes"),
        (Counter::ForwardedMessages, "forwarded_messages"),
        (Counter::ForwardedBytes, "forwarded_bytes"),
        (Counter::Errors, "errors"),
    ];
}

/// The counts of one shard.
pub(crate) struct Stats {
    stages: RefCell<Vec<Histogram<u64>>>,
    counters: [Cell<u64>; Counter::ALL.len()],
    requests: RefCell<[u64; REQUEST_TYPES]>,
}

/// Request types are numbered from 1.
const REQUEST_TYPES: usize = 18;

impl Stats {
    pub(crate) fn new() -> Self {
        // Two significant digits over 1 ns to 10 minutes take 40 KiB a histogram.
        let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
        let histogram =
            || Histogram::new_with_bounds(1, longest, 2).expect("1..10 min with two digits is a valid range");
        Self {
            stages: RefCell::new(Stage::ALL.iter().map(|_| histogram()).collect()),
            counters: Default::default(),
            requests: RefCell::new([0; REQUEST_TYPES]),
        }
    }

    pub(crate) fn record(&self, stage: Stage, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.stages.borrow_mut()[stage as usize].saturating_record(nanoseconds);
    }

    pub(crate) fn add(&self, counter: Counter, count: usize) {
        let cell = &self.counters[counter as usize];
        cell.set(cell.get().wrapping_add(count as u64));
    }

    pub(crate) fn count_request(&self, request_type: RequestType) {
        if let Some(count) = self.requests.borrow_mut().get_mut(request_type as usize) {
            *count += 1;
        }
    }

    /// Everything so far, in numbers, but for the gauges.
    pub(crate) fn snapshot(&self) -> StatsSnapshot {
        let stages = self.stages.borrow();
        let requests = self.requests.borrow();
        StatsSnapshot {
            stages: Stage::ALL
                .into_iter()
                .zip(stages.iter())
                .filter(|(_, histogram)| !histogram.is_empty())
                .map(|(stage, histogram)| (stage, Latencies::of(histogram)))
                .collect(),
            counters: Counter::ALL
                .iter()
                .map(|&(counter, name)| (name, self.counters[counter as usize].get()))
                .collect(),
            requests: RequestType::ALL
                .iter()
                .map(|&request_type| (request_type, requests.get(request_type as usize).copied().unwrap_or(0)))
                .filter(|&(_, count)| count > 0)
                .collect(),
            gauges: Vec::new(),
            io: file::io_stats(),
            stalls: task::stalls(),
        }
    }
}

/// The counts of one shard at one moment. Its display form is one line for the log.
#[derive(Debug, Clone)]
pub struct StatsSnapshot {
    /// The stages that anything has passed.
    pub stages: Vec<(Stage, Latencies)>,
    /// Every counter by name.
    pub counters: Vec<(&'static str, u64)>,
    /// Requests by type, those that came.
    pub requests: Vec<(RequestType, u64)>,
    /// What is so now, by name.
    pub gauges: Vec<(&'static str, u64)>,
    /// What the shard's executor did at the device.
    pub io: IoStats,
    /// Tasks that held the core in one go for longer than the stall threshold of its executor.
    pub stalls: Vec<Stall>,
}

/// How long a stage took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latencies {
    /// How often the stage was passed.
    pub count: u64,
    /// Half took at most this long.
    pub p50: Duration,
    /// 99 of 100 took at most this long.
    pub p99: Duration,
    /// 999 of 1000 took at most this long.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

impl Latencies {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| Duration::from_nanos(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_nanos(histogram.max()),
        }
    }
}

impl fmt::Display for StatsSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (request_type, count) in &self.requests {
            write!(f, "{request_type:?}={count} ")?;
        }
        for (name, count) in self.counters.iter().filter(|(_, count)| *count > 0) {
            write!(f, "{name}={count} ")?;
        }
        write!(f, "flushes={} ", self.io.flushes)?;
        for (name, value) in self.gauges.iter().filter(|(_, value)| *value > 0) {
            write!(f, "{name}={value} ")?;
        }
        for (stage, l) in &self.stages {
            let us = |duration: Duration| duration.as_nanos() as f64 / 1e3;
            write!(
                f,
                "{}_us[n={} p50={:.1} p99={:.1} p999={:.1} max={:.1}] ",
                stage.name(),
                l.count,
                us(l.p50),
                us(l.p99),
                us(l.p999),
                us(l.max)
            )?;
        }
        for stall in &self.stalls {
            write!(f, "{stall} ")?;
        }
        Ok(())
    }
}
