//! Crashes and kills: what they tear, reorder, leave in flight and keep locked.

use std::time::Duration;

use super::*;
use crate::task::spawn;
use crate::time::sleep;

#[test]
fn writes_land_in_any_order_within_a_file_and_across_files() {
    let history = || async {
        let a = durable_file("/a", 2).await;
        let b = durable_file("/b", 1).await;
        write(&a, 1, 0).await.unwrap();
        write(&a, 2, 1).await.unwrap();
        write(&b, 3, 0).await.unwrap();
    };
    assert_open(history, |sim| block_is(sim, "/a", 0, 0) && block_is(sim, "/a", 1, 2));
    assert_open(history, |sim| block_is(sim, "/a", 0, 1) && block_is(sim, "/a", 1, 0));
    assert_open(history, |sim| block_is(sim, "/a", 0, 0) && block_is(sim, "/b", 0, 3));
}

#[test]
fn of_several_unflushed_versions_any_may_be_there() {
    let history = || async {
        let file = durable_file("/a", 1).await;
        for fill in [1, 2, 3] {
            write(&file, fill, 0).await.unwrap();
        }
    };
    for fill in [0, 1, 2, 3] {
        assert_open(history, |sim| block_is(sim, "/a", 0, fill));
    }
}

#[test]
fn a_large_write_tears_into_a_beginning_into_blocks_or_into_sectors() {
    let history = || async {
        let file = durable_file("/a", 16).await;
        file.write_at(&blocks(16, 7), 0, IoClass::Append).await.unwrap();
    };
    let landed = |sim: &Sim| -> Vec<bool> { (0..16).map(|block| block_is(sim, "/a", block, 7)).collect() };
    let is_prefix = |landed: &[bool]| landed.is_sorted_by(|a, b| a >= b) && landed[0] && !landed[15];
    assert_open(history, |sim| is_prefix(&landed(sim)));
    assert_open(history, |sim| {
        let whole = (0..16).all(|block| block_is(sim, "/a", block, 7) || block_is(sim, "/a", block, 0));
        whole && !landed(sim).is_sorted_by(|a, b| a >= b)
    });
    assert_open(history, |sim| (0..16).any(|block| !block_is(sim, "/a", block, 7) && !block_is(sim, "/a", block, 0)));
}

#[test]
fn without_tearing_a_write_is_there_whole_or_not_at_all() {
    let mut kept = 0;
    for seed in SEEDS {
        let disk = DiskConfig { tear: false, ..DiskConfig::default() };
        let sim = Sim::new(SimConfig { seed, disk, ..SimConfig::default() });
        sim.run(|| async {
            let file = durable_file("/a", 16).await;
            file.write_at(&blocks(16, 7), 0, IoClass::Append).await.unwrap();
        });
        let report = sim.crash();
        assert_eq!(report.writes_torn, 0);
        let bytes = sim.disk().read("/a").unwrap();
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "seed {seed}");
        kept += usize::from(bytes[0] == 7);
    }
    assert!(kept > 0 && kept < SEEDS.count());
}

/// A machine with a durable file `/a`, one block of zeros, and a write of sevens to it under way.
fn with_write_in_flight(seed: u64, options: OpenOptions) -> Sim {
    let minute = Duration::from_secs(60);
    let latency = LatencyConfig { write: minute..=minute, ..LatencyConfig::default() };
    let disk = DiskConfig { latency, ..DiskConfig::default() };
    let sim = Sim::new(SimConfig { seed, disk, ..SimConfig::default() });
    sim.run(|| async move {
        durable_file("/a", 1).await.close().await.unwrap();
        let file = File::open("/a", options).await.unwrap();
        assert!(file.try_lock_exclusive().unwrap());
        spawn("writer", async move {
            write(&file, 7, 0).await.unwrap();
            panic!("the process ends before this write does");
        });
        sleep(Duration::from_millis(1)).await;
    });
    assert_eq!(sim.disk().requests_in_flight(), 1);
    sim
}

#[test]
fn a_write_in_flight_at_the_crash_may_land() {
    for options in [WRITE, OpenOptions { dsync: true, ..WRITE }] {
        let landed = |seed: &u64| {
            let sim = with_write_in_flight(*seed, options);
            sim.crash();
            assert_eq!(sim.disk().requests_in_flight(), 0);
            block_is(&sim, "/a", 0, 7)
        };
        let landed = SEEDS.filter(landed).count();
        assert!(landed > 0 && landed < SEEDS.count(), "{landed} landed");
    }
}

