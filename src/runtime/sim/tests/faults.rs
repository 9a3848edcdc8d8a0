//! Faults that a test injects, and the limits of the disk.

use std::io::{self, ErrorKind};
use std::time::Duration;

use futures_lite::future::zip;

use super::*;
use crate::sim::{DiskConfig, Fault, Operation, SimDisk};
use crate::time::{Instant, sleep, timeout};

/// Runs a history that may reach for the disk.
fn run<Fut: Future<Output = ()>>(history: impl FnOnce(SimDisk) -> Fut) -> Sim {
    let sim = Sim::new(SimConfig::default());
    sim.run(|| history(sim.disk()));
    sim
}

#[test]
fn the_next_write_of_a_path_fails_and_no_other() {
    run(|disk| async move {
        let a = durable_file("/a", 1).await;
        let b = durable_file("/b", 1).await;
        disk.fail_next_write("/a", ErrorKind::TimedOut);
        write(&b, 1, 0).await.unwrap();
        let error = write(&a, 1, 0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("injected fault: Write of /a"), "{error}");
        write(&a, 1, 0).await.unwrap();
    });
}

#[test]
fn a_fault_counts_what_passes_and_what_fails() {
    run(|disk| async move {
        let file = durable_file("/d.log", 1).await;
        disk.inject(Fault::on(Operation::Write, "*.log").after(2).times(3).error(ErrorKind::StorageFull));
        let mut failed = Vec::new();
        for number in 0..8 {
            if write(&file, 1, 0).await.is_err() {
                failed.push(number);
            }
        }
        assert_eq!(failed, [2, 3, 4]);
        disk.inject(Fault::on(Operation::Read, "*.log").times(u64::MAX));
        let read = || file.read_at(0, BLOCK_BYTES, IoClass::ColdRead);
        assert!(read().await.is_err() && read().await.is_err());
        disk.clear_faults();
        read().await.unwrap();
    });
}

#[test]
fn every_kind_of_request_can_fail() {
    run(|disk| async move {
        let file = durable_file("/a", 1).await;
        crate::fs::create_dir_all("/d").await.unwrap();
        let fail = |operation, path: &str| disk.inject(Fault::on(operation, path).os_error(libc::EIO));
        let is_eio = |result: io::Result<()>| {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("os error 5"), "{message}");
        };
        fail(Operation::Open, "/new");
        is_eio(File::open("/new", CREATE).await.map(drop));
        fail(Operation::Flush, "/a");
        is_eio(file.fdatasync().await);
        fail(Operation::Preallocate, "/a");
        is_eio(file.preallocate(BLOCK).await);
        fail(Operation::Truncate, "/a");
        is_eio(file.truncate(0).await);
        fail(Operation::CreateDir, "/e");
        is_eio(crate::fs::create_dir_all("/e").await);
        fail(Operation::ReadDir, "/d");
        is_eio(crate::fs::read_dir("/d").await.map(drop));
        fail(Operation::Rename, "/a");
        is_eio(crate::fs::rename("/a", "/b").await);
        fail(Operation::Remove, "/a");
        is_eio(crate::fs::remove_file("/a").await);
        fail(Operation::SyncDir, "/d");
        is_eio(crate::fs::sync_dir("/d").await);
        fail(Operation::Stat, "/a");
        is_eio(crate::fs::exists("/a").await.map(drop));
        fail(Operation::Close, "/a");
        is_eio(file.close().await);
        // Nothing of it happened, and nothing is left armed.
        assert_eq!(disk.files(), [std::path::PathBuf::from("/a")]);
        assert_eq!(disk.read("/a").unwrap().len(), BLOCK_BYTES);
        assert!(!crate::fs::exists("/e").await.unwrap());
    });
}

