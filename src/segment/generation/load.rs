//! The start of a process: every table that is there is read, and one merged table takes their place.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq_runtime::buffer::AlignedBuf;
use ringmq_runtime::file::{File, IoClass, LOCK_WAIT_MAX, OpenOptions};
use ringmq_runtime::{fs, random};
use ringmq_wire::Offset;

use super::block::{BLOCK_BYTES, Block, ENTRIES_MAX, TableId, TableWriter};
use super::history::{Fact, JournalFile, LogGenerations};
use super::lost::{Lost, LostTable, MissingNote, Note, opened_by_core};
use super::{PAIR_BYTES, pair_position};
use crate::layout::LogId;
use crate::reserve::Reserve;

/// Pairs that are read or written at a time.
const PAIRS_AT_A_TIME: u32 = 64;
const PIECE_BYTES: usize = PAIRS_AT_A_TIME as usize * PAIR_BYTES;

/// What all generation tables together knew when the process started. Every core gets a clone.
#[derive(Clone, Debug, Default)]
pub struct GenerationHistory {
    /// Which start of the process this is; the tables written by it carry the number.
    pub(super) start: u64,
    known: Arc<Known>,
}

/// What facts say together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) logs: BTreeMap<LogId, LogGenerations>,
    /// Files of the journals that are there.
    pub(super) journal_files: BTreeSet<JournalFile>,
    /// What cannot be read.
    lost: Vec<Lost>,
    /// Files of the journals that a start missed meanwhile, and the logs that were opened since.
    missed: BTreeMap<JournalFile, BTreeSet<LogId>>,
}

impl Known {
    /// What is still of use.
    fn facts(&self) -> Vec<Fact> {
        let files = self.journal_files.iter().copied().map(Fact::JournalFile);
        self.logs.iter().flat_map(|(id, log)| log.facts(*id)).chain(files).collect()
    }
}

/// Why the generation tables cannot be used. The broker must not start: without them it cannot tell acknowledged
/// frames from left-overs.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file system failed.
    #[error("cannot {action} the generation tables: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Why it failed; names the file.
        source: io::Error,
    },
    /// Another process writes the table, or has requests in flight that do not end.
    #[error(
        "generation table {} is still written by another process after {LOCK_WAIT_MAX:?}; stop the other broker",
        path.display()
    )]
    Locked {
        /// The table.
        path: PathBuf,
    },
    /// Two tables contradict each other.
    #[error("the generation tables in {} speak of two logs {id}. Are they from two data directories?", dir.display())]
    Contradiction {
        /// Where the tables are.
        dir: PathBuf,
        /// The log that there are two of.
        id: LogId,
    },
}

impl GenerationHistory {
    /// Reads all tables in `dir`, which is created when it is missing (the directory above it is there, durably), and
    /// puts one merged table in their place. Called once at the start of a process, before any log is opened, by the
    /// one process that owns the data directory.
    ///
    /// # Errors
    /// When another process writes a table, or the directory cannot be read or written. A disk that is too full for the merged
    /// table is no error: the older tables then stay. So they do where a table cannot be read, or is damaged where it was
    /// relied upon: [`GenerationHistory::lost`].
    pub async fn load(dir: &Path) -> Result<GenerationHistory, LoadError> {
        GenerationHistory::load_with_reserve(dir, &Reserve::none()).await
    }

    /// As [`GenerationHistory::load`], with a reserve for the merged table: the older ones need not stay then, and give
    /// their space back.
    ///
    /// # Errors
    /// As [`GenerationHistory::load`].
    pub async fn load_with_reserve(dir: &Path, reserve: &Reserve) -> Result<GenerationHistory, LoadError> {
        fs::create_dir_durably(dir)
            .await
            .map_err(|source| LoadError::Io { action: "create the directory of", source })?;
        remove_incomplete(dir).await?;
        let (found, notes) = list(dir).await?;
        let known = read_tables(dir, &found, &notes).await?;
        let start = found.iter().map(|table| table.start).max().map_or(1, |newest| newest.saturating_add(1));
        if known.lost.is_empty() {
            replace(dir, start, &known, &found, reserve).await?;
            notes.remove(dir).await?;
        } else {
            keep(dir, start, &known.lost, &found, &notes.lost).await?;
        }
        Ok(GenerationHistory { start, known: Arc::new(known) })
    }

