//! Asking the kernel what it has, before glommio panics for want of it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use ::glommio::io::DmaFile;

use super::core::into_io;
use super::sys::{self, DeviceId};
use super::{device, executor};
use crate::backend;
use crate::buffer::{AlignedBuf, BLOCK_BYTES};
use crate::executor::ExecutorConfig;
use crate::probe::{Finding, Problem};

/// The oldest kernel that has every operation that glommio uses.
const KERNEL_MIN: (u32, u32) = (5, 8);

/// io_uring operations that glommio uses, with their numbers in `linux/io_uring.h`.
const OPERATIONS: [(u8, &str); 24] = [
    (0, "NOP"),
    (1, "READV"),
    (2, "WRITEV"),
    (3, "FSYNC"),
    (4, "READ_FIXED"),
    (5, "WRITE_FIXED"),
    (6, "POLL_ADD"),
    (7, "POLL_REMOVE"),
    (9, "SENDMSG"),
    (10, "RECVMSG"),
    (11, "TIMEOUT"),
    (12, "TIMEOUT_REMOVE"),
    (13, "ACCEPT"),
    (14, "ASYNC_CANCEL"),
    (15, "LINK_TIMEOUT"),
    (16, "CONNECT"),
    (17, "FALLOCATE"),
    (18, "OPENAT"),
    (19, "CLOSE"),
    (21, "STATX"),
    (22, "READ"),
    (23, "WRITE"),
    (26, "SEND"),
    (27, "RECV"),
];

pub(crate) fn io_uring() -> Result<Finding, Problem> {
    static FOUND: OnceLock<Result<Finding, Problem>> = OnceLock::new();
    FOUND.get_or_init(ask_io_uring).clone()
}

/// As [`io_uring`], asking anew: a thread may be forbidden what the process is allowed.
pub(crate) fn ask_io_uring() -> Result<Finding, Problem> {
    let ring = setup_ring().map_err(|error| io_uring_refused(&error))?;
    let supported = supported_operations(&ring).map_err(|error| io_uring_refused(&error))?;
    let missing: Vec<_> = OPERATIONS.iter().filter(|(number, _)| !supported(*number)).map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        return Err(Problem {
            subject: "io_uring",
            what: format!("the kernel lacks the operations {}", missing.join(", ")),
            how_to_mend: format!("Run a kernel of at least {}.{}.", KERNEL_MIN.0, KERNEL_MIN.1),
        });
    }
    Ok(Finding { subject: "io_uring", detail: format!("usable, with all {} operations needed", OPERATIONS.len()) })
}

fn io_uring_refused(error: &io::Error) -> Problem {
    let (what, how_to_mend) = match error.raw_os_error() {
        Some(libc::EPERM) => {
            let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
            match disabled.trim_end() {
                "1" | "2" => (
                    format!("kernel.io_uring_disabled is {}", disabled.trim_end()),
                    "Allow it: sysctl -w kernel.io_uring_disabled=0".to_owned(),
                ),
                _ => (
                    "the kernel forbids it to this process (EPERM), as the seccomp profile of a container does"
                        .to_owned(),
                    "Allow io_uring_setup, io_uring_enter and io_uring_register in the profile, or start the \
                     container with --security-opt seccomp=unconfined."
                        .to_owned(),
                ),
            }
        }
        Some(libc::ENOSYS) => (
            "the kernel does not have it (ENOSYS), or a seccomp profile hides it".to_owned(),
            format!(
                "Run a kernel of at least {}.{} built with CONFIG_IO_URING, or allow io_uring_setup, io_uring_enter \
                 and io_uring_register in the container's profile.",
                KERNEL_MIN.0, KERNEL_MIN.1
            ),
        ),
        Some(libc::ENOMEM) => (
            "there is too little locked memory for a ring (ENOMEM)".to_owned(),
            "Raise the limit: ulimit -l unlimited, LimitMEMLOCK=infinity in a systemd unit.".to_owned(),
        ),
        Some(libc::EMFILE | libc::ENFILE) => (
            format!("there is no descriptor left for a ring ({error})"),
            "Raise the limit: ulimit -n 65536, LimitNOFILE=65536 in a systemd unit.".to_owned(),
        ),
        _ => (format!("the kernel refuses a ring: {error}"), "See io_uring_setup(2) for this error.".to_owned()),
    };
    Problem { subject: "io_uring", what, how_to_mend }
}

