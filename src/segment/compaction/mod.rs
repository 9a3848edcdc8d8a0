//! Compaction: of each key only the latest record stays, and tombstones go after a time.
//!
//! It reads the segments that were sealed since it last ran and notes the latest offset of each key (`latest`), as many as
//! fit in the memory that it is given. Then it writes every sealed segment before that again without what a later record
//! replaces (`sift`, `cleaned`), small neighbours into one, and puts the new ones in the place of the old (`swap`). The
//! active segment is left alone.
//!
//! What keeps it honest:
//! - Segments are taken in the order of their offsets, and the first that cannot be read ends the round. So a tombstone
//!   gets the time of its end only when everything that it deletes is gone before it.
//! - It works at the lowest priority of the device, and lets the core go on every few records.
//! - Records without a key, and batches whose records cannot be read here (another compression), replace nothing and are
//!   replaced by nothing: they stay. What such a batch holds is not known, so no tombstone behind it goes: it may be what
//!   deletes a key in there.
//! - Nothing is left out but for one of these reasons: where something else is in the way, the round ends.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringmq_index::FramePlace;
use ringmq_runtime::buffer::IoBuf;
use ringmq_runtime::file::IoClass;
use ringmq_runtime::{fs, task};
use ringmq_wire::batch::{DecompressLimits, RecordIter, Scratch, split_batches};
use ringmq_wire::{Offset, Timestamp};

use crate::check::FrameCheck;
use crate::failure::{Corruption, Damage};
use crate::frame::{FrameFault, FrameHeader};
use crate::generation::{Fact, RecordError};
use crate::layout::{FileKind, LogId};
use crate::log::Log;
use crate::producer_snapshots;
use crate::scan::FrameScanner;
use crate::segment::Segment;
use crate::state::{LogCore, Phase};

mod cleaned;
mod latest;
mod sift;
pub(crate) mod swap;

use cleaned::CleanedSegment;
use latest::LatestOffsets;
use sift::Sieve;

/// The most that the records of one batch are decompressed to, in bytes: some milliseconds of the core. A batch that grows
/// beyond that stays as it is.
const DECOMPRESSED_BYTES_MAX: usize = 4 << 20;

/// Records that are worked on before the core looks at its sockets and files again: some 200 µs.
const RECORDS_IN_A_ROW_MAX: usize = 1024;

/// How long a log is left alone after a round that failed: the next one reads as much again.
const REST: Duration = Duration::from_secs(10 * 60);

/// How a log is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// Of the bytes in sealed segments, so many percent must be new since the last time. Default: 50.
    pub dirty_percent_min: u8,
    /// How long a tombstone stays once everything that it deletes is gone. Default: a day.
    pub tombstone_retention: Duration,
    /// Memory for the keys of one round, in bytes, about. What does not fit waits for the next round. Default: 16 MiB,
    /// some 290,000 keys.
    pub key_bytes_max: usize,
}

impl Default for CompactionPolicy {
    fn default() -> CompactionPolicy {
        CompactionPolicy {
            dirty_percent_min: 50,
            tombstone_retention: Duration::from_secs(24 * 60 * 60),
            key_bytes_max: 16 << 20,
        }
    }
}

/// What one round of compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Below that, no record is left that a later one below it replaces.
    pub until: Offset,
    /// Bytes of the segments that were written again, before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
    /// Records that are gone.
    pub records_removed: u64,
}

/// Why a log was not compacted, or not to the end. What was done stays, and nothing is lost; the next round goes on, ten
/// minutes later.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The log was closed, deleted or went offline.
    #[error("the log is closed")]
    Closed,
    /// A segment is damaged: nothing from there on is compacted.
    #[error("{0}. Nothing was changed; restore the file from a copy while the broker is stopped")]
    Corrupt(Box<Corruption>),
    /// The disk has no room for the new segment beside the old ones. It is tried again.
    #[error("partition {id}: no room to write a compacted segment: {source}. Free space on the disk")]
    StorageFull {
        /// The log.
        id: LogId,
        /// What the file system says.
        source: io::Error,
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
    /// How far the log is compacted could not be recorded: after a restart it is done again.
    #[error("partition {id}: cannot record how far it is compacted: {source}")]
    Record {
        /// The log.
        id: LogId,
        /// Why.
        source: RecordError,
    },
}

