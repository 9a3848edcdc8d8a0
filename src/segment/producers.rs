//! What a log knows of idempotent producers, and what becomes of their appends (KIP-98, KIP-360).
//!
//! Pure: no clock, no disk. The rules are in `docs/formats/native-protocol.md`, "Idempotent producers".
//!
//! # Runs
//! A producer's sequences and the offsets of its records rise by one together while nobody else's records come between.
//! Such a row is a *run*; a producer's last [`RUNS_MAX`] runs are kept. An append is known when one run holds all of it,
//! and its offsets follow from its place in the run. Runs do not depend on how records were put into appends, so what is
//! read back from frames is the same as what was there before.

mod agreement;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use ringmq_wire::batch::{BatchHeader, BatchProducer};
use ringmq_wire::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

pub use self::agreement::SnapshotProducer;
pub use self::snapshot::{ProducerSnapshot, ProducerSnapshotError};

/// Runs that are kept of a producer: what one with five requests in flight, as Kafka's clients have, may send again.
pub(crate) const RUNS_MAX: usize = 5;
/// Producers that a log knows; the ones that were idle longest go first.
pub(crate) const PRODUCERS_MAX: usize = 10_000;
/// The longest run, and the longest append of a producer. Sequences wrap at 2³¹, so less than half of that tells before
/// from behind.
pub(crate) const RUN_RECORDS_MAX: u32 = 1 << 30;

/// What an idempotent producer says of an append of its own: records of one epoch with sequences that rise by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequenced {
    pub(crate) producer: BatchProducer,
    pub(crate) record_count: u32,
}

impl Sequenced {
    /// With one more batch; `None` when that does not go on where this ends, or it would be too long.
    pub(crate) fn with(self, producer: BatchProducer, record_count: u32) -> Option<Sequenced> {
        let next =
            BatchProducer { base_sequence: self.producer.base_sequence.advance(self.record_count), ..self.producer };
        let record_count = self.record_count.checked_add(record_count).filter(|count| *count <= RUN_RECORDS_MAX)?;
        (producer == next).then_some(Sequenced { record_count, ..self })
    }
}

/// What a log knows of an append of a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: it is to be stored.
    New,
    /// It has these offsets.
    Stored(Range<Offset>),
}

/// Why an append of a producer is not stored. It leaves no trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfSequence {
    /// Something before it is missing.
    #[error(
        "the records of producer {id} begin with sequence {got}, but {expected} is next: what it sent before them is not \
         stored, and neither are these. Send the missing ones first, or begin a new epoch"
    )]
    Gap {
        /// Who sent it.
        id: ProducerId,
        /// The sequence that would be next.
        expected: Sequence,
        /// The one that it begins with.
        got: Sequence,
    },
    /// It was stored, or a part of it, and where is not known any more.
    #[error(
        "the records of producer {id} begin with sequence {got}, and {expected} is next: they are stored already, in \
         part or so long ago that their offsets are not known any more. They are not stored again"
    )]
    Before {
        /// Who sent it.
        id: ProducerId,
        /// The sequence that would be next.
        expected: Sequence,
        /// The one that it begins with.
        got: Sequence,
    },
    /// The producer has begun a newer epoch.
    #[error(
        "the records are of epoch {epoch} of producer {id}, which has begun epoch {current} since; they are not stored. \
         A producer that is still in use takes a new producer id"
    )]
    OldEpoch {
        /// Who sent it.
        id: ProducerId,
        /// When.
        epoch: ProducerEpoch,
        /// Its epoch now.
        current: ProducerEpoch,
    },
}

/// A row of a producer's records, with sequences and offsets that both rise by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first_sequence: Sequence,
    /// 1 to [`RUN_RECORDS_MAX`].
    record_count: u32,
    base_offset: Offset,
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: ProducerEpoch,
    last_used: Timestamp,
    /// Of this epoch, oldest first; at least one.
    runs: Vec<Run>,
}

/// What a log knows of idempotent producers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers(BTreeMap<ProducerId, Producer>);

impl Run {
    fn of(appended: &Sequenced, base_offset: Offset) -> Run {
        let record_count = appended.record_count.min(RUN_RECORDS_MAX);
        Run { first_sequence: appended.producer.base_sequence, record_count, base_offset }
    }

    fn next_sequence(&self) -> Sequence {
        self.first_sequence.advance(self.record_count)
    }

    fn next_offset(&self) -> Offset {
        self.base_offset.checked_add(self.record_count.into()).unwrap_or(Offset::MAX)
    }

    /// Where these records are, if all of them are in the run.
    fn find(&self, appended: &Sequenced) -> Option<Range<Offset>> {
        let before = appended.producer.base_sequence.distance_from(self.first_sequence);
        let end = before.checked_add(appended.record_count).filter(|end| *end <= self.record_count)?;
        Some(self.base_offset.checked_add(before.into())?..self.base_offset.checked_add(end.into())?)
    }

    /// Forgets its first records.
    fn skip(&mut self, records: u32) {
        self.first_sequence = self.first_sequence.advance(records);
        self.base_offset = self.base_offset.checked_add(records.into()).unwrap_or(Offset::MAX);
        self.record_count -= records;
    }

    /// Whether anything of it lies below `end`; forgets the rest.
    fn cut(&mut self, end: Offset) -> bool {
        let below = u32::try_from(end.checked_sub(self.base_offset).unwrap_or(0)).unwrap_or(u32::MAX);
        self.record_count = self.record_count.min(below);
        self.record_count > 0
    }

    /// What of it lies at or behind `from`.
    fn from(mut self, from: Offset) -> Option<Run> {
        let below = u32::try_from(from.checked_sub(self.base_offset).unwrap_or(0)).unwrap_or(u32::MAX);
        if below >= self.record_count {
            return None;
        }
        self.skip(below);
        Some(self)
    }
}

