//! Frames in memory: what was just written, and what a reader far behind will want next.
//!
//! The memory of a core is bounded over all its logs; what came first goes first. Written frames and frames read from
//! the disk have bounds of their own, so that a reader far behind never drives out what the others are about to read.
//!
//! What counts is memory. A frame keeps alive the whole buffer that it lies in, so the frames of one buffer come and
//! go together, and count for all of it: what is not shown of it, too.
//!
//! The memory for written frames is taken little by little: beyond what is there from the start on, only as much as was made
//! ready in the background. Where that does not keep up, older frames go instead. A cache that grew as fast as it is
//! written would have each of its first gigabytes wait for the page faults of memory that was never touched.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::rc::{Rc, Weak};

use ringmq_runtime::buffer::{self, IoBuf};
use ringmq_wire::batch::BatchHeader;
use ringmq_wire::{Offset, Timestamp};

use crate::frame::FrameHeader;

/// Of the cache's bytes, the part for frames read from the disk.
const READ_PART: usize = 8;
/// Bytes for written frames that are there from the start on.
const FIRST_BYTES: usize = 64 << 20;

/// The frames that one core keeps in memory. Clones share it.
#[derive(Clone)]
pub struct TailCache {
    written: FrameFifo,
    read: FrameFifo,
}

impl TailCache {
    /// A cache of at most `bytes_max` bytes, an eighth of it for frames read from the disk. A buffer that does not fit
    /// is not kept.
    #[must_use]
    pub fn new(bytes_max: usize) -> TailCache {
        let read_bytes_max = bytes_max / READ_PART;
        let written_bytes_max = bytes_max - read_bytes_max;
        TailCache {
            written: FrameFifo::new(written_bytes_max, written_bytes_max.min(FIRST_BYTES)),
            // The memory that is read into comes from elsewhere, and there is little of it.
            read: FrameFifo::new(read_bytes_max, read_bytes_max),
        }
    }

    /// Bytes of memory that the kept frames keep alive.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.written.bytes() + self.read.bytes()
    }

    /// A log's place for the frames that it wrote.
    pub(crate) fn written(&self) -> Rc<FrameSlot> {
        FrameSlot::new(&self.written)
    }

    /// A log's place for the frames that were read for it.
    pub(crate) fn read(&self) -> Rc<FrameSlot> {
        FrameSlot::new(&self.read)
    }
}

impl fmt::Debug for TailCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TailCache").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// A durable frame in memory, without its header.
#[derive(Clone, Debug)]
pub(crate) struct CachedFrame {
    pub(crate) base_offset: Offset,
    pub(crate) next_offset: Offset,
    pub(crate) max_timestamp: Timestamp,
    /// Whole record batches.
    pub(crate) payload: IoBuf,
}

impl CachedFrame {
    /// Of a whole frame in memory.
    pub(crate) fn new(header: &FrameHeader, frame: &IoBuf) -> CachedFrame {
        CachedFrame {
            base_offset: header.base_offset,
            next_offset: header.next_offset,
            max_timestamp: header.max_timestamp,
            payload: frame.slice(header.payload_range()),
        }
    }
}

impl CachedFrame {
    /// Its batches below `end`, where one ends; `None` if there is none.
    pub(crate) fn below(self, end: Offset) -> Option<CachedFrame> {
        if self.next_offset <= end {
            return Some(self);
        }
        let (mut bytes, mut next_offset, mut max_timestamp) = (0, self.base_offset, Timestamp::new(i64::MIN));
        while let Ok(batch) = BatchHeader::decode(&self.payload[bytes..])
            && batch.next_offset() <= end
        {
            bytes += batch.size_bytes();
            next_offset = batch.next_offset();
            max_timestamp = max_timestamp.max(batch.max_timestamp);
        }
        let CachedFrame { base_offset, payload, .. } = self;
        (bytes > 0).then(|| CachedFrame { base_offset, next_offset, max_timestamp, payload: payload.slice(..bytes) })
    }
}

/// Which frames of all logs go first.
#[derive(Clone)]
struct FrameFifo(Rc<RefCell<Fifo>>);

struct Fifo {
    bytes_max: usize,
    /// Of them, the bytes that may be used by now.
    granted_bytes: usize,
    bytes: usize,
    /// The number that the next buffer gets.
    next: u64,
    /// By number.
    order: BTreeMap<u64, Buffer>,
}

/// A buffer in the cache, with the frames in it.
struct Buffer {
    slot: Weak<FrameSlot>,
    number: u64,
    memory_bytes: usize,
    /// From the first frame's base to the last one's next offset.
    offsets: Range<Offset>,
}

impl FrameFifo {
    fn new(bytes_max: usize, granted_bytes: usize) -> FrameFifo {
        FrameFifo(Rc::new(RefCell::new(Fifo { bytes_max, granted_bytes, bytes: 0, next: 0, order: BTreeMap::new() })))
    }

    fn bytes(&self) -> usize {
        self.0.borrow().bytes
    }

