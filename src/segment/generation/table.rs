//! The table that one core writes as it goes. Entries of many logs share a write; one write is in flight, and the
//! next gathers meanwhile. A table that has grown is written again with what is still of use.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ringmq_runtime::buffer::AlignedBuf;
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::fs::Dir;
use ringmq_runtime::local::{Sender, oneshot};
use ringmq_runtime::{fs, task};
use ringmq_wire::ShardIndex;

use super::block::{Block, ENTRIES_MAX, TableId, TableWriter};
use super::history::{Fact, JournalFile, LogGenerations};
use super::load::{GenerationHistory, LoadError, blocks_for, encode_pair, write_temporary};
use super::lost::LostTable;
use super::{PAIR_BYTES, pair_position};
use crate::frame::LogNumber;
use crate::layout::LogId;
use crate::reserve::Reserve;

/// Pairs that one write takes at most.
const PAIRS_AT_A_TIME_MAX: usize = 32;
/// The least by which the file grows, in bytes.
const GROWTH_BYTES: u64 = 64 * 1024;
/// A table of fewer pairs (512 KiB) is not written again, however little of it is still of use.
const REWRITTEN_PAIRS_MIN: u32 = 64;
/// It is when it is so many times as long as it was when that was done last, so that all rewriting together costs a
/// third of what is recorded.
const REWRITTEN_GROWTH: u32 = 4;

/// The generation table of one core. Clones share it.
#[derive(Clone)]
pub struct Generations(Rc<Inner>);

struct Inner {
    dir: PathBuf,
    table: TableId,
    history: GenerationHistory,
    reserve: Reserve,
    state: RefCell<State>,
}

struct State {
    /// What this core added or changed since the history was read. `None`: removed.
    own: BTreeMap<LogId, Option<LogGenerations>>,
    /// Logs of the history that this core recorded as removed: older tables speak of them.
    removed: BTreeSet<(LogId, LogNumber)>,
    /// Files of the journals that this core spoke of, and whether they are there.
    journal_files: BTreeMap<JournalFile, bool>,
    queue: Vec<Waiting>,
    writing: bool,
    file: Option<OpenTable>,
    failed: Option<Arc<io::Error>>,
}

#[derive(Clone)]
struct OpenTable {
    file: File,
    /// Blocks written and durable.
    blocks: u32,
    room_bytes: u64,
    /// With so many blocks it is written again.
    rewritten_at: u32,
}

struct Waiting {
    fact: Fact,
    recorded: Sender<Result<(), RecordError>>,
}

