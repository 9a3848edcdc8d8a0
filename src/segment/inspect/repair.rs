//! Making a log serve again that recovery refuses, without what is damaged.
//!
//! What can be kept is a prefix: offsets have no gaps, so everything before the damage is kept, and nothing behind it.
//! The cut is an entry in the generation table. Files behind it are moved into a directory beside the logs, and never
//! removed. The order is such that a crash leaves a log that is refused as before, or one that is repaired.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_index::FramePlace;
use ringmq_runtime::buffer::{AlignedBuf, BLOCK_BYTES};
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::fs;
use ringmq_wire::Offset;

use crate::check::FrameCheck;
use crate::failure::{Corruption, Damage};
use crate::frame::{FrameFault, Generation};
use crate::generation::{Fact, GenerationHistory, Generations, LogGenerations, RecordError};
use crate::layout::{FileKind, LogId, file_name};
use crate::recovery::{Files, OpenError, Without, judge, refuse_doubt};
use crate::redo::{Journaled, UnreadJournal};
use crate::scan::FrameScanner;

/// Where files go that are not kept, within the directory of the logs.
const DAMAGED: &str = "damaged";
/// What is copied at a time, in bytes.
const PIECE_BYTES: usize = 512 << 10;

/// How a damaged log is made to serve again. Nothing is changed before [`RepairPlan::carry_out`].
#[derive(Debug)]
pub struct RepairPlan {
    /// The log.
    pub id: LogId,
    /// Why recovery refuses it.
    pub damage: Corruption,
    /// The records that are kept. The next record gets the offset behind.
    pub kept: Range<Offset>,
    /// One past the last offset that is known to have been acknowledged: what lies between is lost, and its offsets will be
    /// given again.
    pub acknowledged_end: Offset,
    /// The segment that the log will end in; `None` where all are missing, and an empty one is made.
    pub last_segment: Option<PathBuf>,
    /// Segments behind that, and damaged ones that compaction was putting in the place of others: moved, with their
    /// indexes.
    pub moved: Vec<PathBuf>,
    /// Where these go, and a copy of the last segment as it was.
    pub aside: PathBuf,
    dir: PathBuf,
    cut: Fact,
}

/// Why there is nothing that a repair could do.
#[derive(Debug, thiserror::Error)]
pub enum Unrepairable {
    /// Recovery accepts the log.
    #[error(
        "partition {id} is not refused at a start: there is nothing to repair. `ringmq log check` tells what is damaged"
    )]
    Served {
        /// The log.
        id: LogId,
    },
    /// What is damaged are the generation tables.
    #[error(
        "{0}. It is the generation tables that lost something, and without them nobody can tell what belongs to the log: \
         restore the directory \"generations\" from a copy, or delete the topic"
    )]
    Tables(Box<Corruption>),
    /// It is refused for something else than damage.
    #[error(transparent)]
    Open(OpenError),
    /// The log would still be refused.
    #[error("cutting it before the damage does not help, because then: {0}")]
    StillRefused(OpenError),
    /// The file system failed.
    #[error("partition {id}: cannot read a segment: {source}")]
    Io {
        /// The log.
        id: LogId,
        /// Why; names the file.
        source: io::Error,
    },
}

/// Why a repair could not be carried out. Trying again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The file system failed.
    #[error("partition {id}: cannot {action}: {source}. The repair can be run again")]
    Io {
        /// The log.
        id: LogId,
        /// What was being done.
        action: &'static str,
        /// Why; names the file.
        source: io::Error,
    },
    /// The cut could not be recorded. Nothing of the log was changed.
    #[error("partition {id}: cannot record the cut: {source}")]
    Record {
        /// The log.
        id: LogId,
        /// Why.
        source: RecordError,
    },
}

