//! Opening a log: what is on the disk, how far it was acknowledged, and where it goes on.
//!
//! In this order: list the segments; lock those that may still be written to; scan the frames of the last one; judge
//! what stands behind the last good frame; make durable what was found; remove what lies beyond the end. It can crash
//! at any point and starts again from the same files: nothing is changed before the judgement, and what is changed
//! after it is changed back by nobody.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::fs;
use ringmq_wire::Offset;

use crate::check::FrameCheck;
use crate::config::{InvalidConfig, LogConfig};
use crate::failure::{Corruption, Damage};
use crate::frame::FrameFault;
use crate::generation::{Generations, LogGenerations};
use crate::layout::{FileKind, LogId, parse_file_name};
use crate::lock::{LOCK_WAIT_MAX, lock_when_free};
use crate::scan::{Behind, FrameScanner};
use crate::segment::{ActiveSegment, Indexes, OpenSegment, Segment};

/// Segments that may have had writes in flight when a process died: the last, and the one before it. A segment gets
/// its first frame only when the one before is durable to its end, so none further back has any.
const WRITABLE_SEGMENTS: usize = 2;

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
    #[error(transparent)]
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
    /// Proven to be durable to the base of the next one.
    pub(crate) sealed: Vec<Rc<Segment>>,
    pub(crate) active: Option<ActiveSegment>,
    pub(crate) end: Offset,
    pub(crate) found: Recovery,
}

/// Finds out what `root` holds of the log.
pub(crate) async fn recover(
    root: &Path,
    id: LogId,
    config: &LogConfig,
    generations: &Generations,
) -> Result<Recovered, OpenError> {
    let dir = id.log_dir(root);
    let context = Context { id, dir, config };
    let bases = context.list_segments().await?;
    match (generations.of(id), bases.is_empty()) {
        (None, true) => Ok(Recovered::empty()),
        (None, false) => context.never_opened(&bases).await,
        (Some(known), true) => {
            Err(context.corrupt(Offset::ZERO, 0, Offset::ZERO, Damage::FilesMissing, known.proven_end()))
        }
        (Some(known), false) => context.recover(Rc::new(known), &bases).await,
    }
}

impl Recovered {
    fn empty() -> Recovered {
        Recovered { generations: None, sealed: Vec::new(), active: None, end: Offset::ZERO, found: Recovery::Empty }
    }
}

struct Context<'a> {
    id: LogId,
    dir: PathBuf,
    config: &'a LogConfig,
}

/// How far the frames of one segment reach.
struct Extent {
    segment: Rc<Segment>,
    file: File,
    indexes: Indexes,
    indexes_from_files: bool,
    /// One past the last good frame.
    end: Offset,
    end_position: u64,
    file_bytes: u64,
    /// What stands there instead of a frame.
    fault: FrameFault,
    behind: Behind,
}

impl Extent {
    /// Whether nothing that this life of the log wrote stands behind the last good frame, as far as can be told.
    fn is_whole(&self) -> bool {
        use FrameFault::{HeaderChecksum, Lengths, OtherOffset, PayloadChecksum};
        let begun = matches!(self.fault, HeaderChecksum | Lengths | OtherOffset(_) | PayloadChecksum);
        self.behind.frames == 0 && !begun
    }
}

