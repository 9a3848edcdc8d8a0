//! Who may use the device when.
//!
//! glommio's shares divide the processor, not the disk, and a device serves what was queued first. So what can wait
//! is kept back here, before it reaches the device's queue. Every read and write names its [`IoClass`]:
//! - **Journal, Append, TailRead** start at once, each up to its own bound of bytes in flight. Someone waits for them.
//! - **Checkpoint, Recovery, ColdRead, Compaction** share one small bound, so that little of theirs is ever in front of an
//!   append. Whoever is higher in that order starts first; after `PASSED_OVER_MAX` starts in a row before a lower
//!   class that waits, that class gets one, so that none starves.
//!
//! A device also takes longer for what comes while it is at work on something else, and one that is lent to several
//! machines gives each so many bytes and no more. So where the foreground was at the device lately, **ColdRead** leaves it
//! alone for as long as a request of its own took, and **Compaction**, for which nobody waits, for twice as long: readers
//! of a backlog take half of the device from whoever writes, and not all of it.
//!
//! Within a class the order is that of asking, but for who rests. A request larger than its bound goes when nothing else of
//! its bound is in flight.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::time::Instant;

/// What a read or write is for, in falling order of priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IoClass {
    /// A journal block: many small appends wait for it.
    Journal,
    /// A frame of a segment that appends wait for.
    Append,
    /// A read close to the end of a log that memory no longer holds.
    TailRead,
    /// Moving what the journal holds into segments.
    Checkpoint,
    /// What a start reads, and whoever judges files.
    Recovery,
    /// A read far behind the end of a log.
    ColdRead,
    /// What waits for everything else: compaction, the search for rot, the preparation of a journal.
    Compaction,
}

impl IoClass {
    /// Every class, in falling order of priority.
    pub const ALL: [IoClass; 7] = [
        IoClass::Journal,
        IoClass::Append,
        IoClass::TailRead,
        IoClass::Checkpoint,
        IoClass::Recovery,
        IoClass::ColdRead,
        IoClass::Compaction,
    ];

    /// The name in statistics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            IoClass::Journal => "journal",
            IoClass::Append => "append",
            IoClass::TailRead => "tail_read",
            IoClass::Checkpoint => "checkpoint",
            IoClass::Recovery => "recovery",
            IoClass::ColdRead => "cold_read",
            IoClass::Compaction => "background",
        }
    }
}

/// What one executor did at its devices since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoStats {
    /// In the order of [`IoClass::ALL`].
    pub classes: [IoCounts; IoClass::ALL.len()],
    /// Writes that were durable when they completed, and flushes of files.
    pub flushes: u64,
}

/// Reads and writes of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounts {
    /// How many have ended.
    pub requests: u64,
    /// Bytes that they asked for.
    pub bytes: u64,
    /// The time that they took at the device, added up; several may have been there at once.
    pub busy: Duration,
    /// The longest.
    pub longest: Duration,
}

impl IoCounts {
    fn count(&mut self, bytes: usize, took: Duration) {
        self.requests += 1;
        self.bytes += bytes as u64;
        self.busy += took;
        self.longest = self.longest.max(took);
    }
}

/// Bytes that one executor may have in flight at the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceBudgetConfig {
    /// For [`IoClass::Journal`]. Default: 8 MiB.
    pub journal_bytes_max: usize,
    /// For [`IoClass::Append`]. Default: 64 MiB.
    pub append_bytes_max: usize,
    /// For [`IoClass::TailRead`]. Default: 8 MiB.
    pub tail_read_bytes_max: usize,
    /// For [`IoClass::Checkpoint`] and all below it together. Default: 2 MiB.
    pub background_bytes_max: usize,
}

impl Default for DeviceBudgetConfig {
    fn default() -> DeviceBudgetConfig {
        DeviceBudgetConfig {
            journal_bytes_max: 8 << 20,
            append_bytes_max: 64 << 20,
            tail_read_bytes_max: 8 << 20,
            background_bytes_max: 2 << 20,
        }
    }
}

/// How often a waiting class of the background may be passed over before it gets a turn.
const PASSED_OVER_MAX: u32 = 8;

/// The foreground counts as being there for so long after its last request: who sends a hundred batches a second is there
/// all the time.
const FOREGROUND_LATELY: Duration = Duration::from_millis(10);

/// The longest rest: a device that stalled is not to keep who rests from being told to stop.
const REST_MAX: Duration = Duration::from_secs(1);

