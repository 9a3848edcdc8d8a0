//! `ringmq-bench produce`: how fast the broker takes records.
//!
//! Each producer is one thread with one connection to the shard that owns its partitions. It keeps a number of requests
//! in flight and sends batches that were encoded before the clock started, with new numbers in their records each time. A
//! record counts when it is acknowledged.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use ringmq_client::OffsetSpec;
use ringmq_client::blocking::Client;

use crate::arguments::{AcksArgument, Target, setting, share};
use crate::cpu::Meter;
use crate::error::{LoadError, WorkerError};
use crate::payload::{Numbers, Payload, Shape, Values};
use crate::producer::{Producer, Sent};
use crate::report::{Latencies, Report, Run, conclude};
use crate::topic::{Topic, assign};
use crate::workers;

/// How long records without acknowledgement may take to show, from the last one that did.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// How fast the broker takes records: distinct, incompressible ones, from prepared batches
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Broker and topic; a missing topic is created.
    #[command(flatten)]
    pub target: Target,
    /// A setting of the topic, where it is created, such as flush_interval_ms=1000; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Producers, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub producers: u16,
    /// Bytes in each record's value
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub record_bytes: u32,
    /// Bytes that a batch may take; at least one record is in it
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub batch_bytes: u32,
    /// Batches that each producer sends before it waits for an answer
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub in_flight: u16,
    /// What is waited for
    #[arg(long, value_enum, default_value_t = AcksArgument::All)]
    pub acks: AcksArgument,
    /// Records in all
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub records: u64,
    /// Records that are sent before the clock starts, rounded up to whole batches
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub warmup: u64,
    /// Values come from this file instead of being random and distinct; a producer prepares a few MiB of it and repeats them
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
}

/// Produces and prints the figures.
///
/// # Errors
/// [`LoadError`]; figures of a run in which connections failed are printed all the same.
pub fn run(arguments: &Arguments) -> Result<(), LoadError> {
    conclude(measure(arguments)?, arguments.target.json)
}

/// Produces. Besides the figures gives what went wrong, if something did after the clock had started.
///
/// # Errors
/// What went wrong before.
pub fn measure(arguments: &Arguments) -> Result<(Report, Option<LoadError>), LoadError> {
    let Target { brokers, topic, partitions, .. } = &arguments.target;
    let client = Client::connect(brokers.clone())?;
    let topic = Topic::create_or_find(&client, topic, *partitions, &arguments.settings)?;
    let mut producers = prepare(arguments, &topic)?;
    warm_up(arguments, &mut producers)?;

    let before = topic.offsets(&client, OffsetSpec::Latest)?;
    let meter = Meter::start(&topic.partitions[0].addresses[0]);
    let (outcomes, mut elapsed) =
        workers::run(&mut producers, "producing", arguments.records, |producer, done| producer.produce(done));
    let (sent, failures): (Vec<Sent>, Vec<Option<WorkerError>>) = outcomes.into_iter().unzip();
    let Sent { mut records, bytes } = sent.into_iter().fold(Sent::default(), Sent::plus);
    let mut failure = LoadError::of_workers(failures);
    if arguments.acks == AcksArgument::None {
        let (sent, waiting) = (records, Instant::now());
        records = arrived(&client, &topic, &before, sent)?;
        elapsed += waiting.elapsed();
        if records < sent && failure.is_none() {
            failure = Some(LoadError::Missing { missing: sent - records, sent });
        }
    }
    let spent = meter.stop();

    let latencies = Latencies::of_all(producers.iter().map(Producer::latencies))?;
    let errors = failure.as_ref().map_or(0, LoadError::count);
    let run = Run { records, bytes, errors, elapsed };
    Ok((Report::new(run, &latencies, spent, Some(arguments.acks.name()), &topic.flush), failure))
}

/// Producers with their connections and batches.
fn prepare(arguments: &Arguments, topic: &Topic) -> Result<Vec<Producer>, LoadError> {
    let unreadable = |path: &PathBuf| {
        let path = path.clone();
        move |source| LoadError::Payload { path, source }
    };
    let file = arguments.payload.as_ref().map(|path| Values::read_file(path).map_err(unreadable(path))).transpose()?;
    let workers = usize::from(arguments.producers);
    let assigned = assign(&topic.partitions, workers);
    let mut producers = Vec::with_capacity(workers);
    // Another in each run: what a run writes was never written before.
    let seed = fastrand::u64(..);
    let shape = Shape { record_bytes: arguments.record_bytes as usize, batch_bytes: arguments.batch_bytes as usize };
    for (index, places) in assigned.into_iter().enumerate() {
        let (mut values, numbers) = match &file {
            Some(bytes) => (Values::File { bytes: bytes.clone(), at: bytes.len() / workers * index }, None),
            None => (Values::random(seed.wrapping_add(index as u64)), Some(Numbers::new(seed, index, workers))),
        };
        let payload = Payload::prepare(shape, share(arguments.records, index, workers), &mut values, numbers)?;
        let (acks, in_flight) = (arguments.acks.to_wire(), usize::from(arguments.in_flight));
        producers.push(Producer::connect(&topic.name, &places, payload, acks, in_flight)?);
    }
    Ok(producers)
}

fn warm_up(arguments: &Arguments, producers: &mut [Producer]) -> Result<(), LoadError> {
    if arguments.warmup == 0 {
        return Ok(());
    }
    let each = arguments.warmup.div_ceil(producers.len() as u64);
    let (outcomes, _) = workers::run(producers, "warming up", arguments.warmup, |producer, done| {
        let batches = each.div_ceil(producer.payload().records_per_batch);
        producer.warm_up(batches, done)
    });
    for producer in producers {
        producer.forget_latencies()?;
    }
    let failures = outcomes.into_iter().map(|(_, failure)| failure).collect();
    LoadError::of_workers(failures).map_or(Ok(()), Err)
}

/// Waits until so many records show in the topic behind `before`, or none comes any more. Gives how many did.
fn arrived(client: &Client, topic: &Topic, before: &[i64], wanted: u64) -> Result<u64, LoadError> {
    let (mut found, mut grown) = (0, Instant::now());
    loop {
        let now = topic.offsets(client, OffsetSpec::Latest)?;
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
