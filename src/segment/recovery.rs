//! Opening a log: what is on the disk, how far it was acknowledged, and where it goes on.
//!
//! In this order: list the segments; find the last one that was ever written to, locking each on the way; scan its
//! frames; see what the journals have that follows; decide whether what is missing behind that was acknowledged; make
//! durable what was found; remove what lies beyond the end. What the journals have is put into frames then (`redo`). It can
//! crash at any point and starts again from the same files: nothing is changed before
//! that is decided, and what is changed after it is changed back by nobody.
//!
//! # What a segment's content proves
//! A segment is created ahead of its first frame, and gets that frame only when the one before is durable to its end.
//! So an empty file, or one of zeros alone, proves nothing: its roll may have failed, and the log gone on before it.
//! Any other byte proves that the segment before was complete, and that nothing is in flight there any more.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_index::FramePlace;
use ringmq_runtime::file::{File, IoClass, LOCK_WAIT_MAX, OpenOptions};
use ringmq_runtime::fs;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::time;
use ringmq_wire::{Offset, Timestamp};

use crate::check::FrameCheck;
use crate::config::{InvalidConfig, LogConfig};
use crate::failure::{Corruption, Damage};
use crate::generation::{Generations, JournalFile, LogGenerations, LostTable, RecordError};
use crate::layout::{FileKind, LogId, file_name};
use crate::producer_recovery::{ProducerRecovery, RecoveredProducers};
use crate::producers::Producers;
use crate::redo::{Journaled, JournaledAppend, UnreadJournal};
use crate::segment::{ActiveSegment, Indexes, OpenSegment, Segment, TimeSpan};

mod evidence;
mod files;
mod tail;

pub(crate) use files::Files;
use tail::{Extent, Tail};

/// What opening a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing was ever appended. There are no files.
    Empty,
    /// Every frame that was written is there.
    Clean {
        /// The end of the log.
        end: Offset,
    },
    /// Behind the last good frame stood frames that were never acknowledged; they are cut off.
    CutTail {
        /// The end of the log: the cut.
        end: Offset,
        /// The segment that was cut.
        segment: PathBuf,
        /// Where in it.
        position: u64,
        /// Headers of frames found behind the cut; none if the first one is damaged and the only one.
        frames: u32,
    },
}

/// Why a log cannot be opened. The partition stays offline; the others are not concerned.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log's settings make no sense.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// Acknowledged data is damaged. Nothing on disk was changed.
    #[error("{0}. {why}", why = .0.why_refused())]
    Corrupt(Box<Corruption>),
    /// Another process writes the log, or has requests in flight that do not end.
    #[error(
        "partition {id}: {} is still written by another process after {LOCK_WAIT_MAX:?}. Stop the other broker, then \
         start this one again",
        path.display()
    )]
    Locked {
        /// The log.
        id: LogId,
        /// The segment.
        path: PathBuf,
    },
    /// A file of the journals cannot be read, and may have acknowledged records of the log that its segments lack.
    #[error(
        "partition {id}: the journal {} cannot be read, and acknowledged records may be in it alone. Nothing was changed; the \
         partition stays offline until a start can read the file. Mend the disk and start again. Without the file (move it to \
         another directory, with the broker stopped) a start takes what it had for lost, and `ringmq log repair` keeps what \
         the segments have",
        path.display()
    )]
    JournalUnread {
        /// The log.
        id: LogId,
        /// The file.
        path: PathBuf,
    },
    /// A file of the journals is missing, and nobody can tell whether it was lost or removed.
    #[error(
        "partition {id}: {file} is missing in the directory of the journals, and {lost}: it may have said that the file was \
         removed, or acknowledged records were in it alone. Nothing was changed; the partition stays offline. Restore the \
         table, as it was when the broker was stopped last, from a copy, or mend the disk; or keep what the segments have with \
         `ringmq log repair`"
    )]
    JournalMissing {
        /// The log.
        id: LogId,
        /// The file.
        file: JournalFile,
        /// What cannot be read of the tables.
        lost: LostTable,
    },
    /// A generation table may have said something of the log that cannot be read any more.
    #[error(
        "partition {id}: {lost}, and may have said where the partition begins or ends. Nothing was changed; the partition \
         stays offline. Restore the file, as it was when the broker was stopped last, from a copy, or delete the topic"
    )]
    TableLost {
        /// The log.
        id: LogId,
        /// What cannot be read.
        lost: LostTable,
    },
    /// The metadata had lost the partition when the broker started, and has it again.
    #[error(
        "partition {id}: when the broker started, the metadata did not have the partition, and the journals may have had \
         acknowledged records of it. These are kept for the next start, and the partition stays offline until then: start the \
         broker again"
    )]
    KeptForNextStart {
        /// The log.
        id: LogId,
    },
    /// The file system failed.
    #[error("partition {id}: cannot {action}: {source}")]
    Io {
        /// The log.
        id: LogId,
        /// What was being done.
        action: &'static str,
        /// Why it failed; names the file.
        source: io::Error,
    },
}

