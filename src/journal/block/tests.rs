use proptest::prelude::*;

use super::*;

const RING: RingNumber = RingNumber(0x0123_4567_89AB_CDEF);

fn arbitrary_header() -> impl Strategy<Value = EntryHeader> {
    let identity = (any::<u128>(), 0_u32..3, any::<u64>(), any::<u64>());
    (identity, 0..1_i64 << 60, 1..1_i64 << 31, 0..1_i64 << 60).prop_map(|(identity, base, records, frames_end)| {
        let (topic, partition, log_number, generation) = identity;
        EntryHeader {
            topic_id: TopicId::from_bytes(topic.to_be_bytes()),
            partition: PartitionIndex::new(partition),
            log_number,
            generation,
            base_offset: Offset::new(base),
            next_offset: Offset::new(base + records),
            frames_end: Offset::new(frames_end),
        }
    })
}

/// Entries of few logs, so that some follow each other.
fn arbitrary_entries() -> impl Strategy<Value = Vec<(EntryHeader, Vec<u8>)>> {
    let topics = prop::sample::select(vec![[1_u8; 16], [2; 16], [3; 16]]);
    let header = (arbitrary_header(), topics)
        .prop_map(|(header, topic)| EntryHeader { topic_id: TopicId::from_bytes(topic), ..header });
    prop::collection::vec((header, prop::collection::vec(any::<u8>(), 0..300)), 0..12)
}

fn views(entries: &[(EntryHeader, Vec<u8>)]) -> Vec<Entry<'_>> {
    entries.iter().map(|(header, payload)| Entry { header: *header, payload }).collect()
}

fn header(units: u32) -> BlockHeader {
    BlockHeader {
        ring: RING,
        number: BlockNumber(70_007),
        previous: BlockNumber(70_001),
        previous_checksum: 0xC0FF_EE00,
        floor: BlockNumber(69_000),
        durable_through: BlockNumber(70_003),
        units,
    }
}

fn encoded(header: &BlockHeader, before: &[Entry<'_>], entries: &[Entry<'_>]) -> Vec<u8> {
    let mut ends = Ends::default();
    ends.replace(before);
    // What a pooled buffer holds is anything.
    let mut block = vec![0xAA; header.block_bytes()];
    header.encode(&ends, entries, &mut block);
    block
}

/// With a right checksum again.
fn sealed(mut block: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(&block);
    block[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_be_bytes());
    block
}

fn one_entry() -> EntryHeader {
    EntryHeader {
        topic_id: TopicId::from_bytes([7; 16]),
        partition: PartitionIndex::new(3),
        log_number: 4,
        generation: 5,
        base_offset: Offset::new(100),
        next_offset: Offset::new(103),
        frames_end: Offset::new(90),
    }
}

#[test]
fn the_layout_is_the_documented_one() {
    let before =
        EntryHeader { partition: PartitionIndex::new(9), generation: 8, next_offset: Offset::new(200), ..one_entry() };
    let block = encoded(
        &header(1),
        &[Entry { header: before, payload: b"" }],
        &[Entry { header: one_entry(), payload: b"batch" }],
    );
    let be = |at: usize, len: usize| block[at..at + len].iter().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
    assert_eq!(&block[..4], b"RQJB");
    assert_eq!((be(4, 2), be(6, 2), be(8, 8)), (1, 72, u128::from(RING.0)));
    assert_eq!((be(16, 8), be(24, 8), be(32, 8), be(40, 8)), (70_007, 70_001, 69_000, 70_003));
    assert_eq!((be(48, 4), be(52, 4), be(56, 4), be(60, 4), be(64, 4)), (1, 1, 1, 69, 0xC0FF_EE00));
    assert_eq!(be(68, 4), u128::from(crc32fast::hash(&[&block[..68], &block[72..]].concat())));
    assert_eq!(&block[72..88], &[7; 16]);
    assert_eq!((be(88, 4), be(92, 8), be(100, 8)), (9, 8, 200));
    assert_eq!(&block[108..124], &[7; 16]);
    assert_eq!((be(124, 4), be(128, 4), be(132, 8), be(140, 8)), (3, 5, 4, 5));
    assert_eq!((be(148, 8), be(156, 8), be(164, 8)), (100, 103, 90));
    assert_eq!(&block[172..177], b"batch");
    assert!(block[177..].iter().all(|byte| *byte == 0), "the padding is zero");
}

#[test]
fn a_block_of_another_ring_is_none() {
    let block = encoded(&header(1), &[], &[]);
    assert!(BlockView::decode(&block, RING).is_some());
    assert!(BlockView::decode(&block, RingNumber(RING.0 ^ 1)).is_none());
    assert!(BlockView::decode(&[0; 4096], RingNumber(0)).is_none());
}

