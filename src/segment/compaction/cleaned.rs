//! The segment that compaction writes.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ringmq_runtime::buffer::{AlignedBuf, BLOCK_BYTES};
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::fs;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_wire::batch::{BatchHeader, BatchView};
use ringmq_wire::{Offset, Timestamp};

use super::pace::{PIECE_BYTES, Pace, RECORD_BYTES};
use super::sift::Left;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, PayloadChecksum};
use crate::layout::{FileKind, file_name};
use crate::segment::Indexes;
use crate::state::LogCore;

/// What is written in one go, and the longest frame that batches share, in bytes. Appends share longer ones; here it is
/// short so that at the device what someone waits for is never behind much.
const WRITE_BYTES_MAX: usize = 256 << 10;

/// The file gets space in steps of so many bytes.
const GROWTH_BYTES: u64 = 8 << 20;

/// A segment that is being written, under a name that no start takes for one.
pub(super) struct CleanedSegment {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) indexes: Indexes,
    base: Offset,
    /// Where the next frame goes.
    position: u64,
    room: u64,
    frame_bytes_max: usize,
    frame: Option<OpenFrame>,
    /// Memory for the next one.
    spare: Vec<u8>,
    /// Whether anything in it is not as it was.
    changed: bool,
}

/// The frame that batches go into.
struct OpenFrame {
    /// Of the first of the frames that go into it; what changes with the others does so as they come.
    header: FrameHeader,
    /// One past the offsets that it stands for so far.
    end: Offset,
    /// The frame so far: room for its header, and batches.
    bytes: Vec<u8>,
    record_count: u32,
    /// What stands for the last offsets, where no record does.
    placeholder: Option<Vec<u8>>,
}

impl CleanedSegment {
    pub(super) async fn create(log: &Rc<LogCore>, base: Offset) -> io::Result<CleanedSegment> {
        let path = log.dir.join(file_name(base, FileKind::Cleaned));
        fs::remove_file_if_there(&path).await?;
        let file = File::open(&path, OpenOptions { write: true, create_new: true, dsync: false }).await?;
        let config = log.config();
        Ok(CleanedSegment {
            path,
            file,
            indexes: Indexes::new(base, config.index_interval_bytes),
            base,
            position: 0,
            room: 0,
            frame_bytes_max: config.shared_frame_bytes_max().min(WRITE_BYTES_MAX),
            frame: None,
            spare: Vec::new(),
            changed: false,
        })
    }

    /// Where its frames end so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What the frame takes that is not written yet, at the most.
    pub(super) fn open_bytes(&self) -> u64 {
        self.frame.as_ref().map_or(0, |frame| frame.bytes.len().next_multiple_of(BLOCK_BYTES) as u64)
    }

    /// Whether anything in it is not as it was.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The batches of that frame come next.
    pub(super) async fn begin(&mut self, source: &FrameHeader, pace: &mut Pace) -> io::Result<()> {
        let joins = self.frame.as_ref().is_some_and(|frame| {
            let bytes = frame.bytes.len() + source.payload_bytes as usize;
            frame.header.generation == source.generation
                && frame.header.leader_epoch == source.leader_epoch
                && frame.record_count.checked_add(source.record_count).is_some()
                && bytes <= self.frame_bytes_max
        });
        if !joins {
            self.write_frame(pace).await?;
        }
        if self.frame.is_none() {
            self.frame = Some(OpenFrame::new(*source, std::mem::take(&mut self.spare)));
        }
        Ok(())
    }

    /// What is left of a batch of that frame. Where it does not fit in with the others any more, the frame goes on in
    /// another.
    pub(super) async fn push(&mut self, batch: &BatchView<'_>, left: Left, pace: &mut Pace) -> io::Result<()> {
        self.changed |= left.differs_from(batch);
        let kept = match &left {
            Left::Everything => batch.bytes(),
            Left::Rewritten(bytes) => bytes,
            Left::Nothing(_) => &[],
        };
        if self.frame.as_ref().is_some_and(|frame| !frame.has_room(kept.len(), self.frame_bytes_max)) {
            let rest = self.frame.as_mut().map(OpenFrame::split_off);
            self.write_frame(pace).await?;
            self.frame = rest;
        }
        let Some(frame) = &mut self.frame else { return Ok(()) };
        frame.end = batch.header().next_offset();
        match &left {
            Left::Nothing(bytes) => frame.placeholder = Some(bytes.to_vec()),
            Left::Everything | Left::Rewritten(_) => frame.take(kept, pace).await,
        }
        pace.spend(RECORD_BYTES).await;
        Ok(())
    }

    /// The frame's batches have all come.
    pub(super) fn end(&mut self, source: &FrameHeader) {
        let Some(frame) = &mut self.frame else { return };
        frame.header.next_offset = source.next_offset;
        frame.header.written_at = source.written_at;
    }

