//! What is on the disk: the frames and facts of each log, and the journal's ring.

use std::sync::Arc;

use crate::place::Place;

/// An offset of a log.
pub(crate) type Offset = usize;
/// A log of the core, from 0.
pub(crate) type Partition = usize;
/// A batch's content: the number of the append to its partition, as a producer counts.
pub(crate) type Record = usize;
/// The number of a log's generation; 0 is the one that a new log begins with.
pub(crate) type Generation = usize;
/// The number of a journal block.
pub(crate) type Sequence = usize;

/// A record batch at its offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    pub(crate) record: Record,
    /// The generation under which it was appended. It stays when recovery writes the batch anew.
    pub(crate) generation: Generation,
}

/// What one write puts into a segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Frame {
    /// The one of all its batches.
    pub(crate) generation: Generation,
    pub(crate) batches: Vec<Batch>,
    /// The durable offset when the frame was built.
    pub(crate) durable: Offset,
    /// The end of the durable frames when it was built. It is its own evidence, because the journal may still hold what
    /// a rotten frame had: `durable` is then reached all the same, and what only the frames behind it had would be cut.
    pub(crate) frames_end: Offset,
    /// How many places it fills: what stands in the second one is payload.
    pub(crate) places: usize,
    /// A client's payload that looks like a frame, but for the log's number.
    pub(crate) forged: bool,
}

impl Frame {
    pub(crate) fn base(&self) -> Offset {
        self.batches.first().map_or(0, |batch| batch.base)
    }

    pub(crate) fn next(&self) -> Offset {
        self.batches.last().map_or(0, |batch| batch.next)
    }
}

/// One batch in a journal block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) partition: Partition,
    pub(crate) batch: Batch,
    /// The end of the partition's durable frames when the block was built.
    pub(crate) frames_end: Offset,
}

/// How far the entries of a block take a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct End {
    pub(crate) partition: Partition,
    pub(crate) generation: Generation,
    pub(crate) offset: Offset,
}

/// What one write puts into the journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Block {
    /// One more than that of the block before; it says where in the ring the block stands. Never used again, but for
    /// that of a block that no recovery could count.
    pub(crate) sequence: Sequence,
    /// Blocks below are free: frames have what they hold.
    pub(crate) floor: Sequence,
    /// Blocks below were durable when this one was built.
    pub(crate) durable_through: Sequence,
    pub(crate) entries: Vec<Entry>,
    /// The ends of the block before.
    pub(crate) ends_before: Vec<End>,
}

/// What the disk holds of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Files {
    /// The places of the frames, over all segments.
    pub(crate) frames: Vec<Place<Frame>>,
    /// From where on each generation owns the log, by its number. All below was durable then.
    pub(crate) generations: Vec<Offset>,
    /// The log start offset.
    pub(crate) start: Offset,
    /// The metadata log says that the topic was deleted.
    pub(crate) deleted: bool,
    /// A recovery found the log corrupt. What told it so may be gone.
    pub(crate) corrupt: bool,
    /// Batches from the journal that could not be put into frames.
    pub(crate) aside: Vec<Batch>,
    /// The state of the partition's producer: the end that it covers, and the last append stored below.
    pub(crate) snapshot: Option<(Offset, Record)>,
}

impl Files {
    /// Up to where the log is that of `generation`: the lowest start of a later one.
    pub(crate) fn owned_end(&self, generation: Generation) -> Offset {
        self.generations.iter().skip(generation + 1).copied().min().unwrap_or(Offset::MAX)
    }

    /// Whether the log still has `batch`, as far as generations tell.
    pub(crate) fn owns(&self, batch: &Batch) -> bool {
        batch.next <= self.owned_end(batch.generation)
    }

    /// What reads of the frames' places return.
    pub(crate) fn frames_read(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter_map(|place| place.live.as_deref())
    }

    /// Frames that every later life will read.
    pub(crate) fn frames_certain(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter_map(Place::certain)
    }
}

/// The disk below one core: its partitions' files and its journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) files: Vec<Files>,
    pub(crate) ring: Vec<Place<Block>>,
    /// Writes of killed processes that may land at any time.
    pub(crate) late: Vec<LateWrite>,
}

