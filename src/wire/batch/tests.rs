//! Batches: what is built comes back, and what is hostile does no harm.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::header::CHECKSUMMED_FROM;
use super::varint::{put_varint, put_varlong};
use super::*;
use crate::error::ErrorCode;
use crate::numbers::{LeaderEpoch, Offset, Timestamp};

type OwnedHeaders = Vec<(String, Option<Vec<u8>>)>;

/// A record that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
}

fn plain(value: &[u8]) -> Owned {
    Owned { timestamp: 1_700_000_000_000, key: None, value: Some(value.to_vec()), headers: Vec::new() }
}

fn build(compression: Compression, records: &[Owned]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        let record = RecordRef {
            timestamp: Timestamp::new(record.timestamp),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        let foretold = builder.len_bytes_with(&record);
        builder.append(&record).expect("it fits");
        assert_eq!(builder.len_bytes(), foretold);
    }
    builder.finish().expect("it is not empty")
}

fn read(batch: &[u8]) -> Result<Vec<Owned>, BatchError> {
    let mut scratch = Scratch::default();
    let records = BatchView::parse(batch)?.records(&mut scratch)?;
    let own = |record: Record<'_>| Owned {
        timestamp: record.timestamp.get(),
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record
            .headers()
            .map(|header| (header.key_text().into_owned(), header.value.map(<[u8]>::to_vec)))
            .collect(),
    };
    records.map(|record| record.map(own)).collect()
}

/// A batch whose records are `records`, whatever they are, with everything else in order.
fn wrap(record_count: u32, compression: Compression, records: &[u8]) -> Vec<u8> {
    let mut header = BatchHeader {
        base_offset: Offset::ZERO,
        batch_length: u32::try_from(BATCH_HEADER_BYTES - BATCH_LENGTH_PREFIX_BYTES + records.len()).expect("short"),
        partition_leader_epoch: None,
        crc: 0,
        attributes: Attributes::new(compression),
        last_offset_delta: record_count.saturating_sub(1),
        base_timestamp: Timestamp::new(1000),
        max_timestamp: Timestamp::new(1000),
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count,
    };
    let mut batch = header.encode().to_vec();
    batch.extend_from_slice(records);
    header.crc = crc_fast::crc32_iscsi(&batch[CHECKSUMMED_FROM..]);
    batch[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode());
    batch
}

/// Writes bytes into a batch and gives it the checksum that fits them.
fn patched(batch: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = batch.to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc_fast::crc32_iscsi(&batch[CHECKSUMMED_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// A record from its fields behind the length, each a variable-length number or bytes as they are.
fn record(fields: &[Field]) -> Vec<u8> {
    let mut body = Vec::new();
    for field in fields {
        match field {
            Field::Number(number) => put_varlong(*number, &mut body),
            Field::Raw(bytes) => body.extend_from_slice(bytes),
        }
    }
    let mut out = Vec::new();
    put_varint(i32::try_from(body.len()).expect("short"), &mut out);
    out.extend_from_slice(&body);
    out
}

enum Field {
    Number(i64),
    Raw(&'static [u8]),
}
use Field::{Number, Raw};

fn validate(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    validate_batch(batch, &BatchLimits::default())
}

fn any_record() -> impl Strategy<Value = Owned> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80));
    let headers = proptest::collection::vec(("\\PC{0,8}", bytes()), 0..4);
    (0..i64::MAX, bytes(), bytes(), headers).prop_map(|(timestamp, key, value, headers)| Owned {
        timestamp,
        key,
        value,
        headers,
    })
}

/// All but none.
const COMPRESSIONS: [Compression; 4] = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn any_compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), proptest::sample::select(&COMPRESSIONS[..])]
}

