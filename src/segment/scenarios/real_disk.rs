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
use std::sync::{Arc, Barrier};

use ringmq_runtime::executor::{ExecutorConfig, spawn_executor};
use ringmq_runtime::{fs, probe, task};
use ringmq_wire::{Offset, ShardIndex, Timestamp};

use super::support::{batch, copied, framed, log_id, read_all, tags};
use crate::{Append, FrameBuf, GenerationHistory, Generations, Log, LogConfig, LogDeps, Payload, Recovery, TailCache};

/// Tells the test binary, run again as a child, which directory to write in.
const CHILD_DIR: &str = "RINGMQ_SEGMENT_TEST_DIR";

fn temporary() -> tempfile::TempDir {
    // Beside this binary, not in /tmp: that may be in memory, which has no direct I/O.
    let binary = std::env::current_exe().expect("this binary");
    let beside = binary.parent().expect("a directory");
    tempfile::Builder::new().prefix("segment-").tempdir_in(beside).expect("a directory")
}

/// Runs a future on an executor of io_uring, with `dir` made ready as a data directory.
fn on_executor<T, Fut>(dir: &Path, main: impl FnOnce(PathBuf) -> Fut + Send + 'static) -> T
where
    T: Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let dir = dir.to_owned();
    let handle = spawn_executor(ExecutorConfig::default(), move || async move {
        probe::prepare_data_dir(&dir).expect("a data directory");
        fs::create_dir_all(dir.join("logs")).await.expect("a directory of logs");
        main(dir).await
    });
    handle.expect("an executor").join().expect("no panic")
}

async fn open(dir: &Path, cache_bytes: usize) -> (Log, Recovery) {
    let generations = Generations::open(&dir.join("generations"), ShardIndex::new(0)).await.expect("sound tables");
    let deps = LogDeps::without_journal(generations, TailCache::new(cache_bytes));
    let config = LogConfig { segment_bytes: 4 << 20, ..LogConfig::default() };
    Log::open(&dir.join("logs"), log_id(0), config, &deps).await.expect("a sound log")
}

#[test]
fn appends_of_all_sizes_come_back_from_memory_and_from_the_disk() {
    let dir = temporary();
    on_executor(dir.path(), |dir| async move {
        let (log, found) = open(&dir, 64 << 20).await;
        assert_eq!(found, Recovery::Empty);
        let mut under_way = Vec::new();
        for tag in 1..=60 {
            under_way.push(log.append(if tag % 3 == 0 { framed(tag, 4, 150_000) } else { copied(tag, 4, 400) }));
            if tag % 10 == 0 {
                for appending in under_way.drain(..) {
                    appending.await.expect("acknowledged");
                }
            }
        }
        assert_eq!(tags(&read_all(&log, 2 << 20).await), (1..=60).collect::<Vec<_>>());
        log.close().await.expect("a clean stop");
    });
    on_executor(dir.path(), |dir| async move {
        let (log, found) = open(&dir, 0).await;
        assert_eq!(found, Recovery::Clean { end: Offset::new(240) });
        assert!(log.size_bytes() > 11 << 20);
        assert_eq!(tags(&read_all(&log, 300_000).await), (1..=60).collect::<Vec<_>>());
        let found = log.find_timestamp(Timestamp::new(33)).await.expect("readable");
        assert_eq!(found, Some((Offset::new(32 * 4), Timestamp::new(33))));
        log.append(copied(61, 1, 10)).await.expect("acknowledged");
        log.delete().await.expect("deleted");
        assert!(!dir.join("logs").join(log_id(0).to_string()).exists());
    });
}

#[test]
fn two_cores_remove_the_logs_of_one_topic_at_the_same_time() {
    const ROUNDS: usize = 10;
    let dir = temporary();
    let root = dir.path().join("logs");
    let history = on_executor(dir.path(), |dir| async move {
        GenerationHistory::load(&dir.join("generations")).await.expect("no tables yet")
    });
    let together = Arc::new(Barrier::new(2));
    let cores: Vec<_> = (0..2_u16)
        .map(|core| {
            let (dir, history, together) = (dir.path().to_owned(), history.clone(), together.clone());
            let main = move || async move {
                let generations = Generations::new(&dir.join("generations"), ShardIndex::new(core), history);
                let deps = LogDeps::without_journal(generations, TailCache::new(0));
                for _ in 0..ROUNDS {
                    let mut logs = Vec::new();
                    for partition in (u32::from(core)..12).step_by(2) {
                        let opened = Log::open(&dir.join("logs"), log_id(partition), LogConfig::default(), &deps).await;
                        let (log, _) = opened.expect("an empty log");
                        log.append(copied(1, 1, 10)).await.expect("acknowledged");
                        logs.push(log);
                    }
                    together.wait();
                    for log in logs {
                        log.delete().await.expect("removed, whoever comes last");
                    }
                    together.wait();
                    assert!(!log_id(0).topic_dir(&dir.join("logs")).exists());
                    together.wait();
                }
            };
            spawn_executor(ExecutorConfig::default(), main).expect("an executor")
        })
        .collect();
    for core in cores {
        core.join().expect("no panic");
    }
    assert_eq!(root.read_dir().expect("the directory of logs").count(), 0);
}