#[test]
fn a_late_failure_has_done_what_was_asked() {
    run(|disk| async move {
        let file = durable_file("/a", 1).await;
        let late = |operation, path: &str| disk.inject(Fault::on(operation, path).os_error(libc::EMFILE).late());
        late(Operation::Open, "/new");
        File::open("/new", CREATE).await.unwrap_err();
        let opened = File::open("/new", CREATE).await.map(drop);
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::AlreadyExists, "the name was made");
        let opened = File::open("/new", WRITE).await.unwrap();
        assert!(opened.try_lock_exclusive().unwrap(), "and nobody has it open");
        late(Operation::Write, "/a");
        write(&file, 7, 0).await.unwrap_err();
        assert_eq!(read(&file, 0).await, vec![7; BLOCK_BYTES]);
        late(Operation::Preallocate, "/a");
        file.preallocate(3 * BLOCK).await.unwrap_err();
        assert_eq!(file.size().await.unwrap(), 3 * BLOCK);
        late(Operation::Flush, "/a");
        file.fdatasync().await.unwrap_err();
        assert_eq!(disk.read_durable("/a").unwrap().len(), 3 * BLOCK_BYTES);
        late(Operation::Remove, "/new");
        crate::fs::remove_file("/new").await.unwrap_err();
        assert_eq!(disk.faults_met(), 5);
        assert_eq!(disk.files(), [std::path::PathBuf::from("/a")]);
    });
}

#[test]
fn each_request_in_turn_can_be_made_to_fail() {
    run(|disk| async move {
        disk.inject(Fault::on_any("/d*").after(1).times(2));
        crate::fs::create_dir_all("/d").await.unwrap();
        crate::fs::Dir::open("/d").await.unwrap_err();
        crate::fs::exists("/other").await.unwrap();
        crate::fs::read_dir("/d").await.unwrap_err();
        crate::fs::remove_dir("/d").await.unwrap();
        assert_eq!(disk.faults_met(), 2);
    });
}

#[test]
fn a_failed_flush_is_not_made_up_for_by_the_next() {
    let history = |seed| {
        let sim = Sim::new(SimConfig::with_seed(seed));
        let disk = sim.disk();
        sim.run(|| async move {
            let file = durable_file("/a", 2).await;
            write(&file, 7, 0).await.unwrap();
            disk.fail_next_flush("/a", ErrorKind::Other);
            file.fdatasync().await.unwrap_err();
            write(&file, 8, 1).await.unwrap();
            file.fdatasync().await.unwrap();
        });
        sim.crash();
        assert!(block_is(&sim, "/a", 1, 8), "the later write was flushed, seed {seed}");
        block_is(&sim, "/a", 0, 7)
    };
    let kept = SEEDS.filter(|seed| history(*seed)).count();
    assert!(kept > 0 && kept < SEEDS.count(), "kept under {kept} seeds");
}

#[test]
fn a_read_past_the_page_cache_sees_what_a_failed_flush_left_on_the_disk() {
    let history = |seed| {
        let sim = Sim::new(SimConfig::with_seed(seed));
        let disk = sim.disk();
        let seen = sim.run(|| async move {
            let file = durable_file("/a", 2).await;
            write(&file, 7, 0).await.unwrap();
            assert_eq!(read(&file, 0).await, vec![7; BLOCK_BYTES], "a read brings it to the disk before");
            disk.fail_next_flush("/a", ErrorKind::Other);
            file.fdatasync().await.unwrap_err();
            assert_eq!(disk.read("/a").unwrap()[..BLOCK_BYTES], [7; BLOCK_BYTES], "the page cache has it");
            let seen = read(&file, 0).await;
            write(&file, 8, 1).await.unwrap();
            assert_eq!(read(&file, 1).await, vec![8; BLOCK_BYTES]);
            seen
        });
        sim.crash();
        assert_eq!(sim.disk().read("/a").unwrap()[..BLOCK_BYTES], seen, "seed {seed}");
        block_is(&sim, "/a", 0, 7)
    };
    let kept = SEEDS.filter(|seed| history(*seed)).count();
    assert!(kept > 0 && kept < SEEDS.count(), "kept under {kept} seeds");
}

