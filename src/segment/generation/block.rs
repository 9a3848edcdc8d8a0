//! The codec of a generation table's blocks. Layout: `docs/formats/generations.md`.
//!
//! ```text
//! magic 4 | version 2 | kind 2 | start 8 | shard 2 | entry count 2 | block number 4 | proven blocks 4 | reserved 36
//! | entries 48 each | zero | checksum 4
//! entry: kind 2 | reserved 2 | partition 4 | topic id 16 | log number 8 | generation 8 | offset 8
//! ```

use ringmq_wire::{Offset, PartitionIndex, ShardIndex, TopicId};
use uuid::Uuid;

use super::history::{Fact, JournalFile};
use crate::frame::{Generation, LogNumber};
use crate::layout::LogId;

/// Bytes of one block.
pub(crate) const BLOCK_BYTES: usize = ringmq_runtime::buffer::BLOCK_BYTES;
/// Entries that one block can hold.
pub(crate) const ENTRIES_MAX: usize = (CHECKSUM_AT - ENTRIES_AT) / ENTRY_BYTES;

const MAGIC: [u8; 4] = *b"RQGT";
const VERSION: u16 = 1;
const ENTRIES_AT: usize = 64;
const ENTRY_BYTES: usize = 48;
const CHECKSUM_AT: usize = BLOCK_BYTES - 4;
/// In place of the shard's number in a merged table.
const NO_SHARD: u16 = u16::MAX;

/// Which table: its name says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableId {
    /// Which start of the process.
    pub(crate) start: u64,
    pub(crate) writer: TableWriter,
}

/// Who writes a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TableWriter {
    /// The start itself, once.
    Merged,
    /// One core, as it goes.
    Shard(ShardIndex),
}

impl TableId {
    pub(crate) fn file_name(self) -> String {
        match self.writer {
            TableWriter::Merged => format!("{:020}-merged.table", self.start),
            TableWriter::Shard(shard) => format!("{:020}-{:05}.table", self.start, shard.get()),
        }
    }

    /// What a file's name says; `None` for a name that is not ours.
    pub(crate) fn parse(name: &str) -> Option<TableId> {
        let (start, writer) = name.strip_suffix(".table")?.split_once('-')?;
        let start = start.parse().ok()?;
        let writer = match writer {
            "merged" => TableWriter::Merged,
            shard => TableWriter::Shard(ShardIndex::new(shard.parse().ok()?)),
        };
        let id = TableId { start, writer };
        (id.file_name() == name).then_some(id)
    }
}

/// One block, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) table: TableId,
    /// From 0.
    pub(crate) number: u32,
    /// Of a core's table: its blocks known to be durable when this one was written. Of a merged one: how many blocks
    /// it has.
    pub(crate) proven_blocks: u32,
    /// At most [`ENTRIES_MAX`].
    pub(crate) facts: Vec<Fact>,
}

