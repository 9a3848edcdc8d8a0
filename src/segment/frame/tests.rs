use proptest::prelude::*;

use super::*;

fn arbitrary_header() -> impl Strategy<Value = FrameHeader> {
    let identity = (any::<u128>(), any::<u32>(), 0..=i32::MAX, any::<u64>(), any::<u64>());
    let offsets = (0..1_i64 << 40, 0..1_i64 << 30, 0..1_i64 << 30, 1..1_i64 << 31, 0..=i64::from(u32::MAX));
    let rest = (any::<u32>(), any::<i64>(), any::<i64>(), any::<u32>(), 0_u32..20_000, 0_u32..4);
    (identity, offsets, rest).prop_map(|(identity, (segment_base, after_base, behind, records, beyond), rest)| {
        let (topic, partition, epoch, generation, number) = identity;
        let (block, written_at, max_timestamp, record_count, payload_bytes, more_blocks) = rest;
        let base = segment_base + after_base;
        let frame_bytes = (u32::from(HEADER_BYTES_FIELD) + payload_bytes).next_multiple_of(4096) + more_blocks * 4096;
        FrameHeader {
            id: LogId { topic_id: TopicId::new(Uuid::from_u128(topic)), partition: PartitionIndex::new(partition) },
            leader_epoch: LeaderEpoch::new(epoch),
            base_offset: Offset::new(base),
            next_offset: Offset::new(base + records),
            frames_end: Offset::new((base - behind).max(0)),
            durable_offset: Offset::new((base - behind).max(0) + beyond),
            generation: Generation(generation),
            log_number: LogNumber(number),
            segment_base: Offset::new(segment_base),
            position: u64::from(block) * 4096,
            written_at: Timestamp::new(written_at),
            max_timestamp: Timestamp::new(max_timestamp),
            record_count,
            payload_bytes,
            frame_bytes,
        }
    })
}

fn sealed(header: &FrameHeader) -> Vec<u8> {
    // What a pooled buffer holds behind the payload is anything.
    let mut frame = vec![0xAA; header.frame_bytes as usize];
    header.seal(&mut frame);
    frame
}

#[test]
fn the_layout_is_the_documented_one() {
    let header = FrameHeader {
        id: LogId { topic_id: TopicId::new(Uuid::from_u128(0x0102 << 112)), partition: PartitionIndex::new(3) },
        leader_epoch: LeaderEpoch::new(4),
        base_offset: Offset::new(105),
        next_offset: Offset::new(106),
        frames_end: Offset::new(7),
        durable_offset: Offset::new(7 + 14),
        generation: Generation(8),
        log_number: LogNumber(9),
        segment_base: Offset::new(100),
        position: 8192,
        written_at: Timestamp::new(11),
        max_timestamp: Timestamp::new(12),
        record_count: 13,
        payload_bytes: 14,
        frame_bytes: 4096,
    };
    let frame = sealed(&header);
    let be = |at: usize, len: usize| frame[at..at + len].iter().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
    assert_eq!(&frame[..4], b"RQLF");
    assert_eq!((be(4, 2), be(6, 2), be(8, 2), be(24, 4), be(28, 4)), (1, 128, 0x0102, 3, 4));
    assert_eq!((be(32, 8), be(40, 8), be(48, 8), be(56, 8), be(64, 8)), (105, 106, 7, 8, 9));
    assert_eq!((be(72, 8), be(80, 8), be(88, 8), be(96, 8)), (100, 8192, 11, 12));
    assert_eq!((be(104, 4), be(108, 4), be(112, 4), be(120, 4)), (13, 14, 4096, 14));
    assert_eq!(be(116, 4), u128::from(crc32fast::hash(&frame[128..])));
    assert_eq!(be(124, 4), u128::from(crc32fast::hash(&frame[..124])));
    assert_eq!(&frame[128..142], &[0xAA; 14], "the payload is left as it is");
    assert!(frame[142..].iter().all(|byte| *byte == 0), "the padding is zero");
}

#[test]
fn zeros_noise_and_too_few_bytes_are_told_apart() {
    assert_eq!(FrameHeader::decode(&[0; 4096]), Err(FrameFault::Zeros));
    assert_eq!(FrameHeader::decode(&[1; 4096]), Err(FrameFault::NotAFrame));
    assert_eq!(FrameHeader::decode(&[0; 127]), Err(FrameFault::EndOfFile));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn headers_round_trip(header in arbitrary_header()) {
        let frame = sealed(&header);
        prop_assert_eq!(FrameHeader::decode(&frame), Ok(header));
        prop_assert!(FrameHeader::payload_is_sound(&frame));
    }

    #[test]
    fn a_claim_that_does_not_fit_becomes_a_smaller_one(header in arbitrary_header(), more in 1_i64..1 << 40) {
        let beyond = i64::from(u32::MAX) + more;
        let claim = FrameHeader { durable_offset: Offset::new(header.frames_end.get() + beyond), ..header };
        let decoded = FrameHeader::decode(&sealed(&claim)).expect("sound");
        prop_assert_eq!(decoded.durable_offset.get(), header.frames_end.get() + i64::from(u32::MAX));
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed(header in arbitrary_header(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut frame = sealed(&header);
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        // Header, payload and padding alike.
        prop_assert!(FrameHeader::decode(&frame).is_err() || !FrameHeader::payload_is_sound(&frame));
        prop_assert_eq!(FrameHeader::decode(&frame).is_err(), at < FRAME_HEADER_BYTES);
    }

    #[test]
    fn lengths_and_offsets_that_contradict_each_other_are_refused(header in arbitrary_header(), which in 0..5) {
        let mut header = header;
        match which {
            0 => header.next_offset = header.base_offset,
            1 => header.frames_end = header.next_offset,
            2 => header.segment_base = header.next_offset,
            3 => header.payload_bytes = header.frame_bytes,
            _ => header.frame_bytes += 1,
        }
        let mut block = vec![0; 128];
        header.put_fields(&mut block);
        let checksum = crc32fast::hash(&block[..HEADER_CHECKSUM_AT]);
        block[HEADER_CHECKSUM_AT..].copy_from_slice(&checksum.to_be_bytes());
        prop_assert_eq!(FrameHeader::decode(&block), Err(FrameFault::Lengths));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = FrameHeader::decode(&bytes);
        let _ = FrameHeader::payload_is_sound(&bytes);
    }
}
