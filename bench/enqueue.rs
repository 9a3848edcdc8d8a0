//! `ringmq-bench produce --by enqueue`: records one by one through the client's producer, which batches them by itself.
//!
//! What is measured is the client as programs use it: tasks of one runtime, each with a clone of one producer, hand a record
//! over and go on. Processor time of the generator is the client's here. Bytes are those of the values.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ringmq_client::{AckedBy, Client, Error, Producer, Record};
use tokio::task::JoinSet;

use crate::arguments::{AcksArgument, Target, share};
use crate::driver::DriverArgument;
use crate::error::LoadError;
use crate::latency::Latencies;
use crate::load::Load;
use crate::meter::Meter;
use crate::pace::{Extent, Rate};
use crate::payload::{NUMBER_BYTES_MAX, Numbers, Values};
use crate::report::{Report, Run};
use crate::topic::Topic;
use crate::volume::Volume;
use crate::workers::{self, Progress};

/// One record in so many is timed, from being handed over to being acknowledged: two clock readings and a callback for each
/// would be a part of what is measured. So many values are made at a time, too.
const TIMED_EACH: u32 = 64;
/// How often what was done is counted together.
const COUNTED_EVERY: Duration = Duration::from_millis(50);

/// Produces. Besides the figures gives what went wrong, if something did after the clock had started.
pub(crate) fn measure(
    target: &Target,
    load: &Load,
    rate: Option<Rate>,
) -> Result<(Report, Option<LoadError>), LoadError> {
    check(target, load, rate)?;
    let mut topics = target.connect()?;
    let topic = Topic::create_or_find(&mut *topics, &target.topic, target.partitions, &load.settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(LoadError::Runtime)?;
    let client = runtime.block_on(Client::connect(target.brokers.clone()))?;
    let acked_by = if load.acks == AcksArgument::Leader { AckedBy::Leader } else { AckedBy::All };
    let producer = client.producer().batch_bytes_max(load.batch_bytes as usize).acked_by(acked_by);

    let seed = fastrand::u64(..);
    let tasks = usize::from(load.producers);
    let task = |index: usize| {
        let numbers = Numbers::new(seed, index, tasks);
        let values = Block::new(&mut Values::random(seed ^ index as u64), load.record_bytes as usize);
        Task { producer: producer.clone(), topic: target.topic.as_str().into(), block: values, numbers }
    };
    let tasks = (0..tasks).map(task).collect();
    let mut senders = [Senders { producer: producer.clone(), tasks, latencies: Arc::default() }];
    let send = |extent: Extent, what: &'static str, senders: &mut [Senders; 1], meter: Option<&mut Meter>| {
        let work = |senders: &mut Senders, progress: &Progress| runtime.block_on(senders.send(extent, progress));
        let (mut outcomes, elapsed) = workers::run(senders, what, extent, meter, work);
        (outcomes.pop().unwrap_or_default(), elapsed)
    };
    if !load.warmup.is_nothing() {
        let ((_, failure), _) = send(load.warmup, "warming up", &mut senders, None);
        failure.map_or(Ok(()), Err)?;
        senders[0].latencies = Arc::default();
    }
    let mut meter = Meter::start(topic.home());
    let ((records, failure), elapsed) = send(load.extent(), "producing", &mut senders, Some(&mut meter));
    let spent = meter.stop();

    let mut latencies = Latencies::new()?;
    lock(&senders[0].latencies).iter().for_each(|took| latencies.record(*took));
    let (errors, bytes) = (failure.as_ref().map_or(0, LoadError::count), records * u64::from(load.record_bytes));
    let run = Run { verb: "produce", done: Volume { records, bytes }, errors, elapsed };
    let report = Report::new(run, &latencies, spent, &topic.flush);
    Ok((report.acks(load.acks.name()).by(Some("enqueue")), failure))
}

/// What the client's producer decides by itself, or has no word for, is not left out without a word.
fn check(target: &Target, load: &Load, rate: Option<Rate>) -> Result<(), LoadError> {
    let refused = [
        ("--driver", target.driver != DriverArgument::Native),
        ("--acks none", load.acks == AcksArgument::None),
        ("--rate", rate.is_some()),
        ("--in-flight", load.in_flight.is_some()),
        ("--keys", load.keys.is_some()),
        ("--payload", load.payload.is_some()),
    ];
    match refused.into_iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) => Err(LoadError::NotByEnqueue { flag }),
        None => Ok(()),
    }
}

