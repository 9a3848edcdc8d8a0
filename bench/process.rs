//! What a process uses, read from /proc.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use ringmq_client::BrokerAddress;

/// Ticks of /proc/PID/stat in a second: fixed at 100 for user space on every architecture that Linux runs io_uring on
/// (man 5 proc).
const TICKS_PER_SECOND: f64 = 100.0;

/// A process on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(u32);

/// What was used up to one moment.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    /// Of all threads, those that have ended too, but only to 10 ms.
    ticks: u64,
    /// Of each living thread, in nanoseconds.
    threads: HashMap<String, u64>,
    /// `None` where it may not be read.
    pub(crate) disk: Option<Disk>,
}

/// Resident memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) now_bytes: u64,
    /// The most since the process was started, or since [`Process::forget_peak_memory`].
    pub(crate) peak_bytes: u64,
}

/// Bytes that went to and came from disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) written: u64,
    pub(crate) read: u64,
}

impl Process {
    /// This process.
    pub(crate) fn current() -> Self {
        Self(std::process::id())
    }

    /// The process that listens at `address`, if that is an address of this machine and the process may be looked at.
    pub(crate) fn listening_at(address: &BrokerAddress) -> Option<Self> {
        if !is_local(address.host()) {
            return None;
        }
        let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok())
            .flat_map(|table| listening_inodes(&table, address.port()))
            .map(|inode| format!("socket:[{inode}]"))
            .collect();
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.find(|pid| holds_one_of(*pid, &inodes)).map(Self)
    }

    /// What it has used so far; `None` when it is gone.
    pub(crate) fn usage(self) -> Option<Usage> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        let ticks = ticks(&stat)?;
        let mut threads = HashMap::new();
        for thread in fs::read_dir(format!("/proc/{}/task", self.0)).ok()?.flatten() {
            let spent = fs::read_to_string(thread.path().join("schedstat")).ok();
            let nanoseconds = spent.and_then(|spent| spent.split(' ').next()?.parse().ok());
            if let (Some(nanoseconds), Ok(name)) = (nanoseconds, thread.file_name().into_string()) {
                threads.insert(name, nanoseconds);
            }
        }
        Some(Usage { ticks, threads, disk: self.disk() })
    }

    /// Its memory; `None` when it is gone.
    pub(crate) fn memory(self) -> Option<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let bytes = |name| Some(field(&status, name)?.strip_suffix(" kB")?.parse::<u64>().ok()? * 1024);
        Some(Memory { now_bytes: bytes("VmRSS")?, peak_bytes: bytes("VmHWM")? })
    }

    /// Has [`Memory::peak_bytes`] count from now on (proc_pid_clear_refs(5)); `false` where this process may not do that.
    pub(crate) fn forget_peak_memory(self) -> bool {
        fs::write(format!("/proc/{}/clear_refs", self.0), "5").is_ok()
    }

    /// What it has moved so far; `None` when it is gone, or belongs to somebody else.
    pub(crate) fn disk(self) -> Option<Disk> {
        let io = fs::read_to_string(format!("/proc/{}/io", self.0)).ok()?;
        let bytes = |name| field(&io, name)?.parse().ok();
        Some(Disk { written: bytes("write_bytes")?, read: bytes("read_bytes")? })
    }
}

impl Usage {
    /// Seconds of processor time from `self` to `later`. Ticks are coarse, and the finer count misses threads that have
    /// ended: the larger of the two is nearer to the truth.
    pub(crate) fn seconds_until(&self, later: &Self) -> f64 {
        let ticks = later.ticks.saturating_sub(self.ticks) as f64 / TICKS_PER_SECOND;
        let since = |(thread, spent): (&String, &u64)| spent.saturating_sub(*self.threads.get(thread).unwrap_or(&0));
        let nanoseconds: u64 = later.threads.iter().map(since).sum();
        ticks.max(nanoseconds as f64 / 1e9)
    }
}

/// What stands behind `name:` in a file of such lines.
fn field<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = lines.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim())
}

fn is_local(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        // Only an address of this machine can be bound.
        Ok(ip) => UdpSocket::bind((ip, 0)).is_ok(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// The inodes of the sockets that listen on `port`, out of /proc/net/tcp (state 0A is listening).
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let listens = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&suffix)) && fields.nth(1) == Some("0A")
    };
    table.lines().skip(1).filter(listens).filter_map(|line| line.split_whitespace().nth(9)).map(str::to_owned).collect()
}

fn holds_one_of(pid: u32, sockets: &[String]) -> bool {
    let descriptors = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
    let targets = descriptors.into_iter().flatten().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.into_iter().any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

/// utime and stime: fields 14 and 15, counted behind the command in parentheses, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_process_behind_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = BrokerAddress::from(listener.local_addr().unwrap());
        assert_eq!(Process::listening_at(&address), Some(Process::current()));
        drop(listener);
        assert_eq!(Process::listening_at(&address), None);
        assert_eq!(Process::listening_at(&BrokerAddress::new("192.0.2.1", address.port())), None);
    }

    #[test]
    fn work_shows_in_the_usage() {
        let process = Process::current();
        let before = process.usage().unwrap();
        let mut number = 1_u64;
        // Until it shows: how long that takes is the machine's business.
        while before.seconds_until(&process.usage().unwrap()) < 0.002 {
            for _ in 0..10_000 {
                number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005));
            }
        }
        assert_ne!(number, 0);
    }

    #[test]
    fn a_command_with_parentheses_does_not_confuse() {
        let stat = "7 (a) b) c) S 1 1 1 0 -1 4194560 1 0 0 0 321 123 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(444));
        assert_eq!(ticks("7 (x) S 1"), None);
    }

    #[test]
    fn memory_and_disk_are_read() {
        let process = Process::current();
        let memory = process.memory().unwrap();
        assert!(memory.now_bytes > 100_000 && memory.peak_bytes >= memory.now_bytes, "{memory:?}");
        assert!(process.disk().is_some());
        assert_eq!((Process(u32::MAX).memory(), Process(u32::MAX).disk()), (None, None));
        assert_eq!(field("a: 1\nab:\t 2 kB\n", "ab"), Some("2 kB"));
    }

    #[test]
    fn only_listening_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1\n\
             1: 0100007F:2384 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 222 1\n\
             2: 0100007F:2385 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1\n";
        assert_eq!(listening_inodes(table, 0x2384), ["111"]);
    }
}