impl Log {
    /// Compacts what is sealed, if the log is one that is compacted and enough of it is new. `None` when not. `is_over`
    /// is asked now and then: once it says so, the round ends as soon as it can, with [`CompactError::Closed`].
    ///
    /// # Errors
    /// See [`CompactError`].
    pub async fn compact(&self, now: Timestamp, is_over: &dyn Fn() -> bool) -> Result<Option<Compacted>, CompactError> {
        let log = self.core();
        let Some(policy) = log.config().compaction else { return Ok(None) };
        let Ok(_pass) = log.gate.enter() else { return Err(CompactError::Closed) };
        let _alone = log.reshaping.acquire(1).await;
        let Some(due) = due(log, &policy, now) else { return Ok(None) };
        let compacted = Round { log, policy, now, is_over, due }.run().await;
        if compacted.is_err() {
            let rest = i64::try_from(REST.as_millis()).unwrap_or(i64::MAX);
            log.state.borrow_mut().compaction_rests_until = Timestamp::new(now.get().saturating_add(rest));
        }
        compacted.map(Some)
    }
}

/// What is to be compacted.
struct Due {
    /// Sealed segments, by base offset; each ends where the next begins, the last one at `end`.
    sealed: Vec<Rc<Segment>>,
    end: Offset,
    /// From here on it is new.
    dirty_from: Offset,
}

fn due(log: &LogCore, policy: &CompactionPolicy, now: Timestamp) -> Option<Due> {
    let state = log.state.borrow();
    if now < state.compaction_rests_until {
        return None;
    }
    let (end, sealed) = (state.active.as_ref()?.segment.base, state.sealed.clone());
    let dirty_from = state.compacted_until.max(sealed.first()?.base);
    let ends = sealed.iter().skip(1).map(|segment| segment.base).chain([end]);
    let (mut bytes, mut dirty_bytes) = (0, 0);
    for (segment, end) in sealed.iter().zip(ends) {
        bytes += segment.end_position();
        dirty_bytes += if end > dirty_from { segment.end_position() } else { 0 };
    }
    let enough = dirty_bytes > 0 && dirty_bytes * 100 >= bytes * u64::from(policy.dirty_percent_min);
    let tombstones = state.tombstones_due.is_some_and(|due| due <= now);
    (enough || tombstones).then_some(Due { sealed, end, dirty_from })
}

/// One round over one log.
struct Round<'a> {
    log: &'a Rc<LogCore>,
    policy: CompactionPolicy,
    now: Timestamp,
    is_over: &'a dyn Fn() -> bool,
    due: Due,
}