    /// Writes what is open, and flushes all of it.
    pub(super) async fn finish(&mut self, pace: &mut Pace) -> io::Result<()> {
        self.write_frame(pace).await?;
        self.file.truncate(self.position).await?;
        if SeededBug::SwapBeforeFlush.is_in() {
            return Ok(());
        }
        self.file.fdatasync().await
    }

    /// It is not wanted.
    pub(super) async fn remove(self) {
        if let Err(error) = fs::remove_file_if_there(&self.path).await {
            tracing::warn!(path = %self.path.display(), %error, "what compaction wrote stays; the next start removes it");
        }
    }

    async fn write_frame(&mut self, pace: &mut Pace) -> io::Result<()> {
        let Some(OpenFrame { header, end: _, bytes: mut frame, record_count, placeholder }) = self.frame.take() else {
            return Ok(());
        };
        if let Some(placeholder) = placeholder {
            frame.extend_from_slice(&placeholder);
        }
        let payload_bytes = frame.len() - FRAME_HEADER_BYTES;
        frame.resize(frame.len().next_multiple_of(BLOCK_BYTES), 0);
        let field = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
        let header = FrameHeader {
            segment_base: self.base,
            position: self.position,
            record_count,
            payload_bytes: field(payload_bytes)?,
            frame_bytes: field(frame.len())?,
            ..header
        };
        let mut checksum = PayloadChecksum::of(&frame);
        while checksum.step() {
            pace.spend(PayloadChecksum::STEP_BYTES / 4).await;
        }
        let checksum = checksum.finish();
        header.seal_with(checksum, &mut frame);
        self.make_room(header.end_position()).await?;
        self.write(&frame, pace).await?;
        self.indexes.push(&header);
        self.position = header.end_position();
        if frame.capacity() <= 2 * WRITE_BYTES_MAX {
            self.spare = frame;
        }
        Ok(())
    }

    /// Writes a frame in pieces. That it is whole is seen to by the flush at the end.
    async fn write(&self, frame: &[u8], pace: &mut Pace) -> io::Result<()> {
        let positions = (self.position..).step_by(WRITE_BYTES_MAX);
        for (piece, position) in frame.chunks(WRITE_BYTES_MAX).zip(positions) {
            let mut buf = AlignedBuf::with_len(piece.len());
            for (to, from) in buf.chunks_mut(PIECE_BYTES).zip(piece.chunks(PIECE_BYTES)) {
                to.copy_from_slice(from);
                pace.spend(from.len()).await;
            }
            self.file.write_at(&buf.freeze(), position, IoClass::Compaction).await?;
        }
        Ok(())
    }

    /// Sees to it that the file has space up to there.
    async fn make_room(&mut self, needed: u64) -> io::Result<()> {
        if self.room < needed {
            let room = needed.next_multiple_of(GROWTH_BYTES);
            self.file.preallocate(room).await?;
            self.room = room;
        }
        Ok(())
    }
}

impl OpenFrame {
    /// For the batches of frames of which this is the first, in memory that was used before.
    fn new(first: FrameHeader, mut bytes: Vec<u8>) -> OpenFrame {
        bytes.clear();
        bytes.resize(FRAME_HEADER_BYTES, 0);
        let header = FrameHeader { max_timestamp: Timestamp::new(-1), ..first };
        OpenFrame { header, end: first.base_offset, bytes, record_count: 0, placeholder: None }
    }

    /// A batch by itself always has.
    fn has_room(&self, batch_bytes: usize, frame_bytes_max: usize) -> bool {
        self.bytes.len() == FRAME_HEADER_BYTES || self.bytes.len() + batch_bytes <= frame_bytes_max
    }

    /// Ends with the batches that came so far; returns the frame for those to come.
    fn split_off(&mut self) -> OpenFrame {
        let rest = OpenFrame::new(FrameHeader { base_offset: self.end, ..self.header }, Vec::new());
        self.header.next_offset = self.end;
        rest
    }

    async fn take(&mut self, batch: &[u8], pace: &mut Pace) {
        // It stood for what lies before this batch.
        self.placeholder = None;
        // The padding too, or a long frame would move for it.
        self.bytes.reserve(batch.len() + BLOCK_BYTES);
        for piece in batch.chunks(PIECE_BYTES) {
            self.bytes.extend_from_slice(piece);
            pace.spend(piece.len()).await;
        }
        if let Ok(header) = BatchHeader::decode(batch) {
            self.record_count = self.record_count.saturating_add(header.record_count);
            self.header.max_timestamp = self.header.max_timestamp.max(header.max_timestamp);
        }
    }
}

const _: () = assert!(GROWTH_BYTES.is_multiple_of(BLOCK_BYTES as u64));
// A buffer of up to that length is as long as asked for, whatever whole blocks that are.
const _: () = assert!(WRITE_BYTES_MAX <= 128 * BLOCK_BYTES && PIECE_BYTES <= WRITE_BYTES_MAX);
