//! Rings as bytes in memory: what is counted, what is told to be lost.

use std::time::Duration;

use ringmq_wire::{Offset, PartitionIndex, ShardIndex, TopicId};

use crate::block::{Entry, EntryHeader};
use crate::config::JournalConfig;
use crate::ledger::Ledger;
use crate::number::{BlockNumber, RingNumber};
use crate::recovery::FoundRing;
use crate::{Flushing, RingName, decode_ring};

const UNIT: usize = 4096;
const NAME: RingName = RingName { shard: ShardIndex::new(0), number: RingNumber(77), flushing: Flushing::Each };

/// A ring that lands at once, and the ledgers of its lives.
struct Image {
    config: JournalConfig,
    bytes: Vec<u8>,
    ledger: Ledger<()>,
}

impl Image {
    /// After the first block of the first life.
    fn new(units: usize) -> Image {
        let config = JournalConfig {
            ring_bytes: (units * UNIT) as u64,
            block_bytes_max: 2 * UNIT,
            blocks_in_flight_max: 2,
            idle: Duration::from_millis(5),
        };
        let ledger = Ledger::new(NAME, &config, BlockNumber::FIRST);
        let mut image = Image { bytes: vec![0; units * UNIT], config, ledger };
        image.close();
        image
    }

    /// A new life, with its first block.
    fn restart(&mut self) -> BlockNumber {
        let next = self.found().next;
        self.ledger = Ledger::new(NAME, &self.config, next);
        self.close()
    }

    /// An entry that follows offset `base`, in a block of that many units.
    fn write(&mut self, base: i64, units: usize) -> BlockNumber {
        let number = self.launch(base, units);
        self.land(number);
        number
    }

    /// The same; acknowledged when it is told to have landed. Its bytes are there at once.
    fn launch(&mut self, base: i64, units: usize) -> BlockNumber {
        let payload = vec![7; units * UNIT - 800];
        self.put(&[Entry { header: entry(base), payload: &payload }])
    }

    /// A block without entries.
    fn close(&mut self) -> BlockNumber {
        let number = self.put(&[]);
        self.land(number);
        number
    }

