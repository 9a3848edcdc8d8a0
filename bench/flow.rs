//! Producers, consumers that follow them, and readers of a backlog, all at once: what end-to-end and mixed loads are made
//! of.

use std::collections::HashSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use clap::Args;
use ringmq_client::OffsetSpec;

use crate::client::ClientProducer;
use crate::consumer::Consumer;
use crate::driver::Topics;
use crate::error::{LoadError, WorkerError};
use crate::latency::Latencies;
use crate::load::Load;
use crate::meter::{Meter, Spent};
use crate::pace::Rate;
use crate::producer::Producer;
use crate::source::By;
use crate::span::Span;
use crate::tail::{Acknowledged, Following, Tail};
use crate::topic::{Topic, TopicError, assign};
use crate::volume::Volume;
use crate::workers::{self, Progress};

/// Who receives.
#[derive(Debug, Clone, Args)]
pub struct Receiving {
    /// Consumers, each with a connection of its own; those beyond the number of partitions have nothing to do
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub consumers: u16,
    /// How consumers ask for records [default: subscribe, where the broker has it]; `client` is for producers, too
    #[arg(long, value_enum, value_name = "HOW")]
    pub by: Option<By>,
    /// Bytes that one fetch asks for, or that one frame of a subscription may have
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub fetch_bytes: u32,
}

/// All workers, connected.
pub(crate) struct Flow<'a> {
    topic: &'a Topic,
    load: &'a Load,
    workers: Vec<Worker>,
}

/// One thread's work.
enum Worker {
    Producer(Box<Producer>),
    Client(Box<ClientProducer>),
    Tail(Box<Tail>),
    Reader(Box<Consumer>, Vec<Span>),
}

/// Of a run.
#[derive(Debug, Clone, Copy)]
enum Part {
    WarmUp,
    Load,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) received: Volume,
    /// To the last record that was received.
    pub(crate) elapsed: Duration,
    /// Of the backlog.
    pub(crate) read: Volume,
    pub(crate) failure: Option<LoadError>,
}

impl<'a> Flow<'a> {
    /// Connects producers and consumers. Consumers wait already when the first batch is sent.
    pub(crate) fn connect(
        topics: &mut dyn Topics,
        topic: &'a Topic,
        load: &'a Load,
        rate: Option<Rate>,
        receiving: &Receiving,
        by: Option<By>,
    ) -> Result<Self, LoadError> {
        let epoch = Instant::now();
        let (producers, stamp_position) = match by {
            Some(By::Client) => {
                load.check(topic, true)?;
                let producers = ClientProducer::connect_all(topic, load, rate, epoch)?;
                (producers.into_iter().map(|producer| Worker::Client(Box::new(producer))).collect::<Vec<_>>(), 0)
            }
            _ => {
                let producers = load.connect(topic, rate, Some(epoch))?;
                let position = producers.first().map_or(0, Producer::stamp_position);
                (producers.into_iter().map(|producer| Worker::Producer(Box::new(producer))).collect(), position)
            }
        };
        let following =
            Following { by, fetch_bytes: receiving.fetch_bytes, stamp_position, epoch, producers: load.producers };
        let offsets = topics.offsets(topic, OffsetSpec::Latest)?;
        let mut workers = Vec::new();
        let mut followed = HashSet::new();
        for mut places in assign(&topic.partitions, receiving.consumers.into()) {
            // Each partition has one consumer.
            places.retain(|place| followed.insert(place.partition));
            if !places.is_empty() {
                let tail = Tail::connect(topic, &places, &offsets, following)?;
                workers.push(Worker::Tail(Box::new(tail)));
            }
        }
        workers.extend(producers);
        Ok(Self { topic, load, workers })
    }

    /// Adds readers of what this topic holds now: from its beginning to its end, and again, until the producers have ended.
    pub(crate) fn add_readers(
        &mut self,
        topics: &mut dyn Topics,
        backlog: &Topic,
        readers: u16,
        fetch_bytes: u32,
        by: Option<By>,
    ) -> Result<(), LoadError> {
        /// Fetches that each reader has under way.
        const IN_FLIGHT: usize = 2;
        let held = held(topics, backlog)?;
        let mut taken = HashSet::new();
        for mut places in assign(&backlog.partitions, readers.into()) {
            places.retain(|place| taken.insert(place.partition));
            let span = |index: usize| Span::new(index, held.get(index).cloned().unwrap_or_default());
            let spans: Vec<Span> = places.iter().filter_map(|place| span(place.partition.as_usize())).collect();
            if !spans.is_empty() {
                let by = if by == Some(By::Client) { By::Client } else { By::Fetch };
                let reader = Consumer::connect(backlog, places, Some(by), (fetch_bytes, IN_FLIGHT))?;
                self.workers.push(Worker::Reader(Box::new(reader), spans));
            }
        }
        match self.workers.iter().any(|worker| matches!(worker, Worker::Reader(..))) {
            true => Ok(()),
            false => Err(LoadError::TooFewRecords { topic: backlog.name.to_string(), found: 0, wanted: 1 }),
        }
    }

