//! Rule 6: what cannot be placed is kept aside before it is freed.

use std::io;

use ringmq_runtime::sim::{Fault, Operation};
use ringmq_runtime::time;

use super::support::*;
use crate::{AsideName, keep_aside, remove_aside};

#[test]
fn rule_06_blocks_kept_aside_are_found_after_the_ring_was_written_over() {
    let sim = sim(1);
    let first = sim.run(|| async {
        let (journal, _) = start_new().await;
        // The copy goes over the end of the file.
        for offset in 0..9 {
            let block = write(&journal, offset, 100).await;
            journal.free_below(block);
        }
        let mut blocks = Vec::new();
        for offset in 9..13 {
            blocks.push(write(&journal, offset, 5000).await);
        }
        acknowledged(&journal).await;
        let end = journal.next_number();
        assert!(blocks[0].get() < 16 && end.get() > 16, "{blocks:?} to {end}");
        journal.keep_aside(dir(), blocks[0]..end).await.expect("kept");
        journal.free_below(end);
        for offset in 100..140 {
            let block = write(&journal, offset, 100).await;
            journal.free_below(block);
        }
        acknowledged(&journal).await;
        blocks[0]
    });
    sim.crash();
    for _ in 0..2 {
        sim.run(|| async {
            let mut found = found().await;
            let aside = found.asides.remove(0);
            assert!(found.asides.is_empty());
            assert_eq!(aside.name, AsideName { ring: found.rings[0].name.number, first });
            assert!(is_whole(&aside.blocks));
            assert_eq!(offsets(&aside.blocks), [9, 10, 11, 12], "until somebody removes it");
        });
        sim.crash();
    }
    sim.run(|| async {
        let found = found().await;
        remove_aside(dir(), &found.asides[0]).await.expect("removed");
        remove_aside(dir(), &found.asides[0]).await.expect("gone is gone");
    });
    sim.crash();
    sim.run(|| async { assert!(found().await.asides.is_empty(), "durably") });
}

#[test]
fn rule_06_a_start_keeps_aside_what_it_found_and_may_be_interrupted_at_any_step() {
    let mut interrupted = 0;
    for step in 0..20 {
        let sim = sim(step);
        sim.run(|| async {
            let (journal, _) = start_new().await;
            for offset in 0..4 {
                write(&journal, offset, 3000).await;
            }
            acknowledged(&journal).await;
        });
        sim.crash();
        sim.run(|| async {
            let ring = found_ring().await;
            sim.disk().inject(Fault::on_any("*.aside*").after(step));
            let kept = keep_aside(dir(), &ring, ring.floor..ring.next).await;
            sim.disk().clear_faults();
            interrupted += u32::from(kept.is_err());
        });
        sim.crash();
        // Again, as the next start does.
        sim.run(|| async {
            let before = found().await;
            let ring = &before.rings[0];
            assert_eq!(offsets(&ring.blocks), [0, 1, 2, 3]);
            assert!(
                before.asides.iter().all(|aside| offsets(&aside.blocks) == [0, 1, 2, 3] && is_whole(&aside.blocks))
            );
            keep_aside(dir(), ring, ring.floor..ring.next).await.expect("kept");
            start_again_of(ring).await;
        });
        sim.crash();
        sim.run(|| async {
            let found = found().await;
            assert!(found.rings[0].blocks.entries.is_empty(), "the ring is free");
            assert_eq!(offsets(&found.asides[0].blocks), [0, 1, 2, 3]);
        });
    }
    assert!(interrupted > 5, "{interrupted}");
}

async fn start_again_of(ring: &crate::FoundRing) {
    let ring = crate::Ring::resume(dir(), ring, &small()).await.expect("a ring").expect("of the same size");
    let (journal, _) = start(ring).await;
    time::sleep(millis(1)).await;
    drop(journal);
}

#[test]
fn rule_06_an_aside_file_that_rots_tells_what_is_lost() {
    for unit in 0..3 {
        let sim = sim(3);
        sim.run(|| async {
            let (journal, _) = start_new().await;
            for offset in 0..3 {
                write(&journal, offset, 3000).await;
            }
            acknowledged(&journal).await;
            journal.close().await.expect("closed");
            let ring = found_ring().await;
            keep_aside(dir(), &ring, ring.blocks.entries[0].block..ring.next).await.expect("kept");
        });
        let aside = sim.disk().files().into_iter().find(|path| path.extension().is_some_and(|end| end == "aside"));
        sim.disk().flip_bit(aside.expect("a file"), unit * UNIT + 200, 1).expect("there");
        sim.run(|| async {
            let blocks = found().await.asides.remove(0).blocks;
            let left: Vec<_> = (0..3).filter(|offset| *offset != unit).collect();
            assert_eq!(offsets(&blocks), left);
            let lost: Vec<_> = blocks.lost.iter().map(|end| end.offset.as_u64()).collect();
            assert_eq!((lost, blocks.lost_unknown), (vec![unit + 1], false), "the closing block tells of the last");
        });
    }
}

#[test]
fn rule_06_only_blocks_that_the_ring_holds_can_be_kept() {
    let sim = sim(4);
    sim.run(|| async {
        let (journal, _) = start_new().await;
        let first = write(&journal, 0, 100).await;
        acknowledged(&journal).await;
        let second = write(&journal, 1, 100).await;
        let end = journal.next_number();
        let refusals = [first..end, second..end, second..second, second..first];
        for blocks in refusals {
            let refused = journal.keep_aside(dir(), blocks).await.expect_err("not acknowledged, or none");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{refused}");
        }
        acknowledged(&journal).await;
        journal.free_below(second);
        assert!(journal.keep_aside(dir(), first..end).await.is_err(), "the first one is free");
        sim.disk().inject(Fault::on(Operation::Write, "*.aside.tmp"));
        assert!(journal.keep_aside(dir(), second..end).await.is_err());
        journal.keep_aside(dir(), second..end).await.expect("kept: the ring is in use, and can be read");
    });
}
