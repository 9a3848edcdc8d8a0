//! The bookkeeping of a ring in use: numbers, space, what is in flight, what is durable, what is free. No I/O.
//!
//! ```text
//!        floor                          durable through      next
//!          │                                   │               │
//!   free   │ needed                            │ in flight     │ free, the last part of it reserved
//! ```

use std::collections::VecDeque;

use ringmq_runtime::seeded_bug::SeededBug;

use crate::block::{BlockHeader, Ends, Entry, HEADER_BYTES};
use crate::config::JournalConfig;
use crate::name::{Flushing, RingName};
use crate::number::{BlockNumber, Geometry, RingNumber, UNIT_BYTES};

/// A ring in use. `C` is what the caller gives with a block, and gets back.
#[derive(Debug)]
pub(crate) struct Ledger<C> {
    ring: RingNumber,
    geometry: Geometry,
    reserved_units: u64,
    in_flight_max: usize,
    flushing: Flushing,
    /// The number of the next block.
    next: BlockNumber,
    /// Number and checksum of the newest block of this life.
    newest: Option<(BlockNumber, u32)>,
    /// The ends of the newest block, which the next one repeats.
    newest_ends: Ends,
    /// Those not yet acknowledged, in order.
    in_flight: VecDeque<InFlight<C>>,
    /// So many of these, the first ones, are written, and the caller was told.
    told_written: usize,
    /// Blocks below were written before a flush that is done.
    flushed_through: BlockNumber,
    /// All blocks below are durable.
    durable_through: BlockNumber,
    /// What the caller no longer needs.
    floor: BlockNumber,
    /// The floor that the newest block carries.
    announced_floor: BlockNumber,
    /// The floor that a durable block carries: what stands below may be written over.
    durable_floor: BlockNumber,
}

#[derive(Debug)]
struct InFlight<C> {
    header: BlockHeader,
    landed: bool,
    /// `None`: a block without entries.
    cargo: Option<C>,
}

impl<C> Ledger<C> {
    /// A life that goes on with `first`. All that was in the ring before is free as soon as the first block is durable.
    pub(crate) fn new(ring: RingName, config: &JournalConfig, first: BlockNumber) -> Ledger<C> {
        Ledger {
            ring: ring.number,
            geometry: config.geometry(),
            reserved_units: config.reserved_units(),
            in_flight_max: config.blocks_in_flight_max,
            flushing: ring.flushing,
            next: first,
            newest: None,
            newest_ends: Ends::default(),
            in_flight: VecDeque::new(),
            told_written: 0,
            flushed_through: first,
            durable_through: first,
            floor: first,
            announced_floor: first,
            durable_floor: first,
        }
    }

    pub(crate) fn next(&self) -> BlockNumber {
        self.next
    }

    pub(crate) fn durable_through(&self) -> BlockNumber {
        self.durable_through
    }

    pub(crate) fn floor(&self) -> BlockNumber {
        self.floor
    }

    /// Units that are not free, or not yet known to be.
    pub(crate) fn used_units(&self) -> u64 {
        self.next.units_since(self.durable_floor)
    }

    fn free_units(&self) -> u64 {
        self.geometry.units - self.used_units()
    }

    /// Units that may be used for anything.
    fn spare_units(&self) -> u64 {
        self.free_units().saturating_sub(self.reserved_units)
    }

