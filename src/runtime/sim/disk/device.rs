//! The simulated disk as a whole: files, requests on their way, and faults that wait for them.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::fate::CrashReport;
use super::fault::{Faults, Operation};
use super::filesystem::{FileSystem, HandleId, Landing};
use super::requests::{Ended, InFlight, RequestId, Requests};
use crate::sim::config::DiskConfig;
use crate::sim::dice::{Dice, Purpose};

/// The disk of one simulation.
pub(crate) struct Disk {
    pub(crate) files: FileSystem,
    pub(crate) requests: Requests,
    pub(crate) faults: Faults,
    /// Decides which requests in flight land when the power goes.
    dice: Dice,
}

/// What a request says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) path: Rc<str>,
    pub(crate) handle: Option<HandleId>,
    pub(crate) position: u64,
    pub(crate) length: u64,
    /// The hash of what is written.
    pub(crate) content: u64,
}

/// The result of a request, before and after it is there.
struct Slot<T> {
    result: Option<io::Result<T>>,
    waker: Option<Waker>,
}

/// Waits for a request. Dropping it changes nothing for the request.
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Completion<T>(Rc<RefCell<Slot<T>>>);

impl Disk {
    pub(crate) fn new(config: DiskConfig, seed: u64) -> Disk {
        let mut dice = Dice::new(seed, Purpose::Fate);
        Disk {
            files: FileSystem::new(config.capacity_bytes, config.tear, dice.fork()),
            requests: Requests::new(config.latency, Dice::new(seed, Purpose::Latency)),
            faults: Faults::default(),
            dice,
        }
    }

    /// Hands a request to the kernel. `effect` runs when it lands, whoever waits then.
    pub(crate) fn submit<T: 'static>(
        &mut self,
        now: Duration,
        request: &Request,
        effect: impl FnOnce(&mut FileSystem, Landing) -> io::Result<T> + 'static,
    ) -> (RequestId, Completion<T>) {
        let slot = Rc::new(RefCell::new(Slot { result: None, waker: None }));
        let completion = Completion(slot.clone());
        let effect = Box::new(move |files: &mut FileSystem, landing: Landing| {
            let result = effect(files, landing);
            let mut slot = slot.borrow_mut();
            let ok = result.is_ok();
            slot.result = Some(result);
            Ended { ok, waker: slot.waker.take() }
        });
        if let Some(handle) = request.handle {
            self.files.begin_request(handle);
        }
        let fault = self.faults.meet(request.operation, &request.path);
        let in_flight = InFlight {
            operation: request.operation,
            path: request.path.clone(),
            handle: request.handle,
            fault,
            effect,
        };
        (self.requests.submit(now, &mut self.faults, in_flight), completion)
    }

    /// Lands the first request that has completed by now.
    pub(crate) fn land_due(&mut self, now: Duration) -> Option<(RequestId, Ended)> {
        let (id, request) = self.requests.pop_due(now)?;
        let landing = request.fault.map_or(Landing::Completed, Landing::failed);
        let ended = (request.effect)(&mut self.files, landing);
        if let Some(handle) = request.handle {
            self.files.end_request(handle);
        }
        Some((id, ended))
    }

    /// The power goes and comes back. Requests in flight land or do not, in any order.
    pub(crate) fn crash(&mut self) -> CrashReport {
        let mut in_flight = self.requests.take_all();
        self.dice.shuffle(&mut in_flight);
        for request in in_flight {
            if self.dice.coin() {
                let landing = request.fault.map_or(Landing::PowerLost, Landing::failed);
                // Nobody waits any more: the tasks are gone.
                drop((request.effect)(&mut self.files, landing));
            }
        }
        self.faults.clear_stalls();
        self.files.crash()
    }

    pub(crate) fn stall(&mut self, pattern: &str, until: Duration) {
        self.faults.stall(pattern, until);
        self.requests.delay(pattern, until);
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("in_flight", &self.requests.len()).finish_non_exhaustive()
    }
}

impl<T> Future for Completion<T> {
    type Output = io::Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let mut slot = self.0.borrow_mut();
        match slot.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
