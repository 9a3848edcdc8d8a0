//! The same code on io_uring and a real file system.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "what real files and processes do is the point"
)]

use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ringmq_runtime::executor::{ExecutorConfig, spawn_executor};
use ringmq_runtime::probe;

use super::support::*;
use crate::{Entry, Flushing, FoundJournals, Journal, JournalConfig, Ring, read_journals};

/// Tells the test binary, run again as a child, which directory to write in.
const CHILD_DIR: &str = "RINGMQ_JOURNAL_TEST_DIR";

fn temporary() -> tempfile::TempDir {
    // Beside this binary, not in /tmp: that may be in memory, which has no direct I/O.
    let binary = std::env::current_exe().expect("this binary");
    let beside = binary.parent().expect("a directory");
    tempfile::Builder::new().prefix("journal-").tempdir_in(beside).expect("a directory")
}

/// Runs a future on an executor of io_uring, with `dir` made ready as a data directory; gives it that of the journals.
fn on_executor<T, Fut>(dir: &Path, main: impl FnOnce(PathBuf) -> Fut + Send + 'static) -> T
where
    T: Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let dir = dir.to_owned();
    let handle = spawn_executor(ExecutorConfig::default(), move || async move {
        probe::prepare_data_dir(&dir).expect("a data directory");
        main(dir.join("journals")).await
    });
    handle.expect("an executor").join().expect("no panic")
}

fn config() -> JournalConfig {
    JournalConfig { ring_bytes: (3 << 20) + 8192, ..JournalConfig::default() }
}

async fn started(dir: &Path, found: &FoundJournals) -> Journal<u64> {
    let ring = match found.rings.first() {
        Some(ring) => Ring::resume(dir, ring, &config()).await.expect("a ring").expect("of the same size"),
        None => Ring::prepare(dir, SHARD, Flushing::Each, &config()).await.expect("a ring"),
    };
    Journal::start(ring, config(), |_, _| (), |error, _| panic!("{error}")).await.expect("a first block")
}

#[test]
fn blocks_of_all_sizes_come_back_from_a_ring_that_wraps() {
    let dir = temporary();
    let kept = on_executor(dir.path(), |dir| async move {
        let found = read_journals(&dir).await.expect("nothing yet");
        assert_eq!(found, FoundJournals::default());
        let journal = started(&dir, &found).await;
        let mut blocks = Vec::new();
        for offset in 0..300 {
            let len = [10, 5000, 70_000][usize::try_from(offset % 3).expect("small")];
            if journal.used_bytes() > 1 << 20 {
                acknowledged(&journal).await;
                blocks.drain(..blocks.len() / 2);
                journal.free_below(blocks[0]);
            }
            blocks.push(write(&journal, offset, len).await);
        }
        acknowledged(&journal).await;
        assert!(journal.next_number().get() > 2 * (config().ring_bytes / UNIT), "it wrapped");
        journal.close().await.expect("closed");
        blocks.len() as u64
    });
    on_executor(dir.path(), move |dir| async move {
        let found = read_journals(&dir).await.expect("readable");
        let [ring] = &found.rings[..] else { panic!("{found:?}") };
        assert!(is_whole(&ring.blocks));
        assert_eq!(offsets(&ring.blocks), (300 - kept..300).collect::<Vec<_>>());
        assert_eq!(ring.bytes, config().ring_bytes);
        let journal = started(&dir, &found).await;
        assert_eq!(journal.used_bytes(), UNIT, "its first block has freed everything");
        journal.close().await.expect("closed");
        let found = read_journals(&dir).await.expect("readable");
        assert!(found.rings[0].blocks.entries.is_empty() && is_whole(&found.rings[0].blocks));
    });
}

/// What the child of the test below does, until it is killed: writes blocks, and says what is acknowledged.
#[test]
#[ignore = "run by rule_10_after_a_real_kill_every_acknowledged_block_is_there"]
fn write_until_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    on_executor(Path::new(&dir), |dir| async move {
        let (sender, said) = std::sync::mpsc::channel::<u64>();
        std::mem::drop(std::thread::Builder::new().spawn(move || {
            // The test harness has begun a line of its own.
            println!();
            for offset in said {
                println!("{offset}");
                std::io::stdout().flush().expect("a listener");
            }
        }));
        let found = read_journals(&dir).await.expect("readable");
        assert_eq!(found, FoundJournals::default());
        let ring = Ring::prepare(&dir, SHARD, Flushing::Each, &config()).await.expect("a ring");
        let tell = move |_, offset| sender.send(offset).expect("a listener");
        let journal = Journal::start(ring, config(), tell, |error, _| panic!("{error}")).await.expect("a first block");
        // What the last of them leave free is written over, many times.
        let mut blocks = std::collections::VecDeque::new();
        for offset in 0.. {
            blocks.push_back(write(&journal, offset, [100, 9000][usize::from(offset % 8 == 0)]).await);
            if blocks.len() > 100 {
                blocks.pop_front();
                journal.free_below(blocks[0]);
            }
        }
    });
}

#[test]
fn rule_10_after_a_real_kill_every_acknowledged_block_is_there() {
    for _ in 0..3 {
        let dir = temporary();
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args([
                "--ignored",
                "--exact",
                "scenarios::real_disk::write_until_killed",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut acknowledged: Vec<u64> = Vec::new();
        for offset in lines.map_while(Result::ok).filter_map(|line| line.trim().parse().ok()) {
            acknowledged.push(offset);
            if acknowledged.len() == 2000 {
                // SIGKILL, with writes in the kernel.
                child.kill().expect("killed");
            }
        }
        child.wait().expect("its end");
        let last = *acknowledged.last().expect("something was acknowledged");
        assert!(acknowledged.iter().copied().eq(0..=last), "in order, up to {last}");
        on_executor(dir.path(), move |dir| async move {
            let found = read_journals(&dir).await.expect("readable");
            let ring = &found.rings[0];
            assert!(is_whole(&ring.blocks));
            let offsets = offsets(&ring.blocks);
            let first = offsets[0];
            let end = offsets.last().copied().unwrap_or_default();
            assert!(first + 97 <= end, "100 were kept, two of them in flight: {first} to {end}");
            assert_eq!(offsets, (first..first + offsets.len() as u64).collect::<Vec<_>>(), "without a gap");
            assert!(end >= last, "{end}, acknowledged up to {last}");
            // It goes on.
            let journal = started(&dir, &found).await;
            let payload = payload(1, 10);
            journal.write(&[Entry { header: header(0, 1), payload: &payload }], 1);
            super::support::acknowledged(&journal).await;
            journal.close().await.expect("closed");
        });
    }
}
