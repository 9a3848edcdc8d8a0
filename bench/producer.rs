//! One producer: a connection, its partitions, and what is in flight.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use ringmq_client::{Acks, PartitionIndex, TopicName};
use ringmq_wire::codec::{Codec, DecodeError, Reader};
use ringmq_wire::protocol::frame::{self, REQUEST_HEAD_BYTES, ResponseHead};
use ringmq_wire::protocol::{ProduceHead, ProducePartition, ProduceResponse, ProduceTopic};
use ringmq_wire::{CorrelationId, Detail, ErrorCode, Offset, WireError};

use crate::connection::{Connection, invalid};
use crate::error::{LoadError, WorkerError};
use crate::payload::{Payload, Ready};
use crate::report::Latencies;
use crate::topic::Place;

/// What was acknowledged.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Sent {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { records: self.records + other.records, bytes: self.bytes + other.bytes }
    }
}

/// One thread's connection, partitions and batches.
pub(crate) struct Producer {
    connection: Connection,
    routes: Vec<Route>,
    /// The route of the next batch.
    turn: usize,
    payload: Payload,
    has_responses: bool,
    /// By correlation id, which is the number of the place.
    in_flight: Vec<Option<Request>>,
    free: Vec<usize>,
    latencies: Latencies,
}

/// A partition, and the heads of requests to it with room for the correlation id.
struct Route {
    full: Bytes,
    rest: Option<Bytes>,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    started: Instant,
    sent: Sent,
}

impl Producer {
    /// Connects to where the first of `places` is, for records to all of them.
    pub(crate) fn connect(
        topic: &TopicName,
        places: &[Place],
        payload: Payload,
        acks: Acks,
        in_flight: usize,
    ) -> Result<Self, LoadError> {
        let mut routes = Vec::with_capacity(places.len());
        for place in places {
            let head = |batch_bytes| request_head(topic, place.partition, acks, batch_bytes);
            let (full, rest) = (head(payload.full_bytes())?, payload.rest_bytes().map(head).transpose()?);
            routes.push(Route { full, rest });
        }
        let (Some(home), Some(route)) = (places.first(), routes.first()) else {
            return Err(LoadError::Connect(invalid("a producer has no partition")));
        };
        let connection = Connection::open(&home.addresses).map_err(LoadError::Connect)?;
        let (max, bytes) = (connection.hello().request_bytes_max, route.full.len() + payload.full_bytes());
        if bytes > max as usize {
            return Err(LoadError::RequestTooLarge { bytes, max });
        }
        Ok(Self {
            connection,
            routes,
            turn: 0,
            payload,
            has_responses: acks != Acks::None,
            in_flight: vec![None; in_flight],
            free: (0..in_flight).rev().collect(),
            latencies: Latencies::new()?,
        })
    }

    pub(crate) fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Of every request since the last [`Producer::forget_latencies`].
    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    pub(crate) fn forget_latencies(&mut self) -> Result<(), LoadError> {
        self.latencies = Latencies::new()?;
        Ok(())
    }

    /// Sends all records that were prepared, and waits until they are acknowledged or something fails.
    pub(crate) fn produce(&mut self, done: &AtomicU64) -> (Sent, Option<WorkerError>) {
        let left = Left { full: self.payload.full_count, rest: self.payload.rest_records > 0 };
        self.run(left, done)
    }

    /// Sends so many full batches besides, and waits until they are acknowledged or something fails.
    pub(crate) fn warm_up(&mut self, full: u64, done: &AtomicU64) -> (Sent, Option<WorkerError>) {
        self.run(Left { full, rest: false }, done)
    }

    fn run(&mut self, mut left: Left, done: &AtomicU64) -> (Sent, Option<WorkerError>) {
        let mut acknowledged = Sent::default();
        let failure = loop {
            let before = acknowledged.records;
            let step = if !left.is_empty() && !self.free.is_empty() {
                self.send(&mut left, &mut acknowledged)
            } else if self.free.len() < self.in_flight.len() {
                self.take_answers(&mut acknowledged)
            } else {
                break None;
            };
            if let Err(error) = step {
                break Some(error);
            }
            done.fetch_add(acknowledged.records - before, Ordering::Relaxed);
        };
        (acknowledged, failure)
    }

