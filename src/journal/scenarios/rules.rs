//! The histories of the storage protocol that concern the ring, told with the rule kept. Its name begins with the
//! rule's number. Those that need no time and no disk are in `chain/tests.rs`.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use ringmq_runtime::buffer::AlignedBuf;
use ringmq_runtime::file::{File, IoClass, OpenOptions};
use ringmq_runtime::sim::{DiskConfig, Fault, LatencyConfig, Operation};
use ringmq_runtime::time;
use ringmq_runtime::{fs, task};

use super::support::*;
use crate::{BlockNumber, Flushing, Journal, JournalConfig, JournalReadError, Ring, read_journals, remove_ring};

/// A disk that takes that long for writes, and with nothing else.
fn slow_writes(ms: u64) -> DiskConfig {
    let latency = LatencyConfig { write: millis(ms)..=millis(ms), slow_one_in: 0, ..LatencyConfig::default() };
    DiskConfig { latency, ..DiskConfig::default() }
}

#[test]
fn rule_03_blocks_are_acknowledged_in_order_although_they_overtake_each_other() {
    for seed in 0..40 {
        let sim = sim(seed);
        sim.run(|| async {
            let (journal, told) = start_new().await;
            for offset in 0..60 {
                let block = write(&journal, offset, 2000).await;
                journal.free_below(block);
            }
            acknowledged(&journal).await;
            assert_eq!(told.durable(), (0..60).collect::<Vec<_>>());
            let numbers: Vec<_> = told.durable.borrow().iter().map(|(number, _)| *number).collect();
            assert!(numbers.is_sorted_by(|one, other| one < other));
        });
    }
}

#[test]
fn rule_03_only_so_many_blocks_are_at_the_device() {
    let sim = sim(1);
    sim.run(|| async {
        let (journal, _) = start_new().await;
        assert!(journal.room().is_some());
        write(&journal, 0, 10).await;
        assert!(journal.room().is_some());
        write(&journal, 1, 10).await;
        assert_eq!(journal.room(), None);
        let moved = journal.moved();
        moved.await;
        assert!(journal.durable_through() > BlockNumber::FIRST);
    });
}

#[test]
fn rule_04_nothing_is_written_over_before_the_block_that_frees_it_is_durable() {
    let sim = sim_with_disk(2, slow_writes(20));
    sim.run(|| async {
        let (journal, _) = start_new().await;
        let mut first = None;
        let mut offset = 0;
        while journal.room().is_some_and(|room| room >= Journal::<u64>::entry_bytes(2000)) {
            let block = write(&journal, offset, 2000).await;
            first.get_or_insert(block);
            acknowledged(&journal).await;
            offset += 1;
        }
        assert!(offset > 5 && journal.used_bytes() <= 16 * UNIT - 6 * UNIT, "space is kept free");
        let before = sim.disk().read(ring_path(&sim)).expect("a ring");
        journal.free_below(journal.next_number());
        assert_eq!(journal.room(), None, "the floor is on its way, and no more than that");
        time::sleep(millis(10)).await;
        assert_eq!(sim.disk().read(ring_path(&sim)).expect("a ring"), before);
        acknowledged(&journal).await;
        assert!(journal.room().is_some_and(|room| room > 4096));
    });
}

#[test]
fn rule_04_numbers_go_on_over_lives() {
    let sim = sim(3);
    let mut last = None;
    for life in 0..5 {
        sim.run(|| async {
            let (journal, _) = if life == 0 { start_new().await } else { start_again().await };
            let block = write(&journal, life, 3000).await;
            acknowledged(&journal).await;
            assert!(last < Some(block));
            last = Some(block);
        });
        sim.crash();
        sim.run(|| async {
            let ring = found_ring().await;
            assert_eq!((offsets(&ring.blocks), Some(ring.blocks.entries[0].block)), (vec![life], last));
        });
    }
}