#[test]
fn a_damaged_byte_on_a_real_disk_is_found() {
    let dir = temporary();
    on_executor(dir.path(), |dir| async move {
        let (log, _) = open(&dir, 0).await;
        for tag in 1..=5 {
            log.append(copied(tag, 1, 100)).await.expect("acknowledged");
        }
    });
    let path = log_id(0).log_dir(&dir.path().join("logs")).join("00000000000000000000.log");
    let file = std::os::unix::fs::FileExt::write_at;
    let opened = Opened::of(&path);
    file(&opened.0, b"rot", 4096 + 150).expect("written");
    on_executor(dir.path(), |dir| async move {
        let generations = Generations::open(&dir.join("generations"), ShardIndex::new(0)).await.expect("sound tables");
        let deps = LogDeps::without_journal(generations, TailCache::new(0));
        let opened = Log::open(&dir.join("logs"), log_id(0), LogConfig::default(), &deps).await;
        let Err(crate::OpenError::Corrupt(corruption)) = opened else { panic!("damaged") };
        assert_eq!((corruption.position, corruption.expected), (4096, Offset::new(1)));
    });
}

/// A file from outside of the log, through the page cache.
struct Opened(std::fs::File);

impl Opened {
    fn of(path: &Path) -> Opened {
        Opened(std::fs::OpenOptions::new().write(true).open(path).expect("a segment"))
    }
}

#[test]
fn a_large_append_is_written_from_where_it_was_received() {
    let dir = temporary();
    on_executor(dir.path(), |dir| async move {
        let (log, _) = open(&dir, 64 << 20).await;
        let batch = batch(1, 1, 1_000_000);
        let mut section = FrameBuf::with_payload_len(batch.len());
        section.payload_mut().copy_from_slice(&batch);
        let memory = section.payload().as_ptr();
        let append = Append::validated(Payload::Frame(section), &ringmq_wire::batch::BatchLimits::default());
        log.append(append.expect("a sound batch")).await.expect("acknowledged");
        let read = log.read(Offset::ZERO, 2 << 20).await.expect("readable");
        assert_eq!(read.slices[0].as_ptr(), memory, "received, written, kept and read in one place");
    });
}

/// What the child of the test below does, until it is killed: appends, and says what is acknowledged.
#[test]
#[ignore = "run by rule_10_after_a_real_kill_everything_acknowledged_is_there"]
fn write_until_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    on_executor(Path::new(&dir), |dir| async move {
        let (log, _) = open(&dir, 1 << 20).await;
        let (sender, said) = std::sync::mpsc::channel::<u64>();
        std::mem::drop(std::thread::Builder::new().spawn(move || {
            for tag in said {
                println!("{tag}");
                std::io::stdout().flush().expect("a listener");
            }
        }));
        for writer in 0..8_u64 {
            let (log, sender) = (log.clone(), sender.clone());
            task::spawn("writer", async move {
                for number in 1.. {
                    let tag = writer * 1_000_000 + number;
                    let size = if tag % 4 == 0 { 100_000 } else { 500 };
                    log.append(framed(tag, 1, size)).await.expect("acknowledged");
                    sender.send(tag).expect("a listener");
                }
            });
        }
        std::future::pending::<()>().await;
    });
}

#[test]
fn rule_10_after_a_real_kill_everything_acknowledged_is_there() {
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
        let said = lines.map_while(Result::ok).filter_map(|line| line.trim().parse().ok());
        let mut acknowledged: Vec<u64> = Vec::new();
        for tag in said {
            acknowledged.push(tag);
            if acknowledged.len() == 200 {
                // SIGKILL, with writes in the kernel.
                child.kill().expect("killed");
            }
        }
        child.wait().expect("its end");
        assert!(acknowledged.len() >= 200, "{}", acknowledged.len());
        let seen = on_executor(dir.path(), |dir| async move {
            let (log, _) = open(&dir, 0).await;
            let seen = tags(&read_all(&log, 1 << 20).await);
            log.append(copied(1, 1, 10)).await.expect("acknowledged");
            seen
        });
        for tag in &acknowledged {
            assert!(seen.contains(tag), "append {tag} was acknowledged and is gone");
        }
    }
}
