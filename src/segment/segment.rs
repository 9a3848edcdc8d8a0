//! One segment: a file of frames and what is known of it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_index::{Coverage, FramePlace, IndexKind, OffsetIndex, TimeIndex};
use ringmq_runtime::buffer::BLOCK_BYTES;
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::{fs, task};
use ringmq_wire::{Offset, Timestamp};

use crate::check::FrameCheck;
use crate::frame::{FrameHeader, LogNumber};
use crate::generation::LogGenerations;
use crate::layout::{FileKind, file_name, swap_name};
use crate::scan::{FrameScanner, next_frame};

/// The largest index file that is read: entries for every block of a 16 GiB segment.
pub(crate) const INDEX_BYTES_MAX: usize = 64 << 20;

/// What a removed file gives back at a time, in bytes: some milliseconds of the file system.
const GIVEN_BACK_BYTES: u64 = 64 << 20;

/// A segment of a log, open or not.
pub(crate) struct Segment {
    pub(crate) base: Offset,
    dir: PathBuf,
    /// Where its frames end, once it is sealed; the length of its file while no index has told it.
    end_position: Cell<u64>,
    /// When its records are from, once it is sealed and an index has told it.
    span: Cell<Option<TimeSpan>>,
    open: RefCell<Option<Rc<OpenSegment>>>,
    /// Compaction was interrupted before it got its name: that says where it ends as well.
    swap_end: Option<Offset>,
    /// Its file cannot be found by its name now, so it stays open.
    pinned: Cell<bool>,
    /// Another segment has taken its place, or it is below the log's start: no file of it is created any more.
    retired: Cell<bool>,
}

/// When the records of a segment are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeSpan {
    /// The latest timestamp of its records.
    pub(crate) max_timestamp: Timestamp,
    /// When its first frame was written, by the broker's clock.
    pub(crate) first_written_at: Timestamp,
}

impl TimeSpan {
    /// As the header of an index says.
    pub(crate) fn of(coverage: &Coverage) -> TimeSpan {
        TimeSpan { max_timestamp: coverage.max_timestamp, first_written_at: coverage.first_written_at }
    }
}

/// A segment's file and its indexes in memory.
pub(crate) struct OpenSegment {
    pub(crate) file: File,
    pub(crate) indexes: RefCell<Indexes>,
    /// Whether the indexes were read from their files, and not made from the frames by this process.
    pub(crate) from_files: bool,
}

/// The segment that gets the next frame.
pub(crate) struct ActiveSegment {
    pub(crate) segment: Rc<Segment>,
    pub(crate) open: Rc<OpenSegment>,
    /// Where the next frame goes.
    pub(crate) position: u64,
    /// Up to here the file has space.
    pub(crate) room: u64,
    /// Created by an earlier process, which may not have come to making its name durable.
    pub(crate) taken_over: bool,
    /// Up to here index files on the disk tell where to begin to look for the end.
    pub(crate) indexed: u64,
}

/// What the frames of a segment are found by.
#[derive(Clone, Debug)]
pub(crate) struct Indexes {
    pub(crate) offsets: OffsetIndex,
    pub(crate) times: TimeIndex,
    /// The latest timestamp of the frames so far.
    pub(crate) max_timestamp: Timestamp,
    /// `written at` of the first frame; `None` while there is none.
    pub(crate) first_written_at: Option<Timestamp>,
}

impl Segment {
    pub(crate) fn new(dir: &Path, base: Offset) -> Segment {
        let (end_position, open) = (Cell::default(), RefCell::default());
        let (dir, pinned, retired) = (dir.to_owned(), Cell::default(), Cell::default());
        Segment { base, dir, end_position, span: Cell::default(), open, swap_end: None, pinned, retired }
    }

    /// A compacted segment that was interrupted on its way to its place.
    pub(crate) fn half_swapped(dir: &Path, base: Offset, end: Offset) -> Segment {
        Segment { swap_end: Some(end), ..Segment::new(dir, base) }
    }

    /// Keeps it open until [`Segment::unpin`].
    pub(crate) fn pin(&self) {
        self.pinned.set(true);
    }

    pub(crate) fn unpin(&self) {
        self.pinned.set(false);
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned.get()
    }