    /// As [`GenerationHistory::load`], for those who only want to know: creates, merges and removes nothing. Not for a
    /// process that appends.
    ///
    /// # Errors
    /// As [`GenerationHistory::load`]; a directory that is not there has no tables.
    pub async fn read(dir: &Path) -> Result<GenerationHistory, LoadError> {
        let (found, notes) = list(dir).await?;
        let known = read_tables(dir, &found, &notes).await?;
        Ok(GenerationHistory { start: 0, known: Arc::new(known) })
    }

    /// What is known of a log; `None` when nothing was ever appended to it.
    pub(crate) fn of(&self, id: LogId) -> Option<LogGenerations> {
        self.known.logs.get(&id).cloned()
    }

    /// What cannot be read of the tables and may have spoken of the log: nobody knows how far it goes.
    pub(crate) fn doubt(&self, id: LogId) -> Option<LostTable> {
        self.known.lost.iter().find(|lost| lost.concerns(id)).map(|lost| lost.what.clone())
    }

    /// What cannot be read of the tables, and was relied upon.
    pub fn lost(&self) -> impl Iterator<Item = &LostTable> + '_ {
        self.known.lost.iter().map(|lost| &lost.what)
    }

    /// The first offset of a log; zero of one that is not known.
    #[must_use]
    pub fn log_start(&self, id: LogId) -> Offset {
        self.known.logs.get(&id).map_or(Offset::ZERO, LogGenerations::log_start)
    }

    /// What is lost of the tables that may say of a file of the journals that it was removed: merged ones do not speak of
    /// those.
    pub fn lost_of_cores(&self) -> Option<&LostTable> {
        let is_of_core = |lost: &&Lost| lost.table.writer != TableWriter::Merged;
        self.known.lost.iter().find(is_of_core).map(|lost| &lost.what)
    }

    /// Whether the log was opened for appends, or repaired, when the file was missed already: it has nothing in it.
    #[must_use]
    pub fn went_on_without(&self, file: JournalFile, id: LogId) -> bool {
        self.known.missed.get(&file).is_some_and(|logs| logs.contains(&id))
    }

    /// Says for the starts to come that this one missed these files, while it could not read all of the tables in `dir`. What
    /// was said of others goes: they are there again, and may be used.
    ///
    /// # Errors
    /// When what does not hold any more cannot be removed: nothing may be appended then.
    pub async fn note_missing(&self, dir: &Path, files: &[JournalFile]) -> Result<(), LoadError> {
        let missing = list(dir).await?.1.missing.into_iter().filter(|note| !files.contains(&note.file)).collect();
        let there_again = Notes { lost: Vec::new(), missing };
        if !there_again.missing.is_empty() {
            there_again.remove(dir).await?;
            fs::sync_dir(dir).await.map_err(|source| LoadError::Io { action: "remove a note on", source })?;
        }
        for file in files.iter().copied().filter(|file| !self.known.missed.contains_key(file)) {
            let note = MissingNote { file, since: self.start };
            if let Err(error) = fs::write_small_atomic(&dir.join(note.file_name()), &[]).await {
                tracing::warn!(%error, "partitions that are used now may wait for {file} at the next start");
            }
        }
        Ok(())
    }

    /// The logs that the tables know, in the order of their ids.
    pub fn logs(&self) -> impl Iterator<Item = LogId> + '_ {
        self.known.logs.keys().copied()
    }

    /// The files that the journals have, in the order of their numbers: one that is not there was lost.
    pub fn journal_files(&self) -> impl Iterator<Item = JournalFile> + '_ {
        self.known.journal_files.iter().copied()
    }

    pub(super) fn has_journal_file(&self, file: JournalFile) -> bool {
        self.known.journal_files.contains(&file)
    }
}

