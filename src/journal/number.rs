//! The numbers of rings and blocks, and what they are counted in.

use std::fmt;

use ringmq_runtime::buffer::BLOCK_BYTES;

/// What rings, blocks and block numbers are counted in, in bytes: what direct I/O counts in.
pub(crate) const UNIT_BYTES: usize = BLOCK_BYTES;
pub(crate) const UNIT_BYTES_U64: u64 = UNIT_BYTES as u64;

/// Which ring. Drawn at random when it is prepared; no client ever sees it, so none can make up a block (rule 14 of the
/// storage protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingNumber(pub(crate) u64);

impl RingNumber {
    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RingNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where a block stands, counted in units of 4 KiB and on for ever: at this number modulo the units of its ring. A
/// greater number is a later block. The numbers of a ring's blocks have gaps: each is its predecessor's plus that one's
/// units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockNumber(pub(crate) u64);

impl BlockNumber {
    /// The number of a ring's very first block.
    pub const FIRST: BlockNumber = BlockNumber(0);

    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// That many units further on. Only what a reader of damaged bytes makes up could reach the end of the numbers.
    pub(crate) const fn plus(self, units: u64) -> BlockNumber {
        BlockNumber(self.0.saturating_add(units))
    }

    /// How many units lie in `earlier..self`; none when `earlier` is the later one.
    pub(crate) const fn units_since(self, earlier: BlockNumber) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for BlockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The shape of a ring in use: how blocks are laid into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Units of the ring.
    pub(crate) units: u64,
    /// Units of the longest block, but for what the last one of a lap is lengthened by.
    pub(crate) block_units_max: u64,
}

impl Geometry {
    /// Where the block stands in the file, in bytes.
    pub(crate) fn position(self, number: BlockNumber) -> u64 {
        number.0 % self.units * UNIT_BYTES_U64
    }

    /// Units from there to the end of the file.
    fn tail(self, number: BlockNumber) -> u64 {
        self.units - number.0 % self.units
    }

    /// The longest block at `number` that [`Geometry::lengthened`] leaves as it is.
    pub(crate) fn units_not_lengthened(self, number: BlockNumber) -> u64 {
        self.tail(number).saturating_sub(self.block_units_max)
    }

    /// The length of the block `number` whose content takes `units`: to the end of the file when no longest block would
    /// fit behind it. So the next one always fits, no unit is skipped, and what an older life left is written over
    /// before anything behind it is.
    pub(crate) fn lengthened(self, number: BlockNumber, units: u64) -> u64 {
        let tail = self.tail(number);
        debug_assert!(units <= tail, "{units} units at {number} of a ring of {} units", self.units);
        if tail - units < self.block_units_max { tail } else { units }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_each_other_without_a_gap_and_none_is_split() {
        let ring = Geometry { units: 37, block_units_max: 5 };
        let mut number = BlockNumber::FIRST;
        for units in (1..=5).cycle().take(1000) {
            let length = ring.lengthened(number, units);
            assert!(length >= units && length < units + ring.block_units_max);
            let at = number.get() % ring.units;
            assert_eq!(ring.position(number), at * 4096);
            assert!(at + length <= ring.units, "within the file");
            number = number.plus(length);
            let tail = ring.units - number.get() % ring.units;
            assert!(tail >= ring.block_units_max, "the next one fits, however long: {tail}");
        }
    }
}