    /// Sends as many batches as may be in flight and can be ready at the same time, with one write.
    fn send(&mut self, left: &mut Left, acknowledged: &mut Sent) -> Result<(), WorkerError> {
        let mut heads = Vec::new();
        let mut queued: Vec<(usize, Range<usize>, Ready)> = Vec::new();
        while queued.len() < self.payload.ready_max()
            && let Some(&place) = self.free.last()
        {
            let Some((batch, kind)) = left.take(&mut self.payload) else { break };
            let route = &self.routes[self.turn % self.routes.len()];
            let (head, records) = match kind {
                Kind::Full => (&route.full, self.payload.records_per_batch),
                Kind::Rest => (route.rest.as_ref().unwrap_or(&route.full), self.payload.rest_records),
            };
            let start = heads.len();
            heads.extend_from_slice(head);
            set_correlation_id(&mut heads[start..], place);
            self.free.pop();
            self.turn += 1;
            let sent = Sent { records, bytes: self.payload.bytes(batch).len() as u64 };
            self.in_flight[place] = Some(Request { started: Instant::now(), sent });
            queued.push((place, start..heads.len(), batch));
        }
        let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(2 * queued.len());
        for (_, head, batch) in &queued {
            pieces.extend([IoSlice::new(&heads[head.clone()]), IoSlice::new(self.payload.bytes(*batch))]);
        }
        self.connection.write(&mut pieces)?;
        if !self.has_responses {
            for (place, ..) in queued {
                self.end(place, acknowledged);
            }
        }
        Ok(())
    }

    /// Waits for an answer, and takes all that have come with it.
    fn take_answers(&mut self, acknowledged: &mut Sent) -> Result<(), WorkerError> {
        self.connection.receive()?;
        while let Some(head) = self.connection.take_response_head()? {
            let body = self.connection.wait_for(head.body_bytes as usize)?;
            let place = head.correlation_id.get() as usize;
            let Some(Some(request)) = self.in_flight.get(place) else {
                return Err(invalid(format!("response {place} answers no request")).into());
            };
            let offsets = offsets(&head, body)?;
            let count = offsets.end.checked_sub(offsets.start).unwrap_or(0);
            if count != request.sent.records {
                return Err(WorkerError::Count { acknowledged: count, sent: request.sent.records });
            }
            self.connection.consume(head.body_bytes as usize);
            self.end(place, acknowledged);
        }
        Ok(())
    }

    /// The request in `place` is done.
    fn end(&mut self, place: usize, acknowledged: &mut Sent) {
        if let Some(Request { started, sent }) = self.in_flight[place].take() {
            self.latencies.record(started.elapsed());
            *acknowledged = acknowledged.plus(sent);
            self.free.push(place);
        }
    }
}

/// Batches that are still to be sent.
struct Left {
    full: u64,
    rest: bool,
}

enum Kind {
    Full,
    Rest,
}

impl Left {
    fn is_empty(&self) -> bool {
        self.full == 0 && !self.rest
    }

    fn take(&mut self, payload: &mut Payload) -> Option<(Ready, Kind)> {
        if self.full > 0 {
            self.full -= 1;
            return Some((payload.next_full(), Kind::Full));
        }
        let rest = std::mem::take(&mut self.rest).then(|| payload.rest()).flatten();
        rest.map(|rest| (rest, Kind::Rest))
    }
}

/// All of a request but its one section, with correlation id 0.
fn request_head(
    topic: &TopicName,
    partition: PartitionIndex,
    acks: Acks,
    batch_bytes: usize,
) -> Result<Bytes, LoadError> {
    let too_large = |_| LoadError::RequestTooLarge { bytes: batch_bytes, max: u32::MAX };
    let records_bytes = u32::try_from(batch_bytes).map_err(too_large)?;
    let partitions = vec![ProducePartition { partition, records_bytes }];
    let topics = vec![ProduceTopic { topic: topic.clone(), partitions }];
    let head = ProduceHead { acks, timeout_ms: 30_000, topics };
    let mut out = BytesMut::new();
    let too_large = |_| LoadError::RequestTooLarge { bytes: batch_bytes, max: u32::MAX };
    frame::encode_request_head(CorrelationId::new(0), &head, &mut out).map_err(too_large)?;
    Ok(out.freeze())
}

