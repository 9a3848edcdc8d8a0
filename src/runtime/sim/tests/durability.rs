//! What makes content and sizes durable, and what does not: each rule with the history that breaks without it.

use std::io;
use std::time::Duration;

use futures_lite::future::zip;

use super::*;
use crate::time::{Instant, sleep};

#[test]
fn a_write_without_a_flush_is_open() {
    let history = || async { write(&durable_file("/a", 1).await, 7, 0).await.unwrap() };
    assert_open(history, |sim| block_is(sim, "/a", 0, 7));
    assert_open(history, |sim| block_is(sim, "/a", 0, 0));
    // Sectors of the same block that did and did not land.
    let is_torn = |sim: &Sim| {
        let bytes = sim.disk().read("/a").unwrap();
        let sectors: Vec<&[u8]> = bytes.chunks(512).collect();
        assert!(sectors.iter().all(|sector| sector.iter().all(|byte| *byte == sector[0])), "a sector is never torn");
        sectors.iter().any(|sector| sector[0] == 7) && sectors.iter().any(|sector| sector[0] == 0)
    };
    assert_open(history, is_torn);
}

#[test]
fn a_write_is_settled_by_a_flush_after_it() {
    let history = || async {
        let file = durable_file("/a", 1).await;
        write(&file, 7, 0).await.unwrap();
        file.fdatasync().await.unwrap();
    };
    assert_settled(history, |sim| block_is(sim, "/a", 0, 7));
}

#[test]
fn a_flush_covers_only_what_completed_before_it_was_submitted() {
    let is_kept = |seed: &u64| {
        let sim = with_slow_flushes(*seed);
        sim.run(|| async {
            let file = durable_file("/a", 1).await;
            let write = async {
                write(&file, 7, 0).await.unwrap();
                Instant::now()
            };
            let flush = async {
                file.fdatasync().await.unwrap();
                Instant::now()
            };
            let (written, flushed) = zip(write, flush).await;
            assert!(written < flushed, "the write completed before the flush did, and after it was submitted");
        });
        sim.crash();
        block_is(&sim, "/a", 0, 7)
    };
    let kept = SEEDS.filter(is_kept).count();
    assert!(kept > 0 && kept < SEEDS.count(), "kept under {kept} seeds");
}

#[test]
fn a_flush_of_one_file_does_nothing_for_another() {
    let history = || async {
        let a = durable_file("/a", 1).await;
        let b = durable_file("/b", 1).await;
        write(&a, 7, 0).await.unwrap();
        write(&b, 8, 0).await.unwrap();
        b.fdatasync().await.unwrap();
    };
    assert_open(history, |sim| block_is(sim, "/a", 0, 7));
    assert_settled(history, |sim| block_is(sim, "/b", 0, 8));
}

#[test]
fn a_flush_through_another_descriptor_of_the_file_counts() {
    let history = || async {
        write(&durable_file("/a", 1).await, 7, 0).await.unwrap();
        File::open("/a", WRITE).await.unwrap().fdatasync().await.unwrap();
    };
    assert_settled(history, |sim| block_is(sim, "/a", 0, 7));
}

#[test]
fn a_dsync_write_is_settled_when_it_completes() {
    let history = || async {
        durable_file("/a", 4).await;
        let file = File::open("/a", OpenOptions { dsync: true, ..WRITE }).await.unwrap();
        write(&file, 7, 2).await.unwrap();
    };
    assert_settled(history, |sim| block_is(sim, "/a", 2, 7));
}

#[test]
fn a_dsync_write_takes_the_size_that_it_needs_along() {
    let beyond_the_end = || async {
        let file = File::open("/a", CREATE_DSYNC).await.unwrap();
        crate::fs::sync_dir("/").await.unwrap();
        write(&file, 7, 1).await.unwrap();
    };
    assert_settled(beyond_the_end, |sim| sim.disk().read("/a").unwrap().len() == 2 * BLOCK_BYTES);
    assert_settled(beyond_the_end, |sim| block_is(sim, "/a", 1, 7));
    let preallocated_without_flush = || async {
        let file = File::open("/a", CREATE_DSYNC).await.unwrap();
        crate::fs::sync_dir("/").await.unwrap();
        file.preallocate(8 * BLOCK).await.unwrap();
        write(&file, 7, 1).await.unwrap();
    };
    assert_settled(preallocated_without_flush, |sim| sim.disk().read("/a").unwrap().len() == 8 * BLOCK_BYTES);
    assert_settled(preallocated_without_flush, |sim| block_is(sim, "/a", 1, 7));
}

