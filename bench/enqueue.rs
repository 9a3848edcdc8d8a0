//! `ringmq-bench produce --by enqueue`: records one by one through the producer of a client, which batches them by itself.
//!
//! What is measured is the client as programs use it: tasks of one runtime hand records over to one producer and go on.
//! Processor time of the generator is the client's here. Bytes are those of the values.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::arguments::{Target, share};
use crate::client::{self, Block, ClientError, Endpoint, Heard, Records, Sender, Sending, Timed};
use crate::error::LoadError;
use crate::latency::Latencies;
use crate::load::Load;
use crate::meter::Meter;
use crate::pace::{Extent, Rate};
use crate::payload::{Numbers, Values};
use crate::report::{Report, Run};
use crate::topic::Topic;
use crate::volume::Volume;
use crate::workers::{self, Progress};

/// One record in so many is timed, from being handed over to being acknowledged: two clock readings and a callback for each
/// would be a part of what is measured. So many values are made at a time, too.
const TIMED_EACH: u16 = 64;
/// How often what was done is counted together.
const COUNTED_EVERY: Duration = Duration::from_millis(50);

/// Produces. Besides the figures gives what went wrong, if something did after the clock had started.
pub(crate) fn measure(
    target: &Target,
    load: &Load,
    rate: Option<Rate>,
) -> Result<(Report, Option<LoadError>), LoadError> {
    if rate.is_some() {
        return Err(LoadError::NotByClient { flag: "--rate", by: "--by enqueue" });
    }
    if load.burst.is_some() {
        return Err(LoadError::BURST);
    }
    client::check(load, "--by enqueue")?;
    let Some(client) = target.driver.driver().client() else { return Err(LoadError::NoClient) };
    let mut topics = target.connect()?;
    let topic = Topic::create_or_find(&mut *topics, &target.topic, target.partitions, &load.settings)?;
    let runtime = client::runtime()?;
    let sending = Sending { at: Endpoint { brokers: &target.brokers, topic: &target.topic }, load };
    let heard = Arc::new(Heard::new(topic.partition_count())?);
    let sender = client.sender(&sending, heard.clone())?;

    let seed = fastrand::u64(..);
    let tasks = usize::from(load.producers);
    let task = |index: usize| {
        let numbers = Numbers::new(seed, index, tasks);
        let mut values = Values::random(seed ^ index as u64);
        let block = Block::new(&mut values, load.record_bytes as usize, TIMED_EACH.into());
        Task { sender: sender.clone(), block, numbers }
    };
    let tasks = (0..tasks).map(task).collect();
    let mut senders = [Senders { sender: sender.clone(), tasks, record_bytes: load.record_bytes }];
    let send = |extent: Extent, what: &'static str, senders: &mut [Senders; 1], meter: Option<&mut Meter>| {
        let work = |senders: &mut Senders, progress: &Progress| runtime.block_on(senders.send(extent, progress));
        let (mut outcomes, elapsed) = workers::run(senders, what, extent, meter, work);
        (outcomes.pop().unwrap_or_default(), elapsed)
    };
    if !load.warmup.is_nothing() {
        let ((_, failure), _) = send(load.warmup, "warming up", &mut senders, None);
        failure.map_or(Ok(()), Err)?;
        heard.forget_latencies()?;
    }
    let mut meter = Meter::start(topic.home());
    let ((records, failure), elapsed) = send(load.extent(), "producing", &mut senders, Some(&mut meter));
    let spent = meter.stop();

    let latencies: Latencies = heard.latencies();
    let (errors, bytes) = (failure.as_ref().map_or(0, LoadError::count), records * u64::from(load.record_bytes));
    let run = Run { verb: "produce", done: Volume { records, bytes }, errors, elapsed };
    let report = Report::new(run, &latencies, spent, &topic.flush);
    Ok((report.sent(load).by(Some("enqueue")), failure))
}

/// All tasks.
struct Senders {
    sender: Arc<dyn Sender>,
    tasks: Vec<Task>,
    record_bytes: u32,
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
            running.spawn(task.send(records, ends, handed_over.clone()));
        }
        let (mut failure, mut counted) = (None, 0);
        let record_bytes = u64::from(self.record_bytes);
        let mut count = || {
            let records = handed_over.load(Ordering::Relaxed);
            let bytes = (records - counted) * record_bytes;
            progress.add(Volume { records: records - counted, bytes }, Duration::ZERO);
            counted = records;
        };
        let mut ticks = tokio::time::interval(COUNTED_EVERY);
        loop {
            tokio::select! {
                joined = running.join_next() => match joined {
                    Some(Ok((task, error))) => {
                        self.tasks.push(task);
                        failure = failure.or(error);
                    }
                    // A task that panicked has told why.
                    Some(Err(_)) => {}
                    None => break,
                },
                _ = ticks.tick() => count(),
            }
        }
        let (undelivered, why) = self.sender.flush().await;
        count();
        let failure = failure.or(why).map(LoadError::from);
        (handed_over.load(Ordering::Relaxed).saturating_sub(undelivered), failure)
    }
}

/// What one task sends.
struct Task {
    sender: Arc<dyn Sender>,
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
    ) -> (Self, Option<ClientError>) {
        let (mut left, mut failure) = (records, None);
        while left > 0 && failure.is_none() && ends.is_none_or(|ends| Instant::now() < ends) {
            let count = u16::try_from(left).map_or(TIMED_EACH, |left| left.min(TIMED_EACH));
            let records = Records {
                values: self.block.next(count.into(), &mut self.numbers).freeze(),
                value_bytes: self.block.value_bytes(),
                partition: None,
                timed: Timed::First,
            };
            let (taken, error) = self.sender.send(records).await;
            (left, failure) = (left - taken, error);
            handed_over.fetch_add(taken, Ordering::Relaxed);
        }
        (self, failure)
    }
}
