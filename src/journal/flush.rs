//! The flushes of a relaxed ring. Its blocks go to the page cache; one flush makes durable what was written before it,
//! and no more (rule 3 of the storage protocol holds for what is flushed).

use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::file::File;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::time::{self, Instant};

use crate::journal::{Core, State};
use crate::number::BlockNumber;

/// A flush is due, whatever the caller allows, when this part of the ring is not durable: blocks that are free can be
/// written over only when it is.
const UNFLUSHED_PART: u64 = 8;

/// The next flush of a ring.
pub(crate) enum Flush {
    /// Of the blocks below.
    Now(File, BlockNumber),
    In(Duration),
}

/// Flushes until all that is written is durable. One such task runs while something is not.
pub(crate) async fn flush_when_due<C: Clone + 'static>(core: Rc<Core<C>>) {
    loop {
        let hurried = core.hurried.listen();
        match core.next_flush() {
            None => return,
            // Either way it is seen what is due now.
            Some(Flush::In(wait)) => drop(time::timeout(wait, hurried).await),
            Some(Flush::Now(_, through)) if SeededBug::SkipRelaxedFlush.is_in() => core.flushed(through),
            Some(Flush::Now(file, through)) => match flush(&file).await {
                Ok(()) => core.flushed(through),
                Err(error) => return core.fail(error),
            },
        }
    }
}

/// Once: what a flush that failed lost, the next one does not bring back (rule 12 of the storage protocol).
async fn flush(file: &File) -> io::Result<()> {
    let flushed = file.fdatasync().await;
    if flushed.is_err() && SeededBug::RetryFailedFlush.is_in() {
        return file.fdatasync().await;
    }
    flushed
}

impl<C: Clone + 'static> Core<C> {
    /// What to do next; `None` when nothing is left to flush, and the task is about to end.
    fn next_flush(&self) -> Option<Flush> {
        let mut state = self.state.borrow_mut();
        let unflushed = state.ledger.unflushed().filter(|_| state.failed.is_none());
        let Some((file, through)) = state.file.clone().zip(unflushed) else {
            state.flushing = false;
            return None;
        };
        let wait = state.flush_by.map_or(Duration::ZERO, |by| by.saturating_duration_since(Instant::now()));
        if wait > Duration::ZERO && !self.is_flush_urgent(&state) {
            return Some(Flush::In(wait));
        }
        if !state.ledger.is_being_written() {
            state.flush_by = None;
        }
        Some(Flush::Now(file, through))
    }

    /// Whether the ring needs a flush before the caller does.
    pub(crate) fn is_flush_urgent(&self, state: &State<C>) -> bool {
        let most = self.config.geometry().units / UNFLUSHED_PART;
        state.closing || state.ledger.is_short() || state.ledger.unflushed_units() >= most
    }

    fn flushed(self: &Rc<Self>, through: BlockNumber) {
        {
            let mut state = self.state.borrow_mut();
            if state.failed.is_some() {
                return;
            }
            state.ledger.flushed(through);
        }
        self.acknowledge();
    }
}