#[test]
fn a_dsync_write_does_nothing_for_the_writes_before_it() {
    let history = || async {
        let plain = durable_file("/a", 2).await;
        write(&plain, 7, 0).await.unwrap();
        let dsync = File::open("/a", OpenOptions { dsync: true, ..WRITE }).await.unwrap();
        write(&dsync, 8, 1).await.unwrap();
    };
    assert_open(history, |sim| block_is(sim, "/a", 0, 7));
    assert_settled(history, |sim| block_is(sim, "/a", 1, 8));
}

#[test]
fn an_older_flush_does_not_undo_a_newer_dsync_write() {
    let history = || async {
        let plain = durable_file("/a", 1).await;
        let dsync = File::open("/a", OpenOptions { dsync: true, ..WRITE }).await.unwrap();
        write(&plain, 7, 0).await.unwrap();
        let (flushed, written) = zip(plain.fdatasync(), write(&dsync, 8, 0)).await;
        flushed.unwrap();
        written.unwrap();
    };
    assert_settled(history, |sim| block_is(sim, "/a", 0, 8));
}

#[test]
fn a_size_is_open_until_a_flush() {
    let grown = || async {
        let file = durable_file("/a", 1).await;
        file.preallocate(4 * BLOCK).await.unwrap();
    };
    assert_open(grown, |sim| sim.disk().read("/a").unwrap().len() == 4 * BLOCK_BYTES);
    let grown_and_flushed = || async {
        let file = durable_file("/a", 1).await;
        file.preallocate(4 * BLOCK).await.unwrap();
        file.fdatasync().await.unwrap();
    };
    assert_settled(grown_and_flushed, |sim| sim.disk().read("/a").unwrap() == vec![0; 4 * BLOCK_BYTES]);
}

#[test]
fn a_write_beyond_the_end_needs_a_flush_for_its_size() {
    let history = || async {
        let file = durable_file("/a", 1).await;
        write(&file, 7, 1).await.unwrap();
    };
    assert_open(history, |sim| sim.disk().read("/a").unwrap().len() == BLOCK_BYTES);
    assert_open(history, |sim| block_is(sim, "/a", 1, 7));
}

#[test]
fn a_truncation_is_open_until_a_flush() {
    async fn truncated() -> File {
        let file = durable_file("/a", 2).await;
        write(&file, 7, 1).await.unwrap();
        file.fdatasync().await.unwrap();
        file.truncate(BLOCK).await.unwrap();
        file
    }
    let history = || async { drop(truncated().await) };
    assert_open(history, |sim| sim.disk().read("/a").unwrap().len() == BLOCK_BYTES);
    assert_settled(history, |sim| {
        let size = sim.disk().read("/a").unwrap().len();
        size == BLOCK_BYTES || size == 2 * BLOCK_BYTES && block_is(sim, "/a", 1, 7)
    });
    let flushed = || async { truncated().await.fdatasync().await.unwrap() };
    assert_settled(flushed, |sim| sim.disk().read("/a").unwrap().len() == BLOCK_BYTES);
}

#[test]
fn what_was_cut_off_reads_as_zeros_when_the_file_grows_again() {
    let history = || async {
        let file = durable_file("/a", 2).await;
        write(&file, 7, 0).await.unwrap();
        write(&file, 7, 1).await.unwrap();
        file.truncate(100).await.unwrap();
        file.preallocate(2 * BLOCK).await.unwrap();
        file.fdatasync().await.unwrap();
        assert_eq!(read(&file, 1).await, vec![0; BLOCK_BYTES]);
    };
    assert_settled(history, |sim| {
        let bytes = sim.disk().read("/a").unwrap();
        bytes.len() == 2 * BLOCK_BYTES && bytes[..100] == [7; 100] && bytes[100..].iter().all(|byte| *byte == 0)
    });
}

#[test]
fn a_write_behind_a_truncation_does_not_survive_without_it() {
    // Truncated, grown and written again, nothing flushed: the new bytes lie in space that only the new layout has.
    let history = || async {
        let file = durable_file("/a", 2).await;
        write(&file, 7, 1).await.unwrap();
        file.fdatasync().await.unwrap();
        file.truncate(0).await.unwrap();
        write(&file, 8, 1).await.unwrap();
    };
    let size = |sim: &Sim| sim.disk().read("/a").unwrap().len();
    assert_open(history, |sim| size(sim) == 0);
    assert_open(history, |sim| block_is(sim, "/a", 1, 8));
    // The old size with the new bytes or torn ones is never seen: either the old file, or one that was truncated.
    assert_settled(history, |sim| {
        let bytes = sim.disk().read("/a").unwrap();
        bytes.is_empty()
            || bytes[BLOCK_BYTES..].iter().all(|byte| *byte == 7)
            || bytes[BLOCK_BYTES..].iter().all(|byte| *byte == 8 || *byte == 0)
    });
}

