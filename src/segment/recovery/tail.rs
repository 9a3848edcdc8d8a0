//! Where a log ends: the last segment that was ever written to, and how far the frames of a segment reach.

use std::rc::Rc;

use ringmq_index::FramePlace;
use ringmq_runtime::file::{File, OpenOptions};
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_wire::Offset;

use super::{Access, OpenError, Opening, Recovery, first_of};
use crate::check::FrameCheck;
use crate::frame::{FrameFault, Generation};
use crate::generation::LogGenerations;
use crate::layout::FileKind;
use crate::producer_recovery::{ReadAnyway, ToldByFrames};
use crate::scan::{Behind, FrameScanner};
use crate::segment::{Indexes, Segment};

/// How far the frames of one segment reach.
pub(super) struct Extent {
    pub(super) segment: Rc<Segment>,
    pub(super) file: File,
    pub(super) indexes: Indexes,
    pub(super) indexes_from_files: bool,
    /// One past the last good frame.
    pub(super) end: Offset,
    pub(super) end_position: u64,
    pub(super) file_bytes: u64,
    /// How far the log was durable when the last good frame was built, the journal included.
    pub(super) proven_end: Option<Offset>,
    /// What stands there instead of a frame.
    pub(super) fault: FrameFault,
    pub(super) behind: Behind,
    /// Where the scan of its frames began, and what they tell of producers.
    pub(super) scanned_from: Offset,
    pub(super) told: ToldByFrames,
}

/// The end of a log as its files have it.
pub(super) struct Tail {
    /// The segment that the log ends in: the last one that was ever written to, or else the first.
    pub(super) last: Extent,
    /// The one before it, looked at where `last` has no good frame to speak for itself.
    pub(super) before: Option<Extent>,
    /// Segments behind `last` that were created and never written to, newest first.
    pub(super) unused: Vec<Extent>,
}

impl Tail {
    pub(super) fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.before.iter().chain([&self.last]).chain(&self.unused)
    }

    /// Where something is missing. It may have been all that the next segment held.
    pub(super) fn first_without_frames(&self) -> &Extent {
        let next = self.unused.iter().find(|unused| unused.segment.base == self.last.end);
        next.unwrap_or(&self.last)
    }

    /// Takes out those of the unused segments that do not go on where the log ends.
    pub(super) fn take_beyond(&mut self) -> Vec<Extent> {
        let end = self.last.end;
        self.unused.extract_if(.., |unused| unused.segment.base != end).collect()
    }

    /// What the frames that were scanned tell of producers.
    pub(super) fn read_anyway(&mut self) -> ReadAnyway {
        let end = self.last.end;
        // The last one with a frame.
        let scanned = self.before.as_mut().unwrap_or(&mut self.last);
        ReadAnyway { told: std::mem::take(&mut scanned.told), from: scanned.scanned_from, end }
    }

    /// What it is reported as.
    pub(super) fn found(&self) -> Recovery {
        let last = &self.last;
        let end = last.end;
        if last.is_whole() {
            return Recovery::Clean { end };
        }
        let segment = last.segment.path(FileKind::Log);
        Recovery::CutTail { end, segment, position: last.end_position, frames: last.behind.frames }
    }

    /// The segment that gets the next frame: an unused one where there is one, else the last.
    pub(super) fn into_active(self) -> Extent {
        self.unused.into_iter().next().unwrap_or(self.last)
    }
}

impl Extent {
    /// Whether nothing was ever written to the file.
    pub(super) fn is_unused(&self) -> bool {
        self.end_position == 0 && !self.behind.written
    }

    /// Whether it holds nothing of a log that begins at `start`, as far as can be told: what is missing behind its last
    /// good frame may have been there, and is deleted.
    pub(super) fn is_below(&self, start: Offset) -> bool {
        self.end < start && self.behind.proven_end.is_none_or(|end| end <= start)
    }

    /// Whether nothing that this life of the log wrote stands behind the last good frame, as far as can be told.
    pub(super) fn is_whole(&self) -> bool {
        use FrameFault::{HeaderChecksum, Lengths, OtherOffset, PayloadChecksum};
        let begun = matches!(self.fault, HeaderChecksum | Lengths | OtherOffset(_) | PayloadChecksum);
        self.behind.frames == 0 && !begun
    }
}

