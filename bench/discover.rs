//! `ringmq-bench discover`: how long it takes to find out which broker is the controller.
//!
//! Once by clients that have no connection yet: what a program waits for when it starts. And by one that has: what a
//! program waits for when the controller has moved.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;
use ringmq_client::{BrokerAddress, Client};
use serde::Serialize;

use crate::error::LoadError;
use crate::json;
use crate::latency::{Latencies, Latency};

/// What is wanted of 99 in 100, with the connection and without.
const WANTED: Duration = Duration::from_millis(1);

/// How long it takes to find out which broker is the controller, with connecting and without
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Brokers to start from: `HOST[:PORT]`, several with commas between them
    #[arg(long, env = "RINGMQ_BROKERS", value_name = "ADDR", default_value = "localhost:9092", value_delimiter = ',')]
    pub brokers: Vec<BrokerAddress>,
    /// Clients that connect and ask, one after the other
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// How often one client asks on its open connection
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Discovery {
    /// The controller.
    pub controller: String,
    /// Of the first client of all, from the start of its connection to the answer.
    pub first_us: f64,
    /// Of each client, from the start of its connection to the answer.
    pub with_connect_us: Latency,
    /// On a connection that is open.
    pub open_us: Latency,
    /// What is wanted of the p99 of both.
    pub wanted_us: f64,
    /// Whether it is so.
    pub is_met: bool,
}

/// Measures and prints.
///
/// # Errors
/// When no broker answers, or the figures cannot be printed.
pub fn run(arguments: &Arguments) -> Result<(), LoadError> {
    let discovery = measure(arguments)?;
    let mut out = io::stdout().lock();
    let printed =
        if arguments.json { json::write_lines(&discovery, &mut out) } else { discovery.write_table(&mut out) };
    printed.map_err(LoadError::Output)
}

/// Measures.
///
/// # Errors
/// When no broker answers.
pub fn measure(arguments: &Arguments) -> Result<Discovery, LoadError> {
    // On this thread alone, as little as a program can have between itself and the connection.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(LoadError::Runtime)?.block_on(discover(arguments))
}

async fn discover(arguments: &Arguments) -> Result<Discovery, LoadError> {
    let (mut with_connect, mut open) = (Latencies::new()?, Latencies::new()?);
    let mut first = None;
    for _ in 0..arguments.clients {
        let started = Instant::now();
        let client = Client::connect(arguments.brokers.clone()).await?;
        client.admin().discover_controller().await?;
        let took = started.elapsed();
        first.get_or_insert(took);
        with_connect.record(took);
    }
    let admin = Client::connect(arguments.brokers.clone()).await?.admin();
    let mut controller = admin.discover_controller().await?;
    for _ in 0..arguments.count {
        let started = Instant::now();
        controller = admin.discover_controller().await?;
        open.record(started.elapsed());
    }
    let (with_connect_us, open_us) = (with_connect.summary(), open.summary());
    let wanted_us = microseconds(WANTED);
    Ok(Discovery {
        controller: controller.address.to_string(),
        first_us: microseconds(first.unwrap_or_default()),
        with_connect_us,
        open_us,
        wanted_us,
        is_met: with_connect_us.p99 < wanted_us && open_us.p99 < wanted_us,
    })
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

impl Discovery {
    fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{:20} {}", "controller", self.controller)?;
        writeln!(out, "{:20} {:.0} µs", "the first of all", self.first_us)?;
        for (name, Latency { p50, p99, p999, max, .. }) in
            [("with connect", self.with_connect_us), ("on an open connection", self.open_us)]
        {
            writeln!(out, "{name:20} p50 {p50:.0}  p99 {p99:.0}  p99.9 {p999:.0}  max {max:.0} µs")?;
        }
        let met = if self.is_met { "met" } else { "missed" };
        writeln!(out, "{:20} p99 below {:.0} µs: {met}", "wanted", self.wanted_us)
    }
}