#[test]
fn a_name_is_open_until_its_directory_is_synchronised() {
    let created = || async {
        // The file's own flush does nothing for its name.
        File::open("/a", CREATE).await.unwrap().fdatasync().await.unwrap();
    };
    assert_open(created, |sim| exists(sim, "/a"));
    let synchronised = || async {
        File::open("/a", CREATE).await.unwrap();
        crate::fs::sync_dir("/").await.unwrap();
    };
    assert_settled(synchronised, |sim| exists(sim, "/a"));
    let kept_though_created_too_late = |seed: &u64| {
        let sim = with_slow_flushes(*seed);
        sim.run(|| async {
            let (created, synchronised) = zip(File::open("/a", CREATE), crate::fs::sync_dir("/")).await;
            created.unwrap();
            synchronised.unwrap();
        });
        sim.crash();
        exists(&sim, "/a")
    };
    let kept = SEEDS.filter(kept_though_created_too_late).count();
    assert!(kept > 0 && kept < SEEDS.count(), "kept under {kept} seeds");
}

#[test]
fn a_name_needs_the_names_above_it() {
    let history = || async {
        crate::fs::create_dir_all("/d/e").await.unwrap();
        File::open("/d/e/a", CREATE).await.unwrap();
        crate::fs::sync_dir("/d/e").await.unwrap();
        crate::fs::sync_dir("/d").await.unwrap();
    };
    assert_open(history, |sim| exists(sim, "/d/e/a"));
    let whole = || async {
        crate::fs::create_dir_all("/d/e").await.unwrap();
        File::open("/d/e/a", CREATE).await.unwrap();
        for directory in ["/d/e", "/d", "/"] {
            crate::fs::sync_dir(directory).await.unwrap();
        }
    };
    assert_settled(whole, |sim| exists(sim, "/d/e/a"));
}

#[test]
fn a_removal_is_open_until_its_directory_is_synchronised() {
    let removed = || async {
        durable_file("/a", 1).await.close().await.unwrap();
        crate::fs::remove_file("/a").await.unwrap();
    };
    assert_open(removed, |sim| exists(sim, "/a"));
    let synchronised = || async {
        durable_file("/a", 1).await.close().await.unwrap();
        crate::fs::remove_file("/a").await.unwrap();
        crate::fs::sync_dir("/").await.unwrap();
    };
    assert_settled(synchronised, |sim| !exists(sim, "/a"));
}

#[test]
fn a_removed_directory_comes_back_whole_in_parts_or_not() {
    let removed = || async {
        crate::fs::create_dir_all("/d").await.unwrap();
        for name in ["/d/a", "/d/b"] {
            File::open(name, CREATE).await.unwrap();
        }
        crate::fs::sync_dir("/d").await.unwrap();
        crate::fs::sync_dir("/").await.unwrap();
        crate::fs::remove_dir_all("/d").await.unwrap();
    };
    assert_open(removed, |sim| exists(sim, "/d/a") && exists(sim, "/d/b"));
    assert_open(removed, |sim| exists(sim, "/d/a") && !exists(sim, "/d/b"));
    assert_open(removed, |sim| !exists(sim, "/d/a") && !exists(sim, "/d/b"));
}

#[test]
fn a_directory_does_not_go_before_what_was_moved_out_of_it() {
    let emptied = || async {
        for directory in ["/from", "/to"] {
            crate::fs::create_dir_all(directory).await.unwrap();
        }
        File::open("/from/a", CREATE).await.unwrap();
        crate::fs::sync_dir("/from").await.unwrap();
        crate::fs::sync_dir("/").await.unwrap();
        crate::fs::rename("/from/a", "/to/a").await.unwrap();
        crate::fs::remove_dir_all("/from").await.unwrap();
    };
    assert_open(emptied, |sim| exists(sim, "/to/a"));
    assert_settled(emptied, |sim| exists(sim, "/from/a") != exists(sim, "/to/a"));
}

