//! One simulated machine: its tasks, clock, disk and dice, and the loop that drives them.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::clock::{Clock, Sleep};
use super::config::SimConfig;
use super::dice::{Dice, Purpose};
use super::disk::device::{Completion, Disk, Request};
use super::disk::fate::CrashReport;
use super::disk::fault::Operation;
use super::disk::filesystem::{FileSystem, Landing};
use super::task::{BoxedFuture, TaskId, Tasks};
use super::trace::{Event, Trace};
use crate::task::Queue;

/// How long a poll takes in virtual time. Without it a task that spins would keep timers and requests from ever
/// becoming due.
const POLL_TIME: std::ops::RangeInclusive<Duration> = Duration::from_nanos(100)..=Duration::from_micros(3);

/// How long the machine is off after its power went.
const REBOOT_TIME: Duration = Duration::from_secs(1);

/// One simulated machine. No borrow of its parts lasts while code of the program runs.
#[derive(Debug)]
pub(crate) struct World {
    seed: u64,
    polls_max: u64,
    pub(super) clock: RefCell<Clock>,
    pub(super) disk: RefCell<Disk>,
    tasks: RefCell<Tasks>,
    trace: RefCell<Trace>,
    schedule: RefCell<Dice>,
    program: RefCell<Dice>,
}

/// What the program on it can ask for.
impl World {
    pub(crate) fn monotonic(&self) -> Duration {
        self.clock.borrow().now()
    }

    pub(crate) fn wall_clock_ms(&self) -> i64 {
        self.clock.borrow().wall_ms()
    }

    pub(crate) fn sleep(self: &Rc<World>, duration: Duration) -> Sleep {
        Sleep::new(self.clone(), duration)
    }

    pub(crate) fn random_u64(&self) -> u64 {
        let number = self.program.borrow_mut().u64();
        self.record(Event::RandomDrawn { number });
        number
    }

    /// Every ready task may be the next, whichever queue it is in: shares of the core are not simulated.
    pub(crate) fn spawn(&self, _queue: Queue, name: &'static str, future: BoxedFuture) {
        self.add_task(name, Some(future));
    }

    /// Hands a request to the simulated kernel. `effect` runs when it has completed; a fault runs nothing.
    pub(super) fn submit<T: 'static>(
        &self,
        request: &Request,
        effect: impl FnOnce(&mut FileSystem) -> io::Result<T> + 'static,
    ) -> Completion<T> {
        self.submit_landing(request, |files, landing| match landing {
            Landing::Completed | Landing::PowerLost => effect(files),
            Landing::Failed(error) => Err(error),
            Landing::FailedLate(error) => effect(files).and(Err(error)),
        })
    }

    /// As [`World::submit`], for requests that leave something behind when they fail.
    pub(super) fn submit_landing<T: 'static>(
        &self,
        request: &Request,
        effect: impl FnOnce(&mut FileSystem, Landing) -> io::Result<T> + 'static,
    ) -> Completion<T> {
        let (id, completion) = self.disk.borrow_mut().submit(self.monotonic(), request, effect);
        let Request { operation, path, position, length, content, .. } = request.clone();
        self.record(Event::Submitted { request: id, operation, path, position, length, content });
        completion
    }
}

/// What drives it.
impl World {
    pub(super) fn new(config: SimConfig) -> World {
        let seed = config.seed;
        World {
            seed,
            polls_max: config.polls_max,
            clock: RefCell::new(Clock::new(config.wall_clock_ms)),
            disk: RefCell::new(Disk::new(config.disk, seed)),
            tasks: RefCell::default(),
            trace: RefCell::new(Trace::new(config.trace_tail_max)),
            schedule: RefCell::new(Dice::new(seed, Purpose::Schedule)),
            program: RefCell::new(Dice::new(seed, Purpose::Program)),
        }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.trace.borrow().hash()
    }

    pub(super) fn trace_tail(&self) -> Vec<String> {
        self.trace.borrow().tail()
    }

    fn record(&self, event: Event) {
        self.trace.borrow_mut().record(self.monotonic(), event);
    }

    fn add_task(&self, name: &'static str, future: Option<BoxedFuture>) -> TaskId {
        let task = self.tasks.borrow_mut().add(name, future, self.monotonic());
        self.record(Event::Spawned { task, name });
        task
    }