/// The correlation id is the last field in front of a request's body.
fn set_correlation_id(request: &mut [u8], place: usize) {
    let id = u32::try_from(place).unwrap_or(u32::MAX);
    request[REQUEST_HEAD_BYTES - 4..REQUEST_HEAD_BYTES].copy_from_slice(&id.to_be_bytes());
}

/// The offsets that a response to a request with one section gives.
fn offsets(head: &ResponseHead, body: &[u8]) -> Result<Range<Offset>, WorkerError> {
    if !head.error.is_none() {
        let error = frame::decode_error_body(head.error, body).map_err(invalid)?;
        return Err(WorkerError::Request(error));
    }
    match acknowledged_offsets(body) {
        Ok(Some(offsets)) => Ok(offsets),
        // Decoded again, with all of its words.
        Ok(None) => Err(refusal(body)),
        Err(error) => Err(invalid(error).into()),
    }
}

/// The offsets in a [`ProduceResponse`] of one partition, read in place: `None` when it is an error.
fn acknowledged_offsets(body: &[u8]) -> Result<Option<Range<Offset>>, DecodeError> {
    let mut reader = Reader::new(body);
    let _topics = u32::decode(&mut reader)?;
    let name_bytes = u16::decode(&mut reader)?;
    reader.take(name_bytes.into(), "ProducedTopic.topic")?;
    let _partitions = u32::decode(&mut reader)?;
    let _partition = PartitionIndex::decode(&mut reader)?;
    if !ErrorCode::decode(&mut reader)?.is_none() {
        return Ok(None);
    }
    Detail::decode(&mut reader)?;
    let base = Offset::decode(&mut reader)?;
    Ok(Some(base..Offset::decode(&mut reader)?))
}

fn refusal(body: &[u8]) -> WorkerError {
    let response = match ProduceResponse::decode_whole(body) {
        Ok(response) => response,
        Err(error) => return invalid(error).into(),
    };
    let mut produced = response.topics.into_iter().flat_map(|topic| topic.partitions);
    match produced.find(|produced| !produced.error.is_none()) {
        Some(refused) => WorkerError::Partition {
            partition: refused.partition,
            source: WireError { code: refused.error, detail: refused.detail },
        },
        None => invalid("an answer is an error and none").into(),
    }
}

#[cfg(test)]
mod tests {
    use ringmq_wire::batch::{BatchLimits, validate_batch};
    use ringmq_wire::protocol::{ProducedPartition, ProducedTopic, SectionHead};

    use ringmq_wire::protocol::frame::RequestHead;

    use super::*;
    use crate::payload::{Numbers, Shape, Values};
    use crate::testing::{self, Peer};

    /// Sends 95 records in batches of 10 to a peer.
    fn produce_95(peer: &Peer, acks: Acks, in_flight: usize) -> (Sent, Option<WorkerError>) {
        let shape = Shape { record_bytes: 100, batch_bytes: 1200 };
        let numbers = Some(Numbers::new(1, 0, 1));
        let payload = Payload::prepare(shape, 95, &mut Values::random(1), numbers).unwrap();
        assert_eq!((payload.records_per_batch, payload.full_count, payload.rest_records), (10, 9, 5));
        let places = [peer.place.clone()];
        let mut producer = Producer::connect(&testing::topic(), &places, payload, acks, in_flight).unwrap();
        producer.produce(&AtomicU64::new(0))
    }

    /// The records in a request, which must be one valid batch.
    fn records_in(head: &RequestHead, body: &[u8]) -> i64 {
        let (_, section) = ProduceHead::decode_head(body, head.body_bytes).unwrap().unwrap();
        validate_batch(&body[section..], &BatchLimits::default()).unwrap().record_count.into()
    }

    #[test]
    fn every_record_is_sent_once_and_counts_when_it_is_acknowledged() {
        for in_flight in [1, 3, 100] {
            let peer = Peer::answering(|head, body| {
                let records = records_in(&head, &body);
                Some(testing::produced(head.correlation_id, records, ErrorCode::None))
            });
            let (sent, failure) = produce_95(&peer, Acks::All, in_flight);
            assert!(failure.is_none(), "{failure:?}");
            assert_eq!((sent.records, peer.requests()), (95, 10));
        }
    }

