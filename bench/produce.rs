//! `ringmq-bench produce`: how fast the broker takes records.
//!
//! Each producer is one thread with one connection to the shard that owns its partitions. It keeps a number of requests
//! in flight and sends batches that were encoded before the clock started, with new numbers in their records each time. A
//! record counts when it is acknowledged. With `--rate` batches are due at times of their own, and latencies count from
//! those.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use ringmq_client::OffsetSpec;

use crate::arguments::{AcksArgument, Target};
use crate::driver::Topics;
use crate::enqueue;
use crate::error::{LoadError, WorkerError};
use crate::latency::Latencies;
use crate::load::Load;
use crate::meter::Meter;
use crate::pace::Rate;
use crate::producer::Producer;
use crate::report::{Report, Run};
use crate::topic::Topic;
use crate::volume::Volume;
use crate::workers;

/// How long records without acknowledgement may take to show, from the last one that did.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// How fast the broker takes records: distinct, incompressible ones, from prepared batches
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Broker and topic; a missing topic is created.
    #[command(flatten)]
    pub target: Target,
    /// What is sent.
    #[command(flatten)]
    pub load: Load,
    /// How records are handed to the broker [default: batches, where the driver has them]
    #[arg(long, value_enum, value_name = "HOW")]
    pub by: Option<ProduceBy>,
    /// A constant rate of all producers together, records (20000) or bytes (50MB) a second, instead of as fast as answers
    /// come; latencies then count from when a batch was due, so that a stall shows in all that was due meanwhile
    #[arg(long, value_name = "RATE")]
    pub rate: Option<Rate>,
}

/// How records are handed to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProduceBy {
    /// In batches that are prepared before: what the broker can do
    Batches,
    /// The same, to the partitions of one shard by way of another: what it costs to be passed on
    Forwarded,
    /// One by one to the client's producer, by --producers tasks: what the client can do
    Enqueue,
}

/// Produces. Besides the figures gives what went wrong, if something did after the clock had started.
///
/// # Errors
/// What went wrong before.
pub fn measure(arguments: &Arguments) -> Result<(Report, Option<LoadError>), LoadError> {
    let Arguments { target: Target { topic, partitions, .. }, load, rate, by } = arguments;
    match by {
        Some(ProduceBy::Enqueue) => return enqueue::measure(&arguments.target, load, *rate),
        None if arguments.target.driver.is_client_alone() => return enqueue::measure(&arguments.target, load, *rate),
        Some(ProduceBy::Batches | ProduceBy::Forwarded) if arguments.target.driver.is_client_alone() => {
            return Err(LoadError::OnlyClient);
        }
        Some(ProduceBy::Batches | ProduceBy::Forwarded) | None => {}
    }
    let mut topics = arguments.target.connect()?;
    let mut topic = Topic::create_or_find(&mut *topics, topic, *partitions, &load.settings)?;
    let mut by_name = "batches";
    if *by == Some(ProduceBy::Forwarded) {
        (topic, by_name) = (topic.by_way_of_another()?, "forwarded");
    }
    let mut producers = load.connect(&topic, *rate, None)?;
    load.warm_up(&mut producers)?;

    let before = topics.offsets(&topic, OffsetSpec::Latest)?;
    let mut meter = Meter::start(topic.home());
    let extent = load.extent();
    let (outcomes, mut elapsed) =
        workers::run(&mut producers, "producing", extent, Some(&mut meter), |producer, progress| {
            let plan = producer.plan(extent);
            producer.produce(plan, progress)
        });
    let (sent, failures): (Vec<Volume>, Vec<Option<WorkerError>>) = outcomes.into_iter().unzip();
    let mut done: Volume = sent.into_iter().sum();
    let mut failure = LoadError::of_workers(failures);
    if load.acks == AcksArgument::None {
        let (sent, waiting) = (done.records, Instant::now());
        done.records = arrived(&mut *topics, &topic, &before, sent)?;
        elapsed += waiting.elapsed();
        if done.records < sent && failure.is_none() {
            failure = Some(LoadError::Missing { missing: sent - done.records, sent });
        }
    }
    let spent = meter.stop();

    let latencies = Latencies::of_all(producers.iter().map(Producer::latencies))?;
    let errors = failure.as_ref().map_or(0, LoadError::count);
    let run = Run { verb: "produce", done, errors, elapsed };
    let report = Report::new(run, &latencies, spent, &topic.flush).sent(load).by(Some(by_name));
    Ok((report.at_rate(*rate), failure))
}

/// Waits until so many records show in the topic behind `before`, or none comes any more. Gives how many did.
fn arrived(topics: &mut dyn Topics, topic: &Topic, before: &[i64], wanted: u64) -> Result<u64, LoadError> {
    let (mut found, mut grown) = (0, Instant::now());
    loop {
        let now = topics.offsets(topic, OffsetSpec::Latest)?;
        let total = now.iter().zip(before).map(|(now, before)| now.saturating_sub(*before)).sum::<i64>();
        let total = u64::try_from(total).unwrap_or(0);
        if total > found {
            (found, grown) = (total, Instant::now());
        }
        if found >= wanted || grown.elapsed() > ARRIVAL_MAX {
            return Ok(found.min(wanted));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