#[test]
fn a_write_outlives_a_killed_process_and_keeps_the_lock_until_then() {
    for seed in SEEDS {
        let sim = with_write_in_flight(seed, WRITE);
        sim.kill();
        let restarted = sim.now();
        sim.run(|| async {
            let file = File::open("/a", WRITE).await.unwrap();
            assert!(!file.try_lock_exclusive().unwrap(), "the old process's write is still under way");
            assert_eq!(sim.disk().read("/a").unwrap(), vec![0; BLOCK_BYTES], "and has not landed");
            while !file.try_lock_exclusive().unwrap() {
                sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(read(&file, 0).await, vec![7; BLOCK_BYTES], "whoever has the lock sees what landed");
        });
        assert!(sim.now() - restarted > Duration::from_secs(50));
    }
}

#[test]
fn a_crash_frees_locks_a_kill_without_requests_too() {
    let sim = Sim::new(SimConfig::default());
    let held = sim.run(|| async {
        let file = durable_file("/a", 1).await;
        let other = File::open("/a", WRITE).await.unwrap();
        assert!(file.try_lock_exclusive().unwrap());
        assert!(file.try_lock_exclusive().unwrap(), "its own lock is no obstacle");
        assert!(!other.try_lock_exclusive().unwrap());
        assert!(!File::open("/a", OpenOptions::default()).await.unwrap().try_lock_exclusive().unwrap());
        file
    });
    let lock_again = || async { File::open("/a", WRITE).await.unwrap().try_lock_exclusive().unwrap() };
    assert!(!sim.run(lock_again));
    sim.kill();
    assert!(sim.run(lock_again));
    sim.crash();
    assert!(sim.run(lock_again));
    // A descriptor of an earlier life is no descriptor.
    assert!(sim.run(|| held.size()).is_err());
    assert!(held.try_lock_exclusive().is_err());
}

#[test]
fn a_closed_or_dropped_file_lets_go_of_its_lock() {
    let sim = Sim::new(SimConfig::default());
    sim.run(|| async {
        let first = durable_file("/a", 1).await;
        let second = File::open("/a", WRITE).await.unwrap();
        let third = File::open("/a", WRITE).await.unwrap();
        assert!(first.try_lock_exclusive().unwrap());
        let clone = first.clone();
        first.close().await.unwrap();
        assert!(!second.try_lock_exclusive().unwrap(), "a clone has the descriptor");
        drop(clone);
        assert!(second.try_lock_exclusive().unwrap());
        second.close().await.unwrap();
        assert!(third.try_lock_exclusive().unwrap());
    });
}

#[test]
fn a_file_made_by_a_killed_process_is_there_and_nobody_has_it_open() {
    for seed in SEEDS {
        let sim = Sim::new(SimConfig::with_seed(seed));
        let disk = sim.disk();
        sim.run(|| async move {
            disk.stall("/a", Duration::from_secs(1));
            spawn("opener", async { drop(File::open("/a", CREATE).await) });
            sleep(Duration::from_millis(1)).await;
        });
        sim.kill();
        sim.run(|| async {
            assert!(!crate::fs::exists("/a").await.unwrap() || sim.disk().requests_in_flight() == 0);
            sleep(Duration::from_secs(1)).await;
            let file = File::open("/a", WRITE).await.unwrap();
            assert!(file.try_lock_exclusive().unwrap());
            // A descriptor that nobody closes would keep the space of a removed file.
            let free = sim.disk().free_bytes();
            file.preallocate(BLOCK).await.unwrap();
            file.close().await.unwrap();
            crate::fs::remove_file("/a").await.unwrap();
            assert_eq!(sim.disk().free_bytes(), free);
        });
    }
}

#[test]
fn what_a_crash_left_is_durable() {
    // Recovery may crash again, at once: what it has seen does not change under it.
    for seed in SEEDS {
        let (sim, _) = crash_after(seed, || async {
            let file = durable_file("/a", 8).await;
            file.write_at(&blocks(8, 7), 0, IoClass::Append).await.unwrap();
            File::open("/b", CREATE).await.unwrap();
            crate::fs::rename("/a", "/c").await.unwrap();
        });
        let image = |sim: &Sim| {
            let disk = sim.disk();
            disk.files().into_iter().map(|path| (disk.read(&path), path)).collect::<Vec<_>>()
        };
        let seen = image(&sim);
        assert!(!seen.is_empty());
        assert_eq!(sim.crash(), CrashReport::default(), "nothing was left to decide");
        assert_eq!(image(&sim), seen, "seed {seed}");
    }
}

#[test]
fn the_durable_image_tells_what_no_crash_can_take() {
    for seed in SEEDS {
        let sim = Sim::new(SimConfig::with_seed(seed));
        sim.run(|| async {
            let file = durable_file("/a", 2).await;
            write(&file, 7, 0).await.unwrap();
            file.fdatasync().await.unwrap();
            write(&file, 8, 1).await.unwrap();
            File::open("/b", CREATE).await.unwrap();
        });
        let disk = sim.disk();
        assert_eq!(disk.durable_files(), [std::path::PathBuf::from("/a")]);
        assert_eq!(disk.files().len(), 2);
        let promised = disk.read_durable("/a").unwrap();
        assert_eq!(promised, [vec![7; BLOCK_BYTES], vec![0; BLOCK_BYTES]].concat());
        assert_eq!(disk.read_durable("/b"), None);
        sim.crash();
        assert_eq!(disk.read("/a").unwrap()[..BLOCK_BYTES], promised[..BLOCK_BYTES], "seed {seed}");
    }
}