/// What starts wrote down that went on without something.
#[derive(Default)]
struct Notes {
    lost: Vec<Note>,
    missing: Vec<MissingNote>,
}

impl Notes {
    async fn remove(&self, dir: &Path) -> Result<(), LoadError> {
        let missing = self.missing.iter().map(|note| note.file_name());
        for name in self.lost.iter().map(|note| note.file_name()).chain(missing) {
            let removed = fs::remove_file_if_there(&dir.join(name)).await;
            removed.map_err(|source| LoadError::Io { action: "remove a note on", source })?;
        }
        Ok(())
    }
}

/// The tables that are there, and the notes.
async fn list(dir: &Path) -> Result<(Vec<TableId>, Notes), LoadError> {
    let entries = match fs::read_dir(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Notes::default())),
        entries => entries.map_err(|source| LoadError::Io { action: "list", source })?,
    };
    let tables = entries.iter().filter_map(|entry| TableId::parse(&entry.name)).collect();
    let lost = entries.iter().filter_map(|entry| Note::parse(&entry.name)).collect();
    let missing = entries.iter().filter_map(|entry| MissingNote::parse(&entry.name)).collect();
    Ok((tables, Notes { lost, missing }))
}

/// Removes what a crash left half-written under a temporary name.
async fn remove_incomplete(dir: &Path) -> Result<(), LoadError> {
    let error = |source| LoadError::Io { action: "remove what is incomplete of", source };
    for entry in fs::read_dir(dir).await.map_err(error)? {
        if entry.name.ends_with(".tmp") {
            fs::remove_file_if_there(&dir.join(&entry.name)).await.map_err(error)?;
        }
    }
    Ok(())
}

/// What all of them say together.
async fn read_tables(dir: &Path, tables: &[TableId], notes: &Notes) -> Result<Known, LoadError> {
    let (mut facts, mut lost, mut opened) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut missed: BTreeMap<JournalFile, BTreeSet<LogId>> =
        notes.missing.iter().map(|note| (note.file, BTreeSet::new())).collect();
    for table in tables {
        let path = dir.join(table.file_name());
        let blocks = match read_table(&path, *table).await {
            Ok(blocks) => blocks,
            Err(TableError::Locked) => return Err(LoadError::Locked { path }),
            Err(TableError::Io(error)) => {
                let what = LostTable { path, block: None, why: Some(error.to_string().into()) };
                lost.push(Lost::new(*table, what));
                continue;
            }
        };
        lost.extend(missing(&path, *table, &blocks));
        let of_table: Vec<Fact> = blocks.into_iter().flatten().flat_map(|block| block.facts).collect();
        if table.writer != TableWriter::Merged {
            opened.insert(*table, of_table.iter().filter_map(opened_by_core).collect());
            for note in notes.missing.iter().filter(|note| note.since <= table.start) {
                missed.entry(note.file).or_default().extend(of_table.iter().filter_map(opened_or_repaired));
            }
        }
        facts.extend(of_table);
    }
    for lost in &mut lost {
        lost.leave_out(&opened, &notes.lost);
        tracing::error!(
            "{}. What it may have said of partitions nobody knows: they stay offline. Restore the file, as it was when the \
             broker was stopped last, from a copy",
            lost.what
        );
    }
    let known = merge(&facts).map_err(|id| LoadError::Contradiction { dir: dir.to_owned(), id })?;
    Ok(Known { lost, missed, ..known })
}

fn opened_or_repaired(fact: &Fact) -> Option<LogId> {
    match *fact {
        Fact::Repaired { id, .. } => Some(id),
        _ => opened_by_core(fact),
    }
}

/// Why a table cannot be read.
enum TableError {
    /// Another process has it.
    Locked,
    Io(io::Error),
}

impl From<io::Error> for TableError {
    fn from(error: io::Error) -> TableError {
        TableError::Io(error)
    }
}

