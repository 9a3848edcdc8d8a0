//! Requests on their way: each completes when its latency is over, so in any order.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use super::fault::{Failure, Faults, Operation};
use super::filesystem::{FileSystem, HandleId, Landing};
use super::path;
use crate::sim::config::LatencyConfig;
use crate::sim::dice::Dice;

/// A request's number, counted up from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestId(u64);

/// What a request does to the files when it lands.
pub(crate) type Effect = Box<dyn FnOnce(&mut FileSystem, Landing) -> Ended>;

/// What is left to do once a request has landed.
pub(crate) struct Ended {
    pub(crate) ok: bool,
    /// Who waits for it, if anybody still does.
    pub(crate) waker: Option<Waker>,
}

/// A request that the kernel has.
pub(crate) struct InFlight {
    pub(crate) operation: Operation,
    pub(crate) path: Rc<str>,
    /// The descriptor that it keeps open.
    pub(crate) handle: Option<HandleId>,
    pub(crate) fault: Option<Failure>,
    pub(crate) effect: Effect,
}

/// All requests in flight, by the moment of their completion.
pub(crate) struct Requests {
    in_flight: BTreeMap<(Duration, RequestId), InFlight>,
    submitted: u64,
    latency: LatencyConfig,
    dice: Dice,
}

impl Requests {
    pub(crate) fn new(latency: LatencyConfig, dice: Dice) -> Requests {
        Requests { in_flight: BTreeMap::new(), submitted: 0, latency, dice }
    }

    pub(crate) fn len(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) fn submit(&mut self, now: Duration, faults: &mut Faults, request: InFlight) -> RequestId {
        self.submitted += 1;
        let id = RequestId(self.submitted);
        let latency = self.draw_latency(request.operation);
        let start = faults.stalled_until(&request.path, now).unwrap_or(now);
        self.in_flight.insert((start + latency, id), request);
        id
    }

    fn draw_latency(&mut self, operation: Operation) -> Duration {
        let range = match operation {
            Operation::Read => &self.latency.read,
            Operation::Write => &self.latency.write,
            Operation::Flush | Operation::SyncDir => &self.latency.flush,
            Operation::Open
            | Operation::Preallocate
            | Operation::Truncate
            | Operation::CreateDir
            | Operation::ReadDir
            | Operation::Rename
            | Operation::Remove
            | Operation::Stat
            | Operation::Close => &self.latency.metadata,
        };
        self.dice.latency(range, self.latency.slow_one_in)
    }

    /// Holds every request to a path that fits back until that moment, those under way too.
    pub(crate) fn delay(&mut self, pattern: &str, until: Duration) {
        for ((at, id), request) in std::mem::take(&mut self.in_flight) {
            let at = if path::matches(pattern, &request.path) { at.max(until) } else { at };
            self.in_flight.insert((at, id), request);
        }
    }

    /// When the next one completes.
    pub(crate) fn next_completion(&self) -> Option<Duration> {
        self.in_flight.keys().next().map(|(at, _)| *at)
    }

    /// Takes the first one that has completed by now.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<(RequestId, InFlight)> {
        let entry = self.in_flight.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        let ((_, id), request) = entry.remove_entry();
        Some((id, request))
    }

    /// Takes all of them, in order of submission.
    pub(crate) fn take_all(&mut self) -> Vec<InFlight> {
        let mut taken: Vec<_> = std::mem::take(&mut self.in_flight).into_iter().collect();
        taken.sort_by_key(|((_, id), _)| *id);
        taken.into_iter().map(|(_, request)| request).collect()
    }
}
