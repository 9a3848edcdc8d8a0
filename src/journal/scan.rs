//! Which blocks can be read in a file, whatever bytes it holds.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::block::{BLOCK_BYTES_MAX, BlockHeader, BlockView, Entries, Entry, LogEnd};
use crate::chain::{FoundBlocks, FoundEntry, count};
use crate::name::RingName;
use crate::number::{BlockNumber, RingNumber, UNIT_BYTES, UNIT_BYTES_U64};
use crate::recovery::FoundRing;

/// The numbers that blocks have by their place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Places {
    /// A ring of that many units, written in a circle.
    Ring { units: u64 },
    /// A copy of that many units of a ring, from a number on.
    Aside { first: BlockNumber, units: u64 },
}

impl Places {
    pub(crate) fn units(self) -> u64 {
        match self {
            Places::Ring { units } | Places::Aside { units, .. } => units,
        }
    }

    fn has(self, header: &BlockHeader, unit: u64) -> bool {
        let fits = unit.checked_add(header.units.into()).is_some_and(|end| end <= self.units());
        fits && match self {
            Places::Ring { units } => header.number.0 % units == unit,
            Places::Aside { first, .. } => first.0.checked_add(unit) == Some(header.number.0),
        }
    }
}

/// A block that could be read, in memory of its own.
#[derive(Clone, Debug)]
pub(crate) struct ReadableBlock {
    pub(crate) header: BlockHeader,
    pub(crate) checksum: u32,
    pub(crate) ends_before: Vec<LogEnd>,
    pub(crate) entries: Vec<FoundEntry>,
}

impl ReadableBlock {
    /// Number and checksum of the block before.
    pub(crate) fn previous(&self) -> (BlockNumber, u32) {
        (self.header.previous, self.header.previous_checksum)
    }

    fn copied(view: &BlockView<'_>) -> ReadableBlock {
        let block = view.header.number;
        let memory = Bytes::copy_from_slice(view.entry_bytes());
        let found =
            |entry: Entry<'_>| FoundEntry { block, header: entry.header, payload: memory.slice_ref(entry.payload) };
        let entries = Entries::new(&memory).map(found).collect();
        ReadableBlock { header: view.header, checksum: view.checksum, ends_before: view.ends().collect(), entries }
    }
}

/// Reads a file in pieces, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Scan {
    ring: RingNumber,
    places: Places,
    /// The next unit to look at.
    unit: u64,
    blocks: BTreeMap<BlockNumber, ReadableBlock>,
}

impl Scan {
    pub(crate) fn new(ring: RingNumber, places: Places) -> Scan {
        Scan { ring, places, unit: 0, blocks: BTreeMap::new() }
    }

    /// Where the next piece begins, in bytes; `None` at the end.
    pub(crate) fn position(&self) -> Option<u64> {
        (self.unit < self.places.units()).then_some(self.unit * UNIT_BYTES_U64)
    }

    /// Looks at what stands from [`Scan::position`] on. `piece` is longer than a block can be, or reaches the end of
    /// the file. Goes on to where a block might not be in the piece as a whole.
    pub(crate) fn look_at(&mut self, piece: &[u8]) {
        let reaches_end = self.unit.saturating_add(piece.len().div_ceil(UNIT_BYTES) as u64) >= self.places.units();
        let mut rest = piece;
        while rest.len() >= UNIT_BYTES && (reaches_end || rest.len() >= BLOCK_BYTES_MAX) {
            let units = self.block_at(rest).unwrap_or(1);
            rest = rest.get(units as usize * UNIT_BYTES..).unwrap_or_default();
            self.unit += u64::from(units);
        }
        if reaches_end {
            // The end of a file that was cut is no unit.
            self.unit = self.places.units();
        }
    }

    /// Takes the block at the beginning of `bytes`, and gives its length in units.
    fn block_at(&mut self, bytes: &[u8]) -> Option<u32> {
        let view = BlockView::decode(bytes, self.ring)?;
        if !self.places.has(&view.header, self.unit) {
            return None;
        }
        self.blocks.insert(view.header.number, ReadableBlock::copied(&view));
        Some(view.header.units)
    }

    /// What a ring's file says.
    pub(crate) fn into_ring(self, name: RingName) -> FoundRing {
        let bytes = self.places.units() * UNIT_BYTES_U64;
        // Each is true by itself, whatever became of the block that says it.
        let floor = self.blocks.values().map(|block| block.header.floor).max().unwrap_or(BlockNumber::FIRST);
        let proven = self.blocks.values().map(|block| block.header.durable_through).max().unwrap_or(floor);
        let counted = count(self.blocks, floor, proven);
        FoundRing { name, bytes, floor, next: counted.next, blocks: counted.blocks }
    }

    /// What an aside file says: all of it is proven.
    pub(crate) fn into_aside(self, first: BlockNumber) -> FoundBlocks {
        let end = first.plus(self.places.units());
        count(self.blocks, first, end).blocks
    }
}

/// What the bytes of a whole ring say: what [`read_journals`](crate::read_journals) does with a file, without one. Any
/// bytes will do; what is no block that counts is passed over.
#[must_use]
pub fn decode_ring(name: RingName, bytes: &[u8]) -> FoundRing {
    let units = (bytes.len() / UNIT_BYTES) as u64;
    let mut scan = Scan::new(name.number, Places::Ring { units });
    if units > 0 {
        scan.look_at(bytes);
    }
    scan.into_ring(name)
}
