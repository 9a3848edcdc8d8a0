use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use super::{DIRECT_WRITE_BYTES_MIN, File, IoClass, OpenOptions};
use crate::buffer::{AlignedBuf, BLOCK_BYTES, IoBuf};
use crate::testing::{run, scratch};

const CREATE: OpenOptions = OpenOptions { write: true, create_new: true, dsync: false };

fn filled(len: usize, byte: u8) -> IoBuf {
    let mut buf = AlignedBuf::with_len(len);
    buf.fill(byte);
    buf.freeze()
}

/// Runs a test on a new, empty file, on an executor.
fn with_file<Fut: Future<Output = ()> + 'static>(
    options: OpenOptions,
    test: impl FnOnce(File, PathBuf) -> Fut + Send + 'static,
) {
    let dir = scratch();
    let path = dir.path().join("file");
    run(move || async move { test(File::open(&path, options).await.expect("created"), path).await });
}

#[test]
fn what_is_written_is_read() {
    with_file(CREATE, |file, path| async move {
        for (block, byte) in [(2, 3), (0, 1), (1, 2)] {
            file.write_at(&filled(BLOCK_BYTES, byte), block * 4096, IoClass::Append).await.expect("written");
        }
        file.fdatasync().await.expect("flushed");
        assert_eq!(file.size().await.expect("known"), 3 * 4096);
        let read = file.read_at(4096, 2 * BLOCK_BYTES, IoClass::ColdRead).await.expect("read");
        assert_eq!((read.len(), read[0], read[4095], read[4096], read[8191]), (8192, 2, 2, 3, 3));
        file.clone().close().await.expect("another clone is alive");
        file.close().await.expect("closed");

        let again = File::open(&path, OpenOptions::default()).await.expect("opened for reading");
        assert_eq!(again.read_at(0, BLOCK_BYTES, IoClass::TailRead).await.expect("read")[0], 1);
        let refused = again.write_at(&filled(1, 9), 0, IoClass::Append).await.expect_err("opened for reading");
        assert!(refused.to_string().contains("cannot write"), "{refused}");
    });
}

#[test]
fn what_went_to_the_page_cache_is_read_before_a_flush_and_after() {
    with_file(CREATE, |file, path| async move {
        file.preallocate(1 << 20).await.expect("there is space");
        let cached = File::open_cached(&path).await.expect("opened");
        for (block, byte) in [(0, 1), (4, 2), (0, 3)] {
            cached.write_at(&filled(2 * BLOCK_BYTES, byte), block * 4096, IoClass::Journal).await.expect("written");
        }
        // A longer one goes past what the page cache has.
        cached.write_at(&filled(DIRECT_WRITE_BYTES_MIN, 4), 8 * 4096, IoClass::Journal).await.expect("written");
        cached.write_at(&filled(BLOCK_BYTES, 5), 9 * 4096, IoClass::Journal).await.expect("written");
        cached.write_at(&filled(DIRECT_WRITE_BYTES_MIN, 6), 9 * 4096, IoClass::Journal).await.expect("written");
        for reader in [&cached, &file] {
            let read = reader.read_at(8 * 4096, 2 * BLOCK_BYTES, IoClass::ColdRead).await.expect("read");
            assert_eq!((read[0], read[4096]), (4, 6));
            let read = reader.read_at(0, 6 * BLOCK_BYTES, IoClass::ColdRead).await.expect("read");
            assert_eq!([0, 8191, 8192, 16384].map(|at| read[at]), [3, 3, 0, 2]);
        }
        cached.fdatasync().await.expect("flushed");
        assert_eq!(file.read_at(16384, BLOCK_BYTES, IoClass::ColdRead).await.expect("read")[0], 2);
        assert!(cached.try_lock_exclusive().expect("asked") && !file.try_lock_exclusive().expect("asked"));
    });
}

#[test]
fn a_durable_write_is_one_write() {
    with_file(OpenOptions { dsync: true, ..CREATE }, |file, _| async move {
        // SAFETY: fcntl with F_GETFL has no preconditions.
        let flags = unsafe { libc::fcntl(file.raw_fd(), libc::F_GETFL) };
        assert_ne!(flags & libc::O_DSYNC, 0);
        assert_ne!(flags & libc::O_DIRECT, 0);
        file.preallocate(1 << 20).await.expect("there is space");
        file.write_at(&filled(BLOCK_BYTES, 5), 8192, IoClass::Journal).await.expect("written");
        assert_eq!(file.read_at(8192, BLOCK_BYTES, IoClass::ColdRead).await.expect("read")[17], 5);
    });
}

