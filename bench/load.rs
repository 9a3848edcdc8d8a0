//! What producers send, as the command line says it, and the producers that send it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::arguments::{AcksArgument, setting, share};
use crate::error::{LoadError, WorkerError};
use crate::keys::{KeyDistribution, Keys};
use crate::pace::{Extent, Rate, Schedule, duration};
use crate::payload::{Fill, Numbers, Payload, STAMPED_VALUE_BYTES_MIN, Shape, Values};
use crate::producer::{Producer, Sending, Stamping};
use crate::topic::{Topic, assign};
use crate::workers;

/// Records in all, where the command line does not say how much.
const RECORDS_DEFAULT: u64 = 1_000_000;
/// Batches in flight of a producer that sends as fast as answers come, where the command line does not say.
const IN_FLIGHT_CLOSED: u16 = 2;
/// The same at a constant rate: enough that a stall does not keep batches back.
const IN_FLIGHT_OPEN: u16 = 64;

/// What producers send.
#[derive(Debug, Clone, Args)]
pub struct Load {
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
    /// Batches that each producer sends before it waits for an answer [default: 2; at a constant rate 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub in_flight: Option<u16>,
    /// How long a client waits for more records before it sends a batch that is not full [default: the client's own]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub linger: Option<Duration>,
    /// Records that a producer has at a time for a client, end to end, whatever batches it makes of them [default: as many
    /// as fill a batch]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub burst: Option<u32>,
    /// What is waited for
    #[arg(long, value_enum, default_value_t = AcksArgument::All)]
    pub acks: AcksArgument,
    /// Records in all [default: 1000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub records: Option<u64>,
    /// Full batches are sent for so long, instead of a number of records: 500ms, 30s, 5m
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "records")]
    pub duration: Option<Duration>,
    /// What is sent before the clock starts: records, rounded up to whole batches, or a time such as 5s
    #[arg(long, value_name = "N|TIME", default_value = "0")]
    pub warmup: Extent,
    /// Values come from this file instead of being random and distinct; a producer prepares a few MiB of it and repeats them
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
    /// Records have keys of 8 bytes, so many different ones, each in one partition; without it they have none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: Option<u64>,
    /// How often each key comes
    #[arg(long, value_enum, default_value_t = KeyDistribution::Uniform, requires = "keys")]
    pub key_distribution: KeyDistribution,
    /// Producers are idempotent, clients too: batches carry an identity and sequences, which the broker checks
    #[arg(long)]
    pub idempotent: bool,
}

impl Load {
    /// How much is sent, without the warm-up.
    pub(crate) fn extent(&self) -> Extent {
        self.duration.map_or(Extent::Records(self.records.unwrap_or(RECORDS_DEFAULT)), Extent::Time)
    }

    /// Producers with their connections and batches, which carry stamps where an epoch is given.
    pub(crate) fn connect(
        &self,
        topic: &Topic,
        rate: Option<Rate>,
        epoch: Option<Instant>,
    ) -> Result<Vec<Producer>, LoadError> {
        if self.linger.is_some() {
            return Err(LoadError::LINGER);
        }
        if self.burst.is_some() {
            return Err(LoadError::BURST);
        }
        self.check(topic, epoch.is_some())?;
        let workers = usize::from(self.producers);
        let mut batches = self.prepare(topic)?.into_iter();
        let mut producers = Vec::with_capacity(workers);
        for (index, places) in assign(&topic.partitions, workers).into_iter().enumerate() {
            let Some(payload) = batches.next() else { break };
            let volume = payload.volume(Fill::Full);
            let in_flight_default = if rate.is_some() { IN_FLIGHT_OPEN } else { IN_FLIGHT_CLOSED };
            let producer = u16::try_from(index).unwrap_or(u16::MAX);
            let sending = Sending {
                acks: self.acks.to_wire(),
                in_flight: self.in_flight.unwrap_or(in_flight_default).into(),
                idempotent: self.idempotent,
                schedule: rate.map(|rate| Schedule::new(rate, volume, index, workers)),
                stamps: epoch.map(|epoch| Stamping { producer, epoch }),
            };
            producers.push(Producer::connect(topic, &places, payload, sending)?);
        }
        Ok(producers)
    }

    /// The sizes.
    pub(crate) fn shape(&self) -> Shape {
        Shape { record_bytes: self.record_bytes as usize, batch_bytes: self.batch_bytes as usize }
    }

    pub(crate) fn check(&self, topic: &Topic, stamped: bool) -> Result<(), LoadError> {
        let (record_bytes, min) = (self.record_bytes, STAMPED_VALUE_BYTES_MIN);
        if stamped && (record_bytes as usize) < min {
            return Err(LoadError::NoRoomForStamp { record_bytes, min });
        }
        let partitions = topic.partition_count();
        match self.keys {
            Some(keys) if keys < partitions.into() => Err(LoadError::TooFewKeys { keys, partitions }),
            _ => Ok(()),
        }
    }

    /// The batches of each producer.
    fn prepare(&self, topic: &Topic) -> Result<Vec<Payload>, LoadError> {
        let unreadable = |path: &PathBuf| {
            let path = path.clone();
            move |source| LoadError::Payload { path, source }
        };
        let file = self.payload.as_ref().map(|path| Values::read_file(path).map_err(unreadable(path))).transpose()?;
        let workers = usize::from(self.producers);
        // Another in each run: what a run writes was never written before.
        let seed = fastrand::u64(..);
        let shape = self.shape();
        let records = match self.extent() {
            Extent::Records(records) => records,
            Extent::Time(_) => u64::MAX,
        };
        let prepare = |index: usize| {
            let own_seed = seed.wrapping_add(index as u64);
            let (mut values, numbers) = match &file {
                Some(bytes) => (Values::File { bytes: bytes.clone(), at: bytes.len() / workers * index }, None),
                None => (Values::random(own_seed), Some(Numbers::new(seed, index, workers))),
            };
            let keys = self.keys.map(|keys| {
                // Whose draws differ from those of its values.
                Keys::new(keys, topic.partition_count(), self.key_distribution, own_seed.rotate_left(32))
            });
            Payload::prepare(shape, share(records, index, workers), &mut values, numbers, keys)
        };
        (0..workers).map(|index| prepare(index).map_err(LoadError::from)).collect()
    }

    /// Sends what comes before the clock starts.
    pub(crate) fn warm_up(&self, producers: &mut [Producer]) -> Result<(), LoadError> {
        if self.warmup.is_nothing() {
            return Ok(());
        }
        let each = self.warm_up_of_each(producers.len());
        let (outcomes, _) = workers::run(producers, "warming up", self.warmup, None, |producer, progress| {
            let plan = producer.warm_up_plan(each);
            producer.produce(plan, progress).1
        });
        for producer in producers {
            producer.forget_latencies()?;
        }
        let failures: Vec<Option<WorkerError>> = outcomes;
        LoadError::of_workers(failures).map_or(Ok(()), Err)
    }

    /// What each of so many producers sends before the clock starts.
    pub(crate) fn warm_up_of_each(&self, producers: usize) -> Extent {
        match self.warmup {
            Extent::Records(records) => Extent::Records(records.div_ceil(producers.max(1) as u64)),
            Extent::Time(time) => Extent::Time(time),
        }
    }
}
