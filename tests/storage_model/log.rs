//! One partition's log in the broker's memory.

use crate::disk::{Batch, Frame, Generation, Offset, Record, Sequence};
use crate::journal::Journal;
use crate::rules::{Rule, Rules};

/// Frames of one log that the kernel may have at a time.
const FRAMES_IN_FLIGHT_MAX: usize = 2;

/// A batch that is not yet below the end of the durable frames.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Staged {
    pub(crate) batch: Batch,
    /// The block of this life that carries it.
    pub(crate) block: Option<Sequence>,
    /// A frame that carries it was given to the kernel.
    pub(crate) framed: bool,
}

impl Staged {
    pub(crate) fn new(batch: Batch) -> Self {
        Self { batch, block: None, framed: false }
    }
}

/// How far a frame has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Progress {
    InKernel,
    Written,
    Flushed,
}

/// A frame that is not yet below the end of the durable frames.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    pub(crate) place: usize,
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    pub(crate) progress: Progress,
}

/// Whether a life of the broker serves a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Standing {
    #[default]
    Available,
    /// Deleted, or not in this life's copy of the metadata.
    Absent,
    /// A write or a flush failed. The next life looks again.
    Failed,
    /// Recovery found less than was acknowledged.
    Corrupt,
}

/// A log, from the end of its durable frames on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    pub(crate) standing: Standing,
    /// The next offset to be given.
    pub(crate) end: Offset,
    /// The end of the contiguous, durable frames: the S of the protocol's page.
    pub(crate) frames_end: Offset,
    pub(crate) staged: Vec<Staged>,
    pub(crate) flights: Vec<Flight>,
    /// The next frame's place.
    pub(crate) position: usize,
    pub(crate) generation: Generation,
    /// The generation was raised since the log was opened.
    pub(crate) raised: bool,
    /// What the journal holds of a log that takes no frames was put aside.
    pub(crate) kept_aside: bool,
    /// The producer's last append, to tell a retry by.
    pub(crate) stored: Option<Record>,
}

impl Log {
    pub(crate) fn is_available(&self) -> bool {
        self.standing == Standing::Available
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.standing == Standing::Absent
    }

    pub(crate) fn is_corrupt(&self) -> bool {
        self.standing == Standing::Corrupt
    }

    /// The durable offset: the contiguous frames, and what the journal holds from there on.
    pub(crate) fn durable(&self, journal: &Journal, rules: Rules) -> Offset {
        let mut durable = self.frames_end;
        for staged in &self.staged {
            let journaled = staged.block.is_some_and(|block| journal.is_durable(block, rules));
            // Without rule 1, a frame that is durable counts wherever it stands.
            let in_a_durable_frame = || {
                let has = |flight: &&Flight| flight.base <= staged.batch.base && staged.batch.next <= flight.next;
                self.flights.iter().filter(has).any(|flight| flight.progress == Progress::Flushed)
            };
            if !journaled && (rules.hold(Rule::DurableIsContiguous) || !in_a_durable_frame()) {
                break;
            }
            durable = staged.batch.next;
        }
        durable
    }

    /// Batches that no frame was built of.
    pub(crate) fn unframed(&self) -> usize {
        self.staged.iter().filter(|staged| !staged.framed).count()
    }

    /// Whether one batch more could still be put into a frame if each took a frame of its own.
    pub(crate) fn has_room(&self, places: usize) -> bool {
        self.position + self.unframed() < places
    }

    /// Whether a frame may be given to the kernel.
    pub(crate) fn may_write_frame(&self, places: usize, segment: usize, rules: Rules) -> bool {
        let begins_segment = self.position.is_multiple_of(segment);
        self.is_available()
            && self.position < places
            && self.frames_in(Progress::InKernel).count() < FRAMES_IN_FLIGHT_MAX
            && (!begins_segment || self.flights.is_empty() || !rules.hold(Rule::SegmentsInOrder))
    }

    /// The frames that have come so far.
    pub(crate) fn frames_in(&self, progress: Progress) -> impl Iterator<Item = &Flight> {
        self.flights.iter().filter(move |flight| flight.progress == progress)
    }

    /// The producer's append `record` takes the next offsets.
    pub(crate) fn stage(&mut self, width: Offset, record: Record) {
        let batch = Batch { base: self.end, next: self.end + width, record, generation: self.generation };
        self.end = batch.next;
        self.stored = self.stored.max(Some(record));
        self.staged.push(Staged::new(batch));
    }

    /// Builds the next frame, of all that is staged and in no frame yet, as far as it is of one generation.
    pub(crate) fn build_frame(&mut self, durable: Offset) -> Frame {
        let mut batches: Vec<Batch> = Vec::new();
        for staged in self.staged.iter_mut().filter(|staged| !staged.framed) {
            if batches.last().is_some_and(|batch| batch.generation != staged.batch.generation) {
                break;
            }
            staged.framed = true;
            batches.push(staged.batch);
        }
        let generation = batches.last().map_or(self.generation, |batch| batch.generation);
        let frames_end = self.frames_end;
        let frame = Frame { generation, batches, durable, frames_end, places: 1, forged: false };
        let (place, base, next) = (self.position, frame.base(), frame.next());
        self.flights.push(Flight { place, base, next, progress: Progress::InKernel });
        self.position += 1;
        frame
    }

    /// The frame at `place` is written.
    pub(crate) fn frame_written(&mut self, place: usize) {
        let flight = self.flights.iter_mut().find(|flight| flight.place == place);
        flight.into_iter().for_each(|flight| flight.progress = Progress::Written);
    }

    /// A flush of the segment returned. It covers what was written before it began.
    pub(crate) fn flushed(&mut self) {
        let written = self.flights.iter_mut().filter(|flight| flight.progress == Progress::Written);
        written.for_each(|flight| flight.progress = Progress::Flushed);
        let follows = |end| move |flight: &Flight| flight.progress == Progress::Flushed && flight.base == end;
        while let Some(index) = self.flights.iter().position(follows(self.frames_end)) {
            self.frames_end = self.flights.remove(index).next;
        }
    }

    /// Forgets what durable frames have, once it was answered.
    pub(crate) fn release(&mut self) {
        self.staged.retain(|staged| staged.batch.next > self.frames_end);
    }

    /// Takes no more appends; what the kernel still has stays with the kernel.
    pub(crate) fn take_offline(&mut self, standing: Standing) {
        self.standing = standing;
        self.kept_aside = false;
        self.flights.clear();
    }
}
