//! One consumer: a connection, what it reads, and the fetches under way.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::BytesMut;
use ringmq_client::{PartitionIndex, TopicName};
use ringmq_wire::protocol::frame::{self, ResponseHead};
use ringmq_wire::protocol::{
    FetchPartition, FetchRequest, FetchResponseHead, FetchTopic, FetchedPartition, SectionHead,
};
use ringmq_wire::{CorrelationId, Offset, WireError};

use crate::checker::{Counted, SectionChecker};
use crate::connection::{Connection, invalid};
use crate::error::{LoadError, WorkerError};
use crate::report::Latencies;
use crate::topic::Place;

/// How long the broker may wait for records. They are all there, so it never has to.
const MAX_WAIT_MS: u32 = 5_000;

/// Offsets of one partition that are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    partition: PartitionIndex,
    next: Offset,
    until: Offset,
}

impl Span {
    /// `None` for no offset.
    pub(crate) fn new(partition: usize, offsets: Range<i64>) -> Option<Self> {
        let partition = PartitionIndex::new(u32::try_from(partition).ok()?);
        let (next, until) = (Offset::checked(offsets.start)?, Offset::checked(offsets.end)?);
        (next < until).then_some(Self { partition, next, until })
    }

    #[cfg(test)]
    pub(crate) fn partition(&self) -> usize {
        self.partition.as_usize()
    }

    #[cfg(test)]
    pub(crate) fn offsets(&self) -> Range<i64> {
        self.next.get()..self.until.get()
    }
}

/// A fetch that has not been answered.
struct Fetch {
    span: Span,
    started: Instant,
}

pub(crate) struct Consumer {
    connection: Connection,
    topic: TopicName,
    places: Vec<Place>,
    fetch_bytes: u32,
    /// By correlation id, which is the number of the place.
    in_flight: Vec<Option<Fetch>>,
    latencies: Latencies,
}

impl Consumer {
    /// Connects to where the first of `places` is.
    pub(crate) fn connect(
        topic: &TopicName,
        places: Vec<Place>,
        fetch_bytes: u32,
        in_flight: usize,
    ) -> Result<Self, LoadError> {
        let Some(home) = places.first() else {
            return Err(LoadError::Connect(invalid("a consumer has no partition")));
        };
        let connection = Connection::open(&home.addresses).map_err(LoadError::Connect)?;
        let in_flight = (0..in_flight).map(|_| None).collect();
        let (topic, latencies) = (topic.clone(), Latencies::new()?);
        Ok(Self { connection, topic, places, fetch_bytes, in_flight, latencies })
    }

    pub(crate) fn partitions(&self) -> Vec<usize> {
        self.places.iter().map(|place| place.partition.as_usize()).collect()
    }

    /// Of every fetch since the last [`Consumer::forget_latencies`].
    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    pub(crate) fn forget_latencies(&mut self) -> Result<(), LoadError> {
        self.latencies = Latencies::new()?;
        Ok(())
    }

    /// Reads `spans` to their ends, or until something fails. Counts what was verified.
    pub(crate) fn read(&mut self, spans: &[Span], done: &AtomicU64) -> (Counted, Option<WorkerError>) {
        let mut counted = Counted::default();
        let mut idle: VecDeque<Span> = spans.iter().cloned().collect();
        let mut left = idle.len();
        while left > 0 {
            let answered = self.ask(&mut idle).and_then(|()| self.take_answer());
            let (span, found) = match answered {
                Ok(answered) => answered,
                Err(error) => return (counted, Some(error)),
            };
            counted = counted.plus(found);
            done.fetch_add(found.records, Ordering::Relaxed);
            if span.next < span.until {
                idle.push_back(span);
            } else {
                left -= 1;
            }
        }
        (counted, None)
    }

