//! What one log is in memory, shared by its handle and its tasks.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use ringmq_runtime::local::{Event, Semaphore};
use ringmq_runtime::task::Gate;
use ringmq_wire::{LeaderEpoch, Offset, Timestamp};

use crate::append::{AppendError, Appended};
use crate::cache::{CachedFrame, FrameSlot};
use crate::check::FrameCheck;
use crate::config::LogConfig;
use crate::failure::Poison;
use crate::frame::Generation;
use crate::generation::{Generations, LogGenerations};
use crate::journal_queue::JournalQueue;
use crate::journaled::JournaledRuns;
use crate::layout::LogId;
use crate::open_segments::OpenSegments;
use crate::producer_budget::{Counted, ProducerBudget};
use crate::producers::Producers;
use crate::read_ahead::ReadAhead;
use crate::reserve::Reserve;
use crate::segment::{ActiveSegment, Segment};
use crate::staging::{Queue, Staging, Waiter};
use crate::window::{FlightNumber, WriteWindow};

/// One log. The handle, its writer and its readers share it.
pub(crate) struct LogCore {
    pub(crate) id: LogId,
    pub(crate) root: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) config: RefCell<Rc<LogConfig>>,
    pub(crate) generations: Generations,
    pub(crate) journal: JournalQueue,
    pub(crate) relaxed_journal: JournalQueue,
    pub(crate) open_segments: OpenSegments,
    pub(crate) producer_budget: ProducerBudget,
    pub(crate) reserve: Reserve,
    /// Frames that this log wrote and that are durable.
    pub(crate) tail_frames: Rc<FrameSlot>,
    /// Frames that were read from the disk.
    pub(crate) cold_frames: Rc<FrameSlot>,
    pub(crate) read_ahead: ReadAhead,
    /// One unit: whoever builds the indexes of a segment from its frames.
    pub(crate) rebuilding: Semaphore,
    /// One unit: whoever writes the indexes of the active segment, or of one that was active a moment ago.
    pub(crate) indexing: Semaphore,
    /// One unit: whoever takes sealed segments away, or puts others in their place.
    pub(crate) reshaping: Semaphore,
    /// One unit: whoever moves the log's start.
    pub(crate) moving_start: Semaphore,
    /// One unit: whoever writes a snapshot of producers.
    pub(crate) storing_snapshot: Semaphore,
    pub(crate) state: RefCell<LogState>,
    /// The readable offset moved, or never will again.
    pub(crate) readable_moved: Event,
    /// A write ended, or the writer did.
    pub(crate) writer_moved: Event,
    /// Every task of this log.
    pub(crate) gate: Gate,
}

