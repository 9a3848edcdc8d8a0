//! What cannot be read of the generation tables, and which logs it may have spoken of.
//!
//! A start goes on without it: the logs that it may have spoken of stay offline, and the tables stay as they are, none
//! merged. That a start did so, it writes down as an empty file beside the tables, a *note*: a log that this start or a
//! later one opened for appends was none of those logs, and serves again the next time (`docs/formats/generations.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::block::{Block, TableId, TableWriter};
use super::history::{Fact, JournalFile};
use crate::layout::LogId;

/// A block of a table, or all of a table, that was relied upon and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostTable {
    /// The table.
    pub path: PathBuf,
    /// The block of which both copies are damaged; `None`: all of it.
    pub block: Option<u32>,
    /// What the file system says, if it is that.
    pub why: Option<Arc<str>>,
}

impl fmt::Display for LostTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match (self.block, &self.why) {
            (_, Some(why)) => write!(f, "generation table {path} cannot be read: {why}"),
            (Some(block), None) => {
                let position = super::pair_position(block);
                write!(
                    f,
                    "generation table {path} is damaged: block {block} at position {position} is unreadable in both copies"
                )
            }
            (None, None) => write!(f, "generation table {path} is damaged: none of it can be read"),
        }
    }
}

/// The same, and whom it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) table: TableId,
    pub(super) what: LostTable,
    /// In a merged table logs come in order: the last one before, and the first one behind.
    between: (Option<LogId>, Option<LogId>),
    /// Logs that it does not speak of.
    others: BTreeSet<LogId>,
}

impl Lost {
    pub(super) fn new(table: TableId, what: LostTable) -> Lost {
        Lost { table, what, between: (None, None), others: BTreeSet::new() }
    }

    /// Block `block` of these, which are in order where the table is a merged one.
    pub(super) fn block(table: TableId, what: LostTable, blocks: &[Option<Block>], block: u32) -> Lost {
        let lost = Lost::new(table, what);
        if table.writer != TableWriter::Merged {
            return lost;
        }
        let at = (block as usize).min(blocks.len());
        let logs = |block: &Block| block.facts.iter().filter_map(Fact::log).map(|(id, _)| id).collect::<Vec<_>>();
        let before = blocks[..at].iter().flatten().filter_map(|block| logs(block).pop()).next_back();
        let behind = blocks[at..].iter().flatten().find_map(|block| logs(block).first().copied());
        Lost { between: (before, behind), ..lost }
    }

    pub(super) fn concerns(&self, id: LogId) -> bool {
        let (before, behind) = self.between;
        before.is_none_or(|before| before <= id)
            && behind.is_none_or(|behind| id <= behind)
            && !self.others.contains(&id)
    }

    /// Takes out the logs that other tables tell of: those of other cores in the life that wrote it, and those that were
    /// opened since some start went on without it.
    pub(super) fn leave_out(&mut self, opened: &BTreeMap<TableId, BTreeSet<LogId>>, notes: &[Note]) {
        let since = notes.iter().filter(|note| note.covers(self.table, self.what.block)).map(|note| note.since).min();
        for (table, logs) in opened {
            let same_life = self.table.writer != TableWriter::Merged && table.start == self.table.start;
            if same_life && *table != self.table || since.is_some_and(|since| table.start >= since) {
                self.others.extend(logs);
            }
        }
    }

    pub(super) fn note(&self, since: u64) -> Note {
        Note { table: self.table, block: self.what.block, since }
    }
}

/// The log that a core opened for appends if it said this of it.
pub(super) fn opened_by_core(fact: &Fact) -> Option<LogId> {
    match *fact {
        Fact::Opened { id, .. } | Fact::Closed { id, .. } | Fact::Reserved { id, .. } => Some(id),
        _ => None,
    }
}

/// A start went on without something of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Note {
    table: TableId,
    block: Option<u32>,
    /// Which start.
    since: u64,
}

impl Note {
    /// The name of its file, which is empty.
    pub(super) fn file_name(self) -> String {
        let block = self.block.map_or_else(|| "all".to_owned(), |block| block.to_string());
        format!("{}-{block}-{:020}.lost", self.table.file_name(), self.since)
    }

    /// What a file's name says; `None` for a name that is no note's.
    pub(super) fn parse(name: &str) -> Option<Note> {
        let mut parts = name.strip_suffix(".lost")?.rsplitn(3, '-');
        let (since, block, table) = (parts.next()?, parts.next()?, parts.next()?);
        let block = if block == "all" { None } else { Some(block.parse().ok()?) };
        let note = Note { table: TableId::parse(table)?, block, since: since.parse().ok()? };
        (note.file_name() == name).then_some(note)
    }

    pub(super) fn covers(self, table: TableId, block: Option<u32>) -> bool {
        self.table == table && (self.block.is_none() || self.block == block)
    }
}

/// A start missed a file of the journals while something of the tables was lost that may say that it was removed. What was
/// opened for appends since has nothing in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MissingNote {
    pub(super) file: JournalFile,
    /// Which start.
    pub(super) since: u64,
}

impl MissingNote {
    /// The name of its file, which is empty.
    pub(super) fn file_name(self) -> String {
        let JournalFile { ring, aside } = self.file;
        let blocks = aside.map_or_else(|| "ring".to_owned(), |first| format!("{first:020}"));
        format!("{ring:016x}-{blocks}-{:020}.missing", self.since)
    }