    /// Sends as many fetches as may be in flight, with one write.
    fn ask(&mut self, idle: &mut VecDeque<Span>) -> Result<(), WorkerError> {
        let mut requests = BytesMut::new();
        for (place, slot) in self.in_flight.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
            let Some(span) = idle.pop_front() else { break };
            let wanted = FetchPartition {
                partition: span.partition,
                fetch_offset: span.next,
                partition_max_bytes: self.fetch_bytes,
            };
            let topics = vec![FetchTopic { topic: self.topic.clone(), partitions: vec![wanted] }];
            let request = FetchRequest { max_wait_ms: MAX_WAIT_MS, min_bytes: 1, max_bytes: self.fetch_bytes, topics };
            let id = CorrelationId::new(u32::try_from(place).map_err(invalid)?);
            frame::encode_request(id, &request, &mut requests).map_err(invalid)?;
            *slot = Some(Fetch { span, started: Instant::now() });
        }
        self.connection.write(&mut [IoSlice::new(&requests)])?;
        Ok(())
    }

    /// Waits for one answer, whichever comes first, and verifies it as it comes.
    fn take_answer(&mut self) -> Result<(Span, Counted), WorkerError> {
        let head = loop {
            match self.connection.take_response_head()? {
                Some(head) => break head,
                None => self.connection.receive()?,
            }
        };
        let place = head.correlation_id.get() as usize;
        let Some(Fetch { mut span, started }) = self.in_flight.get_mut(place).and_then(Option::take) else {
            return Err(invalid(format!("response {place} answers no fetch")).into());
        };
        let fetched = self.take_head(&head)?;
        if fetched.partition != span.partition {
            return Err(
                invalid(format!("partition {} came where {} was due", fetched.partition, span.partition)).into()
            );
        }
        if !fetched.error.is_none() {
            let source = WireError { code: fetched.error, detail: fetched.detail };
            return Err(WorkerError::Partition { partition: span.partition, source });
        }
        let counted = self.take_section(&mut span, fetched.records_bytes as usize)?;
        self.latencies.record(started.elapsed());
        Ok((span, counted))
    }

    /// What the head of a response says about its one partition.
    fn take_head(&mut self, head: &ResponseHead) -> Result<FetchedPartition, WorkerError> {
        if !head.error.is_none() {
            let body = self.connection.wait_for(head.body_bytes as usize)?;
            let error = frame::decode_error_body(head.error, body).map_err(invalid)?;
            return Err(WorkerError::Request(error));
        }
        let (decoded, sections_at) = loop {
            let arrived = self.connection.available();
            let body = &arrived[..arrived.len().min(head.body_bytes as usize)];
            match FetchResponseHead::decode_head(body, head.body_bytes).map_err(invalid)? {
                Some(decoded) => break decoded,
                None => self.connection.receive()?,
            }
        };
        self.connection.consume(sections_at);
        let mut partitions = decoded.topics.into_iter().flat_map(|topic| topic.partitions);
        match (partitions.next(), partitions.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(invalid("a fetch of one partition was answered with none or several").into()),
        }
    }

    fn take_section(&mut self, span: &mut Span, section_bytes: usize) -> Result<Counted, WorkerError> {
        let damaged = |source| WorkerError::Check { partition: span.partition, source };
        let mut checker = SectionChecker::new(span.next, span.until);
        let mut left = section_bytes;
        while left > 0 {
            if self.connection.available().is_empty() {
                self.connection.receive()?;
            }
            let arrived = self.connection.available();
            let piece = &arrived[..arrived.len().min(left)];
            checker.feed(piece).map_err(damaged)?;
            let taken = piece.len();
            left -= taken;
            self.connection.consume(taken);
        }
        let (counted, next) = checker.finish().map_err(damaged)?;
        if next == span.next {
            return Err(invalid(format!("nothing came from offset {next} on, although more is there")).into());
        }
        span.next = next;
        Ok(counted)
    }
}

#[cfg(test)]
mod tests {
    use ringmq_wire::ErrorCode;
    use ringmq_wire::codec::Codec;

    use super::*;
    use crate::checker::tests::batch;
    use crate::testing::{self, Peer};

    /// Reads offsets of partitions 0 and 1 from a peer that makes an answer of (id, partition, offset).
    fn read(
        spans: [Range<i64>; 2],
        mut answer: impl FnMut(CorrelationId, u32, i64) -> BytesMut + Send + 'static,
    ) -> (Counted, Option<WorkerError>) {
        let peer = Peer::answering(move |head, body| {
            let request = FetchRequest::decode_whole(&body).unwrap();
            let wanted = &request.topics[0].partitions[0];
            Some(answer(head.correlation_id, wanted.partition.get(), wanted.fetch_offset.get()))
        });
        let mut consumer = Consumer::connect(&testing::topic(), vec![peer.place.clone()], 1000, 2).unwrap();
        let spans: Vec<Span> =
            spans.into_iter().enumerate().filter_map(|(index, span)| Span::new(index, span)).collect();
        consumer.read(&spans, &AtomicU64::new(0))
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