#[test]
fn rule_12_all_that_is_read_is_read_past_the_page_cache() {
    with_file(CREATE, |file, path| async move {
        file.preallocate(8192).await.expect("there is space");
        let (writing, durable) =
            (OpenOptions { write: true, ..OpenOptions::default() }, OpenOptions { dsync: true, ..CREATE });
        let opened = [
            File::open(&path, OpenOptions::default()).await,
            File::open(&path, writing).await,
            File::open_sparing(&path, OpenOptions::default()).await,
            File::open(path.with_extension("durable"), durable).await,
            File::open_cached(&path).await,
        ];
        for file in opened.into_iter().map(|opened| opened.expect("opened")).chain([file]) {
            // SAFETY: fcntl with F_GETFL has no preconditions.
            let flags = unsafe { libc::fcntl(file.raw_fd(), libc::F_GETFL) };
            assert_ne!(flags & libc::O_DIRECT, 0, "{file:?}");
        }
    });
}

#[test]
fn reads_are_short_only_at_the_end() {
    with_file(CREATE, |file, _| async move {
        file.write_at(&filled(2 * BLOCK_BYTES, 1), 0, IoClass::Append).await.expect("written");
        for (pos, len, expected) in [(0, 4, 2), (4096, 1, 1), (4096, 4, 1), (8192, 1, 0), (1 << 30, 2, 0), (0, 0, 0)] {
            let read = file.read_at(pos, len * BLOCK_BYTES, IoClass::ColdRead).await.expect("read");
            assert_eq!(read.len(), expected * BLOCK_BYTES, "{len} blocks at {pos}");
        }
    });
}

#[test]
fn a_read_larger_than_the_device_takes_is_put_together() {
    with_file(CREATE, |file, _| async move {
        const LEN: usize = 9 << 20;
        let mut buf = AlignedBuf::with_len(LEN);
        assert_eq!(buf.len() % 8, 0);
        for (index, word) in buf.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&(index as u64).to_le_bytes());
        }
        let written = buf.freeze();
        file.write_at(&written, 0, IoClass::Append).await.expect("written");
        let read = file.read_at(4096, LEN - BLOCK_BYTES, IoClass::ColdRead).await.expect("read");
        assert!(*read == written[BLOCK_BYTES..LEN]);
        let beyond = file.read_at(0, 2 * written.len(), IoClass::ColdRead).await.expect("read");
        assert!(*beyond == *written, "short at the end of the file");
    });
}

#[test]
fn what_is_not_block_aligned_is_refused() {
    with_file(CREATE, |file, _| async move {
        let whole = filled(2 * BLOCK_BYTES, 1);
        let refusals = [
            file.read_at(1, BLOCK_BYTES, IoClass::ColdRead).await.map(drop),
            file.read_at(0, 100, IoClass::ColdRead).await.map(drop),
            file.write_at(&whole, 512, IoClass::Append).await,
            file.write_at(&whole.slice(..BLOCK_BYTES), 0, IoClass::Append).await,
            file.write_at(&whole.slice(..5), 0, IoClass::Append).await,
        ];
        for refusal in refusals {
            let error = refusal.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains("/file"), "{error} names the file");
        }
        assert_eq!(file.size().await.expect("known"), 0, "nothing was written");
    });
}

#[test]
fn preallocated_space_is_visible_and_zero_and_truncation_takes_it_back() {
    with_file(CREATE, |file, _| async move {
        file.preallocate(1 << 20).await.expect("there is space");
        assert_eq!(file.size().await.expect("known"), 1 << 20);
        let read = file.read_at(0, 1 << 20, IoClass::ColdRead).await.expect("read");
        assert!(read.len() == 1 << 20 && read.iter().all(|byte| *byte == 0));
        file.preallocate(4096).await.expect("less than there is changes nothing");
        assert_eq!(file.size().await.expect("known"), 1 << 20);
        file.truncate(8192).await.expect("cut");
        assert_eq!(file.size().await.expect("known"), 8192);
    });
}

#[test]
fn one_descriptor_has_the_lock_until_it_is_closed() {
    with_file(CREATE, |file, path| async move {
        assert!(file.try_lock_exclusive().expect("asked"));
        assert!(file.try_lock_exclusive().expect("asked"), "again by its owner");
        let other = File::open(&path, OpenOptions::default()).await.expect("opened");
        assert!(!other.try_lock_exclusive().expect("asked"));
        file.close().await.expect("closed");
        assert!(other.try_lock_exclusive().expect("asked"));
    });
}

