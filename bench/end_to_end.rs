//! `ringmq-bench end-to-end`: how long records are on their way from producers to consumers.
//!
//! Producers send batches at a constant rate, and each batch says in its first record when it was due. Consumers have one
//! fetch waiting at the broker for each of their partitions, so that a batch is answered as soon as it may be seen. All are
//! threads of this process, and read one clock. The latency of a batch is from when it was due to when its last byte was
//! received and its checksum found right: a stall on any side counts in full.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use clap::Args;
use ringmq_client::OffsetSpec;
use ringmq_client::blocking::Client;

use crate::arguments::Target;
use crate::error::{LoadError, WorkerError};
use crate::latency::Latencies;
use crate::load::Load;
use crate::meter::Meter;
use crate::pace::{Extent, Rate};
use crate::producer::{Plan, Producer};
use crate::report::{Report, Run, conclude};
use crate::tail::{Acknowledged, Following, Tail};
use crate::topic::{Topic, assign};
use crate::volume::Volume;
use crate::workers::{self, Progress};

/// How long records take from producers to consumers, at a constant rate
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Broker and topic, which nobody else may write to meanwhile; a missing one is created.
    #[command(flatten)]
    pub target: Target,
    /// What is sent.
    #[command(flatten)]
    pub load: Load,
    /// What all producers together send: records (20000) or bytes (50MB) a second
    #[arg(long, value_name = "RATE")]
    pub rate: Rate,
    /// Consumers, each with a connection of its own; those beyond the number of partitions have nothing to do
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub consumers: u16,
    /// Bytes that one fetch asks for
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub fetch_bytes: u32,
}

/// Produces and consumes, and prints the figures.
///
/// # Errors
/// [`LoadError`]; figures of a run in which connections failed are printed all the same.
pub fn run(arguments: &Arguments) -> Result<(), LoadError> {
    conclude(measure(arguments)?, arguments.target.json)
}

/// Produces and consumes. Besides the figures gives what went wrong, if something did after the clock had started.
///
/// # Errors
/// What went wrong before.
pub fn measure(arguments: &Arguments) -> Result<(Report, Option<LoadError>), LoadError> {
    let Arguments { target: Target { brokers, topic, partitions, .. }, load, rate, .. } = arguments;
    let client = Client::connect(brokers.clone())?;
    let topic = Topic::create_or_find(&client, topic, *partitions, &load.settings)?;
    let mut workers = connect(arguments, &client, &topic)?;
    if !load.warmup.is_nothing() {
        let each = load.warm_up_of_each(load.producers.into());
        let plan = |producer: &Producer| producer.warm_up_plan(each);
        let outcome = run_all(&mut workers, ("warming up", load.warmup), None, &topic, plan);
        outcome.failure.map_or(Ok(()), Err)?;
        workers.iter_mut().try_for_each(Worker::forget_latencies)?;
    }
    let mut meter = Meter::start(topic.home());
    let extent = load.extent();
    let plan = |producer: &Producer| producer.plan(extent);
    let Outcome { received, elapsed, failure } =
        run_all(&mut workers, ("end to end", extent), Some(&mut meter), &topic, plan);
    let spent = meter.stop();

    let on_the_way = Latencies::of_all(workers.iter().filter_map(Worker::tail).map(Tail::latencies))?;
    let to_acknowledge = Latencies::of_all(workers.iter().filter_map(Worker::producer).map(Producer::latencies))?;
    let errors = failure.as_ref().map_or(0, LoadError::count);
    let run = Run { verb: "end-to-end", done: received, errors, elapsed };
    let report = Report::new(run, &on_the_way, spent, &topic.flush).acks(load.acks.name());
    Ok((report.at_rate(*rate).produce_latency(&to_acknowledge), failure))
}

/// One thread's work.
enum Worker {
    Producer(Box<Producer>),
    Tail(Box<Tail>),
}

impl Worker {
    fn producer(&self) -> Option<&Producer> {
        match self {
            Self::Producer(producer) => Some(producer),
            Self::Tail(_) => None,
        }
    }

    fn tail(&self) -> Option<&Tail> {
        match self {
            Self::Producer(_) => None,
            Self::Tail(tail) => Some(tail),
        }
    }

    fn forget_latencies(&mut self) -> Result<(), LoadError> {
        match self {
            Self::Producer(producer) => producer.forget_latencies(),
            Self::Tail(tail) => tail.forget_latencies(),
        }
    }
}

/// Consumers first, so that they wait already when the first batch is sent.
fn connect(arguments: &Arguments, client: &Client, topic: &Topic) -> Result<Vec<Worker>, LoadError> {
    let epoch = Instant::now();
    let producers = arguments.load.connect(topic, Some(arguments.rate), Some(epoch))?;
    let following = Following {
        fetch_bytes: arguments.fetch_bytes,
        stamp_position: producers.first().map_or(0, Producer::stamp_position),
        epoch,
        producers: arguments.load.producers,
    };
    let offsets = topic.offsets(client, OffsetSpec::Latest)?;
    let mut workers = Vec::new();
    let mut followed = HashSet::new();
    for mut places in assign(&topic.partitions, arguments.consumers.into()) {
        // Each partition has one consumer.
        places.retain(|place| followed.insert(place.partition));
        if !places.is_empty() {
            let tail = Tail::connect(&topic.name, &places, &offsets, following)?;
            workers.push(Worker::Tail(Box::new(tail)));
        }
    }
    workers.extend(producers.into_iter().map(|producer| Worker::Producer(Box::new(producer))));
    Ok(workers)
}

struct Outcome {
    received: Volume,
    /// To the last record that was received.
    elapsed: Duration,
    failure: Option<LoadError>,
}

/// Lets producers send what `plan` says, and consumers receive it.
fn run_all(
    workers: &mut [Worker],
    (what, extent): (&'static str, Extent),
    meter: Option<&mut Meter>,
    topic: &Topic,
    plan: impl Fn(&Producer) -> Plan + Sync,
) -> Outcome {
    let producers = workers.iter().filter(|worker| worker.producer().is_some()).count();
    let acknowledged = Acknowledged::new(topic.partition_count(), producers);
    let (outcomes, _) = workers::run(workers, what, extent, meter, |worker, progress: &Progress| match worker {
        Worker::Producer(producer) => {
            // What is received counts.
            let (_, failure) = producer.produce(plan(producer), &progress.beside());
            acknowledged.add(producer);
            (Volume::default(), failure)
        }
        Worker::Tail(tail) => tail.follow(&acknowledged, progress),
    });
    let (received, failures): (Vec<Volume>, Vec<Option<WorkerError>>) = outcomes.into_iter().unzip();
    let tails = || workers.iter().filter_map(Worker::tail);
    let missing: u64 = tails().map(|tail| tail.missing(&acknowledged)).sum();
    let lost = LoadError::Lost { missing, acknowledged: acknowledged.records() };
    Outcome {
        received: received.into_iter().sum(),
        elapsed: tails().map(Tail::ended).max().unwrap_or_default(),
        failure: LoadError::of_workers(failures).or((missing > 0).then_some(lost)),
    }
}
