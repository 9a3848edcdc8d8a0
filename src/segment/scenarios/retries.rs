//! A producer with an identity that outlives the broker, sends again what was not answered, and what was.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use ringmq_runtime::{random, time};
use ringmq_wire::batch::{BatchLimits, BatchProducer, set_producer};
use ringmq_wire::{Offset, ProducerEpoch, ProducerId, Sequence};

use super::support::*;
use crate::{Append, AppendError, Appended, Appending, FrameBuf, Log, OutOfSequence, Payload};

/// Appends in flight at a time.
const IN_FLIGHT_MAX: usize = 4;

/// The producer, as it knows itself.
pub(super) struct Retrying {
    id: ProducerId,
    epoch: ProducerEpoch,
    next_sequence: Sequence,
    /// Not answered with success, in order.
    pending: VecDeque<Sent>,
    /// The last one that was, and where it is.
    answered: Option<(Sent, Appended)>,
    /// Of all that it sent, in order.
    pub(super) tags: BTreeSet<u64>,
}

/// A batch as it was sent, and is sent again.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) tag: u64,
    pub(super) records: u32,
    batch: Bytes,
}

impl Sent {
    fn append(&self) -> Append {
        let payload = if random::u64() & 1 == 0 {
            Payload::Copied(self.batch.clone())
        } else {
            let mut frame = FrameBuf::with_payload_len(self.batch.len());
            frame.payload_mut().copy_from_slice(&self.batch);
            Payload::Frame(frame)
        };
        Append::validated(payload, &BatchLimits::default()).expect("a sound batch")
    }
}

/// A batch of [`batch`] with an identity.
pub(super) fn batch_of(producer: BatchProducer, tag: u64, records: u32, value_bytes: usize) -> Bytes {
    let mut batch = batch(tag, records, value_bytes).to_vec();
    set_producer(&mut batch, producer);
    Bytes::from(batch)
}

impl Retrying {
    pub(super) fn new(id: i64) -> Retrying {
        Retrying {
            id: ProducerId::new(id),
            epoch: ProducerEpoch::ZERO,
            next_sequence: Sequence::new(i32::MAX - 40),
            pending: VecDeque::new(),
            answered: None,
            tags: BTreeSet::new(),
        }
    }

    /// What is to be sent in this round: what is pending, and more.
    fn round(&mut self, start: Offset, begin: impl Fn(u32) -> u64) -> Vec<Sent> {
        if self.pending.is_empty() && self.answered.is_some() && random::u64().is_multiple_of(16) {
            self.epoch = self.epoch.next().expect("few");
            (self.next_sequence, self.answered) = (Sequence::ZERO, None);
        }
        // Where the log does not know the producer, not yet or because all of it is deleted, it takes whatever comes first.
        let is_known = self.answered.as_ref().is_some_and(|(_, appended)| appended.base_offset >= start);
        let in_flight_max = if is_known { IN_FLIGHT_MAX } else { 1 };
        while self.pending.len() < in_flight_max && !random::u64().is_multiple_of(4) {
            let records = 1 + u32::try_from(random::u64() % 4).expect("small");
            let tag = begin(records);
            let value_bytes = if random::u64().is_multiple_of(8) { 9_000 } else { 200 };
            let producer = BatchProducer { id: self.id, epoch: self.epoch, base_sequence: self.next_sequence };
            self.next_sequence = self.next_sequence.advance(records);
            self.tags.insert(tag);
            self.pending.push_back(Sent { tag, records, batch: batch_of(producer, tag, records, value_bytes) });
        }
        // Of several that are pending the log may refuse the first, on a full disk, and take the next.
        self.pending.iter().take(in_flight_max).cloned().collect()
    }

    fn answered(&mut self, sent: Sent, appended: Appended) {
        assert_eq!(self.pending.pop_front().map(|sent| sent.tag), Some(sent.tag), "in order");
        self.answered = Some((sent, appended));
    }
}

/// Sends what is pending, some of it twice, and now and then what was answered already. `begin` gives a new tag for so
/// many records, `acknowledge` is told of every answer.
pub(super) async fn write(
    log: Log,
    producer: Rc<RefCell<Retrying>>,
    begin: impl Fn(u32) -> u64,
    acknowledge: impl Fn(&Sent, Appended),
) {
    loop {
        let (sent, before) = {
            let mut producer = producer.borrow_mut();
            (producer.round(log.offsets().start, &begin), producer.answered.clone())
        };
        let mut under_way: Vec<(Sent, Appending, Option<Appending>)> = Vec::new();
        let is_there = |(_, appended): &(Sent, Appended)| appended.base_offset >= log.offsets().start;
        if let Some((again, appended)) = before.filter(is_there).filter(|_| random::u64().is_multiple_of(4)) {
            match log.append(again.append()).await {
                Ok(known) => assert_eq!(known, appended, "answered as the first time"),
                Err(AppendError::Poisoned(_)) => return,
                Err(error) => panic!("it is stored: {error}"),
            }
        }
        for sent in sent {
            let first = log.append(sent.append());
            let second = random::u64().is_multiple_of(3).then(|| log.append(sent.append()));
            under_way.push((sent, first, second));
        }
        let mut refused = false;
        for (sent, first, second) in under_way {
            let outcomes = [Some(first.await), if let Some(second) = second { Some(second.await) } else { None }];
            let mut stored = None;
            for outcome in outcomes.into_iter().flatten() {
                match outcome {
                    Ok(appended) => {
                        assert!(log.offsets().durable >= appended.next_offset, "answered is durable");
                        assert!(stored.is_none_or(|stored| stored == appended), "answered twice alike");
                        stored = Some(appended);
                    }
                    Err(AppendError::StorageFull(_) | AppendError::NotReady(_) | AppendError::Overloaded { .. }) => {
                        refused = true;
                    }
                    Err(AppendError::OutOfSequence(OutOfSequence::Gap { .. })) => {
                        assert!(refused, "something before it was refused");
                    }
                    // Whether it is stored is not known. The log takes nothing more in this life.
                    Err(AppendError::Poisoned(_)) => return,
                    Err(error) => panic!("nothing that leads to this was injected: {error}"),
                }
            }
            if let Some(appended) = stored {
                acknowledge(&sent, appended);
                producer.borrow_mut().answered(sent, appended);
            }
        }
        time::sleep(millis(random::u64() % 4)).await;
    }
}
