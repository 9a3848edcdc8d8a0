//! Reading what is durable: from memory where it is there, else from the disk in large pieces.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use ringmq_runtime::buffer::{BLOCK_BYTES, IoBuf};
use ringmq_runtime::file::IoClass;
use ringmq_wire::Offset;
use ringmq_wire::batch::BatchHeader;

use crate::cache::CachedFrame;
use crate::check::FrameCheck;
use crate::failure::{Corruption, Damage};
use crate::frame::FrameFault;
use crate::layout::{FileKind, LogId};
use crate::room::keep_open;
use crate::scan::next_frame;
use crate::segment::{Indexes, OpenSegment, Segment};
use crate::state::{LogCore, Phase};

/// The least that is read from the disk at a time.
pub(crate) const PIECE_BYTES_MIN: usize = 256 << 10;
/// The most, unless one frame is larger.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// A read within that many bytes of the durable end counts as one at the tail.
const TAIL_BYTES: u64 = 8 << 20;

/// What a read gives.
#[derive(Clone, Debug, Default)]
pub struct LogRead {
    /// Whole record batches, in order; each slice holds one or more. The first may begin before the offset asked for.
    /// Empty at the durable end.
    pub slices: Vec<IoBuf>,
    /// Bytes in all slices.
    pub bytes: usize,
    /// One past the last record: where to read on.
    pub next_offset: Offset,
}

/// Why nothing could be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The log does not hold that offset.
    #[error("offset {offset} is out of range: the log holds {start} to {end} (exclusive)")]
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The first offset there is.
        start: Offset,
        /// One past the last durable one.
        end: Offset,
    },
    /// The data is damaged. What lies before and behind can still be read.
    #[error(
        "{0}. What stands before and behind that frame can be read. Restore the file from a copy while the broker is \
         stopped, or read on behind it"
    )]
    Corrupt(Box<Corruption>),
    /// The file system failed.
    #[error("partition {id}: cannot read a segment: {source}. Nothing was changed; mend the disk and read again")]
    Io {
        /// The log.
        id: LogId,
        /// Why it failed; names the file.
        source: Arc<io::Error>,
    },
    /// The log was closed or deleted.
    #[error("the log is closed")]
    Closed,
}

/// Reads whole batches from the one that holds `from` on, at most `max_bytes` of them but at least one batch.
pub(crate) async fn read(log: &Rc<LogCore>, from: Offset, max_bytes: usize) -> Result<LogRead, ReadError> {
    let result = read_held(log, from, max_bytes).await;
    if result.is_err() {
        // Whatever it came upon, the log's start may have passed it meanwhile.
        readable_end(log, from)?;
    }
    result
}

async fn read_held(log: &Rc<LogCore>, from: Offset, max_bytes: usize) -> Result<LogRead, ReadError> {
    let durable = readable_end(log, from)?;
    let mut read = LogRead { next_offset: from, ..LogRead::default() };
    if from == durable {
        return Ok(read);
    }
    let mut run = in_memory(log, from, max_bytes);
    let at_tail = !run.is_empty();
    if !at_tail {
        run = cold_frames(log, from, max_bytes).await?;
    }
    for frame in &run {
        read.take(frame, from, max_bytes);
        if read.next_offset != frame.next_offset {
            break;
        }
    }
    if !at_tail {
        log.read_ahead.after(log, from, read.next_offset);
    }
    Ok(read)
}

/// Checks the range and returns the readable end.
pub(crate) fn readable_end(log: &LogCore, from: Offset) -> Result<Offset, ReadError> {
    let state = log.state.borrow();
    if state.phase == Phase::Closed {
        return Err(ReadError::Closed);
    }
    let (start, end) = (state.start, state.readable);
    if from < start || from > end {
        return Err(ReadError::OutOfRange { offset: from, start, end });
    }
    Ok(end)
}

impl LogRead {
    /// Takes as many whole batches of the frame as fit.
    fn take(&mut self, frame: &CachedFrame, from: Offset, max_bytes: usize) {
        let inside = frame.base_offset < from;
        if !inside && self.bytes + frame.payload.len() <= max_bytes {
            return self.push(frame.payload.clone(), frame.next_offset);
        }
        let (mut start, mut end, mut next_offset) = (None, 0, self.next_offset);
        while let Ok(batch) = BatchHeader::decode(&frame.payload[end..]) {
            let batch_end = end + batch.size_bytes();
            if batch.next_offset() > from {
                let begin = *start.get_or_insert(end);
                let first = self.slices.is_empty() && begin == end;
                if !first && self.bytes + (batch_end - begin) > max_bytes {
                    break;
                }
                next_offset = batch.next_offset();
            }
            end = batch_end.min(frame.payload.len());
        }
        if let Some(start) = start.filter(|start| *start < end) {
            self.push(frame.payload.slice(start..end), next_offset);
        }
    }

