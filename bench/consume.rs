//! `ringmq-bench consume`: how fast the broker gives records back.
//!
//! Each consumer is one thread with one connection to the shard that owns its partitions. It subscribes to them, or keeps
//! fetches of several in flight where the broker has no subscriptions or `--by fetch` says so, and verifies checksum and offsets
//! of every batch while the bytes are still in the processor's cache, without keeping any. With `--by client` the client does
//! all that, and gives records, whose offsets are verified. Every offset must be there, so the topic must not be compacted.

use std::time::Duration;

use clap::Args;

use crate::arguments::Target;
use crate::consumer::Consumer;
use crate::driver::Topics;
use crate::error::{LoadError, WorkerError};
use crate::flow;
use crate::latency::Latencies;
use crate::meter::Meter;
use crate::pace::{Extent, duration};
use crate::report::{Report, Run};
use crate::source::By;
use crate::span::Span;
use crate::topic::{Place, Topic, TopicError, assign};
use crate::volume::Volume;
use crate::workers;

/// Fetches that a consumer has under way, where the command line does not say.
const IN_FLIGHT: u16 = 2;

/// How fast the broker gives records back: every checksum is verified, and records are counted
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Broker and topic.
    #[command(flatten)]
    pub target: Target,
    /// Consumers, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub consumers: u16,
    /// How consumers ask for records [default: subscribe, where the broker has it]
    #[arg(long, value_enum, value_name = "HOW")]
    pub by: Option<By>,
    /// Bytes that one fetch asks for, or that one frame of a subscription may have
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub batch_bytes: u32,
    /// Fetches that each consumer has under way, each of another partition; a subscription is granted as many bytes as they
    /// ask for [default: 2; a client asks as it sees fit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub in_flight: Option<u16>,
    /// Records in all, from the earliest on; all that are there if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub records: Option<u64>,
    /// For so long, instead of a number of records: 500ms, 30s, 5m. What is there is read again where it ends before
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "records")]
    pub duration: Option<Duration>,
    /// Records that are read before the clock starts
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub warmup: u64,
}

/// Consumes. Besides the figures gives what went wrong, if something did after the clock had started.
///
/// # Errors
/// What went wrong before.
pub fn measure(arguments: &Arguments) -> Result<(Report, Option<LoadError>), LoadError> {
    let Target { topic, partitions, .. } = &arguments.target;
    let by = arguments.target.by(arguments.by)?;
    if by == Some(By::Client) && arguments.in_flight.is_some() {
        return Err(LoadError::NotByClient { flag: "--in-flight", by: "--by client" });
    }
    let mut topics = arguments.target.connect()?;
    let topic = Topic::find(&mut *topics, topic, *partitions)?;
    let ranges = Ranges::available(&mut *topics, &topic)?;
    let found = ranges.records();
    let wanted = arguments.records.unwrap_or_else(|| found.saturating_sub(arguments.warmup));
    let (warm_up, rest) = ranges.split(arguments.warmup);
    let (measured, _) = rest.split(wanted);
    if wanted == 0 || warm_up.records() < arguments.warmup || measured.records() < wanted {
        let wanted = wanted.max(1) + arguments.warmup;
        return Err(LoadError::TooFewRecords { topic: topic.name.to_string(), found, wanted });
    }

    let mut consumers = connect(arguments, by, &topic)?;
    if warm_up.records() > 0 {
        let extent = Extent::Records(warm_up.records());
        let outcomes = read(&mut consumers, &warm_up, "warming up", extent, None).0;
        let failures = outcomes.into_iter().map(|(_, failure)| failure).collect();
        LoadError::of_workers(failures).map_or(Ok(()), Err)?;
        for consumer in &mut consumers {
            consumer.rest()?;
        }
    }
    let mut meter = Meter::start(topic.home());
    let extent = arguments.duration.map_or(Extent::Records(measured.records()), Extent::Time);
    let (outcomes, elapsed) = read(&mut consumers, &measured, "consuming", extent, Some(&mut meter));
    let spent = meter.stop();

    let (counted, failures): (Vec<Volume>, Vec<Option<WorkerError>>) = outcomes.into_iter().unzip();
    let failure = LoadError::of_workers(failures);
    let latencies = Latencies::of_all(consumers.iter().map(Consumer::latencies))?;
    let errors = failure.as_ref().map_or(0, LoadError::count);
    let run = Run { verb: "consume", done: counted.into_iter().sum(), errors, elapsed };
    let by = consumers.first().map(|consumer| consumer.by().name());
    Ok((Report::new(run, &latencies, spent, &topic.flush).by(by), failure))
}

