use proptest::prelude::*;

use super::*;

fn arbitrary_fact() -> impl Strategy<Value = Fact> {
    (0..10, any::<u128>(), any::<u32>(), any::<u64>(), any::<u64>(), 0..=i64::MAX).prop_map(
        |(kind, topic, partition, number, generation, offset)| {
            let id =
                LogId { topic_id: TopicId::new(Uuid::from_u128(topic)), partition: PartitionIndex::new(partition) };
            let (number, generation, offset) = (LogNumber(number), Generation(generation), Offset::new(offset));
            match kind {
                0 => Fact::Opened { id, number, generation, start: offset },
                1 => Fact::Closed { id, number, generation, end: offset },
                2 => Fact::Removed { id, number },
                3 => Fact::Corrupt { id, number, generation, proven_end: offset },
                4 => Fact::Repaired { id, number, generation, start: offset },
                5 => Fact::Compacted { id, number, until: offset },
                6 => Fact::Started { id, number, start: offset },
                7 => Fact::Reserved { id, number, until: offset },
                8 => Fact::JournalFile(JournalFile { ring: number.0, aside: Some(generation.0) }),
                _ => Fact::JournalFileGone(JournalFile { ring: number.0, aside: None }),
            }
        },
    )
}

fn arbitrary_block() -> impl Strategy<Value = Block> {
    let facts = prop::collection::vec(arbitrary_fact(), 0..=ENTRIES_MAX);
    (any::<u64>(), prop::option::of(any::<u16>()), any::<u32>(), any::<u32>(), facts).prop_map(
        |(start, shard, number, proven_blocks, facts)| {
            let writer = shard.map_or(TableWriter::Merged, |shard| TableWriter::Shard(ShardIndex::new(shard)));
            Block { table: TableId { start, writer }, number, proven_blocks, facts }
        },
    )
}

#[test]
fn a_block_holds_as_many_entries_as_documented() {
    assert_eq!(ENTRIES_MAX, 83);
}

#[test]
fn names_say_which_table_it_is() {
    let shard = TableId { start: 7, writer: TableWriter::Shard(ShardIndex::new(3)) };
    assert_eq!(shard.file_name(), "00000000000000000007-00003.table");
    let merged = TableId { start: u64::MAX, writer: TableWriter::Merged };
    assert_eq!(merged.file_name(), "18446744073709551615-merged.table");
    for table in [shard, merged] {
        assert_eq!(TableId::parse(&table.file_name()), Some(table));
    }
    for name in
        ["7-3.table", "00000000000000000007-00003.table.tmp", "x", "-.table", "00000000000000000007-70000.table"]
    {
        assert_eq!(TableId::parse(name), None, "{name}");
    }
}

#[test]
fn a_block_of_zeros_is_none() {
    assert_eq!(Block::decode(&[0; BLOCK_BYTES]), None);
    assert_eq!(Block::decode(&[]), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_round_trip_and_damage_is_noticed(block in arbitrary_block(), at in 0..BLOCK_BYTES, bit in 0_u8..8) {
        let mut bytes = vec![0xEE; BLOCK_BYTES];
        block.encode_into(&mut bytes);
        prop_assert_eq!(Block::decode(&bytes), Some(block));
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(Block::decode(&bytes), None);
    }
}