    /// What a file's name says; `None` for a name that is no such note's.
    pub(super) fn parse(name: &str) -> Option<MissingNote> {
        let mut parts = name.strip_suffix(".missing")?.splitn(3, '-');
        let (ring, blocks, since) = (parts.next()?, parts.next()?, parts.next()?);
        let aside = if blocks == "ring" { None } else { Some(blocks.parse().ok()?) };
        let file = JournalFile { ring: u64::from_str_radix(ring, 16).ok()?, aside };
        let note = MissingNote { file, since: since.parse().ok()? };
        (note.file_name() == name).then_some(note)
    }
}

#[cfg(test)]
mod tests {
    use ringmq_wire::{PartitionIndex, ShardIndex, TopicId};

    use super::*;
    use crate::frame::LogNumber;

    fn log(partition: u32) -> LogId {
        LogId { topic_id: TopicId::METADATA, partition: PartitionIndex::new(partition) }
    }

    fn table(start: u64, writer: TableWriter) -> TableId {
        TableId { start, writer }
    }

    fn of_core(start: u64, shard: u16) -> TableId {
        table(start, TableWriter::Shard(ShardIndex::new(shard)))
    }

    fn what(block: Option<u32>) -> LostTable {
        LostTable { path: PathBuf::from("t"), block, why: None }
    }

    fn concerned(lost: &Lost) -> Vec<u32> {
        (0..8).filter(|partition| lost.concerns(log(*partition))).collect()
    }

    #[test]
    fn names_of_notes_come_back() {
        for (note, name) in [
            (
                Note { table: of_core(3, 1), block: Some(7), since: 4 },
                "00000000000000000003-00001.table-7-00000000000000000004.lost",
            ),
            (
                Note { table: table(3, TableWriter::Merged), block: None, since: 5 },
                "00000000000000000003-merged.table-all-00000000000000000005.lost",
            ),
        ] {
            assert_eq!((note.file_name().as_str(), Note::parse(name)), (name, Some(note)));
        }
        for other in ["", ".lost", "1-2-3.lost", "00000000000000000003-00001.table-07-00000000000000000004.lost"] {
            assert_eq!(Note::parse(other), None, "{other}");
        }
    }

    #[test]
    fn names_of_notes_on_missing_files_come_back() {
        for (aside, name) in [
            (None, "00000000000000ab-ring-00000000000000000004.missing"),
            (Some(7), "00000000000000ab-00000000000000000007-00000000000000000004.missing"),
        ] {
            let note = MissingNote { file: JournalFile { ring: 0xAB, aside }, since: 4 };
            assert_eq!((note.file_name().as_str(), MissingNote::parse(name)), (name, Some(note)));
        }
        for other in ["", ".missing", "ab-ring-4.missing", "00000000000000AB-ring-00000000000000000004.missing"] {
            assert_eq!(MissingNote::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_block_of_a_merged_table_concerns_what_can_be_between_its_neighbours() {
        let merged = table(9, TableWriter::Merged);
        let block = |number: u32, partitions: &[u32]| {
            let fact = |partition: &u32| Fact::Removed { id: log(*partition), number: LogNumber(1) };
            Some(Block { table: merged, number, proven_blocks: 3, facts: partitions.iter().map(fact).collect() })
        };
        let lost =
            |blocks: &[Option<Block>], number| concerned(&Lost::block(merged, what(Some(number)), blocks, number));
        assert_eq!(lost(&[block(0, &[0, 2]), None, block(2, &[4, 6])], 1), [2, 3, 4]);
        assert_eq!(lost(&[None, None, block(2, &[4, 6])], 0), [0, 1, 2, 3, 4]);
        assert_eq!(lost(&[block(0, &[0, 2]), None, None], 2), [2, 3, 4, 5, 6, 7]);
        assert_eq!(lost(&[block(0, &[0, 2])], 2), [2, 3, 4, 5, 6, 7], "the file was cut");
    }

    #[test]
    fn it_does_not_concern_logs_of_other_cores_nor_those_that_were_opened_without_it() {
        let opened: BTreeMap<TableId, BTreeSet<LogId>> = [
            (of_core(3, 0), [log(0)].into()),
            (of_core(3, 1), [log(1)].into()),
            (of_core(4, 0), [log(2)].into()),
            (of_core(5, 1), [log(3)].into()),
        ]
        .into();
        let with = |notes: &[Note]| {
            let mut lost = Lost::new(of_core(3, 0), what(Some(2)));
            lost.leave_out(&opened, notes);
            concerned(&lost)
        };
        let note = |block, since| Note { table: of_core(3, 0), block, since };
        assert_eq!(with(&[]), [0, 2, 3, 4, 5, 6, 7]);
        assert_eq!(with(&[note(Some(1), 4)]), [0, 2, 3, 4, 5, 6, 7], "of another block");
        assert_eq!(with(&[note(Some(2), 5)]), [0, 2, 4, 5, 6, 7]);
        assert_eq!(with(&[note(Some(2), 5), note(None, 4)]), [0, 4, 5, 6, 7]);
    }
}