/// Why an entry is not in the generation table.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordError {
    /// There is no room on the disk. Nothing was written; later entries may succeed.
    #[error("the disk is full: the generation table cannot grow ({0})")]
    StorageFull(#[source] Arc<io::Error>),
    /// The table could not be made ready, for want of a descriptor, say. Nothing was written; later entries may
    /// succeed.
    #[error("the generation table could not be made ready ({0})")]
    NotReady(#[source] Arc<io::Error>),
    /// A write or flush of the table failed, now or before. Nothing is recorded on this core any more until the
    /// broker is started again.
    #[error("the generation table of this core failed: {0}. Mend the disk and restart the broker")]
    Failed(#[source] Arc<io::Error>),
}

impl RecordError {
    /// Of a failure before anything was written.
    fn before_writing(error: io::Error) -> RecordError {
        if fs::is_full(&error) {
            RecordError::StorageFull(Arc::new(error))
        } else {
            RecordError::NotReady(Arc::new(error))
        }
    }
}

impl Generations {
    /// The table of a core; its file is created with its first entry.
    #[must_use]
    pub fn new(dir: &Path, shard: ShardIndex, history: GenerationHistory) -> Generations {
        Generations::with_reserve(dir, shard, history, Reserve::none())
    }

    /// As [`Generations::new`], with a reserve for all facts but openings, which are for appends: deletions, verdicts and
    /// clean stops are recorded on a full disk, too.
    #[must_use]
    pub fn with_reserve(dir: &Path, shard: ShardIndex, history: GenerationHistory, reserve: Reserve) -> Generations {
        let table = TableId { start: history.start, writer: TableWriter::Shard(shard) };
        let state = State {
            own: BTreeMap::new(),
            removed: BTreeSet::new(),
            journal_files: BTreeMap::new(),
            queue: Vec::new(),
            writing: false,
            file: None,
            failed: None,
        };
        Generations(Rc::new(Inner { dir: dir.to_owned(), table, history, reserve, state: RefCell::new(state) }))
    }

    /// For a directory that one core alone uses: loads its history, then [`Generations::new`].
    ///
    /// # Errors
    /// As [`GenerationHistory::load`].
    pub async fn open(dir: &Path, shard: ShardIndex) -> Result<Generations, LoadError> {
        Ok(Generations::new(dir, shard, GenerationHistory::load(dir).await?))
    }

    /// What is known of a log; `None` when nothing was ever appended to it.
    pub(crate) fn of(&self, id: LogId) -> Option<LogGenerations> {
        self.0.of(&self.0.state.borrow(), id)
    }

    /// What cannot be read of the tables and may have spoken of the log.
    pub(crate) fn doubt(&self, id: LogId) -> Option<LostTable> {
        self.0.history.doubt(id)
    }

    /// Whether something of the tables cannot be read that may have spoken of the log.
    #[must_use]
    pub fn is_in_doubt(&self, id: LogId) -> bool {
        self.doubt(id).is_some()
    }

    /// Whether the tables say by themselves what became of the end of the log: it was stopped cleanly or repaired, and
    /// nothing was appended since; or it is recorded that the log is damaged. What the journals tell of lost records is not
    /// needed for it any more.
    #[must_use]
    pub fn is_settled(&self, id: LogId) -> bool {
        !self.is_in_doubt(id) && self.of(id).is_some_and(|known| known.is_settled())
    }

    /// The journals have lost something, of nobody knows which logs. Unless the end of the log is settled, it may be its
    /// records: that it is damaged is durable when this returns. It takes none of the log's files.
    ///
    /// # Errors
    /// When it is not known to be durable.
    pub async fn suspect(&self, id: LogId) -> Result<(), RecordError> {
        let Some(known) = self.of(id).filter(|known| !known.is_settled()) else { return Ok(()) };
        let (number, generation, proven_end) = (known.number(), known.latest().0, known.proven_end());
        self.record(Fact::Corrupt { id, number, generation, proven_end }).await
    }

    /// Says that the journals have a file, before records are in it alone. Durable when this returns.
    ///
    /// # Errors
    /// When it is not known to be durable.
    pub async fn journal_file_made(&self, file: JournalFile) -> Result<(), RecordError> {
        if self.0.has_journal_file(file) {
            return Ok(());
        }
        self.record(Fact::JournalFile(file)).await
    }

    /// Says that such a file is not needed any more, before it is removed. Durable when this returns.
    ///
    /// # Errors
    /// When it is not known to be durable: the file must stay.
    pub async fn journal_file_gone(&self, file: JournalFile) -> Result<(), RecordError> {
        if !self.0.has_journal_file(file) {
            return Ok(());
        }
        self.record(Fact::JournalFileGone(file)).await
    }

    /// The logs that the tables knew when the process started.
    pub fn logs(&self) -> impl Iterator<Item = LogId> + '_ {
        self.0.history.logs()
    }

    /// Adds a fact; when this returns it is durable.
    ///
    /// # Errors
    /// When it is not known to be durable.
    pub(crate) async fn record(&self, fact: Fact) -> Result<(), RecordError> {
        let recorded = {
            let mut state = self.0.state.borrow_mut();
            if let Some(failed) = &state.failed {
                return Err(RecordError::Failed(failed.clone()));
            }
            let (sender, recorded) = oneshot();
            state.queue.push(Waiting { fact, recorded: sender });
            if !std::mem::replace(&mut state.writing, true) {
                task::spawn("generation-table", write_queued(self.0.clone()));
            }
            recorded
        };
        recorded.await.unwrap_or_else(|_| Err(RecordError::Failed(Arc::new(io::Error::other("the core is stopping")))))
    }
}

/// Writes until nothing is queued.
async fn write_queued(inner: Rc<Inner>) {
    loop {
        inner.rewrite_if_grown().await;
        let (batch, failed) = {
            let mut state = inner.state.borrow_mut();
            let count = state.queue.len().min(PAIRS_AT_A_TIME_MAX * ENTRIES_MAX);
            let batch: Vec<Waiting> = state.queue.drain(..count).collect();
            state.writing = !batch.is_empty();
            (batch, state.failed.clone())
        };
        if batch.is_empty() {
            return;
        }
        if let Some(failed) = failed {
            inner.answer(batch, &Err(RecordError::Failed(failed)));
            continue;
        }
        let result = inner.write(&batch).await;
        if let Err(RecordError::StorageFull(_)) = result {
            let (for_appends, others): (Vec<Waiting>, _) = batch
                .into_iter()
                .partition(|waiting| matches!(waiting.fact, Fact::Opened { .. } | Fact::Reserved { .. }));
            inner.answer(for_appends, &result);
            let result = inner.write_with_reserve(&others).await;
            inner.answer(others, &result);
        } else {
            inner.answer(batch, &result);
        }
    }
}

impl Inner {
    async fn write_with_reserve(&self, batch: &[Waiting]) -> Result<(), RecordError> {
        if batch.is_empty() {
            return Ok(());
        }
        let is_full = |error: &RecordError| matches!(error, RecordError::StorageFull(_));
        self.reserve.lend("for the generation table", is_full, async || self.write(batch).await).await
    }

    async fn write(&self, batch: &[Waiting]) -> Result<(), RecordError> {
        let pairs = u32::try_from(batch.len().div_ceil(ENTRIES_MAX)).expect("at most PAIRS_AT_A_TIME_MAX");
        let table = self.make_room(pairs).await?;
        let mut buf = AlignedBuf::zeroed(pairs as usize * PAIR_BYTES);
        for ((pair, waiting), number) in
            buf.chunks_exact_mut(PAIR_BYTES).zip(batch.chunks(ENTRIES_MAX)).zip(table.blocks..)
        {
            let facts = waiting.iter().map(|waiting| waiting.fact).collect();
            encode_pair(&Block { table: self.table, number, proven_blocks: table.blocks, facts }, pair);
        }
        let position = pair_position(table.blocks);
        let written = table.file.write_at(&buf.freeze(), position, IoClass::Append).await;
        written.map_err(|error| self.fail(error))?;
        if let Some(open) = &mut self.state.borrow_mut().file {
            open.blocks += pairs;
        }
        Ok(())
    }

    /// The open table with room for `pairs` more.
    async fn make_room(&self, pairs: u32) -> Result<OpenTable, RecordError> {
        let open = self.state.borrow().file.clone();
        let mut open = match open {
            Some(open) => open,
            None => self.create().await?,
        };
        let needed = pair_position(open.blocks) + pair_position(pairs);
        if needed > open.room_bytes {
            open.room_bytes = needed.next_multiple_of(GROWTH_BYTES);
            open.file.preallocate(open.room_bytes).await.map_err(RecordError::before_writing)?;
        }
        self.state.borrow_mut().file = Some(open.clone());
        Ok(open)
    }

    async fn create(&self) -> Result<OpenTable, RecordError> {
        let dir = Dir::open(&self.dir).await.map_err(RecordError::before_writing)?;
        let file = self.open_new().await.map_err(RecordError::before_writing)?;
        dir.sync().await.map_err(|error| self.fail(error))?;
        Ok(OpenTable { file, blocks: 0, room_bytes: 0, rewritten_at: REWRITTEN_PAIRS_MIN })
    }

    /// Writes the table again, without what is of no use any more, once it has grown enough. Where that fails before anything
    /// was changed the table goes on as it is, and longer.
    async fn rewrite_if_grown(&self) {
        let open = {
            let state = self.state.borrow();
            let usable = state.file.as_ref().filter(|_| state.failed.is_none());
            usable.filter(|open| open.blocks >= open.rewritten_at).cloned()
        };
        let Some(open) = open else { return };
        let facts = self.facts_of_use();
        let rewritten = match rewrite(&self.dir, self.table, &facts).await {
            Ok(table) => table,
            Err(Rewriting::Unchanged(error)) => {
                tracing::warn!(table = %self.table.file_name(), %error, "a generation table cannot be written anew; it grows on");
                OpenTable { rewritten_at: open.blocks.saturating_mul(2), ..open }
            }
            // The old file may have lost its name, and what the new one has may not be durable.
            Err(Rewriting::InDoubt(error)) => {
                self.fail(error);
                return;
            }
        };
        self.state.borrow_mut().file = Some(rewritten);
    }

    /// What this core's table has to say beside those of before. A log that came and went since is not spoken of.
    fn facts_of_use(&self) -> Vec<Fact> {
        let state = self.state.borrow();
        let removed = state.removed.iter().map(|&(id, number)| Fact::Removed { id, number });
        let files = state.journal_files.iter().filter_map(|(&file, &is_there)| {
            let is_gone = !is_there && self.history.has_journal_file(file);
            is_there.then_some(Fact::JournalFile(file)).or(is_gone.then_some(Fact::JournalFileGone(file)))
        });
        let there = state.own.iter().filter_map(|(id, known)| known.as_ref().map(|known| known.facts(*id)));
        removed.chain(there.flatten()).chain(files).collect()
    }

    async fn open_new(&self) -> io::Result<File> {
        let path = self.dir.join(self.table.file_name());
        let options = OpenOptions { write: true, create_new: true, dsync: true };
        let file = match File::open(&path, options).await {
            // An earlier attempt that failed; nothing was written to it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&path).await?;
                File::open(&path, options).await?
            }
            opened => opened?,
        };
        lock(&file)?;
        Ok(file)
    }

    /// A failed write leaves the table in an unknown state: nothing is written to it again (rule 12 of the storage
    /// protocol).
    fn fail(&self, error: io::Error) -> RecordError {
        let table = self.dir.join(self.table.file_name());
        tracing::error!(table = %table.display(), %error, "the generation table failed");
        let error = Arc::new(error);
        self.state.borrow_mut().failed = Some(error.clone());
        RecordError::Failed(error)
    }

    fn answer(&self, batch: Vec<Waiting>, result: &Result<(), RecordError>) {
        for waiting in batch {
            if result.is_ok() {
                self.learn(waiting.fact);
            }
            // Whoever asked may be gone.
            let _ = waiting.recorded.send(result.clone());
        }
    }

    fn of(&self, state: &State, id: LogId) -> Option<LogGenerations> {
        state.own.get(&id).cloned().unwrap_or_else(|| self.history.of(id))
    }

    fn has_journal_file(&self, file: JournalFile) -> bool {
        let own = self.state.borrow().journal_files.get(&file).copied();
        own.unwrap_or_else(|| self.history.has_journal_file(file))
    }

    fn learn(&self, fact: Fact) {
        let mut state = self.state.borrow_mut();
        if let Fact::JournalFile(file) | Fact::JournalFileGone(file) = fact {
            state.journal_files.insert(file, matches!(fact, Fact::JournalFile(_)));
            return;
        }
        let Some((id, number)) = fact.log() else { return };
        let known = self.of(&state, id);
        let log = match fact {
            Fact::Removed { .. } => {
                if self.history.of(id).is_some_and(|older| older.number() == number) {
                    state.removed.insert((id, number));
                }
                None
            }
            Fact::Opened { generation, start, .. } => {
                let mut log = known.unwrap_or_else(|| LogGenerations::new(number, generation, start));
                log.opened(generation, start);
                Some(log)
            }
            // Of a log that was never opened there is nothing else to learn.
            _ => known.map(|mut log| {
                log.learn(&fact);
                log
            }),
        };
        if log.is_none() && self.history.of(id).is_none() {
            state.own.remove(&id);
        } else {
            state.own.insert(id, log);
        }
    }
}

