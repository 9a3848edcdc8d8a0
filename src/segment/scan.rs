//! Reading a segment frame by frame in large pieces, and looking behind damage.

use std::io;

use ringmq_index::FramePlace;
use ringmq_runtime::buffer::{BLOCK_BYTES, IoBuf};
use ringmq_runtime::file::{File, IoClass};
use ringmq_runtime::task;
use ringmq_wire::Offset;

use crate::check::FrameCheck;
use crate::frame::{FRAME_HEADER_BYTES, FrameFault, FrameHeader};

/// What is read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Reads frames, each fully checked, one behind the other.
pub(crate) struct FrameScanner {
    file: File,
    file_bytes: u64,
    check: FrameCheck,
    class: IoClass,
    position: u64,
    expected: Offset,
    piece: IoBuf,
    piece_position: u64,
}

impl FrameScanner {
    /// A scanner of `file` from the place on where a frame should begin.
    pub(crate) async fn new(file: &File, check: FrameCheck, from: FramePlace) -> io::Result<FrameScanner> {
        let file_bytes = file.size().await?;
        let FramePlace { position, offset: expected } = from;
        let (piece, piece_position, class) = (IoBuf::empty(), 0, IoClass::Recovery);
        Ok(FrameScanner { file: file.clone(), file_bytes, check, class, position, expected, piece, piece_position })
    }

    /// The same, reading for another purpose than to find out what is there.
    pub(crate) fn with_class(self, class: IoClass) -> FrameScanner {
        FrameScanner { class, ..self }
    }

    /// Where the next frame should begin.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The offset that the next frame should begin with.
    pub(crate) fn expected(&self) -> Offset {
        self.expected
    }

    /// The length of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The header of the next frame, which counts, or why there is none; then the scanner stays where it is.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) async fn next(&mut self) -> io::Result<Result<FrameHeader, FrameFault>> {
        Ok(self.next_frame().await?.map(|(header, _)| header))
    }

    /// As [`FrameScanner::next`], with the whole frame.
    pub(crate) async fn next_frame(&mut self) -> io::Result<Result<(FrameHeader, IoBuf), FrameFault>> {
        let start = self.bytes_at(FRAME_HEADER_BYTES).await?;
        let header = match self.check.header(&start, self.position, self.file_bytes) {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        let bytes = self.bytes_at(header.frame_bytes as usize).await?;
        let mut checksum = match FrameCheck::whole(&header, self.expected, &bytes) {
            Ok(checksum) => checksum,
            Err(fault) => return Ok(Err(fault)),
        };
        if self.class == IoClass::Compaction {
            while checksum.step() {
                task::yield_to_io().await;
            }
        }
        if !checksum.matches() {
            return Ok(Err(FrameFault::PayloadChecksum));
        }
        self.position = header.end_position();
        self.expected = header.next_offset;
        Ok(Ok((header, bytes)))
    }

    /// Goes on behind damage, at a frame that begins there.
    pub(crate) fn skip_to(&mut self, frame: FramePlace) {
        self.position = frame.position;
        self.expected = frame.offset;
    }

    /// The next `len` bytes, fewer at the end of the file.
    async fn bytes_at(&mut self, len: usize) -> io::Result<IoBuf> {
        if let Some(bytes) = self.in_piece(len) {
            return Ok(bytes);
        }
        let len_read = len.next_multiple_of(BLOCK_BYTES).max(PIECE_BYTES);
        self.piece = self.file.read_at(self.position, len_read, self.class).await?;
        self.piece_position = self.position;
        Ok(self.piece.slice(..len.min(self.piece.len())))
    }

    fn in_piece(&self, len: usize) -> Option<IoBuf> {
        let at = usize::try_from(self.position.checked_sub(self.piece_position)?).ok()?;
        let end = at.checked_add(len).filter(|end| *end <= self.piece.len())?;
        Some(self.piece.slice(at..end))
    }
}

/// What stands behind the place where the frames of a segment end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Headers that belong there: frames that were written, whatever became of their payloads.
    pub(crate) frames: u32,
    /// How far the log's frames were durable when the latest of them was built.
    pub(crate) proven_frames_end: Option<Offset>,
    /// How far the log was durable then, the journal included.
    pub(crate) proven_end: Option<Offset>,
    /// The first frame of this log whose generation is newer than the tables know, with its position.
    pub(crate) unknown_generation: Option<(u64, FrameFault)>,
    /// Whether any byte is not zero: something was written there once, whatever it was.
    pub(crate) written: bool,
}

impl Behind {
    /// Looks at every block of `file` from `position` on.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) async fn look(file: &File, check: &FrameCheck, position: u64) -> io::Result<Behind> {
        let mut behind = Behind::default();
        let file_bytes = file.size().await?;
        let mut at = position;
        while at < file_bytes {
            let piece = file.read_at(at, PIECE_BYTES, IoClass::Recovery).await?;
            if piece.is_empty() {
                break;
            }
            for (block, at) in piece.chunks(BLOCK_BYTES).zip((at..).step_by(BLOCK_BYTES)) {
                behind.judge(check, check.header(block, at, file_bytes), at);
                behind.written = behind.written || block.iter().any(|byte| *byte != 0);
            }
            at += piece.len().next_multiple_of(BLOCK_BYTES) as u64;
        }
        Ok(behind)
    }

    fn judge(&mut self, check: &FrameCheck, found: Result<FrameHeader, FrameFault>, position: u64) {
        match found {
            Ok(header) => {
                self.frames += 1;
                self.proven_frames_end = self.proven_frames_end.max(Some(header.frames_end));
                self.proven_end = self.proven_end.max(Some(check.proven_end(&header)));
            }
            Err(fault @ FrameFault::UnknownGeneration(_)) => {
                self.unknown_generation = self.unknown_generation.or(Some((position, fault)));
            }
            Err(_) => {}
        }
    }
}

/// Finds the first frame that counts, begins at or behind `position` and ends by `limit`. Its payload is not looked
/// at.
///
/// # Errors
/// When the file cannot be read.
pub(crate) async fn next_frame(
    file: &File,
    check: &FrameCheck,
    class: IoClass,
    position: u64,
    limit: u64,
) -> io::Result<Option<FramePlace>> {
    let mut at = position;
    while at < limit {
        let piece = file.read_at(at, PIECE_BYTES, class).await?;
        if piece.is_empty() {
            break;
        }
        let mut blocks = piece.chunks(BLOCK_BYTES).zip((at..limit).step_by(BLOCK_BYTES));
        let found = blocks.find_map(|(block, at)| check.header(block, at, limit).ok().map(|header| (at, header)));
        if let Some((at, header)) = found {
            return Ok(Some(FramePlace { offset: header.base_offset, position: at }));
        }
        at += piece.len().next_multiple_of(BLOCK_BYTES) as u64;
    }
    Ok(None)
}
