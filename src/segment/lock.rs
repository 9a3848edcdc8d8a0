//! Waiting for what a killed process still has in flight.
//!
//! Requests in the kernel outlive the process that made them: they may land after the next one has looked at the
//! file. Every descriptor that writes is therefore locked with flock(2), which requests in flight keep; whoever gets
//! the lock knows that nothing lands any more (rule 10 of the storage protocol).

use std::io;
use std::time::Duration;

use ringmq_runtime::file::File;
use ringmq_runtime::time::{self, Instant};

/// How long to wait for a lock. Requests of a killed process end within milliseconds; whoever holds it longer is
/// alive.
pub(crate) const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// Locks the file against every other descriptor until its last clone is closed; `false` when another has had it for
/// [`LOCK_WAIT_MAX`].
///
/// # Errors
/// What the kernel says.
pub(crate) async fn lock_when_free(file: &File) -> io::Result<bool> {
    let began = Instant::now();
    while !file.try_lock_exclusive()? {
        if began.elapsed() >= LOCK_WAIT_MAX {
            return Ok(false);
        }
        time::sleep(RETRY_AFTER).await;
    }
    Ok(true)
}
