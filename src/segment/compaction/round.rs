//! One round over one log.

use std::io;
use std::rc::Rc;

use ringmq_index::{FramePlace, OffsetIndex};
use ringmq_runtime::fs;
use ringmq_wire::batch::{DecompressLimits, RawRecords, Scratch, split_batches};
use ringmq_wire::{Offset, Timestamp};

use super::cleaned::CleanedSegment;
use super::frames::Frames;
use super::latest::LatestOffsets;
use super::pace::{KeyBytes, Pace, RECORD_BYTES};
use super::sift::{self, Sieve};
use super::{Clock, CompactError, Compacted, CompactionPolicy, DECOMPRESSED_BYTES_MAX, Due, swap};
use crate::generation::Fact;
use crate::producer_snapshots;
use crate::segment::Segment;
use crate::state::LogCore;

/// One round over one log.
pub(super) struct Round<'a> {
    pub(super) log: &'a Rc<LogCore>,
    pub(super) policy: CompactionPolicy,
    pub(super) clock: Clock,
    pub(super) is_over: &'a dyn Fn() -> bool,
    pub(super) due: Due,
}

/// How long the segments were, and are, that were written again.
#[derive(Default)]
struct Written {
    bytes_before: u64,
    bytes_after: u64,
}

impl Round<'_> {
    pub(super) async fn run(self, memory: KeyBytes, pace: &mut Pace) -> Result<Compacted, CompactError> {
        let (latest, until) = self.latest_offsets(memory, pace).await?;
        let mut sieve = Sieve::new(latest, until, self.clock, self.policy.tombstone_retention);
        let written = self.sift(&mut sieve, until, pace).await;
        let (records_removed, tombstones_due) = (sieve.removed(), sieve.tombstones_due());
        sieve.free(pace).await;
        let Written { bytes_before, bytes_after } = written?;
        self.remember(until, tombstones_due).await?;
        Ok(Compacted { until, bytes_read: pace.bytes_read(), bytes_before, bytes_after, records_removed })
    }

    /// The latest offset of each key from the dirty part on, and up to where all keys are known.
    async fn latest_offsets(&self, memory: KeyBytes, pace: &mut Pace) -> Result<(LatestOffsets, Offset), CompactError> {
        let mut latest = LatestOffsets::new(memory);
        let until = self.note_keys(&mut latest, pace).await?;
        latest.complete();
        Ok((latest, until))
    }

    async fn note_keys(&self, latest: &mut LatestOffsets, pace: &mut Pace) -> Result<Offset, CompactError> {
        let mut scratch = Scratch::new(DecompressLimits { decompressed_bytes_max: DECOMPRESSED_BYTES_MAX });
        let dirty_from = self.due.dirty_from;
        for (segment, end) in self.due.sealed.iter().filter(|(_, end)| *end > dirty_from) {
            let mut frames = self.frames(segment, *end).await?;
            while let Some((_, payload)) = frames.next(pace).await? {
                // What cannot be taken apart ends the round when it comes to be written.
                let batches = split_batches(&payload).map_while(Result::ok);
                for batch in batches.filter(|batch| batch.header().next_offset() > dirty_from) {
                    let Some(records) = sift::open(&batch, &mut scratch, pace).await else { continue };
                    if let Err(full_at) = note_records(latest, records, dirty_from, pace).await {
                        return Ok(full_at);
                    }
                }
            }
        }
        Ok(self.due.end)
    }

    /// Leaves out what a later record below `until` replaces, segment by segment.
    async fn sift(&self, sieve: &mut Sieve, until: Offset, pace: &mut Pace) -> Result<Written, CompactError> {
        let mut written = Written::default();
        let mut segments = self.due.sealed.iter().filter(|(segment, _)| segment.base < until).peekable();
        while let Some((first, end)) = segments.next() {
            let next_joins = segments.peek().is_some_and(|next| self.joins(first.base, first.end_position(), next));
            if !next_joins && !self.changes(sieve, first, *end, pace).await? {
                continue;
            }
            let mut group = Group::begin(self.log, first, *end).await.map_err(|error| self.io(error))?;
            let mut cleaned = self.write(sieve, &mut group, pace).await;
            while let Some((next, end)) = segments.next_if(|next| {
                cleaned.is_ok() && self.joins(first.base, group.cleaned.position() + group.cleaned.open_bytes(), next)
            }) {
                group.join(next, *end);
                cleaned = self.write(sieve, &mut group, pace).await;
            }
            self.replace(group, cleaned, &mut written, pace).await?;
        }
        Ok(written)
    }

    /// Whether a segment is to follow in that one, which is so long: both are to be at most half as long again as a segment
    /// is to be, however much of this one is left.
    fn joins(&self, base: Offset, bytes: u64, (next, end): &(Rc<Segment>, Offset)) -> bool {
        let segment_bytes = self.log.config().segment_bytes;
        let bytes_max = segment_bytes.saturating_add(segment_bytes / 2);
        bytes <= segment_bytes / 2
            && bytes.saturating_add(next.end_position()) <= bytes_max
            && OffsetIndex::fits(base, FramePlace { offset: *end, position: 0 })
    }

    /// Looks whether there is anything in the segment that does not stay as it is. Only where there is nothing the sieve has
    /// seen it.
    async fn changes(
        &self,
        sieve: &mut Sieve,
        segment: &Rc<Segment>,
        end: Offset,
        pace: &mut Pace,
    ) -> Result<bool, CompactError> {
        let before = sieve.mark();
        let mut frames = self.frames(segment, end).await?;
        while let Some((header, payload)) = frames.next(pace).await? {
            for batch in split_batches(&payload) {
                let Ok(batch) = batch else { return Err(frames.malformed(&header)) };
                if sieve.sift(&batch, pace).await.differs_from(&batch) {
                    sieve.back_to(before);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Writes what is left of the group's last segment.
    async fn write(&self, sieve: &mut Sieve, group: &mut Group, pace: &mut Pace) -> Result<(), CompactError> {
        let Group { segments, end, cleaned } = group;
        let Some(segment) = segments.last() else { return Ok(()) };
        let mut frames = self.frames(segment, *end).await?;
        while let Some((header, payload)) = frames.next(pace).await? {
            cleaned.begin(&header, pace).await.map_err(|error| self.io(error))?;
            for batch in split_batches(&payload) {
                let Ok(batch) = batch else { return Err(frames.malformed(&header)) };
                let left = sieve.sift(&batch, pace).await;
                cleaned.push(&batch, left, pace).await.map_err(|error| self.io(error))?;
            }
            cleaned.end(&header);
        }
        Ok(())
    }

    /// Puts what was written in the place of the group's segments, if it is any different.
    async fn replace(
        &self,
        mut group: Group,
        cleaned: Result<(), CompactError>,
        written: &mut Written,
        pace: &mut Pace,
    ) -> Result<(), CompactError> {
        let finished = match cleaned {
            Ok(()) => group.cleaned.finish(pace).await.map_err(|error| self.io(error)),
            failed => failed,
        };
        if finished.is_err() || !(group.cleaned.is_changed() || group.segments.len() > 1) {
            group.cleaned.remove().await;
            return finished;
        }
        // Batches that are gone tell a start nothing of their producers.
        if let Err(error) = producer_snapshots::cover(self.log, group.end).await {
            group.cleaned.remove().await;
            return Err(self.failed("write the snapshot of producers that compaction needs", error));
        }
        written.bytes_before += group.bytes_before();
        written.bytes_after += group.cleaned.position();
        swap::swap(self.log, &group.segments, group.end, group.cleaned, pace).await
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

    async fn frames(&self, segment: &Rc<Segment>, end: Offset) -> Result<Frames<'_>, CompactError> {
        Frames::open(self.log, self.is_over, segment, end).await
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
    async fn begin(log: &Rc<LogCore>, segment: &Rc<Segment>, end: Offset) -> io::Result<Group> {
        let cleaned = CleanedSegment::create(log, segment.base).await?;
        Ok(Group { segments: vec![segment.clone()], end, cleaned })
    }

    fn join(&mut self, segment: &Rc<Segment>, end: Offset) {
        self.segments.push(segment.clone());
        self.end = end;
    }

    fn bytes_before(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end_position()).sum()
    }
}

/// Notes the keys of a batch from `from` on; the offset of the first key that there is no room for, as an error. One that
/// cannot be read to its end stays as a whole and replaces nothing, so that none of its keys counts.
async fn note_records(
    latest: &mut LatestOffsets,
    records: RawRecords<'_>,
    from: Offset,
    pace: &mut Pace,
) -> Result<(), Offset> {
    for record in records.clone() {
        let Ok(record) = record else { return Ok(()) };
        if !sift::is_sound(&record, pace).await {
            return Ok(());
        }
        pace.spend(RECORD_BYTES / 4).await;
    }
    for record in records.map_while(Result::ok).filter(|record| record.offset >= from) {
        let Some(key) = record.key else { continue };
        if !latest.note(key, record.offset) {
            return Err(record.offset);
        }
        pace.spend_record(key.len()).await;
    }
    Ok(())
}