impl Block {
    /// Fills `block`, of [`BLOCK_BYTES`].
    pub(crate) fn encode_into(&self, block: &mut [u8]) {
        debug_assert!(block.len() == BLOCK_BYTES && self.facts.len() <= ENTRIES_MAX);
        let entry_count = u16::try_from(self.facts.len()).expect("at most ENTRIES_MAX");
        block.fill(0);
        let (kind, shard) = match self.table.writer {
            TableWriter::Shard(shard) => (1_u16, shard.get()),
            TableWriter::Merged => (2, NO_SHARD),
        };
        block[0..4].copy_from_slice(&MAGIC);
        block[4..6].copy_from_slice(&VERSION.to_be_bytes());
        block[6..8].copy_from_slice(&kind.to_be_bytes());
        block[8..16].copy_from_slice(&self.table.start.to_be_bytes());
        block[16..18].copy_from_slice(&shard.to_be_bytes());
        block[18..20].copy_from_slice(&entry_count.to_be_bytes());
        block[20..24].copy_from_slice(&self.number.to_be_bytes());
        block[24..28].copy_from_slice(&self.proven_blocks.to_be_bytes());
        for (fact, entry) in self.facts.iter().zip(block[ENTRIES_AT..].chunks_exact_mut(ENTRY_BYTES)) {
            encode_entry(fact, entry);
        }
        let checksum = crc32fast::hash(&block[..CHECKSUM_AT]);
        block[CHECKSUM_AT..].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Reads a block; `None` when it is not one, or is damaged.
    pub(crate) fn decode(block: &[u8]) -> Option<Block> {
        let block = block.first_chunk::<BLOCK_BYTES>()?;
        let ours = block[0..4] == MAGIC && block[4..6] == VERSION.to_be_bytes();
        if !ours || crc32fast::hash(&block[..CHECKSUM_AT]) != u32::from_be_bytes(array(block, CHECKSUM_AT)) {
            return None;
        }
        let shard = u16::from_be_bytes(array(block, 16));
        let writer = match (u16::from_be_bytes(array(block, 6)), shard) {
            (1, shard) => TableWriter::Shard(ShardIndex::new(shard)),
            (2, NO_SHARD) => TableWriter::Merged,
            _ => return None,
        };
        let entry_count = usize::from(u16::from_be_bytes(array(block, 18)));
        if entry_count > ENTRIES_MAX {
            return None;
        }
        let facts = block[ENTRIES_AT..].chunks_exact(ENTRY_BYTES).take(entry_count).map(decode_entry);
        Some(Block {
            table: TableId { start: u64::from_be_bytes(array(block, 8)), writer },
            number: u32::from_be_bytes(array(block, 20)),
            proven_blocks: u32::from_be_bytes(array(block, 24)),
            facts: facts.collect::<Option<_>>()?,
        })
    }
}

/// In the place of an offset: which kind of file of the journals.
const RING: i64 = 0;
const ASIDE: i64 = 1;

fn encode_entry(fact: &Fact, entry: &mut [u8]) {
    let (kind, id, number, generation, offset) = match *fact {
        Fact::Opened { id, number, generation, start } => (1_u16, id, number, generation, start),
        Fact::Closed { id, number, generation, end } => (2, id, number, generation, end),
        Fact::Removed { id, number } => (3, id, number, Generation(0), Offset::ZERO),
        Fact::Corrupt { id, number, generation, proven_end } => (4, id, number, generation, proven_end),
        Fact::Repaired { id, number, generation, start } => (5, id, number, generation, start),
        Fact::Compacted { id, number, until } => (6, id, number, Generation(0), until),
        Fact::Started { id, number, start } => (7, id, number, Generation(0), start),
        Fact::Reserved { id, number, until } => (8, id, number, Generation(0), until),
        Fact::JournalFile(file) => return encode_journal_file(9, file, entry),
        Fact::JournalFileGone(file) => return encode_journal_file(10, file, entry),
    };
    entry[0..2].copy_from_slice(&kind.to_be_bytes());
    entry[4..8].copy_from_slice(&id.partition.get().to_be_bytes());
    entry[8..24].copy_from_slice(id.topic_id.as_bytes());
    entry[24..32].copy_from_slice(&number.0.to_be_bytes());
    entry[32..40].copy_from_slice(&generation.0.to_be_bytes());
    entry[40..48].copy_from_slice(&offset.get().to_be_bytes());
}

fn encode_journal_file(kind: u16, file: JournalFile, entry: &mut [u8]) {
    let (first_block, which) = file.aside.map_or((0, RING), |first| (first, ASIDE));
    entry[0..2].copy_from_slice(&kind.to_be_bytes());
    entry[24..32].copy_from_slice(&file.ring.to_be_bytes());
    entry[32..40].copy_from_slice(&first_block.to_be_bytes());
    entry[40..48].copy_from_slice(&which.to_be_bytes());
}

fn decode_journal_file(entry: &[u8]) -> Option<JournalFile> {
    let ring = u64::from_be_bytes(array(entry, 24));
    let aside = match (i64::from_be_bytes(array(entry, 40)), u64::from_be_bytes(array(entry, 32))) {
        (RING, 0) => None,
        (ASIDE, first) => Some(first),
        _ => return None,
    };
    Some(JournalFile { ring, aside })
}

fn decode_entry(entry: &[u8]) -> Option<Fact> {
    let id = LogId {
        topic_id: TopicId::new(Uuid::from_bytes(array(entry, 8))),
        partition: PartitionIndex::new(u32::from_be_bytes(array(entry, 4))),
    };
    let number = LogNumber(u64::from_be_bytes(array(entry, 24)));
    let generation = Generation(u64::from_be_bytes(array(entry, 32)));
    let offset = Offset::checked(i64::from_be_bytes(array(entry, 40)))?;
    match u16::from_be_bytes(array(entry, 0)) {
        1 => Some(Fact::Opened { id, number, generation, start: offset }),
        2 => Some(Fact::Closed { id, number, generation, end: offset }),
        3 => Some(Fact::Removed { id, number }),
        4 => Some(Fact::Corrupt { id, number, generation, proven_end: offset }),
        5 => Some(Fact::Repaired { id, number, generation, start: offset }),
        6 => Some(Fact::Compacted { id, number, until: offset }),
        7 => Some(Fact::Started { id, number, start: offset }),
        8 => Some(Fact::Reserved { id, number, until: offset }),
        9 => decode_journal_file(entry).map(Fact::JournalFile),
        10 => decode_journal_file(entry).map(Fact::JournalFileGone),
        _ => None,
    }
}

/// The bytes at a fixed place of a block or entry.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests;