    fn push(&mut self, slice: IoBuf, next_offset: Offset) {
        self.bytes += slice.len();
        self.slices.push(slice);
        self.next_offset = next_offset;
    }
}

/// Frames from the one that holds `from` on, whether in memory or not: at least one, and some `want_bytes` of them.
pub(crate) async fn frames_from(
    log: &Rc<LogCore>,
    from: Offset,
    want_bytes: usize,
) -> Result<Vec<CachedFrame>, ReadError> {
    let run = in_memory(log, from, want_bytes);
    if run.is_empty() { cold_frames(log, from, want_bytes).await } else { Ok(run) }
}

/// What memory holds from the frame on that holds `from`: frames that were written lately, then what is durable in the
/// journal alone, as if each append were a frame. Nothing if the first has to be read from the disk.
fn in_memory(log: &LogCore, from: Offset, want_bytes: usize) -> Vec<CachedFrame> {
    let mut run = log.tail_frames.run_from(from, want_bytes);
    let next = run.last().map_or(from, |frame| frame.next_offset);
    let bytes: usize = run.iter().map(|frame| frame.payload.len()).sum();
    let state = log.state.borrow();
    let more = run.is_empty() || bytes < want_bytes;
    if more && (state.window.frames_end()..state.readable).contains(&next) {
        run.extend(state.beyond_frames(next, want_bytes.saturating_sub(bytes)));
    }
    run
}

async fn cold_frames(log: &Rc<LogCore>, from: Offset, want_bytes: usize) -> Result<Vec<CachedFrame>, ReadError> {
    log.read_ahead.arrived(from).await;
    let run = log.cold_frames.run_from(from, want_bytes);
    if run.is_empty() { read_piece(log, from, want_bytes).await } else { Ok(run) }
}

/// Reads a piece of a segment and returns the frames in it from the one that holds `from` on, at least one; they are
/// kept for the next reader as well.
pub(crate) async fn read_piece(
    log: &Rc<LogCore>,
    from: Offset,
    want_bytes: usize,
) -> Result<Vec<CachedFrame>, ReadError> {
    let want = want_bytes.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX) as u64;
    let mut rebuilt = false;
    let (frames, retired) = loop {
        let piece = Piece::locate(log, from, want).await?;
        match piece.read(log, from).await? {
            Ok(frames) => break (frames, piece.segment.is_retired()),
            // The hint may be what is wrong.
            Err(_) if piece.is_sealed && piece.open.from_files && !rebuilt => {
                rebuilt = true;
                let open = rebuild(log, &piece.segment).await?;
                piece.segment.set_opened(Some(open));
            }
            Err(corruption) => return Err(ReadError::Corrupt(corruption)),
        }
    };
    if !retired {
        log.cold_frames.insert(&frames);
    }
    Ok(frames)
}

/// A part of a segment that is read at once.
struct Piece {
    segment: Rc<Segment>,
    open: Rc<OpenSegment>,
    is_sealed: bool,
    /// A frame begins here, and it is the one of `expected`.
    position: u64,
    expected: Offset,
    /// Read up to here if there are whole frames in it.
    until: u64,
    /// The readable frames of the segment end here at the latest.
    limit: u64,
    class: IoClass,
}

impl Piece {
    /// Finds the piece in which the frame that holds `from` begins.
    async fn locate(log: &Rc<LogCore>, from: Offset, want_bytes: u64) -> Result<Piece, ReadError> {
        let (segment, active_end, open) = loop {
            readable_end(log, from)?;
            let (segment, active_end) = segment_of(log, from)?;
            let open = match segment.opened() {
                Some(open) => Ok(open),
                None => open_sealed(log, &segment).await,
            };
            // Its files may have been another segment's by the time they were opened.
            if !segment.is_retired() {
                break (segment, active_end, open?);
            }
        };
        if active_end.is_none() {
            keep_open(log, &segment);
        }
        let limit = match active_end {
            Some(durable_position) => durable_position,
            None => open.file.size().await.map_err(|error| io_error(log, error))?,
        };
        let (position, expected, until) = {
            let indexes = open.indexes.borrow();
            let (position, expected) =
                indexes.offsets.floor(from).map_or((0, segment.base), |place| (place.position, place.offset));
            let until = indexes.offsets.read_end(position, want_bytes).unwrap_or(position + want_bytes);
            (position, expected, until.min(limit))
        };
        let at_tail = active_end.is_some_and(|end| end.saturating_sub(position) <= TAIL_BYTES);
        let class = if at_tail { IoClass::TailRead } else { IoClass::ColdRead };
        let is_sealed = active_end.is_none();
        Ok(Piece { segment, open, is_sealed, position, expected, until, limit, class })
    }

