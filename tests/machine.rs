//! What a broker says to a machine that lacks something, and that it leaves the data alone: each test starts one on data
//! that another has written, sees it refuse, and finds the data as it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ringmq_tests::{Broker, BrokerOptions, Exit, not_examined, run_ringmq};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tempfile::TempDir;

/// System calls of io_uring, which have one number on every architecture (io_uring_setup(2)).
const IO_URING_SETUP: i64 = 425;
const IO_URING_REGISTER: i64 = 427;

/// errno(3), as Linux numbers them on every architecture that io_uring runs on.
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// A directory in which a broker has acknowledged a record.
fn written() -> TempDir {
    let broker = Broker::start();
    broker.create_topic("kept", 2);
    broker.run(&["produce", "kept", "--message", "safe"], b"").expect_success();
    let exit = broker.terminate();
    assert!(exit.status.success(), "{}", exit.log);
    exit.directory
}

/// The broker that a start gave was refused for a reason with all of `words`, and what was written is there.
fn assert_refused(started: Result<Broker, Exit>, words: &[&str]) {
    let exit = started.expect_err("this machine lacks something");
    assert_eq!(exit.status.code(), Some(1), "{}", exit.log);
    for word in words {
        assert!(exit.log.contains(word), "{word} is missing in: {}", exit.log);
    }
    assert!(exit.log.contains("ringmq doctor"), "it says where to find more: {}", exit.log);
    let broker = Broker::start_in(exit.directory, BrokerOptions::default()).expect("this machine lacks nothing");
    assert_eq!(broker.run(&["consume", "kept"], b"").expect_success().stdout, b"safe\n");
}

/// Starts a broker behind a command that ends in `exec "$@"`.
fn start_behind(directory: TempDir, launcher: &[&str]) -> Result<Broker, Exit> {
    let launcher = launcher.iter().map(|&word| word.to_owned()).collect();
    Broker::start_in(directory, BrokerOptions { launcher, ..BrokerOptions::default() })
}

/// Starts a broker to which the kernel answers `call` with an error; 0 is success, with nothing done.
fn start_without(directory: TempDir, call: i64, errno: u32) -> Result<Broker, Exit> {
    let start = move || {
        let architecture = std::env::consts::ARCH.try_into().expect("an architecture that seccomp knows");
        let rules = BTreeMap::from([(call, Vec::new())]);
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture);
        let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter of one rule");
        // For this thread and the processes that it starts.
        seccompiler::apply_filter(&program).expect("every process may give up calls");
        Broker::start_in(directory, BrokerOptions::default())
    };
    std::thread::spawn(start).join().expect("no panic")
}

#[test]
fn too_little_locked_memory_is_told_with_the_limit_and_how_to_raise_it() {
    let refused = start_behind(written(), &["bash", "-c", "ulimit -l 64; exec \"$@\"", "bash"]);
    assert_refused(refused, &["locked memory", "64 KiB", "512 KiB", "ulimit -l", "LimitMEMLOCK"]);
}

#[test]
fn io_uring_that_seccomp_forbids_is_told_as_such() {
    let refused = start_without(written(), IO_URING_SETUP, EPERM);
    assert_refused(refused, &["io_uring", "EPERM", "seccomp", "--security-opt"]);
}

#[test]
fn a_kernel_without_io_uring_is_told() {
    let refused = start_without(written(), IO_URING_SETUP, ENOSYS);
    assert_refused(refused, &["io_uring", "ENOSYS", "CONFIG_IO_URING"]);
}

#[test]
fn operations_that_the_kernel_lacks_are_named() {
    // A probe that succeeds and tells of no operation is what a kernel without them gives.
    let refused = start_without(written(), IO_URING_REGISTER, 0);
    assert_refused(refused, &["io_uring", "lacks the operations", "WRITE_FIXED", "TIMEOUT", "Run a kernel"]);
}

#[test]
fn a_file_system_without_direct_io_is_told() {
    const HIDE_DATA: &str = "mount -t ramfs ramfs \"$1\" && shift && exec \"$@\"";
    const UNSHARE: [&str; 4] = ["unshare", "--user", "--map-root-user", "--mount"];
    let directory = written();
    let data = directory.path().join("data").display().to_string();
    let launcher = [&UNSHARE[..], &["bash", "-c", HIDE_DATA, "bash", &data]].concat();
    if !may_mount(&launcher, directory.path()) {
        not_examined("a_file_system_without_direct_io_is_told", "this machine lets nobody mount a file system");
        return;
    }
    assert_refused(start_behind(directory, &launcher), &["direct I/O", &data, "ext4 or XFS"]);
}

#[test]
fn a_data_directory_in_memory_is_warned_of_and_served() {
    // Linux has this one in memory everywhere (shm_overview(7)).
    let directory = tempfile::tempdir_in("/dev/shm").expect("room in memory");
    let doctor = run_ringmq(&["doctor", "--data-dir", directory.path().to_str().expect("a text path")], b"");
    let found = doctor.stdout_text();
    let line = found.lines().find(|line| line.contains("data directory:")).expect("a line on it");
    assert!(!doctor.success && line.starts_with("problem") && line.contains("in memory (tmpfs)"), "{found}");

    let broker = match Broker::start_in(directory, BrokerOptions::default()) {
        Ok(broker) => broker,
        Err(exit) => {
            // Before Linux 6.6 tmpfs has no direct I/O.
            assert!(exit.log.contains("direct I/O"), "{}", exit.log);
            not_examined("a_data_directory_in_memory_is_warned_of_and_served", "tmpfs has no direct I/O here");
            return;
        }
    };
    broker.create_topic("fleeting", 1);
    broker.run(&["produce", "fleeting", "--message", "here"], b"").expect_success();
    let log = broker.terminate().log;
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("is in memory")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    for word in ["WARN", "power loss", "what was acknowledged", "Choose a directory on a disk"] {
        assert!(warnings[0].contains(word), "{word} is missing in: {}", warnings[0]);
    }
}

/// Whether the launcher gets as far as to run a command.
fn may_mount(launcher: &[&str], directory: &Path) -> bool {
    let tried = Command::new(launcher[0]).args(&launcher[1..]).arg("true").current_dir(directory).output();
    tried.is_ok_and(|output| output.status.success())
}
