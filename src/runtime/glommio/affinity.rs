//! Which processors a thread may use.

use std::io;
use std::mem::MaybeUninit;

use crate::executor::CpuId;

pub(crate) fn of_process() -> io::Result<Vec<CpuId>> {
    // The main thread's number is the process's (gettid(2)); zero would be the calling thread, pinned perhaps.
    // SAFETY: getpid has no preconditions.
    let main_thread = unsafe { libc::getpid() };
    of(main_thread)
}

pub(crate) fn of_thread() -> io::Result<Vec<CpuId>> {
    of(0)
}

fn of(thread: libc::pid_t) -> io::Result<Vec<CpuId>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel writes at most the given size into `set`.
    let result = unsafe { libc::sched_getaffinity(thread, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeros is a valid set, and the call filled it.
    let set = unsafe { set.assume_init() };
    let count = u32::try_from(libc::CPU_SETSIZE).unwrap_or_default();
    // SAFETY: every number asked for is below CPU_SETSIZE, the size of the set in bits.
    let cpus = (0..count).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu as usize, &set) });
    Ok(cpus.map(CpuId::new).collect())
}
