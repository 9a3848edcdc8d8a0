//! What a snapshot says of producers, told one by one, and held against what frames say.

use std::ops::Range;

use ringmq_wire::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

use super::{PRODUCERS_MAX, Producer, ProducerSnapshot, Producers, Run};
use crate::layout::LogId;

/// What a snapshot says of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotProducer {
    /// Who it is.
    pub id: ProducerId,
    /// Its latest epoch.
    pub epoch: ProducerEpoch,
    /// When it last sent something, by the broker's clock.
    pub last_used: Timestamp,
    /// The sequence that it goes on with.
    pub next_sequence: Sequence,
    /// The last rows of records with sequences and offsets that both rise by one, oldest first: the first one's sequence,
    /// and the offsets.
    pub runs: Vec<(Sequence, Range<Offset>)>,
}

impl ProducerSnapshot {
    /// The partition that it is of.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.id
    }

    /// Which of the logs that ever had the name.
    #[must_use]
    pub fn log_number(&self) -> u64 {
        self.log_number.0
    }

    /// The log's when it was taken.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.0
    }

    /// What lies below is in it.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// By id.
    pub fn producers(&self) -> impl ExactSizeIterator<Item = SnapshotProducer> + '_ {
        self.producers.0.iter().map(|(id, producer)| {
            let Producer { epoch, last_used, runs } = producer;
            let run = |run: &Run| (run.first_sequence, run.base_offset..run.next_offset());
            SnapshotProducer {
                id: *id,
                epoch: *epoch,
                last_used: *last_used,
                next_sequence: producer.next_sequence(),
                runs: runs.iter().map(run).collect(),
            }
        })
    }
}

impl Producers {
    /// What this, the content of a snapshot, says otherwise than the frames below its offset do. They have all that was
    /// stored from `complete_from` on; what came before may be deleted, compacted or damaged. That this does not know a
    /// producer is nothing: it may have been idle for too long.
    pub(crate) fn contradiction(&self, frames: &Producers, complete_from: Offset) -> Option<String> {
        // Of so many the frames' own account has forgotten some.
        let forgetful = frames.0.len() >= PRODUCERS_MAX - PRODUCERS_MAX / 8;
        let complete_from = if forgetful { Offset::MAX } else { complete_from };
        self.0.iter().find_map(|(id, said)| {
            let found = frames.0.get(id);
            contradiction(said, found, complete_from).map(|what| format!("of producer {id} {what}"))
        })
    }
}

fn contradiction(said: &Producer, found: Option<&Producer>, complete_from: Offset) -> Option<String> {
    let (last, end) = (said.runs.last()?, said.next_sequence());
    let later = found.and_then(|found| Some((found, found.runs.last()?)));
    match later {
        Some((found, run)) if run.next_offset() > last.next_offset() => Some(format!(
            "it knows nothing behind offset {}, and frames have records of epoch {} up to {}",
            last.next_offset(),
            found.epoch,
            run.next_offset()
        )),
        Some((found, run)) if run.next_offset() == last.next_offset() => {
            let same = (found.epoch, found.next_sequence()) == (said.epoch, end);
            (!same).then(|| {
                format!(
                    "it says that epoch {} goes on with sequence {end}, and frames say epoch {} and sequence {}",
                    said.epoch,
                    found.epoch,
                    found.next_sequence()
                )
            })
        }
        _ if last.next_offset() > complete_from => {
            Some(format!("it has records up to offset {}, and no frame has them", last.next_offset()))
        }
        _ => None,
    }
}
