//! One producer of a flow, by way of a client: at its times it has as many records as fill a batch, or as `--burst` says, all for
//! one partition, and hands them over one by one.
//!
//! So a program does that passes on what it has gathered; where batches begin and end is the client's affair. Each record says when
//! it was due.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ringmq_client::PartitionIndex;
use tokio::runtime::Runtime;

use super::{Block, Endpoint, Heard, Records, Sender, Sending, Timed, runtime};
use crate::arguments::share;
use crate::error::{LoadError, WorkerError};
use crate::latency::Latencies;
use crate::load::Load;
use crate::pace::{Extent, Rate, Schedule};
use crate::payload::{NUMBER_BYTES_MAX, Numbers, Values, records_per_batch};
use crate::stamp::{STAMP_BYTES, Stamp};
use crate::topic::{Place, Topic, assign};
use crate::volume::Volume;
use crate::workers::Progress;

pub(crate) struct ClientProducer {
    sender: Arc<dyn Sender>,
    heard: Arc<Heard>,
    runtime: &'static Runtime,
    partitions: Vec<PartitionIndex>,
    /// Which one it is of how many.
    turn: (usize, usize),
    block: Block,
    numbers: Numbers,
    /// What it has at a time.
    burst: usize,
    /// `None` for as fast as there is room.
    schedule: Option<Schedule>,
    /// The moment from which stamps count.
    epoch: Instant,
    bursts: u64,
    records: u64,
}

impl ClientProducer {
    /// As many as the load says, each with a client of its own.
    pub(crate) fn connect_all(
        topic: &Topic,
        load: &Load,
        rate: Option<Rate>,
        epoch: Instant,
    ) -> Result<Vec<Self>, LoadError> {
        super::check(load, "--by client")?;
        let Some(client) = topic.driver.client() else { return Err(LoadError::NoClient) };
        let (seed, count) = (fastrand::u64(..), usize::from(load.producers));
        let burst = match load.burst {
            Some(records) => records as usize,
            None => records_per_batch(load.shape())?,
        };
        let volume = Volume { records: burst as u64, bytes: burst as u64 * u64::from(load.record_bytes) };
        let connect = |(index, places): (usize, Vec<Place>)| {
            let brokers = places.first().map_or(&[][..], |place| &place.addresses);
            let heard = Arc::new(Heard::new(topic.partition_count())?);
            let sending = Sending { at: Endpoint { brokers, topic: topic.name.as_str() }, load };
            let mut values = Values::random(seed.wrapping_add(index as u64));
            Ok(Self {
                sender: client.sender(&sending, heard.clone())?,
                heard,
                runtime: runtime()?,
                partitions: places.iter().map(|place| place.partition).collect(),
                turn: (index, count),
                block: Block::new(&mut values, load.record_bytes as usize, burst),
                numbers: Numbers::new(seed, index, count),
                burst,
                schedule: rate.map(|rate| Schedule::new(rate, volume, index, count)),
                epoch,
                bursts: 0,
                records: 0,
            })
        };
        assign(&topic.partitions, count).into_iter().enumerate().map(connect).collect()
    }

    /// How many records of each partition were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = (PartitionIndex, u64)> {
        self.heard.acknowledged()
    }

    /// From when records were due to when they were acknowledged.
    pub(crate) fn latencies(&self) -> Latencies {
        self.heard.latencies()
    }

    pub(crate) fn forget_latencies(&self) -> Result<(), LoadError> {
        Ok(self.heard.forget_latencies()?)
    }

    /// Hands over its share of the records, or for so long, and waits until it is acknowledged or something fails.
    pub(crate) fn produce(&mut self, extent: Extent, progress: &Progress) -> Option<WorkerError> {
        let failure = self.hand_over_all(extent, progress).err();
        let (_, given_up) = self.runtime.block_on(self.sender.flush());
        failure.or(given_up.map(WorkerError::from))
    }

    fn hand_over_all(&mut self, extent: Extent, progress: &Progress) -> Result<(), WorkerError> {
        // The kernel may end a wait up to 50 µs late otherwise, which would show in the latencies.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).map_err(std::io::Error::from)?;
        let (index, count) = self.turn;
        let (mut left, until) = match extent {
            Extent::Records(records) => (share(records, index, count), None),
            Extent::Time(time) => (u64::MAX, Some(time)),
        };
        for number in 0.. {
            let now = progress.started().elapsed();
            let due = self.schedule.map_or(now, |schedule| schedule.due(number));
            if left == 0 || until.is_some_and(|until| due >= until) {
                break;
            }
            std::thread::sleep(due.saturating_sub(now));
            let records = usize::try_from(left).map_or(self.burst, |left| left.min(self.burst));
            self.hand_over(records, progress.started() + due)?;
            left -= records as u64;
        }
        Ok(())
    }

    /// Hands over what was due then, for the partition whose turn it is.
    fn hand_over(&mut self, records: usize, due: Instant) -> Result<(), WorkerError> {
        let mut values = self.block.next(records, &mut self.numbers);
        self.stamp(&mut values, due.saturating_duration_since(self.epoch));
        let index = usize::try_from(self.bursts % self.partitions.len() as u64).unwrap_or(0);
        self.bursts += 1;
        let records = Records {
            values: values.freeze(),
            value_bytes: self.block.value_bytes(),
            partition: Some(self.partitions[index]),
            timed: Timed::All(due),
        };
        match self.runtime.block_on(self.sender.send(records)) {
            (_, None) => Ok(()),
            (_, Some(error)) => Err(error.into()),
        }
    }

    fn stamp(&mut self, values: &mut BytesMut, due: Duration) {
        // There are no more than that (--producers).
        let producer = u16::try_from(self.turn.0).unwrap_or(u16::MAX);
        for value in values.chunks_mut(self.block.value_bytes()) {
            let stamp = Stamp { producer, number: self.records, due };
            value[NUMBER_BYTES_MAX..][..STAMP_BYTES].copy_from_slice(&stamp.encode());
            self.records += 1;
        }
    }
}
