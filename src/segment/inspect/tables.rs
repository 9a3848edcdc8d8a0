//! Index files and generation tables, as they stand.

use std::io;
use std::path::Path;

use ringmq_index::{BLOCK_BYTES, Coverage, FramePlace, IndexError, OffsetIndex, TimeIndex};
use ringmq_runtime::fs;
use ringmq_wire::{Offset, Timestamp};

use crate::generation::{Block, Fact, JournalFile, PAIR_BYTES};
use crate::layout::LogId;
use crate::segment::INDEX_BYTES_MAX;

/// Tables are small: one that is longer is none.
const TABLE_BYTES_MAX: usize = 1 << 30;

/// An index file, decoded.
#[derive(Clone, Debug)]
pub enum IndexFile {
    /// `.index`: where frames begin.
    Offsets(Coverage, Vec<FramePlace>),
    /// `.timeindex`: no record below the offset is later than the timestamp.
    Times(Coverage, Vec<(Timestamp, Offset)>),
}

/// Reads an index file; which of the two it is, its bytes say.
///
/// # Errors
/// When the file cannot be read, or is not a sound index: [`io::ErrorKind::InvalidData`].
pub async fn read_index(path: &Path) -> io::Result<IndexFile> {
    let bytes = fs::read_small(path, INDEX_BYTES_MAX).await?;
    let decoded = match OffsetIndex::decode(&bytes, BLOCK_BYTES) {
        Ok((coverage, index)) => Ok(IndexFile::Offsets(coverage, index.entries().collect())),
        Err(IndexError::NotAnIndex) => {
            TimeIndex::decode(&bytes).map(|(coverage, index)| IndexFile::Times(coverage, index.entries().collect()))
        }
        Err(error) => Err(error),
    };
    decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
}

/// An entry of a generation table (`docs/formats/generations.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFact {
    /// The log; `None`: it speaks of a file of the journals.
    pub id: Option<LogId>,
    /// Which of the logs that ever had the name. Of a file of the journals: its ring's number.
    pub number: u64,
    /// What it says.
    pub kind: TableFactKind,
    /// Of which generation; 0 where it speaks of none.
    pub generation: u64,
    /// Of a file of blocks that were kept aside: the number of the first.
    pub first_block: Option<u64>,
    /// The offset that goes with it; 0 where none does.
    pub offset: Offset,
}

/// What an entry of a generation table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFactKind {
    /// The generation owns the log from the offset on.
    Opened,
    /// The generation was stopped cleanly, the log ends at the offset.
    Closed,
    /// The log was deleted.
    Removed,
    /// Records below the offset were acknowledged and are damaged.
    Corrupt,
    /// Someone had the log cut there, and damage that was found before does not count.
    Repaired,
    /// Compaction has been through what lies below the offset.
    Compacted,
    /// The log begins at the offset: records below are deleted.
    Started,
    /// Offsets below it may have been shown before they were durable, and are not given again.
    Reserved,
    /// The journals have this ring, or these blocks that were kept aside.
    Journal,
    /// They are not needed any more.
    JournalGone,
}

impl TableFact {
    fn of_journals(kind: TableFactKind, file: JournalFile) -> TableFact {
        let (number, first_block) = (file.ring, file.aside);
        TableFact { id: None, number, kind, generation: 0, first_block, offset: Offset::ZERO }
    }
}

impl From<&Fact> for TableFact {
    fn from(fact: &Fact) -> TableFact {
        let (id, number) = fact.log().map_or((None, 0), |(id, number)| (Some(id), number.0));
        let (kind, generation, offset) = match *fact {
            Fact::Opened { generation, start, .. } => (TableFactKind::Opened, generation.0, start),
            Fact::Closed { generation, end, .. } => (TableFactKind::Closed, generation.0, end),
            Fact::Removed { .. } => (TableFactKind::Removed, 0, Offset::ZERO),
            Fact::Corrupt { generation, proven_end, .. } => (TableFactKind::Corrupt, generation.0, proven_end),
            Fact::Repaired { generation, start, .. } => (TableFactKind::Repaired, generation.0, start),
            Fact::Compacted { until, .. } => (TableFactKind::Compacted, 0, until),
            Fact::Started { start, .. } => (TableFactKind::Started, 0, start),
            Fact::Reserved { until, .. } => (TableFactKind::Reserved, 0, until),
            Fact::JournalFile(file) => return TableFact::of_journals(TableFactKind::Journal, file),
            Fact::JournalFileGone(file) => return TableFact::of_journals(TableFactKind::JournalGone, file),
        };
        TableFact { id, number, kind, generation, first_block: None, offset }
    }
}

/// The entries of a generation table, by block; `None` for a block of which both copies are unreadable, or which was
/// never written.
///
/// # Errors
/// When the file cannot be read.
pub async fn read_generation_table(path: &Path) -> io::Result<Vec<Option<Vec<TableFact>>>> {
    let bytes = fs::read_small(path, TABLE_BYTES_MAX).await?;
    let pair = |pair: &[u8]| {
        let block = pair.chunks(PAIR_BYTES / 2).find_map(Block::decode)?;
        Some(block.facts.iter().map(TableFact::from).collect())
    };
    Ok(bytes.chunks(PAIR_BYTES).map(pair).collect())
}
