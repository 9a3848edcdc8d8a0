//! Threads with an executor each, pinned to a processor or not.

use std::future::Future;
use std::io;
use std::time::Duration;

#[cfg(feature = "sim")]
use crate::backend;
use crate::device::DeviceBudgetConfig;
use crate::glommio;
#[cfg(feature = "sim")]
use crate::sim;
use crate::stall;

/// The number of a processor as the kernel counts them (`/sys/devices/system/cpu/cpuN`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(u32);

impl CpuId {
    /// The processor with that number.
    pub const fn new(cpu: u32) -> CpuId {
        CpuId(cpu)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for CpuId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// How one executor is set up.
#[derive(Clone, Debug)]
pub struct ExecutorConfig {
    /// The name of its thread (the kernel keeps the first 15 bytes). Default: `executor`.
    pub name: String,
    /// The processor that its thread is pinned to; `None` lets the kernel move it. Default: `None`.
    pub cpu: Option<CpuId>,
    /// Memory that reads from files go into, in bytes, kept for good and registered with io_uring if the limit on
    /// locked memory allows (it counts three times). A piece that does not fit in what is free of it comes from the
    /// ordinary allocator, and a read into fresh memory costs three times the processor time. So who reads much sets it
    /// to hold the reads in flight and what was read and is not yet sent. The broker passes the least: it reads the
    /// past in pieces of 256 KiB and more, all of them into fresh memory, and starts under any limit on locked
    /// memory. Default: 8 MiB; least: 64 KiB.
    pub io_memory_bytes: usize,
    /// Free buffers that the executor's pool keeps for reuse, in bytes. Default: 64 MiB.
    pub buffers_retained_bytes_max: usize,
    /// How long to look for work before the thread sleeps: a core that sleeps takes some 20 µs to wake. Others on its core
    /// wait as long. Default: `None`, sleep at once.
    pub spin_before_park: Option<Duration>,
    /// A task that holds the core for longer than this is a stall ([`crate::task::stalls`]). Default: 5 ms.
    pub stall_threshold: Duration,
    /// Which input and output may be at the device at the same time.
    pub device: DeviceBudgetConfig,
}

impl Default for ExecutorConfig {
    fn default() -> ExecutorConfig {
        ExecutorConfig {
            name: "executor".to_owned(),
            cpu: None,
            io_memory_bytes: 8 * 1024 * 1024,
            buffers_retained_bytes_max: 64 * 1024 * 1024,
            spin_before_park: None,
            stall_threshold: stall::THRESHOLD_DEFAULT,
            device: DeviceBudgetConfig::default(),
        }
    }
}

/// A running executor.
#[derive(Debug)]
pub struct ExecutorHandle<T: Send + 'static>(HandleBackend<T>);

#[derive(Debug)]
enum HandleBackend<T: Send + 'static> {
    Glommio(glommio::executor::Handle<T>),
    #[cfg(feature = "sim")]
    Sim(sim::executor::Handle<T>),
}

impl<T: Send + 'static> ExecutorHandle<T> {
    /// Waits until the executor's future is done and its thread has ended, and returns what the future returned.
    /// Blocks the calling thread: not for use inside an executor.
    ///
    /// # Errors
    /// When the executor could not start (see [`crate::probe`] for what may be missing) or panicked. In a simulation
    /// it never waits: [`io::ErrorKind::WouldBlock`] when the future is not done.
    pub fn join(self) -> io::Result<T> {
        match self.0 {
            HandleBackend::Glommio(handle) => handle.join(),
            #[cfg(feature = "sim")]
            HandleBackend::Sim(handle) => handle.join(),
        }
    }
}

/// Starts a thread with an executor of its own that runs the future made by `main`.
///
/// The executor ends when that future does: tasks that it spawned are no longer polled, but file operations under
/// way are waited for, so that the kernel never writes into freed memory. `main` itself is called on the new thread.
/// Inside a simulation there is no thread: the executor is one more core of the simulated process.
///
/// # Errors
/// When the thread cannot be made or the processor is not one that this process may use.
pub fn spawn_executor<T, Fut>(
    config: ExecutorConfig,
    main: impl FnOnce() -> Fut + Send + 'static,
) -> io::Result<ExecutorHandle<T>>
where
    T: Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    #[cfg(feature = "sim")]
    if let Some(world) = backend::simulated() {
        return Ok(ExecutorHandle(HandleBackend::Sim(sim::executor::spawn(&world, config, main))));
    }
    if let Some(cpu) = config.cpu
        && !cpus_allowed()?.contains(&cpu)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("processor {cpu} is not one that this process may use; allowed are {:?}", cpus_allowed()?),
        ));
    }
    glommio::executor::spawn(config, main).map(HandleBackend::Glommio).map(ExecutorHandle)
}

/// Raises this process's limit of open files to the most that it may have without privileges, and gives that limit.
/// The usual limit, 1024, is for programs that wait with select(2); a broker has a file for each partition and
/// connection. From then on [`File::open_sparing`](crate::file::File::open_sparing) leaves three eighths of them, 24 at
/// least, to connections and to files that matter more.
///
/// # Errors
/// What getrlimit(2) and setrlimit(2) say.
pub fn raise_open_files() -> io::Result<u64> {
    glommio::sys::raise_open_files()
}

/// The processors that this process may use, ascending: those of its main thread, whatever the calling thread is
/// pinned to.
///
/// # Errors
/// When the kernel does not say (sched_getaffinity(2)).
pub fn cpus_allowed() -> io::Result<Vec<CpuId>> {
    glommio::affinity::of_process()
}

/// The processors that the calling thread may use, ascending.
///
/// # Errors
/// When the kernel does not say (sched_getaffinity(2)).
pub fn thread_cpus_allowed() -> io::Result<Vec<CpuId>> {
    glommio::affinity::of_thread()
}

#[cfg(test)]
mod tests;