    /// Reads the frames, checks each, and returns those from the one that holds `from` on; or says that it is damaged.
    /// Damage before it is stepped over: frames say for themselves which offsets they hold.
    async fn read(&self, log: &LogCore, from: Offset) -> Result<Result<Vec<CachedFrame>, Box<Corruption>>, ReadError> {
        let Some(check) = log.frame_check(self.segment.base) else { return Err(ReadError::Closed) };
        let mut walk = Walk { position: self.position, expected: self.expected, limit: self.limit };
        let mut until = self.until;
        loop {
            let bytes = self.read_bytes(log, walk.position, until).await?;
            let (frames, halt) = walk.frames(&check, &bytes, from);
            if !frames.is_empty() {
                return Ok(Ok(frames));
            }
            let further = match halt {
                Halt::Inside { frame_end } => frame_end,
                Halt::EndOfPiece => (walk.position + PIECE_BYTES_MIN as u64).min(self.limit),
                Halt::Bad(fault) => {
                    if !self.step_over(log, &mut walk, &check, from).await? {
                        return Ok(Err(self.corruption(log, &walk, fault)));
                    }
                    until = until.max((walk.position + PIECE_BYTES_MIN as u64).min(self.limit));
                    continue;
                }
            };
            if further <= until {
                // There is no more: the file is shorter than it was.
                return Ok(Err(self.corruption(log, &walk, FrameFault::EndOfFile)));
            }
            until = further;
        }
    }