impl RepairPlan {
    /// What is damaged, what can be kept, and what will be lost. Changes nothing.
    ///
    /// # Errors
    /// When there is nothing to repair, or a cut would not help.
    pub async fn new(
        root: &Path,
        id: LogId,
        history: &GenerationHistory,
        journaled: &Journaled,
    ) -> Result<RepairPlan, Unrepairable> {
        let io = |source| Unrepairable::Io { id, source };
        let known = history.of(id);
        refuse_doubt(root, id, known.as_ref(), history.doubt(id)).await.map_err(Unrepairable::Open)?;
        // The one who repairs takes a missing file for lost.
        let is_missing = matches!(journaled.unread.as_deref(), Some(UnreadJournal::Missing { .. }));
        let found = Journaled { unread: journaled.unread.clone().filter(|_| !is_missing), ..journaled.clone() };
        let with_lost = Journaled { lost_unknown: found.lost_unknown || is_missing, ..found.clone() };
        let journaled = &found;
        let damage = match judge(root, id, known.clone(), &with_lost, &Without::default()).await {
            Ok(_) => return Err(Unrepairable::Served { id }),
            Err(OpenError::Corrupt(damage)) => *damage,
            Err(error) => return Err(Unrepairable::Open(error)),
        };
        let tables_lost =
            matches!(damage.damage, Damage::GenerationsMissing | Damage::Frame(FrameFault::UnknownGeneration(_)));
        let Some(known) = known.filter(|_| !tables_lost) else { return Err(Unrepairable::Tables(Box::new(damage))) };

        let (dir, start) = (id.log_dir(root), known.log_start());
        let mut log = DamagedLog::new(root, id, &dir, &known, journaled).await.map_err(io)?;
        let (last_base, end) = log.prefix().await?;
        let generation = known.latest().0.next();
        let plan = RepairPlan {
            id,
            kept: start..end,
            acknowledged_end: damage.proven_end.max(end),
            damage,
            last_segment: last_base.map(|base| log.path(base)),
            moved: log.behind(last_base).await.map_err(io)?,
            aside: DamagedLog::aside(root, id, generation),
            cut: Fact::Repaired { id, number: known.number(), generation, start: end },
            dir: dir.clone(),
        };
        log.refuse_what_does_not_help(last_base, generation, end).await?;
        Ok(plan)
    }

    /// Repairs the log. Everything is durable when this returns.
    ///
    /// # Errors
    /// When the disk fails or is full. The log is then refused as before, or repaired; it can be tried again.
    pub async fn carry_out(&self, root: &Path, generations: &Generations) -> Result<(), RepairError> {
        let failed = |action| move |source| RepairError::Io { id: self.id, action, source };
        self.copy_aside(root).await.map_err(failed("keep a copy of the damaged segment"))?;
        if self.last_segment.is_none() {
            // There has to be a file: a log that the tables know and that has none is damaged.
            self.move_behind().await.map_err(failed("move segments aside"))?;
            self.make_empty_segment(root).await.map_err(failed("make an empty segment"))?;
        }
        generations.record(self.cut).await.map_err(|source| RepairError::Record { id: self.id, source })?;
        self.move_behind().await.map_err(failed("move segments aside"))
    }

    async fn copy_aside(&self, root: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.aside).await?;
        for dir in self.aside.ancestors().take_while(|dir| dir.starts_with(root)) {
            fs::sync_dir(dir).await?;
        }
        let Some(segment) = &self.last_segment else { return Ok(()) };
        let copy = self.aside.join(segment.file_name().unwrap_or_default());
        let temporary = copy.with_extension("tmp");
        fs::remove_file_if_there(&temporary).await?;
        copy_file(segment, &temporary).await?;
        fs::rename(&temporary, &copy).await?;
        fs::sync_dir(&self.aside).await
    }

    /// The segments behind the last one, and the indexes of all of these: those of the last one reach beyond its end.
    async fn move_behind(&self) -> io::Result<()> {
        for segment in &self.moved {
            self.move_aside(segment).await?;
        }
        for segment in self.moved.iter().chain(&self.last_segment) {
            self.move_aside(&segment.with_extension("index")).await?;
            self.move_aside(&segment.with_extension("timeindex")).await?;
        }
        fs::sync_dir(&self.aside).await?;
        match fs::exists(&self.dir).await? {
            true => fs::sync_dir(&self.dir).await,
            false => Ok(()),
        }
    }

    async fn move_aside(&self, file: &Path) -> io::Result<()> {
        match fs::rename(file, self.aside.join(file.file_name().unwrap_or_default())).await {
            // Moved by a run that broke off.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
            moved => moved,
        }
    }

    async fn make_empty_segment(&self, root: &Path) -> io::Result<()> {
        let path = self.dir.join(file_name(self.kept.start, FileKind::Log));
        fs::create_dir_all(&self.dir).await?;
        if !fs::exists(&path).await? {
            File::open(&path, OpenOptions { write: true, create_new: true, dsync: false }).await?.close().await?;
        }
        for dir in self.dir.ancestors().take_while(|dir| dir.starts_with(root)) {
            fs::sync_dir(dir).await?;
        }
        Ok(())
    }
}

