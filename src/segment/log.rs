//! The log of one partition, as its owner sees it.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ringmq_runtime::fs;
use ringmq_runtime::local::{Event, Listener, Semaphore, oneshot};
use ringmq_runtime::task::Gate;
use ringmq_wire::{LeaderEpoch, Offset, Timestamp};

use crate::append::{Append, AppendError, Appending};
use crate::cache::TailCache;
use crate::config::{InvalidConfig, LogConfig};
use crate::failure::{Corruption, Damage, Poison};
use crate::generation::{Fact, Generations, RecordError};
use crate::journal_queue::JournalQueue;
use crate::journaled::JournaledRuns;
use crate::layout::LogId;
use crate::log_start::{self, DeleteRecordsError};
use crate::open_segments::OpenSegments;
use crate::producer_budget::{Counted, ProducerBudget};
use crate::reader::{self, LogRead, ReadError};
use crate::recovery::{OpenError, Recovered, Recovery, recover};
use crate::redo::{self, Journaled, JournaledAppend, RedoError};
use crate::reserve::Reserve;
use crate::retention::{self, RetainError};
use crate::staging::{Queue, Queued, Staging};
use crate::state::{LogCore, LogState, Phase};
use crate::window::WriteWindow;
use crate::{producer_snapshots, timestamp, writer};

/// What the logs of one core share.
#[derive(Clone)]
pub struct LogDeps {
    /// The core's generation table.
    pub generations: Generations,
    /// The core's frames in memory.
    pub cache: TailCache,
    /// The way to the core's journal; closed where there is none.
    pub journal: JournalQueue,
    /// The way to the core's relaxed journal, of logs with a [`LogConfig::flush_interval`]; where it is closed, these
    /// take the other.
    pub relaxed_journal: JournalQueue,
    /// Which sealed segments of the core's logs are open.
    pub open_segments: OpenSegments,
    /// What the core's logs know of producers, together.
    pub producer_budget: ProducerBudget,
    /// What the core keeps for a full disk.
    pub reserve: Reserve,
}

impl LogDeps {
    /// Those of logs without a journal: every append goes straight into a frame.
    #[must_use]
    pub fn without_journal(generations: Generations, cache: TailCache) -> LogDeps {
        let (journal, relaxed_journal, open_segments, producer_budget) = Default::default();
        let reserve = Reserve::none();
        LogDeps { generations, cache, journal, relaxed_journal, open_segments, producer_budget, reserve }
    }
}

/// The log of one partition, open for appends and reads on one core. Clones share it.
#[derive(Clone)]
pub struct Log(Rc<LogCore>);

/// How far a log reaches; every offset is one past the last. `start ≤ durable ≤ readable ≤ end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOffsets {
    /// The first offset there is.
    pub start: Offset,
    /// Everything below is durable.
    pub durable: Offset,
    /// Everything below is acknowledged and can be read. That is the durable offset, or, with a
    /// [`LogConfig::flush_interval`], what the system has in its page cache.
    pub readable: Offset,
    /// The offset that is assigned next. What lies between is on its way to the disk.
    pub end: Offset,
}

/// Whether a journal block is still needed for what it has of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalNeed {
    /// Frames have it, durably, or a durable record says that the log was deleted.
    None,
    /// Until [`Log::checkpoint`] has put it into frames.
    UntilCheckpoint,
    /// Until the next start: the log takes no frames in this one (rule 6 of the storage protocol).
    UntilRecovery,
}

/// Why a log could not be stopped cleanly. Nothing that was acknowledged is lost: it is recovered when the log is
/// opened again.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The log went offline before, or while it was closed.
    #[error(transparent)]
    Poisoned(#[from] Arc<Poison>),
    /// The clean end could not be recorded.
    #[error("partition {id}: cannot record the clean stop: {source}")]
    Record {
        /// The log.
        id: LogId,
        /// Why.
        source: RecordError,
    },
}

/// Why the files of a log could not be removed. What is left can be removed by trying again.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// The file system failed.
    #[error("partition {id}: cannot remove its files: {source}")]
    Io {
        /// The log.
        id: LogId,
        /// Why it failed; names the file.
        source: io::Error,
    },
    /// The files are gone, and the generation table does not know it yet: it keeps a dead entry.
    #[error("partition {id}: cannot record the removal: {source}")]
    Record {
        /// The log.
        id: LogId,
        /// Why.
        source: RecordError,
    },
}

