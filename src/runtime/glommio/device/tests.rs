//! The mend of glommio's trap: an executor sleeps while the disk works.

use std::mem::MaybeUninit;

use crate::buffer::{AlignedBuf, BLOCK_BYTES};
use crate::file::{File, IoClass, OpenOptions};
use crate::testing::{run, scratch};

use super::read_bytes_max;
use crate::glommio::sys;

/// How often the calling thread gave up its processor by itself, to wait for something.
fn times_slept() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes one `rusage`.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    assert_eq!(result, 0);
    // SAFETY: all zeros is a valid `rusage`, and the call filled it.
    unsafe { usage.assume_init() }.ru_nvcsw
}

/// A file that was created, preallocated and never written: what decides wrongly without the mend.
async fn never_written(path: &std::path::Path, blocks: u64) -> File {
    let options = OpenOptions { write: true, create_new: true, dsync: true };
    let file = File::open(path, options).await.expect("created");
    file.preallocate(blocks * 4096).await.expect("there is space");
    file
}

async fn write_durably(file: &File, writes: u64) {
    let buf = AlignedBuf::zeroed(BLOCK_BYTES).freeze();
    for write in 0..writes {
        file.write_at(&buf, write * 4096, IoClass::Journal).await.expect("written");
    }
}

#[test]
fn an_executor_sleeps_while_a_write_is_in_flight() {
    const WRITES: u64 = 50;
    let dir = scratch();
    let path = dir.path().join("file");
    if sys::device_of(dir.path()).is_ok_and(crate::glommio::probe::has_poll_queues) {
        // A disk with queues for polling is polled rightly.
        return;
    }
    run(move || async move {
        let file = never_written(&path, WRITES).await;
        // Taking the numbers resets them.
        let _ = ::glommio::executor().io_stats();
        let slept_before = times_slept();
        write_durably(&file, WRITES).await;
        let slept = times_slept() - slept_before;
        let stats = ::glommio::executor().io_stats();
        assert_eq!(stats.main_ring.file_writes().0, WRITES, "every write went through the ring that sleeps");
        assert_eq!(stats.poll_ring.file_writes().0, 0, "no write went through the ring that spins");
        // Not once a write: on a busy machine another thread has the core until the write is done.
        assert!(slept > 0, "the thread did not sleep once during {WRITES} writes");
    });
}

#[test]
fn every_executor_gets_to_know_the_device_by_itself() {
    let dir = scratch();
    for name in ["one", "two"] {
        let path = dir.path().join(name);
        run(move || async move {
            write_durably(&never_written(&path, 1).await, 1).await;
            let known = crate::backend::current().backend.glommio().devices.borrow().clone();
            assert_eq!(known.into_keys().collect::<Vec<_>>(), [sys::device_of(&path).expect("known")]);
        });
    }
}

#[test]
fn a_device_takes_whole_blocks_at_once() {
    let dir = scratch();
    let bytes = read_bytes_max(sys::device_of(dir.path()).expect("known"));
    assert!(bytes >= BLOCK_BYTES && bytes.is_multiple_of(BLOCK_BYTES));
    // A device that is not there: what every device takes.
    assert_eq!(read_bytes_max(sys::DeviceId { major: 4_000, minor: 1 }), 128 * 1024);
}