impl Round<'_> {
    async fn run(self) -> Result<Compacted, CompactError> {
        let (latest, until) = self.latest_offsets().await?;
        let horizon = i64::try_from(self.policy.tombstone_retention.as_millis()).unwrap_or(i64::MAX);
        let horizon = Timestamp::new(self.now.get().saturating_add(horizon));
        let mut sieve = Sieve::new(latest, until, self.now, horizon);
        let (mut bytes_before, mut bytes_after) = (0, 0);
        let mut segments = self.sealed().filter(|(segment, _)| segment.base < until).peekable();
        while let Some((first, end)) = segments.next() {
            let mut group = Group::begin(self.log, first, end).await.map_err(|error| self.io(error))?;
            let mut written = self.write(&mut sieve, &mut group).await;
            while let Some((next, end)) = segments.next_if(|(_, end)| written.is_ok() && self.joins(&group, *end)) {
                group.join(next, end);
                written = self.write(&mut sieve, &mut group).await;
            }
            bytes_before += group.bytes_before();
            bytes_after += self.replace(group, written).await?;
        }
        self.remember(until, sieve.tombstones_due()).await?;
        Ok(Compacted { until, bytes_before, bytes_after, records_removed: sieve.removed() })
    }

    /// The latest offset of each key from the dirty part on, and up to where all keys are known.
    async fn latest_offsets(&self) -> Result<(LatestOffsets, Offset), CompactError> {
        let mut latest = LatestOffsets::new(self.policy.key_bytes_max);
        let mut scratch = Scratch::new(DecompressLimits { decompressed_bytes_max: DECOMPRESSED_BYTES_MAX });
        let mut seen = 0;
        for (segment, end) in self.sealed().filter(|(_, end)| *end > self.due.dirty_from) {
            let mut frames = self.frames(&segment, end).await?;
            while let Some((_, payload)) = frames.next().await? {
                // What cannot be taken apart ends the round when it comes to be written.
                for batch in split_batches(&payload).map_while(Result::ok) {
                    if batch.header().next_offset() <= self.due.dirty_from {
                        continue;
                    }
                    let Ok(records) = batch.records(&mut scratch) else { continue };
                    if !can_be_read(records.clone()).await {
                        continue;
                    }
                    for record in records.map_while(Result::ok).filter(|record| record.offset >= self.due.dirty_from) {
                        let Some(key) = record.key else { continue };
                        if !latest.note(key, record.offset) {
                            return Ok((latest, record.offset));
                        }
                        seen += 1;
                        if seen % RECORDS_IN_A_ROW_MAX == 0 {
                            task::yield_to_io().await;
                        }
                    }
                }
            }
        }
        Ok((latest, self.due.end))
    }

    /// The frames of a sealed segment.
    async fn frames(&self, segment: &Rc<Segment>, end: Offset) -> Result<Frames<'_>, CompactError> {
        let (log, is_over) = (self.log, self.is_over);
        let Some(check) = log.frame_check(segment.base) else { return Err(CompactError::Closed) };
        let scanner = Frames::scanner(segment, check).await.map_err(|error| cannot_read(log, error))?;
        Ok(Frames { log, is_over, segment: segment.clone(), scanner, end })
    }

    /// The sealed segments, each with its end.
    fn sealed(&self) -> impl Iterator<Item = (Rc<Segment>, Offset)> {
        let ends = self.due.sealed.iter().skip(1).map(|segment| segment.base).chain([self.due.end]);
        self.due.sealed.iter().cloned().zip(ends)
    }

    /// Whether a segment is to follow in the group's: that then is at most half as long again as a segment is to be,
    /// however much of this one is left.
    fn joins(&self, group: &Group, end: Offset) -> bool {
        let bytes = group.cleaned.position() + group.cleaned.open_bytes();
        let place = FramePlace { offset: end, position: 0 };
        bytes <= self.log.config().segment_bytes / 2 && ringmq_index::OffsetIndex::fits(group.segments[0].base, place)
    }

    /// Writes what is left of the group's last segment.
    async fn write(&self, sieve: &mut Sieve, group: &mut Group) -> Result<(), CompactError> {
        let Group { segments, end, cleaned } = group;
        let Some(segment) = segments.last() else { return Ok(()) };
        let mut frames = self.frames(segment, *end).await?;
        while let Some((header, payload)) = frames.next().await? {
            cleaned.begin(&header).await.map_err(|error| self.io(error))?;
            for batch in split_batches(&payload) {
                let Ok(batch) = batch else { return Err(frames.malformed(&header)) };
                let left = sieve.sift(&batch).await;
                cleaned.push(&batch, left).await.map_err(|error| self.io(error))?;
            }
            cleaned.end(&header);
        }
        Ok(())
    }

    /// Puts what was written in the place of the group's segments, if it is any different. Returns how long they are now.
    async fn replace(&self, mut group: Group, written: Result<(), CompactError>) -> Result<u64, CompactError> {
        let finished = match written {
            Ok(()) => group.cleaned.finish().await.map_err(|error| self.io(error)),
            failed => failed,
        };
        let (before, after) = (group.bytes_before(), group.cleaned.position());
        match finished {
            Ok(()) if group.cleaned.is_changed() || group.segments.len() > 1 => {
                // Batches that are gone tell a start nothing of their producers.
                if let Err(error) = producer_snapshots::cover(self.log, group.end).await {
                    group.cleaned.remove().await;
                    return Err(self.failed("write the snapshot of producers that compaction needs", error));
                }
                swap::swap(self.log, &group.segments, group.end, group.cleaned).await?;
                Ok(after)
            }
            kept => {
                group.cleaned.remove().await;
                kept.map(|()| before)
            }
        }
    }

    /// How far the log is compacted counts from now on, and after a restart.
    async fn remember(&self, until: Offset, tombstones_due: Option<Timestamp>) -> Result<(), CompactError> {
        let number = {
            let mut state = self.log.state.borrow_mut();
            state.compacted_until = until;
            state.tombstones_due = tombstones_due;
            state.generations.as_ref().map(|known| known.number())
        };
        let (Some(number), id) = (number, self.log.id) else { return Ok(()) };
        let compacted = Fact::Compacted { id, number, until };
        self.log.generations.record(compacted).await.map_err(|source| CompactError::Record { id, source })
    }

    fn io(&self, source: io::Error) -> CompactError {
        self.failed("write a compacted segment", source)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> CompactError {
        let id = self.log.id;
        match fs::is_full(&source) {
            true => CompactError::StorageFull { id, source },
            false => CompactError::Io { id, action, source },
        }
    }
}

