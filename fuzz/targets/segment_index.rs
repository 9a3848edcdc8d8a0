//! The index files of a segment: any bytes, and files with right checksums that say anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq_fuzz::within_memory;
use ringmq_index::{Coverage, HEADER_BYTES, IndexError, IndexKind, OffsetIndex, TimeIndex};
use ringmq_wire::{Offset, Timestamp};

const INTERVAL_BYTES: u64 = 4096;

fuzz_target!(|bytes: &[u8]| {
    offsets(bytes);
    times(bytes);
    for (kind, entry_bytes) in [(1, 8), (2, 12)] {
        let file = mended(kind, entry_bytes, bytes);
        offsets(&file);
        times(&file);
    }
});

/// The input with the header that it needs to be looked at: magic, version, kind, count and checksums.
fn mended(kind: u8, entry_bytes: usize, input: &[u8]) -> Vec<u8> {
    let mut file = input.to_vec();
    file.resize(file.len().max(HEADER_BYTES), 0);
    let entries = (file.len() - HEADER_BYTES) / entry_bytes;
    file.truncate(HEADER_BYTES + entries * entry_bytes);
    file[..8].copy_from_slice(&[b'R', b'Q', b'I', b'X', 0, 1, 0, kind]);
    file[56..60].copy_from_slice(&u32::try_from(entries).expect("few").to_be_bytes());
    // What was reserved comes back as zero.
    file[64..68].fill(0);
    let entries_checksum = crc32fast::hash(&file[HEADER_BYTES..]);
    file[60..64].copy_from_slice(&entries_checksum.to_be_bytes());
    let header_checksum = crc32fast::hash(&file[..68]);
    file[68..72].copy_from_slice(&header_checksum.to_be_bytes());
    file
}

fn offsets(bytes: &[u8]) {
    let decoded = within_memory(bytes, |bytes| OffsetIndex::decode(bytes, INTERVAL_BYTES).inspect_err(show));
    let Ok((coverage, index)) = decoded else { return };
    assert_eq!(Coverage::decode(bytes, IndexKind::Offset), Ok(coverage));
    assert_eq!(index.encode(&coverage), bytes, "a file comes back from what was read");
    let places: Vec<_> = index.entries().collect();
    assert!(places.iter().is_sorted_by(|a, b| a.position < b.position));
    assert_eq!((places.len(), places.last().copied()), (index.len(), index.last()));
    for place in &places {
        assert!(place.position < coverage.end_position, "inside of what is covered");
        assert_eq!(index.floor(place.offset).map(|floor| floor.position), Some(place.position));
    }
    for offset in [Offset::ZERO, coverage.segment_base, coverage.end, Offset::MAX] {
        let floor = index.floor(offset);
        assert!(floor.is_none_or(|floor| floor.offset <= offset && places.contains(&floor)));
    }
    for position in [0, coverage.end_position, u64::MAX] {
        let end = index.read_end(position, INTERVAL_BYTES);
        assert!(end.is_none_or(|end| end > position));
    }
}

fn times(bytes: &[u8]) {
    let decoded = within_memory(bytes, |bytes| TimeIndex::decode(bytes).inspect_err(show));
    let Ok((coverage, index)) = decoded else { return };
    assert_eq!(index.encode(&coverage), bytes, "a file comes back from what was read");
    let entries: Vec<_> = index.entries().collect();
    assert!(entries.iter().is_sorted_by(|a, b| a.0 < b.0));
    for timestamp in [i64::MIN, 0, i64::MAX].map(Timestamp::new) {
        assert!(index.start_for(timestamp) >= coverage.segment_base);
    }
}

fn show(error: &IndexError) {
    assert!(!error.to_string().is_empty());
}