pub(crate) struct LogState {
    pub(crate) phase: Phase,
    /// Whether a durable record says so.
    pub(crate) deleted: bool,
    pub(crate) poison: Option<Arc<Poison>>,
    pub(crate) leader_epoch: LeaderEpoch,
    /// Records below are deleted, durably.
    pub(crate) start: Offset,
    /// Everything below is durable.
    pub(crate) durable: Offset,
    /// Everything below is acknowledged, and can be read. Beyond the durable offset only what the relaxed journal has
    /// written.
    pub(crate) readable: Offset,
    /// The offset that is assigned next.
    pub(crate) end: Offset,
    /// Appends without room.
    pub(crate) queue: Queue,
    /// Appends with offsets, in no frame.
    pub(crate) staging: Staging,
    /// What is staged below this offset is to go into frames.
    pub(crate) write_until: Offset,
    /// Bytes of what is staged that wait for the journal.
    pub(crate) queued_for_journal: usize,
    pub(crate) journaled: JournaledRuns,
    /// What the relaxed journal has written.
    pub(crate) written: JournaledRuns,
    /// The end of what was last given to the relaxed journal.
    pub(crate) relaxed_end: Offset,
    /// Whether more offsets are being reserved.
    pub(crate) reserving: bool,
    /// What idempotent producers have stored; durable or on its way.
    pub(crate) producers: Producers,
    /// How many of these count in what the core's logs know together.
    pub(crate) producers_counted: Counted,
    /// The offset of the latest good snapshot of that.
    pub(crate) producer_snapshot: Option<Offset>,
    /// The latest one that was written without a flush.
    pub(crate) producer_hint: Option<Offset>,
    /// Who waits for what is not durable, in the order of the calls. That is the order of the offsets, but for those who
    /// sent something again.
    pub(crate) waiters: VecDeque<(Appended, Waiter)>,
    /// The frames at the device.
    pub(crate) window: WriteWindow<CachedFrame>,
    /// By base offset.
    pub(crate) sealed: Vec<Rc<Segment>>,
    /// Below that, compaction has been through.
    pub(crate) compacted_until: Offset,
    /// When the first of the tombstones may go that compaction left, if it ran in this life.
    pub(crate) tombstones_due: Option<Timestamp>,
    /// A round of compaction failed not long ago.
    pub(crate) compaction_rests_until: Timestamp,
    /// `None` until the first append ever.
    pub(crate) active: Option<ActiveSegment>,
    /// Segments below the start whose files are still there, oldest first.
    pub(crate) retired: VecDeque<Rc<Segment>>,
    /// Whether a task waits to remove them.
    pub(crate) tidying_later: bool,
    /// A segment whose file was created, or may have been, and which is not in use.
    pub(crate) left_over: Option<Rc<Segment>>,
    /// What the generation tables know; `None` until the first append ever.
    pub(crate) generations: Option<Rc<LogGenerations>>,
    /// The generation of this opening; `None` until its first append.
    pub(crate) generation: Option<Generation>,
    /// Whether the writer's task runs.
    pub(crate) writing: bool,
    /// Whether it is making room: nothing is staged meanwhile.
    pub(crate) making_room: bool,
    /// Whether the next thing to do is to seal the active segment, whatever its length.
    pub(crate) roll_asked: bool,
}

/// Where a log is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Appends and reads.
    Open,
    /// What is queued and staged is still written; nothing new is taken.
    Closing,
    /// Nothing more.
    Closed,
}

impl LogState {
    /// Offsets below may be shown before they are durable: a durable record says so.
    pub(crate) fn reserved_until(&self) -> Offset {
        self.generations.as_ref().map_or(Offset::ZERO, |known| known.reserved_until())
    }

    /// Whether anything can still become durable.
    pub(crate) fn is_usable(&self) -> bool {
        self.poison.is_none() && self.phase != Phase::Closed
    }

    /// Whether there is nothing to stage, and the writer's task runs.
    pub(crate) fn is_left_to_writer(&self) -> bool {
        self.writing && self.queue.is_empty()
    }

    /// Where each sealed segment ends: where the next one begins.
    pub(crate) fn sealed_ends(&self) -> impl Iterator<Item = Offset> + '_ {
        let active = self.active.as_ref().map(|active| active.segment.base);
        let begins = self.sealed.iter().map(|next| next.base).chain(active);
        begins.skip(1)
    }

    /// Moves the durable offset to where the frames and the journals have it, and the readable one along; tells those
    /// who waited, in order. Whether the readable one moved.
    pub(crate) fn settle(&mut self) -> bool {
        let durable = self.journaled.durable_from(self.window.frames_end());
        let readable = self.readable.max(self.written.durable_from(durable));
        debug_assert!(self.durable <= durable && self.readable <= readable && readable <= self.end);
        let moved = self.readable < readable;
        (self.durable, self.readable) = (durable, readable);
        self.acknowledge();
        moved
    }

    /// Forgets all producers: the log is let go of.
    pub(crate) fn forget_producers(&mut self, budget: &ProducerBudget) {
        self.producers = Producers::default();
        budget.settle(&mut self.producers_counted, &mut self.producers);
    }

    /// Tells those who waited for what is readable, in order.
    pub(crate) fn acknowledge(&mut self) {
        let readable = self.readable;
        while let Some((appended, waiter)) = self.waiters.pop_front_if(|(appended, _)| appended.next_offset <= readable)
        {
            // Whoever asked may be gone.
            let _ = waiter.send(Ok(appended));
        }
    }

    /// What is readable and in no durable frame, from the batches on that hold `from`: at least one append, and
    /// some `want_bytes`.
    pub(crate) fn beyond_frames(&self, from: Offset, want_bytes: usize) -> Vec<CachedFrame> {
        let in_flight = self.window.cargo().filter(|frame| frame.next_offset > from).cloned();
        let staged = self.staging.from(from).map_while(|staged| staged.readable());
        let (mut run, mut bytes) = (Vec::new(), 0);
        for frame in in_flight.chain(staged).map_while(|frame| frame.below(self.readable)) {
            if bytes >= want_bytes && !run.is_empty() {
                break;
            }
            bytes += frame.payload.len();
            run.push(frame);
        }
        run
    }
}

