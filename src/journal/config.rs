//! How one journal is kept.

use std::time::Duration;

use crate::block::HEADER_BYTES;
use crate::number::{Geometry, UNIT_BYTES, UNIT_BYTES_U64};

/// The longest block, in bytes. With what lengthens the last one of a lap it stays under 512 KiB, up to where memory
/// comes in exactly the length asked for ([`ringmq_runtime::buffer::size_class`]).
const BLOCK_BYTES_LIMIT: usize = 256 << 10;

/// Longest blocks that are kept free for raising the floor: one for the ends that such a block may have to repeat, one
/// for the end of a lap, one to spare (`docs/formats/journal.md`).
const RESERVED_BLOCKS: u64 = 3;

/// The least that a ring holds, in longest blocks.
const RING_BLOCKS_MIN: u64 = 8;

/// How one journal is kept. The defaults are those of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// The size of the ring, in bytes: a multiple of 4,096, at least eight times the longest block. Default: 64 MiB.
    pub ring_bytes: u64,
    /// The longest block, in bytes: a multiple of 4,096, at most 256 KiB. Default: 256 KiB.
    pub block_bytes_max: usize,
    /// Blocks that may be written and not yet acknowledged. Default: 2.
    pub blocks_in_flight_max: usize,
    /// How long after its last block with entries an idle ring gets a closing block. Default: 5 ms.
    pub idle: Duration,
}

impl Default for JournalConfig {
    fn default() -> JournalConfig {
        JournalConfig {
            ring_bytes: 64 << 20,
            block_bytes_max: BLOCK_BYTES_LIMIT,
            blocks_in_flight_max: 2,
            idle: Duration::from_millis(5),
        }
    }
}

/// A setting that no journal can be kept with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {value}; it must be a multiple of {multiple_of}, from {least} to {most}")]
pub struct InvalidJournalConfig {
    /// Which one.
    pub setting: &'static str,
    /// What it is.
    pub value: u64,
    /// What it must be a multiple of.
    pub multiple_of: u64,
    /// The least that it may be.
    pub least: u64,
    /// The most that it may be.
    pub most: u64,
}

impl JournalConfig {
    /// Checks that a journal can be kept so.
    ///
    /// # Errors
    /// Names the first setting that is out of its range.
    pub fn validate(&self) -> Result<(), InvalidJournalConfig> {
        let check = |setting, value: u64, multiple_of, least, most| {
            if value.is_multiple_of(multiple_of) && (least..=most).contains(&value) {
                return Ok(());
            }
            Err(InvalidJournalConfig { setting, value, multiple_of, least, most })
        };
        let block_bytes_max = self.block_bytes_max as u64;
        check("block_bytes_max", block_bytes_max, UNIT_BYTES_U64, UNIT_BYTES_U64, BLOCK_BYTES_LIMIT as u64)?;
        check("ring_bytes", self.ring_bytes, UNIT_BYTES_U64, RING_BLOCKS_MIN * block_bytes_max, 1 << 40)?;
        check("blocks_in_flight_max", self.blocks_in_flight_max as u64, 1, 1, 64)?;
        let idle_ms = u64::try_from(self.idle.as_millis()).unwrap_or(u64::MAX);
        check("idle_ms", idle_ms, 1, 1, 60_000)
    }

    /// The longest entry that fits into a block of its own whatever the block before held: see
    /// [`Journal::entry_bytes`](crate::Journal::entry_bytes). Larger ones go straight to their segment.
    #[must_use]
    pub fn entry_bytes_max(&self) -> usize {
        // The ends of a full block take 36 bytes for an entry's 64 at least; the rest is more than a third.
        (self.block_bytes_max - HEADER_BYTES) / 3
    }

    pub(crate) fn geometry(&self) -> Geometry {
        Geometry {
            units: self.ring_bytes / UNIT_BYTES_U64,
            block_units_max: (self.block_bytes_max / UNIT_BYTES) as u64,
        }
    }

    /// Units that only a block that raises the floor may use.
    pub(crate) fn reserved_units(&self) -> u64 {
        RESERVED_BLOCKS * self.geometry().block_units_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_what_is_out_of_range_is_named() {
        let valid = JournalConfig::default();
        assert_eq!(valid.validate(), Ok(()));
        let invalid = [
            ("ring_bytes", JournalConfig { ring_bytes: 2 << 20, block_bytes_max: 512 << 9, ..valid.clone() }, false),
            ("ring_bytes", JournalConfig { ring_bytes: (2 << 20) - 4096, ..valid.clone() }, true),
            ("ring_bytes", JournalConfig { ring_bytes: (64 << 20) + 1, ..valid.clone() }, true),
            ("block_bytes_max", JournalConfig { block_bytes_max: 260 << 10, ..valid.clone() }, true),
            ("block_bytes_max", JournalConfig { block_bytes_max: 0, ..valid.clone() }, true),
            ("block_bytes_max", JournalConfig { block_bytes_max: 5000, ..valid.clone() }, true),
            ("blocks_in_flight_max", JournalConfig { blocks_in_flight_max: 0, ..valid.clone() }, true),
            ("idle_ms", JournalConfig { idle: Duration::from_micros(999), ..valid }, true),
        ];
        for (setting, config, refused) in invalid {
            match config.validate() {
                Ok(()) => assert!(!refused, "{config:?}"),
                Err(error) => assert!(refused && error.setting == setting, "{error}"),
            }
        }
    }
}