/// A log as its files give it, ready for appends.
pub(crate) struct Recovered {
    pub(crate) generations: Option<Rc<LogGenerations>>,
    /// Where the log begins.
    pub(crate) start: Offset,
    /// Segments below that, which are to be removed.
    pub(crate) retired: VecDeque<Rc<Segment>>,
    /// Proven to be durable to the base of the next one.
    pub(crate) sealed: Vec<Rc<Segment>>,
    pub(crate) active: Option<ActiveSegment>,
    /// The end of the frames.
    pub(crate) end: Offset,
    /// What follows them, in the journals.
    pub(crate) redo: Vec<JournaledAppend>,
    pub(crate) found: Recovery,
    /// What the frames tell of idempotent producers.
    pub(crate) producers: Producers,
    /// The offset of the snapshot of that which counted.
    pub(crate) producer_snapshot: Option<Offset>,
}

/// Finds out what `root` and the journals hold of the log.
pub(crate) async fn recover(
    root: &Path,
    id: LogId,
    config: &LogConfig,
    generations: &Generations,
    journaled: &Journaled,
) -> Result<Recovered, OpenError> {
    if journaled.kept_for_next_start {
        return Err(OpenError::KeptForNextStart { id });
    }
    let (dir, known) = (id.log_dir(root), generations.of(id));
    refuse_doubt(root, id, known.as_ref(), generations.doubt(id)).await?;
    refuse_unread(root, id, known.as_ref(), journaled).await?;
    if journaled.lost_unknown {
        // The verdict is durable even where the log's files cannot be looked at.
        generations.suspect(id).await.map_err(|source| not_recorded(id, source))?;
    }
    let (access, files) = (Access::Recover(generations), Files::default());
    let opening = Opening { id, dir, config, access, journaled, files }.with_files(known.as_ref()).await?;
    match opening.judge(known).await? {
        Judged::Empty { unused } => {
            opening.remove_unused(unused).await?;
            Ok(Recovered::empty())
        }
        Judged::Segments(judged) => opening.take_over(*judged).await,
    }
}

/// What [`recover`] would find with these generations, without changing anything: files are opened for reading alone.
/// They are locked all the same, so no broker is at work on them. Those that it is to be `without` are taken for missing.
///
/// # Errors
/// Those that [`recover`] would give.
pub(crate) async fn judge(
    root: &Path,
    id: LogId,
    known: Option<LogGenerations>,
    journaled: &Journaled,
    without: &Without,
) -> Result<Judgement, OpenError> {
    refuse_unread(root, id, known.as_ref(), journaled).await?;
    let (dir, config) = (id.log_dir(root), LogConfig::default());
    let (config, access, files) = (&config, Access::Judge { without }, Files::default());
    let opening = Opening { id, dir, config, access, journaled, files }.with_files(known.as_ref()).await?;
    match opening.judge(known).await? {
        Judged::Empty { .. } => Ok(Judgement { found: Recovery::Empty, ..Judgement::default() }),
        Judged::Segments(judged) => Ok(judged.judgement()),
    }
}

/// What recovery makes of a log, before it changes anything.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    pub(crate) found: Recovery,
    /// The end of the frames, and of the log: between them lies what the journals have.
    pub(crate) frames_end: Offset,
    pub(crate) end: Offset,
    /// Appends that the journals have behind the frames.
    pub(crate) redo: usize,
    /// Segments that were never written to and are not where the log goes on: they are removed.
    pub(crate) beyond: Vec<PathBuf>,
}

impl Default for Judgement {
    fn default() -> Judgement {
        let (frames_end, end) = (Offset::ZERO, Offset::ZERO);
        Judgement { found: Recovery::Empty, frames_end, end, redo: 0, beyond: Vec::new() }
    }
}

impl Recovered {
    /// Where its first segment begins.
    fn first_base(&self) -> Offset {
        let active = self.active.as_ref().map(|active| active.segment.base);
        self.sealed.first().map(|segment| segment.base).or(active).unwrap_or(Offset::ZERO)
    }

