//! Record batches: validated, split, iterated, decompressed, and built again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq_fuzz::{read_records, read_section};

fuzz_target!(|bytes: &[u8]| {
    read_section(bytes);
    // The same bytes as the records of one batch, so that no time goes into guessing a header.
    if let Some((&record_count, records)) = bytes.split_first() {
        read_records(record_count.into(), records);
    }
});