impl Log {
    /// Opens the log of a partition under `root`, a directory that is there, durably. A log that was not stopped
    /// cleanly is recovered. An empty log creates nothing on the disk before its first append.
    ///
    /// # Errors
    /// When acknowledged data is damaged, another process still writes, or the disk fails. Nothing was changed then.
    pub async fn open(root: &Path, id: LogId, config: LogConfig, deps: &LogDeps) -> Result<(Log, Recovery), OpenError> {
        Log::recover(root, id, config, deps, &Journaled::default()).await
    }

    /// As [`Log::open`], with what the journals of the data directory have of the log: what follows its frames is put into
    /// frames, and durable in them when this returns. The journals must stay as they are until then.
    ///
    /// # Errors
    /// As [`Log::open`]. Where only the journals tell that the log is damaged, that is recorded, and later starts refuse
    /// it, too.
    pub async fn recover(
        root: &Path,
        id: LogId,
        config: LogConfig,
        deps: &LogDeps,
        journaled: &Journaled,
    ) -> Result<(Log, Recovery), OpenError> {
        config.validate()?;
        let mut recovered = recover(root, id, &config, &deps.generations, journaled).await?;
        let (found, appends) = (recovered.found.clone(), std::mem::take(&mut recovered.redo));
        let log = Log(Rc::new(core(root, id, config, deps, recovered)));
        log.redo(appends).await?;
        {
            let LogState { producers, producers_counted, .. } = &mut *log.0.state.borrow_mut();
            log.0.producer_budget.settle(producers_counted, producers);
        }
        producer_snapshots::renew(&log.0);
        log_start::tidy_later(&log.0);
        Ok((log, found))
    }

    async fn redo(&self, appends: Vec<JournaledAppend>) -> Result<(), OpenError> {
        let log = &self.0;
        let redone = async {
            redo::redo(log, appends).await?;
            redo::skip_reserved(log).await
        };
        if let Err(error) = redone.await {
            log.gate.close().await;
            self.let_go();
            return Err(self.redo_failed(error));
        }
        Ok(())
    }

    fn redo_failed(&self, error: RedoError) -> OpenError {
        let log = &self.0;
        let (expected, proven_end) = match error {
            RedoError::Io(source) => {
                return OpenError::Io { id: log.id, action: "put what the journal has into a segment", source };
            }
            RedoError::Malformed { base_offset, next_offset } => (base_offset, next_offset),
        };
        let segment = log.dir.clone();
        let damage = Damage::JournalMalformed;
        OpenError::Corrupt(Box::new(Corruption { id: log.id, segment, position: 0, expected, damage, proven_end }))
    }

    /// Changes how the log is kept, from the next append on: nothing that is there is written anew, and the active
    /// segment is sealed when the next frame meets the new limits. Without a [`LogConfig::flush_interval`] nothing is
    /// acknowledged from now on before it is durable, and what is not yet goes into frames.
    ///
    /// # Errors
    /// When no log can be kept so; nothing is changed then.
    pub fn reconfigure(&self, config: LogConfig) -> Result<(), InvalidConfig> {
        config.validate()?;
        let (log, is_relaxed) = (&self.0, config.flush_interval.is_some());
        let was_relaxed = log.config.replace(Rc::new(config)).flush_interval.is_some();
        if was_relaxed && !is_relaxed {
            let end = {
                let mut state = log.state.borrow_mut();
                state.written = JournaledRuns::default();
                state.end
            };
            // Whoever waits now need not wait for the end of an interval.
            log.write_until(end);
            writer::wake(log);
        }
        Ok(())
    }