    fn empty() -> Recovered {
        let (retired, sealed, redo, found) = (VecDeque::new(), Vec::new(), Vec::new(), Recovery::Empty);
        let (start, end) = (Offset::ZERO, Offset::ZERO);
        let (producers, producer_snapshot) = (Producers::default(), None);
        Recovered {
            generations: None,
            start,
            retired,
            sealed,
            active: None,
            end,
            redo,
            found,
            producers,
            producer_snapshot,
        }
    }
}

/// Where the tables lost something that may have been about the log, nobody knows which of its frames count. Without a file
/// there was never anything.
pub(crate) async fn refuse_doubt(
    root: &Path,
    id: LogId,
    known: Option<&LogGenerations>,
    doubt: Option<LostTable>,
) -> Result<(), OpenError> {
    let Some(lost) = doubt else { return Ok(()) };
    if known.is_none() && !has_files(root, id).await? {
        return Ok(());
    }
    Err(OpenError::TableLost { id, lost })
}

async fn has_files(root: &Path, id: LogId) -> Result<bool, OpenError> {
    let listed = Files::list(&id.log_dir(root)).await;
    let files = listed.map_err(|source| OpenError::Io { id, action: "list the segments", source })?;
    Ok(!files.named.is_empty() || !files.swaps.is_empty())
}

/// What cannot be judged now may be judged by the next start: nothing is changed, and no verdict recorded. The journals have
/// nothing that a log lacks which was never appended to, or was stopped cleanly since.
async fn refuse_unread(
    root: &Path,
    id: LogId,
    known: Option<&LogGenerations>,
    journaled: &Journaled,
) -> Result<(), OpenError> {
    let Some(unread) = &journaled.unread else { return Ok(()) };
    let may_lack = match known {
        Some(known) => known.clean_end().is_none() && known.corrupt().is_none(),
        // The tables lost it, or never had it.
        None => has_files(root, id).await?,
    };
    match UnreadJournal::clone(unread) {
        _ if !may_lack => Ok(()),
        UnreadJournal::Unreadable { path } => Err(OpenError::JournalUnread { id, path }),
        UnreadJournal::Missing { file, lost } => Err(OpenError::JournalMissing { id, file, lost }),
    }
}

fn not_recorded(id: LogId, source: RecordError) -> OpenError {
    OpenError::Io { id, action: "record damage of", source: io::Error::other(source) }
}

/// The place of a segment's first frame.
fn first_of(base: Offset) -> FramePlace {
    FramePlace { offset: base, position: 0 }
}

/// The opening of one log.
struct Opening<'a> {
    id: LogId,
    dir: PathBuf,
    config: &'a LogConfig,
    access: Access<'a>,
    journaled: &'a Journaled,
    files: Files,
}