    /// Drives every task until `main` is done. The others stay as they are until the next run.
    pub(super) fn run<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let main_task = self.add_task("main", None);
        let main_ends = Ended { world: self, task: main_task };
        for _ in 0..self.polls_max {
            self.pass_time();
            let Some(task) = self.next_ready() else {
                self.jump();
                continue;
            };
            if let Poll::Ready(output) = self.poll(task, main_task, main.as_mut()) {
                drop(main_ends);
                return output;
            }
        }
        panic!(
            "livelock: {} polls and no end (seed {}, virtual time {:?}); alive are\n{}",
            self.polls_max,
            self.seed,
            self.monotonic(),
            self.tasks.borrow().waiting()
        );
    }

    fn next_ready(&self) -> Option<TaskId> {
        self.tasks.borrow_mut().take_ready(&mut self.schedule.borrow_mut())
    }

    /// Polls one task; ready with the output when it was `main` and is done.
    fn poll<T>(&self, task: TaskId, main_task: TaskId, main: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        let begun = self.tasks.borrow_mut().begin_poll(task, self.monotonic());
        let Some((future, waker)) = begun else { return Poll::Pending };
        self.record(Event::Polled { task });
        let mut cx = Context::from_waker(&waker);
        if task == main_task {
            return main.poll(&mut cx);
        }
        let Some(mut future) = future else { return Poll::Pending };
        match future.as_mut().poll(&mut cx) {
            Poll::Pending => self.tasks.borrow_mut().end_poll(task, future),
            Poll::Ready(()) => {
                drop(future);
                self.end_task(task);
            }
        }
        Poll::Pending
    }

    fn end_task(&self, task: TaskId) {
        self.record(Event::Ended { task });
        self.tasks.borrow_mut().remove(task);
    }

    /// Lets a little time go by, and does what has become due.
    fn pass_time(&self) {
        let passed = self.schedule.borrow_mut().duration(&POLL_TIME);
        self.advance_to(self.monotonic() + passed);
    }

    /// Nothing can run: goes straight to the next thing that happens.
    fn jump(&self) {
        let timer = self.clock.borrow().next_timer();
        let completion = self.disk.borrow().requests.next_completion();
        match [timer, completion].into_iter().flatten().min() {
            Some(moment) => self.advance_to(moment),
            None => panic!(
                "deadlock: nothing is ready, no timer runs and no request is under way \
                 (seed {}, virtual time {:?}); these wait for each other:\n{}\nthe last events:\n{}",
                self.seed,
                self.monotonic(),
                self.tasks.borrow().waiting(),
                self.trace_tail().join("\n")
            ),
        }
    }

    fn advance_to(&self, moment: Duration) {
        self.clock.borrow_mut().advance_to(moment);
        loop {
            let landed = self.disk.borrow_mut().land_due(self.monotonic());
            let Some((request, ended)) = landed else { break };
            self.record(Event::Completed { request, ok: ended.ok });
            if let Some(waker) = ended.waker {
                waker.wake();
            }
        }
        loop {
            let due = self.clock.borrow_mut().pop_due();
            let Some((timer, waker)) = due else { break };
            self.record(Event::TimerFired { timer });
            waker.wake();
        }
    }

    /// The process dies; the kernel lives and goes on with the requests that it has.
    pub(super) fn kill(&self) {
        self.drop_tasks();
        self.disk.borrow_mut().files.close_all();
        self.record(Event::Killed);
    }

    /// The power goes, and comes back.
    pub(super) fn crash(&self) -> CrashReport {
        self.drop_tasks();
        let report = self.disk.borrow_mut().crash();
        self.record(Event::Crashed);
        let now = self.monotonic();
        self.clock.borrow_mut().advance_to(now + REBOOT_TIME);
        report
    }

    /// Drops every task without polling it again. What their drops spawn is dropped as well.
    pub(super) fn drop_tasks(&self) {
        loop {
            let futures = self.tasks.borrow_mut().take_all();
            if futures.is_empty() {
                return;
            }
            drop(futures);
        }
    }
}

/// Forgets the task of `run` when it returns or unwinds.
struct Ended<'a> {
    world: &'a World,
    task: TaskId,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.world.end_task(self.task);
    }
}

/// A request without a descriptor.
pub(super) fn name_request(operation: Operation, path: Rc<str>) -> Request {
    Request { operation, path, handle: None, position: 0, length: 0, content: 0 }
}
