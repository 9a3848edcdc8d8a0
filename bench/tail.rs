//! One consumer that follows partitions while producers send, and tells how long each batch was on its way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringmq_client::PartitionIndex;
use ringmq_wire::Offset;

use crate::connection::invalid;
use crate::error::{LoadError, WorkerError};
use crate::fetcher::Fetching;
use crate::latency::Latencies;
use crate::source::{By, Received, Source};
use crate::span::Span;
use crate::stamp::Stamp;
use crate::topic::{Place, Topic};
use crate::volume::Volume;
use crate::workers::Progress;

/// How long the broker may wait for records before it answers with none. In between a consumer looks whether the producers
/// have ended.
const MAX_WAIT_MS: u32 = 500;
/// How many fetches a consumer has under way, one for each of its partitions where there are not more.
const IN_FLIGHT_MAX: usize = 512;
/// How long acknowledged records may take to come, from the last one that did.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// What the producers of one run have had acknowledged: complete when all of them have ended.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    producing: AtomicUsize,
    /// By partition.
    records: Vec<AtomicU64>,
}

impl Acknowledged {
    pub(crate) fn new(partitions: u32, producers: usize) -> Self {
        Self { producing: AtomicUsize::new(producers), records: (0..partitions).map(|_| AtomicU64::new(0)).collect() }
    }

    /// A producer begins; it has ended when what this gives is dropped, however it comes to that.
    pub(crate) fn begin(&self) -> Producing<'_> {
        Producing(self)
    }

    /// Whether no producer goes on.
    pub(crate) fn is_over(&self) -> bool {
        self.producing.load(Ordering::Acquire) == 0
    }

    /// Records of a partition, of the producers that have ended.
    fn records_of(&self, partition: PartitionIndex) -> u64 {
        self.records[partition.as_usize()].load(Ordering::Relaxed)
    }

    /// All records, of the producers that have ended.
    pub(crate) fn records(&self) -> u64 {
        self.records.iter().map(|records| records.load(Ordering::Relaxed)).sum()
    }
}

/// A producer that goes on.
#[derive(Debug)]
pub(crate) struct Producing<'a>(&'a Acknowledged);

impl Producing<'_> {
    /// What the producer has had acknowledged.
    pub(crate) fn end(self, acknowledged: impl Iterator<Item = (PartitionIndex, u64)>) {
        for (partition, records) in acknowledged {
            self.0.records[partition.as_usize()].fetch_add(records, Ordering::Relaxed);
        }
    }
}

impl Drop for Producing<'_> {
    fn drop(&mut self) {
        // What was added is seen by whoever sees this.
        self.0.producing.fetch_sub(1, Ordering::Release);
    }
}

/// How a consumer follows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Following {
    /// How it asks for records.
    pub(crate) by: Option<By>,
    /// What one fetch asks for, or one frame may bring.
    pub(crate) fetch_bytes: u32,
    /// Where batches have their stamp, behind their header.
    pub(crate) stamp_position: usize,
    /// The moment from which stamps count.
    pub(crate) epoch: Instant,
    /// How many producers send.
    pub(crate) producers: u16,
}

pub(crate) struct Tail {
    source: Source,
    following: Following,
    seen: Seen,
    /// When the last record came, from the start of the run on.
    ended: Duration,
}

/// What has come so far.
struct Seen {
    /// Records by partition, since the beginning.
    records: HashMap<PartitionIndex, u64>,
    /// The last batch of each producer in each partition.
    last: HashMap<(PartitionIndex, u16), u64>,
    latencies: Latencies,
}

impl Tail {
    /// Connects to where the first of `places` is, to follow all of them from these offsets on.
    pub(crate) fn connect(
        topic: &Topic,
        places: &[Place],
        offsets: &[i64],
        following: Following,
    ) -> Result<Self, LoadError> {
        let fetching = Fetching {
            bytes: following.fetch_bytes,
            in_flight: places.len().min(IN_FLIGHT_MAX),
            max_wait_ms: MAX_WAIT_MS,
            stamp_position: Some(following.stamp_position),
        };
        let span = |place: &Place| {
            let offset = offsets.get(place.partition.as_usize()).and_then(|offset| Offset::checked(*offset));
            Span::from(place.partition, offset.unwrap_or(Offset::ZERO))
        };
        let records = places.iter().map(|place| (place.partition, 0)).collect();
        let mut source = Source::connect(topic, places, following.by, fetching)?;
        let begun = source.begin(places.iter().map(span));
        begun.map_err(|first| LoadError::Workers { count: 1, first })?;
        Ok(Self {
            source,
            following,
            seen: Seen { records, last: HashMap::new(), latencies: Latencies::new()? },
            ended: Duration::ZERO,
        })
    }

    /// How it asks for records.
    pub(crate) fn by(&self) -> By {
        self.source.by()
    }

    /// From when each batch was due to when all of it had come, since the last [`Tail::forget_latencies`].
    pub(crate) fn latencies(&self) -> &Latencies {
        &self.seen.latencies
    }

    pub(crate) fn forget_latencies(&mut self) -> Result<(), LoadError> {
        self.seen.latencies = Latencies::new()?;
        Ok(())
    }

    /// When the last record came, from the start of the last run on.
    pub(crate) fn ended(&self) -> Duration {
        self.ended
    }

    /// How many of the acknowledged records have not come.
    pub(crate) fn missing(&self, acknowledged: &Acknowledged) -> u64 {
        let came = self.seen.records.iter();
        came.map(|(partition, came)| acknowledged.records_of(*partition).saturating_sub(*came)).sum()
    }