fn setup_ring() -> io::Result<OwnedFd> {
    // `struct io_uring_params` is 120 bytes, all zero for the defaults.
    let mut params = [0_u64; 15];
    const ENTRIES: libc::c_long = 2;
    // SAFETY: `params` is memory of the size that the kernel reads and writes.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, params.as_mut_ptr()) };
    let fd = sys::check(libc::c_int::try_from(fd).map_err(io::Error::other)?)?;
    // SAFETY: the kernel just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Which operations the kernel knows (IORING_REGISTER_PROBE).
fn supported_operations(ring: &OwnedFd) -> io::Result<impl Fn(u8) -> bool> {
    const IORING_REGISTER_PROBE: libc::c_long = 8;
    const OPERATIONS_MAX: libc::c_long = 256;
    const HEADER_BYTES: usize = 16;
    /// Number, padding, 16 bits of flags, padding.
    const OPERATION_BYTES: usize = 8;
    const FLAG_SUPPORTED: u8 = 1;
    let mut probe = [0_u64; (HEADER_BYTES + 256 * OPERATION_BYTES) / 8];
    // SAFETY: `probe` is zeroed memory, as the kernel demands, for a header and that many operations.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            IORING_REGISTER_PROBE,
            probe.as_mut_ptr(),
            OPERATIONS_MAX,
        )
    };
    sys::check(libc::c_int::try_from(result).map_err(io::Error::other)?)?;
    let bytes: Vec<u8> = probe.iter().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(move |number: u8| {
        let flags = HEADER_BYTES + usize::from(number) * OPERATION_BYTES + 2;
        // The flags are a native 16-bit number; only its lowest bits are in use.
        let flags = u16::from_ne_bytes([bytes[flags], bytes[flags + 1]]);
        flags & u16::from(FLAG_SUPPORTED) != 0
    })
}