/// A log that recovery refuses.
struct DamagedLog<'a> {
    root: &'a Path,
    id: LogId,
    dir: &'a Path,
    known: &'a LogGenerations,
    journaled: &'a Journaled,
    start: Offset,
    /// Compacted segments that are damaged, and have not got their names yet: what they were made of counts instead.
    damaged_swaps: Vec<PathBuf>,
    /// What is in its directory without these.
    files: Files,
}

impl<'a> DamagedLog<'a> {
    async fn new(
        root: &'a Path,
        id: LogId,
        dir: &'a Path,
        known: &'a LogGenerations,
        journaled: &'a Journaled,
    ) -> io::Result<DamagedLog<'a>> {
        let (start, damaged_swaps, files) = (known.log_start(), Vec::new(), Files::default());
        let mut log = DamagedLog { root, id, dir, known, journaled, start, damaged_swaps, files };
        log.list().await?;
        Ok(log)
    }

    /// The files, without those that lie below the start as a whole: they are deleted.
    async fn list(&mut self) -> io::Result<()> {
        self.files = Files::list(self.dir).await?;
        self.files.leave_out(&self.without(None));
        self.files.replace();
        let holds_start = self.files.bases.iter().rposition(|base| *base <= self.start).unwrap_or(0);
        self.files.bases.drain(..holds_start);
        Ok(())
    }

    /// What a repair takes away that lets the log end in the segment with base `behind`.
    fn without(&self, behind: Option<Offset>) -> Without {
        Without { behind, swaps: self.damaged_swaps.clone() }
    }

    /// Where the frames of a segment are now.
    fn path(&self, base: Offset) -> PathBuf {
        self.files.segment(self.dir, base).path(FileKind::Log)
    }

    /// The files of frames that the log does without when it ends in the segment with base `last`.
    async fn behind(&self, last: Option<Offset>) -> io::Result<Vec<PathBuf>> {
        let is_behind = |base: Offset| last.is_none_or(|last| base > last);
        let first = self.files.bases.first().copied().unwrap_or(self.start);
        let all = Files::list(self.dir).await?;
        let stays = |base: Offset| self.files.swaps.iter().any(|swap| swap.replaces(base) && !is_behind(swap.base));
        let segments = all.bases.iter().filter(|base| **base >= first && is_behind(**base) && !stays(**base));
        let swaps = all.swaps.iter().filter(|swap| is_behind(swap.base) || self.damaged_swaps.contains(&swap.path));
        let segments = segments.map(|base| self.dir.join(file_name(*base, FileKind::Log)));
        Ok(segments.chain(swaps.map(|swap| swap.path.clone())).collect())
    }

    /// The base of the segment that the log will end in, if any is left, and the end of what can be kept.
    async fn prefix(&mut self) -> Result<(Option<Offset>, Offset), Unrepairable> {
        // By a verdict alone: what is there may be in order, as far as it goes.
        let known = self.known.without_verdict();
        loop {
            let judged = judge(self.root, self.id, Some(known.clone()), self.journaled, &self.without(None)).await;
            let damage = match judged {
                Ok(judgement) => return Ok((self.files.bases.last().copied(), judgement.end)),
                Err(OpenError::Corrupt(damage)) => damage,
                Err(error) => return Err(Unrepairable::Open(error)),
            };
            let is_damaged = self.files.swaps.iter().any(|swap| swap.path == damage.segment);
            if !is_damaged || self.damaged_swaps.contains(&damage.segment) {
                return self.before(&damage).await;
            }
            self.damaged_swaps.push(damage.segment);
            self.list().await.map_err(|source| Unrepairable::Io { id: self.id, source })?;
        }
    }

    /// The same, where the log is cut before the damage.
    async fn before(&self, damage: &Corruption) -> Result<(Option<Offset>, Offset), Unrepairable> {
        let bases = &self.files.bases;
        let contains = |base: &&Offset| **base <= damage.expected;
        let first = bases.first().copied().filter(|base| *base <= self.start);
        let Some(last) = first.and_then(|_| bases.iter().rfind(contains)).copied() else {
            return Ok((None, self.start));
        };
        let frames_end = self.frames_end(last).await.map_err(|source| Unrepairable::Io { id: self.id, source })?;
        let frames_end = frames_end.min(damage.expected);
        let redo = self.journaled.following(self.known, frames_end);
        let sound = redo.iter().take_while(|append| append.is_well_formed());
        let end = sound.map(|append| append.next_offset).last().unwrap_or(frames_end);
        // Where nothing of the log can be kept, it goes on empty.
        Ok(if end < self.start { (None, self.start) } else { (Some(last), end) })
    }

    /// Where the frames of a segment end that follow each other from its beginning.
    async fn frames_end(&self, base: Offset) -> io::Result<Offset> {
        let file = File::open(self.path(base), OpenOptions::default()).await?;
        let check = FrameCheck { id: self.id, segment_base: base, generations: Rc::new(self.known.clone()) };
        let mut scanner = FrameScanner::new(&file, check, FramePlace { offset: base, position: 0 }).await?;
        while scanner.next().await?.is_ok() {}
        file.close().await?;
        Ok(scanner.expected())
    }

    /// Asks recovery what it would make of the log after the cut.
    async fn refuse_what_does_not_help(
        &self,
        last_base: Option<Offset>,
        generation: Generation,
        end: Offset,
    ) -> Result<(), Unrepairable> {
        let mut known = self.known.clone();
        known.repaired(generation, end);
        if last_base.is_none() {
            // Nothing of it is left that could be damaged.
            return Ok(());
        }
        match judge(self.root, self.id, Some(known), self.journaled, &self.without(last_base)).await {
            Ok(judgement) => {
                debug_assert_eq!(judgement.end, end);
                Ok(())
            }
            Err(error) => Err(Unrepairable::StillRefused(error)),
        }
    }

    fn aside(root: &Path, id: LogId, generation: Generation) -> PathBuf {
        root.join(DAMAGED).join(id.topic_id.to_string()).join(id.partition.to_string()).join(generation.to_string())
    }
}

/// Copies a file, durably but for its name.
pub(super) async fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from, OpenOptions::default()).await?;
    let copy = File::open(to, OpenOptions { write: true, create_new: true, dsync: false }).await?;
    let bytes = source.size().await?;
    copy.preallocate(bytes.next_multiple_of(BLOCK_BYTES as u64)).await?;
    let mut position = 0;
    while position < bytes {
        let read = source.read_at(position, PIECE_BYTES, IoClass::Recovery).await?;
        let mut piece = AlignedBuf::zeroed(read.len().next_multiple_of(BLOCK_BYTES));
        piece[..read.len()].copy_from_slice(&read);
        copy.write_at(&piece.freeze(), position, IoClass::Checkpoint).await?;
        position += PIECE_BYTES as u64;
    }
    copy.truncate(bytes).await?;
    copy.fdatasync().await?;
    copy.close().await?;
    source.close().await
}