/// A write that outlived its process, and its place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LateWrite {
    Frame(Partition, usize, Arc<Frame>),
    Block(usize, Arc<Block>),
}

impl Disk {
    pub(crate) fn new(partitions: usize, places: usize, blocks: usize) -> Self {
        let files = Files { frames: vec![Place::default(); places], generations: vec![0], ..Files::default() };
        Self { files: vec![files; partitions], ring: vec![Place::default(); blocks], late: Vec::new() }
    }

    /// What reads of the ring's places return.
    pub(crate) fn blocks_read(&self) -> impl Iterator<Item = &Block> {
        self.ring.iter().filter_map(|place| place.live.as_deref())
    }

    /// Blocks that every later life will read, as long as nothing is written over them.
    pub(crate) fn blocks_certain(&self) -> impl Iterator<Item = &Block> {
        self.ring.iter().filter_map(Place::certain)
    }

    /// The ring's places with a write in flight.
    pub(crate) fn blocks_in_flight(&self) -> impl Iterator<Item = usize> {
        (0..self.ring.len()).filter(|place| self.ring[*place].in_flight.is_some())
    }

    /// How many different disks a loss of power may leave.
    pub(crate) fn power_losses(&self) -> usize {
        let frames: usize = self.frames().map(|place| place.after_power_loss().len()).product();
        frames * self.ring.iter().map(|place| place.after_power_loss().len()).product::<usize>()
    }

    /// Leaves the one of that number.
    pub(crate) fn lose_power(&mut self, mut number: usize) {
        self.late.clear();
        self.frames_mut().for_each(|place| *place = pick(place.after_power_loss(), &mut number));
        self.ring.iter_mut().for_each(|place| *place = pick(place.after_power_loss(), &mut number));
    }

    /// In how many ways the writes in flight may end when their process does.
    pub(crate) fn kills(&self) -> usize {
        let frames: usize = self.frames().map(|place| place.after_kill().len()).product();
        frames * self.ring.iter().map(|place| place.after_kill().len()).product::<usize>()
    }

    /// Ends them in the way of that number.
    pub(crate) fn end_writes(&mut self, mut number: usize) {
        self.frames_mut().for_each(|place| *place = pick(place.after_kill(), &mut number));
        self.ring.iter_mut().for_each(|place| *place = pick(place.after_kill(), &mut number));
    }

    /// How many different disks a failed flush of a partition's segments may leave.
    pub(crate) fn failed_flushes(&self, partition: Partition) -> usize {
        self.files[partition].frames.iter().map(|place| place.after_failed_flush().len()).product()
    }

    /// Leaves the one of that number.
    pub(crate) fn fail_flush(&mut self, partition: Partition, mut number: usize) {
        let frames = &mut self.files[partition].frames;
        frames.iter_mut().for_each(|place| *place = pick(place.after_failed_flush(), &mut number));
    }

    /// Lets the writes in flight outlive their process.
    pub(crate) fn orphan_writes(&mut self) {
        for (partition, files) in self.files.iter_mut().enumerate() {
            for (place, frame) in files.frames.iter_mut().enumerate() {
                self.late.extend(frame.in_flight.take().map(|frame| LateWrite::Frame(partition, place, frame)));
            }
        }
        for (place, block) in self.ring.iter_mut().enumerate() {
            self.late.extend(block.in_flight.take().map(|block| LateWrite::Block(place, block)));
        }
    }

    /// One of the late writes lands, whatever stands in its place by now.
    pub(crate) fn land(&mut self, late: usize) {
        match self.late.remove(late) {
            LateWrite::Frame(partition, place, frame) => self.files[partition].frames[place].live = Some(frame),
            LateWrite::Block(place, block) => self.ring[place].live = Some(block),
        }
    }

    fn frames(&self) -> impl Iterator<Item = &Place<Frame>> {
        self.files.iter().flat_map(|files| &files.frames)
    }

    fn frames_mut(&mut self) -> impl Iterator<Item = &mut Place<Frame>> {
        self.files.iter_mut().flat_map(|files| &mut files.frames)
    }
}

/// Takes one of `choices` by the lowest digit of `number`.
fn pick<T>(mut choices: Vec<T>, number: &mut usize) -> T {
    let chosen = *number % choices.len();
    *number /= choices.len();
    choices.swap_remove(chosen)
}
