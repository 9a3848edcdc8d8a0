use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use ringmq_client::Acks;
use ringmq_wire::batch::{BATCH_HEADER_BYTES, BatchHeader, BatchLimits, validate_batch};
use ringmq_wire::protocol::frame::{self, RequestHead};
use ringmq_wire::protocol::{ProduceHead, SectionHead};
use ringmq_wire::{CorrelationId, ErrorCode, ProducerEpoch, ProducerId, WireError};

use super::*;
use crate::pace::Rate;
use crate::payload::{Numbers, Shape, Values};
use crate::stamp::STAMP_BYTES;
use crate::testing::{self, Peer};

const CLOSED: Sending = Sending { acks: Acks::All, in_flight: 1, idempotent: false, schedule: None, stamps: None };

/// A producer of 95 records in batches of 10 to a peer.
fn producer(peer: &Peer, sending: Sending) -> Producer {
    let shape = Shape { record_bytes: 100, batch_bytes: 1200 };
    let numbers = Some(Numbers::new(1, 0, 1));
    let payload = Payload::prepare(shape, 95, &mut Values::random(1), numbers, None).unwrap();
    assert_eq!((payload.volume(Fill::Full).records, payload.full_count, payload.rest_records), (10, 9, 5));
    let places = [peer.place.clone()];
    Producer::connect(&testing::topic(&peer.place), &places, payload, sending).unwrap()
}

/// Sends 95 records in batches of 10 to a peer.
fn produce_95(peer: &Peer, acks: Acks, in_flight: usize) -> (Volume, Option<WorkerError>) {
    let mut producer = producer(peer, Sending { acks, in_flight, ..CLOSED });
    let plan = producer.plan(Extent::Records(95));
    producer.produce(plan, &Progress::start())
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

/// Answers every batch, and keeps what each was.
fn keeping(seen: &Arc<Mutex<Vec<Vec<u8>>>>) -> Peer {
    let seen = seen.clone();
    Peer::answering(move |head, body| {
        if body.len() == 4 {
            let identity =
                InitProducerIdResponse { producer_id: ProducerId::new(77), producer_epoch: ProducerEpoch::new(3) };
            let mut out = BytesMut::new();
            frame::encode_response(head.correlation_id, &identity, &mut out).unwrap();
            return Some(out);
        }
        let records = records_in(&head, &body);
        let (_, section) = ProduceHead::decode_head(&body, head.body_bytes).unwrap().unwrap();
        seen.lock().unwrap().push(body[section..].to_vec());
        Some(testing::produced(head.correlation_id, records, ErrorCode::None))
    })
}

#[test]
fn an_open_loop_sends_when_it_is_due_and_counts_from_then() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let peer = keeping(&seen);
    let batch = Volume { records: 10, bytes: 1 };
    // A batch every 5 ms, of which this producer sends every other.
    let schedule = Some(Schedule::new(Rate::Records(2000), batch, 1, 2));
    let progress = Progress::start();
    let stamps = Some(Stamping { producer: 5, epoch: progress.started() });
    let mut producer = producer(&peer, Sending { in_flight: 4, schedule, stamps, ..CLOSED });
    let plan = producer.plan(Extent::Time(Duration::from_millis(50)));
    let (sent, failure) = producer.produce(plan, &progress);
    assert!(failure.is_none(), "{failure:?}");
    // At 5, 15, 25, 35 and 45 ms.
    assert_eq!((sent.records, progress.done()), (50, sent));
    assert!(progress.started().elapsed() >= Duration::from_millis(45));
    assert_eq!(producer.acknowledged().collect::<Vec<_>>(), [(PartitionIndex::new(0), 50)]);
    let position = BATCH_HEADER_BYTES + producer.stamp_position();
    for (number, batch) in seen.lock().unwrap().iter().enumerate() {
        let stamp = Stamp::decode(batch[position..position + STAMP_BYTES].try_into().unwrap());
        let due = Duration::from_millis(5 + 10 * number as u64);
        assert_eq!(stamp, Stamp { producer: 5, number: number as u64, due });
    }
}

#[test]
fn a_stall_counts_for_every_batch_that_was_due_meanwhile() {
    let mut stalled = false;
    let peer = Peer::answering(move |head, body| {
        if !std::mem::replace(&mut stalled, true) {
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(testing::produced(head.correlation_id, records_in(&head, &body), ErrorCode::None))
    });
    // A batch every 10 ms, one in flight: the ones due at 10, 20 ... 90 ms are sent behind the stall.
    let schedule = Some(Schedule::new(Rate::Records(1000), Volume { records: 10, bytes: 1 }, 0, 1));
    let mut producer = producer(&peer, Sending { schedule, ..CLOSED });
    let plan = producer.plan(Extent::Records(95));
    let (sent, failure) = producer.produce(plan, &Progress::start());
    assert!(failure.is_none() && sent.records == 95, "{sent:?} {failure:?}");
    // A closed loop would have one long request and nine short ones: a median of microseconds.
    let found = producer.latencies().summary();
    assert!(found.p50 >= 40_000.0 && found.max >= 100_000.0, "{found:?}");
}

#[test]
fn an_idempotent_producer_gives_its_batches_sequences() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let peer = keeping(&seen);
    let mut producer = producer(&peer, Sending { idempotent: true, in_flight: 3, ..CLOSED });
    let plan = producer.warm_up_plan(Extent::Records(15));
    assert_eq!(producer.produce(plan, &Progress::start()).0.records, 20);
    let plan = producer.plan(Extent::Records(95));
    assert_eq!(producer.produce(plan, &Progress::start()).0.records, 95);
    let mut next = 0;
    for batch in seen.lock().unwrap().iter() {
        let header = BatchHeader::decode(batch).unwrap();
        let found = header.producer().unwrap().unwrap();
        assert_eq!((found.id.get(), found.epoch.get(), found.base_sequence.get()), (77, 3, next));
        next += i32::try_from(header.record_count).unwrap();
    }
    assert_eq!(next, 115);
}
