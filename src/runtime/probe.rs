//! What the machine has and what it lacks, each with the way to mend it.
//!
//! The probes block, for milliseconds at most, and run on any thread: `doctor` prints them, and a broker that cannot
//! start says which one failed.

use std::fmt;
use std::path::Path;

use crate::glommio::probe as backend_probe;

/// What was found: all is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `io_uring`, say.
    pub subject: &'static str,
    /// What it is like: `usable, kernel 6.12`.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.detail)
    }
}

/// What is wrong and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {what}. {how_to_mend}")]
pub struct Problem {
    /// What was looked at.
    pub subject: &'static str,
    /// What is wrong with it, without a full stop.
    pub what: String,
    /// What to do, as whole sentences; commands as they can be typed.
    pub how_to_mend: String,
}

/// Whether io_uring can be used: not forbidden by seccomp or `kernel.io_uring_disabled`, and with every operation
/// that the executor needs.
///
/// # Errors
/// What is missing or forbids it.
pub fn io_uring() -> Result<Finding, Problem> {
    backend_probe::io_uring()
}

/// Whether this process may lock enough memory to start executors. The finding says, with the exact lines, how to
/// raise the limit when it is too low to register `io_memory_bytes` for each of them with io_uring, which they can do
/// without.
///
/// # Errors
/// When the limit is too low to start at all; how to raise it.
pub fn locked_memory(executors: usize, io_memory_bytes: usize) -> Result<Finding, Problem> {
    backend_probe::locked_memory(executors, io_memory_bytes)
}

/// Whether the file system of an existing directory has direct I/O. Creates and removes a file in it.
///
/// # Errors
/// Why it has not, or why that cannot be found out.
pub fn direct_io(dir: &Path) -> Result<Finding, Problem> {
    backend_probe::direct_io(dir)
}

/// Whether an existing directory is kept by something that outlives the machine's power: a file system in memory may
/// have direct I/O (tmpfs since Linux 6.6) and confirms every flush, and has nothing to flush to.
///
/// # Errors
/// Which file system in memory it is on, or why that cannot be found out.
pub fn outlives_power(dir: &Path) -> Result<Finding, Problem> {
    backend_probe::outlives_power(dir)
}

/// Whether the kernel polls the disk of an existing directory for completions, as far as this process decided.
///
/// # Errors
/// When it does though the device has no queues for it, which costs most of the throughput.
pub fn disk_polling(dir: &Path) -> Result<Finding, Problem> {
    backend_probe::disk_polling(dir)
}

/// Whether the file system of an existing directory has as many free bytes as are wanted.
///
/// # Errors
/// How many it has, or why that cannot be found out.
pub fn free_disk(dir: &Path, bytes_wanted: u64) -> Result<Finding, Problem> {
    backend_probe::free_disk(dir, bytes_wanted)
}

/// The version of the running kernel.
///
/// # Errors
/// When it is older than what the executor needs.
pub fn kernel() -> Result<Finding, Problem> {
    backend_probe::kernel()
}

/// Makes an existing data directory fit for the executors of this process; call it once for each data directory
/// before any executor opens a file there. It writes a block of real data into a file without a name, and reads it
/// before any other file of that device: without it glommio may poll the disk and spin where it should sleep.
///
/// # Errors
/// When the file cannot be written or the directory has no direct I/O.
pub fn prepare_data_dir(dir: &Path) -> Result<(), Problem> {
    backend_probe::prepare_data_dir(dir)
}

#[cfg(test)]
mod tests;