impl Producer {
    fn next_sequence(&self) -> Sequence {
        self.runs.last().map_or(Sequence::ZERO, Run::next_sequence)
    }

    fn judge(&self, appended: &Sequenced) -> Result<Known, OutOfSequence> {
        let BatchProducer { id, epoch, base_sequence: got } = appended.producer;
        if epoch < self.epoch {
            return Err(OutOfSequence::OldEpoch { id, epoch, current: self.epoch });
        }
        if epoch > self.epoch {
            let expected = Sequence::ZERO;
            return if got == expected { Ok(Known::New) } else { Err(OutOfSequence::Gap { id, expected, got }) };
        }
        let expected = self.next_sequence();
        if got == expected {
            return Ok(Known::New);
        }
        if let Some(offsets) = self.runs.iter().rev().find_map(|run| run.find(appended)) {
            return Ok(Known::Stored(offsets));
        }
        let is_ahead = got.distance_from(expected) < RUN_RECORDS_MAX;
        Err(if is_ahead {
            OutOfSequence::Gap { id, expected, got }
        } else {
            OutOfSequence::Before { id, expected, got }
        })
    }

    fn push(&mut self, run: Run) {
        match self.runs.last_mut() {
            Some(last) if (last.next_sequence(), last.next_offset()) == (run.first_sequence, run.base_offset) => {
                let excess = (last.record_count + run.record_count).saturating_sub(RUN_RECORDS_MAX);
                last.skip(excess.min(last.record_count));
                last.record_count += run.record_count;
            }
            _ => {
                if self.runs.len() == RUNS_MAX {
                    self.runs.remove(0);
                }
                self.runs.push(run);
            }
        }
    }

    fn is_expired(&self, now: Timestamp, expiry: Duration) -> bool {
        let idle = now.get().saturating_sub(self.last_used.get());
        u128::from(idle.max(0).cast_unsigned()) >= expiry.as_millis()
    }
}

impl Producers {
    /// What is to be done with an append. A producer that was idle for `expiry` is as good as unknown, and what an
    /// unknown one sends is new, whatever its sequence (KIP-360): it may have been forgotten without its doing.
    ///
    /// # Errors
    /// When it must not be stored.
    pub(crate) fn judge(&self, appended: &Sequenced, now: Timestamp, expiry: Duration) -> Result<Known, OutOfSequence> {
        match self.0.get(&appended.producer.id) {
            Some(producer) if !producer.is_expired(now, expiry) => producer.judge(appended),
            _ => Ok(Known::New),
        }
    }

    /// The append got these offsets from `base_offset` on.
    pub(crate) fn stored(&mut self, appended: &Sequenced, base_offset: Offset, now: Timestamp) {
        let BatchProducer { id, epoch, .. } = appended.producer;
        self.learn(id, epoch, Run::of(appended, base_offset), now);
    }

    /// Adds what the batches of an append tell that carries its offsets.
    pub(crate) fn read(&mut self, mut batches: &[u8], written_at: Timestamp) {
        while let Ok(header) = BatchHeader::decode(batches) {
            self.read_batch(&header, written_at);
            batches = batches.get(header.size_bytes()..).unwrap_or_default();
        }
    }

    /// Adds what a batch tells that carries its offsets.
    pub(crate) fn read_batch(&mut self, header: &BatchHeader, written_at: Timestamp) {
        if let Ok(Some(producer)) = header.producer() {
            let record_count = header.last_offset_delta.saturating_add(1);
            self.stored(&Sequenced { producer, record_count }, header.base_offset, written_at);
        }
    }

    fn learn(&mut self, id: ProducerId, epoch: ProducerEpoch, run: Run, last_used: Timestamp) {
        if self.0.len() >= PRODUCERS_MAX && !self.0.contains_key(&id) {
            self.forget_the_most_idle();
        }
        let producer = self.0.entry(id).or_insert_with(|| Producer { epoch, last_used, runs: Vec::with_capacity(1) });
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.runs.clear();
        }
        producer.last_used = producer.last_used.max(last_used);
        producer.push(run);
    }

    /// An eighth of them, so that it need not be done again soon.
    pub(crate) fn forget_the_most_idle(&mut self) {
        let mut uses: Vec<Timestamp> = self.0.values().map(|producer| producer.last_used).collect();
        let mut left = uses.len().div_ceil(8);
        if left == 0 {
            return;
        }
        let (_, bound, _) = uses.select_nth_unstable(left - 1);
        let bound = *bound;
        // Several may have been used at the same time.
        self.0.retain(|_, producer| {
            let goes = left > 0 && producer.last_used <= bound;
            left -= usize::from(goes);
            !goes
        });
    }

    /// Forgets those that were idle for `expiry`.
    pub(crate) fn expire(&mut self, now: Timestamp, expiry: Duration) {
        self.0.retain(|_, producer| !producer.is_expired(now, expiry));
    }

    /// Forgets what is not below `end`. Runs that what is forgotten had pushed out do not come back: of a producer that is
    /// left with none nothing is known.
    pub(crate) fn cut(&mut self, end: Offset) {
        self.0.retain(|_, producer| {
            producer.runs.retain_mut(|run| run.cut(end));
            !producer.runs.is_empty()
        });
    }

    /// Adds what `later` knows of records at and behind `from`; this has what lies below.
    pub(crate) fn add(&mut self, later: &Producers, from: Offset) {
        for (id, producer) in &later.0 {
            for run in producer.runs.iter().filter_map(|run| run.from(from)) {
                self.learn(*id, producer.epoch, run, producer.last_used);
            }
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