    /// Receives until all that the producers have had acknowledged is there, or none comes any more, or something fails.
    pub(crate) fn follow(&mut self, acknowledged: &Acknowledged, progress: &Progress) -> (Volume, Option<WorkerError>) {
        let mut received = Volume::default();
        let failure = self.follow_all(acknowledged, progress, &mut received).err();
        (received, failure)
    }

    fn follow_all(
        &mut self,
        acknowledged: &Acknowledged,
        progress: &Progress,
        received: &mut Volume,
    ) -> Result<(), WorkerError> {
        let mut grown = Instant::now();
        while !self.is_complete(acknowledged) && grown.elapsed() < ARRIVAL_MAX {
            let (seen, following) = (&mut self.seen, self.following);
            let came = self.source.next(|partition, stamp| seen.take(partition, stamp, following))?;
            if let Received { partition: Some(partition), counted, .. } = came
                && counted.records > 0
            {
                *self.seen.records.entry(partition).or_insert(0) += counted.records;
                *received = received.plus(counted);
                progress.add(counted, self.seen.latencies.take_longest());
                self.ended = progress.started().elapsed();
                grown = Instant::now();
            } else if !acknowledged.is_over() {
                grown = Instant::now();
            }
        }
        Ok(())
    }

    fn is_complete(&self, acknowledged: &Acknowledged) -> bool {
        acknowledged.is_over() && self.missing(acknowledged) == 0
    }
}

impl Seen {
    /// A batch is there.
    fn take(&mut self, partition: PartitionIndex, stamp: Stamp, following: Following) -> Result<(), WorkerError> {
        let Stamp { producer, number, due } = stamp;
        if producer >= following.producers {
            return Err(invalid("a batch came that no producer of this run sent; use a topic of its own").into());
        }
        // In order and none twice. That none is missing shows in the end, by their number.
        match self.last.insert((partition, producer), number) {
            Some(last) if last >= number => Err(WorkerError::Order { partition, producer, number, last }),
            _ => {
                self.latencies.record(following.epoch.elapsed().saturating_sub(due));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringmq_wire::ErrorCode;
    use ringmq_wire::batch::set_base_offset;
    use ringmq_wire::codec::Codec;
    use ringmq_wire::protocol::FetchRequest;

    use super::*;
    use crate::payload::{Fill, Marks, Payload, Shape, Values};
    use crate::testing::{self, Peer};

    /// A topic that holds batches of ten records with these stamps, and one that follows it from the beginning.
    fn tail(stamps: &[(u16, u64)]) -> Tail {
        let shape = Shape { record_bytes: 100, batch_bytes: 1200 };
        let mut payload = Payload::prepare(shape, 10, &mut Values::random(1), None, None).unwrap();
        let mut batch = |(index, &(producer, number)): (usize, &(u16, u64))| {
            let stamp = Some(Stamp { producer, number, due: Duration::ZERO });
            let marks = Marks { partition: PartitionIndex::new(0), producer: None, stamp };
            let ready = payload.make_ready(Fill::Full, &marks);
            let mut batch = payload.bytes(ready).to_vec();
            set_base_offset(&mut batch, Offset::new(10 * i64::try_from(index).unwrap()));
            batch
        };
        let batches: Vec<Vec<u8>> = stamps.iter().enumerate().map(&mut batch).collect();
        let peer = Peer::answering(move |head, body| {
            let request = FetchRequest::decode_whole(&body).unwrap();
            let next = usize::try_from(request.topics[0].partitions[0].fetch_offset.get()).unwrap() / 10;
            // Two at a time, and none at the end.
            let section = batches[next..batches.len().min(next + 2)].concat();
            Some(testing::fetched(head.correlation_id, 0, &section, ErrorCode::None))
        });
        let stamp_position = payload.stamp_position();
        let by = Some(By::Fetch);
        let following = Following { by, fetch_bytes: 1000, stamp_position, epoch: Instant::now(), producers: 2 };
        Tail::connect(&testing::topic(&peer.place), std::slice::from_ref(&peer.place), &[0], following).unwrap()
    }

    /// What producers that have ended had acknowledged.
    fn acknowledged(records: u64) -> Acknowledged {
        let acknowledged = Acknowledged::new(1, 0);
        acknowledged.records[0].store(records, Ordering::Relaxed);
        acknowledged
    }

    #[test]
    fn everything_is_received_in_the_order_of_each_producer() {
        let mut tail = tail(&[(0, 0), (1, 4), (0, 1), (0, 7), (1, 5)]);
        let acknowledged = acknowledged(50);
        assert_eq!(tail.missing(&acknowledged), 50);
        let progress = Progress::start();
        let (received, failure) = tail.follow(&acknowledged, &progress);
        assert!(failure.is_none(), "{failure:?}");
        assert_eq!((received.records, progress.done()), (50, received));
        assert_eq!(tail.missing(&acknowledged), 0);
        assert!(tail.ended() > Duration::ZERO && tail.latencies().summary().p50 > 0.0);
    }

    #[test]
    fn what_comes_twice_or_late_or_from_others_is_an_error() {
        for stamps in [[(0, 3), (0, 3)], [(1, 3), (1, 2)]] {
            let (_, failure) = tail(&stamps).follow(&acknowledged(20), &Progress::start());
            assert!(matches!(failure, Some(WorkerError::Order { last: 3, .. })), "{failure:?}");
        }
        let (_, failure) = tail(&[(2, 0)]).follow(&acknowledged(10), &Progress::start());
        assert!(matches!(failure, Some(WorkerError::Connection(_))), "{failure:?}");
    }

    #[test]
    fn producers_have_ended_however_they_do() {
        let acknowledged = Acknowledged::new(1, 2);
        let (first, second) = (acknowledged.begin(), acknowledged.begin());
        drop(first);
        assert!(!acknowledged.is_over());
        drop(second);
        assert!(acknowledged.is_over());
    }
}