    #[test]
    fn without_acknowledgement_nothing_is_waited_for() {
        let peer = Peer::answering(|_, _| Some(BytesMut::new()));
        let (sent, failure) = produce_95(&peer, Acks::None, 2);
        assert!(failure.is_none(), "{failure:?}");
        assert_eq!((sent.records, peer.requests()), (95, 10));
    }

    #[test]
    fn what_is_not_acknowledged_does_not_count() {
        let mut answered = 0;
        let peer = Peer::answering(move |head, body| {
            answered += 1;
            let error = if answered < 4 { ErrorCode::None } else { ErrorCode::StorageFull };
            Some(testing::produced(head.correlation_id, records_in(&head, &body), error))
        });
        let (sent, failure) = produce_95(&peer, Acks::All, 1);
        assert_eq!(sent.records, 30);
        assert!(matches!(failure, Some(WorkerError::Partition { .. })), "{failure:?}");

        let closing = Peer::answering(|_, _| None);
        let (sent, failure) = produce_95(&closing, Acks::All, 2);
        assert_eq!(sent.records, 0);
        assert!(matches!(failure, Some(WorkerError::Connection(_))), "{failure:?}");
    }

    #[test]
    fn an_acknowledgement_of_other_records_or_of_nothing_is_an_error() {
        let other = Peer::answering(|head, _| Some(testing::produced(head.correlation_id, 7, ErrorCode::None)));
        let (_, failure) = produce_95(&other, Acks::All, 1);
        assert!(matches!(failure, Some(WorkerError::Count { acknowledged: 7, sent: 10 })), "{failure:?}");

        let stray = Peer::answering(|_, _| Some(testing::produced(CorrelationId::new(9), 10, ErrorCode::None)));
        let (_, failure) = produce_95(&stray, Acks::All, 1);
        assert!(matches!(failure, Some(WorkerError::Connection(_))), "{failure:?}");
    }

    #[test]
    fn a_refused_request_is_told_with_its_words() {
        let peer = Peer::answering(|head, _| {
            let mut out = BytesMut::new();
            let error = WireError::new(ErrorCode::ShuttingDown, "going");
            frame::encode_error_response(head.correlation_id, &error, &mut out);
            Some(out)
        });
        let (_, failure) = produce_95(&peer, Acks::All, 1);
        assert!(failure.unwrap().to_string().contains("going"));
    }

    fn response(error: ErrorCode, detail: &str) -> BytesMut {
        let produced = ProducedPartition {
            partition: PartitionIndex::new(3),
            error,
            detail: detail.into(),
            base_offset: Offset::new(70),
            next_offset: Offset::new(75),
            log_start_offset: Offset::ZERO,
            append_time: None,
        };
        let topic = TopicName::parse("a-topic").unwrap();
        let topics = vec![ProducedTopic { topic, partitions: vec![produced] }];
        let mut out = BytesMut::new();
        ProduceResponse { topics }.encode(&mut out);
        out
    }

    #[test]
    fn answers_read_in_place_say_the_same_as_decoded_ones() {
        let head = ResponseHead { body_bytes: 0, correlation_id: CorrelationId::new(0), error: ErrorCode::None };
        let good = response(ErrorCode::None, "");
        assert_eq!(offsets(&head, &good).unwrap(), Offset::new(70)..Offset::new(75));
        let bad = offsets(&head, &response(ErrorCode::StorageFull, "no room")).unwrap_err();
        assert_eq!(bad.to_string(), "partition 3: STORAGE_FULL: no room");
        for length in 0..good.len() - 16 {
            assert!(offsets(&head, &good[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_prepared_head_is_a_request_with_its_own_correlation_id() {
        let topic = TopicName::parse("t").unwrap();
        let mut head = request_head(&topic, PartitionIndex::new(5), Acks::All, 100).unwrap().to_vec();
        set_correlation_id(&mut head, 9);
        let decoded = frame::decode_request_head(&head, u32::MAX).unwrap().unwrap();
        assert_eq!(decoded.correlation_id, CorrelationId::new(9));
        assert_eq!(decoded.body_bytes as usize, head.len() - REQUEST_HEAD_BYTES + 100);
    }
}