/// How many times as long as a request of that class took, the next one waits for the sake of the foreground.
const fn rest_factor(class: IoClass) -> u32 {
    match class {
        IoClass::ColdRead => 1,
        IoClass::Compaction => 2,
        _ => 0,
    }
}

/// The budget of one executor.
#[derive(Clone)]
pub(crate) struct DeviceBudget {
    lanes: Rc<RefCell<[Lane; 4]>>,
    stats: Rc<RefCell<IoStats>>,
    yielding: Rc<Yielding>,
}

/// What the classes go by that rest.
#[derive(Default)]
struct Yielding {
    /// When the foreground last went to the device.
    foreground_at: Cell<Option<Instant>>,
    /// By class.
    rests_until: [Cell<Option<Instant>>; IoClass::ALL.len()],
}

/// One bound and those who wait for it, by class.
struct Lane {
    bytes_max: usize,
    in_flight: usize,
    /// Highest class first; the three foreground lanes have one class each.
    classes: Vec<Waiting>,
}

#[derive(Default)]
struct Waiting {
    passed_over: u32,
    queue: VecDeque<Rc<RefCell<Waiter>>>,
}

struct Waiter {
    bytes: usize,
    /// `None` once granted.
    waker: Option<Waker>,
}

/// The lane of a class and its rank in there.
const fn place(class: IoClass) -> (usize, usize) {
    match class {
        IoClass::Journal => (0, 0),
        IoClass::Append => (1, 0),
        IoClass::TailRead => (2, 0),
        IoClass::Checkpoint => (3, 0),
        IoClass::Recovery => (3, 1),
        IoClass::ColdRead => (3, 2),
        IoClass::Compaction => (3, 3),
    }
}

impl Lane {
    fn new(bytes_max: usize, classes: usize) -> Lane {
        Lane { bytes_max, in_flight: 0, classes: (0..classes).map(|_| Waiting::default()).collect() }
    }

    fn fits(&self, bytes: usize) -> bool {
        self.in_flight == 0 || self.in_flight.saturating_add(bytes) <= self.bytes_max
    }

    fn has_waiting(&self) -> bool {
        self.classes.iter().any(|class| !class.queue.is_empty())
    }

    /// Whose turn it is: one that was passed over too often, else the highest.
    fn next_class(&self) -> Option<usize> {
        let waits = |rank: &usize| !self.classes[*rank].queue.is_empty();
        let starving = |rank: &usize| self.classes[*rank].passed_over >= PASSED_OVER_MAX;
        let ranks = 0..self.classes.len();
        ranks.clone().filter(waits).find(starving).or_else(|| ranks.clone().find(waits))
    }

    /// Takes the next waiter out if it fits.
    fn grant_next(&mut self) -> Option<Waker> {
        let rank = self.next_class()?;
        let bytes = self.classes[rank].queue.front()?.borrow().bytes;
        if !self.fits(bytes) {
            return None;
        }
        let waiter = self.classes[rank].queue.pop_front()?;
        self.in_flight += bytes;
        self.classes[rank].passed_over = 0;
        for lower in &mut self.classes[rank + 1..] {
            lower.passed_over = if lower.queue.is_empty() { 0 } else { lower.passed_over + 1 };
        }
        waiter.borrow_mut().waker.take()
    }
}

impl DeviceBudget {
    pub(crate) fn new(config: DeviceBudgetConfig) -> DeviceBudget {
        let lanes = [
            Lane::new(config.journal_bytes_max, 1),
            Lane::new(config.append_bytes_max, 1),
            Lane::new(config.tail_read_bytes_max, 1),
            Lane::new(config.background_bytes_max, 4),
        ];
        DeviceBudget { lanes: Rc::new(RefCell::new(lanes)), stats: Rc::default(), yielding: Rc::default() }
    }

    /// What was done so far.
    pub(crate) fn stats(&self) -> IoStats {
        self.stats.borrow().clone()
    }

    /// Something was flushed.
    pub(crate) fn count_flush(&self) {
        self.stats.borrow_mut().flushes += 1;
    }

