//! What the fuzz targets have in common: the properties that every decoder must have, whatever the bytes.
#![forbid(unsafe_code)]

use std::fmt::Debug;

use bytes::BytesMut;
use ringmq_wire::batch::{
    Attributes, BATCH_HEADER_BYTES, BATCH_LENGTH_PREFIX_BYTES, BatchBuilder, BatchError, BatchHeader, BatchLimits,
    BatchView, Compression, DecompressLimits, Record, Scratch, set_base_offset, set_leader_epoch, split_batches,
    validate_batch,
};
use ringmq_wire::codec::{Codec, DecodeError};
use ringmq_wire::protocol::SectionHead;
use ringmq_wire::{LeaderEpoch, Offset, Timestamp};

/// What decoding may hold at its peak for each byte of input: see `src/wire/protocol/tests.rs`.
const MEMORY_FACTOR_MAX: u64 = 32;
const MEMORY_BASE_BYTES: u64 = 4096;

/// Every way to compress.
pub const COMPRESSIONS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// What a compressed batch may grow to here.
const DECOMPRESSED_BYTES_MAX: usize = 1024 * 1024;

/// Runs a decoder and fails when it takes more memory than its input allows.
pub fn within_memory<T>(bytes: &[u8], decode: impl FnOnce(&[u8]) -> T) -> T {
    let mut result = None;
    let memory = allocation_counter::measure(|| result = Some(decode(bytes)));
    let memory_max = MEMORY_FACTOR_MAX * bytes.len() as u64 + MEMORY_BASE_BYTES;
    assert!(memory.bytes_max <= memory_max, "{} bytes took {} of memory", bytes.len(), memory.bytes_max);
    result.expect("measure runs what it is given")
}

/// Decodes a message that takes up all of `bytes`; encoded again it must give the same bytes.
pub fn decode_exact<T: Codec + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = within_memory(bytes, |bytes| report(T::decode_whole(bytes))) {
        assert_eq!(encode(&message), bytes, "{message:?}");
    }
}

/// The same for messages with error codes, where a number of a newer version becomes `Unknown`: encoded and decoded
/// again it must be the same message.
pub fn decode_alike<T: Codec + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = within_memory(bytes, |bytes| report(T::decode_whole(bytes))) {
        assert_eq!(T::decode_whole(&encode(&message)).as_ref(), Ok(&message));
    }
}

/// Decodes a body of head and sections, whole and in pieces. The sections must be where the head says.
pub fn decode_sections<H: SectionHead + PartialEq + Debug>(body: &[u8]) {
    let Ok(body_bytes) = u32::try_from(body.len()) else { return };
    let decoded = within_memory(body, |body| report(H::decode_head(body, body_bytes)));
    for end in [0, 3, 4, body.len() / 2] {
        let piece = H::decode_head(&body[..end.min(body.len())], body_bytes);
        assert!(!matches!(piece, Ok(Some(_))) || piece == decoded, "a piece decodes to something else");
    }
    let Ok(Some((head, sections_at))) = decoded else { return };
    let sections = body.get(sections_at..).expect("the sections are inside of the body");
    assert_eq!(sections.len() as u64, head.section_bytes());
    read_section(sections);
}

/// Reads bytes as the records of a batch, compressed like that, whose header says what it must.
pub fn read_records(record_count: u32, compression: Compression, records: &[u8]) {
    let size_bytes = BATCH_HEADER_BYTES + records.len();
    let Ok(batch_length) = u32::try_from(size_bytes - BATCH_LENGTH_PREFIX_BYTES) else { return };
    let header = BatchHeader {
        base_offset: Offset::ZERO,
        batch_length,
        partition_leader_epoch: None,
        crc: 0,
        attributes: Attributes::new(compression),
        last_offset_delta: record_count.saturating_sub(1),
        base_timestamp: Timestamp::new(1_700_000_000_000),
        max_timestamp: Timestamp::new(1_700_000_000_000),
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count,
    };
    read_section(&[header.encode().as_slice(), records].concat());
}