/// Neighbours that become one segment.
struct Group {
    segments: Vec<Rc<Segment>>,
    end: Offset,
    cleaned: CleanedSegment,
}

impl Group {
    async fn begin(log: &Rc<LogCore>, segment: Rc<Segment>, end: Offset) -> io::Result<Group> {
        let cleaned = CleanedSegment::create(log, segment.base).await?;
        Ok(Group { segments: vec![segment], end, cleaned })
    }

    fn join(&mut self, segment: Rc<Segment>, end: Offset) {
        self.segments.push(segment);
        self.end = end;
    }

    fn bytes_before(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end_position()).sum()
    }
}

/// The frames of a sealed segment, in order, up to its end.
struct Frames<'a> {
    log: &'a Rc<LogCore>,
    is_over: &'a dyn Fn() -> bool,
    segment: Rc<Segment>,
    scanner: FrameScanner,
    end: Offset,
}

impl Frames<'_> {
    async fn scanner(segment: &Segment, check: FrameCheck) -> io::Result<FrameScanner> {
        let file = segment.open_for_reading().await?;
        let beginning = FramePlace { offset: segment.base, position: 0 };
        FrameScanner::new(&file, check, beginning).await.map(|scanner| scanner.with_class(IoClass::Compaction))
    }

    /// The next frame's header and batches, or `None` at the end.
    async fn next(&mut self) -> Result<Option<(FrameHeader, IoBuf)>, CompactError> {
        {
            let state = self.log.state.borrow();
            if state.phase != Phase::Open || state.poison.is_some() || (self.is_over)() {
                return Err(CompactError::Closed);
            }
        }
        let (position, expected) = (self.scanner.position(), self.scanner.expected());
        if expected >= self.end {
            return Ok(None);
        }
        match self.scanner.next_frame().await.map_err(|error| cannot_read(self.log, error))? {
            Ok((header, frame)) => Ok(Some((header, frame.slice(header.payload_range())))),
            Err(fault) => Err(self.corrupt(FramePlace { offset: expected, position }, fault)),
        }
    }

    /// Of a frame whose checksums are right, and which does not hold whole batches.
    fn malformed(&self, header: &FrameHeader) -> CompactError {
        self.corrupt(FramePlace { offset: header.base_offset, position: header.position }, FrameFault::Lengths)
    }

    fn corrupt(&self, place: FramePlace, fault: FrameFault) -> CompactError {
        let FramePlace { position, offset: expected } = place;
        let (id, segment, damage) = (self.log.id, self.segment.path(FileKind::Log), Damage::Frame(fault));
        let proven_end = self.log.state.borrow().durable;
        CompactError::Corrupt(Box::new(Corruption { id, segment, position, expected, damage, proven_end }))
    }
}

/// Whether the batch can be read to its end. One that cannot stays as a whole and replaces nothing, so that none of its keys
/// counts.
async fn can_be_read(records: RecordIter<'_>) -> bool {
    for (seen, record) in (1..).zip(records) {
        if record.is_err() {
            return false;
        }
        if seen % RECORDS_IN_A_ROW_MAX == 0 {
            task::yield_to_io().await;
        }
    }
    true
}

fn cannot_read(log: &LogCore, source: io::Error) -> CompactError {
    CompactError::Io { id: log.id, action: "read a segment to compact it", source }
}