    /// Which partition.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.0.id
    }

    /// Accepts an append. Appends get their offsets, and are acknowledged, in the order of these calls.
    ///
    /// The future is done when the append is durable, or with a [`LogConfig::flush_interval`], when it can be read. Its
    /// error says whether something may have been written.
    pub fn append(&self, append: Append) -> Appending {
        if let Err(error) = self.accepts(&append) {
            return Appending::refused(error);
        }
        let (waiter, outcome) = oneshot();
        self.0.state.borrow_mut().queue.push(Queued { append, waiter });
        writer::wake(&self.0);
        Appending::staged(outcome)
    }

    fn accepts(&self, append: &Append) -> Result<(), AppendError> {
        let (bytes, config) = (append.payload_bytes(), self.0.config());
        let state = self.0.state.borrow();
        if let Some(poison) = &state.poison {
            return Err(AppendError::Poisoned(poison.clone()));
        }
        if state.phase != Phase::Open {
            return Err(AppendError::Closed);
        }
        if bytes > config.payload_bytes_limit() {
            return Err(AppendError::TooLarge { bytes, bytes_max: config.payload_bytes_limit() });
        }
        let staged_bytes = state.queue.payload_bytes();
        if !state.queue.is_empty() && staged_bytes + bytes > config.staged_bytes_max {
            return Err(AppendError::Overloaded { staged_bytes, staged_bytes_max: config.staged_bytes_max });
        }
        Ok(())
    }

    /// Reads whole batches from the one that holds `from` on: at most `max_bytes`, but at least one batch; nothing at
    /// the readable end ([`LogOffsets::readable`]).
    ///
    /// # Errors
    /// When the log does not hold `from`, what is there is damaged, or the disk fails.
    pub async fn read(&self, from: Offset, max_bytes: usize) -> Result<LogRead, ReadError> {
        reader::read(&self.0, from, max_bytes).await
    }

    /// The first durable record with a timestamp at or after `timestamp`, and its own timestamp; `None` when every
    /// record is earlier.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub async fn find_timestamp(&self, timestamp: Timestamp) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        timestamp::find(&self.0, timestamp).await
    }

    /// Deletes the records below `before`, durably, and returns where the log begins then: there, or above if it began
    /// above already. Segments that hold nothing else are removed, the active one too.
    ///
    /// # Errors
    /// When `before` is beyond the readable end, the log is offline or closed, or the new start cannot be recorded.
    /// Only of the last one it is not known whether the records are deleted: they are until the next start.
    pub async fn delete_records(&self, before: Offset) -> Result<Offset, DeleteRecordsError> {
        log_start::delete_records(&self.0, before).await
    }

    /// Deletes, as [`Log::delete_records`] does, what is older or more than [`LogConfig`] says at `now`; returns where the
    /// log begins then. Costs next to nothing when nothing has to go.
    ///
    /// # Errors
    /// When it cannot be seen how old records are, or they cannot be deleted. The next call tries again.
    pub async fn retain(&self, now: Timestamp) -> Result<Offset, RetainError> {
        retention::retain(&self.0, now).await
    }

    /// How far the log reaches now.
    #[must_use]
    pub fn offsets(&self) -> LogOffsets {
        let state = self.0.state.borrow();
        let LogState { start, durable, readable, end, .. } = *state;
        let offsets = LogOffsets { start, durable, readable, end };
        assert!(start <= durable && durable <= readable && readable <= end, "{offsets:?}");
        offsets
    }

    /// A signal of the readable offset having moved, or of the log having gone offline or been closed. Take it before
    /// looking at [`Log::offsets`].
    pub fn readable_moved(&self) -> Listener {
        self.0.readable_moved.listen()
    }

    /// The epoch that is written into the batches from now on. At first 0.
    pub fn set_leader_epoch(&self, epoch: LeaderEpoch) {
        self.0.state.borrow_mut().leader_epoch = epoch;
    }

    /// Seals the active segment if its first frame is as old as a segment may get at `now`. Appends see to it by
    /// themselves; this is for logs without any.
    pub fn roll_if_due(&self, now: Timestamp) {
        {
            let mut state = self.0.state.borrow_mut();
            if state.phase != Phase::Open || !writer::is_aged(&self.0, &state, now) {
                return;
            }
            state.roll_asked = true;
        }
        writer::wake(&self.0);
    }

    /// Puts into frames what is staged below `below`, and whatever else the journal has already, so that it need not keep
    /// it.
    pub fn checkpoint(&self, below: Offset) {
        let readable = self.0.state.borrow().readable;
        self.0.write_until(readable.max(below));
        writer::wake(&self.0);
    }

    /// The end of the durable frames. What is durable beyond has the journal alone.
    #[must_use]
    pub fn frames_end(&self) -> Offset {
        self.0.state.borrow().window.frames_end()
    }

    /// Whether the journal still has to keep what it has of the log below `offset`.
    #[must_use]
    pub fn journal_need(&self, offset: Offset) -> JournalNeed {
        let state = self.0.state.borrow();
        if state.deleted || offset <= state.window.frames_end() {
            JournalNeed::None
        } else if state.is_usable() {
            JournalNeed::UntilCheckpoint
        } else {
            JournalNeed::UntilRecovery
        }
    }

    pub(crate) fn core(&self) -> &Rc<LogCore> {
        &self.0
    }

    pub(crate) fn of(core: Rc<LogCore>) -> Log {
        Log(core)
    }

    /// Bytes of all segments: frames with headers and padding, and the room that is kept for what is staged. Known without
    /// looking at the disk.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let state = self.0.state.borrow();
        let sealed: u64 = state.sealed.iter().map(|segment| segment.end_position()).sum();
        sealed + state.active.as_ref().map_or(0, |active| active.position) + state.staging.frame_bytes()
    }

    /// Why the log is offline, if it is.
    #[must_use]
    pub fn poisoned(&self) -> Option<Arc<Poison>> {
        self.0.state.borrow().poison.clone()
    }

    /// Writes what is staged, waits until it is durable, keeps the indexes and records the clean end. Then nothing
    /// can be appended or read any more.
    ///
    /// # Errors
    /// When the log went offline, or its clean end could not be recorded. It is closed all the same.
    pub async fn close(&self) -> Result<(), CloseError> {
        let log = &self.0;
        if log.state.borrow().phase != Phase::Open {
            self.closed().await;
            return Ok(());
        }
        log.state.borrow_mut().phase = Phase::Closing;
        self.checkpoint_all().await;
        log.gate.close().await;
        let poison = log.state.borrow().poison.clone();
        let result = match poison {
            Some(poison) => Err(CloseError::Poisoned(poison)),
            None => self.record_clean_end().await.map_err(|source| CloseError::Record { id: log.id, source }),
        };
        self.let_go();
        result
    }

    /// Waits for a close that another caller began.
    async fn closed(&self) {
        loop {
            let moved = self.0.readable_moved.listen();
            if self.0.state.borrow().phase == Phase::Closed {
                return;
            }
            moved.await;
        }
    }

    /// Waits until nothing is queued, staged or in flight, or the log was given up.
    async fn checkpoint_all(&self) {
        loop {
            let moved = self.0.writer_moved.listen();
            self.checkpoint(self.offsets().end);
            {
                let state = self.0.state.borrow();
                let written = state.queue.is_empty() && state.staging.is_empty() && state.window.in_flight() == 0;
                if !state.writing && (written || state.poison.is_some()) {
                    return;
                }
            }
            moved.await;
        }
    }

    async fn record_clean_end(&self) -> Result<(), RecordError> {
        let log = &self.0;
        let (known, end) = {
            let state = log.state.borrow();
            let Some(known) = state.generations.clone() else { return Ok(()) };
            (known, state.end)
        };
        if known.clean_end() == Some(end) {
            return Ok(());
        }
        self.keep_indexes(end).await;
        self.keep_producers().await;
        let (generation, _) = known.latest();
        let closed = Fact::Closed { id: log.id, number: known.number(), generation, end };
        log.generations.record(closed).await
    }

    /// Keeps the active segment's indexes, and gives back its unused space. Both are a matter of speed alone.
    async fn keep_indexes(&self, end: Offset) {
        let _alone = self.0.indexing.acquire(1).await;
        let (segment, open, position, known) = {
            let state = self.0.state.borrow();
            let (Some(active), Some(known)) = (&state.active, &state.generations) else { return };
            (active.segment.clone(), active.open.clone(), active.position, known.clone())
        };
        let indexes = open.indexes.borrow().clone();
        let stored = segment.store_indexes(&indexes, &known, end, position).await;
        let cut = open.file.truncate(position).await;
        if let Err(error) = stored.and(cut) {
            tracing::warn!(partition = %self.0.id, %error, "could not keep the indexes of a log");
        }
    }

    /// Keeps what is known of producers, so that the next start need not read it from the frames.
    async fn keep_producers(&self) {
        let log = &self.0;
        let snapshot = producer_snapshots::take(log, &mut log.state.borrow_mut());
        if let Some(snapshot) = snapshot {
            producer_snapshots::store(log, &snapshot).await;
        }
    }

    /// Closes the files and forgets the frames.
    fn let_go(&self) {
        let log = &self.0;
        {
            let mut state = log.state.borrow_mut();
            state.phase = Phase::Closed;
            state.forget_producers(&log.producer_budget);
            let sealed = std::mem::take(&mut state.sealed);
            log.open_segments.forget(|segment| sealed.iter().any(|own| Rc::ptr_eq(own, segment)));
            sealed.iter().for_each(|segment| segment.set_opened(None));
            state.sealed = sealed;
            if let Some(active) = state.active.take() {
                active.segment.set_opened(None);
            }
        }
        log.tail_frames.clear();
        log.cold_frames.clear();
        log.readable_moved.notify_all();
        log.notify_frames_moved();
    }

    /// Removes the log: appends that are not durable fail, files and memory are freed. That it was deleted is on record,
    /// durably, before this is called.
    ///
    /// # Errors
    /// When its files cannot be removed, or the removal cannot be recorded. Call [`Log::remove_files`] to try again.
    pub async fn delete(&self) -> Result<(), DeleteError> {
        let log = &self.0;
        let (queued, waiters) = {
            let mut state = log.state.borrow_mut();
            state.phase = Phase::Closed;
            state.deleted = true;
            (state.queue.take_all(), std::mem::take(&mut state.waiters))
        };
        let waiters = waiters.into_iter().map(|(_, waiter)| waiter);
        for waiter in waiters.chain(queued.into_iter().map(|queued| queued.waiter)) {
            // Whoever asked may be gone.
            let _ = waiter.send(Err(AppendError::Closed));
        }
        log.writer_moved.notify_all();
        log.gate.close().await;
        self.let_go();
        Log::remove_files(&log.root, log.id, &log.generations).await
    }

    /// Removes the files of a log that is not open: one that could not be opened, or whose topic was deleted while
    /// the broker was down. No error when there are none.
    ///
    /// # Errors
    /// As [`Log::delete`].
    pub async fn remove_files(root: &Path, id: LogId, generations: &Generations) -> Result<(), DeleteError> {
        remove_dirs(root, id).await.map_err(|source| DeleteError::Io { id, source })?;
        let Some(known) = generations.of(id) else { return Ok(()) };
        let removed = generations.record(Fact::Removed { id, number: known.number() }).await;
        removed.map_err(|source| DeleteError::Record { id, source })
    }
}

