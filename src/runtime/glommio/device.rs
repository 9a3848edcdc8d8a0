//! Getting to know a device before the first file on it is opened.
//!
//! The first file that an executor opens on a device decides, for the device, whether glommio polls it for
//! completions: it reads a block through a polling ring, and a file without written blocks answers "works" whatever
//! the device (nothing is read). From then on an executor with a write in flight spins instead of sleeping, and the
//! kernel threads that finish the writes wait for the scheduler's tick: a fraction of the throughput at many times
//! the processor time. So each executor first opens a file that has a written block. That file has no name (O_TMPFILE)
//! and is reached through `/proc/self/fd`; the process keeps one a device.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::glommio::io::DmaFile;

use super::core::{Core, into_io};
use super::sys::{self, DeviceId};
use crate::buffer::BLOCK_BYTES;

/// One file with a written block a device. They stay open as long as the process: there are few devices.
static WRITTEN: Mutex<BTreeMap<DeviceId, Arc<fs::File>>> = Mutex::new(BTreeMap::new());

/// What an executor knows of a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    /// The most bytes that it takes in one read: a larger one goes through a kernel thread.
    pub(super) read_bytes_max: usize,
}

/// Makes sure that polling of the device below `dir` was decided by a file that has data.
pub(super) async fn introduce(core: &Core, dir: &Path) -> io::Result<Device> {
    let id = sys::device_of(dir)?;
    let known = core.devices.borrow().get(&id).copied();
    if let Some(device) = known {
        return Ok(device);
    }
    check_sysfs(id)?;
    let dir = dir.to_owned();
    let path = core.requests.blocking(move || written_path(&dir)).await?;
    core.requests
        .start(async move { DmaFile::open(&path).await.map_err(into_io)?.close().await.map_err(into_io) })
        .await?;
    let device = Device { read_bytes_max: read_bytes_max(id) };
    core.devices.borrow_mut().insert(id, device);
    Ok(device)
}

/// The process's file with a written block on the device of `dir`.
pub(super) fn written_file(dir: &Path) -> io::Result<Arc<fs::File>> {
    let device = sys::device_of(dir)?;
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = written.get(&device) {
        return Ok(file.clone());
    }
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
        .open(dir)?;
    file.write_all(&[0x52; BLOCK_BYTES])?;
    // Data that is only in the page cache has no block yet.
    file.sync_all()?;
    let file = Arc::new(file);
    written.insert(device, file.clone());
    Ok(file)
}

/// The path by which that file can be opened once more.
pub(super) fn written_path(dir: &Path) -> io::Result<PathBuf> {
    Ok(sys::path_of(&*written_file(dir)?))
}

/// Whether the kernel says of the device what glommio reads there without expecting a failure.
pub(super) fn check_sysfs(device: DeviceId) -> io::Result<()> {
    // glommio asks for minor 0, the whole disk as a rule, and takes what is not there for a device in memory.
    let dir = PathBuf::from(format!("/sys/dev/block/{}:0", device.major));
    if !dir.exists() {
        return Ok(());
    }
    const NUMBERS: [&str; 7] = [
        "rotational",
        "minimum_io_size",
        "optimal_io_size",
        "logical_block_size",
        "physical_block_size",
        "max_sectors_kb",
        "max_segment_size",
    ];
    let queue = dir.join("queue");
    let number =
        |name: &&str| fs::read_to_string(queue.join(name)).is_ok_and(|text| text.trim_end().parse::<isize>().is_ok());
    let cache = fs::read_to_string(queue.join("write_cache"));
    let cache = cache.is_ok_and(|text| matches!(text.trim_end(), "write back" | "write through"));
    if NUMBERS.iter().all(number) && cache && dir.join("slaves").is_dir() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!("{} does not describe a whole disk, which the executor needs to know; use another disk", dir.display()),
    ))
}

fn read_bytes_max(device: DeviceId) -> usize {
    /// What every device takes.
    const LEAST: usize = 128 * 1024;
    let dir = PathBuf::from(format!("/sys/dev/block/{}:{}", device.major, device.minor));
    // A partition has its queue one directory up.
    let kib = ["queue/max_sectors_kb", "../queue/max_sectors_kb"]
        .iter()
        .find_map(|name| fs::read_to_string(dir.join(name)).ok()?.trim_end().parse::<usize>().ok());
    let bytes = kib.map_or(LEAST, |kib| kib.saturating_mul(1024));
    (bytes - bytes % BLOCK_BYTES).max(BLOCK_BYTES)
}

#[cfg(test)]
mod tests;
