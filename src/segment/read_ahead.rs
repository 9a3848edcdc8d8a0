//! Reading the next piece before it is asked for, when a reader goes through a log in order.
//!
//! What is read ahead lands among the log's read frames, in their bound of the core's memory.

use std::cell::RefCell;
use std::rc::Rc;

use ringmq_runtime::local::Event;
use ringmq_wire::Offset;

use crate::reader::{PIECE_BYTES_MIN, read_piece};
use crate::state::LogCore;

/// Readers of one log that are recognised at a time.
const READERS_MAX: usize = 4;
/// What is read ahead at a time.
const AHEAD_BYTES: usize = 1 << 20;

/// The read-ahead of one log.
#[derive(Default)]
pub(crate) struct ReadAhead(RefCell<State>);

#[derive(Default)]
struct State {
    /// Where recent reads ended, oldest first: a read that begins at one of them goes on in order.
    ends: Vec<Offset>,
    /// Pieces on their way, by the offset that they begin with.
    coming: Vec<(Offset, Event)>,
}

impl ReadAhead {
    /// Waits for the piece that begins with `from`, if it is on its way.
    pub(crate) async fn arrived(&self, from: Offset) {
        let arrival = {
            let state = self.0.borrow();
            state.coming.iter().find(|(offset, _)| *offset == from).map(|(_, arrived)| arrived.listen())
        };
        if let Some(arrival) = arrival {
            arrival.await;
        }
    }

    /// A read from `from` ended at `next`. If it went on where one had ended, what follows is read in the background,
    /// unless it is in memory.
    pub(crate) fn after(&self, log: &Rc<LogCore>, from: Offset, next: Offset) {
        let in_order = {
            let mut state = self.0.borrow_mut();
            let known = state.ends.iter().position(|end| *end == from);
            if let Some(at) = known {
                state.ends.remove(at);
            } else if state.ends.len() == READERS_MAX {
                state.ends.remove(0);
            }
            state.ends.push(next);
            known.is_some()
        };
        if !in_order {
            return;
        }
        let ready = log.cold_frames.run_from(next, AHEAD_BYTES);
        let ready_bytes: usize = ready.iter().map(|frame| frame.payload.len()).sum();
        let ahead = ready.last().map_or(next, |frame| frame.next_offset);
        let end = log.state.borrow().window.frames_end();
        if ready_bytes < PIECE_BYTES_MIN && ahead < end && log.tail_frames.run_from(ahead, 1).is_empty() {
            self.fetch(log, ahead);
        }
    }

    fn fetch(&self, log: &Rc<LogCore>, from: Offset) {
        let arrived = Event::new();
        {
            let mut state = self.0.borrow_mut();
            if state.coming.len() == READERS_MAX || state.coming.iter().any(|(offset, _)| *offset == from) {
                return;
            }
            state.coming.push((from, arrived.clone()));
        }
        let fetch = {
            let (log, arrived) = (log.clone(), arrived.clone());
            async move {
                // Whoever asks for it next gets the error, if it is still one.
                let _ = read_piece(&log, from, AHEAD_BYTES).await;
                log.read_ahead.done(from);
                arrived.notify_all();
            }
        };
        if log.gate.spawn_background("log-read-ahead", fetch).is_err() {
            self.done(from);
        }
    }

    fn done(&self, from: Offset) {
        self.0.borrow_mut().coming.retain(|(offset, _)| *offset != from);
    }
}
