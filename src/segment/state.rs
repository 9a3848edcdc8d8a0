//! What one log is in memory, shared by its handle and its tasks.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use ringmq_runtime::local::{Event, Semaphore};
use ringmq_runtime::task::Gate;
use ringmq_wire::{LeaderEpoch, Offset};

use crate::append::{AppendError, Appended};
use crate::cache::{CachedFrame, FrameSlot};
use crate::check::FrameCheck;
use crate::config::LogConfig;
use crate::failure::Poison;
use crate::frame::Generation;
use crate::generation::{Generations, LogGenerations};
use crate::layout::LogId;
use crate::read_ahead::ReadAhead;
use crate::segment::{ActiveSegment, Segment};
use crate::staging::{Staging, Waiter};
use crate::window::WriteWindow;

/// One log. The handle, its writer and its readers share it.
pub(crate) struct LogCore {
    pub(crate) id: LogId,
    pub(crate) root: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) config: RefCell<Rc<LogConfig>>,
    pub(crate) generations: Generations,
    /// Frames that this log wrote and that are durable.
    pub(crate) tail_frames: Rc<FrameSlot>,
    /// Frames that were read from the disk.
    pub(crate) cold_frames: Rc<FrameSlot>,
    pub(crate) read_ahead: ReadAhead,
    /// One unit: whoever builds the indexes of a segment from its frames.
    pub(crate) rebuilding: Semaphore,
    pub(crate) state: RefCell<LogState>,
    /// The durable offset moved, or never will again.
    pub(crate) durable_moved: Event,
    /// A write ended, or the writer did.
    pub(crate) writer_moved: Event,
    /// Every task of this log.
    pub(crate) gate: Gate,
}

pub(crate) struct LogState {
    pub(crate) phase: Phase,
    pub(crate) poison: Option<Arc<Poison>>,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) start: Offset,
    pub(crate) staging: Staging,
    pub(crate) window: WriteWindow<InFlight>,
    /// By base offset.
    pub(crate) sealed: Vec<Rc<Segment>>,
    /// Sealed segments whose file is open, least recently used first.
    pub(crate) sealed_open: VecDeque<Rc<Segment>>,
    /// `None` until the first append ever.
    pub(crate) active: Option<ActiveSegment>,
    /// A segment whose file was created, or may have been, and which is not in use.
    pub(crate) left_over: Option<Rc<Segment>>,
    /// What the generation tables know; `None` until the first append ever.
    pub(crate) generations: Option<Rc<LogGenerations>>,
    /// The generation of this opening; `None` until its first append.
    pub(crate) generation: Option<Generation>,
    /// Whether the writer's task runs.
    pub(crate) writing: bool,
    /// Whether the next thing to do is to seal the active segment, whatever its length.
    pub(crate) roll_asked: bool,
}

/// Where a log is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Appends and reads.
    Open,
    /// What is staged is still written; nothing new is taken.
    Closing,
    /// Nothing more.
    Closed,
}

/// A frame at the device, and who waits for it.
pub(crate) struct InFlight {
    pub(crate) frame: CachedFrame,
    pub(crate) waiters: Vec<(Waiter, Appended)>,
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

    /// A write or flush failed: gives up everything that is not durable, for good.
    pub(crate) fn poison(&self, action: &'static str, source: io::Error) {
        let (staged, in_flight, poison) = {
            let mut state = self.state.borrow_mut();
            if state.poison.is_some() {
                return;
            }
            let poison = Arc::new(Poison { id: self.id, action, source });
            state.poison = Some(poison.clone());
            (state.staging.take_all(), state.window.abandon(), poison)
        };
        tracing::error!(partition = %self.id, error = %poison, "partition went offline");
        for waiter in in_flight.flat_map(|flight| flight.waiters).map(|(waiter, _)| waiter) {
            // Whoever asked may be gone, here and below.
            let _ = waiter.send(Err(AppendError::Poisoned(poison.clone())));
        }
        for staged in staged {
            let _ = staged.waiter.send(Err(AppendError::Poisoned(poison.clone())));
        }
        self.durable_moved.notify_all();
        self.writer_moved.notify_all();
    }

    /// A write ended well: the durable offset may move, and those who waited for it are told, in order.
    pub(crate) fn landed(&self, flight: crate::window::FlightNumber) {
        let mut moved = false;
        {
            let mut state = self.state.borrow_mut();
            state.window.land(flight);
            while let Some(passed) = state.window.pass() {
                moved = true;
                self.tail_frames.insert(&[passed.frame]);
                for (waiter, appended) in passed.waiters {
                    let _ = waiter.send(Ok(appended));
                }
            }
        }
        if moved {
            self.durable_moved.notify_all();
        }
        self.writer_moved.notify_all();
    }
}