#[test]
fn a_failed_write_may_be_there_in_parts() {
    let landed = |seed| {
        let sim = Sim::new(SimConfig::with_seed(seed));
        let disk = sim.disk();
        sim.run(|| async move {
            let file = durable_file("/a", 8).await;
            disk.fail_next_write("/a", ErrorKind::Other);
            file.write_at(&blocks(8, 7), 0, IoClass::Append).await.unwrap_err();
        });
        (0..8).filter(|block| block_is(&sim, "/a", *block, 7)).count()
    };
    let landed: Vec<usize> = SEEDS.map(landed).collect();
    assert!(landed.iter().any(|blocks| *blocks > 0) && landed.iter().any(|blocks| *blocks < 8));
}

#[test]
fn a_full_disk_refuses_new_space_and_takes_what_has_space() {
    let disk = DiskConfig { capacity_bytes: 10 * BLOCK, ..DiskConfig::default() };
    let sim = Sim::new(SimConfig { disk, ..SimConfig::default() });
    let disk = sim.disk();
    sim.run(|| async move {
        let full = |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
        let a = durable_file("/a", 8).await;
        let b = File::open("/b", CREATE).await.unwrap();
        full(b.preallocate(3 * BLOCK).await);
        assert_eq!(b.size().await.unwrap(), 0, "nothing of it was done");
        full(b.write_at(&blocks(3, 1), 0, IoClass::Append).await);
        b.write_at(&blocks(2, 1), 0, IoClass::Append).await.unwrap();
        full(write(&b, 1, 5).await);
        assert_eq!(crate::fs::free_bytes("/").await.unwrap(), 0);
        // Preallocated space, and blocks written before, take writes all the same.
        write(&a, 2, 7).await.unwrap();
        write(&b, 2, 1).await.unwrap();
        // A removed file's space is free when nobody has it open any more.
        crate::fs::remove_file("/a").await.unwrap();
        full(b.preallocate(3 * BLOCK).await);
        a.close().await.unwrap();
        b.preallocate(3 * BLOCK).await.unwrap();
        assert_eq!(disk.free_bytes(), 7 * BLOCK);
        b.truncate(BLOCK).await.unwrap();
        assert_eq!(disk.free_bytes(), 9 * BLOCK);
        disk.set_capacity(BLOCK);
        full(b.preallocate(2 * BLOCK).await);
        disk.set_capacity(2 * BLOCK);
        b.preallocate(2 * BLOCK).await.unwrap();
    });
}

#[test]
fn a_crash_counts_space_anew() {
    for seed in SEEDS {
        let (sim, _) = crash_after(seed, || async {
            let file = durable_file("/a", 8).await;
            file.preallocate(16 * BLOCK).await.unwrap();
            write(&file, 1, 20).await.unwrap();
        });
        let disk = sim.disk();
        let used = (64 << 30) - disk.free_bytes();
        let expected: &[u64] = match disk.read("/a").unwrap().len() as u64 / BLOCK {
            8 => &[8],
            16 => &[16],
            // The size was kept, the block perhaps not.
            21 => &[16, 17],
            size => panic!("seed {seed}: {size} blocks"),
        };
        assert!(expected.contains(&(used / BLOCK)), "seed {seed}: {used} bytes used");
    }
}