    /// Makes room for a buffer and takes it in; returns its number, or `None` when it can never fit.
    fn admit(&self, slot: &Rc<FrameSlot>, memory_bytes: usize, offsets: Range<Offset>) -> Option<u64> {
        let mut fifo = self.0.borrow_mut();
        if fifo.bytes + memory_bytes > fifo.granted_bytes && fifo.granted_bytes < fifo.bytes_max {
            let ready_bytes = buffer::make_ready(memory_bytes);
            fifo.granted_bytes = fifo.bytes_max.min(fifo.granted_bytes + ready_bytes);
        }
        if memory_bytes > fifo.granted_bytes {
            return None;
        }
        while fifo.bytes + memory_bytes > fifo.granted_bytes {
            let Some((_, oldest)) = fifo.order.pop_first() else { break };
            fifo.bytes -= oldest.memory_bytes;
            if let Some(slot) = oldest.slot.upgrade() {
                slot.let_go(&oldest);
            }
        }
        let number = fifo.next;
        fifo.next += 1;
        fifo.bytes += memory_bytes;
        fifo.order.insert(number, Buffer { slot: Rc::downgrade(slot), number, memory_bytes, offsets });
        Some(number)
    }

    /// Takes out a buffer.
    fn take(&self, number: u64) -> Option<Buffer> {
        let mut fifo = self.0.borrow_mut();
        let taken = fifo.order.remove(&number)?;
        fifo.bytes -= taken.memory_bytes;
        Some(taken)
    }

    fn forget(&self, slot: *const FrameSlot) {
        let mut fifo = self.0.borrow_mut();
        let Fifo { bytes, order, .. } = &mut *fifo;
        order.retain(|_, buffer| {
            let stays = !std::ptr::eq(buffer.slot.as_ptr(), slot);
            if !stays {
                *bytes -= buffer.memory_bytes;
            }
            stays
        });
    }
}

/// The kept frames of one log.
pub(crate) struct FrameSlot {
    fifo: FrameFifo,
    frames: RefCell<BTreeMap<Offset, Kept>>,
}

/// A frame, and the number of its buffer.
struct Kept {
    frame: CachedFrame,
    buffer: u64,
}

impl FrameSlot {
    fn new(fifo: &FrameFifo) -> Rc<FrameSlot> {
        Rc::new(FrameSlot { fifo: fifo.clone(), frames: RefCell::default() })
    }

    /// Keeps the frames that are not kept already, if the one buffer that they all lie in fits.
    pub(crate) fn insert(self: &Rc<Self>, frames: &[CachedFrame]) {
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return };
        debug_assert!(frames.iter().all(|frame| frame.payload.shares_memory_with(&first.payload)));
        if frames.iter().all(|frame| self.frames.borrow().contains_key(&frame.base_offset)) {
            return;
        }
        let offsets = first.base_offset..last.next_offset;
        // What is not new now may be let go of to make room.
        let Some(buffer) = self.fifo.admit(self, first.payload.memory_bytes(), offsets) else { return };
        let mut kept = self.frames.borrow_mut();
        for frame in frames {
            kept.entry(frame.base_offset).or_insert_with(|| Kept { frame: frame.clone(), buffer });
        }
    }

    /// Lets go of a buffer. Some of what it held may be kept in another one.
    fn let_go(&self, buffer: &Buffer) {
        let mut frames = self.frames.borrow_mut();
        let of_buffer = |_: &Offset, kept: &mut Kept| kept.buffer == buffer.number;
        frames.extract_if(buffer.offsets.clone(), of_buffer).for_each(drop);
    }

    /// The frame that holds `from` and those that follow it without a gap, until `want_bytes` of payload are
    /// together.
    pub(crate) fn run_from(&self, from: Offset, want_bytes: usize) -> Vec<CachedFrame> {
        let frames = self.frames.borrow();
        let first = frames.range(..=from).next_back().map(|(base, _)| *base).unwrap_or(from);
        let (mut run, mut next, mut bytes) = (Vec::new(), from, 0);
        for frame in frames.range(first..).map(|(_, kept)| &kept.frame) {
            let continues = frame.base_offset <= next && next < frame.next_offset;
            if !continues || bytes >= want_bytes {
                break;
            }
            next = frame.next_offset;
            bytes += frame.payload.len();
            run.push(frame.clone());
        }
        run
    }

    /// Lets go of one of the buffers with a frame that begins in there. Returns how long it was; `None` when there is none
    /// any more.
    pub(crate) fn forget_one(&self, bases: Range<Offset>) -> Option<usize> {
        let number = self.frames.borrow().range(bases).next()?.1.buffer;
        let buffer = self.fifo.take(number)?;
        self.let_go(&buffer);
        Some(buffer.memory_bytes)
    }

    /// Lets go of everything.
    pub(crate) fn clear(&self) {
        self.fifo.forget(self);
        self.frames.borrow_mut().clear();
    }
}

impl Drop for FrameSlot {
    fn drop(&mut self) {
        self.fifo.forget(self);
    }
}

#[cfg(test)]
mod tests;