/// All tasks, and how long records took that are timed.
struct Senders {
    producer: Producer,
    tasks: Vec<Task>,
    latencies: Arc<Mutex<Vec<Duration>>>,
}

impl Senders {
    /// Sends with all tasks, and waits until everything is acknowledged. Gives how many records are.
    async fn send(&mut self, extent: Extent, progress: &Progress) -> (u64, Option<LoadError>) {
        let ends = match extent {
            Extent::Records(_) => None,
            Extent::Time(time) => Some(progress.started() + time),
        };
        let handed_over = Arc::new(AtomicU64::new(0));
        let (count, mut running) = (self.tasks.len(), JoinSet::new());
        for (index, task) in self.tasks.drain(..).enumerate() {
            let records = match extent {
                Extent::Records(records) => share(records, index, count),
                Extent::Time(_) => u64::MAX,
            };
            running.spawn(task.send(records, ends, handed_over.clone(), self.latencies.clone()));
        }
        let (mut failure, mut counted) = (None, 0);
        let mut count = |record_bytes: usize| {
            let records = handed_over.load(Ordering::Relaxed);
            let bytes = (records - counted) * record_bytes as u64;
            progress.add(Volume { records: records - counted, bytes }, Duration::ZERO);
            counted = records;
        };
        let mut ticks = tokio::time::interval(COUNTED_EVERY);
        let mut record_bytes = 0;
        loop {
            tokio::select! {
                joined = running.join_next() => match joined {
                    Some(Ok((task, error))) => {
                        record_bytes = task.block.value_bytes;
                        self.tasks.push(task);
                        failure = failure.or(error);
                    }
                    // A task that panicked has told why.
                    Some(Err(_)) => {}
                    None => break,
                },
                _ = ticks.tick() => count(record_bytes),
            }
        }
        let flushed = self.producer.flush().await;
        count(record_bytes);
        let undelivered = match &flushed {
            Err(Error::Undelivered { records, .. }) => *records,
            _ => 0,
        };
        let failure = failure.or(flushed.err()).map(LoadError::from);
        (handed_over.load(Ordering::Relaxed).saturating_sub(undelivered), failure)
    }
}

/// What one task sends.
struct Task {
    producer: Producer,
    topic: Arc<str>,
    block: Block,
    numbers: Numbers,
}

impl Task {
    /// Hands over so many records, or until it is over.
    async fn send(
        mut self,
        records: u64,
        ends: Option<Instant>,
        handed_over: Arc<AtomicU64>,
        latencies: Arc<Mutex<Vec<Duration>>>,
    ) -> (Self, Option<Error>) {
        let (mut sent, mut failure) = (0, None);
        while sent < records && failure.is_none() && ends.is_none_or(|ends| Instant::now() < ends) {
            let mut values = self.block.next(&mut self.numbers);
            let (due, mut taken) = ((records - sent).min(TIMED_EACH.into()), 0);
            for number in 0..due {
                let record = Record::value(values.split_to(self.block.value_bytes));
                let handed = if number == 0 {
                    let (started, latencies) = (Instant::now(), latencies.clone());
                    let heard = move |_| lock(&latencies).push(started.elapsed());
                    self.producer.enqueue_with(&self.topic, record, heard).await
                } else {
                    self.producer.enqueue(&self.topic, record).await.map(drop)
                };
                if let Err(error) = handed {
                    failure = Some(error);
                    break;
                }
                taken += 1;
            }
            sent += taken;
            handed_over.fetch_add(taken, Ordering::Relaxed);
        }
        (self, failure)
    }
}

/// Random values, which get new numbers each time, so that none is sent twice.
struct Block {
    template: Vec<u8>,
    value_bytes: usize,
}

impl Block {
    fn new(values: &mut Values, value_bytes: usize) -> Self {
        let mut template = vec![0; value_bytes * TIMED_EACH as usize];
        values.fill(&mut template);
        Self { template, value_bytes }
    }

    fn next(&self, numbers: &mut Numbers) -> Bytes {
        let mut block = BytesMut::from(&self.template[..]);
        for value in block.chunks_mut(self.value_bytes) {
            let number_bytes = value.len().min(NUMBER_BYTES_MAX);
            numbers.write_next(&mut value[..number_bytes]);
        }
        block.freeze()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
