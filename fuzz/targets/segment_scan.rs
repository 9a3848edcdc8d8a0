//! The scan of a segment: any bytes, and frames with right checksums that contradict each other in any way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq_fuzz::within_memory;
use ringmq_segment::inspect::{ScannedBytes, SegmentPlace, scan_bytes};
use ringmq_segment::{FrameFault, LogId};
use ringmq_wire::{Offset, PartitionIndex, TopicId};

const BLOCK_BYTES: usize = 4096;
const SEGMENT_BLOCKS: usize = 16;
const HEADER_BYTES: usize = 128;
const BASE: u8 = 100;

fuzz_target!(|bytes: &[u8]| {
    let place = SegmentPlace {
        id: LogId { topic_id: TopicId::METADATA, partition: PartitionIndex::new(0) },
        base: Offset::new(BASE.into()),
        log_number: 0x0102,
        // Generation 2 took over at offset 120.
        generations: vec![(1, Offset::ZERO), (2, Offset::new(120))],
    };
    check(bytes, within_memory(bytes, |bytes| scan_bytes(&place, bytes)));
    let segment = with_frames(bytes);
    check(&segment, within_memory(&segment, |segment| scan_bytes(&place, segment)));
});

/// A segment in which the input says where frames stand and what their headers say. Nobody guesses a checksum, a magic
/// or a secret number, so they are put in.
fn with_frames(mut input: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; SEGMENT_BLOCKS * BLOCK_BYTES];
    while let Some((&[at, blocks, base, records, generation, wrong, payload, frames_end], rest)) =
        input.split_first_chunk::<8>()
    {
        let (content, rest) = rest.split_at(rest.len().min(usize::from(payload)));
        input = rest;
        let at = usize::from(at) % SEGMENT_BLOCKS;
        let blocks = usize::from(blocks) % 4;
        let Some(frame) = segment.get_mut(at * BLOCK_BYTES..(at + blocks.max(1)) * BLOCK_BYTES) else { continue };
        let base_offset = u64::from(BASE) + u64::from(base % 64);
        frame.fill(0);
        frame[..8].copy_from_slice(b"RQLF\x00\x01\x00\x80");
        frame[8..24].copy_from_slice(TopicId::METADATA.as_bytes());
        frame[32..40].copy_from_slice(&base_offset.to_be_bytes());
        frame[40..48].copy_from_slice(&(base_offset + u64::from(records % 16)).to_be_bytes());
        frame[48..56].copy_from_slice(&(base_offset.saturating_sub(u64::from(frames_end % 32))).to_be_bytes());
        frame[56..64].copy_from_slice(&u64::from(generation % 4).to_be_bytes());
        frame[64..72].copy_from_slice(&0x0102_u64.to_be_bytes());
        frame[72..80].copy_from_slice(&u64::from(BASE).to_be_bytes());
        frame[80..88].copy_from_slice(&((at * BLOCK_BYTES) as u64).to_be_bytes());
        frame[104..108].copy_from_slice(&u32::from(records).to_be_bytes());
        let payload_bytes = content.len() * if wrong & 1 == 1 { 64 } else { 1 };
        frame[108..112].copy_from_slice(&u32::try_from(payload_bytes).expect("small").to_be_bytes());
        let frame_bytes = blocks * BLOCK_BYTES + usize::from(wrong & 2);
        frame[112..116].copy_from_slice(&u32::try_from(frame_bytes).expect("small").to_be_bytes());
        frame[HEADER_BYTES..HEADER_BYTES + content.len()].copy_from_slice(content);
        let payload_checksum = crc32fast::hash(&frame[HEADER_BYTES..]);
        frame[116..120].copy_from_slice(&payload_checksum.to_be_bytes());
        let header_checksum = crc32fast::hash(&frame[..124]);
        frame[124..128].copy_from_slice(&header_checksum.to_be_bytes());
    }
    segment
}

fn check(segment: &[u8], scanned: ScannedBytes) {
    let (mut position, mut offset) = (0, Offset::new(BASE.into()));
    for frame in &scanned.frames {
        assert_eq!((frame.position, frame.base_offset), (position, offset), "one behind the other");
        assert!(frame.next_offset > offset && frame.frame_bytes > 0);
        assert!(usize::try_from(frame.payload_bytes).expect("64 bits") + HEADER_BYTES <= frame.frame_bytes as usize);
        let owned = if frame.base_offset < Offset::new(120) { 1 } else { 2 };
        assert_eq!(frame.generation, owned, "each generation owns what is its own");
        (position, offset) = (position + u64::from(frame.frame_bytes), frame.next_offset);
    }
    assert_eq!((scanned.end_position, scanned.end), (position, offset));
    assert!(position <= segment.len() as u64);
    assert!(!scanned.fault.to_string().is_empty());
    let is_at_end = position == segment.len() as u64;
    assert!(!is_at_end || scanned.fault == FrameFault::EndOfFile, "{}", scanned.fault);
}