/// The blocks of a table by number; `None` where neither copy is one.
async fn read_table(path: &Path, table: TableId) -> Result<Vec<Option<Block>>, TableError> {
    let file = match File::open(path, OpenOptions::default()).await {
        // A killed process was removing it, which it does only when its facts stand in a newer table.
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    if !file.lock_when_free().await? {
        return Err(TableError::Locked);
    }
    let mut blocks: Vec<Option<Block>> = Vec::new();
    let mut at = 0;
    loop {
        let piece = file.read_at(at, PIECE_BYTES, IoClass::Recovery).await?;
        for pair in piece.chunks(PAIR_BYTES) {
            let number = blocks.len();
            let counts = |block: &Block| block.table == table && usize::try_from(block.number) == Ok(number);
            blocks.push(pair.chunks(BLOCK_BYTES).filter_map(Block::decode).find(counts));
        }
        if piece.len() < PIECE_BYTES {
            break;
        }
        at += PIECE_BYTES as u64;
    }
    file.close().await?;
    if table.writer == TableWriter::Merged && blocks.is_empty() {
        // It has at least one.
        blocks.push(None);
    }
    Ok(blocks)
}

/// Blocks that were relied upon and are not there.
fn missing(path: &Path, table: TableId, blocks: &[Option<Block>]) -> Vec<Lost> {
    let told = blocks.iter().flatten().map(|block| block.proven_blocks).max().unwrap_or(0);
    // A merged table gets its name when all of it is durable, and has room for nothing else.
    let whole = if table.writer == TableWriter::Merged { blocks.len() } else { 0 };
    let proven = told.max(u32::try_from(whole).unwrap_or(u32::MAX));
    let is_missing = |block: &u32| !blocks.get(*block as usize).is_some_and(Option::is_some);
    let lost = |block| {
        let what = LostTable { path: path.to_owned(), block: Some(block), why: None };
        Lost::block(table, what, blocks, block)
    };
    (0..proven).filter(is_missing).map(lost).collect()
}

/// What the facts, in any order, say of each log that is still there; or the name that two of them have.
pub(super) fn merge(facts: &[Fact]) -> Result<Known, LogId> {
    let removed: BTreeSet<_> =
        facts.iter().filter(|fact| matches!(fact, Fact::Removed { .. })).filter_map(Fact::log).collect();
    let there = || facts.iter().filter(|fact| fact.log().is_some_and(|log| !removed.contains(&log)));
    let mut logs: BTreeMap<LogId, LogGenerations> = BTreeMap::new();
    for fact in there() {
        let Fact::Opened { id, number, generation, start } = *fact else { continue };
        let log = logs.entry(id).or_insert_with(|| LogGenerations::new(number, generation, start));
        if log.number() != number {
            return Err(id);
        }
        log.opened(generation, start);
    }
    for fact in there() {
        let Some((id, number)) = fact.log() else { continue };
        let Some(log) = logs.get_mut(&id).filter(|log| log.number() == number) else { continue };
        log.learn(fact);
    }
    Ok(Known { logs, journal_files: journal_files(facts), ..Known::default() })
}

fn journal_files(facts: &[Fact]) -> BTreeSet<JournalFile> {
    let (mut made, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for fact in facts {
        match fact {
            Fact::JournalFile(file) => made.insert(*file),
            Fact::JournalFileGone(file) => gone.insert(*file),
            _ => false,
        };
    }
    &made - &gone
}

/// Writes the merged table, then removes those that it replaces.
async fn replace(dir: &Path, start: u64, known: &Known, older: &[TableId], reserve: &Reserve) -> Result<(), LoadError> {
    if older.is_empty() {
        return Ok(());
    }
    let facts = known.facts();
    let merged = TableId { start, writer: TableWriter::Merged };
    let write = async || write_merged(dir, merged, &facts).await;
    match reserve.lend("to merge the generation tables", fs::is_full, write).await {
        Ok(()) => {}
        Err(error) if fs::is_full(&error) => {
            tracing::warn!(dir = %dir.display(), %error, "no room to merge the generation tables; the older ones stay");
            return flush(dir, older).await;
        }
        Err(source) => return Err(LoadError::Io { action: "merge", source }),
    }
    let error = |source| LoadError::Io { action: "remove", source };
    for table in older {
        fs::remove_file_if_there(&dir.join(table.file_name())).await.map_err(error)?;
    }
    fs::sync_dir(dir).await.map_err(error)
}

/// Leaves all tables as they are, for something of them cannot be read: what they say counts together. Says for the starts to
/// come that this one went on without it.
async fn keep(dir: &Path, start: u64, lost: &[Lost], tables: &[TableId], notes: &[Note]) -> Result<(), LoadError> {
    let is_readable = |table: &&TableId| !lost.iter().any(|lost| lost.table == **table && lost.what.why.is_some());
    let readable: Vec<TableId> = tables.iter().filter(is_readable).copied().collect();
    flush(dir, &readable).await?;
    let is_noted = |lost: &&Lost| notes.iter().any(|note| note.covers(lost.table, lost.what.block));
    for lost in lost.iter().filter(|lost| !is_noted(lost)) {
        let noted = fs::write_small_atomic(&dir.join(lost.note(start).file_name()), &[]).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "partitions that are created now may be taken for damaged by the next start");
        }
    }
    Ok(())
}

