//! The test's hands on a simulated machine.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::config::SimConfig;
use super::disk::control::SimDisk;
use super::disk::fate::CrashReport;
use super::world::World;
use crate::backend::{self, Backend, Context};
use crate::device::{DeviceBudget, DeviceBudgetConfig};
use crate::stall::StallLog;

/// A simulated machine with one executor: its tasks, clock, random numbers and disk, all driven by a seed.
///
/// ```
/// use ringmq_runtime::file::{File, OpenOptions};
/// use ringmq_runtime::sim::{Sim, SimConfig};
/// use ringmq_runtime::{fs, time};
/// use std::time::Duration;
///
/// let sim = Sim::new(SimConfig::with_seed(7));
/// sim.run(|| async {
///     let options = OpenOptions { write: true, create_new: true, dsync: false };
///     let file = File::open("/log", options).await?;
///     file.preallocate(4096).await?;
///     time::sleep(Duration::from_secs(3600)).await; // takes no real time
///     std::io::Result::Ok(())
/// })?;
/// assert!(sim.now() >= Duration::from_secs(3600));
///
/// // Nobody synchronised the directory, so the file may be there or not.
/// sim.crash();
/// let there = sim.run(|| fs::exists("/log"))?;
/// assert_eq!(there, sim.disk().read("/log").is_some());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Sim {
    world: Rc<World>,
    /// What a process has for itself; a new process gets a new one.
    process: RefCell<Rc<Context>>,
}

impl Sim {
    /// A machine with an empty disk that has just been switched on.
    pub fn new(config: SimConfig) -> Sim {
        let world = Rc::new(World::new(config));
        let process = RefCell::new(new_process(&world));
        Sim { world, process }
    }

    /// Drives every task until the future made by `main` is done, and returns what it returned.
    ///
    /// Tasks that are not done then stay as they are, as if the machine stood still, until the next run, a
    /// [`Sim::kill`] or a [`Sim::crash`]. So a crash in the middle of work is a `main` that spawns the work, sleeps
    /// for as long as the test likes and returns.
    ///
    /// # Panics
    /// When no task can ever run again although `main` is not done (deadlock), when it takes more than
    /// [`SimConfig::polls_max`] polls (livelock), when a task panics, and on a thread that runs an executor already.
    pub fn run<T, Fut: Future<Output = T>>(&self, main: impl FnOnce() -> Fut) -> T {
        let _entered = self.enter();
        self.world.run(main())
    }

    /// The process is killed, the kernel lives: every task is dropped and every file closed, but requests under way
    /// go on and land later, and each keeps the lock of its file until then.
    ///
    /// # Panics
    /// Inside [`Sim::run`].
    pub fn kill(&self) {
        {
            let _entered = self.enter();
            self.world.kill();
        }
        *self.process.borrow_mut() = new_process(&self.world);
    }

    /// The power goes and comes back a second later. Every task and open file is gone. Of every change that was not
    /// known to be durable the seed keeps all, nothing or parts; requests under way may land as well.
    ///
    /// # Panics
    /// Inside [`Sim::run`].
    pub fn crash(&self) -> CrashReport {
        let report = {
            let _entered = self.enter();
            self.world.crash()
        };
        *self.process.borrow_mut() = new_process(&self.world);
        report
    }

    /// The disk, which outlives processes.
    pub fn disk(&self) -> SimDisk {
        SimDisk::new(self.world.clone())
    }

    /// The seed that decides this run.
    pub fn seed(&self) -> u64 {
        self.world.seed()
    }

    /// Virtual time since the machine was made. Crashes do not set it back.
    pub fn now(&self) -> Duration {
        self.world.monotonic()
    }

    /// Sets the wall clock that many milliseconds forward, or back; timers and the monotonic clock do not notice.
    pub fn step_wall_clock(&self, by_ms: i64) {
        self.world.clock.borrow_mut().step_wall(by_ms);
    }

    /// A hash over everything that has happened: each poll, timer, request with its content, completion and random
    /// number, with its virtual time. Equal hashes mean that two runs were the same.
    pub fn trace_hash(&self) -> u64 {
        self.world.trace_hash()
    }

    /// The latest events, one a line, oldest first; as many as [`SimConfig::trace_tail_max`] says.
    pub fn trace_tail(&self) -> Vec<String> {
        self.world.trace_tail()
    }

    #[expect(
        clippy::print_stderr,
        reason = "a test that fails is where its output goes; a panic in a drop would abort"
    )]
    fn tell_how_to_replay(&self) {
        eprintln!(
            "simulation with seed {} at {:?}; its last events:\n{}",
            self.seed(),
            self.now(),
            self.trace_tail().join("\n")
        );
    }

    fn enter(&self) -> backend::Entered {
        backend::enter(self.process.borrow().clone())
    }
}

impl Drop for Sim {
    /// Tasks hold their machine and the machine its tasks: somebody has to let go. In a panic it tells the seed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What tasks do when dropped may well panic again, and a test that fails may leak.
            self.tell_how_to_replay();
        } else if backend::try_current().is_none() {
            let _entered = self.enter();
            self.world.drop_tasks();
        }
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("seed", &self.seed()).field("now", &self.now()).finish_non_exhaustive()
    }
}

fn new_process(world: &Rc<World>) -> Rc<Context> {
    Rc::new(Context {
        backend: Backend::Sim(world.clone()),
        device: DeviceBudget::new(DeviceBudgetConfig::default()),
        stalls: StallLog::default(),
    })
}