#[test]
fn a_flipped_bit_is_seen_and_stays() {
    let sim = run(|disk| async move {
        let file = durable_file("/a", 2).await;
        write(&file, 0xff, 1).await.unwrap();
        disk.flip_bit("/a", BLOCK + 17, 3).unwrap();
        let mut expected = vec![0xff; BLOCK_BYTES];
        expected[17] = 0b1111_0111;
        assert_eq!(read(&file, 1).await, expected);
        file.fdatasync().await.unwrap();
        disk.flip_bit("/a", 5, 0).unwrap();
        assert_eq!(disk.flip_bit("/a", 2 * BLOCK, 0).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(disk.flip_bit("/none", 0, 0).unwrap_err().kind(), ErrorKind::NotFound);
    });
    sim.crash();
    let bytes = sim.disk().read("/a").unwrap();
    assert_eq!((bytes[5], bytes[BLOCK_BYTES + 17]), (1, 0b1111_0111));
}

#[test]
fn bytes_overwritten_behind_the_program_are_there_after_any_crash() {
    for seed in SEEDS {
        let sim = Sim::new(SimConfig::with_seed(seed));
        let disk = sim.disk();
        sim.run(|| async move {
            let file = durable_file("/a", 1).await;
            write(&file, 7, 0).await.unwrap();
            disk.overwrite("/a", 10, b"rotten").unwrap();
        });
        sim.crash();
        assert_eq!(&sim.disk().read("/a").unwrap()[9..17], b"\x07rotten\x07", "seed {seed}");
    }
}

#[test]
fn a_file_removed_behind_the_program_is_gone_for_good() {
    for seed in SEEDS {
        let sim = run(|disk| async move {
            let file = durable_file("/a", 1).await;
            crate::fs::rename("/a", "/b").await.unwrap();
            disk.remove("/b").unwrap();
            assert!(!crate::fs::exists("/b").await.unwrap());
            write(&file, 7, 0).await.unwrap();
            assert_eq!(read(&file, 0).await, vec![7; BLOCK_BYTES], "who has it open can still use it");
        });
        sim.crash();
        assert!(sim.disk().files().is_empty(), "seed {seed}");
    }
}

#[test]
fn a_stalled_disk_holds_back_what_is_under_way_and_what_comes() {
    run(|disk| async move {
        let a = durable_file("/a", 1).await;
        let b = durable_file("/b", 1).await;
        let start = Instant::now();
        let under_way = write(&a, 1, 0);
        let stall = async {
            disk.stall("/a", Duration::from_secs(5));
            write(&b, 1, 0).await.unwrap();
            assert!(start.elapsed() < Duration::from_secs(1), "the other file goes on");
            assert!(timeout(Duration::from_secs(2), read(&a, 0)).await.is_err());
        };
        zip(under_way, stall).await.0.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(5));
        sleep(Duration::from_secs(1)).await;
        let over = Instant::now();
        write(&a, 2, 0).await.unwrap();
        assert!(over.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn requests_are_counted_by_file_also_after_a_rename() {
    run(|disk| async move {
        let file = durable_file("/a", 4).await;
        file.write_at(&blocks(2, 1), 0, IoClass::Append).await.unwrap();
        write(&file, 1, 2).await.unwrap();
        read(&file, 0).await;
        file.fdatasync().await.unwrap();
        crate::fs::rename("/a", "/b").await.unwrap();
        let dsync = File::open("/b", OpenOptions { dsync: true, ..WRITE }).await.unwrap();
        write(&dsync, 1, 0).await.unwrap();
        disk.fail_next_write("/b", ErrorKind::Other);
        write(&dsync, 1, 0).await.unwrap_err();
        let counters = disk.counters("/b");
        assert_eq!((counters.writes, counters.write_bytes, counters.dsync_writes), (3, 4 * BLOCK, 1));
        assert_eq!((counters.reads, counters.read_bytes, counters.flushes), (1, BLOCK, 2));
        assert_eq!(disk.counters("/").flushes, 1);
        assert_eq!(disk.counters("/a"), crate::sim::Counters::default());
    });
}

#[test]
fn what_the_kernel_refuses_is_refused() {
    run(|_| async move {
        let file = durable_file("/a", 1).await;
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        let read_at = |position, len| async move {
            let file = File::open("/a", OpenOptions::default()).await.unwrap();
            file.read_at(position, len, IoClass::ColdRead).await
        };
        assert_eq!(kind(read_at(512, BLOCK_BYTES).await.map(drop)), ErrorKind::InvalidInput);
        assert_eq!(kind(read_at(0, 100).await.map(drop)), ErrorKind::InvalidInput);
        assert_eq!(kind(file.write_at(&blocks(1, 1), 512, IoClass::Append).await), ErrorKind::InvalidInput);
        assert_eq!(kind(file.write_at(&blocks(2, 1).slice(..100), 0, IoClass::Append).await), ErrorKind::InvalidInput);
        let back = file.read_at(0, BLOCK_BYTES, IoClass::ColdRead).await.unwrap();
        assert_eq!(kind(file.write_at(&back, 0, IoClass::Append).await), ErrorKind::InvalidInput);
        let reader = File::open("/a", OpenOptions::default()).await.unwrap();
        assert!(write(&reader, 1, 0).await.is_err() && reader.truncate(0).await.is_err());
        assert_eq!(kind(File::open("/a", CREATE).await.map(drop)), ErrorKind::AlreadyExists);
        assert_eq!(kind(File::open("/none", WRITE).await.map(drop)), ErrorKind::NotFound);
        assert_eq!(kind(File::open("/none/a", CREATE).await.map(drop)), ErrorKind::NotFound);
        assert_eq!(kind(File::open("/a/b", CREATE).await.map(drop)), ErrorKind::NotADirectory);
        crate::fs::create_dir_all("/d/e").await.unwrap();
        assert_eq!(kind(File::open("/d", WRITE).await.map(drop)), ErrorKind::IsADirectory);
        assert_eq!(kind(crate::fs::remove_file("/d").await), ErrorKind::IsADirectory);
        assert_eq!(kind(crate::fs::rename("/a", "/d").await), ErrorKind::IsADirectory);
        assert_eq!(kind(crate::fs::rename("/d", "/a").await), ErrorKind::NotADirectory);
        assert_eq!(kind(crate::fs::rename("/d", "/d/e/f").await), ErrorKind::InvalidInput);
        assert_eq!(kind(crate::fs::create_dir_all("/a").await), ErrorKind::NotADirectory);
        assert_eq!(kind(crate::fs::sync_dir("/none").await), ErrorKind::NotFound);
        assert_eq!(kind(crate::fs::Dir::open("/none").await.map(drop)), ErrorKind::NotFound);
        assert_eq!(kind(crate::fs::Dir::open("/a").await.map(drop)), ErrorKind::NotADirectory);
        assert_eq!(kind(crate::fs::remove_dir("/a").await), ErrorKind::NotADirectory);
        assert_eq!(kind(crate::fs::remove_dir("/d").await), ErrorKind::DirectoryNotEmpty);
    });
}

#[test]
fn reads_end_with_the_file_and_preallocated_space_is_zeros() {
    run(|_| async move {
        let file = File::open("/a", CREATE).await.unwrap();
        file.preallocate(2 * BLOCK).await.unwrap();
        write(&file, 7, 1).await.unwrap();
        let read = |block: u64, count: usize| {
            let file = file.clone();
            async move { file.read_at(block * BLOCK, count * BLOCK_BYTES, IoClass::ColdRead).await.unwrap().to_vec() }
        };
        assert_eq!(read(0, 4).await, [vec![0; BLOCK_BYTES], vec![7; BLOCK_BYTES]].concat());
        assert_eq!(read(2, 1).await, []);
        assert_eq!(read(9, 1).await, []);
        file.truncate(BLOCK + 100).await.unwrap();
        assert_eq!(read(1, 1).await, [7; 100]);
        file.truncate(4 * BLOCK).await.unwrap();
        assert_eq!(read(1, 1).await, [vec![7; 100], vec![0; BLOCK_BYTES - 100]].concat());
        assert_eq!(file.size().await.unwrap(), 4 * BLOCK);
        // Preallocating less than there is changes nothing.
        file.preallocate(BLOCK).await.unwrap();
        assert_eq!(file.size().await.unwrap(), 4 * BLOCK);
    });
}

#[test]
fn a_directory_lists_what_is_in_it() {
    run(|_| async move {
        crate::fs::create_dir_all("/d/sub").await.unwrap();
        for name in ["/d/b", "/d/a"] {
            File::open(name, CREATE).await.unwrap();
        }
        let entries = crate::fs::read_dir("/d").await.unwrap();
        let names: Vec<(&str, bool)> = entries.iter().map(|entry| (entry.name.as_str(), entry.is_dir)).collect();
        assert_eq!(names, [("a", false), ("b", false), ("sub", true)]);
        crate::fs::remove_dir_all("/d").await.unwrap();
        assert!(!crate::fs::exists("/d").await.unwrap());
    });
}
