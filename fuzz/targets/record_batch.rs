//! Record batches: validated, split, iterated, decompressed, and built again, with every compression.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq_fuzz::{COMPRESSIONS, read_records, read_section};

fuzz_target!(|bytes: &[u8]| {
    read_section(bytes);
    // The same bytes as the records of one batch, so that no time goes into guessing a header.
    if let Some((&[record_count, compression], records)) = bytes.split_first_chunk() {
        read_records(record_count.into(), COMPRESSIONS[usize::from(compression) % COMPRESSIONS.len()], records);
    }
});
