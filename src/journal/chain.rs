//! Which readable blocks count, and what is missing among them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::block::{EntryHeader, LogEnd};
use crate::number::BlockNumber;
use crate::scan::ReadableBlock;

/// One append that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEntry {
    /// The block that holds it.
    pub block: BlockNumber,
    /// What was appended where.
    pub header: EntryHeader,
    /// The record batches. A part of the memory of all entries of the block, which it keeps.
    pub payload: Bytes,
}

/// What was found in a ring from its floor on, or in an aside file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundBlocks {
    /// The entries of all blocks that count, in the order in which they were written. Some may be in frames already.
    pub entries: Vec<FoundEntry>,
    /// Where blocks that were durable are missing now: the number of the first one of each gap.
    pub missing: Vec<BlockNumber>,
    /// How far blocks reached that were durable and are missing now. Where such an end is owned by its generation and
    /// lies beyond what is left of the log, acknowledged data is damaged.
    pub lost: Vec<LogEnd>,
    /// Blocks that were durable are missing, and so is what would tell whose entries they had: it may be any log of
    /// that core.
    pub lost_unknown: bool,
    /// For each log and generation with entries in *any* readable block, counted or not: durable frames reached up to
    /// there. Where fewer are found now, as far as the generation owns the log, acknowledged data is damaged.
    pub frames_ends: Vec<LogEnd>,
}

/// What [`count`] found, and where the ring goes on.
pub(crate) struct Counted {
    pub(crate) blocks: FoundBlocks,
    /// The first block that is missing and was not acknowledged.
    pub(crate) next: BlockNumber,
}

/// Counts blocks from `first` on, to the first that is missing and lies beyond `proven`: all blocks below that one were
/// durable (rules 3 and 5 of the storage protocol).
pub(crate) fn count(blocks: BTreeMap<BlockNumber, ReadableBlock>, first: BlockNumber, proven: BlockNumber) -> Counted {
    let mut found = FoundBlocks { frames_ends: frames_ends(blocks.values()), ..FoundBlocks::default() };
    let mut blocks = blocks;
    let mut next = first;
    // Number and checksum of the block in front of `next`, where it is known.
    let mut previous = None;
    loop {
        let follows = |block: &ReadableBlock| previous.is_none_or(|previous| block.previous() == previous);
        if blocks.get(&next).is_some_and(follows) {
            let block = blocks.remove(&next).expect("it is there");
            previous = Some((next, block.checksum));
            next = block.header.end();
            found.entries.extend(block.entries);
        } else if next >= proven {
            return Counted { blocks: found, next };
        } else if let Some(behind) = blocks.range(next.plus(1)..=proven).next().map(|(_, block)| block) {
            found.missing.push(next);
            // A single block is missing if the one behind follows a block that began here.
            found.lost_unknown |= behind.header.previous != next;
            found.lost.extend(&behind.ends_before);
            previous = Some(behind.previous());
            next = behind.header.number;
        } else {
            found.missing.push(next);
            found.lost_unknown = true;
            previous = None;
            next = proven;
        }
    }
}

/// The highest of each log and generation.
fn frames_ends<'a>(blocks: impl Iterator<Item = &'a ReadableBlock>) -> Vec<LogEnd> {
    let mut highest = BTreeMap::new();
    for FoundEntry { header, .. } in blocks.flat_map(|block| &block.entries) {
        let EntryHeader { topic_id, partition, generation, frames_end, .. } = *header;
        let end = highest.entry((topic_id, partition, generation)).or_insert(frames_end);
        *end = frames_end.max(*end);
    }
    let end = |((topic_id, partition, generation), offset)| LogEnd { topic_id, partition, generation, offset };
    highest.into_iter().map(end).collect()
}

#[cfg(test)]
mod tests;