#[test]
fn entries_of_one_log_that_follow_each_other_share_an_end() {
    let entry = |partition, next| EntryHeader {
        partition: PartitionIndex::new(partition),
        next_offset: Offset::new(next),
        ..one_entry()
    };
    let headers = [entry(1, 110), entry(1, 120), entry(2, 130), entry(1, 140), entry(1, 150)];
    let entries = headers.map(|header| Entry { header, payload: b"" });
    let block = encoded(&header(1), &entries, &[]);
    let ends: Vec<_> = BlockView::decode(&block, RING).expect("a block").ends().collect();
    let ends: Vec<_> = ends.iter().map(|end| (end.partition.get(), end.offset.get())).collect();
    assert_eq!(ends, [(1, 120), (2, 130), (1, 150)]);
}

#[test]
fn what_its_numbers_contradict_is_no_block() {
    let sound = header(2);
    let contradictions = [
        BlockHeader { units: 0, ..sound },
        BlockHeader { units: 129, ..sound },
        BlockHeader { previous: BlockNumber(70_008), ..sound },
        BlockHeader { floor: BlockNumber(70_008), ..sound },
        BlockHeader { durable_through: BlockNumber(70_008), ..sound },
    ];
    for contradiction in contradictions {
        let mut block = vec![0; 129 * UNIT_BYTES];
        contradiction.put_fields([0; 3], &mut block);
        block.truncate(contradiction.block_bytes().max(UNIT_BYTES));
        assert!(BlockView::decode(&sealed(block), RING).is_none(), "{contradiction:?}");
    }
    let entry = Entry { header: one_entry(), payload: b"batch" };
    let sound = encoded(&sound, &[entry], &[entry, entry]);
    // One count or length too many or too few: of ends, of entries, of their bytes, of a payload.
    for (at, wrong) in [(55, 0), (55, 2), (59, 1), (59, 3), (63, 137), (63, 139), (72 + 36 + 23, 4), (72 + 36 + 23, 6)]
    {
        let mut block = sound.clone();
        block[at] = wrong;
        assert!(BlockView::decode(&sealed(block), RING).is_none(), "{wrong} at {at}");
    }
    let mut no_records = sound.clone();
    no_records[72 + 36 + 55] = 100;
    assert!(BlockView::decode(&sealed(no_records), RING).is_none());
    assert!(BlockView::decode(&sealed(sound), RING).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_round_trip(before in arbitrary_entries(), entries in arbitrary_entries(), more_units in 0_u32..3) {
        let (before, entries) = (views(&before), views(&entries));
        let content = HEADER_BYTES + before.len() * END_BYTES + entries.iter().map(Entry::encoded_bytes).sum::<usize>();
        let header = header(field(content.div_ceil(UNIT_BYTES)) + more_units);
        let block = encoded(&header, &before, &entries);
        let view = BlockView::decode(&block, RING).expect("a block");
        prop_assert_eq!(view.header, header);
        prop_assert_eq!(view.entries().collect::<Vec<_>>(), entries);
        // Of every log the last end that is told is how far its entries reach.
        for entry in &before {
            let last = before.iter().rfind(|other| entry.header.end().is_of(&other.header)).expect("itself");
            let told = view.ends().filter(|end| end.is_of(&entry.header)).last();
            prop_assert_eq!(told, Some(last.header.end()));
        }
        prop_assert!(view.ends().all(|end| before.iter().any(|entry| entry.header.end() == end)));
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed(entries in arbitrary_entries(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut block = encoded(&header(2), &[], &views(&entries));
        let at = at.index(block.len());
        block[at] ^= 1 << bit;
        prop_assert!(BlockView::decode(&block, RING).is_none());
    }

    #[test]
    fn a_block_torn_between_sectors_is_the_new_one_the_old_one_or_none(
        entries in (arbitrary_entries(), arbitrary_entries()),
        landed in any::<u16>(),
    ) {
        let old = BlockHeader { number: BlockNumber(60_007), previous: BlockNumber(60_000), floor: BlockNumber(60_000), durable_through: BlockNumber(60_000), ..header(2) };
        let old = encoded(&old, &[], &views(&entries.0));
        let new = encoded(&header(2), &[], &views(&entries.1));
        let mut torn = old.clone();
        for (sector, bytes) in torn.chunks_mut(512).enumerate().filter(|(sector, _)| landed & 1 << sector != 0) {
            bytes.copy_from_slice(&new[sector * 512..][..512]);
        }
        if BlockView::decode(&torn, RING).is_some() {
            prop_assert!(torn == new || torn == old);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..9000), at in 0_usize..76) {
        let _ = BlockView::decode(&bytes, RING).map(|view| (view.ends().count(), view.entries().count()));
        // Noise behind a good beginning, with a right checksum.
        let mut block = encoded(&header(1), &[], &[]);
        let rest = block.len().min(bytes.len());
        block[at..rest.max(at)].copy_from_slice(&bytes[at.min(rest)..rest]);
        if let Some(view) = BlockView::decode(&sealed(block), RING) {
            let entry_bytes: usize = view.entries().map(|entry| entry.encoded_bytes()).sum();
            prop_assert_eq!(entry_bytes, view.entry_bytes().len());
        }
    }
}