#[test]
fn rule_04_one_block_is_kept_for_the_floor_whatever_fills_the_ring() {
    for seed in 0..40 {
        let sim = sim(seed);
        sim.run(|| async {
            let (journal, told) = start_new().await;
            let mut blocks = std::collections::VecDeque::new();
            let mut offset = 0;
            // Full, then freed block by block, with pauses in which closing blocks want space as well.
            while offset < 100 {
                if journal.room().is_some_and(|room| room >= Journal::<u64>::entry_bytes(2500)) {
                    blocks.push_back(write(&journal, offset, 2500).await);
                    offset += 1;
                    continue;
                }
                time::sleep(millis(1 + offset % 3 * 6)).await;
                if journal.durable_through() == journal.next_number() && journal.room().is_none_or(|room| room < 2564) {
                    blocks.pop_front().expect("something is needed, or there would be room");
                    let below = blocks.front().copied().unwrap_or_else(|| journal.next_number());
                    journal.free_below(below);
                }
            }
            acknowledged(&journal).await;
            assert_eq!(told.durable(), (0..100).collect::<Vec<_>>());
        });
    }
}

#[test]
fn rule_05_an_idle_ring_gets_one_closing_block() {
    let sim = sim(5);
    sim.run(|| async {
        let (journal, told) = start_new().await;
        for offset in 0..3 {
            write(&journal, offset, 100).await;
        }
        acknowledged(&journal).await;
        let writes = || sim.disk().counters(ring_path(&sim)).writes;
        let (last, before) = (told.durable.borrow()[2].0, writes());
        time::sleep(millis(4)).await;
        assert_eq!(writes(), before, "not at once");
        time::sleep(millis(100)).await;
        assert_eq!(writes(), before + 1, "and once");
        assert_eq!(told.durable(), [0, 1, 2], "nobody is told of it");
        rot(&sim, last);
        let ring = read_copy(&sim);
        assert_eq!((offsets(&ring.blocks), ring.blocks.lost.len()), (vec![0, 1], 1));
        assert_eq!(ring.blocks.lost[0].offset.get(), 3);
    });
}

#[test]
fn rule_05_a_block_is_not_proven_before_it_is_durable() {
    let sim = sim_with_disk(15, slow_writes(40));
    sim.run(|| async {
        let (journal, _) = start_new().await;
        write(&journal, 0, 100).await;
        acknowledged(&journal).await;
        let block = write(&journal, 1, 100).await;
        time::sleep(millis(30)).await;
        assert_eq!(journal.next_number().get(), block.get() + 1, "nobody can say yet that it is there");
        while journal.next_number().get() == block.get() + 1 {
            time::sleep(millis(1)).await;
        }
        acknowledged(&journal).await;
        rot(&sim, block);
        assert_eq!(read_copy(&sim).blocks.lost.len(), 1, "it is proven");
    });
}

/// What the ring that is in use says.
fn read_copy(sim: &ringmq_runtime::sim::Sim) -> crate::FoundRing {
    let path = ring_path(sim);
    let name = path.file_name().and_then(|name| name.to_str()).and_then(crate::RingName::parse).expect("a ring");
    crate::decode_ring(name, &sim.disk().read(&path).expect("a ring"))
}

#[test]
fn rule_05_a_ring_that_is_written_to_gets_no_closing_block() {
    let sim = sim(6);
    sim.run(|| async {
        let (journal, told) = start_new().await;
        for offset in 0..50 {
            let block = write(&journal, offset, 10).await;
            journal.free_below(block);
            time::sleep(millis(2)).await;
        }
        acknowledged(&journal).await;
        let numbers: Vec<_> = told.durable.borrow().iter().map(|(number, _)| number.get()).collect();
        let gaps = numbers.windows(2).filter(|pair| pair[1] > pair[0] + 2).count();
        assert_eq!(gaps, 0, "one after the other, but for the end of a lap: {numbers:?}");
    });
}

#[test]
fn rule_05_a_clean_stop_proves_the_last_block() {
    let sim = sim_with_disk(7, slow_writes(3));
    let last = sim.run(|| async {
        let (journal, told) = start_new().await;
        write(&journal, 0, 100).await;
        let last = write(&journal, 1, 100).await;
        journal.close().await.expect("closed");
        assert_eq!(told.durable(), [0, 1], "what was in flight is waited for");
        assert_eq!(journal.room(), None);
        last
    });
    rot(&sim, last);
    sim.run(|| async {
        let ring = found_ring().await;
        assert_eq!((offsets(&ring.blocks), ring.blocks.lost.len()), (vec![0], 1));
    });
}

