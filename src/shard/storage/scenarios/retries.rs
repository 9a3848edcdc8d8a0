//! A producer with an identity that outlives the broker, and sends again what was not answered.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmq_runtime::{random, time};
use ringmq_segment::{Append, AppendError, Appended, Log, OutOfSequence, Payload};
use ringmq_wire::batch::{BatchLimits, BatchProducer, set_producer};
use ringmq_wire::{Offset, ProducerEpoch, ProducerId, Sequence};

use super::outside::{Shared, acknowledge, next_tag};
use super::support::batch;

/// Appends in flight at a time.
const IN_FLIGHT_MAX: usize = 4;

/// The producer of one partition, as it knows itself.
#[derive(Default)]
pub(super) struct Retrying {
    next_sequence: Sequence,
    /// Not answered with success, in order.
    pending: VecDeque<Sent>,
    /// Where the last one is that was. Where a log has none, it does not know the producer, and takes whatever comes first.
    answered: Option<Offset>,
    /// Of all that it sent.
    pub(super) tags: BTreeSet<u64>,
}

#[derive(Clone)]
struct Sent {
    tag: u64,
    records: u32,
    batch: Bytes,
}

/// A batch of [`batch`] of the producer with that id.
pub(super) fn sequenced(id: i64, sequence: Sequence, tag: u64, records: u32, value_bytes: usize) -> Append {
    let payload = Payload::Copied(sequenced_batch(id, sequence, tag, records, value_bytes));
    Append::validated(payload, &BatchLimits::default()).expect("a sound batch")
}

fn sequenced_batch(id: i64, base_sequence: Sequence, tag: u64, records: u32, value_bytes: usize) -> Bytes {
    let mut batch = batch(tag, records, value_bytes).to_vec();
    set_producer(&mut batch, BatchProducer { id: ProducerId::new(id), epoch: ProducerEpoch::ZERO, base_sequence });
    Bytes::from(batch)
}

/// Sends what is pending and more, some of it twice, until the log takes nothing more.
pub(super) async fn write(outside: Shared, producer: Rc<RefCell<Retrying>>, partition: usize, log: Log) {
    loop {
        let in_flight_max = fill(&outside, &mut producer.borrow_mut(), partition, log.offsets().start);
        // Of several that are pending the log may refuse the first, on a full disk, and take the next.
        let sent: Vec<Sent> = producer.borrow().pending.iter().take(in_flight_max).cloned().collect();
        let mut under_way = Vec::new();
        for sent in sent {
            let append = || {
                let append = Append::validated(Payload::Copied(sent.batch.clone()), &BatchLimits::default());
                log.append(append.expect("a sound batch"))
            };
            let first = append();
            // Its answer is looked at before that of the original.
            if random::u64().is_multiple_of(3) {
                under_way.push((sent.clone(), append()));
            }
            under_way.push((sent, first));
        }
        let (mut refused, mut answered) = (false, None::<(u64, Appended)>);
        for (sent, appending) in under_way {
            match appending.await {
                Ok(appended) if answered.is_some_and(|(tag, _)| tag == sent.tag) => {
                    assert_eq!(answered, Some((sent.tag, appended)), "answered twice alike");
                }
                Ok(appended) => {
                    acknowledge(&outside, partition, sent.tag, sent.records, &log, appended);
                    answered = Some((sent.tag, appended));
                    let mut producer = producer.borrow_mut();
                    producer.answered = Some(appended.base_offset);
                    let first = producer.pending.pop_front();
                    assert_eq!(first.map(|first| first.tag), Some(sent.tag), "in order");
                }
                Err(AppendError::StorageFull(_) | AppendError::NotReady(_)) => refused = true,
                Err(AppendError::OutOfSequence(OutOfSequence::Gap { .. })) => assert!(refused, "nothing is missing"),
                // Whether it is stored is not known. The log takes nothing more in this life.
                Err(AppendError::Poisoned(_)) => return,
                Err(error) => panic!("nothing that leads to this was injected: {error}"),
            }
        }
        time::sleep(Duration::from_millis(random::u64() % 6)).await;
    }
}

/// Adds to what is pending; returns how much of it may be sent at a time. Where the log may not know the producer it takes
/// whatever comes first.
fn fill(outside: &Shared, producer: &mut Retrying, partition: usize, start: Offset) -> usize {
    let is_known = producer.answered.is_some_and(|answered| answered >= start);
    let in_flight_max = if is_known { IN_FLIGHT_MAX } else { 1 };
    while producer.pending.len() < in_flight_max && !random::u64().is_multiple_of(4) {
        let (tag, records) = (next_tag(outside), 1 + u32::try_from(random::u64() % 3).expect("small"));
        let value_bytes = if random::u64().is_multiple_of(8) { 6_000 } else { 200 };
        let id = i64::try_from(partition).expect("small");
        let batch = sequenced_batch(id, producer.next_sequence, tag, records, value_bytes);
        producer.next_sequence = producer.next_sequence.advance(records);
        producer.tags.insert(tag);
        producer.pending.push_back(Sent { tag, records, batch });
        outside.borrow_mut()[partition].sent.insert(tag, records);
    }
    in_flight_max
}
