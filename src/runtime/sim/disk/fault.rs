//! Faults that a test asks for: requests that fail, and disks that stall.

use std::io;
use std::time::Duration;

use super::path;

/// The kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Opening a file, and creating it.
    Open,
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// fdatasync of a file.
    Flush,
    /// Allocating space for a file.
    Preallocate,
    /// Setting the size of a file.
    Truncate,
    /// Making directories.
    CreateDir,
    /// Listing a directory.
    ReadDir,
    /// Renaming; the path is the old one.
    Rename,
    /// Removing a file or a directory with all that is in it.
    Remove,
    /// Synchronising a directory.
    SyncDir,
    /// Asking whether a name or how much space there is.
    Stat,
    /// Closing a file.
    Close,
}

/// A fault to be: which requests fail, and how.
///
/// ```
/// use ringmq_runtime::sim::{Fault, Operation};
///
/// // The third write to any log file, and the two after it, find the disk full.
/// let full = Fault::on(Operation::Write, "*.log").after(2).times(3).error(std::io::ErrorKind::StorageFull);
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    /// `None`: any.
    operation: Option<Operation>,
    pattern: String,
    to_pass: u64,
    to_fail: u64,
    error: FaultError,
    late: bool,
}

#[derive(Clone, Copy, Debug)]
enum FaultError {
    Kind(io::ErrorKind),
    Os(i32),
}

impl Fault {
    /// The next such request to a path that fits `pattern` fails with an input/output error (EIO).
    /// In the pattern `*` stands for any text, also across directories.
    pub fn on(operation: Operation, pattern: impl Into<String>) -> Fault {
        Fault::new(Some(operation), pattern.into())
    }

    /// As [`Fault::on`], for requests of every kind: with [`Fault::after`] each step of a program can be made to fail.
    pub fn on_any(pattern: impl Into<String>) -> Fault {
        Fault::new(None, pattern.into())
    }

    fn new(operation: Option<Operation>, pattern: String) -> Fault {
        Fault { operation, pattern, to_pass: 0, to_fail: 1, error: FaultError::Os(libc::EIO), late: false }
    }

    /// Lets that many fitting requests pass first.
    #[must_use]
    pub fn after(mut self, passed: u64) -> Fault {
        self.to_pass = passed;
        self
    }

    /// Fails that many in a row instead of one; `u64::MAX` for all.
    #[must_use]
    pub fn times(mut self, failures: u64) -> Fault {
        self.to_fail = failures;
        self
    }

    /// Fails late: the request does what it is meant to do, and its answer is an error all the same. So does an open
    /// that has made the file's name and then finds no descriptor left.
    #[must_use]
    pub fn late(mut self) -> Fault {
        self.late = true;
        self
    }

    /// Fails with an error of that kind.
    #[must_use]
    pub fn error(mut self, kind: io::ErrorKind) -> Fault {
        self.error = FaultError::Kind(kind);
        self
    }

    /// Fails with that number of errno(3).
    #[must_use]
    pub fn os_error(mut self, errno: i32) -> Fault {
        self.error = FaultError::Os(errno);
        self
    }
}

/// How a request fails.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: io::Error,
    /// Whether it has done what it is meant to do.
    pub(crate) late: bool,
}

/// A disk that does not answer for a while.
#[derive(Clone, Debug)]
struct Stall {
    pattern: String,
    until: Duration,
}

/// The faults that wait for their request.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    faults: Vec<Fault>,
    stalls: Vec<Stall>,
    met: u64,
}

impl Faults {
    pub(crate) fn inject(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.faults.clear();
    }

    pub(crate) fn stall(&mut self, pattern: &str, until: Duration) {
        self.stalls.push(Stall { pattern: pattern.to_owned(), until });
    }

    pub(crate) fn clear_stalls(&mut self) {
        self.stalls.clear();
    }

    /// How many requests have met one.
    pub(crate) fn met(&self) -> u64 {
        self.met
    }

    /// The failure that this request meets, if a fault wants it. Every fitting fault counts it; the oldest one decides.
    pub(crate) fn meet(&mut self, operation: Operation, path: &str) -> Option<Failure> {
        let mut met = None;
        for fault in &mut self.faults {
            if fault.operation.is_some_and(|wanted| wanted != operation) || !path::matches(&fault.pattern, path) {
                continue;
            }
            if fault.to_pass > 0 {
                fault.to_pass -= 1;
            } else if met.is_none() {
                fault.to_fail = fault.to_fail.saturating_sub(1);
                let error = match fault.error {
                    FaultError::Os(errno) => io::Error::from_raw_os_error(errno),
                    FaultError::Kind(kind) => io::Error::new(kind, format!("injected fault: {operation:?} of {path}")),
                };
                met = Some(Failure { error, late: fault.late });
            }
        }
        self.faults.retain(|fault| fault.to_fail > 0);
        self.met += u64::from(met.is_some());
        met
    }

    /// The moment until which requests to this path do not complete.
    pub(crate) fn stalled_until(&mut self, path: &str, now: Duration) -> Option<Duration> {
        self.stalls.retain(|stall| stall.until > now);
        self.stalls.iter().filter(|stall| path::matches(&stall.pattern, path)).map(|stall| stall.until).max()
    }
}