    /// How long requests of that class are to leave the device alone.
    pub(crate) fn rest(&self, class: IoClass) -> Duration {
        let until = self.yielding.rests_until[class as usize].get();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Waits until `bytes` of that class may go to the device.
    pub(crate) fn enter(&self, class: IoClass, bytes: usize) -> Enter {
        Enter { budget: self.clone(), class, bytes, has_turn: false, waiter: None, done: false }
    }

    /// As [`DeviceBudget::enter`], for a request whose turn it was when its class had to rest: nobody is let in before it
    /// but who is there.
    pub(crate) fn enter_again(&self, class: IoClass, bytes: usize) -> Enter {
        let mut enter = self.enter(class, bytes);
        enter.has_turn = true;
        enter
    }

    fn leave(&self, class: IoClass, bytes: usize) {
        self.lanes.borrow_mut()[place(class).0].in_flight -= bytes;
        self.grant(place(class).0);
    }

    /// A request of that class goes to the device.
    fn start(&self, class: IoClass, bytes: usize) -> InFlight {
        let started = Instant::now();
        if class <= IoClass::TailRead {
            self.yielding.foreground_at.set(Some(started));
        }
        InFlight { budget: self.clone(), class, bytes, started, has_gone: true }
    }

    /// Whether someone waits for the device, or has waited lately.
    fn is_foreground_there(&self) -> bool {
        let lately = |at: Instant| at.elapsed() < FOREGROUND_LATELY;
        self.yielding.foreground_at.get().is_some_and(lately)
            || self.lanes.borrow()[..place(IoClass::Checkpoint).0].iter().any(|lane| lane.in_flight > 0)
    }

    fn grant(&self, lane: usize) {
        loop {
            let granted = self.lanes.borrow_mut()[lane].grant_next();
            match granted {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }
}

impl fmt::Debug for DeviceBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lanes = self.lanes.borrow();
        f.debug_list().entries(lanes.iter().map(|lane| (lane.in_flight, lane.bytes_max))).finish()
    }
}

/// The future of [`DeviceBudget::enter`].
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Enter {
    budget: DeviceBudget,
    class: IoClass,
    bytes: usize,
    /// It was its turn before.
    has_turn: bool,
    waiter: Option<Rc<RefCell<Waiter>>>,
    done: bool,
}

impl Future for Enter {
    type Output = InFlight;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<InFlight> {
        let (class, bytes) = (self.class, self.bytes);
        match &self.waiter {
            None => {
                let (lane, rank) = place(class);
                let mut lanes = self.budget.lanes.borrow_mut();
                let lane = &mut lanes[lane];
                if lane.has_waiting() || !lane.fits(bytes) {
                    let waiter = Rc::new(RefCell::new(Waiter { bytes, waker: Some(cx.waker().clone()) }));
                    let class = &mut lane.classes[rank];
                    if self.has_turn {
                        class.queue.push_front(waiter.clone());
                        class.passed_over = PASSED_OVER_MAX;
                    } else {
                        class.queue.push_back(waiter.clone());
                    }
                    drop(lanes);
                    self.waiter = Some(waiter);
                    return Poll::Pending;
                }
                lane.in_flight += bytes;
            }
            Some(waiter) => {
                if let Some(waker) = &mut waiter.borrow_mut().waker {
                    waker.clone_from(cx.waker());
                    return Poll::Pending;
                }
            }
        }
        self.done = true;
        Poll::Ready(self.budget.start(class, bytes))
    }
}

impl Drop for Enter {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take().filter(|_| !self.done) else { return };
        let (lane, rank) = place(self.class);
        if waiter.borrow().waker.is_none() {
            // Granted but never taken: pass it on.
            self.budget.leave(self.class, self.bytes);
            return;
        }
        self.budget.lanes.borrow_mut()[lane].classes[rank].queue.retain(|other| !Rc::ptr_eq(other, &waiter));
        // It may have been the one that everyone waited behind.
        self.budget.grant(lane);
    }
}

/// Bytes that count as in flight until this is dropped.
pub(crate) struct InFlight {
    budget: DeviceBudget,
    class: IoClass,
    bytes: usize,
    started: Instant,
    /// Unset when it was given back before.
    has_gone: bool,
}

impl InFlight {
    /// Lets others go: the request does not go to the device now.
    pub(crate) fn give_back(mut self) {
        self.has_gone = false;
    }

    fn count(&self) {
        let took = self.started.elapsed();
        self.budget.stats.borrow_mut().classes[self.class as usize].count(self.bytes, took);
        let factor = rest_factor(self.class);
        if factor > 0 && self.budget.is_foreground_there() {
            let until = Instant::now() + took.saturating_mul(factor).min(REST_MAX);
            let rests_until = &self.budget.yielding.rests_until[self.class as usize];
            // Another one of several at once may have taken longer.
            rests_until.set(rests_until.get().max(Some(until)));
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.has_gone {
            self.count();
        }
        self.budget.leave(self.class, self.bytes);
    }
}

#[cfg(test)]
mod tests;