    /// What it holds is no longer to be kept in memory, nor its indexes on the disk.
    pub(crate) fn retire(&self) {
        self.retired.set(true);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    pub(crate) fn path(&self, kind: FileKind) -> PathBuf {
        match (kind, self.swap_end) {
            (FileKind::Log, Some(end)) => self.dir.join(swap_name(self.base, end)),
            _ => self.dir.join(file_name(self.base, kind)),
        }
    }

    /// The file and indexes, if they are in memory.
    pub(crate) fn opened(&self) -> Option<Rc<OpenSegment>> {
        self.open.borrow().clone()
    }

    pub(crate) fn set_opened(&self, open: Option<Rc<OpenSegment>>) {
        *self.open.borrow_mut() = open;
    }

    /// Opens the file of a sealed segment for reading.
    pub(crate) async fn open_for_reading(&self) -> io::Result<File> {
        File::open(self.path(FileKind::Log), OpenOptions::default()).await
    }

    /// Where the frames of a sealed segment end, or its file while that is not known.
    pub(crate) fn end_position(&self) -> u64 {
        self.end_position.get()
    }

    pub(crate) fn set_end_position(&self, end_position: u64) {
        self.end_position.set(end_position);
    }

    /// When its records are from; `None` while that takes a look at the disk.
    pub(crate) fn span(&self) -> Option<TimeSpan> {
        self.span.get()
    }

    pub(crate) fn set_span(&self, span: Option<TimeSpan>) {
        self.span.set(span);
    }

    /// Reads the index files, if both are sound and cover the frames of this segment up to `end`.
    pub(crate) async fn load_indexes(
        &self,
        number: LogNumber,
        end: Offset,
        interval_bytes: u64,
    ) -> Option<(Indexes, Coverage)> {
        self.load_index_hints(number, interval_bytes).await.filter(|(_, coverage)| coverage.end == end)
    }

    /// Reads the index files, if both are sound and of this segment, however far they reach. Whatever is wrong with them
    /// is told in the broker's own log: the segment is then read instead.
    pub(crate) async fn load_index_hints(&self, number: LogNumber, interval_bytes: u64) -> Option<(Indexes, Coverage)> {
        let offsets = self.read_index(FileKind::Index).await?;
        let times = self.read_index(FileKind::TimeIndex).await?;
        let offsets = OffsetIndex::decode(&offsets, interval_bytes);
        let (coverage, offsets) = offsets.map_err(|error| self.index_unusable(FileKind::Index, &error)).ok()?;
        let times = TimeIndex::decode(&times);
        let (times_coverage, times) = times.map_err(|error| self.index_unusable(FileKind::TimeIndex, &error)).ok()?;
        let fits = coverage == times_coverage && coverage.segment_base == self.base && coverage.log_number == number.0;
        let first_written_at = Some(coverage.first_written_at).filter(|_| !offsets.is_empty());
        let indexes = Indexes { offsets, times, max_timestamp: coverage.max_timestamp, first_written_at };
        fits.then_some((indexes, coverage))
    }

    /// The bytes of an index file, if they can be read.
    async fn read_index(&self, kind: FileKind) -> Option<Vec<u8>> {
        let read = fs::read_small(self.path(kind), INDEX_BYTES_MAX).await;
        // That there is none is as it should be: the process ended before it was written.
        let told = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound => {}
            _ => self.index_unusable(kind, error),
        };
        read.inspect_err(told).ok()
    }

    /// What the header of the offset index says of the segment, if it is sound and of this log: a hint.
    ///
    /// # Errors
    /// When there may be one, and it cannot be read.
    pub(crate) async fn indexed(&self, number: LogNumber) -> io::Result<Option<Coverage>> {
        let file = match File::open(self.path(FileKind::Index), OpenOptions::default()).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let first = file.read_at(0, BLOCK_BYTES, IoClass::Recovery).await?;
        let coverage = Coverage::decode(&first, IndexKind::Offset);
        let coverage = coverage.map_err(|error| self.index_unusable(FileKind::Index, &error)).ok();
        Ok(coverage.filter(|coverage| coverage.segment_base == self.base && coverage.log_number == number.0))
    }

    /// The length of its file: an upper bound of where its frames end.
    pub(crate) async fn file_bytes(&self) -> io::Result<u64> {
        self.open_for_reading().await?.size().await
    }

    fn index_unusable(&self, kind: FileKind, error: &dyn fmt::Display) {
        let index = self.path(kind);
        tracing::warn!(index = %index.display(), %error, "cannot use an index; the segment's frames are read instead");
    }

    /// Writes the index files of the frames up to `end`, which end at `end_position`.
    pub(crate) async fn store_indexes(
        &self,
        indexes: &Indexes,
        known: &LogGenerations,
        end: Offset,
        end_position: u64,
    ) -> io::Result<()> {
        let coverage = self.coverage(indexes, known, end, end_position);
        self.put_indexes(indexes, &coverage, async |path, bytes| fs::write_small_atomic(path, &bytes).await).await
    }

    /// The same of the first frames of a segment that is still written to, without a flush: a start may find other files,
    /// or none, and reads more of the segment then.
    pub(crate) async fn store_index_hints(
        &self,
        indexes: &Indexes,
        known: &LogGenerations,
        end: Offset,
        end_position: u64,
    ) -> io::Result<()> {
        let coverage = self.coverage(indexes, known, end, end_position);
        self.put_indexes(indexes, &coverage, async |path, bytes| fs::write_small_hint(path, &bytes).await).await
    }

