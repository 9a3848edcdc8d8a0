//! One consumer: what it reads, once and to its end.

use std::time::{Duration, Instant};

use crate::connection::invalid;
use crate::error::{LoadError, WorkerError};
use crate::fetcher::Fetching;
use crate::latency::Latencies;
use crate::source::{By, Source};
use crate::span::Span;
use crate::topic::{Place, Topic};
use crate::volume::Volume;
use crate::workers::Progress;

/// How long the broker may wait for records. They are all there, so it never has to.
const MAX_WAIT_MS: u32 = 5_000;
/// How long a subscription may bring nothing, for the same reason.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Consumer {
    source: Source,
    places: Vec<Place>,
    latencies: Latencies,
}

impl Consumer {
    /// Connects to where the first of `places` is, to have so many bytes sent at once, and so often.
    pub(crate) fn connect(
        topic: &Topic,
        places: Vec<Place>,
        by: Option<By>,
        (bytes, in_flight): (u32, usize),
    ) -> Result<Self, LoadError> {
        let fetching = Fetching { bytes, in_flight, max_wait_ms: MAX_WAIT_MS, stamp_position: None };
        Ok(Self { source: Source::connect(topic, &places, by, fetching)?, places, latencies: Latencies::new()? })
    }

    /// How it asks for records.
    pub(crate) fn by(&self) -> By {
        self.source.by()
    }

    pub(crate) fn partitions(&self) -> Vec<usize> {
        self.places.iter().map(|place| place.partition.as_usize()).collect()
    }

    /// Of every fetch, or of every part of a frame, since the last [`Consumer::rest`].
    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Ends what is behind it, so that nothing of it counts.
    pub(crate) fn rest(&mut self) -> Result<(), LoadError> {
        self.source.rest().map_err(|first| LoadError::Workers { count: 1, first })?;
        self.latencies = Latencies::new()?;
        Ok(())
    }

    /// Reads `spans` to their ends, or until something fails. Counts what was verified.
    pub(crate) fn read(&mut self, spans: &[Span], progress: &Progress) -> (Volume, Option<WorkerError>) {
        let mut counted = Volume::default();
        let failure = self.read_all(spans, progress, &mut counted, || false).err();
        (counted, failure)
    }

    /// Reads `spans` to their ends again and again until it is told to stop, or something fails.
    pub(crate) fn read_until(
        &mut self,
        spans: &[Span],
        progress: &Progress,
        is_over: impl Fn() -> bool,
    ) -> (Volume, Option<WorkerError>) {
        let (mut counted, mut failure) = (Volume::default(), None);
        while failure.is_none() && !spans.is_empty() && !is_over() {
            failure = self.read_all(spans, progress, &mut counted, &is_over).err();
        }
        (counted, failure)
    }

    fn read_all(
        &mut self,
        spans: &[Span],
        progress: &Progress,
        counted: &mut Volume,
        is_over: impl Fn() -> bool,
    ) -> Result<(), WorkerError> {
        let mut left = spans.len();
        if left == 0 {
            return Ok(());
        }
        self.source.begin(spans.iter().cloned())?;
        let mut grown = Instant::now();
        while left > 0 && !is_over() {
            let came = self.source.next(|_, _| Ok(()))?;
            if came.counted.records == 0 {
                if self.by() == By::Fetch || grown.elapsed() > PATIENCE {
                    return Err(invalid("nothing came, although more is there").into());
                }
                continue;
            }
            grown = Instant::now();
            self.latencies.record(came.took);
            *counted = counted.plus(came.counted);
            progress.add(came.counted, came.took);
            left -= usize::from(came.ends_span);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use bytes::BytesMut;
    use ringmq_wire::codec::Codec;
    use ringmq_wire::protocol::FetchRequest;
    use ringmq_wire::{CorrelationId, ErrorCode};

    use super::*;
    use crate::checker::tests::batch;
    use crate::testing::{self, Peer};

    /// Reads offsets of partitions 0 and 1 from a peer that makes an answer of (id, partition, offset).
    fn read(
        spans: [Range<i64>; 2],
        mut answer: impl FnMut(CorrelationId, u32, i64) -> BytesMut + Send + 'static,
    ) -> (Volume, Option<WorkerError>) {
        let peer = Peer::answering(move |head, body| {
            let request = FetchRequest::decode_whole(&body).unwrap();
            let wanted = &request.topics[0].partitions[0];
            Some(answer(head.correlation_id, wanted.partition.get(), wanted.fetch_offset.get()))
        });
        let (topic, by) = (testing::topic(&peer.place), Some(By::Fetch));
        let mut consumer = Consumer::connect(&topic, vec![peer.place.clone()], by, (1000, 2)).unwrap();
        let spans: Vec<Span> =
            spans.into_iter().enumerate().filter_map(|(index, span)| Span::new(index, span)).collect();
        consumer.read(&spans, &Progress::start())
    }

    #[test]
    fn spans_are_read_to_their_ends() {
        let (counted, failure) = read([0..100, 50..60], |id, partition, offset| {
            testing::fetched(id, partition, &[batch(offset, 7), batch(offset + 7, 2)].concat(), ErrorCode::None)
        });
        assert!(failure.is_none(), "{failure:?}");
        assert_eq!(counted.records, 110);
    }

    #[test]
    fn damage_refusals_and_wrong_answers_are_told() {
        let damaged = read([0..10, 0..0], |id, partition, offset| {
            let mut section = batch(offset, 5);
            *section.last_mut().unwrap() ^= 1;
            testing::fetched(id, partition, &section, ErrorCode::None)
        });
        assert!(matches!(damaged.1, Some(WorkerError::Check { .. })), "{:?}", damaged.1);

        let refused =
            read([0..10, 0..0], |id, partition, _| testing::fetched(id, partition, &[], ErrorCode::PartitionOffline));
        assert!(matches!(refused.1, Some(WorkerError::Partition { .. })), "{:?}", refused.1);

        let other = read([0..10, 0..0], |id, partition, offset| {
            testing::fetched(id, partition + 1, &batch(offset, 5), ErrorCode::None)
        });
        let nothing = read([0..10, 0..0], |id, partition, _| testing::fetched(id, partition, &[], ErrorCode::None));
        let stray = read([0..10, 0..0], |_, partition, offset| {
            testing::fetched(CorrelationId::new(5), partition, &batch(offset, 5), ErrorCode::None)
        });
        for (counted, failure) in [other, nothing, stray] {
            assert_eq!(counted.records, 0);
            assert!(matches!(failure, Some(WorkerError::Connection(_))), "{failure:?}");
        }
    }
}
