//! The core's journal in the broker's memory.

use crate::disk::{Block, End, Sequence};
use crate::rules::{Rule, Rules};

/// Journal blocks that the kernel may have at a time.
const BLOCKS_IN_FLIGHT_MAX: usize = 2;

/// The ring as one life of the broker goes on with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Journal {
    /// The first block of this life.
    pub(crate) first: Sequence,
    pub(crate) next: Sequence,
    /// All blocks below are durable.
    pub(crate) durable_through: Sequence,
    /// Blocks beyond that are durable.
    ahead: Vec<Sequence>,
    /// The highest floor that a durable block carries.
    pub(crate) durable_floor: Sequence,
    /// The highest floor that a block carries.
    announced_floor: Sequence,
    /// What the newest block has entries up to.
    newest_ends: Vec<End>,
    /// A write to it failed: it gets no more.
    pub(crate) failed: bool,
}

impl Journal {
    /// A ring of which this life writes the blocks from `first` on.
    pub(crate) fn new(first: Sequence) -> Self {
        Self {
            first,
            next: first,
            durable_through: first,
            ahead: Vec::new(),
            durable_floor: first,
            announced_floor: first,
            newest_ends: Vec::new(),
            failed: false,
        }
    }

    /// Whether what `block` holds may be acknowledged.
    pub(crate) fn is_durable(&self, block: Sequence, rules: Rules) -> bool {
        block < self.durable_through || (!rules.hold(Rule::BlocksInOrder) && self.ahead.contains(&block))
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.next - self.durable_through - self.ahead.len()
    }

    /// Whether the kernel takes another block.
    pub(crate) fn may_write(&self) -> bool {
        !self.failed && self.in_flight() < BLOCKS_IN_FLIGHT_MAX
    }

    /// Whether this life wrote a block of that number.
    pub(crate) fn wrote(&self, block: Sequence) -> bool {
        (self.first..self.next).contains(&block)
    }

    /// Blocks that no block has yet said to be free, with `floor` the first that is not.
    pub(crate) fn unannounced(&self, floor: Sequence) -> std::ops::Range<Sequence> {
        self.announced_floor..floor
    }

    /// Whether a block with entries came after the last one without.
    pub(crate) fn is_open(&self) -> bool {
        !self.newest_ends.is_empty()
    }

    /// Takes the next number; the block has these ends, and repeats those of the one before.
    pub(crate) fn push(&mut self, floor: Sequence, ends: Vec<End>) -> (Sequence, Vec<End>) {
        let sequence = self.next;
        self.next += 1;
        self.announced_floor = self.announced_floor.max(floor);
        (sequence, std::mem::replace(&mut self.newest_ends, ends))
    }

    /// The write of `block` is complete; with `O_DSYNC` that is durable.
    pub(crate) fn complete(&mut self, block: &Block) {
        self.ahead.push(block.sequence);
        self.ahead.sort_unstable();
        while self.ahead.first() == Some(&self.durable_through) {
            self.ahead.remove(0);
            self.durable_through += 1;
        }
        self.durable_floor = self.durable_floor.max(block.floor);
    }
}
