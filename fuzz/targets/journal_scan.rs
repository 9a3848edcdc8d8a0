//! The start's look at a journal: a ring of any bytes, and one of blocks with right checksums that contradict each
//! other in any way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq_fuzz::within_memory;
use ringmq_journal::{FoundRing, RingName, decode_ring};

const NAME: &str = "00001-0000000000000102.ring";
const UNIT_BYTES: usize = 4096;
const RING_UNITS: usize = 32;
const HEADER_BYTES: usize = 72;
const CHECKSUM_AT: usize = 68;

fuzz_target!(|bytes: &[u8]| {
    let name = RingName::parse(NAME).expect("a ring's name");
    check(within_memory(bytes, |bytes| decode_ring(name, bytes)));
    let ring = with_blocks(bytes);
    check(within_memory(&ring, |ring| decode_ring(name, ring)));
});

/// A ring in which the input says where blocks stand and what their headers say. Nobody guesses a checksum, a magic or
/// a secret number, so they are put in.
fn with_blocks(mut input: &[u8]) -> Vec<u8> {
    let mut ring = vec![0; RING_UNITS * UNIT_BYTES];
    while let Some((&[unit, lap, previous, floor, durable, units, ends, entries], rest)) =
        input.split_first_chunk::<8>()
    {
        let (content, rest) = rest.split_at(rest.len().min(usize::from(entries)));
        input = rest;
        let unit = usize::from(unit) % RING_UNITS;
        let units = 1 + usize::from(units) % 4;
        let number = (unit + usize::from(lap % 3) * RING_UNITS) as u64;
        let before = |distance: u8| number.saturating_sub(u64::from(distance));
        // What stands at the place of the block before: what this one follows, if that is its number.
        let place = usize::try_from(before(previous)).expect("small") % RING_UNITS * UNIT_BYTES;
        let previous_checksum: [u8; 4] =
            ring[place + CHECKSUM_AT..place + HEADER_BYTES].try_into().expect("four bytes");
        let Some(block) = ring.get_mut(unit * UNIT_BYTES..(unit + units) * UNIT_BYTES) else { continue };
        let end_bytes = 36 * usize::from(ends % 3);
        let content_at = HEADER_BYTES + end_bytes;
        block[..8].copy_from_slice(b"RQJB\x00\x01\x00\x48");
        block[8..16].copy_from_slice(&0x0102_u64.to_be_bytes());
        block[16..24].copy_from_slice(&number.to_be_bytes());
        block[24..32].copy_from_slice(&before(previous).to_be_bytes());
        block[32..40].copy_from_slice(&before(floor).to_be_bytes());
        block[40..48].copy_from_slice(&before(durable).to_be_bytes());
        block[48..52].copy_from_slice(&u32::try_from(units).expect("few").to_be_bytes());
        block[52..56].copy_from_slice(&u32::from(ends % 3).to_be_bytes());
        let (entry_count, entry_bytes) = put_entries(&mut block[content_at..], content);
        block[56..60].copy_from_slice(&entry_count.to_be_bytes());
        block[60..64].copy_from_slice(&entry_bytes.to_be_bytes());
        block[64..68].copy_from_slice(&previous_checksum);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&block[..CHECKSUM_AT]);
        checksum.update(&block[HEADER_BYTES..]);
        block[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.finalize().to_be_bytes());
    }
    ring
}

/// An entry for every four bytes: partition, payload length, base offset, records. Gives their count and length.
fn put_entries(mut room: &mut [u8], content: &[u8]) -> (u32, u32) {
    let (mut count, mut bytes) = (0, 0);
    for entry in content.chunks_exact(4) {
        let length = 64 + usize::from(entry[1]);
        let Some((place, rest)) = room.split_at_mut_checked(length) else { break };
        place.fill(0);
        place[19] = entry[0];
        place[23] = entry[1];
        place[47] = entry[2];
        // No record at all, now and then.
        place[55] = entry[2].saturating_add(entry[3]);
        room = rest;
        (count, bytes) = (count + 1, bytes + length);
    }
    (count, u32::try_from(bytes).expect("little"))
}

fn check(found: FoundRing) {
    assert!(found.next >= found.floor);
    let blocks: Vec<_> = found.blocks.entries.iter().map(|entry| entry.block).collect();
    assert!(blocks.is_sorted(), "in the order of their numbers");
    assert!(blocks.iter().all(|block| (found.floor..found.next).contains(block)), "counted");
    for entry in &found.blocks.entries {
        assert!(entry.header.base_offset < entry.header.next_offset);
        assert!(!found.blocks.frames_ends.is_empty());
    }
    assert!(decode_ring(found.name, &[]).blocks.entries.is_empty());
}