impl Context<'_> {
    async fn list_segments(&self) -> Result<Vec<Offset>, OpenError> {
        let names = match fs::read_dir(&self.dir).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names.map_err(|source| self.io("list the segments", source))?,
        };
        let segment = |name: &str| match parse_file_name(name) {
            Some((base, FileKind::Log)) => Some(base),
            _ => None,
        };
        Ok(names.iter().filter_map(|entry| segment(&entry.name)).collect())
    }

    /// A process got as far as creating the first segment, and not to the entry in the generation table that comes
    /// before the first frame. Nothing was ever written to the file, so it must be zero; otherwise it is the table
    /// that lost something.
    async fn never_opened(&self, bases: &[Offset]) -> Result<Recovered, OpenError> {
        let lost = |base, position| self.corrupt(base, position, base, Damage::GenerationsMissing, Offset::ZERO);
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
        // It is created anew, with its directories synced, by the first append.
        Segment::new(&self.dir, Offset::ZERO)
            .remove_files()
            .await
            .map_err(|source| self.io("remove an unused segment", source))?;
        Ok(Recovered::empty())
    }

    async fn first_nonzero(&self, file: &File) -> Result<Option<u64>, OpenError> {
        let mut position = 0;
        loop {
            let piece = file.read_at(position, 1 << 20, IoClass::ColdRead).await;
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

    async fn recover(&self, known: Rc<LogGenerations>, bases: &[Offset]) -> Result<Recovered, OpenError> {
        let files = self.lock_writable(bases).await?;
        if bases[0] != Offset::ZERO {
            return Err(self.corrupt(Offset::ZERO, 0, Offset::ZERO, Damage::SegmentMissing, bases[0]));
        }
        let mut extents = self.scan_writable(&known, files).await?;
        let proven = extents.iter().filter_map(|extent| extent.behind.proven_end).max();
        let proven = known.proven_end().max(proven.unwrap_or(Offset::ZERO));
        let beyond = self.judge(&mut extents, proven)?;
        let Some(last) = extents.pop() else { return Ok(Recovered::empty()) };

        let sealed = self.sealed_before(&known, bases, last.segment.base).await?;
        let clean = known.clean_end() == Some(last.end) && beyond.is_empty();
        if !clean {
            self.settle(extents.iter().chain([&last]), &beyond).await?;
        }
        Ok(self.recovered(known, sealed, last))
    }

    /// Takes the locks of every file that may still be written to, before anything is read (rule 10 of the storage
    /// protocol). Oldest first.
    async fn lock_writable(&self, bases: &[Offset]) -> Result<Vec<(Rc<Segment>, File)>, OpenError> {
        let mut files = Vec::new();
        for base in &bases[bases.len().saturating_sub(WRITABLE_SEGMENTS)..] {
            let segment = Rc::new(Segment::new(&self.dir, *base));
            let file = self.open_locked(&segment).await?;
            files.push((segment, file));
        }
        Ok(files)
    }

    async fn open_locked(&self, segment: &Segment) -> Result<File, OpenError> {
        let path = segment.path(FileKind::Log);
        let options = OpenOptions { write: true, create_new: false, dsync: true };
        let file = File::open(&path, options).await.map_err(|source| self.io("open a segment", source))?;
        match lock_when_free(&file).await {
            Ok(true) => Ok(file),
            Ok(false) => Err(OpenError::Locked { id: self.id, path }),
            Err(source) => Err(self.io("lock a segment", source)),
        }
    }

    /// Scans the last segment, and the one before it unless that is proven to be complete. Oldest first.
    async fn scan_writable(
        &self,
        known: &Rc<LogGenerations>,
        mut files: Vec<(Rc<Segment>, File)>,
    ) -> Result<Vec<Extent>, OpenError> {
        let Some((segment, file)) = files.pop() else { return Ok(Vec::new()) };
        let base = segment.base;
        let last = self.extent(known, segment, file).await?;
        let began = last.end > base || last.behind.frames > 0 || known.proven_end() >= base;
        let mut extents = Vec::new();
        if let Some((segment, file)) = files.pop().filter(|_| !began) {
            // The last segment was created ahead of its first frame, which never came: the end may lie in the one
            // before it.
            extents.push(self.extent(known, segment, file).await?);
        }
        extents.push(last);
        Ok(extents)
    }

    async fn extent(&self, known: &Rc<LogGenerations>, segment: Rc<Segment>, file: File) -> Result<Extent, OpenError> {
        if let Some(end) = known.clean_end()
            && let Some(extent) = self.extent_from_checkpoint(known, &segment, &file, end).await?
        {
            return Ok(extent);
        }
        let indexes = Indexes::new(segment.base, self.config.index_interval_bytes);
        self.scan(known, segment, file, indexes, None).await
    }

    /// After a clean stop the indexes on disk say where the last frames are: only those are read. Frames before them
    /// are checked when they are read, as those of sealed segments are. Whatever does not fit: `None`, and the whole
    /// segment is scanned.
    async fn extent_from_checkpoint(
        &self,
        known: &Rc<LogGenerations>,
        segment: &Rc<Segment>,
        file: &File,
        end: Offset,
    ) -> Result<Option<Extent>, OpenError> {
        let interval = self.config.index_interval_bytes;
        let Some((indexes, coverage)) = segment.load_indexes(known.number(), end, interval).await else {
            return Ok(None);
        };
        let Some(from) = indexes.offsets.last() else { return Ok(None) };
        let from = Some((from.position, from.offset));
        let extent = self.scan(known, segment.clone(), file.clone(), indexes, from).await?;
        Ok(Some(extent).filter(|extent| extent.end == end && extent.end_position == coverage.end_position))
    }

    /// Scans the frames of a segment, from the frame `from` on that the indexes cover, or from its beginning.
    async fn scan(
        &self,
        known: &Rc<LogGenerations>,
        segment: Rc<Segment>,
        file: File,
        mut indexes: Indexes,
        from: Option<(u64, Offset)>,
    ) -> Result<Extent, OpenError> {
        let read = |source| self.io("read a segment", source);
        let check = FrameCheck { id: self.id, segment_base: segment.base, generations: known.clone() };
        let (position, offset) = from.unwrap_or((0, segment.base));
        let scanner = FrameScanner::new(&file, check.clone(), IoClass::ColdRead, position, offset).await;
        let mut scanner = scanner.map_err(read)?;
        let fault = loop {
            match scanner.next().await.map_err(read)? {
                Ok(header) if from.is_none() => indexes.push(&header),
                Ok(_) => {}
                Err(fault) => break fault,
            }
        };
        let (end, end_position, file_bytes) = (scanner.expected(), scanner.position(), scanner.file_bytes());
        let behind = Behind::look(&file, &check, IoClass::ColdRead, end_position).await.map_err(read)?;
        let indexes_from_files = from.is_some();
        Ok(Extent { segment, file, indexes, indexes_from_files, end, end_position, file_bytes, fault, behind })
    }

    /// Decides whether what is missing behind the last good frame had been acknowledged. If not, leaves the segment
    /// that the log ends in as the last of `extents` and returns those beyond it.
    fn judge(&self, extents: &mut Vec<Extent>, proven: Offset) -> Result<Vec<Extent>, OpenError> {
        for extent in &*extents {
            if let Some((position, fault)) = extent.behind.unknown_generation {
                let damage = Damage::Frame(fault);
                return Err(self.corrupt(extent.segment.base, position, extent.end, damage, proven));
            }
        }
        let mut beyond = Vec::new();
        if let [before, last] = &extents[..] {
            if before.end > last.segment.base {
                let (base, damage) = (last.segment.base, Damage::SegmentsOverlap);
                return Err(self.corrupt(base, 0, base, damage, proven));
            }
            if before.end < last.segment.base {
                beyond.extend(extents.pop());
            }
        }
        match extents.last() {
            Some(last) if last.end < proven => {
                let damage = Damage::Frame(last.fault);
                Err(self.corrupt(last.segment.base, last.end_position, last.end, damage, proven))
            }
            _ => Ok(beyond),
        }
    }

    /// The segments before the one that the log ends in. Each must reach to the next: where the header of its index
    /// says otherwise, its frames are counted. (Without an index that shows only when they are read.)
    async fn sealed_before(
        &self,
        known: &Rc<LogGenerations>,
        bases: &[Offset],
        last: Offset,
    ) -> Result<Vec<Rc<Segment>>, OpenError> {
        let mut sealed = Vec::new();
        for pair in bases.windows(2).take_while(|pair| pair[0] < last) {
            let (segment, next) = (Rc::new(Segment::new(&self.dir, pair[0])), pair[1]);
            let indexed_end = segment.indexed_end(known.number()).await;
            if indexed_end.is_some_and(|end| end != next) {
                self.count_frames(known, &segment, next).await?;
            }
            sealed.push(segment);
        }
        Ok(sealed)
    }

    async fn count_frames(&self, known: &Rc<LogGenerations>, segment: &Segment, next: Offset) -> Result<(), OpenError> {
        let read = |source| self.io("read a sealed segment", source);
        let check = FrameCheck { id: self.id, segment_base: segment.base, generations: known.clone() };
        let file = segment.open_for_reading().await.map_err(read)?;
        let rebuilt = Indexes::rebuild(&file, &check, self.config.index_interval_bytes).await.map_err(read)?;
        if rebuilt.end == next {
            return Ok(());
        }
        Err(self.corrupt(segment.base, rebuilt.end_position, rebuilt.end, Damage::SegmentMissing, next))
    }

    /// Makes durable what was found: a frame may so far be in the device's cache alone, and a name in the file
    /// system's. Then removes, durably, the segments beyond the end (rule 8 of the storage protocol).
    async fn settle(&self, kept: impl Iterator<Item = &Extent>, beyond: &[Extent]) -> Result<(), OpenError> {
        for extent in kept {
            extent.file.fdatasync().await.map_err(|source| self.io("flush a segment", source))?;
        }
        for extent in beyond {
            extent.segment.remove_files().await.map_err(|source| self.io("remove a segment beyond the end", source))?;
        }
        fs::sync_dir(&self.dir).await.map_err(|source| self.io("flush the directory", source))
    }

    fn recovered(&self, known: Rc<LogGenerations>, sealed: Vec<Rc<Segment>>, last: Extent) -> Recovered {
        let found = if last.is_whole() {
            Recovery::Clean { end: last.end }
        } else {
            Recovery::CutTail {
                end: last.end,
                segment: last.segment.path(FileKind::Log),
                position: last.end_position,
                frames: last.behind.frames,
            }
        };
        tracing::debug!(partition = %self.id, ?found, fault = %last.fault, "opened a log");
        let open =
            Rc::new(OpenSegment { file: last.file, indexes: last.indexes.into(), from_files: last.indexes_from_files });
        last.segment.set_opened(Some(open.clone()));
        let active = ActiveSegment { segment: last.segment, open, position: last.end_position, room: last.file_bytes };
        Recovered { generations: Some(known), sealed, active: Some(active), end: last.end, found }
    }

    fn corrupt(&self, base: Offset, position: u64, expected: Offset, damage: Damage, proven_end: Offset) -> OpenError {
        let segment = Segment::new(&self.dir, base).path(FileKind::Log);
        OpenError::Corrupt(Box::new(Corruption { id: self.id, segment, position, expected, damage, proven_end }))
    }

    fn io(&self, action: &'static str, source: io::Error) -> OpenError {
        OpenError::Io { id: self.id, action, source }
    }
}