    fn put(&mut self, entries: &[Entry<'_>]) -> BlockNumber {
        let header = self.ledger.header(entries.iter().map(Entry::encoded_bytes).sum());
        let at = usize::try_from(self.ledger.position(header.number)).expect("small");
        let block = &mut self.bytes[at..][..header.block_bytes()];
        let checksum = header.encode(self.ledger.ends_before(), entries, block);
        self.ledger.launch(header, checksum, entries, None);
        header.number
    }

    fn land(&mut self, number: BlockNumber) {
        self.ledger.land(number);
        while self.ledger.acknowledge().is_some() {}
    }

    fn unit(&mut self, number: BlockNumber) -> &mut [u8] {
        let at = usize::try_from(self.ledger.position(number)).expect("small");
        &mut self.bytes[at..][..UNIT]
    }

    fn rot(&mut self, number: BlockNumber) {
        self.unit(number)[99] ^= 4;
    }

    /// What stands there as if the write had not landed.
    fn restore(&mut self, number: BlockNumber, old: &[u8]) {
        self.unit(number).copy_from_slice(old);
    }

    fn found(&self) -> FoundRing {
        decode_ring(NAME, &self.bytes)
    }
}

fn entry(base: i64) -> EntryHeader {
    EntryHeader {
        topic_id: TopicId::METADATA,
        partition: PartitionIndex::new(u32::try_from(base % 3).expect("small")),
        log_number: 1,
        generation: 2,
        base_offset: Offset::new(base),
        next_offset: Offset::new(base + 1),
        frames_end: Offset::new(base / 2),
    }
}

fn offsets(found: &FoundRing) -> Vec<i64> {
    found.blocks.entries.iter().map(|entry| entry.header.base_offset.get()).collect()
}

/// (partition, end) of what is lost.
fn lost(found: &FoundRing) -> Vec<(u32, i64)> {
    found.blocks.lost.iter().map(|end| (end.partition.get(), end.offset.get())).collect()
}

#[test]
fn a_ring_of_zeros_holds_nothing_and_begins_with_the_first_number() {
    for bytes in [vec![], vec![0; 16 * UNIT]] {
        let found = decode_ring(NAME, &bytes);
        assert_eq!((found.floor, found.next), (BlockNumber::FIRST, BlockNumber::FIRST));
        assert_eq!(found.blocks, crate::FoundBlocks::default());
        assert_eq!(found.bytes, bytes.len() as u64);
    }
}

#[test]
fn blocks_are_counted_from_the_floor_on_over_the_end_of_the_file() {
    let mut image = Image::new(16);
    let mut blocks = Vec::new();
    for base in 0..40 {
        blocks.push(image.write(base, 1 + usize::try_from(base % 2).expect("small")));
        if base >= 2 {
            image.ledger.free_below(blocks[blocks.len() - 2]);
        }
        let found = image.found();
        let expected: Vec<_> = ((base - 2).max(0)..=base).collect();
        assert_eq!(offsets(&found), if base < 3 { (0..=base).collect() } else { expected });
        assert_eq!(found.next, image.ledger.next());
        assert!(found.blocks.lost.is_empty() && !found.blocks.lost_unknown);
    }
    assert!(image.ledger.next().get() > 48, "three laps");
}

#[test]
fn rule_03_a_block_behind_a_missing_one_does_not_count_and_its_number_is_given_again() {
    let mut image = Image::new(16);
    image.write(0, 1);
    let hole = image.launch(1, 1);
    image.launch(2, 1);
    image.rot(hole);
    let found = image.found();
    assert_eq!((offsets(&found), found.next), (vec![0], hole));
    assert!(found.blocks.lost.is_empty(), "nothing proves that it was ever there");
}

#[test]
fn rule_04_a_left_over_behind_a_block_that_it_does_not_follow_is_passed_over() {
    let mut image = Image::new(32);
    image.write(0, 1);
    let hole = image.launch(1, 2);
    // It landed, and is not counted.
    let left_over = image.launch(2, 1);
    image.rot(hole);
    assert_eq!(image.restart(), hole);
    image.write(3, 1);
    assert_eq!(image.ledger.next(), left_over, "it stands where the next one would");
    let found = image.found();
    assert_eq!((offsets(&found), found.next), (vec![3], left_over));
}

#[test]
fn rule_04_a_left_over_never_takes_the_place_of_a_missing_block_of_the_same_length() {
    let mut image = Image::new(32);
    let torn = [image.launch(0, 1), image.launch(1, 1)];
    let left_over = image.launch(2, 1);
    let old = image.unit(left_over).to_vec();
    torn.into_iter().for_each(|block| image.rot(block));
    assert_eq!(image.restart(), torn[0]);
    assert_eq!(image.write(3, 1), torn[1]);
    assert_eq!(image.found().next, left_over, "by its number it would follow");
    assert_eq!(image.launch(4, 1), left_over);
    image.launch(5, 1);
    image.restore(left_over, &old);
    let found = image.found();
    assert_eq!((offsets(&found), found.next), (vec![3], left_over), "what stands behind it follows another block");
}

#[test]
fn rule_04_no_left_over_survives_at_the_end_of_a_lap() {
    // With units that are skipped there, a block of an older life in the skipped ones would have the number, and name
    // the predecessor, that a block of this life might have: which of the two counts, nobody could tell.
    let mut image = Image::new(16);
    while image.ledger.next().get() < 12 {
        let number = image.write(0, 1);
        image.ledger.free_below(number);
    }
    let torn = image.launch(1, 1);
    let left_over = image.launch(2, 1);
    image.rot(torn);
    assert_eq!(image.restart(), torn);
    assert_eq!(image.ledger.next(), left_over);
    let last = image.write(3, 2);
    assert_eq!((last.get(), image.ledger.next().get()), (13, 16), "it takes the unit that is left of the lap");
    image.write(4, 2);
    let found = image.found();
    assert_eq!((offsets(&found), found.next), (vec![3, 4], image.ledger.next()));
}

#[test]
fn rule_04_a_floor_counts_wherever_it_stands() {
    let mut image = Image::new(16);
    image.write(0, 1);
    let needed = image.write(1, 1);
    image.ledger.free_below(needed);
    let torn = image.launch(2, 1);
    image.launch(3, 1);
    image.rot(torn);
    let found = image.found();
    assert_eq!(
        (found.floor, offsets(&found), found.next),
        (needed, vec![1], torn),
        "the one behind the torn one has it"
    );
}

#[test]
fn rule_05_a_lost_block_is_told_by_the_one_behind() {
    let mut image = Image::new(16);
    image.write(0, 1);
    let rotten = image.write(1, 2);
    image.write(2, 1);
    image.close();
    image.rot(rotten);
    let found = image.found();
    assert_eq!((offsets(&found), lost(&found)), (vec![0, 2], vec![(1, 2)]));
    assert!(!found.blocks.lost_unknown);
    assert_eq!(found.next, image.ledger.next(), "the numbers go on behind it");
}

#[test]
fn rule_05_the_last_block_is_told_by_the_closing_one() {
    let mut image = Image::new(16);
    let rotten = image.write(1, 1);
    assert!(lost(&image.found()).is_empty());
    image.close();
    image.rot(rotten);
    let found = image.found();
    assert_eq!((offsets(&found), lost(&found), found.blocks.lost_unknown), (vec![], vec![(1, 2)], false));
}

#[test]
fn rule_05_of_several_lost_blocks_only_the_last_one_is_told() {
    let mut image = Image::new(16);
    let rotten = [image.write(0, 1), image.write(1, 1)];
    image.write(2, 1);
    image.close();
    rotten.into_iter().for_each(|block| image.rot(block));
    let found = image.found();
    assert_eq!((offsets(&found), lost(&found)), (vec![2], vec![(1, 2)]));
    assert!(found.blocks.lost_unknown, "whose the first one was, nobody knows");
}

#[test]
fn rule_05_of_the_newest_two_lost_nothing_is_told() {
    let mut image = Image::new(16);
    let rotten = image.write(0, 1);
    let in_flight = image.launch(1, 1);
    image.launch(2, 1);
    image.rot(rotten);
    image.rot(in_flight);
    let found = image.found();
    assert_eq!((offsets(&found), lost(&found), found.next), (vec![], vec![], in_flight));
    assert!(found.blocks.lost_unknown);
}

#[test]
fn rule_05_two_holes_are_two() {
    let mut image = Image::new(16);
    let blocks = [0, 1, 2, 3].map(|base| image.write(base, 1));
    image.close();
    image.rot(blocks[0]);
    image.rot(blocks[2]);
    let found = image.found();
    assert_eq!((offsets(&found), lost(&found)), (vec![1, 3], vec![(0, 1), (2, 3)]));
    assert!(!found.blocks.lost_unknown);
}

#[test]
fn rule_05_every_readable_block_is_evidence_of_frames() {
    let mut image = Image::new(16);
    image.write(30, 1);
    let freed = image.write(33, 1);
    image.ledger.free_below(image.ledger.next());
    image.write(31, 1);
    let found = image.found();
    assert_eq!(offsets(&found), [31]);
    let ends: Vec<_> = found.blocks.frames_ends.iter().map(|end| (end.partition.get(), end.offset.get())).collect();
    assert_eq!(ends, [(0, 16), (1, 15)], "the block {freed} is free, and still says so");
}

#[test]
fn rule_04_a_torn_first_block_leaves_all_that_was_there() {
    let mut image = Image::new(16);
    for base in 0..20 {
        let number = image.write(base, 2);
        image.ledger.free_below(number);
    }
    let before = image.found();
    assert_eq!(offsets(&before), [18, 19]);
    let old = image.unit(before.next).to_vec();
    let first = image.restart();
    assert_eq!(offsets(&image.found()), [0_i64; 0], "it frees everything");
    image.restore(first, &old);
    assert_eq!(image.found(), before);
}

#[test]
fn a_block_of_another_ring_never_counts() {
    let mut image = Image::new(16);
    image.write(0, 1);
    let other = RingName { number: RingNumber(78), ..NAME };
    assert_eq!(decode_ring(other, &image.bytes).blocks, crate::FoundBlocks::default());
}

#[test]
fn a_block_at_another_place_does_not_count() {
    let mut image = Image::new(16);
    let block = image.write(0, 1);
    let moved = image.unit(block).to_vec();
    image.restore(block.plus(1), &moved);
    assert_eq!(offsets(&image.found()), [0]);
    image.rot(block);
    assert_eq!(offsets(&image.found()), [0_i64; 0]);
}

#[test]
fn what_looks_like_a_block_inside_of_a_block_is_not_looked_at() {
    let mut image = Image::new(16);
    // The strongest forgery there is, with the ring's own number and the right place: a real block of later.
    let forged = {
        let mut later = Image::new(16);
        later.write(0, 2);
        let number = later.write(1, 1);
        later.unit(number).to_vec()
    };
    let at = UNIT - 72 - 64;
    let mut payload = vec![0; at];
    payload.extend_from_slice(&forged);
    image.put(&[Entry { header: entry(5), payload: &payload[..2 * UNIT - 72 - 64] }]);
    assert_eq!(offsets(&image.found()), [5]);
}
