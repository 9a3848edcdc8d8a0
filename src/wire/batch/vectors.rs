//! The test vectors of the record batch, both ways.

use serde_json::Value;

use super::*;
use crate::codec::described::bytes_from_hex;
use crate::numbers::{LeaderEpoch, Timestamp};

fn vectors(kind: &str) -> Vec<Value> {
    let file: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/batches.json")).expect("batches.json is JSON");
    let vectors = file[kind].as_array().expect("an array of vectors").clone();
    assert!(!vectors.is_empty());
    vectors
}

fn optional_bytes(json: &Value) -> Option<Vec<u8>> {
    (!json.is_null()).then(|| bytes_from_hex(json))
}

/// A header of a record: key and value.
type OwnedHeader = (String, Option<Vec<u8>>);

fn headers(record: &Value) -> Vec<OwnedHeader> {
    let headers = record["headers"].as_array().expect("an array of headers").iter();
    headers.map(|header| (header[0].as_str().expect("a key").to_owned(), optional_bytes(&header[1]))).collect()
}

fn check_header(name: &str, header: &BatchHeader, expected: &Value) {
    let number = |field: &str| expected[field].as_i64().unwrap_or_else(|| panic!("{name}: {field} is a number"));
    assert_eq!(header.base_offset.get(), number("base_offset"), "{name}");
    assert_eq!(i64::from(header.batch_length), number("batch_length"), "{name}");
    let epoch = LeaderEpoch::to_wire(header.partition_leader_epoch);
    assert_eq!(i64::from(epoch), number("partition_leader_epoch"), "{name}");
    assert_eq!(i64::from(BATCH_MAGIC), number("magic"), "{name}");
    assert_eq!(i64::from(header.crc), number("crc"), "{name}");
    assert_eq!(i64::from(header.attributes.bits()), number("attributes"), "{name}");
    assert_eq!(i64::from(header.last_offset_delta), number("last_offset_delta"), "{name}");
    assert_eq!(header.base_timestamp.get(), number("base_timestamp"), "{name}");
    assert_eq!(header.max_timestamp.get(), number("max_timestamp"), "{name}");
    assert_eq!(header.producer_id, number("producer_id"), "{name}");
    assert_eq!(i64::from(header.producer_epoch), number("producer_epoch"), "{name}");
    assert_eq!(i64::from(header.base_sequence), number("base_sequence"), "{name}");
    assert_eq!(i64::from(header.record_count), number("record_count"), "{name}");
}

fn check_records(name: &str, batch: &[u8], expected: &[Value]) {
    let mut scratch = Scratch::default();
    let records = BatchView::parse(batch).expect("whole").records(&mut scratch).expect("readable");
    let records: Vec<Record<'_>> = records.collect::<Result<_, _>>().expect("valid records");
    assert_eq!(records.len(), expected.len(), "{name}");
    for (record, expected) in records.iter().zip(expected) {
        assert_eq!(Some(record.offset.get()), expected["offset"].as_i64(), "{name}");
        assert_eq!(Some(record.timestamp.get()), expected["timestamp"].as_i64(), "{name}");
        assert_eq!(record.key, optional_bytes(&expected["key"]).as_deref(), "{name}");
        assert_eq!(record.value, optional_bytes(&expected["value"]).as_deref(), "{name}");
        let own = |header: Header<'_>| (header.key_text().into_owned(), header.value.map(<[u8]>::to_vec));
        assert_eq!(record.headers().map(own).collect::<Vec<_>>(), headers(expected), "{name}");
    }
}

/// Builds the batch that a vector describes, as a producer without an identity.
fn build(vector: &Value, records: &[Value]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    for record in records {
        let (key, value) = (optional_bytes(&record["key"]), optional_bytes(&record["value"]));
        let headers = headers(record);
        let timestamp = Timestamp::new(record["timestamp"].as_i64().expect("a timestamp"));
        let headers = headers.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
        builder.append_parts(timestamp, key.as_deref(), value.as_deref(), headers).expect("it fits");
    }
    let mut batch = builder.finish().expect("not empty").to_vec();
    // The client that built the vectors writes epoch 0 where others write none; the checksum leaves it out.
    let epoch = vector["header"]["partition_leader_epoch"].as_i64().expect("a number");
    if let Some(epoch) = LeaderEpoch::from_wire(i32::try_from(epoch).expect("an i32")) {
        set_leader_epoch(&mut batch, epoch);
    }
    batch
}

#[test]
fn batches_of_a_kafka_client_are_valid_and_are_built_here_byte_for_byte() {
    let (mut read, mut built) = (0, 0);
    for vector in vectors("batches") {
        let name = vector["name"].as_str().expect("a name");
        let bytes = bytes_from_hex(&vector["hex"]);
        let records = vector["records"].as_array().expect("an array of records");
        let header = validate_batch(&bytes, &BatchLimits::default()).expect(name);
        assert_eq!(header.encode(), bytes[..BATCH_HEADER_BYTES], "{name}");
        assert_eq!(header.size_bytes(), bytes.len(), "{name}");
        assert_eq!(Some(header.compression().name()), vector["compression"].as_str(), "{name}");
        check_header(name, &header, &vector["header"]);

        check_records(name, &bytes, records);
        read += 1;
        // Compressors differ, and the builder has no producer identity: the rest must be the same bytes.
        if header.compression() == Compression::None && header.producer_id == -1 {
            assert_eq!(build(&vector, records), bytes, "{name}");
            built += 1;
        }
    }
    assert!(read >= 8 && built >= 6, "{read} read, {built} built");
}

#[test]
fn every_rejected_batch_is_refused_with_its_code() {
    for vector in vectors("rejected") {
        let error = validate_batch(&bytes_from_hex(&vector["hex"]), &BatchLimits::default()).map(|_| ());
        let code = error.map_err(|error| error.code().name());
        assert_eq!(code, Err(vector["error"].as_str().expect("an error")), "{}", vector["name"]);
    }
}

#[test]
fn no_unreadable_batch_is_read_to_its_end() {
    for vector in vectors("unreadable") {
        let bytes = bytes_from_hex(&vector["hex"]);
        validate_batch(&bytes, &BatchLimits::default()).expect("only a reader finds what is wrong");
        let mut scratch = Scratch::default();
        let read = BatchView::parse(&bytes)
            .and_then(|batch| batch.records(&mut scratch)?.try_for_each(|record| record.map(|_| ())));
        assert!(read.is_err(), "{}", vector["name"]);
    }
}
