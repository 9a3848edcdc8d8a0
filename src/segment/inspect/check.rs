//! Going over all of a log: every frame, every batch, every record, every index.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_index::{FramePlace, OffsetIndex, TimeIndex};
use ringmq_runtime::buffer::BLOCK_BYTES;
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::fs;
use ringmq_wire::Offset;
use ringmq_wire::batch::{BatchView, Scratch, split_batches};

use super::producers::{SnapshotCheck, Snapshots};
use crate::check::FrameCheck;
use crate::frame::{FrameFault, FrameHeader};
use crate::generation::{GenerationHistory, LogGenerations};
use crate::layout::{FileKind, LogId, file_name, parse_file_name};
use crate::recovery::{Judgement, OpenError, Recovery, Without, judge, refuse_doubt};
use crate::redo::Journaled;
use crate::scan::{FrameScanner, next_frame};
use crate::segment::INDEX_BYTES_MAX;

/// What was found of one log.
#[derive(Debug)]
pub struct LogCheck {
    /// The log.
    pub id: LogId,
    /// By base offset.
    pub segments: Vec<SegmentCheck>,
    /// Snapshots of producers, by offset.
    pub snapshots: Vec<SnapshotCheck>,
    /// What the next start of a broker would make of it.
    pub next_start: NextStart,
}

/// What the files of one segment hold.
#[derive(Debug)]
pub struct SegmentCheck {
    /// Its file of frames.
    pub path: PathBuf,
    /// The offset that it begins with.
    pub base: Offset,
    /// One past the last record of its last sound frame.
    pub end: Offset,
    /// Bytes of the file, space without frames included.
    pub file_bytes: u64,
    /// Sound frames.
    pub frames: u64,
    /// Bytes of them.
    pub frame_bytes: u64,
    /// Sound batches in these.
    pub batches: u64,
    /// Records of these.
    pub records: u64,
    /// What is damaged, by position.
    pub damage: Vec<DamagedPlace>,
}

/// Which part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A frame: its records cannot be read.
    Frame,
    /// A batch in a frame whose checksum is right: it was stored so.
    Batch,
    /// An index: it is built again from the frames.
    Index,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPlace {
    /// Which part it is.
    pub part: Part,
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes.
    pub position: u64,
    /// The offset that should be found there.
    pub expected: Offset,
    /// What is there instead.
    pub found: String,
}

/// What the next start of a broker would make of a log.
#[derive(Debug)]
pub enum NextStart {
    /// Nothing was ever appended.
    Empty,
    /// It is served.
    Serves {
        /// The end of its frames.
        frames_end: Offset,
        /// The end of the log, with what the journals have behind the frames.
        end: Offset,
        /// How many appends of the journals are put into frames.
        redo: usize,
        /// Where the last segment is cut, if what stands behind was never acknowledged: the file, the position, and how
        /// many headers of frames stand there.
        cut: Option<(PathBuf, u64, u32)>,
        /// Segments that were never written to and are removed.
        removed: Vec<PathBuf>,
    },
    /// It stays offline, and why.
    Refuses(Box<OpenError>),
}

impl NextStart {
    /// The error that recovery would give.
    #[must_use]
    pub fn refusal(&self) -> Option<&OpenError> {
        match self {
            NextStart::Refuses(error) => Some(error),
            NextStart::Empty | NextStart::Serves { .. } => None,
        }
    }
}

impl From<Result<Judgement, OpenError>> for NextStart {
    fn from(judged: Result<Judgement, OpenError>) -> NextStart {
        let Judgement { found, frames_end, end, redo, beyond: removed } = match judged {
            Ok(judgement) => judgement,
            Err(error) => return NextStart::Refuses(Box::new(error)),
        };
        let cut = match found {
            Recovery::Empty => return NextStart::Empty,
            Recovery::Clean { .. } => None,
            Recovery::CutTail { segment, position, frames, .. } => Some((segment, position, frames)),
        };
        NextStart::Serves { frames_end, end, redo, cut, removed }
    }
}

/// Reads all of the log of a partition under `root`, with what the tables and the journals know of it. Changes
/// nothing. What cannot be read is damage, too.
pub async fn check_log(root: &Path, id: LogId, history: &GenerationHistory, journaled: &Journaled) -> LogCheck {
    let known = history.of(id);
    let judged = match refuse_doubt(root, id, known.as_ref(), history.doubt(id)).await {
        Ok(()) => judge(root, id, known.clone(), journaled, &Without::default()).await,
        Err(error) => Err(error),
    };
    let next_start = NextStart::from(judged);
    let (mut segments, mut snapshots) = (Vec::new(), Vec::new());
    if let Some(known) = known {
        let dir = id.log_dir(root);
        let bases = list_segments(&dir, known.log_start()).await.unwrap_or_default();
        let known = Rc::new(known);
        // Behind the end that recovery finds there may be anything: none of it was acknowledged.
        let end = match &next_start {
            NextStart::Serves { frames_end, .. } => Some(*frames_end),
            NextStart::Empty | NextStart::Refuses(_) => None,
        };
        let first = bases.first().copied().unwrap_or(known.log_start());
        let mut told = Snapshots::load(&dir, id, known.clone(), first).await;
        for (at, base) in bases.iter().enumerate() {
            let until = Until { next: bases.get(at + 1).copied(), end };
            let walk = Walk::new(&dir, id, *base, known.clone(), until, &mut told);
            segments.push(walk.check().await);
        }
        let frames_end = end.or(segments.last().map(|last| last.end)).unwrap_or(first);
        snapshots = told.finish(frames_end);
    }
    LogCheck { id, segments, snapshots, next_start }
}