    /// Whether the kernel may be given another block. What landed out of order counts until it is acknowledged, and what
    /// only waits for a flush does not.
    fn may_launch(&self) -> bool {
        self.in_flight.len() - self.told_written < self.in_flight_max
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether a block is on its way to the page cache.
    pub(crate) fn is_being_written(&self) -> bool {
        self.told_written < self.in_flight.len()
    }

    /// Bytes of entries that the next block can take; `None` when it cannot be written now.
    pub(crate) fn room(&self) -> Option<usize> {
        let units = self.content_units_max().filter(|_| self.may_launch())?;
        (units * UNIT_BYTES).checked_sub(HEADER_BYTES + self.newest_ends.encoded_bytes())
    }

    /// The longest content that still fits when it is lengthened to the end of the file.
    fn content_units_max(&self) -> Option<usize> {
        let spare = self.spare_units();
        let most = spare.min(self.geometry.block_units_max);
        let units = if self.geometry.lengthened(self.next, most) <= spare {
            most
        } else {
            most.min(self.geometry.units_not_lengthened(self.next))
        };
        usize::try_from(units).ok().filter(|units| *units > 0)
    }

    /// The header of the next block, with that many bytes of entries.
    pub(crate) fn header(&self, entry_bytes: usize) -> BlockHeader {
        let content = (HEADER_BYTES + self.newest_ends.encoded_bytes() + entry_bytes).div_ceil(UNIT_BYTES) as u64;
        let units = self.geometry.lengthened(self.next, content);
        debug_assert!(units <= self.free_units(), "{units} units at {} with {} free", self.next, self.free_units());
        let (previous, previous_checksum) = self.newest.unwrap_or((self.next, 0));
        BlockHeader {
            ring: self.ring,
            number: self.next,
            previous,
            previous_checksum,
            floor: self.floor,
            durable_through: self.durable_through,
            units: u32::try_from(units).expect("the longest block, twice at most"),
        }
    }

    /// The ends that the next block repeats.
    pub(crate) fn ends_before(&self) -> &Ends {
        &self.newest_ends
    }

    /// Where the block stands in the file, in bytes.
    pub(crate) fn position(&self, number: BlockNumber) -> u64 {
        self.geometry.position(number)
    }

    /// The block with that header and checksum goes to the device.
    pub(crate) fn launch(&mut self, header: BlockHeader, checksum: u32, entries: &[Entry<'_>], cargo: Option<C>) {
        debug_assert_eq!(header.number, self.next);
        self.newest = Some((header.number, checksum));
        self.newest_ends.replace(entries);
        self.next = header.end();
        self.announced_floor = header.floor;
        self.in_flight.push_back(InFlight { header, landed: false, cargo });
    }

    /// The write of a block is complete, which with `O_DSYNC` means durable.
    pub(crate) fn land(&mut self, number: BlockNumber) {
        if let Ok(at) = self.in_flight.binary_search_by_key(&number, |block| block.header.number) {
            self.in_flight[at].landed = true;
        }
    }

    /// The cargo of the next block that is written as all before it are; of a relaxed ring. It comes again when the
    /// block is acknowledged.
    pub(crate) fn next_written(&mut self) -> Option<Option<C>>
    where
        C: Clone,
    {
        let relaxed = self.flushing == Flushing::Relaxed;
        let block = self.in_flight.get(self.told_written).filter(|block| relaxed && block.landed)?;
        self.told_written += 1;
        Some(block.cargo.clone())
    }

    /// What a flush that begins now makes durable: the blocks below. `None` if there is none that is not durable.
    pub(crate) fn unflushed(&self) -> Option<BlockNumber> {
        let last = self.told_written.checked_sub(1).and_then(|last| self.in_flight.get(last))?;
        Some(last.header.end())
    }

    /// Units that are written, and not durable.
    pub(crate) fn unflushed_units(&self) -> u64 {
        self.unflushed().map_or(0, |end| end.units_since(self.durable_through))
    }

    /// A flush is done, and made durable what was written below.
    pub(crate) fn flushed(&mut self, through: BlockNumber) {
        self.flushed_through = through;
    }

    /// The next block to be acknowledged, in order (rule 3 of the storage protocol), if it is durable.
    pub(crate) fn acknowledge(&mut self) -> Option<(BlockNumber, Option<C>)> {
        let (relaxed, flushed_through) = (self.flushing == Flushing::Relaxed, self.flushed_through);
        let overtaken = SeededBug::AcknowledgeOvertaken.is_in() && self.in_flight.iter().any(|block| block.landed);
        let has_landed = |block: &InFlight<C>| block.landed || overtaken;
        let is_durable =
            |block: &mut InFlight<C>| has_landed(block) && (!relaxed || block.header.number < flushed_through);
        let InFlight { header, cargo, .. } = self.in_flight.pop_front_if(is_durable)?;
        self.told_written = self.told_written.saturating_sub(1);
        self.durable_through = header.end();
        self.durable_floor = header.floor;
        Some((header.number, cargo))
    }

    /// Gives up what is in flight, in order.
    pub(crate) fn give_up(&mut self) -> Vec<C> {
        self.told_written = 0;
        self.in_flight.drain(..).filter_map(|block| block.cargo).collect()
    }

    /// Blocks below are not needed any more. The floor never falls.
    pub(crate) fn free_below(&mut self, number: BlockNumber) {
        self.floor = number.clamp(self.floor, self.next.max(self.floor));
    }

    /// Whether a block without entries is worth while because it frees others: where the next block with entries might
    /// not fit otherwise, and no higher floor is on its way.
    pub(crate) fn must_raise_floor(&self) -> bool {
        self.is_short()
            && self.floor > self.announced_floor
            && self.announced_floor == self.durable_floor
            && self.may_launch()
    }

    /// Whether the next block with entries might not fit.
    pub(crate) fn is_short(&self) -> bool {
        self.spare_units() < 2 * self.geometry.block_units_max
    }

    /// Whether blocks should be freed soon: less than a quarter of what blocks with entries may use is left, or less than
    /// three of the longest blocks. What is left takes up what comes until they are.
    pub(crate) fn is_filling(&self) -> bool {
        let usable = self.geometry.units - self.reserved_units;
        let left = usable.saturating_sub(self.used_units());
        left < (usable / 4).max(3 * self.geometry.block_units_max)
    }

    /// Whether blocks are free and no block says so.
    pub(crate) fn is_floor_unannounced(&self) -> bool {
        self.floor > self.announced_floor
    }

    /// Whether the newest block has entries, and so no other one proves them.
    pub(crate) fn is_open(&self) -> bool {
        !self.newest_ends.is_empty()
    }

    /// Whether a block without entries may be written to prove the newest one: it is durable, and there is space that
    /// is not kept for raising the floor.
    pub(crate) fn may_prove_newest(&self) -> bool {
        self.is_open() && !self.is_in_flight() && u64::from(self.header(0).units) <= self.spare_units()
    }
}

#[cfg(test)]
mod tests;
