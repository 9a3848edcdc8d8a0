//! One simulated machine: its cores, tasks, clock, disk and dice, and the loop that drives them.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::bell::Bell;
use super::clock::{Clock, Sleep};
use super::config::{CoreConfig, SimConfig};
use super::cores::{CoreId, Cores, Site};
use super::dice::{Dice, Purpose};
use super::disk::device::{Completion, Disk, Request};
use super::disk::fate::CrashReport;
use super::disk::fault::Operation;
use super::disk::filesystem::{FileSystem, Landing};
use super::net::network::Network;
use super::task::{BoxedFuture, Polling, TaskId, Tasks};
use super::trace::{Event, Trace};
use crate::backend::{self, Backend, Context as CoreContext};
use crate::device::DeviceBudget;
use crate::executor::ExecutorConfig;
use crate::seeded_bug::SeededBug;
use crate::stall::StallLog;
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
    network: RefCell<Network>,
    cores: RefCell<Cores>,
    /// The core whose code runs now.
    current: Cell<CoreId>,
    bell: Bell,
    core_config: CoreConfig,
    seeded_bug: Option<SeededBug>,
    tasks: RefCell<Tasks>,
    trace: RefCell<Trace>,
    schedule: RefCell<Dice>,
    doorbell: RefCell<Dice>,
    program: RefCell<Dice>,
}