impl Opening<'_> {
    /// Goes back from the newest segment to the last one that was ever written to. Each file is locked before it is
    /// read (rule 10 of the storage protocol): what a killed process had in flight has landed then, and a segment
    /// that is still without content stays so. What lies below the log's start is deleted: any of it may be missing.
    pub(super) async fn find_tail(&self, known: &Rc<LogGenerations>, bases: &[Offset]) -> Result<Tail, OpenError> {
        let mut unused = Vec::new();
        let (mut at, mut last) = (bases.len() - 1, self.extent(known, bases[bases.len() - 1]).await?);
        let start = known.log_start();
        while last.is_unused() && at > 0 {
            at -= 1;
            let before = self.extent(known, bases[at]).await?;
            if last.segment.base == start && before.is_below(start) {
                // The log was emptied, and what was in it is being removed.
                return Ok(Tail { last, before: None, unused });
            }
            unused.push(std::mem::replace(&mut last, before));
        }
        let speaks_for_itself = last.end > last.segment.base || at == 0 || last.segment.base <= start;
        let before = if speaks_for_itself { None } else { Some(self.extent(known, bases[at - 1]).await?) };
        Ok(Tail { last, before, unused })
    }

    pub(super) async fn open_locked(&self, segment: &Segment) -> Result<File, OpenError> {
        let path = segment.path(FileKind::Log);
        let dsync = !SeededBug::AcknowledgeBeforeFlush.is_in();
        let options = match self.access {
            Access::Recover(_) => OpenOptions { write: true, create_new: false, dsync },
            Access::Judge { .. } => OpenOptions::default(),
        };
        let file = File::open_sparing(&path, options).await.map_err(|source| self.io("open a segment", source))?;
        match file.lock_when_free().await {
            Ok(true) => Ok(file),
            Ok(false) => Err(OpenError::Locked { id: self.id, path }),
            Err(source) => Err(self.io("lock a segment", source)),
        }
    }

    /// How far the frames of the segment with that base reach. Its file is locked before it is read.
    pub(super) async fn extent(&self, known: &Rc<LogGenerations>, base: Offset) -> Result<Extent, OpenError> {
        let segment = Rc::new(self.files.segment(&self.dir, base));
        let file = self.open_locked(&segment).await?;
        if SeededBug::TrustIndex.is_in()
            && let Ok(Some(indexed)) = segment.indexed(known.number()).await
            && let Some((indexes, _)) =
                segment.load_indexes(known.number(), indexed.end, self.config.index_interval_bytes).await
        {
            let from = indexes.offsets.last();
            let extent = self.scan(known, segment, file, indexes, from, indexed.end).await?;
            let (end, end_position, behind) = (indexed.end, indexed.end_position, Behind::default());
            return Ok(Extent { end, end_position, behind, ..extent });
        }
        if let Some(extent) = self.extent_by_index(known, &segment, &file).await? {
            return Ok(extent);
        }
        let indexes = Indexes::new(base, self.config.index_interval_bytes);
        self.scan(known, segment, file, indexes, None, base).await
    }

    /// The indexes on disk say from where on to look for the end; after a clean stop they reach to it. Frames before that
    /// were durable when the indexes were written, and are checked when they are read, as those of sealed segments are.
    /// Whatever does not fit: `None`, and the whole segment is scanned.
    pub(super) async fn extent_by_index(
        &self,
        known: &Rc<LogGenerations>,
        segment: &Rc<Segment>,
        file: &File,
    ) -> Result<Option<Extent>, OpenError> {
        let hints = segment.load_index_hints(known.number(), self.config.index_interval_bytes).await;
        let Some((indexes, coverage)) = hints else { return Ok(None) };
        let of_a_clean_stop = known.clean_end() == Some(coverage.end);
        // Else they must be of this life of the log, up to their end: a repair cuts off what was durable.
        let generation = Generation(coverage.generation.into());
        let of_this_life = coverage.generation > 0 && generation <= known.latest().0;
        if !(of_a_clean_stop || of_this_life && coverage.end <= known.owned_end(generation)) {
            return Ok(None);
        }
        let Some(from) = indexes.offsets.last() else { return Ok(None) };
        let covered = coverage.end;
        let extent = self.scan(known, segment.clone(), file.clone(), indexes, Some(from), covered).await?;
        let reaches = extent.end >= coverage.end && extent.end_position >= coverage.end_position;
        let is_at_end = extent.end == coverage.end && extent.end_position == coverage.end_position;
        Ok(Some(extent).filter(|_| if of_a_clean_stop { is_at_end } else { reaches }))
    }

    /// Scans the frames of a segment, from the frame `from` on, or from its beginning. The indexes cover those below
    /// `covered`.
    pub(super) async fn scan(
        &self,
        known: &Rc<LogGenerations>,
        segment: Rc<Segment>,
        file: File,
        mut indexes: Indexes,
        from: Option<FramePlace>,
        covered: Offset,
    ) -> Result<Extent, OpenError> {
        let read = |source| self.io("read a segment", source);
        let check = FrameCheck { id: self.id, segment_base: segment.base, generations: known.clone() };
        let (beginning, mut told) = (from.unwrap_or(first_of(segment.base)), ToldByFrames::default());
        let scanner = FrameScanner::new(&file, check.clone(), beginning).await;
        let (mut scanner, mut proven_end) = (scanner.map_err(read)?, None);
        let fault = loop {
            match scanner.next_frame().await.map_err(read)? {
                Ok((header, frame)) => {
                    told.read(&header, &frame);
                    proven_end = proven_end.max(Some(check.proven_end(&header)));
                    if header.base_offset >= covered {
                        indexes.push(&header);
                    }
                }
                Err(fault) => break fault,
            }
        };
        let (end, end_position, file_bytes) = (scanner.expected(), scanner.position(), scanner.file_bytes());
        let behind = Behind::look(&file, &check, end_position).await.map_err(read)?;
        let (indexes_from_files, scanned_from) = (from.is_some(), beginning.offset);
        Ok(Extent {
            segment,
            file,
            indexes,
            indexes_from_files,
            end,
            end_position,
            file_bytes,
            proven_end,
            fault,
            behind,
            scanned_from,
            told,
        })
    }
}
