//! One file's content: live against a real file, durable against the rules.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::buffer::BLOCK_BYTES;
use crate::sim::dice::{Dice, Purpose};
use crate::sim::disk::content::{Content, Sequence};
use crate::sim::disk::fate::Fates;

const BLOCK: u64 = BLOCK_BYTES as u64;
const BLOCKS: u64 = 6;

#[derive(Clone, Debug)]
enum Step {
    Write { position: u64, len: usize },
    Truncate { size: u64 },
    Preallocate { size: u64 },
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = BLOCKS * BLOCK;
    let step = prop_oneof![
        (0..end, 1..3 * BLOCK_BYTES).prop_map(|(position, len)| Step::Write { position, len }),
        (0..BLOCKS, 1..=3_usize)
            .prop_map(|(block, count)| Step::Write { position: block * BLOCK, len: count * BLOCK_BYTES }),
        (0..end).prop_map(|size| Step::Truncate { size }),
        (0..end).prop_map(|size| Step::Preallocate { size }),
        Just(Step::Flush),
    ];
    vec(step, 1..40)
}

/// Applies steps; the number of each is what its write is filled with.
fn apply(content: &mut Content, steps: &[Step]) {
    for (number, step) in (1_u64..).zip(steps) {
        let sequence = Sequence(number);
        match *step {
            Step::Write { position, len } => content.write(sequence, position, &vec![fill(number); len]),
            Step::Truncate { size } => content.truncate(sequence, size),
            Step::Preallocate { size } => content.preallocate(sequence, size),
            Step::Flush => content.flush(sequence),
        }
    }
}

fn fill(number: u64) -> u8 {
    u8::try_from(number).unwrap()
}

/// The sizes that the file went through, from the last flush on.
fn sizes_since_flush(steps: &[Step]) -> BTreeSet<usize> {
    let last_flush = steps.iter().rposition(|step| matches!(step, Step::Flush)).unwrap_or(0);
    let size_after = |count| {
        let mut content = Content::default();
        apply(&mut content, &steps[..count]);
        content.live_bytes().len()
    };
    let from = if matches!(steps[last_flush], Step::Flush) { last_flush + 1 } else { 0 };
    (from..=steps.len()).map(size_after).collect()
}