/// Reads a section as a broker and as a consumer does.
pub fn read_section(section: &[u8]) {
    let mut scratch = Scratch::new(DecompressLimits { decompressed_bytes_max: DECOMPRESSED_BYTES_MAX });
    let limits = BatchLimits::default();
    let mut position = 0;
    for batch in split_batches(section) {
        let rest = &section[position..];
        let validated = validate_batch(rest, &limits);
        let Ok(batch) = batch.inspect_err(show) else {
            assert!(validated.is_err(), "what cannot be split cannot be valid");
            return;
        };
        assert_eq!(batch.bytes(), &rest[..batch.header().size_bytes()]);
        position += batch.bytes().len();
        read_batch(&batch, &mut scratch);
        match validated {
            Ok(header) => assert_eq!(&header, batch.header()),
            // Nobody guesses a checksum, so the target puts in the one that fits.
            Err(BatchError::Checksum { computed, .. }) => read_mended(batch.bytes(), computed, &limits),
            Err(error) => show(&error),
        }
    }
    assert_eq!(position, section.len(), "without an error all of it is batches");
}

fn read_mended(batch: &[u8], crc: u32, limits: &BatchLimits) {
    let mut batch = batch.to_vec();
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    // Any negative epoch means none, so only a real one comes back.
    set_leader_epoch(&mut batch, LeaderEpoch::ZERO);
    let Ok(header) = validate_batch(&batch, limits).inspect_err(show) else { return };
    assert_eq!(header.encode(), batch[..header.encode().len()].as_ref(), "a header comes back from its bytes");

    let end = header.next_offset();
    set_base_offset(&mut batch, Offset::ZERO);
    let moved = validate_batch(&batch, limits).expect("the checksum leaves out the base offset");
    assert!(moved.next_offset() <= end);
}

fn read_batch(batch: &BatchView<'_>, scratch: &mut Scratch) {
    let plain = batch.header().compression() == Compression::None;
    let memory = allocation_counter::measure(|| {
        let Ok(records) = batch.records(scratch).inspect_err(show) else { return };
        let mut offset_min = batch.header().base_offset;
        for record in records {
            let Ok(record) = record.inspect_err(show) else { return };
            assert!((offset_min..=batch.header().last_offset()).contains(&record.offset));
            offset_min = record.offset;
            for header in record.headers() {
                assert!(header.key.len() + header.value.map_or(0, <[u8]>::len) <= u32::MAX as usize);
            }
        }
    });
    if plain {
        // Formatting an error is all that may take memory.
        assert!(memory.bytes_max <= MEMORY_BASE_BYTES, "a plain batch took {} bytes", memory.bytes_max);
    } else {
        let memory_max = 4 * DECOMPRESSED_BYTES_MAX as u64;
        assert!(memory.bytes_max <= memory_max, "a compressed batch took {} bytes", memory.bytes_max);
    }
    build_again(batch, scratch);
}

/// Whatever can be read can be built, and then reads the same.
fn build_again(batch: &BatchView<'_>, scratch: &mut Scratch) {
    let Ok(records) = batch.records(scratch) else { return };
    let Ok(records) = records.collect::<Result<Vec<Record<'_>>, _>>() else { return };
    let text = |bytes| std::str::from_utf8(bytes).ok();
    if records.iter().any(|record| record.timestamp < Timestamp::new(0))
        || records.iter().flat_map(Record::headers).any(|header| text(header.key).is_none())
    {
        return;
    }
    for compression in COMPRESSIONS {
        let mut builder = BatchBuilder::new(compression);
        for record in &records {
            let headers: Vec<_> =
                record.headers().map(|header| (text(header.key).unwrap_or_default(), header.value)).collect();
            builder
                .append_parts(record.timestamp, record.key, record.value, headers.into_iter())
                .expect("it fits: it was read from fewer bytes than the limit");
        }
        let Ok(built) = builder.finish() else {
            assert!(records.is_empty());
            return;
        };
        let mut scratch = Scratch::default();
        let view = BatchView::parse(&built).expect("what is built is whole");
        let again = view.records(&mut scratch).expect("what is built can be read");
        for (again, record) in again.zip(&records) {
            let again = again.expect("what is built is valid");
            assert_eq!((again.timestamp, again.key, again.value), (record.timestamp, record.key, record.value));
            assert!(again.headers().eq(record.headers()));
        }
    }
}

fn encode<T: Codec>(message: &T) -> BytesMut {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    out
}

/// Runs the code that tells the user what is wrong.
fn report<T>(decoded: Result<T, DecodeError>) -> Result<T, DecodeError> {
    decoded.inspect_err(|error| assert!(!error.to_string().is_empty()))
}

fn show(error: &BatchError) {
    assert!(!error.to_string().is_empty());
    assert!(!error.code().is_none());
}