#[test]
fn rule_10_a_start_waits_for_what_a_killed_process_has_in_flight() {
    let sim = sim_with_disk(8, slow_writes(400));
    sim.run(|| async {
        let (journal, _) = start_new().await;
        write(&journal, 0, 100).await;
        acknowledged(&journal).await;
        write(&journal, 1, 100).await;
        time::sleep(millis(5)).await;
    });
    sim.kill();
    assert!(sim.disk().requests_in_flight() > 0);
    sim.run(|| async {
        let ring = found_ring().await;
        assert_eq!(offsets(&ring.blocks), [0, 1], "what landed is seen");
        assert_eq!(sim.disk().requests_in_flight(), 0);
        let before = sim.disk().read(ring_path(&sim));
        time::sleep(millis(2000)).await;
        assert_eq!(sim.disk().read(ring_path(&sim)), before, "and nothing lands after it was read");
    });
}

#[test]
fn rule_10_a_ring_in_use_cannot_be_read_or_used_by_another() {
    let sim = sim(9);
    sim.run(|| async {
        let (journal, _) = start_new().await;
        let refused = read_journals(dir()).await.expect_err("it is in use");
        let JournalReadError::Locked { path } = &refused else { panic!("{refused}") };
        assert_eq!(*path, ring_path(&sim));
        assert!(refused.to_string().contains("stop the other broker"));
        let found = read_copy(&sim);
        let busy = Ring::resume(dir(), &found, &small()).await.expect_err("it is in use");
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        journal.close().await.expect("closed");
        assert_eq!(found_ring().await.next.get(), 1);
    });
}

#[test]
fn rule_10_what_was_read_is_durable() {
    for seed in 0..20 {
        let sim = sim(seed);
        let block = sim.run(|| async {
            let (journal, _) = start_new().await;
            write(&journal, 0, 100).await;
            let block = write(&journal, 1, 100).await;
            acknowledged(&journal).await;
            block
        });
        sim.kill();
        // As if the device had the second block in its cache alone.
        let (path, at) = (ring_path(&sim), position(block));
        let mut buf = AlignedBuf::zeroed(4096);
        sim.disk().overwrite(&path, at, &replace_unit(&sim, at, &mut buf)).expect("there");
        sim.run(|| async {
            let file = File::open(&path, OpenOptions { write: true, ..OpenOptions::default() }).await.expect("opened");
            file.write_at(&buf.freeze(), at, IoClass::Journal).await.expect("written");
        });
        sim.kill();
        assert_ne!(sim.disk().read_durable(&path), sim.disk().read(&path));
        assert_eq!(sim.run(|| async { offsets(&found_ring().await.blocks) }), [0, 1]);
        assert_eq!(sim.disk().read_durable(&path), sim.disk().read(&path));
        sim.crash();
        assert_eq!(sim.run(|| async { offsets(&found_ring().await.blocks) }), [0, 1]);
    }
}

/// Puts what stands there into `buf`, and gives what stood in `buf`.
fn replace_unit(sim: &ringmq_runtime::sim::Sim, at: u64, buf: &mut AlignedBuf) -> Vec<u8> {
    let at = usize::try_from(at).expect("small");
    let before = buf.to_vec();
    buf.copy_from_slice(&sim.disk().read(ring_path(sim)).expect("a ring")[at..][..4096]);
    before
}

async fn failed(journal: &Journal<u64>) {
    loop {
        let moved = journal.moved();
        if journal.failed().is_some() {
            return;
        }
        moved.await;
    }
}

#[test]
fn rule_10_the_name_of_a_ring_that_was_read_is_durable() {
    let mut read = 0;
    for moment in 0..400 {
        let sim = sim(moment);
        sim.run(|| async move {
            task::spawn("prepare", async { drop(start_new().await) });
            time::sleep(std::time::Duration::from_micros(50 * moment)).await;
        });
        sim.kill();
        let written = sim.run(|| async {
            let found = read_journals(dir()).await.expect("readable");
            if found.rings.is_empty() {
                return false;
            }
            let (journal, _) = start_again().await;
            write(&journal, 0, 100).await;
            acknowledged(&journal).await;
            true
        });
        sim.crash();
        if written {
            read += 1;
            assert_eq!(sim.run(|| async { offsets(&found_ring().await.blocks) }), [0], "moment {moment}");
        }
    }
    assert!(read > 20, "the ring was there, and its process killed, {read} times");
}

