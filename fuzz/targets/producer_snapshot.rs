//! A snapshot of producers: any bytes, and bytes with right checksums that say anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq_fuzz::within_memory;
use ringmq_segment::ProducerSnapshot;

const HEADER_BYTES: usize = 64;
const BODY_CHECKSUM_AT: usize = 56;
const HEADER_CHECKSUM_AT: usize = 60;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if bytes.len() >= HEADER_BYTES {
        check(&sealed(bytes));
    }
});

/// Nobody guesses a magic or a checksum, so they are put in.
fn sealed(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    bytes[..8].copy_from_slice(b"RQPS\x00\x01\x00\x00");
    let body = crc32fast::hash(&bytes[HEADER_BYTES..]);
    bytes[BODY_CHECKSUM_AT..HEADER_CHECKSUM_AT].copy_from_slice(&body.to_be_bytes());
    let header = crc32fast::hash(&bytes[..HEADER_CHECKSUM_AT]);
    bytes[HEADER_CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&header.to_be_bytes());
    bytes
}

fn check(bytes: &[u8]) {
    match within_memory(bytes, ProducerSnapshot::decode) {
        // What is read is what was written, but for the reserved bytes, which are zero in all of these.
        Ok(snapshot) if bytes[6..8] == [0, 0] => assert_eq!(snapshot.encode(), bytes),
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