    /// Goes on behind the damage that the walk has come to, if a frame begins there at or below `from`; `false` when
    /// `from` is in the damaged part.
    async fn step_over(
        &self,
        log: &LogCore,
        walk: &mut Walk,
        check: &FrameCheck,
        from: Offset,
    ) -> Result<bool, ReadError> {
        let behind = walk.position + BLOCK_BYTES as u64;
        let next = next_frame(&self.open.file, check, self.class, behind, self.limit).await;
        match next.map_err(|error| io_error(log, error))? {
            Some(place) if walk.expected <= place.offset && place.offset <= from => {
                (walk.position, walk.expected) = (place.position, place.offset);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn read_bytes(&self, log: &LogCore, position: u64, until: u64) -> Result<IoBuf, ReadError> {
        let len = usize::try_from(until.saturating_sub(position)).unwrap_or(usize::MAX).next_multiple_of(BLOCK_BYTES);
        self.open.file.read_at(position, len, self.class).await.map_err(|error| io_error(log, error))
    }

    fn corruption(&self, log: &LogCore, walk: &Walk, fault: FrameFault) -> Box<Corruption> {
        Box::new(Corruption {
            id: log.id,
            segment: self.segment.path(FileKind::Log),
            position: walk.position,
            expected: walk.expected,
            damage: Damage::Frame(fault),
            proven_end: log.state.borrow().durable,
        })
    }
}

/// The segment that holds `from`, which is in a durable frame; for the active one also where these end.
fn segment_of(log: &LogCore, from: Offset) -> Result<(Rc<Segment>, Option<u64>), ReadError> {
    let state = log.state.borrow();
    match &state.active {
        Some(active) if active.segment.base <= from => {
            Ok((active.segment.clone(), Some(state.window.frames_end_position())))
        }
        _ => {
            let after = state.sealed.partition_point(|segment| segment.base <= from);
            let segment = after.checked_sub(1).and_then(|at| state.sealed.get(at));
            segment.map(|segment| (segment.clone(), None)).ok_or(ReadError::Closed)
        }
    }
}

/// A walk over frames that stand side by side.
struct Walk {
    /// Where the next frame begins.
    position: u64,
    /// Its base offset.
    expected: Offset,
    /// No frame ends beyond.
    limit: u64,
}

/// Why a walk goes no further.
enum Halt {
    /// The piece ends between two frames.
    EndOfPiece,
    /// The piece ends inside of a frame, which ends there.
    Inside { frame_end: u64 },
    /// No frame that counts.
    Bad(FrameFault),
}

impl Walk {
    /// Walks over the frames in `bytes`, and returns those from the one that holds `from` on.
    fn frames(&mut self, check: &FrameCheck, bytes: &IoBuf, from: Offset) -> (Vec<CachedFrame>, Halt) {
        let (mut frames, mut at) = (Vec::new(), 0);
        loop {
            let rest = &bytes[at..];
            if rest.is_empty() {
                return (frames, Halt::EndOfPiece);
            }
            let header = match check.header(rest, self.position, self.limit) {
                Ok(header) if rest.len() < header.frame_bytes as usize => {
                    return (frames, Halt::Inside { frame_end: header.end_position() });
                }
                header => header,
            };
            let sound = header.and_then(|header| FrameCheck::frame(&header, self.expected, rest).map(|()| header));
            match sound {
                Ok(header) => {
                    let end = at + header.frame_bytes as usize;
                    if header.next_offset > from {
                        frames.push(CachedFrame::new(&header, &bytes.slice(at..end)));
                    }
                    at = end;
                    (self.position, self.expected) = (header.end_position(), header.next_offset);
                }
                Err(fault) => return (frames, Halt::Bad(fault)),
            }
        }
    }
}

/// Opens a sealed segment: its indexes come from their files, or from its frames where those are missing or wrong.
pub(crate) async fn open_sealed(log: &Rc<LogCore>, segment: &Rc<Segment>) -> Result<Rc<OpenSegment>, ReadError> {
    let Some(check) = log.frame_check(segment.base) else { return Err(ReadError::Closed) };
    let interval = log.config().index_interval_bytes;
    let loaded = match end_of_sealed(log, segment) {
        Some(end) => segment.load_indexes(check.generations.number(), end, interval).await,
        None => None,
    };
    let open = match loaded {
        Some((indexes, _)) => {
            let file = segment.open_for_reading().await.map_err(|error| io_error(log, error))?;
            Rc::new(OpenSegment { file, indexes: indexes.into(), from_files: true })
        }
        None => rebuild(log, segment).await?,
    };
    segment.set_span(open.indexes.borrow().span());
    segment.set_opened(Some(open.clone()));
    keep_open(log, segment);
    Ok(open)
}

/// Makes the indexes of a sealed segment from its frames. One at a time per log: it reads the whole segment.
async fn rebuild(log: &Rc<LogCore>, segment: &Rc<Segment>) -> Result<Rc<OpenSegment>, ReadError> {
    let _alone = log.rebuilding.acquire(1).await;
    if let Some(open) = segment.opened().filter(|open| !open.from_files) {
        return Ok(open);
    }
    let Some(check) = log.frame_check(segment.base) else { return Err(ReadError::Closed) };
    let file = segment.open_for_reading().await.map_err(|error| io_error(log, error))?;
    let rebuilt = Indexes::rebuild(&file, &check, log.config().index_interval_bytes).await;
    let rebuilt = rebuilt.map_err(|error| io_error(log, error))?;
    tracing::info!(partition = %log.id, segment = %segment.base, end = %rebuilt.end, "rebuilt a segment's indexes");
    if Some(rebuilt.end) == end_of_sealed(log, segment) {
        segment.set_end_position(rebuilt.end_position);
        let known = &check.generations;
        let stored = segment.store_indexes(&rebuilt.indexes, known, rebuilt.end, rebuilt.end_position).await;
        if let Err(error) = stored {
            tracing::warn!(partition = %log.id, segment = %segment.base, %error, "could not keep the rebuilt indexes");
        }
    }
    Ok(Rc::new(OpenSegment { file, indexes: rebuilt.indexes.into(), from_files: false }))
}

/// The base offset of the segment behind a sealed one.
fn end_of_sealed(log: &LogCore, segment: &Segment) -> Option<Offset> {
    let state = log.state.borrow();
    let after = state.sealed.partition_point(|other| other.base <= segment.base);
    let next = state.sealed.get(after).map(|next| next.base);
    next.or_else(|| state.active.as_ref().map(|active| active.segment.base))
}

fn io_error(log: &LogCore, error: io::Error) -> ReadError {
    ReadError::Io { id: log.id, source: Arc::new(error) }
}