    /// Sends and receives what comes before the clock starts.
    pub(crate) fn warm_up(&mut self) -> Result<(), LoadError> {
        if self.load.warmup.is_nothing() {
            return Ok(());
        }
        self.run_all("warming up", Part::WarmUp, None).failure.map_or(Ok(()), Err)?;
        self.workers.iter_mut().try_for_each(|worker| match worker {
            Worker::Producer(producer) => producer.forget_latencies(),
            Worker::Client(producer) => producer.forget_latencies(),
            Worker::Tail(tail) => tail.forget_latencies(),
            Worker::Reader(..) => Ok(()),
        })
    }

    /// Sends and receives the load.
    pub(crate) fn run(&mut self, what: &'static str) -> (Outcome, Spent) {
        let mut meter = Meter::start(self.topic.home());
        let outcome = self.run_all(what, Part::Load, Some(&mut meter));
        (outcome, meter.stop())
    }

    /// From when batches were due to when they had come.
    pub(crate) fn latencies(&self) -> Result<Latencies, LoadError> {
        Ok(Latencies::of_all(self.tails().map(Tail::latencies))?)
    }

    /// From when batches were due to when they were acknowledged.
    pub(crate) fn produce_latencies(&self) -> Result<Latencies, LoadError> {
        let of = |worker: &Worker| match worker {
            Worker::Producer(producer) => Some(producer.latencies().clone()),
            Worker::Client(producer) => Some(producer.latencies()),
            Worker::Tail(_) | Worker::Reader(..) => None,
        };
        let latencies: Vec<Latencies> = self.workers.iter().filter_map(of).collect();
        Ok(Latencies::of_all(latencies.iter())?)
    }

    /// How consumers ask for records.
    pub(crate) fn by(&self) -> Option<&'static str> {
        self.tails().map(|tail| tail.by().name()).next()
    }

    fn tails(&self) -> impl Iterator<Item = &Tail> {
        self.workers.iter().filter_map(|worker| match worker {
            Worker::Tail(tail) => Some(&**tail),
            _ => None,
        })
    }

    /// Lets producers send a part of the run, and everybody else receive.
    fn run_all(&mut self, what: &'static str, part: Part, meter: Option<&mut Meter>) -> Outcome {
        let each = self.load.warm_up_of_each(self.load.producers.into());
        let extent = match part {
            Part::WarmUp => self.load.warmup,
            Part::Load => self.load.extent(),
        };
        let producers =
            self.workers.iter().filter(|one| matches!(one, Worker::Producer(_) | Worker::Client(_))).count();
        let acknowledged = Acknowledged::new(self.topic.partition_count(), producers);
        let work = |worker: &mut Worker, progress: &Progress| -> Done {
            match worker {
                Worker::Producer(producer) => {
                    let producing = acknowledged.begin();
                    let plan = match part {
                        Part::WarmUp => producer.warm_up_plan(each),
                        Part::Load => producer.plan(extent),
                    };
                    // What is received counts.
                    let (_, failure) = producer.produce(plan, &progress.beside());
                    producing.end(producer.acknowledged());
                    Done { failure, ..Done::default() }
                }
                Worker::Client(producer) => {
                    let producing = acknowledged.begin();
                    let failure = producer.produce(extent, progress);
                    producing.end(producer.acknowledged());
                    Done { failure, ..Done::default() }
                }
                Worker::Tail(tail) => {
                    let (received, failure) = tail.follow(&acknowledged, progress);
                    Done { received, failure, ..Done::default() }
                }
                Worker::Reader(reader, spans) => {
                    let (read, failure) = reader.read_until(spans, &progress.beside(), || acknowledged.is_over());
                    Done { read, failure, ..Done::default() }
                }
            }
        };
        let (done, _) = workers::run(&mut self.workers, what, extent, meter, work);
        let missing: u64 = self.tails().map(|tail| tail.missing(&acknowledged)).sum();
        let lost = LoadError::Lost { missing, acknowledged: acknowledged.records() };
        Outcome {
            received: done.iter().map(|done| done.received).sum(),
            read: done.iter().map(|done| done.read).sum(),
            elapsed: self.tails().map(Tail::ended).max().unwrap_or_default(),
            failure: LoadError::of_workers(done.into_iter().map(|done| done.failure).collect())
                .or((missing > 0).then_some(lost)),
        }
    }
}

/// What one worker did.
#[derive(Default)]
struct Done {
    received: Volume,
    read: Volume,
    failure: Option<WorkerError>,
}

/// The offsets that a topic holds, by partition.
pub(crate) fn held(topics: &mut dyn Topics, topic: &Topic) -> Result<Vec<Range<i64>>, TopicError> {
    let earliest = topics.offsets(topic, OffsetSpec::Earliest)?;
    let latest = topics.offsets(topic, OffsetSpec::Latest)?;
    Ok(earliest.into_iter().zip(latest).map(|(start, end)| start..end).collect())
}
