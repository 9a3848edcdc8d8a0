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

use super::outside::{Shared, acknowledge, batch_for, next_tag};
use super::support::batch;

/// Appends in flight at a time.
const IN_FLIGHT_MAX: usize = 4;

/// The producer of one partition, as it knows itself.
#[derive(Default)]
pub(super) struct Retrying {
    next_sequence: Sequence,
    /// Not answered with success, in order.
    pending: VecDeque<Sent>,
    /// The last one that was, and where it is. Where a log has none, it does not know the producer, and takes whatever comes
    /// first.
    answered: Option<(Sent, Appended)>,
    /// Of all that it sent.
    pub(super) tags: BTreeSet<u64>,
}

/// A batch as it was sent, and is sent again.
#[derive(Clone)]
struct Sent {
    tag: u64,
    records: u32,
    batch: Bytes,
}

/// A batch of [`batch`] of the producer with that id.
pub(super) fn sequenced(id: i64, sequence: Sequence, tag: u64, records: u32, value_bytes: usize) -> Append {
    let payload = Payload::Copied(sequenced_batch(id, sequence, &batch(tag, records, value_bytes)));
    Append::validated(payload, &BatchLimits::default()).expect("a sound batch")
}

fn sequenced_batch(id: i64, base_sequence: Sequence, batch: &[u8]) -> Bytes {
    let mut batch = batch.to_vec();
    set_producer(&mut batch, BatchProducer { id: ProducerId::new(id), epoch: ProducerEpoch::ZERO, base_sequence });
    Bytes::from(batch)
}

impl Sent {
    fn append(&self) -> Append {
        let append = Append::validated(Payload::Copied(self.batch.clone()), &BatchLimits::default());
        append.expect("a sound batch")
    }
}

/// Sends what is pending and more, some of it twice, and now and then what was answered already, until the log takes nothing
/// more.
pub(super) async fn write(outside: Shared, producer: Rc<RefCell<Retrying>>, partition: usize, log: Log) {
    loop {
        if random::u64().is_multiple_of(4) && send_again(&producer, &log).await.is_err() {
            return;
        }
        let in_flight_max = fill(&outside, &mut producer.borrow_mut(), partition, log.offsets().start);
        // Of several that are pending the log may refuse the first, on a full disk, and take the next.
        let sent: Vec<Sent> = producer.borrow().pending.iter().take(in_flight_max).cloned().collect();
        let mut under_way = Vec::new();
        for sent in sent {
            let first = log.append(sent.append());
            // Its answer is looked at before that of the original.
            if random::u64().is_multiple_of(3) {
                under_way.push((sent.clone(), log.append(sent.append())));
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
                    let first = producer.pending.pop_front();
                    assert_eq!(first.map(|first| first.tag), Some(sent.tag), "in order");
                    producer.answered = Some((sent, appended));
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

/// Sends again what was answered last, if the log has it still: also where compaction has replaced its records.
async fn send_again(producer: &RefCell<Retrying>, log: &Log) -> Result<(), Poisoned> {
    let answered = producer.borrow().answered.clone();
    let Some((sent, before)) = answered.filter(|(_, appended)| appended.base_offset >= log.offsets().start) else {
        return Ok(());
    };
    match log.append(sent.append()).await {
        Ok(appended) => assert_eq!(appended, before, "answered as the first time"),
        Err(AppendError::Poisoned(_)) => return Err(Poisoned),
        Err(error) => panic!("it is stored: {error}"),
    }
    Ok(())
}

/// The log takes nothing more.
struct Poisoned;

/// Adds to what is pending; returns how much of it may be sent at a time. Where the log may not know the producer it takes
/// whatever comes first.
fn fill(outside: &Shared, producer: &mut Retrying, partition: usize, start: Offset) -> usize {
    let is_known = producer.answered.as_ref().is_some_and(|(_, appended)| appended.base_offset >= start);
    let in_flight_max = if is_known { IN_FLIGHT_MAX } else { 1 };
    while producer.pending.len() < in_flight_max && !random::u64().is_multiple_of(4) {
        let (tag, records) = (next_tag(outside), 1 + u32::try_from(random::u64() % 3).expect("small"));
        let value_bytes = if random::u64().is_multiple_of(8) { 6_000 } else { 200 };
        let id = i64::try_from(partition).expect("small");
        let batch = batch_for(outside, partition, tag, records, value_bytes);
        let batch = sequenced_batch(id, producer.next_sequence, &batch);
        producer.next_sequence = producer.next_sequence.advance(records);
        producer.tags.insert(tag);
        producer.pending.push_back(Sent { tag, records, batch });
        outside.borrow_mut()[partition].sent.insert(tag, records);
    }
    in_flight_max
}