pub(crate) fn locked_memory(executors: usize, io_memory_bytes: usize) -> Result<Finding, Problem> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`.
    sys::check(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) }).map_err(|error| Problem {
        subject: LOCKED_MEMORY,
        what: format!("the limit cannot be read: {error}"),
        how_to_mend: "See getrlimit(2) for this error.".to_owned(),
    })?;
    judge_locked_memory(limit.rlim_cur, executors, io_memory_bytes)
}

const LOCKED_MEMORY: &str = "locked memory";

/// What a limit in bytes is good for.
pub(crate) fn judge_locked_memory(limit: u64, executors: usize, io_memory_bytes: usize) -> Result<Finding, Problem> {
    /// glommio starts no executor with a lower limit.
    const LEAST: u64 = 512 * 1024;
    /// Each executor registers its memory with three rings, and the kernel counts it three times.
    const RINGS: u64 = 3;
    let registered = (executors as u64).saturating_mul(io_memory_bytes as u64).saturating_mul(RINGS);
    let wanted = registered.max(LEAST);
    let raise = {
        let kib = wanted.div_ceil(1024);
        format!(
            "`ulimit -l {kib}` in the shell that starts it, `LimitMEMLOCK={kib}K` in a systemd unit, the line \
             `* - memlock {kib}` in /etc/security/limits.conf, or `--ulimit memlock={wanted}` for a container"
        )
    };
    if limit < LEAST {
        return Err(Problem {
            subject: LOCKED_MEMORY,
            what: format!("the limit is {} KiB, and an executor needs {} KiB to start", limit / 1024, LEAST / 1024),
            how_to_mend: format!("Raise it: {raise}."),
        });
    }
    let detail = if limit == libc::RLIM_INFINITY {
        "no limit".to_owned()
    } else if limit >= wanted {
        format!("{} KiB, of which {} KiB are used", limit / 1024, wanted / 1024)
    } else {
        format!(
            "{} KiB, enough; with {} KiB, reads from the disk would cost a little less (unless the process may lock \
             memory without limit, as root may): {raise}",
            limit / 1024,
            wanted / 1024
        )
    };
    Ok(Finding { subject: LOCKED_MEMORY, detail })
}

pub(crate) fn direct_io(dir: &Path) -> Result<Finding, Problem> {
    let lacking = |what: String| Problem {
        subject: "direct I/O",
        what,
        how_to_mend: "Put the data directory on a local ext4 or XFS file system.".to_owned(),
    };
    let describe = |error: io::Error| match error.raw_os_error() {
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EISDIR) => {
            lacking(format!("the file system of {} cannot read and write past its cache", dir.display()))
        }
        _ => not_writable("direct I/O", dir, &error),
    };
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE | libc::O_DIRECT | libc::O_CLOEXEC)
        .open(dir)
        .map_err(describe)?;
    let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
    file.write_all_at(&block, 0).map_err(describe)?;
    file.read_exact_at(&mut block, 0).map_err(describe)?;
    sys::device_of(dir).and_then(device::check_sysfs).map_err(|error| lacking(error.to_string()))?;
    let detail = format!("works in {}, in blocks of {BLOCK_BYTES} bytes", dir.display());
    Ok(Finding { subject: "direct I/O", detail })
}

pub(crate) fn outlives_power(dir: &Path) -> Result<Finding, Problem> {
    /// File systems that keep their files in memory, as `linux/magic.h` numbers them.
    const IN_MEMORY: [(u32, &str); 3] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs"), (0x9584_58f6, "hugetlbfs")];
    let problem = |what: String, how_to_mend: &str| Problem {
        subject: "data directory",
        what,
        how_to_mend: how_to_mend.to_owned(),
    };
    let kind = sys::file_system_type(dir)
        .map_err(|error| problem(format!("its file system cannot be found out: {error}"), "See statfs(2)."))?;
    if let Some((_, name)) = IN_MEMORY.iter().find(|(magic, _)| *magic == kind) {
        let what = format!(
            "{} is in memory ({name}), and a power loss or restart of the machine loses what was acknowledged",
            dir.display()
        );
        return Err(problem(what, "Choose a directory on a disk (data_dir, --data-dir)."));
    }
    Ok(Finding { subject: "data directory", detail: format!("{} is not in memory", dir.display()) })
}

pub(crate) fn disk_polling(dir: &Path) -> Result<Finding, Problem> {
    let problem = |what: String| Problem {
        subject: "disk polling",
        what,
        how_to_mend: "Report it with the output of `ringmq doctor`; until then use another disk.".to_owned(),
    };
    let polled = polls(dir).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull => {
            not_writable("disk polling", dir, &error)
        }
        _ => problem(format!("it cannot be found out: {error}")),
    })?;
    if polled && !sys::device_of(dir).is_ok_and(has_poll_queues) {
        return Err(problem("on, though the disk has no queues for it: executors spin instead of sleeping".to_owned()));
    }
    let detail = if polled { "on, the disk has queues for it" } else { "off, executors sleep while the disk works" };
    Ok(Finding { subject: "disk polling", detail: detail.to_owned() })
}

/// Whether an executor polls the device of `dir`: which of its rings does a read go through?
fn polls(dir: &Path) -> io::Result<bool> {
    let dir = dir.to_owned();
    let config = ExecutorConfig { name: "probe".to_owned(), ..ExecutorConfig::default() };
    executor::spawn(config, move || async move {
        device::introduce(backend::current().backend.glommio(), &dir).await?;
        let path = device::written_path(&dir)?;
        let file = DmaFile::open(&path).await.map_err(into_io)?;
        // What came before does not count: taking the numbers resets them.
        let _ = ::glommio::executor().io_stats();
        file.read_at_aligned(0, BLOCK_BYTES).await.map_err(into_io)?;
        let stats = ::glommio::executor().io_stats();
        file.close().await.map_err(into_io)?;
        Ok(stats.poll_ring.file_reads().0 > 0)
    })?
    .join()?
}

/// Whether polling the device makes sense: it has queues that raise no interrupts.
pub(super) fn has_poll_queues(device: DeviceId) -> bool {
    let queue = format!("/sys/dev/block/{}:0/queue/io_poll", device.major);
    fs::read_to_string(queue).is_ok_and(|text| text.trim_end() == "1")
}

pub(crate) fn free_disk(dir: &Path, bytes_wanted: u64) -> Result<Finding, Problem> {
    const MIB: u64 = 1 << 20;
    let problem = |what: String| Problem {
        subject: "free disk",
        what,
        how_to_mend: "Free space on that file system, or put the data directory on a larger one.".to_owned(),
    };
    let free = sys::free_bytes(dir).map_err(|error| problem(format!("it cannot be found out: {error}")))?;
    if free < bytes_wanted {
        let (free, wanted) = (free / MIB, bytes_wanted / MIB);
        return Err(problem(format!("{free} MiB are free for {}, and {wanted} MiB are wanted", dir.display())));
    }
    Ok(Finding { subject: "free disk", detail: format!("{} MiB for {}", free / MIB, dir.display()) })
}

pub(crate) fn kernel() -> Result<Finding, Problem> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim_end();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if version < KERNEL_MIN {
        return Err(Problem {
            subject: "kernel",
            what: format!("{release:?} is too old"),
            how_to_mend: format!("Run a kernel of at least {}.{}.", KERNEL_MIN.0, KERNEL_MIN.1),
        });
    }
    Ok(Finding { subject: "kernel", detail: release.to_owned() })
}

pub(crate) fn prepare_data_dir(dir: &Path) -> Result<(), Problem> {
    direct_io(dir)?;
    device::written_file(dir).map(drop).map_err(|error| not_writable("data directory", dir, &error))
}

fn not_writable(subject: &'static str, dir: &Path, error: &io::Error) -> Problem {
    let how_to_mend = match error.kind() {
        io::ErrorKind::PermissionDenied => "Give the user that runs the broker the right to write there.",
        io::ErrorKind::ReadOnlyFilesystem => "Mount that file system for writing.",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Free space there.",
        _ => "See that it is on a local ext4 or XFS file system, and that the disk is sound.",
    };
    Problem {
        subject,
        what: format!("a file in {} cannot be written: {error}", dir.display()),
        how_to_mend: format!("{how_to_mend} Or choose another data directory (data_dir, --data-dir)."),
    }
}