/// Gives the batches of every frame that counts, in order, to `each` (of the segment in which the log begins all), and
/// returns where the frames end. Damage ends them, too. Changes nothing.
///
/// # Errors
/// When a file cannot be read; what `each` gives.
pub async fn read_log<E: From<io::Error>>(
    root: &Path,
    id: LogId,
    history: &GenerationHistory,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Offset, E> {
    let Some(known) = history.of(id) else { return Ok(Offset::ZERO) };
    let (dir, generations) = (id.log_dir(root), Rc::new(known));
    let start = generations.log_start();
    let bases = list_segments(&dir, start).await?;
    let mut end = bases.first().copied().filter(|first| *first <= start).unwrap_or(start);
    for base in bases {
        if base != end {
            break;
        }
        let file = File::open(dir.join(file_name(base, FileKind::Log)), OpenOptions::default()).await?;
        let check = FrameCheck { id, segment_base: base, generations: generations.clone() };
        let mut scanner = FrameScanner::new(&file, check, FramePlace { offset: base, position: 0 }).await?;
        while let Ok((header, frame)) = scanner.next_frame().await? {
            each(&frame[header.payload_range()])?;
        }
        end = scanner.expected();
        file.close().await?;
    }
    Ok(end)
}

/// The base offsets of the segments in a directory, without those that lie below `start` as a whole: they are deleted.
/// None when the directory is not there.
pub(super) async fn list_segments(dir: &Path, start: Offset) -> io::Result<Vec<Offset>> {
    let entries = match fs::read_dir(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let base = |name: &str| parse_file_name(name).filter(|(_, kind)| *kind == FileKind::Log).map(|(base, _)| base);
    let mut bases: Vec<Offset> = entries.iter().filter_map(|entry| base(&entry.name)).collect();
    let holds_start = bases.iter().rposition(|base| *base <= start).unwrap_or(0);
    bases.drain(..holds_start);
    Ok(bases)
}

/// How far the frames of a segment have to reach.
#[derive(Clone, Copy)]
struct Until {
    /// The next segment.
    next: Option<Offset>,
    /// The end of the log's frames, where recovery finds one.
    end: Option<Offset>,
}

impl Until {
    /// Whether the frames may end here.
    fn is_reached(self, offset: Offset) -> bool {
        self.next.is_some_and(|next| offset >= next) || self.end.is_some_and(|end| offset >= end)
    }
}

/// Going over one segment.
struct Walk<'a> {
    snapshots: &'a mut Snapshots,
    check: FrameCheck,
    until: Until,
    scratch: Scratch,
    dir: PathBuf,
    found: SegmentCheck,
}

impl<'a> Walk<'a> {
    fn new(
        dir: &Path,
        id: LogId,
        base: Offset,
        generations: Rc<LogGenerations>,
        until: Until,
        snapshots: &'a mut Snapshots,
    ) -> Walk<'a> {
        let check = FrameCheck { id, segment_base: base, generations };
        let path = dir.join(file_name(base, FileKind::Log));
        let (file_bytes, frames, frame_bytes, batches, records) = (0, 0, 0, 0, 0);
        let damage = Vec::new();
        let found = SegmentCheck { path, base, end: base, file_bytes, frames, frame_bytes, batches, records, damage };
        Walk { snapshots, check, until, scratch: Scratch::default(), dir: dir.to_owned(), found }
    }

    async fn check(mut self) -> SegmentCheck {
        if let Err(error) = self.frames().await {
            let place = FramePlace { offset: self.found.end, position: self.found.frame_bytes };
            self.damaged(Part::Frame, place, error.to_string());
        }
        for kind in [FileKind::Index, FileKind::TimeIndex] {
            self.index(kind).await;
        }
        self.found
    }

    async fn frames(&mut self) -> io::Result<()> {
        let file = File::open(&self.found.path, OpenOptions::default()).await?;
        let beginning = FramePlace { offset: self.found.base, position: 0 };
        let mut scanner = FrameScanner::new(&file, self.check.clone(), beginning).await?;
        self.found.file_bytes = scanner.file_bytes();
        loop {
            match scanner.next_frame().await? {
                Ok((header, frame)) => self.frame(&header, &frame[header.payload_range()]),
                Err(fault) => {
                    let place = FramePlace { offset: scanner.expected(), position: scanner.position() };
                    if !self.goes_on_behind(&file, &mut scanner, place, fault).await? {
                        break;
                    }
                }
            }
        }
        file.close().await
    }

    /// Whether another frame stands behind what is no frame, and the scanner is there.
    async fn goes_on_behind(
        &mut self,
        file: &File,
        scanner: &mut FrameScanner,
        place: FramePlace,
        fault: FrameFault,
    ) -> io::Result<bool> {
        if self.until.is_reached(place.offset) {
            return Ok(false);
        }
        let (behind, limit) = (place.position + BLOCK_BYTES as u64, scanner.file_bytes());
        let next = next_frame(file, &self.check, IoClass::Recovery, behind, limit).await?;
        let next = next.filter(|next| next.offset >= place.offset);
        // An empty file, or the end of a log that recovery refuses for something else.
        let ends = matches!(fault, FrameFault::Zeros | FrameFault::EndOfFile) && next.is_none();
        if !ends || self.until.next.is_some() {
            self.damaged(Part::Frame, place, fault.to_string());
        }
        if let Some(next) = next {
            scanner.skip_to(next);
        }
        Ok(next.is_some())
    }

    fn frame(&mut self, header: &FrameHeader, payload: &[u8]) {
        self.snapshots.frame(header, payload);
        self.found.frames += 1;
        self.found.frame_bytes += u64::from(header.frame_bytes);
        self.found.end = header.next_offset;
        let mut next = header.base_offset;
        // Compaction leaves gaps, and nothing else does.
        let span = header.next_offset.get() - header.base_offset.get();
        let compacted = i64::from(header.record_count) < span;
        for batch in split_batches(payload) {
            let sound = batch.map_err(|error| error.to_string()).and_then(|batch| {
                check_batch(&batch, next, compacted, &mut self.scratch)?;
                Ok((batch.header().next_offset(), u64::from(batch.header().record_count)))
            });
            match sound {
                Ok((behind, records)) => {
                    self.found.batches += 1;
                    self.found.records += records;
                    next = behind;
                }
                Err(why) => {
                    return self.damaged(Part::Batch, FramePlace { offset: next, position: header.position }, why);
                }
            }
        }
        if next != header.next_offset {
            let place = FramePlace { offset: next, position: header.position };
            self.damaged(Part::Batch, place, format!("the batches of the frame end at offset {next}"));
        }
    }

    async fn index(&mut self, kind: FileKind) {
        let path = self.dir.join(file_name(self.found.base, kind));
        let bytes = match fs::read_small(&path, INDEX_BYTES_MAX).await {
            // Written when a segment is sealed and when a log is closed: there may be none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.damaged_index(path, error.to_string()),
            Ok(bytes) => bytes,
        };
        let decoded = match kind {
            FileKind::TimeIndex => TimeIndex::decode(&bytes).map(|(coverage, _)| coverage),
            FileKind::Log | FileKind::Index | FileKind::Cleaned | FileKind::Producers => {
                OffsetIndex::decode(&bytes, BLOCK_BYTES as u64).map(|(coverage, _)| coverage)
            }
        };
        match decoded {
            Err(error) => self.damaged_index(path, error.to_string()),
            Ok(coverage) if coverage.segment_base != self.found.base => {
                self.damaged_index(path, format!("it is of segment {}", coverage.segment_base));
            }
            Ok(coverage) if coverage.log_number != self.check.generations.number().0 => {
                self.damaged_index(path, "it is of another log".to_owned());
            }
            Ok(_) => {}
        }
    }

    fn damaged_index(&mut self, path: PathBuf, found: String) {
        let expected = self.found.base;
        self.found.damage.push(DamagedPlace { part: Part::Index, path, position: 0, expected, found });
    }

    fn damaged(&mut self, part: Part, place: FramePlace, found: String) {
        self.snapshots.damaged(place.offset);
        let path = self.found.path.clone();
        self.found.damage.push(DamagedPlace { part, path, position: place.position, expected: place.offset, found });
    }
}

/// Checksum, offset and every record of a batch.
fn check_batch(batch: &BatchView<'_>, expected: Offset, compacted: bool, scratch: &mut Scratch) -> Result<(), String> {
    let header = batch.header();
    if header.base_offset != expected && !(compacted && header.base_offset > expected) {
        return Err(format!("a batch of offset {}", header.base_offset));
    }
    batch.verify_checksum().map_err(|error| error.to_string())?;
    let mut count = 0;
    for record in batch.records(scratch).map_err(|error| error.to_string())? {
        record.map_err(|error| error.to_string())?;
        count += 1;
    }
    if count == header.record_count { Ok(()) } else { Err(format!("{count} records of {}", header.record_count)) }
}