impl LogCore {
    /// How the log is kept now.
    pub(crate) fn config(&self) -> Rc<LogConfig> {
        self.config.borrow().clone()
    }

    /// How to tell frames of the segment with this base; `None` while the log has none.
    pub(crate) fn frame_check(&self, segment_base: Offset) -> Option<FrameCheck> {
        let generations = self.state.borrow().generations.clone()?;
        Some(FrameCheck { id: self.id, segment_base, generations })
    }

    /// What is staged below `offset` is to go into frames.
    pub(crate) fn write_until(&self, offset: Offset) {
        let mut state = self.state.borrow_mut();
        state.write_until = state.write_until.max(offset);
    }

    /// A write or flush failed: gives up everything that is not acknowledged, for good. What the journals have can still
    /// be read.
    pub(crate) fn poison(&self, action: &'static str, source: io::Error) {
        let (queued, waiters, poison) = {
            let mut state = self.state.borrow_mut();
            if state.poison.is_some() {
                return;
            }
            let poison = Arc::new(Poison { id: self.id, action, source });
            state.poison = Some(poison.clone());
            let readable = state.readable;
            state.staging.cut(readable);
            (state.queue.take_all(), std::mem::take(&mut state.waiters), poison)
        };
        tracing::error!(partition = %self.id, error = %poison, "partition went offline");
        let waiters = waiters.into_iter().map(|(_, waiter)| waiter);
        for waiter in waiters.chain(queued.into_iter().map(|queued| queued.waiter)) {
            // Whoever asked may be gone.
            let _ = waiter.send(Err(AppendError::Poisoned(poison.clone())));
        }
        self.readable_moved.notify_all();
        self.writer_moved.notify_all();
        self.notify_frames_moved();
    }

    /// The frames' end moved, or never will again: what the journals hold may no longer be needed.
    pub(crate) fn notify_frames_moved(&self) {
        self.journal.notify_frames_moved();
        self.relaxed_journal.notify_frames_moved();
    }

    /// A frame's write ended well.
    pub(crate) fn landed(&self, flight: FlightNumber) {
        let moved = {
            let mut state = self.state.borrow_mut();
            if state.poison.is_some() {
                return;
            }
            state.window.land(flight);
            while let Some(frame) = state.window.pass() {
                self.tail_frames.insert(&[frame]);
            }
            state.settle()
        };
        if moved {
            self.readable_moved.notify_all();
        }
        self.writer_moved.notify_all();
        self.notify_frames_moved();
    }

    /// The relaxed journal has these offsets, and a killed process leaves them there.
    pub(crate) fn written(&self, offsets: Range<Offset>) {
        if self.config().flush_interval.is_none() {
            // Since it was put in, durable is what counts.
            return;
        }
        self.moved_by(|state| state.written.push(offsets));
    }

    /// A journal has these offsets, durably.
    pub(crate) fn journaled(&self, offsets: Range<Offset>) {
        self.moved_by(|state| state.journaled.push(offsets));
    }

    fn moved_by(&self, news: impl FnOnce(&mut LogState)) {
        let moved = {
            let mut state = self.state.borrow_mut();
            if !state.is_usable() {
                return;
            }
            news(&mut state);
            state.settle()
        };
        if moved {
            self.readable_moved.notify_all();
        }
    }
}
