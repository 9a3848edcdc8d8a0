//! Frames in memory: what was just written, and what a reader far behind will want next.
//!
//! The memory of a core is bounded over all its logs; what came first goes first. Written frames and frames read from
//! the disk have bounds of their own, so that a reader far behind never drives out what the others are about to read.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::{Rc, Weak};

use ringmq_runtime::buffer::IoBuf;
use ringmq_wire::{Offset, Timestamp};

use crate::frame::FrameHeader;

/// Of the cache's bytes, the part for frames read from the disk.
const READ_PART: usize = 8;

/// The frames that one core keeps in memory. Clones share it.
#[derive(Clone)]
pub struct TailCache {
    written: FrameFifo,
    read: FrameFifo,
}

impl TailCache {
    /// A cache of at most `bytes_max` bytes, an eighth of it for read-ahead. A frame that does not fit is not kept.
    #[must_use]
    pub fn new(bytes_max: usize) -> TailCache {
        let read_bytes_max = bytes_max / READ_PART;
        TailCache { written: FrameFifo::new(bytes_max - read_bytes_max), read: FrameFifo::new(read_bytes_max) }
    }

    /// Bytes of memory that the kept frames take.
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
    /// What it counts for: a frame that was written keeps its whole buffer alive.
    pub(crate) memory_bytes: usize,
}

impl CachedFrame {
    /// Of a whole frame in memory.
    pub(crate) fn new(header: &FrameHeader, frame: &IoBuf, memory_bytes: usize) -> CachedFrame {
        CachedFrame {
            base_offset: header.base_offset,
            next_offset: header.next_offset,
            max_timestamp: header.max_timestamp,
            payload: frame.slice(header.payload_range()),
            memory_bytes,
        }
    }
}

/// Which frames of all logs go first.
#[derive(Clone)]
struct FrameFifo(Rc<RefCell<Fifo>>);

struct Fifo {
    bytes_max: usize,
    bytes: usize,
    order: VecDeque<Entry>,
}

struct Entry {
    slot: Weak<FrameSlot>,
    base_offset: Offset,
    bytes: usize,
}

impl FrameFifo {
    fn new(bytes_max: usize) -> FrameFifo {
        FrameFifo(Rc::new(RefCell::new(Fifo { bytes_max, bytes: 0, order: VecDeque::new() })))
    }

    fn bytes(&self) -> usize {
        self.0.borrow().bytes
    }

    /// Makes room for the entry and takes it in; `false` when it can never fit.
    fn admit(&self, entry: Entry) -> bool {
        let mut fifo = self.0.borrow_mut();
        if entry.bytes > fifo.bytes_max {
            return false;
        }
        fifo.bytes += entry.bytes;
        fifo.order.push_back(entry);
        while fifo.bytes > fifo.bytes_max {
            let Some(oldest) = fifo.order.pop_front() else { break };
            fifo.bytes -= oldest.bytes;
            if let Some(slot) = oldest.slot.upgrade() {
                slot.frames.borrow_mut().remove(&oldest.base_offset);
            }
        }
        true
    }

    fn forget(&self, slot: *const FrameSlot) {
        let mut fifo = self.0.borrow_mut();
        let Fifo { bytes, order, .. } = &mut *fifo;
        order.retain(|entry| {
            let stays = !std::ptr::eq(entry.slot.as_ptr(), slot);
            if !stays {
                *bytes -= entry.bytes;
            }
            stays
        });
    }
}

/// The kept frames of one log.
pub(crate) struct FrameSlot {
    fifo: FrameFifo,
    frames: RefCell<BTreeMap<Offset, CachedFrame>>,
}

impl FrameSlot {
    fn new(fifo: &FrameFifo) -> Rc<FrameSlot> {
        Rc::new(FrameSlot { fifo: fifo.clone(), frames: RefCell::default() })
    }

    /// Keeps a frame, if it is not kept already and fits.
    pub(crate) fn insert(self: &Rc<Self>, frame: CachedFrame) {
        let base_offset = frame.base_offset;
        if self.frames.borrow().contains_key(&base_offset) {
            return;
        }
        let entry = Entry { slot: Rc::downgrade(self), base_offset, bytes: frame.memory_bytes };
        if self.fifo.admit(entry) {
            self.frames.borrow_mut().insert(base_offset, frame);
        }
    }

    /// The frame that holds `from` and those that follow it without a gap, until `want_bytes` of payload are
    /// together.
    pub(crate) fn run_from(&self, from: Offset, want_bytes: usize) -> Vec<CachedFrame> {
        let frames = self.frames.borrow();
        let first = frames.range(..=from).next_back().map(|(base, _)| *base).unwrap_or(from);
        let (mut run, mut next, mut bytes) = (Vec::new(), from, 0);
        for frame in frames.range(first..).map(|(_, frame)| frame) {
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