/// What an opening is for.
enum Access<'a> {
    /// The log is to be served; verdicts are recorded.
    Recover(&'a Generations),
    /// To be told what would be found. Nothing is changed.
    Judge { without: &'a Without },
}

/// Files that a log is to be judged without.
#[derive(Clone, Debug, Default)]
pub(crate) struct Without {
    /// Segments behind the one with this base.
    pub(crate) behind: Option<Offset>,
    /// Compacted segments that have not got their names yet.
    pub(crate) swaps: Vec<PathBuf>,
}

/// What is on the disk, and that it can be served.
enum Judged {
    /// Nothing was ever appended.
    Empty {
        /// A first segment was created, and never written to.
        unused: bool,
    },
    Segments(Box<JudgedSegments>),
}

/// Segments that can be served.
struct JudgedSegments {
    known: Rc<LogGenerations>,
    tail: Tail,
    /// Never written to, and not where the log goes on.
    beyond: Vec<Extent>,
    sealed: Vec<Rc<Segment>>,
    redo: Vec<JournaledAppend>,
    /// The end of the log, with what is to be redone.
    end: Offset,
}

impl JudgedSegments {
    fn judgement(&self) -> Judgement {
        let beyond = self.beyond.iter().map(|extent| extent.segment.path(FileKind::Log)).collect();
        let (found, frames_end) = (self.tail.found(), self.tail.last.end);
        Judgement { found, frames_end, end: self.end, redo: self.redo.len(), beyond }
    }
}

impl Opening<'_> {
    /// Everything that decides whether the log can be served. Changes nothing, but for a verdict that is recorded.
    async fn judge(&self, known: Option<LogGenerations>) -> Result<Judged, OpenError> {
        let bases = &self.files.bases;
        self.refuse_unknown_generations(known.as_ref())?;
        match (known, bases.is_empty()) {
            (None, true) => Ok(Judged::Empty { unused: false }),
            (None, false) => self.never_opened(bases).await,
            (Some(known), true) => {
                let start = known.log_start();
                Err(self.corrupt(start, first_of(start), Damage::FilesMissing, known.proven_end()))
            }
            (Some(known), false) => self.judge_segments(Rc::new(known), bases).await,
        }
    }

    /// A generation is durable before anything is appended under it (rule 2 of the storage protocol). What the journals
    /// have of one that the tables do not know may have been acknowledged: it is the tables that lost something.
    fn refuse_unknown_generations(&self, known: Option<&LogGenerations>) -> Result<(), OpenError> {
        let Some(append) = self.journaled.of_unknown_generation(known) else { return Ok(()) };
        let place = first_of(append.start);
        let base = self.files.bases.iter().rev().find(|base| **base <= append.start);
        Err(self.corrupt(base.copied().unwrap_or(Offset::ZERO), place, Damage::GenerationsMissing, append.end))
    }

    /// Sees what is there. To serve the log, compaction is brought to the end that a crash kept from it; to judge it,
    /// that is taken for done.
    async fn with_files(mut self, known: Option<&LogGenerations>) -> Result<Self, OpenError> {
        let listed = Files::list(&self.dir).await;
        self.files = listed.map_err(|source| self.io("list the segments", source))?;
        if let Access::Judge { without } = self.access {
            self.files.leave_out(without);
        }
        // What cannot be served stays as it is.
        if let Some(known) = known.filter(|known| known.corrupt().is_none()) {
            self.files.leave_below(known.log_start());
            self.judge_swaps(&Rc::new(known.clone())).await?;
            if let Access::Recover(_) = self.access {
                let completed = self.files.complete(&self.dir).await;
                completed.map_err(|source| self.io("bring compaction to an end in", source))?;
            }
            self.files.replace();
        }
        Ok(self)
    }

    /// A compacted segment takes the place of others only if it is sound.
    async fn judge_swaps(&self, known: &Rc<LogGenerations>) -> Result<(), OpenError> {
        for swap in &self.files.swaps {
            let check = FrameCheck { id: self.id, segment_base: swap.base, generations: known.clone() };
            let judged = swap.judge(check).await.map_err(|source| self.io("read a compacted segment", source))?;
            if let Err((place, fault)) = judged {
                let FramePlace { position, offset: expected } = place;
                let (id, segment, damage) = (self.id, swap.path.clone(), Damage::Frame(fault));
                let corruption = Corruption { id, segment, position, expected, damage, proven_end: swap.end };
                return Err(OpenError::Corrupt(Box::new(corruption)));
            }
        }
        Ok(())
    }

    /// A process got as far as creating the first segment, and not to the entry in the generation table that comes
    /// before the first frame. Nothing was ever written to the file, so it must be zero; otherwise it is the table
    /// that lost something.
    async fn never_opened(&self, bases: &[Offset]) -> Result<Judged, OpenError> {
        let lost = |base, position| {
            self.corrupt(base, FramePlace { offset: base, position }, Damage::GenerationsMissing, Offset::ZERO)
        };
        for base in bases {
            let segment = Segment::new(&self.dir, *base);
            let file = self.open_locked(&segment).await?;
            if let Some(position) = self.first_nonzero(&file).await? {
                return Err(lost(*base, position));
            }
            if *base != Offset::ZERO {
                return Err(lost(*base, 0));
            }
        }
        Ok(Judged::Empty { unused: true })
    }

    /// A first segment that was never written to is created anew, with its directories synced, by the first append.
    async fn remove_unused(&self, unused: bool) -> Result<(), OpenError> {
        if !unused {
            return Ok(());
        }
        let removed = Segment::new(&self.dir, Offset::ZERO).remove_files().await;
        removed.map_err(|source| self.io("remove an unused segment", source))
    }

    async fn first_nonzero(&self, file: &File) -> Result<Option<u64>, OpenError> {
        let mut position = 0;
        loop {
            let piece = file.read_at(position, 1 << 20, IoClass::Recovery).await;
            let piece = piece.map_err(|source| self.io("read a segment", source))?;
            if let Some(at) = piece.iter().position(|byte| *byte != 0) {
                return Ok(Some(position + at as u64));
            }
            if piece.len() < 1 << 20 {
                return Ok(None);
            }
            position += piece.len() as u64;
        }
    }

    async fn judge_segments(&self, known: Rc<LogGenerations>, bases: &[Offset]) -> Result<Judged, OpenError> {
        if let Some(proven_end) = known.corrupt() {
            return Err(self.corrupt(bases[0], first_of(bases[0]), Damage::FoundBefore, proven_end));
        }
        let start = known.log_start();
        if bases[0] > start {
            return Err(self.corrupt(start, first_of(start), Damage::SegmentMissing, bases[0]));
        }
        let mut tail = self.find_tail(&known, bases).await?;
        let redo = self.journaled.following(&known, tail.last.end);
        let end = redo.last().map_or(tail.last.end, |last| last.next_offset);
        self.refuse_what_lost_acknowledged(&known, &tail, end)?;
        self.refuse_what_the_journals_lost(&known, &tail, end).await?;
        if let Access::Judge { .. } = self.access {
            self.refuse_malformed(&redo)?;
        }

        let beyond = tail.take_beyond();
        let kept: Vec<Offset> =
            bases.iter().copied().filter(|base| !beyond.iter().any(|extent| extent.segment.base == *base)).collect();
        // The last one that begins at or below the start holds it. Those before are left over.
        let holds_start = kept.iter().rposition(|base| *base <= start).unwrap_or(0);
        let sealed = self.sealed(&known, &kept[holds_start..], &tail).await?;
        Ok(Judged::Segments(Box::new(JudgedSegments { known, tail, beyond, sealed, redo, end })))
    }

    /// Makes durable what was found, and the log ready for appends.
    async fn take_over(&self, judged: JudgedSegments) -> Result<Recovered, OpenError> {
        let JudgedSegments { known, mut tail, beyond, sealed, redo, .. } = judged;
        let producers = self.producers(&known, &mut tail, &sealed).await?;
        let clean = known.clean_end() == Some(tail.last.end) && beyond.is_empty() && redo.is_empty();
        if !clean {
            self.make_snapshot_durable(producers.snapshot).await?;
            self.make_durable(tail.extents(), &beyond).await?;
        }
        let recovered = self.ready_for_appends(known, sealed, tail, redo, producers);
        Ok(Recovered { retired: self.left_below(recovered.first_base()), ..recovered })
    }

    /// Segments below the first one of the log, of which there still are files.
    fn left_below(&self, first: Offset) -> VecDeque<Rc<Segment>> {
        self.files.named.range(..first).map(|base| Rc::new(Segment::new(&self.dir, *base))).collect()
    }

    /// What the log knows of idempotent producers at the end of its frames.
    async fn producers(
        &self,
        known: &Rc<LogGenerations>,
        tail: &mut Tail,
        sealed: &[Rc<Segment>],
    ) -> Result<RecoveredProducers, OpenError> {
        let mut bases: Vec<Offset> = sealed.iter().map(|segment| segment.base).collect();
        bases.extend(Some(tail.last.segment.base).filter(|last| !bases.contains(last)));
        let (id, dir, snapshots, bases) = (self.id, &self.dir, &self.files.snapshots, &bases);
        let (now, expiry) = (Timestamp::new(time::wall_clock()), self.config.producer_expiry);
        let recovery = ProducerRecovery { id, dir, known, snapshots, bases, now, expiry };
        let recovered = recovery.recover(tail.read_anyway()).await;
        recovered.map_err(|source| self.io("find out what producers have stored in", source))
    }

    /// The segments before the last of `bases`. Each must reach to the next: where the header of its index says
    /// otherwise, or cannot be read, its frames are counted. (Without an index that shows only when they are read.)
    async fn sealed(
        &self,
        known: &Rc<LogGenerations>,
        bases: &[Offset],
        tail: &Tail,
    ) -> Result<Vec<Rc<Segment>>, OpenError> {
        let mut sealed = Vec::new();
        for pair in bases.windows(2) {
            let (segment, next) = (Rc::new(self.files.segment(&self.dir, pair[0])), pair[1]);
            // Its frames were just read, and more may stand behind them than counts.
            let read = tail.extents().find(|extent| extent.segment.base == segment.base && extent.end == next);
            if let Some(extent) = read {
                segment.set_span(extent.indexes.span());
                segment.set_end_position(extent.end_position);
                sealed.push(segment);
                continue;
            }
            let end_position = match segment.indexed(known.number()).await {
                Ok(Some(coverage)) if coverage.end == next => {
                    segment.set_span(Some(TimeSpan::of(&coverage)));
                    coverage.end_position
                }
                Ok(Some(_)) => self.count_frames(known, &segment, next).await?,
                Ok(None) => segment.file_bytes().await.map_err(|source| self.io("look at a sealed segment", source))?,
                Err(error) => {
                    tracing::warn!(partition = %self.id, %error, "cannot read an index; counting the segment's frames");
                    self.count_frames(known, &segment, next).await?
                }
            };
            segment.set_end_position(end_position);
            sealed.push(segment);
        }
        Ok(sealed)
    }

    /// Where the frames of a segment end, which must reach to `next`.
    async fn count_frames(
        &self,
        known: &Rc<LogGenerations>,
        segment: &Segment,
        next: Offset,
    ) -> Result<u64, OpenError> {
        let read = |source| self.io("read a sealed segment", source);
        let check = FrameCheck { id: self.id, segment_base: segment.base, generations: known.clone() };
        let file = segment.open_for_reading().await.map_err(read)?;
        let rebuilt = Indexes::rebuild(&file, &check, self.config.index_interval_bytes).await.map_err(read)?;
        if rebuilt.end == next {
            return Ok(rebuilt.end_position);
        }
        let end = FramePlace { offset: rebuilt.end, position: rebuilt.end_position };
        Err(self.corrupt(segment.base, end, Damage::SegmentMissing, next))
    }

    /// A snapshot of producers may have been written without a flush. What comes relies on the one that counts.
    async fn make_snapshot_durable(&self, snapshot: Option<Offset>) -> Result<(), OpenError> {
        let Some(offset) = snapshot else { return Ok(()) };
        let path = self.dir.join(file_name(offset, FileKind::Producers));
        let flushed = async { File::open(&path, OpenOptions::default()).await?.fdatasync().await };
        flushed.await.map_err(|source| self.io("flush a snapshot of producers of", source))
    }

    /// Makes durable what was found: a frame may so far be in the device's cache alone, and a name in the file
    /// system's. Then removes, durably, the segments beyond the end (rule 8 of the storage protocol).
    async fn make_durable(&self, kept: impl Iterator<Item = &Extent>, beyond: &[Extent]) -> Result<(), OpenError> {
        for extent in kept {
            let mut flushed = extent.file.fdatasync().await;
            if flushed.is_err() && SeededBug::RetryFailedFlush.is_in() {
                flushed = extent.file.fdatasync().await;
            }
            flushed.map_err(|source| self.io("flush a segment", source))?;
        }
        for extent in beyond {
            extent.segment.remove_files().await.map_err(|source| self.io("remove a segment beyond the end", source))?;
        }
        fs::sync_dir(&self.dir).await.map_err(|source| self.io("flush the directory", source))
    }

    fn ready_for_appends(
        &self,
        known: Rc<LogGenerations>,
        sealed: Vec<Rc<Segment>>,
        tail: Tail,
        redo: Vec<JournaledAppend>,
        producers: RecoveredProducers,
    ) -> Recovered {
        let (found, end) = (tail.found(), tail.last.end);
        tracing::debug!(partition = %self.id, ?found, fault = %tail.last.fault, "opened a log");
        let taken_over = !tail.unused.is_empty();
        let Extent { segment, file, indexes, indexes_from_files, end_position, file_bytes, .. } = tail.into_active();
        let open = Rc::new(OpenSegment { file, indexes: indexes.into(), from_files: indexes_from_files });
        segment.set_opened(Some(open.clone()));
        let (position, room) = (end_position, file_bytes);
        let active = ActiveSegment { segment, open, position, room, taken_over, indexed: 0 };
        let (start, retired) = (known.log_start(), VecDeque::new());
        let (generations, active) = (Some(known), Some(active));
        let RecoveredProducers { producers, snapshot: producer_snapshot } = producers;
        Recovered { generations, start, retired, sealed, active, end, redo, found, producers, producer_snapshot }
    }

    /// Of the segment with that base, where a frame should begin at `place`.
    fn corrupt(&self, base: Offset, place: FramePlace, damage: Damage, proven_end: Offset) -> OpenError {
        let segment = self.files.segment(&self.dir, base).path(FileKind::Log);
        let FramePlace { position, offset: expected } = place;
        OpenError::Corrupt(Box::new(Corruption { id: self.id, segment, position, expected, damage, proven_end }))
    }

    fn io(&self, action: &'static str, source: io::Error) -> OpenError {
        OpenError::Io { id: self.id, action, source }
    }
}
