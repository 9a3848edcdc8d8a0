use std::path::Path;

use super::{direct_io, disk_polling, free_disk, io_uring, kernel, locked_memory, outlives_power, prepare_data_dir};
use crate::glommio::probe::{ask_io_uring, judge_locked_memory};
use crate::testing::scratch;

#[test]
fn finds_what_this_machine_has() {
    let dir = scratch();
    assert!(io_uring().expect("the tests run on it").detail.contains("24 operations"));
    assert!(kernel().expect("new enough").detail.contains('.'));
    locked_memory(1, 64 * 1024).expect("the tests run with it");
    direct_io(dir.path()).expect("the tests run on a disk");
    prepare_data_dir(dir.path()).expect("the tests run on a disk");
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0, "nothing is left behind");
}

#[test]
fn too_little_free_disk_says_how_much_there_is() {
    let dir = scratch();
    assert!(free_disk(dir.path(), 1).expect("the tests run on a disk with room").detail.contains("MiB for"));
    let problem = free_disk(dir.path(), u64::MAX).expect_err("no disk has that much");
    assert!(problem.what.contains("are wanted"), "{problem}");
    let nowhere = free_disk(Path::new("/no/such/directory"), 1).expect_err("there is none");
    assert!(nowhere.what.contains("cannot be found out"), "{nowhere}");
}

#[test]
fn too_little_locked_memory_says_how_to_raise_it() {
    let problem = judge_locked_memory(64 << 10, 3, 1 << 20).expect_err("less than an executor needs");
    let text = problem.to_string();
    for line in ["64 KiB", "`ulimit -l 9216`", "`LimitMEMLOCK=9216K`", "`* - memlock 9216`", "memlock=9437184"] {
        assert!(text.contains(line), "{text}");
    }
    let problem = judge_locked_memory(0, 1, 0).expect_err("less than an executor needs");
    assert!(problem.how_to_mend.contains("`ulimit -l 512`"), "{problem}");

    let enough = |limit| judge_locked_memory(limit, 2, 8 << 20).expect("enough to start").detail;
    assert!(enough(8 << 20).contains("ulimit -l 49152"), "enough to start, and there is better");
    assert_eq!(enough(64 << 20), "65536 KiB, of which 49152 KiB are used");
    assert_eq!(enough(libc::RLIM_INFINITY), "no limit");
}

#[test]
fn a_directory_without_direct_io_is_told() {
    let problem = direct_io(Path::new("/proc")).expect_err("no file can be made there");
    assert!(problem.to_string().contains("/proc"), "{problem}");
    assert!(problem.how_to_mend.contains("ext4"), "{problem}");
    prepare_data_dir(Path::new("/nowhere/at/all")).expect_err("not there");
}

#[test]
fn a_directory_in_memory_is_told_from_one_on_a_disk() {
    let dir = scratch();
    outlives_power(dir.path()).expect("the tests run on a disk");
    // Linux has this one in memory everywhere (shm_overview(7)).
    let problem = outlives_power(Path::new("/dev/shm")).expect_err("in memory").to_string();
    assert!(problem.contains("/dev/shm is in memory (tmpfs)") && problem.contains("on a disk"), "{problem}");
    let nowhere = outlives_power(Path::new("/no/such/directory")).expect_err("there is none");
    assert!(nowhere.what.contains("cannot be found out"), "{nowhere}");
}

#[test]
fn io_uring_forbidden_by_seccomp_is_told_from_a_kernel_without_it() {
    for (errno, word) in [(libc::EPERM, "seccomp=unconfined"), (libc::ENOSYS, "CONFIG_IO_URING")] {
        let problem = std::thread::spawn(move || {
            forbid_io_uring(errno);
            ask_io_uring().expect_err("forbidden on this thread")
        });
        let problem = problem.join().expect("no panic");
        assert!(problem.to_string().contains(word), "{problem}");
    }
}

/// Has io_uring_setup fail with that error on the calling thread.
fn forbid_io_uring(errno: libc::c_int) {
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("a BPF code has 16 bits"),
        jt,
        jf,
        k,
    };
    let setup = u32::try_from(libc::SYS_io_uring_setup).expect("a small number");
    // Load the number of the call; is it ours? then fail; else allow.
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, setup),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes no pointers.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: `program` describes the four statements of `filter`, which the kernel copies.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn the_disk_is_not_polled_without_queues_for_it() {
    let dir = scratch();
    let finding = disk_polling(dir.path()).expect("polled only where the disk has queues for it");
    assert!(finding.detail.starts_with("off") || finding.detail.contains("has queues"), "{finding}");
}