/// Makes durable what was read: a killed process may have written the last of it into the device's cache alone, and
/// files are removed by what it says.
async fn flush(dir: &Path, tables: &[TableId]) -> Result<(), LoadError> {
    let error = |source| LoadError::Io { action: "flush", source };
    for table in tables {
        match File::open(dir.join(table.file_name()), OpenOptions::default()).await {
            // As above.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
            opened => opened.map_err(error)?.fdatasync().await.map_err(error)?,
        }
    }
    Ok(())
}

async fn write_merged(dir: &Path, table: TableId, facts: &[Fact]) -> io::Result<()> {
    let temporary = write_temporary(dir, table, facts).await?;
    fs::rename(&temporary, dir.join(table.file_name())).await?;
    fs::sync_dir(dir).await
}

/// Writes a whole table under a temporary name, durably but for the name.
pub(super) async fn write_temporary(dir: &Path, table: TableId, facts: &[Fact]) -> io::Result<PathBuf> {
    // A name that nobody used before: a killed process may still be removing its own.
    let temporary = dir.join(format!("{:016x}.tmp", random::u64()));
    if let Err(error) = write_table(&temporary, table, facts).await {
        // What is left of it would only take space; it is removed at the next start otherwise.
        let _ = fs::remove_file(&temporary).await;
        return Err(error);
    }
    Ok(temporary)
}

/// How many blocks, each with its copy, a whole table of so many facts has.
pub(super) fn blocks_for(facts: usize) -> io::Result<u32> {
    // A table without a fact still says that this start took place.
    u32::try_from(facts.div_ceil(ENTRIES_MAX).max(1)).map_err(io::Error::other)
}

async fn write_table(path: &Path, table: TableId, facts: &[Fact]) -> io::Result<()> {
    let blocks = blocks_for(facts.len())?;
    let file = File::open(path, OpenOptions { write: true, create_new: true, dsync: false }).await?;
    file.preallocate(pair_position(blocks)).await?;
    let mut number = 0;
    while number < blocks {
        let pairs = (blocks - number).min(PAIRS_AT_A_TIME);
        let mut buf = AlignedBuf::zeroed(pairs as usize * PAIR_BYTES);
        for (pair, number) in buf.chunks_exact_mut(PAIR_BYTES).zip(number..) {
            let first = number as usize * ENTRIES_MAX;
            let facts = facts.get(first..).unwrap_or_default().iter().take(ENTRIES_MAX).copied().collect();
            encode_pair(&Block { table, number, proven_blocks: blocks, facts }, pair);
        }
        file.write_at(&buf.freeze(), pair_position(number), IoClass::Append).await?;
        number += pairs;
    }
    file.fdatasync().await?;
    file.close().await
}

/// The block and its copy.
pub(super) fn encode_pair(block: &Block, pair: &mut [u8]) {
    let (first, copy) = pair.split_at_mut(BLOCK_BYTES);
    block.encode_into(first);
    copy.copy_from_slice(first);
}