#[test]
fn opening_says_what_is_wrong_and_where() {
    with_file(CREATE, |_file, path| async move {
        let exists = File::open(&path, CREATE).await.expect_err("exists");
        assert_eq!(exists.kind(), ErrorKind::AlreadyExists);
        let missing = File::open(path.with_file_name("missing"), OpenOptions::default()).await.expect_err("missing");
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.to_string().contains("/missing"), "{missing}");
        let no_dir = File::open(path.join("below/a/file"), CREATE).await.expect_err("no directory");
        assert!(matches!(no_dir.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound), "{no_dir}");
        let zero_byte = File::open("/tmp/a\0b", OpenOptions::default()).await.expect_err("a zero byte");
        assert_eq!(zero_byte.kind(), ErrorKind::InvalidInput);
        let no_direct_io = File::open("/proc/self/status", OpenOptions::default()).await.expect_err("no direct I/O");
        assert!(no_direct_io.to_string().contains("/proc/self/status"), "{no_direct_io}");
    });
}

#[test]
fn many_writes_at_once() {
    with_file(CREATE, |file, _| async move {
        file.preallocate(64 * 65536).await.expect("there is space");
        let gate = crate::task::Gate::new();
        for index in 0..64_u8 {
            let file = file.clone();
            gate.spawn("writes", async move {
                let buf = filled(65536, index);
                file.write_at(&buf, u64::from(index) * 65536, IoClass::Append).await.expect("written");
            })
            .expect("the gate is open");
        }
        gate.close().await;
        file.fdatasync().await.expect("flushed");
        for index in 0..64_u8 {
            let read = file.read_at(u64::from(index) * 65536, 65536, IoClass::ColdRead).await.expect("read");
            assert!(read.iter().all(|byte| *byte == index));
        }
    });
}

#[test]
fn a_file_that_is_removed_while_it_is_opened_is_no_panic() {
    with_file(CREATE, |_file, path| async move {
        let mut found = 0;
        for round in 0..200 {
            let name = path.with_file_name(format!("short-lived-{round}"));
            std::fs::write(&name, [0; 10]).expect("written");
            let gate = crate::task::Gate::new();
            let remove = name.clone();
            gate.spawn("removes", async move { crate::fs::remove_file(&remove).await.expect("removed once") })
                .expect("the gate is open");
            match File::open(&name, OpenOptions::default()).await {
                Ok(file) => {
                    found += 1;
                    assert_eq!(file.size().await.expect("known"), 10, "an open file outlives its name");
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
            }
            gate.close().await;
        }
        assert!(found > 0);
    });
}

/// Tells the test program, run again as a child, which directory to create files in.
const CHILD_DIR: &str = "RINGMQ_RUNTIME_TEST_DIR";

/// What the child of the test below does.
#[test]
#[ignore = "run by a_file_that_cannot_be_opened_twice_leaves_no_name_behind"]
fn create_with_one_descriptor_left() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    run(move || async move {
        let dir = PathBuf::from(dir);
        let _device_is_known = File::open(dir.join("first"), CREATE).await.expect("created");
        let next = std::fs::File::open("/dev/null").expect("opened").as_raw_fd();
        let one_left = libc::rlimit { rlim_cur: u64::try_from(next).expect("a descriptor") + 1, rlim_max: 4096 };
        // SAFETY: the kernel reads one `rlimit`.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const one_left) }, 0);
        let error = File::open(dir.join("second"), CREATE).await.expect_err("one descriptor is not enough");
        assert!(error.to_string().contains("os error 24"), "{error}");
        assert!(!dir.join("second").exists());
        println!("checked");
    });
}

#[test]
fn a_file_that_cannot_be_opened_twice_leaves_no_name_behind() {
    run_as_child("file::tests::create_with_one_descriptor_left");
}

/// What the child of the test below does.
#[test]
#[ignore = "run by a_write_that_the_kernel_cuts_short_has_failed"]
fn write_beyond_what_files_may_have() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    run(move || async move {
        let file = File::open(PathBuf::from(dir).join("short"), CREATE).await.expect("created");
        let one_block = libc::rlimit { rlim_cur: 4096, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the kernel reads one `rlimit`.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const one_block) }, 0);
        let two_blocks = AlignedBuf::zeroed(8192).freeze();
        let error = file.write_at(&two_blocks, 0, IoClass::Append).await.expect_err("half of it is too much");
        assert!(error.to_string().contains("4096 of 8192 bytes"), "{error}");
        assert_eq!(file.size().await.expect("a size"), 4096, "the kernel took the first half");
        println!("checked");
    });
}

#[test]
fn a_write_that_the_kernel_cuts_short_has_failed() {
    run_as_child("file::tests::write_beyond_what_files_may_have");
}

/// Runs a test that changes the limits of its process, in a process of its own.
fn run_as_child(test: &str) {
    let dir = scratch();
    let child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .output()
        .expect("a child");
    let said = [child.stdout, child.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(child.status.success() && said.contains("checked"), "{said}");
}