/// What the program on it can ask for.
impl World {
    /// The bug that the program has.
    pub(crate) fn seeded_bug(&self) -> Option<SeededBug> {
        self.seeded_bug
    }

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
        self.spawn_on(self.current.get(), name, future);
    }

    /// What delays wake-ups between cores.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Where the core is whose code runs now.
    pub(crate) fn current_site(&self) -> Site {
        self.cores.borrow().site(self.current.get()).unwrap_or(Site::Machine)
    }

    /// Does something in the network, now.
    pub(super) fn network<T>(&self, act: impl FnOnce(&mut Network, Duration) -> T) -> T {
        let now = self.monotonic();
        let (done, (events, woken)) = {
            let mut network = self.network.borrow_mut();
            let done = act(&mut network, now);
            (done, network.take_aftermath())
        };
        events.into_iter().for_each(|event| self.record(event));
        woken.into_iter().for_each(Waker::wake);
        done
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
            network: RefCell::new(Network::new(config.network, seed)),
            cores: RefCell::new(Cores::new(config.cores.clone())),
            current: Cell::default(),
            bell: Bell::default(),
            core_config: config.cores,
            seeded_bug: config.seeded_bug,
            tasks: RefCell::default(),
            trace: RefCell::new(Trace::new(config.trace_tail_max)),
            schedule: RefCell::new(Dice::new(seed, Purpose::Schedule)),
            doorbell: RefCell::new(Dice::new(seed, Purpose::Doorbell)),
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

    pub(super) fn add_core(self: &Rc<World>, site: Site, config: &ExecutorConfig) -> CoreId {
        let context = Rc::new(CoreContext {
            backend: Backend::Sim(self.clone()),
            device: DeviceBudget::new(config.device),
            stalls: StallLog::new(config.stall_threshold),
        });
        let core = self.cores.borrow_mut().add(site, context);
        self.record(Event::CoreStarted { core, site, name: config.name.as_str().into() });
        core
    }

    pub(super) fn spawn_on(&self, core: CoreId, name: &'static str, future: BoxedFuture) {
        self.add_task(core, name, Some(future));
    }

    fn add_task(&self, core: CoreId, name: &'static str, future: Option<BoxedFuture>) -> TaskId {
        let ready = self.cores.borrow().ready_queue(core);
        let task = self.tasks.borrow_mut().add(name, core, ready, future, self.monotonic());
        self.record(Event::Spawned { task, core, name });
        task
    }

    /// Makes a core the one whose code runs, until the guard is dropped; `None` when it has ended.
    pub(super) fn run_on(&self, core: CoreId) -> Option<Running<'_>> {
        let context = self.cores.borrow().context(core)?;
        let before = self.current.replace(core);
        Some(Running { world: self, before, _context: backend::stand_in(context) })
    }

    /// Drives every task until `main` is done. The others stay as they are until the next run.
    pub(super) fn run<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let main_task = self.add_task(self.current.get(), "main", None);
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
        let tasks = self.tasks.borrow();
        let is_alive = |task| tasks.is_alive(task);
        self.cores.borrow_mut().take_ready(self.monotonic(), &mut self.schedule.borrow_mut(), is_alive)
    }

    /// Polls one task; ready with the output when it was `main` and is done.
    fn poll<T>(&self, task: TaskId, main_task: TaskId, main: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        let begun = self.tasks.borrow_mut().begin_poll(task, self.monotonic());
        let Some(Polling { core, future, waker }) = begun else { return Poll::Pending };
        let Some(_running) = self.run_on(core) else { return Poll::Pending };
        self.record(Event::Polled { task });
        let mut cx = Context::from_waker(&waker);
        if task == main_task {
            return main.poll(&mut cx);
        }
        let Some(mut future) = future else { return Poll::Pending };
        match future.as_mut().poll(&mut cx) {
            Poll::Pending => {
                let homeless = self.tasks.borrow_mut().end_poll(task, future);
                drop(homeless);
            }
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
        self.answer_bell();
        let passed = self.schedule.borrow_mut().duration(&POLL_TIME);
        self.advance_to(self.monotonic() + passed);
    }

    /// Whoever was woken through a channel will be ready a while later.
    fn answer_bell(&self) {
        let CoreConfig { wake, slow_one_in, .. } = &self.core_config;
        for woken in self.bell.answer() {
            let latency = self.doorbell.borrow_mut().latency(wake, *slow_one_in);
            let ready_at = self.monotonic() + latency;
            let timer = self.clock.borrow_mut().add_timer(ready_at, woken);
            self.record(Event::Rung { timer });
        }
    }

    /// Nothing can run: goes straight to the next thing that happens.
    fn jump(&self) {
        let timer = self.clock.borrow().next_timer();
        let completion = self.disk.borrow().requests.next_completion();
        let arrival = self.network.borrow().next_arrival();
        let resumption = self.cores.borrow().next_resumption(self.monotonic());
        match [timer, completion, arrival, resumption].into_iter().flatten().min() {
            Some(moment) => self.advance_to(moment),
            None => panic!(
                "deadlock: nothing is ready, no timer runs, no request and no packet is under way \
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
        self.network(|network, now| network.deliver_due(now));
        loop {
            let due = self.clock.borrow_mut().pop_due();
            let Some((timer, waker)) = due else { break };
            self.record(Event::TimerFired { timer });
            waker.wake();
        }
    }

    /// The process dies; the kernel lives, closes its sockets and goes on with the requests that it has.
    pub(super) fn kill(&self) {
        self.end_cores_at(Site::Machine);
        self.disk.borrow_mut().files.close_all();
        self.record(Event::Killed);
    }

    /// The power goes, and comes back.
    pub(super) fn crash(&self) -> CrashReport {
        let back_at = self.monotonic() + REBOOT_TIME;
        self.network(|network, _| network.power_lost(back_at));
        self.end_cores_at(Site::Machine);
        let report = self.disk.borrow_mut().crash();
        self.record(Event::Crashed);
        self.clock.borrow_mut().advance_to(back_at);
        report
    }

    /// Ends everything.
    pub(super) fn end(&self) {
        self.end_cores_at(Site::Elsewhere);
        self.end_cores_at(Site::Machine);
    }

    /// Drops every task at a site without polling it again, and then the cores.
    fn end_cores_at(&self, site: Site) {
        let cores = self.cores.borrow().at(site);
        loop {
            // What a drop on one core spawns, on whichever core, is dropped as well.
            let dropped: usize = cores.iter().map(|core| self.drop_tasks(*core)).sum();
            if dropped == 0 {
                break;
            }
        }
        cores.into_iter().for_each(|core| self.remove_core(core));
    }

    /// A core's main future is done: its other tasks are not polled again.
    pub(super) fn end_core(&self, core: CoreId) {
        while self.drop_tasks(core) > 0 {}
        self.remove_core(core);
    }

    fn drop_tasks(&self, core: CoreId) -> usize {
        let Some(_running) = self.run_on(core) else { return 0 };
        let futures = self.tasks.borrow_mut().take_all(core);
        let count = futures.len();
        drop(futures);
        count
    }

    fn remove_core(&self, core: CoreId) {
        let context = self.cores.borrow_mut().remove(core);
        drop(context);
        self.record(Event::CoreEnded { core });
    }
}

/// While it lives, code runs on a certain core.
pub(super) struct Running<'a> {
    world: &'a World,
    before: CoreId,
    _context: backend::StandingIn,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.world.current.set(self.before);
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