proptest! {
    #[test]
    fn what_is_built_is_valid_and_comes_back(
        compression in any_compression(),
        records in proptest::collection::vec(any_record(), 1..20),
    ) {
        let batch = build(compression, &records);
        // A later record may be older than the first, which is the base of all.
        let header = validate(&batch).expect("what the builder makes is valid");
        prop_assert_eq!(header.size_bytes(), batch.len());
        prop_assert_eq!(header.record_count as usize, records.len());
        prop_assert_eq!(header.max_timestamp.get(), records.iter().map(|record| record.timestamp).max().expect("one"));
        prop_assert_eq!(read(&batch), Ok(records));
    }

    #[test]
    fn a_header_comes_back_from_its_bytes(
        offset in 0..i64::MAX / 2, length in 49..=i32::MAX, epoch in proptest::option::of(0..i32::MAX), crc: u32,
        bits in any::<u16>().prop_filter("a known compression", |bits| bits & 7 < 5),
        delta in 0..=i32::MAX, times: [i64; 2], id: i64, producer_epoch: i16, sequence: i32, count in 0..=i32::MAX,
    ) {
        let header = BatchHeader {
            base_offset: Offset::new(offset),
            batch_length: length.cast_unsigned(),
            partition_leader_epoch: epoch.map(LeaderEpoch::new),
            crc,
            attributes: Attributes::from_bits(bits).expect("a known compression"),
            last_offset_delta: delta.cast_unsigned(),
            base_timestamp: Timestamp::new(times[0]),
            max_timestamp: Timestamp::new(times[1]),
            producer_id: id,
            producer_epoch,
            base_sequence: sequence,
            record_count: count.cast_unsigned(),
        };
        prop_assert_eq!(BatchHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn any_bytes_are_batches_or_an_error(bytes: Vec<u8>) {
        let _ = validate(&bytes);
        let _ = BatchHeader::decode(&bytes);
        let _ = read(&bytes);
    }

    #[test]
    fn any_records_are_read_or_an_error(
        count: u32, compression in any_compression(), records in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let batch = wrap(count & 0x7fff_ffff, compression, &records);
        let _ = validate(&batch);
        let _ = read(&batch);
    }

    #[test]
    fn damaged_records_are_read_or_an_error(
        compression in any_compression(),
        records in proptest::collection::vec(any_record(), 1..5),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut batch = build(compression, &records).to_vec();
        for (index, byte) in damage {
            let index = BATCH_HEADER_BYTES + index.index(batch.len() - BATCH_HEADER_BYTES);
            batch[index] = byte;
        }
        let _ = read(&batch);
    }

    #[test]
    fn every_flipped_bit_behind_the_checksum_is_found(
        compression in any_compression(), records in proptest::collection::vec(any_record(), 1..5), at: prop::sample::Index, bit in 0u32..8,
    ) {
        let mut batch = build(compression, &records).to_vec();
        let at = CHECKSUMMED_FROM + at.index(batch.len() - CHECKSUMMED_FROM);
        batch[at] ^= 1 << bit;
        let is_checksum = matches!(validate(&batch), Err(BatchError::Checksum { .. }));
        prop_assert!(is_checksum);
    }

    #[test]
    fn every_truncated_batch_is_an_error(
        compression in any_compression(), records in proptest::collection::vec(any_record(), 1..5),
    ) {
        let batch = build(compression, &records);
        for end in 0..batch.len() {
            let is_truncated = matches!(validate(&batch[..end]), Err(BatchError::Truncated { .. }));
            prop_assert!(is_truncated, "{end} of {} bytes", batch.len());
            let is_truncated = matches!(BatchView::parse(&batch[..end]), Err(BatchError::Truncated { .. }));
            prop_assert!(is_truncated, "{end} of {} bytes", batch.len());
        }
    }
}

#[test]
fn a_broker_writes_offset_and_epoch_without_touching_the_checksum() {
    let mut batch = build(Compression::None, &[plain(b"a"), plain(b"b")]).to_vec();
    set_base_offset(&mut batch, Offset::new(41));
    set_leader_epoch(&mut batch, LeaderEpoch::new(7));
    let header = validate(&batch).expect("still valid");
    assert_eq!(header.partition_leader_epoch, Some(LeaderEpoch::new(7)));
    assert_eq!((header.base_offset, header.last_offset(), header.next_offset()), {
        (Offset::new(41), Offset::new(42), Offset::new(43))
    });
    let mut scratch = Scratch::default();
    let records = BatchView::parse(&batch).expect("whole").records(&mut scratch).expect("plain");
    let offsets: Vec<i64> = records.map(|record| record.expect("valid").offset.get()).collect();
    assert_eq!(offsets, [41, 42]);
}

#[test]
fn batches_side_by_side_are_split_and_the_first_error_ends_them() {
    let (a, b) = (build(Compression::None, &[plain(b"a")]), build(Compression::Lz4, &[plain(b"b"), plain(b"c")]));
    let mut section = BytesMut::new();
    section.extend_from_slice(&a);
    section.extend_from_slice(&b);
    let split: Vec<&[u8]> = split_batches(&section).map(|batch| batch.expect("whole").bytes()).collect();
    assert_eq!(split, [&*a, &*b]);

    section.extend_from_slice(&a[..a.len() - 1]);
    let mut batches = split_batches(&section);
    assert!(batches.by_ref().take(2).all(|batch| batch.is_ok()));
    assert!(matches!(batches.next(), Some(Err(BatchError::Truncated { .. }))));
    assert!(batches.next().is_none());
    assert!(split_batches(&[]).next().is_none());
}

#[test]
fn a_batch_is_checked_before_it_is_believed() {
    let good = build(Compression::None, &[plain(b"a"), plain(b"b")]);
    let records = good.len() - BATCH_HEADER_BYTES;
    let reject = |at: usize, bytes: &[u8]| validate(&patched(&good, at, bytes)).expect_err("not valid");

    assert_eq!(reject(16, &[1]), BatchError::Magic { magic: 1 });
    assert_eq!(reject(16, &[0xff]), BatchError::Magic { magic: -1 });
    assert_eq!(reject(8, &48i32.to_be_bytes()), BatchError::Length { batch_length: 48 });
    assert_eq!(reject(8, &(-1i32).to_be_bytes()), BatchError::Length { batch_length: -1 });
    assert_eq!(reject(0, &(-1i64).to_be_bytes()), BatchError::Field { field: "base offset", value: -1 });
    assert_eq!(reject(0, &i64::MAX.to_be_bytes()), BatchError::Field { field: "base offset", value: i64::MAX });
    assert_eq!(reject(57, &(-1i32).to_be_bytes()), BatchError::Field { field: "record count", value: -1 });
    assert_eq!(reject(57, &0i32.to_be_bytes()), BatchError::Field { field: "record count", value: 0 });
    assert_eq!(reject(23, &(-1i32).to_be_bytes()), BatchError::Field { field: "last offset delta", value: -1 });
    assert_eq!(reject(23, &[0, 0, 0, 2]), BatchError::OffsetDelta { last_offset_delta: 2, record_count: 2 });
    assert_eq!(reject(57, &[0, 0, 0, 9]), BatchError::RecordCount { count: 9, bytes: records });
    assert_eq!(reject(22, &[5]), BatchError::UnknownCompression { number: 5 });
    let end = BATCH_HEADER_BYTES + records / 2;
    assert_eq!(reject(BATCH_HEADER_BYTES, &[0]).code(), ErrorCode::InvalidBatch, "a record that ends too early");
    assert!(matches!(reject(end, &[0x7f]), BatchError::Record { index: 1, problem: RecordProblem::Length { .. } }));
    let one = patched(&patched(&good, 57, &1i32.to_be_bytes()), 23, &0i32.to_be_bytes());
    assert_eq!(validate(&one), Err(BatchError::LeftOver { bytes: records / 2 }), "fewer records than there are");
    assert_eq!(reject(35, &0i64.to_be_bytes()), BatchError::Timestamps { base: 1_700_000_000_000, max: 0 });
    assert_eq!(reject(27, &(-2i64).to_be_bytes()).code(), ErrorCode::InvalidTimestamp);
    for (bits, word) in [(8, "append time"), (16, "transaction"), (32, "control"), (64, "delete horizon")] {
        let error = reject(22, &[bits]);
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(error.code(), ErrorCode::InvalidBatch);
    }
    let untimed = patched(&patched(&good, 27, &(-1i64).to_be_bytes()), 35, &(-1i64).to_be_bytes());
    assert!(validate(&untimed).is_ok(), "a producer may give no timestamps");
}

#[test]
fn a_damaged_batch_is_told_from_a_badly_made_one() {
    let mut batch = build(Compression::None, &[plain(b"a")]).to_vec();
    // The sign of the record count: nonsense, but the checksum knows that nobody meant it.
    batch[57] ^= 0x80;
    let error = validate(&batch).expect_err("damaged");
    assert!(matches!(error, BatchError::Checksum { .. }));
    assert_eq!(error.code(), ErrorCode::CorruptBatch);
}

#[test]
fn limits_hold_before_the_bytes_are_even_there() {
    let limits = BatchLimits { batch_bytes_max: 100, record_count_max: 1 };
    let large = build(Compression::None, &[plain(&[0; 100])]);
    let error = validate_batch(&large[..BATCH_HEADER_BYTES], &limits).expect_err("too large");
    assert_eq!(error, BatchError::TooLarge { bytes: large.len(), bytes_max: 100 });
    assert_eq!(error.code(), ErrorCode::BatchTooLarge);
    let error = validate_batch(&large, &limits).expect_err("too large, and there");
    assert_eq!(error, BatchError::RecordTooLarge { bytes: large.len(), bytes_max: 100 });
    assert_eq!(error.code(), ErrorCode::RecordTooLarge);
    let large = build(Compression::None, &[plain(&[0; 50]), plain(&[0; 50])]);
    assert_eq!(validate_batch(&large, &limits).expect_err("too large").code(), ErrorCode::BatchTooLarge);
    let many = build(Compression::None, &[plain(b"a"), plain(b"b")]);
    let error = validate_batch(&many, &limits).expect_err("too many");
    assert_eq!(error, BatchError::TooManyRecords { count: 2, count_max: 1 });
}

#[test]
fn two_billion_records_are_a_claim_that_costs_nothing() {
    let records = record(&[Raw(&[0]), Number(0), Number(0), Number(-1), Number(-1), Number(0)]);
    let all = COMPRESSIONS.map(|compression| (compression, compressed(compression, &records)));
    for (compression, records) in all.into_iter().chain([(Compression::None, records)]) {
        let batch = wrap(i32::MAX as u32, compression, &records);
        assert!(validate(&batch).is_err());
        let mut scratch = Scratch::default();
        let read = BatchView::parse(&batch).expect("whole").records(&mut scratch).expect("readable");
        assert_eq!(read.size_hint().0, 0, "nobody may reserve room for the claim");
        let read: Vec<_> = read.collect();
        assert_eq!(read.len(), 2);
        assert!(matches!(read[1], Err(BatchError::Record { index: 1, problem: RecordProblem::Varint { .. } })));
    }
}

/// Each record is one byte pattern that a hostile producer might send, with a checksum that fits.
#[test]
fn hostile_records_are_refused_one_by_one() {
    let problem = |records: &[u8]| match read(&wrap(1, Compression::None, records)).expect_err("hostile") {
        BatchError::Record { index: 0, problem } => problem,
        other => panic!("{other}"),
    };
    let length = |field, value, remaining| RecordProblem::Length { field, value, remaining };

    assert_eq!(problem(&[]), RecordProblem::Varint { field: "length" });
    assert_eq!(problem(&[0x80]), RecordProblem::Varint { field: "length" }, "ends within the number");
    assert_eq!(problem(&[0xff; 11]), RecordProblem::Varint { field: "length" }, "more than 32 bits");
    assert_eq!(problem(&[0x01]), length("length", -1, 0));
    assert_eq!(problem(&[0xfe, 0xff, 0xff, 0xff, 0x0f, 0]), length("length", i32::MAX, 1));
    assert_eq!(problem(&record(&[])), length("attributes", 1, 0));

    let fields = |fields: &[Field]| problem(&record(fields));
    assert_eq!(fields(&[Raw(&[0]), Raw(&[0xff; 10])]), RecordProblem::Varint { field: "timestamp delta" });
    assert_eq!(
        fields(&[Raw(&[0]), Number(0), Number(i64::MAX)]),
        RecordProblem::Varint { field: "offset delta" },
        "64 bits where there are 32"
    );
    let head = || [Raw(&[0]), Number(0), Number(0)];
    let with = |rest: Vec<Field>| fields(&head().into_iter().chain(rest).collect::<Vec<_>>());
    assert_eq!(with(vec![Number(-2)]), length("key length", -2, 0), "only -1 stands for none");
    assert_eq!(with(vec![Number(i32::MIN.into())]), length("key length", i32::MIN, 0));
    assert_eq!(with(vec![Number(2), Raw(b"k")]), length("key length", 2, 1));
    assert_eq!(with(vec![Number(-1), Number(5), Raw(b"v")]), length("value length", 5, 1));

    let headers = |rest: Vec<Field>| with([Number(-1), Number(-1)].into_iter().chain(rest).collect());
    assert_eq!(headers(vec![]), RecordProblem::Varint { field: "header count" });
    assert_eq!(headers(vec![Number(-1)]), length("header count", -1, 0));
    assert_eq!(headers(vec![Number(i32::MAX.into()), Raw(&[0, 0])]), length("header count", i32::MAX, 2));
    assert_eq!(headers(vec![Number(1), Number(-1), Number(0)]), length("header key length", -1, 1));
    assert_eq!(headers(vec![Number(1), Number(0), Number(-2)]), length("header value length", -2, 0));
    assert_eq!(headers(vec![Number(0), Raw(b"x")]), RecordProblem::LeftOver { bytes: 1 });

    let timestamp = [Raw(&[0]), Number(i64::MAX), Number(0), Number(-1), Number(-1), Number(0)];
    assert_eq!(fields(&timestamp), RecordProblem::TimestampDelta { delta: i64::MAX });
}

#[test]
fn offsets_rise_within_the_batch() {
    let at = |delta| record(&[Raw(&[0]), Number(0), Number(delta), Number(-1), Number(-1), Number(0)]);
    for (deltas, bad) in [([0, 0], 0), ([1, 0], 0), ([0, 2], 2), ([0, -1], -1)] {
        let records = deltas.map(at).concat();
        let error = read(&wrap(2, Compression::None, &records)).expect_err("out of order");
        assert_eq!(error, BatchError::Record { index: 1, problem: RecordProblem::OffsetDelta { delta: bad } });
    }
}

#[test]
fn bytes_behind_the_last_record_are_an_error() {
    let mut records = record(&[Raw(&[0]), Number(0), Number(0), Number(-1), Number(-1), Number(0)]);
    records.extend_from_slice(b"more");
    assert_eq!(read(&wrap(1, Compression::None, &records)), Err(BatchError::LeftOver { bytes: 4 }));
}

#[test]
fn with_append_time_every_record_carries_it() {
    let batch = build(Compression::None, &[plain(b"a"), plain(b"b")]);
    let append_time = 1_800_000_000_000i64;
    let batch = patched(&patched(&batch, 22, &[8]), 35, &append_time.to_be_bytes());
    let records = read(&batch).expect("valid");
    assert!(records.iter().all(|record| record.timestamp == append_time));
}

#[test]
fn a_header_key_that_is_not_utf8_can_be_read_all_the_same() {
    let fields =
        [Raw(&[0]), Number(0), Number(0), Number(-1), Number(-1), Number(1), Number(2), Raw(b"\xffk"), Number(-1)];
    let records = read(&wrap(1, Compression::None, &record(&fields))).expect("valid");
    assert_eq!(records[0].headers, [("\u{fffd}k".to_owned(), None)]);
}

fn compressed(compression: Compression, records: &[u8]) -> Vec<u8> {
    let mut compressor =
        super::compression::Compressor::new(compression, records.len(), BytesMut::new()).expect("a way");
    compressor.write(records).expect("in memory");
    compressor.finish().expect("in memory").to_vec()
}

#[test]
fn a_bomb_stops_at_the_limit() {
    for compression in COMPRESSIONS {
        let bomb = wrap(1, compression, &compressed(compression, &vec![0; 32 << 20]));
        assert!(bomb.len() < 2 << 20, "{} bytes on the wire", bomb.len());
        let bytes_max = 1 << 20;
        let mut scratch = Scratch::new(DecompressLimits { decompressed_bytes_max: bytes_max });
        let memory = allocation_counter::measure(|| {
            let error = BatchView::parse(&bomb).expect("whole").records(&mut scratch).map(|_| ());
            let error = error.expect_err("too large");
            // A zstd frame may say in front how long it is.
            let is_refused = matches!(&error, BatchError::Decompress { .. }) && compression == Compression::Zstd;
            assert!(is_refused || error == BatchError::DecompressedTooLarge { bytes_max }, "{error}");
        });
        // Twice the limit while the buffer grows; the C libraries' own memory is not counted here.
        assert!(memory.bytes_max < 4 * bytes_max as u64, "{compression}: {} bytes", memory.bytes_max);
    }
}

#[test]
fn a_batch_that_just_fits_the_limit_is_read() {
    let plain_bytes = build(Compression::None, &[plain(&[7; 10_000])]).len() - BATCH_HEADER_BYTES;
    for compression in COMPRESSIONS {
        let batch = build(compression, &[plain(&[7; 10_000])]);
        let view = BatchView::parse(&batch).expect("whole");
        let with_limit = |decompressed_bytes_max| {
            let mut scratch = Scratch::new(DecompressLimits { decompressed_bytes_max });
            view.records(&mut scratch).map(Iterator::count)
        };
        assert_eq!(with_limit(plain_bytes), Ok(1));
        assert_eq!(with_limit(plain_bytes - 1), Err(BatchError::DecompressedTooLarge { bytes_max: plain_bytes - 1 }));
    }
}

#[test]
fn a_stream_that_ends_early_or_late_is_an_error() {
    for compression in COMPRESSIONS {
        let stream = compressed(compression, b"some records, some records, some records");
        for end in 0..stream.len() {
            let error = read(&wrap(1, compression, &stream[..end])).expect_err("ends early");
            // What is left of snappy's framing alone is a stream without any block.
            let is_framing = compression == Compression::Snappy && end == 16;
            let is_told = matches!(error, BatchError::Decompress { .. }) || is_framing;
            assert!(is_told, "{compression}: {end} of {} bytes: {error}", stream.len());
        }
        let late = [&*stream, b"x"].concat();
        assert!(matches!(read(&wrap(1, compression, &late)), Err(BatchError::Decompress { .. })), "{compression}");
    }
}

#[test]
fn a_scratch_serves_one_batch_after_the_other() {
    let mut scratch = Scratch::default();
    for (value, compression) in [b"first".as_slice(), b"2", b"the third one", b"4"].into_iter().zip(COMPRESSIONS) {
        let batch = build(compression, &[plain(value)]);
        let mut records = BatchView::parse(&batch).expect("whole").records(&mut scratch).expect("readable");
        assert_eq!(records.next().expect("one").expect("valid").value, Some(value));
        assert!(records.next().is_none());
    }
}

#[test]
fn an_empty_batch_and_a_time_before_the_epoch_cannot_be_built() {
    assert!(matches!(BatchBuilder::new(Compression::None).finish(), Err(BuildError::Empty)));
    let mut builder = BatchBuilder::new(Compression::None);
    let record = RecordRef { timestamp: Timestamp::new(-1), key: None, value: None, headers: &[] };
    assert!(matches!(builder.append(&record), Err(BuildError::Timestamp { .. })));
    assert_eq!((builder.record_count(), builder.len_bytes()), (0, BATCH_HEADER_BYTES));
}

#[test]
fn a_builder_with_room_takes_memory_once() {
    let value = [1; 1000];
    let record = RecordRef { timestamp: Timestamp::new(1), key: Some(b"key"), value: Some(&value), headers: &[] };
    let memory = allocation_counter::measure(|| {
        let mut builder = BatchBuilder::with_capacity(Compression::None, 128 * 1024);
        for _ in 0..100 {
            builder.append(&record).expect("it fits");
        }
        assert!(builder.finish().is_ok());
    });
    assert!(memory.count_total <= 2, "{} allocations: the bytes, and the count of their owners", memory.count_total);
}

#[test]
fn records_of_a_plain_batch_are_borrowed_without_memory() {
    let batch = build(Compression::None, &[plain(b"a"), plain(b"b")]);
    let memory = allocation_counter::measure(|| {
        validate(&batch).expect("valid");
        let mut scratch = Scratch::default();
        let records = BatchView::parse(&batch).expect("whole").records(&mut scratch).expect("plain");
        assert_eq!(records.filter(Result::is_ok).count(), 2);
    });
    assert_eq!(memory.count_total, 0);
}