    async fn put_indexes(
        &self,
        indexes: &Indexes,
        coverage: &Coverage,
        put: impl AsyncFn(PathBuf, Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.is_retired() {
            return Ok(());
        }
        put(self.path(FileKind::Index), indexes.offsets.encode(coverage)).await?;
        put(self.path(FileKind::TimeIndex), indexes.times.encode(coverage)).await?;
        // Whoever removed the segment meanwhile may have come before these.
        if self.is_retired() { self.remove_indexes().await } else { Ok(()) }
    }

    fn coverage(&self, indexes: &Indexes, known: &LogGenerations, end: Offset, end_position: u64) -> Coverage {
        Coverage {
            segment_base: self.base,
            log_number: known.number().0,
            end,
            end_position,
            max_timestamp: indexes.max_timestamp,
            first_written_at: indexes.first_written_at.unwrap_or(Timestamp::new(0)),
            generation: u32::try_from(known.latest().0.0).unwrap_or(0),
        }
    }

    /// Removes the segment's files. Durable only after the directory is synced.
    pub(crate) async fn remove_files(&self) -> io::Result<()> {
        self.remove_indexes().await?;
        fs::remove_file_if_there(self.path(FileKind::Log)).await
    }

    async fn remove_indexes(&self) -> io::Result<()> {
        fs::remove_file_if_there(self.path(FileKind::Index)).await?;
        fs::remove_file_if_there(self.path(FileKind::TimeIndex)).await
    }

    /// As [`Segment::remove_files`], and then gives the file's space back in pieces, so that the file system is never busy
    /// with a large one for long; `in_use` says, each time, whether someone still reads it. Then its space is given back
    /// when they are done.
    pub(crate) async fn remove_in_pieces(&self, in_use: impl Fn() -> bool) -> io::Result<()> {
        let options = OpenOptions { write: true, ..OpenOptions::default() };
        let file = match File::open(self.path(FileKind::Log), options).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.remove_files().await,
            file => file?,
        };
        self.remove_files().await?;
        let mut bytes = file.size().await?;
        while bytes > GIVEN_BACK_BYTES && !in_use() {
            bytes -= GIVEN_BACK_BYTES;
            file.truncate(bytes).await?;
            task::yield_to_io().await;
        }
        file.close().await
    }
}

impl Indexes {
    pub(crate) fn new(base: Offset, interval_bytes: u64) -> Indexes {
        Indexes {
            offsets: OffsetIndex::new(base, interval_bytes),
            times: TimeIndex::new(base),
            max_timestamp: Timestamp::new(i64::MIN),
            first_written_at: None,
        }
    }

    /// What they would be without the frames from `end` on; they may speak of later timestamps than there are.
    pub(crate) fn below(&self, end: Offset) -> Indexes {
        let (offsets, times) = (self.offsets.below(end), self.times.below(end));
        Indexes { offsets, times, max_timestamp: self.max_timestamp, first_written_at: self.first_written_at }
    }

    /// Tells the indexes of the next frame.
    pub(crate) fn push(&mut self, header: &FrameHeader) {
        let place = FramePlace { offset: header.base_offset, position: header.position };
        if self.offsets.push(place) && self.first_written_at.is_some() {
            self.times.push(self.max_timestamp, header.base_offset);
        }
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        self.first_written_at = self.first_written_at.or(Some(header.written_at));
    }

    /// When the records of the frames so far are from; `None` while there is no frame.
    pub(crate) fn span(&self) -> Option<TimeSpan> {
        let max_timestamp = self.max_timestamp;
        self.first_written_at.map(|first_written_at| TimeSpan { max_timestamp, first_written_at })
    }

    /// Builds the indexes of a sealed segment from its frames. Damaged frames are left out; reading what they held
    /// finds the damage.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) async fn rebuild(file: &File, check: &FrameCheck, interval_bytes: u64) -> io::Result<Rebuilt> {
        let mut indexes = Indexes::new(check.segment_base, interval_bytes);
        let beginning = FramePlace { offset: check.segment_base, position: 0 };
        let mut scanner = FrameScanner::new(file, check.clone(), beginning).await?;
        loop {
            match scanner.next().await? {
                Ok(header) => indexes.push(&header),
                Err(_) => {
                    let (behind, limit) = (scanner.position() + BLOCK_BYTES as u64, scanner.file_bytes());
                    match next_frame(file, check, IoClass::Recovery, behind, limit).await? {
                        Some(place) if place.offset >= scanner.expected() => scanner.skip_to(place),
                        _ => break,
                    }
                }
            }
        }
        Ok(Rebuilt { indexes, end: scanner.expected(), end_position: scanner.position() })
    }
}

/// The indexes of a segment as its frames give them.
pub(crate) struct Rebuilt {
    pub(crate) indexes: Indexes,
    pub(crate) end: Offset,
    pub(crate) end_position: u64,
}