fn connect(arguments: &Arguments, by: Option<By>, topic: &Topic) -> Result<Vec<Consumer>, LoadError> {
    let assigned = assign(&topic.partitions, arguments.consumers.into());
    let asking = (arguments.batch_bytes, usize::from(arguments.in_flight.unwrap_or(IN_FLIGHT)));
    let connect = |places: Vec<Place>| Consumer::connect(topic, places, by, asking);
    assigned.into_iter().map(connect).collect()
}

/// Reads `ranges` with all consumers: once, or as often as it takes for so long.
fn read(
    consumers: &mut [Consumer],
    ranges: &Ranges,
    what: &'static str,
    extent: Extent,
    meter: Option<&mut Meter>,
) -> (Vec<(Volume, Option<WorkerError>)>, Duration) {
    let spans = ranges.share_out(consumers);
    let mut work: Vec<(&mut Consumer, Vec<Span>)> = consumers.iter_mut().zip(spans).collect();
    workers::run(&mut work, what, extent, meter, |(consumer, spans), progress| match extent {
        Extent::Records(_) => consumer.read(spans, progress),
        Extent::Time(time) => consumer.read_until(spans, progress, || progress.started().elapsed() >= time),
    })
}

/// Offsets of each partition, by index.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ranges(Vec<std::ops::Range<i64>>);

impl Ranges {
    /// All that the topic holds.
    fn available(topics: &mut dyn Topics, topic: &Topic) -> Result<Self, TopicError> {
        flow::held(topics, topic).map(Self)
    }

    fn records(&self) -> u64 {
        self.0.iter().map(|range| u64::try_from(range.end - range.start).unwrap_or(0)).sum()
    }

    /// The first `records` of all partitions together, spread over them by what each holds, and the rest.
    fn split(&self, records: u64) -> (Self, Self) {
        let (mut left, mut total) = (records, self.records());
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for range in &self.0 {
            let held = u64::try_from(range.end - range.start).unwrap_or(0);
            // Of what is left to be taken, as much as the partition has of what is left to take from.
            let share = u128::from(left) * u128::from(held);
            let taken = share.checked_div(total.into()).map_or(0, |taken| u64::try_from(taken).unwrap_or(0)).min(held);
            let middle = range.start + i64::try_from(taken).unwrap_or(0);
            first.push(range.start..middle);
            rest.push(middle..range.end);
            left -= taken;
            total -= held;
        }
        (Self(first), Self(rest))
    }

    /// What each consumer reads: a partition that several have is cut into as many pieces.
    fn share_out(&self, consumers: &[Consumer]) -> Vec<Vec<Span>> {
        let partitions: Vec<Vec<usize>> = consumers.iter().map(Consumer::partitions).collect();
        share_out(&self.0, &partitions)
    }
}

fn share_out(ranges: &[std::ops::Range<i64>], consumers: &[Vec<usize>]) -> Vec<Vec<Span>> {
    let mut readers = vec![0_i64; ranges.len()];
    for &partition in consumers.iter().flatten() {
        readers[partition] += 1;
    }
    let mut given = vec![0_i64; ranges.len()];
    let mut piece = |&partition: &usize| {
        let range = &ranges[partition];
        let cut = |number: i64| range.start + (range.end - range.start) * number / readers[partition];
        let number = given[partition];
        given[partition] += 1;
        Span::new(partition, cut(number)..cut(number + 1))
    };
    consumers.iter().map(|mine| mine.iter().filter_map(&mut piece).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_takes_exactly_as_many_and_leaves_the_rest() {
        let all = Ranges(vec![0..100, 50..50, 7..1007, 0..1]);
        for records in [0, 1, 2, 550, 1100, 1101, 5000] {
            let (first, rest) = all.split(records);
            assert_eq!(first.records(), records.min(1101));
            assert_eq!(first.records() + rest.records(), 1101);
            for (first, (rest, all)) in first.0.iter().zip(rest.0.iter().zip(&all.0)) {
                assert_eq!((first.start, first.end, rest.end), (all.start, rest.start, all.end));
            }
        }
    }

    #[test]
    fn every_offset_is_read_by_exactly_one_consumer() {
        let ranges = [0..10, 5..5, 100..103];
        let consumers = [vec![0], vec![0, 1], vec![2], vec![0], vec![2]];
        let shared = share_out(&ranges, &consumers);
        for (partition, range) in ranges.iter().enumerate() {
            let mut read: Vec<i64> = Vec::new();
            for span in shared.iter().flatten().filter(|span| span.partition().as_usize() == partition) {
                read.extend(span.offsets());
            }
            assert_eq!(read, range.clone().collect::<Vec<_>>());
        }
    }
}