#[test]
fn rule_10_a_ring_that_cannot_be_flushed_is_not_handed_on() {
    let sim = sim(10);
    sim.run(|| async {
        let (journal, _) = start_new().await;
        journal.close().await.expect("closed");
        sim.disk().fail_next_flush("*.ring", io::ErrorKind::Other);
        let found = read_journals(dir()).await.expect("the others can be used");
        assert!(found.rings.is_empty(), "the flush failed");
        let [unread] = &found.unread[..] else { panic!("{found:?}") };
        assert_eq!((&unread.path, unread.aside), (&ring_path(&sim), None));
    });
}

#[test]
fn rule_11_what_the_page_cache_has_is_durable_when_a_flush_says_so() {
    for seed in 0..20 {
        let sim = sim(seed);
        sim.run(|| async {
            let (journal, told) = start_new_relaxed().await;
            let path = dir().join(journal.name().file_name());
            let is_on_disk = || sim.disk().read_durable(&path) == sim.disk().read(&path);
            let written = Rc::new(Cell::new(false));
            let tell = written.clone();
            journal.tell_written(move |_| tell.set(true));
            journal.flush_within(millis(50));
            write(&journal, 0, 100).await;
            time::sleep(millis(30)).await;
            assert!(written.get() && told.durable().is_empty() && !is_on_disk(), "the kernel has it, and no more");
            acknowledged(&journal).await;
            assert!(told.durable() == [0] && is_on_disk());
        });
        sim.crash();
        assert_eq!(sim.run(|| async { offsets(&found_ring().await.blocks) }), [0]);
    }
}

#[test]
fn rule_12_a_failed_write_ends_the_journal_and_everyone_is_told_once() {
    let sim = sim(11);
    sim.run(|| async {
        let (journal, told) = start_new().await;
        write(&journal, 0, 100).await;
        acknowledged(&journal).await;
        sim.disk().inject(Fault::on(Operation::Write, "*.ring"));
        write(&journal, 1, 100).await;
        write(&journal, 2, 100).await;
        let waiting = journal.moved();
        failed(&journal).await;
        waiting.await;
        let (error, cargos) = told.failed.borrow_mut().take().expect("told");
        assert!(error.to_string().contains(".ring"), "{error}");
        assert!([&[1, 2][..], &[2]].contains(&&cargos[..]), "{cargos:?}");
        assert_eq!(told.durable(), if cargos.len() == 2 { vec![0] } else { vec![0, 1] });
        assert_eq!(journal.room(), None);
        // What was in flight beside it ends.
        time::sleep(millis(100)).await;
        let writes = sim.disk().counters(ring_path(&sim)).writes;
        journal.free_below(journal.next_number());
        time::sleep(millis(100)).await;
        let error = journal.close().await.expect_err("it failed");
        assert!(error.to_string().contains("cannot write"), "{error}");
        assert_eq!(sim.disk().counters(ring_path(&sim)).writes, writes, "nothing is written any more");
        assert!(told.failed.borrow().is_none(), "once");
    });
    sim.kill();
    sim.run(|| async {
        assert_eq!(offsets(&found_ring().await.blocks)[0], 0, "what was acknowledged stays");
        let (journal, _) = start_again().await;
        write(&journal, 7, 100).await;
        acknowledged(&journal).await;
    });
}

#[test]
fn rule_12_what_a_failed_flush_kept_from_the_disk_is_not_found_in_the_page_cache() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..60 {
        let sim = sim(seed);
        sim.run(|| async {
            let (journal, told) = start_new_relaxed().await;
            write(&journal, 0, 100).await;
            sim.disk().fail_next_flush("*.relaxed", io::ErrorKind::Other);
            failed(&journal).await;
            assert!(told.durable().is_empty() && told.failed.borrow().is_some(), "nobody takes it for durable");
        });
        sim.kill();
        let found = sim.run(|| async { offsets(&found_ring().await.blocks) });
        // What that start found it may have built on, and shown.
        sim.crash();
        assert_eq!(sim.run(|| async { offsets(&found_ring().await.blocks) }), found, "seed {seed}");
        lost += u32::from(found.is_empty());
        kept += u32::from(found == [0]);
    }
    assert!(lost > 10 && kept > 10, "{lost} lost, {kept} kept");
}

