//! The way of small appends to the journal of their core. A log puts them in here; whoever writes the journal takes them
//! out, and tells the log when a block has them, durably.
//!
//! A log knows no journal. Without one the queue is closed, and every append goes straight into a frame.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::buffer::IoBuf;
use ringmq_runtime::local::{Event, Listener};
use ringmq_wire::Offset;

use crate::frame::{Generation, LogNumber};
use crate::layout::LogId;
use crate::log::Log;
use crate::state::LogCore;
use crate::writer;

/// The small appends of one core's logs that wait for its journal. Clones share it. At first it is closed.
#[derive(Clone, Default)]
pub struct JournalQueue(Rc<Inner>);

#[derive(Default)]
struct Inner {
    append_bytes_max: Cell<usize>,
    wanted: Cell<bool>,
    waiting: RefCell<VecDeque<Journaling>>,
    arrived: Event,
    frames_moved: Event,
    asked: Event,
}

impl JournalQueue {
    /// From now on appends of up to so many bytes are queued.
    pub fn open(&self, append_bytes_max: usize) {
        self.0.append_bytes_max.set(append_bytes_max);
    }

    /// There is no journal (any more): nothing is queued, and what was goes straight into frames.
    pub fn close(&self) {
        self.0.append_bytes_max.set(0);
        let waiting = std::mem::take(&mut *self.0.waiting.borrow_mut());
        for append in waiting {
            append.waits_no_more();
            append.go_straight();
        }
    }

    /// The largest append that is queued; 0 when the queue is closed.
    #[must_use]
    pub fn append_bytes_max(&self) -> usize {
        self.0.append_bytes_max.get()
    }

    /// Takes the next append out that no frame has taken meanwhile, if `fits` says so of its bytes.
    pub fn take_if(&self, mut fits: impl FnMut(usize) -> bool) -> Option<Journaling> {
        loop {
            let mut waiting = self.0.waiting.borrow_mut();
            let first = waiting.front()?;
            let wanted = first.is_wanted();
            if wanted && !fits(first.batches.len()) {
                return None;
            }
            let first = waiting.pop_front()?;
            drop(waiting);
            first.waits_no_more();
            if wanted {
                return Some(first);
            }
        }
    }

    /// Waits until an append would have gone this way while it was closed: a journal that few need is prepared then.
    pub async fn wanted(&self) {
        loop {
            let asked = self.0.asked.listen();
            if self.0.wanted.get() {
                return;
            }
            asked.await;
        }
    }

    pub(crate) fn want(&self) {
        if !self.0.wanted.replace(true) {
            self.0.asked.notify_all();
        }
    }

    /// How many appends wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.waiting.borrow().len()
    }

    /// Whether an append waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.waiting.borrow().is_empty()
    }

    /// A signal of an append having come. Take it before looking.
    pub fn arrived(&self) -> Listener {
        self.0.arrived.listen()
    }

    /// A signal of some log's frames having become durable, or of a log having gone offline or been closed: what the
    /// journal holds may no longer be needed. Take it before looking.
    pub fn frames_moved(&self) -> Listener {
        self.0.frames_moved.listen()
    }

    pub(crate) fn notify_frames_moved(&self) {
        self.0.frames_moved.notify_all();
    }

    pub(crate) fn push(&self, append: Journaling) {
        self.0.waiting.borrow_mut().push_back(append);
        self.0.arrived.notify_all();
    }
}

impl fmt::Debug for JournalQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalQueue").field("waiting", &self.0.waiting.borrow().len()).finish_non_exhaustive()
    }
}

/// A staged append on its way through the journal.
pub struct Journaling {
    log: Rc<LogCore>,
    number: LogNumber,
    generation: Generation,
    base_offset: Offset,
    next_offset: Offset,
    batches: IoBuf,
}

impl Journaling {
    pub(crate) fn new(
        log: Rc<LogCore>,
        number: LogNumber,
        generation: Generation,
        offsets: std::ops::Range<Offset>,
        batches: IoBuf,
    ) -> Journaling {
        Journaling { log, number, generation, base_offset: offsets.start, next_offset: offsets.end, batches }
    }

    /// Which partition.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.log.id
    }

    /// The number that tells the log from another one of the same name.
    #[must_use]
    pub fn log_number(&self) -> u64 {
        self.number.0
    }

    /// The life of the log that took the append in.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.0
    }

    /// Of the first record.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// One past the last record.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Whole record batches, which carry their offsets.
    #[must_use]
    pub fn batches(&self) -> &[u8] {
        &self.batches
    }

    /// How far the log's frames are durable now.
    #[must_use]
    pub fn frames_end(&self) -> Offset {
        self.log.state.borrow().window.frames_end()
    }

    /// Whether the journal still has something to do for it: no frame has taken it, and its log is there.
    fn is_wanted(&self) -> bool {
        let state = self.log.state.borrow();
        state.is_usable() && self.base_offset >= state.window.written()
    }

    /// It is not in the queue any more.
    fn waits_no_more(&self) {
        self.log.state.borrow_mut().queued_for_journal -= self.batches.len();
    }

    /// Within what time it is to be durable, where its log is acknowledged before; now.
    #[must_use]
    pub fn flush_within(&self) -> Duration {
        self.log.config().flush_interval.unwrap_or_default()
    }

    /// A block that has it is in the page cache, and so are all blocks before.
    pub fn written(&self) {
        self.log.written(self.base_offset..self.next_offset);
    }

    /// A block that has it is durable, and so are all blocks before (rule 3 of the storage protocol).
    pub fn journaled(&self) {
        self.log.journaled(self.base_offset..self.next_offset);
    }

    /// The journal will not take it: it goes into a frame.
    pub fn go_straight(&self) {
        self.log.write_until(self.next_offset);
        writer::wake(&self.log);
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> Log {
        Log::of(self.log.clone())
    }
}

impl fmt::Debug for Journaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Journaling { base_offset, next_offset, .. } = self;
        write!(f, "Journaling({} {base_offset}..{next_offset})", self.log.id)
    }
}