#[test]
fn a_synchronous_write_is_not_cut_off_by_a_truncation_before_it() {
    for seed in 0..64 {
        let mut content = Content::default();
        content.preallocate(Sequence(1), 4 * BLOCK);
        content.flush(Sequence(1));
        content.truncate(Sequence(2), BLOCK);
        content.preallocate(Sequence(3), 4 * BLOCK);
        content.write(Sequence(4), 2 * BLOCK, &[7; BLOCK_BYTES]);
        content.persist_write(Sequence(4), 2 * BLOCK, BLOCK_BYTES);
        content.crash(&mut Fates::draw(&mut Dice::new(seed, Purpose::Fate), true));
        let bytes = content.live_bytes();
        assert_eq!(bytes.get(2 * BLOCK_BYTES..3 * BLOCK_BYTES), Some(&[7; BLOCK_BYTES][..]), "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_live_image_is_what_a_real_file_would_be(steps in steps()) {
        let real = tempfile::tempfile().unwrap();
        for (number, step) in (1_u64..).zip(&steps) {
            match *step {
                Step::Write { position, len } => real.write_all_at(&vec![fill(number); len], position).unwrap(),
                Step::Truncate { size } => real.set_len(size).unwrap(),
                Step::Preallocate { size } => {
                    let old = real.metadata().unwrap().len();
                    real.set_len(old.max(size)).unwrap();
                }
                Step::Flush => {}
            }
        }
        let mut expected = vec![0; usize::try_from(real.metadata().unwrap().len()).unwrap()];
        real.read_exact_at(&mut expected, 0).unwrap();
        let mut content = Content::default();
        apply(&mut content, &steps);
        prop_assert!(content.live_bytes() == expected);
    }

    #[test]
    fn a_flush_settles_everything(steps in steps(), seed: u64) {
        let mut content = Content::default();
        apply(&mut content, &steps);
        content.flush(Sequence(steps.len() as u64));
        let live = content.live_bytes();
        prop_assert!(content.durable_bytes() == live);
        let allocated = content.allocated_blocks();
        content.crash(&mut Fates::draw(&mut Dice::new(seed, Purpose::Fate), true));
        prop_assert!(content.live_bytes() == live);
        prop_assert_eq!(content.allocated_blocks(), allocated);
    }

    #[test]
    fn a_synchronous_write_is_settled_whatever_came_before(steps in steps(), block in 0..BLOCKS, seed: u64) {
        let mut content = Content::default();
        apply(&mut content, &steps);
        let sequence = Sequence(steps.len() as u64 + 1);
        content.write(sequence, block * BLOCK, &[0xff; BLOCK_BYTES]);
        content.persist_write(sequence, block * BLOCK, BLOCK_BYTES);
        content.crash(&mut Fates::draw(&mut Dice::new(seed, Purpose::Fate), true));
        prop_assert!(content.read(block * BLOCK, BLOCK_BYTES) == [0xff; BLOCK_BYTES]);
    }

    #[test]
    fn a_crash_that_keeps_nothing_leaves_the_durable_image(steps in steps()) {
        let mut content = Content::default();
        apply(&mut content, &steps);
        let durable = content.durable_bytes();
        content.crash(&mut Fates::keeping_nothing(&mut Dice::new(0, Purpose::Fate)));
        prop_assert!(content.live_bytes() == durable);
    }

    #[test]
    fn a_crash_leaves_a_size_that_the_file_had_since_the_flush(steps in steps(), seed: u64) {
        let mut content = Content::default();
        apply(&mut content, &steps);
        content.crash(&mut Fates::draw(&mut Dice::new(seed, Purpose::Fate), true));
        let sizes = sizes_since_flush(&steps);
        let size = content.live_bytes().len();
        prop_assert!(sizes.contains(&size), "{size} is none of {sizes:?}");
    }
}

/// Steps on blocks of a file whose size is durable, so that only versions of blocks are open.
#[derive(Clone, Debug)]
enum BlockStep {
    Write {
        block: u64,
        count: u64,
        dsync: bool,
    },
    /// Submitted that many steps earlier than it completes.
    Flush {
        steps_ago: u64,
        fails: bool,
    },
}

fn block_steps() -> impl Strategy<Value = Vec<BlockStep>> {
    let step = prop_oneof![
        4 => (0..BLOCKS, 1..=BLOCKS, prop::bool::weighted(0.2))
            .prop_map(|(block, count, dsync)| BlockStep::Write { block, count: count.min(BLOCKS - block), dsync }),
        1 => (0..6_u64, prop::bool::weighted(0.2)).prop_map(|(steps_ago, fails)| BlockStep::Flush { steps_ago, fails }),
    ];
    vec(step, 1..60)
}

/// The newest write of a block that the rules say no crash can take, by its number; 0 is what was there first.
fn promised(steps: &[BlockStep], block: u64) -> u64 {
    let numbered = || (1_u64..).zip(steps);
    // A flush covers a write that had completed when it was submitted, unless an earlier flush that covered it failed.
    let covers = |number: u64, ago: u64, write: u64| write <= number.saturating_sub(ago);
    let is_flushed = |write: u64| {
        let mut covering = numbered().filter_map(|(number, step)| match step {
            BlockStep::Flush { steps_ago, fails } if covers(number, *steps_ago, write) => Some(!fails),
            _ => None,
        });
        covering.next() == Some(true)
    };
    let is_promised = |(number, step): (u64, &BlockStep)| match step {
        BlockStep::Write { block: first, count, dsync } => {
            let touches = (*first..first + count).contains(&block);
            (touches && (*dsync || is_flushed(number))).then_some(number)
        }
        BlockStep::Flush { .. } => None,
    };
    numbered().filter_map(is_promised).max().unwrap_or(0)
}

/// A file of zeros, durable, after these steps; each write is filled with its number. A flush that fails draws its fates.
fn content_after(steps: &[BlockStep], fates: impl Fn(&mut Dice) -> Fates<'_>) -> Content {
    let mut content = Content::default();
    content.preallocate(Sequence(1), BLOCKS * BLOCK);
    content.flush(Sequence(1));
    let sequence = |number: u64| Sequence(number + 1);
    for (number, step) in (1_u64..).zip(steps) {
        match *step {
            BlockStep::Write { block, count, dsync } => {
                let data = vec![fill(number); usize::try_from(count).unwrap() * BLOCK_BYTES];
                content.write(sequence(number), block * BLOCK, &data);
                if dsync {
                    content.persist_write(sequence(number), block * BLOCK, data.len());
                }
            }
            BlockStep::Flush { steps_ago, fails } => {
                let upto = sequence(number.saturating_sub(steps_ago));
                let dice = &mut Dice::new(number, Purpose::Fate);
                if fails { content.fail_flush(upto, &mut fates(dice)) } else { content.flush(upto) }
            }
        }
    }
    content
}

/// The writes that touched a block.
fn writes_to(steps: &[BlockStep], block: u64) -> BTreeSet<u64> {
    let touches = |step: &BlockStep| match step {
        BlockStep::Write { block: first, count, .. } => (*first..first + count).contains(&block),
        BlockStep::Flush { .. } => false,
    };
    (1_u64..).zip(steps).filter(|(_, step)| touches(step)).map(|(number, _)| number).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_never_takes_what_was_promised(steps in block_steps(), seed: u64) {
        let mut content = content_after(&steps, |dice| Fates::draw(dice, true));
        content.crash(&mut Fates::draw(&mut Dice::new(seed, Purpose::Fate), true));
        let left = content.live_bytes();
        prop_assert_eq!(left.len() as u64, BLOCKS * BLOCK);
        for (sector, bytes) in left.chunks(512).enumerate() {
            let block = sector as u64 / 8;
            let written = u64::from(bytes[0]);
            prop_assert!(bytes.iter().all(|byte| *byte == bytes[0]), "sector {sector} is torn");
            let promised = promised(&steps, block);
            prop_assert!(written >= promised, "block {block} has write {written}, promised was {promised}");
            let possible = writes_to(&steps, block);
            prop_assert!(written == 0 || possible.contains(&written), "block {block} has write {written} of {possible:?}");
        }
    }

    #[test]
    fn a_crash_that_keeps_nothing_leaves_exactly_what_was_promised(steps in block_steps()) {
        let mut content = content_after(&steps, |dice| Fates::keeping_nothing(dice));
        content.crash(&mut Fates::keeping_nothing(&mut Dice::new(0, Purpose::Fate)));
        for (block, bytes) in (0..).zip(content.live_bytes().chunks(BLOCK_BYTES)) {
            // Blocks with many unflushed versions are written back before anybody asks for it.
            if writes_to(&steps, block).len() <= 8 {
                prop_assert_eq!(u64::from(bytes[0]), promised(&steps, block), "block {}", block);
            }
        }
    }
}