#[test]
fn a_renamed_file_has_one_name() {
    let renamed = || async {
        let file = durable_file("/old", 1).await;
        write(&file, 7, 0).await.unwrap();
        file.fdatasync().await.unwrap();
        crate::fs::rename("/old", "/new").await.unwrap();
    };
    assert_open(renamed, |sim| block_is(sim, "/new", 0, 7));
    assert_settled(renamed, |sim| exists(sim, "/old") != exists(sim, "/new"));
    let synchronised = || async {
        renamed().await;
        crate::fs::sync_dir("/").await.unwrap();
    };
    assert_settled(synchronised, |sim| block_is(sim, "/new", 0, 7) && !exists(sim, "/old"));
}

#[test]
fn a_file_renamed_again_and_again_has_one_of_its_names() {
    let names = ["/a", "/b", "/c", "/d"];
    let renamed = || async move {
        durable_file(names[0], 1).await;
        for step in names.windows(2) {
            crate::fs::rename(step[0], step[1]).await.unwrap();
        }
    };
    for name in names {
        assert_open(renamed, |sim| exists(sim, name));
    }
    assert_settled(renamed, |sim| names.iter().filter(|name| exists(sim, name)).count() == 1);
}

#[test]
fn a_rename_over_a_file_leaves_one_of_the_two() {
    let replaced = || async {
        let old = durable_file("/a", 1).await;
        write(&old, 7, 0).await.unwrap();
        old.fdatasync().await.unwrap();
        let new = durable_file("/b", 1).await;
        write(&new, 8, 0).await.unwrap();
        new.fdatasync().await.unwrap();
        crate::fs::rename("/b", "/a").await.unwrap();
    };
    assert_open(replaced, |sim| block_is(sim, "/a", 0, 8));
    assert_settled(replaced, |sim| block_is(sim, "/a", 0, 8) != (block_is(sim, "/a", 0, 7) && exists(sim, "/b")));
}

#[test]
fn a_move_between_directories_needs_both_synchronised() {
    async fn moved(synchronised: &[&str]) {
        crate::fs::create_dir_all("/from").await.unwrap();
        crate::fs::create_dir_all("/to").await.unwrap();
        File::open("/from/a", CREATE).await.unwrap();
        crate::fs::sync_dir("/from").await.unwrap();
        crate::fs::sync_dir("/").await.unwrap();
        crate::fs::rename("/from/a", "/to/a").await.unwrap();
        for directory in synchronised {
            crate::fs::sync_dir(directory).await.unwrap();
        }
    }
    assert_open(|| moved(&["/from"]), |sim| exists(sim, "/to/a"));
    assert_open(|| moved(&["/to"]), |sim| exists(sim, "/to/a"));
    assert_settled(|| moved(&["/from"]), |sim| exists(sim, "/from/a") != exists(sim, "/to/a"));
    assert_settled(|| moved(&["/from", "/to"]), |sim| exists(sim, "/to/a") && !exists(sim, "/from/a"));
}

#[test]
fn a_small_file_is_the_old_or_the_new_one_at_every_moment() {
    let (mut old, mut new) = (0, 0);
    for seed in SEEDS {
        let sim = Sim::new(SimConfig::with_seed(seed));
        sim.run(|| async {
            crate::fs::write_small_atomic("/version", b"old").await.unwrap();
            crate::task::spawn("writer", async {
                crate::fs::write_small_atomic("/version", b"the new one").await.unwrap();
            });
            sleep(Duration::from_micros(20 * seed)).await;
        });
        sim.crash();
        let found = sim.run(|| crate::fs::read_small("/version", 100)).unwrap();
        match found.as_slice() {
            b"old" => old += 1,
            b"the new one" => new += 1,
            other => panic!("seed {seed}: {:?}", String::from_utf8_lossy(other)),
        }
        // Recovery goes the same way, over what the crash left of the temporary file.
        sim.run(|| crate::fs::write_small_atomic("/version", b"third")).unwrap();
        sim.crash();
        assert_eq!(sim.disk().read("/version").unwrap(), b"third", "seed {seed}");
    }
    assert!(old > 0 && new > 0, "{old} old, {new} new");
}

#[test]
fn a_small_file_that_is_too_long_is_refused() {
    let sim = Sim::new(SimConfig::default());
    sim.run(|| async {
        crate::fs::write_small_atomic("/version", &[1; 101]).await.unwrap();
        let error = crate::fs::read_small("/version", 100).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    });
}