/// How writing a table again failed.
enum Rewriting {
    /// The table is as it was.
    Unchanged(io::Error),
    /// It may be the old one or the new one.
    InDoubt(io::Error),
}

/// Puts a table with these facts alone in the place of `table`, whose facts they are. Whatever can be missing is asked for
/// before anything is changed.
async fn rewrite(dir_path: &Path, table: TableId, facts: &[Fact]) -> Result<OpenTable, Rewriting> {
    let blocks = blocks_for(facts.len()).map_err(Rewriting::Unchanged)?;
    let dir = Dir::open(dir_path).await.map_err(Rewriting::Unchanged)?;
    let temporary = write_temporary(dir_path, table, facts).await.map_err(Rewriting::Unchanged)?;
    let file = match open_to_go_on(&temporary).await {
        Ok(file) => file,
        Err(error) => {
            // Where that fails, too, the next start removes it.
            let _ = fs::remove_file(&temporary).await;
            return Err(Rewriting::Unchanged(error));
        }
    };
    fs::rename(&temporary, &dir_path.join(table.file_name())).await.map_err(Rewriting::InDoubt)?;
    dir.sync().await.map_err(Rewriting::InDoubt)?;
    let rewritten_at = blocks.saturating_mul(REWRITTEN_GROWTH).max(REWRITTEN_PAIRS_MIN);
    Ok(OpenTable { file, blocks, room_bytes: pair_position(blocks), rewritten_at })
}

async fn open_to_go_on(path: &Path) -> io::Result<File> {
    let file = File::open(path, OpenOptions { write: true, create_new: false, dsync: true }).await?;
    lock(&file)?;
    Ok(file)
}

fn lock(file: &File) -> io::Result<()> {
    if file.try_lock_exclusive()? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process has locked the new generation table"))
}

#[cfg(test)]
mod tests;
