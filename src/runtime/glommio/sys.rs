//! System calls that neither glommio nor the standard library has.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};

/// A file system's device number, as stat(2) gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeviceId {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// The device of what is under that path.
pub(crate) fn device_of(path: &Path) -> io::Result<DeviceId> {
    let device = std::fs::metadata(path)?.dev();
    Ok(DeviceId { major: libc::major(device), minor: libc::minor(device) })
}

/// A path that leads to an open file whatever becomes of its name, as long as it stays open.
pub(crate) fn path_of(file: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A path for a system call. One with a zero byte in it is the name of no file.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path cannot hold a zero byte"))
}

/// The outcome of a call that returns -1 and sets errno.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes the lock of an open file, if no other descriptor has it.
pub(crate) fn flock_exclusive(fd: RawFd) -> io::Result<bool> {
    // SAFETY: flock takes any number; a bad descriptor is an error.
    match check(unsafe { libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Names the calling thread as the kernel shows it; a name longer than 15 bytes is cut.
pub(crate) fn name_thread(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the kernel reads at most 16 bytes of a string that ends in a zero byte.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }).map(drop)
}

/// Has the calling thread run only when no other wants its processor (`SCHED_IDLE`, sched(7)).
pub(crate) fn run_when_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one `sched_param`; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) }).map(drop)
}

/// The first descriptor that files may not have of which there may be too many. The kernel gives the lowest one that is
/// free.
static FIRST_SPARED: AtomicI32 = AtomicI32::new(RawFd::MAX);
/// How many are spared: three eighths, and at least so many.
const SPARED_MIN: u64 = 24;

/// Whether a descriptor is one of those that such files leave to all else. None is before [`raise_open_files`].
pub(crate) fn is_spared(file: &impl AsRawFd) -> bool {
    file.as_raw_fd() >= FIRST_SPARED.load(Ordering::Relaxed)
}

/// Raises this process's limit of open files to the most that it may have, and gives that. From then on a part of them
/// is spared.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the kernel reads one `rlimit`.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    let spared = (limit.rlim_cur / 8 * 3).max(SPARED_MIN);
    let first_spared = RawFd::try_from(limit.rlim_cur.saturating_sub(spared)).unwrap_or(RawFd::MAX);
    FIRST_SPARED.store(first_spared, Ordering::Relaxed);
    Ok(limit.rlim_cur)
}

/// The length of an open file.
pub(crate) fn file_size(fd: RawFd) -> io::Result<u64> {
    u64::try_from(stat(fd)?.st_size).map_err(io::Error::other)
}

/// Whether an open file has no name any more.
pub(crate) fn is_removed(fd: RawFd) -> io::Result<bool> {
    Ok(stat(fd)?.st_nlink == 0)
}

fn stat(fd: RawFd) -> io::Result<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel writes one `stat` into memory of that size.
    check(unsafe { libc::fstat(fd, stat.as_mut_ptr()) })?;
    // SAFETY: all zeros is a valid `stat`, and the call filled it.
    Ok(unsafe { stat.assume_init() })
}

/// The type of the file system of `path`, as `linux/magic.h` numbers them.
pub(crate) fn file_system_type(path: &Path) -> io::Result<u32> {
    let path = c_path(path)?;
    let mut stat = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `path` ends in a zero byte; the call writes one `statfs` into memory of that size.
    check(unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) })?;
    // SAFETY: all zeros is a valid `statfs`, and the call filled it.
    let stat = unsafe { stat.assume_init() };
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "a number of 32 bits in a wider field")]
    Ok(stat.f_type as u32)
}

/// Bytes that a process without privileges may still use on the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = c_path(path)?;
    let mut stat = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends in a zero byte; the call writes one `statvfs` into memory of that size.
    check(unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) })?;
    // SAFETY: all zeros is a valid `statvfs`, and the call filled it.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
