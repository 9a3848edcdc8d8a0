//! A byte of a ring rots: what is lost is told, and nothing else changes.

use super::support::*;
use crate::FoundRing;

/// A ring with a needed, proven block of one or two units for each offset from 5 to 8, after a crash.
fn with_ring(damage: impl FnOnce(&ringmq_runtime::sim::Sim, &FoundRing), check: impl FnOnce(FoundRing, FoundRing)) {
    let sim = sim(1);
    sim.run(|| async {
        let (journal, _) = start_new().await;
        for offset in 0..9 {
            let block = write(&journal, offset, if offset % 2 == 0 { 500 } else { 4500 }).await;
            if offset <= 5 {
                journal.free_below(block);
            }
        }
        acknowledged(&journal).await;
        journal.close().await.expect("closed");
    });
    sim.crash();
    let before = sim.run(found_ring);
    assert_eq!(offsets(&before.blocks), [5, 6, 7, 8]);
    damage(&sim, &before);
    check(before, sim.run(found_ring));
}

#[test]
fn every_byte_of_a_needed_block_that_rots_is_told() {
    // Its own header, ends, entry header, payload, and the padding behind it.
    for at in (0..72).step_by(3).chain([80, 110, 150, 180, 4000, 4600, 5000, 8191]) {
        with_ring(
            |sim, ring| {
                let rotten = ring.blocks.entries[2].block;
                sim.disk().flip_bit(ring_path(sim), position(rotten) + at, 0).expect("there");
            },
            |before, after| {
                assert_eq!(offsets(&after.blocks), [5, 6, 8], "byte {at}");
                let lost: Vec<_> = after.blocks.lost.iter().map(|end| end.offset.get()).collect();
                assert_eq!((lost, after.blocks.lost_unknown, after.next), (vec![8], false, before.next));
            },
        );
    }
}

#[test]
fn a_free_block_that_rots_is_nobody_s_loss() {
    with_ring(
        |sim, ring| {
            let free = (ring.next.get() + 1..ring.floor.get() + 16).map(|number| number % 16 * UNIT);
            free.for_each(|at| sim.disk().overwrite(ring_path(sim), at, &[0x5A; 4096]).expect("there"));
        },
        |before, after| {
            assert_eq!((after.floor, after.next), (before.floor, before.next));
            assert_eq!((&after.blocks.entries, is_whole(&after.blocks)), (&before.blocks.entries, true));
        },
    );
}

#[test]
fn a_ring_of_noise_is_no_panic() {
    with_ring(
        |sim, _| sim.disk().overwrite(ring_path(sim), 0, &payload(9, 16 * 4096)).expect("there"),
        |_, after| assert_eq!((after.next.get(), after.blocks.entries.len()), (0, 0)),
    );
}

#[test]
fn a_file_that_was_cut_is_read_as_far_as_it_goes() {
    let sim = sim(2);
    sim.run(|| async {
        let (journal, _) = start_new().await;
        write(&journal, 0, 100).await;
        journal.close().await.expect("closed");
        let file = ringmq_runtime::file::OpenOptions { write: true, ..Default::default() };
        let ring = ringmq_runtime::file::File::open(ring_path(&sim), file).await.expect("opened");
        ring.truncate(3 * UNIT + 5).await.expect("cut");
        ring.close().await.expect("closed");
        let found = found_ring().await;
        assert_eq!((found.bytes, offsets(&found.blocks)), (3 * UNIT, vec![0]));
        assert!(crate::Ring::resume(dir(), &found, &small()).await.expect("asked").is_none());
    });
}