/// Removes the log's directory, durably, and its topic's when that was the last one in it. The topic's other logs may
/// be removed at the same time, on other cores too: any of them may turn out to be the last.
async fn remove_dirs(root: &Path, id: LogId) -> io::Result<()> {
    let topic_dir = id.topic_dir(root);
    let mut removed = was_there(fs::remove_dir_all(id.log_dir(root)).await)?;
    match fs::remove_dir(&topic_dir).await {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            if !removed || was_there(fs::sync_dir(&topic_dir).await)? {
                return Ok(());
            }
            // Another one has taken the topic's directory meanwhile, and what was in it is gone when that is.
        }
        result => removed |= was_there(result)?,
    }
    if removed { fs::sync_dir(root).await } else { Ok(()) }
}

/// Whether there was something to do it to.
fn was_there(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.map(|()| true),
    }
}

fn core(root: &Path, id: LogId, config: LogConfig, deps: &LogDeps, recovered: Recovered) -> LogCore {
    let position = recovered.active.as_ref().map_or(0, |active| active.position);
    let state = LogState {
        phase: Phase::Open,
        deleted: false,
        poison: None,
        leader_epoch: LeaderEpoch::ZERO,
        start: recovered.start,
        durable: recovered.end,
        readable: recovered.end,
        end: recovered.end,
        queue: Queue::default(),
        staging: Staging::default(),
        write_until: recovered.end,
        queued_for_journal: 0,
        journaled: JournaledRuns::default(),
        written: JournaledRuns::default(),
        relaxed_end: Offset::ZERO,
        reserving: false,
        producers: recovered.producers,
        producers_counted: Counted::default(),
        producer_snapshot: recovered.producer_snapshot,
        producer_hint: None,
        waiters: std::collections::VecDeque::new(),
        window: WriteWindow::new(recovered.end, position),
        sealed: recovered.sealed,
        compacted_until: recovered.generations.as_ref().map_or(Offset::ZERO, |known| known.compacted_until()),
        tombstones_due: None,
        compaction_rests_until: Timestamp::new(0),
        active: recovered.active,
        retired: recovered.retired,
        tidying_later: false,
        left_over: None,
        generations: recovered.generations,
        generation: None,
        writing: false,
        making_room: false,
        roll_asked: false,
    };
    LogCore {
        id,
        root: root.to_owned(),
        dir: id.log_dir(root),
        config: RefCell::new(Rc::new(config)),
        generations: deps.generations.clone(),
        journal: deps.journal.clone(),
        relaxed_journal: deps.relaxed_journal.clone(),
        open_segments: deps.open_segments.clone(),
        producer_budget: deps.producer_budget.clone(),
        reserve: deps.reserve.clone(),
        tail_frames: deps.cache.written(),
        cold_frames: deps.cache.read(),
        read_ahead: crate::read_ahead::ReadAhead::default(),
        rebuilding: Semaphore::new(1),
        reshaping: Semaphore::new(1),
        indexing: Semaphore::new(1),
        moving_start: Semaphore::new(1),
        storing_snapshot: Semaphore::new(1),
        state: state.into(),
        readable_moved: Event::new(),
        writer_moved: Event::new(),
        gate: Gate::new(),
    }
}