#[test]
fn rule_12_a_first_block_that_fails_leaves_the_ring_as_it_is() {
    let sim = sim(12);
    sim.run(|| async {
        let (journal, _) = start_new().await;
        write(&journal, 0, 100).await;
        acknowledged(&journal).await;
        journal.close().await.expect("closed");
        let ring = Ring::resume(dir(), &found_ring().await, &small()).await.expect("a ring").expect("the size");
        sim.disk().inject(Fault::on(Operation::Write, "*.ring"));
        let told = |error: std::sync::Arc<io::Error>, _| panic!("nobody waits: {error}");
        let refused = Journal::<u64>::start(ring, small(), |_, _| (), told).await;
        assert!(refused.expect_err("it failed").to_string().contains("cannot write"));
        let ring = found_ring().await;
        assert!(offsets(&ring.blocks) == [0] || ring.blocks.entries.is_empty(), "whether it landed is not known");
    });
}

#[test]
fn a_ring_that_is_not_complete_is_removed_and_one_of_another_size_is_not_taken_up() {
    for step in 0..30 {
        let sim = sim(step);
        sim.run(|| async {
            found().await;
            sim.disk().inject(Fault::on_any("*.ring*").after(step));
            let prepared = Ring::prepare(dir(), SHARD, Flushing::Each, &small()).await;
            sim.disk().clear_faults();
            let left = fs::read_dir(dir()).await.expect("listed").len();
            assert_eq!(left, usize::from(prepared.is_ok()), "another attempt makes another");
        });
        sim.crash();
        sim.run(|| async {
            let found = found().await;
            assert!(found.rings.len() <= 1 && fs::read_dir(dir()).await.expect("listed").len() == found.rings.len());
            for ring in &found.rings {
                assert_eq!((ring.bytes, &ring.blocks), (16 * UNIT, &crate::FoundBlocks::default()), "it is complete");
                let larger = JournalConfig { ring_bytes: 17 * UNIT, ..small() };
                assert!(Ring::resume(dir(), ring, &larger).await.expect("asked").is_none());
                let longer_blocks = JournalConfig { ring_bytes: 64 * UNIT, ..small() };
                assert!(Ring::resume(dir(), ring, &longer_blocks).await.expect("asked").is_none());
                remove_ring(dir(), ring.name).await.expect("removed");
                remove_ring(dir(), ring.name).await.expect("gone is gone");
            }
        });
        sim.crash();
        sim.run(|| async { assert!(found().await.rings.is_empty(), "durably") });
    }
}

#[test]
fn preparing_writes_all_of_the_ring_in_the_background_of_a_journal_in_use() {
    let sim = sim(14);
    sim.run(|| async {
        let (journal, _) = start_new().await;
        let config = JournalConfig { ring_bytes: (2 << 20) + (700 << 10), ..JournalConfig::default() };
        let preparing = task::Gate::new();
        let prepare = async move {
            let ring = Ring::prepare(dir(), SHARD, Flushing::Each, &config).await.expect("a ring");
            assert_ne!(ring.name().number.0, 0);
        };
        preparing.spawn("prepares", prepare).expect("open");
        for offset in 0..50 {
            let block = write(&journal, offset, 100).await;
            journal.free_below(block);
        }
        preparing.close().await;
        let other = sim.disk().durable_files().into_iter().find(|path| *path != dir().join(journal.name().file_name()));
        let other = other.expect("durably there");
        let zeros = sim.disk().read_durable(&other).expect("there");
        assert!(zeros.len() == (2 << 20) + (700 << 10) && zeros.iter().all(|byte| *byte == 0));
        assert_eq!(sim.disk().counters(&other).writes, 2 + 2, "a mebibyte at a time");
    });
}
