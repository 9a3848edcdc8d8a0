//! The test's hands on a simulated machine.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::config::SimConfig;
use super::cores::{CoreId, Site};
use super::disk::control::SimDisk;
use super::disk::fate::CrashReport;
use super::executor;
use super::world::{Running, World};
use crate::backend;
use crate::executor::ExecutorConfig;

/// A simulated machine: its cores and their tasks, clock, random numbers, disk and network, all driven by a seed.
///
/// One process runs on it. What [`Sim::run`] runs is on its first core, and
/// [`spawn_executor`](crate::executor::spawn_executor) adds others. Whoever talks to that process over the network and
/// is to outlive it runs [`Sim::elsewhere`].
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
    /// The first core of the process; a new process gets a new one.
    first: Cell<CoreId>,
}

impl Sim {
    /// A machine with an empty disk that has just been switched on.
    pub fn new(config: SimConfig) -> Sim {
        let world = Rc::new(World::new(config));
        let first = Cell::new(new_process(&world));
        Sim { world, first }
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
        let _running = self.enter();
        self.world.run(main())
    }

    /// Starts a core on another machine: a client, say. It has the same clock and network, but no disk, and neither a
    /// kill nor a crash touches it. It ends with the future that `main` makes, and only runs while [`Sim::run`] does.
    pub fn elsewhere<Fut>(&self, name: &str, main: impl FnOnce() -> Fut + 'static)
    where
        Fut: Future<Output = ()> + 'static,
    {
        let config = ExecutorConfig { name: name.to_owned(), ..ExecutorConfig::default() };
        executor::start(&self.world, Site::Elsewhere, config, async move { main().await });
    }

    /// The process is killed, the kernel lives: every task and core is dropped and every file and socket closed, but
    /// requests under way go on and land later, and each keeps the lock of its file until then. What was written to a
    /// connection still arrives, and then its end; or a reset, when something was not read.
    ///
    /// # Panics
    /// Inside [`Sim::run`].
    pub fn kill(&self) {
        assert_outside();
        self.world.kill();
        self.first.set(new_process(&self.world));
    }

    /// The power goes and comes back a second later. Every task, core and open file is gone. Of every change that was
    /// not known to be durable the seed keeps all, nothing or parts; requests under way may land as well. Other machines
    /// get none, some or all of what was sent to them last, and a reset once the power is back.
    ///
    /// # Panics
    /// Inside [`Sim::run`].
    pub fn crash(&self) -> CrashReport {
        assert_outside();
        let report = self.world.crash();
        self.first.set(new_process(&self.world));
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

    /// A hash over everything that has happened: each poll, timer, request and packet with its content, completion and
    /// random number, with its virtual time. Equal hashes mean that two runs were the same.
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

    fn enter(&self) -> Running<'_> {
        assert_outside();
        self.world.run_on(self.first.get()).expect("the first core ends with its process")
    }
}

impl Drop for Sim {
    /// Tasks and cores hold their machine and the machine holds them: somebody has to let go. In a panic it tells the
    /// seed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What tasks do when dropped may well panic again, and a test that fails may leak.
            self.tell_how_to_replay();
        } else if backend::try_current().is_none() {
            self.world.end();
        }
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("seed", &self.seed()).field("now", &self.now()).finish_non_exhaustive()
    }
}

/// # Panics
/// On a thread that runs an executor, of this simulation or of any other.
fn assert_outside() {
    assert!(backend::try_current().is_none(), "this thread runs an executor already");
}

fn new_process(world: &Rc<World>) -> CoreId {
    world.add_core(Site::Machine, &ExecutorConfig { name: "first".to_owned(), ..ExecutorConfig::default() })
}
