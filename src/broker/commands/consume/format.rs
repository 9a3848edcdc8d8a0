//! Records as they are printed.

use std::borrow::Cow;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringmq_wire::PartitionIndex;
use ringmq_wire::batch::Record;
use serde::Serialize;

use crate::cli::RecordFormat;

/// Appends one record to `out`.
///
/// # Errors
/// When it cannot be written as JSON, which does not happen to bytes in memory.
pub(super) fn write_record(
    format: RecordFormat,
    partition: PartitionIndex,
    record: &Record<'_>,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    match format {
        RecordFormat::Raw => out.extend_from_slice(record.value.unwrap_or_default()),
        RecordFormat::Text => {
            out.extend_from_slice(record.value.unwrap_or_default());
            out.push(b'\n');
        }
        RecordFormat::Json => {
            serde_json::to_writer(&mut *out, &JsonRecord::new(Some(partition), record))?;
            out.push(b'\n');
        }
    }
    Ok(())
}

/// Bytes are a string where they are UTF-8, and Base64 under another name where they are not.
#[derive(Serialize)]
pub(crate) struct JsonRecord<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    offset: i64,
    timestamp: i64,
    #[serde(skip_serializing_if = "Field::is_binary")]
    key: Field<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Field::is_binary")]
    value: Field<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<JsonHeader<'a>>,
}

#[derive(Serialize)]
struct JsonHeader<'a> {
    key: Cow<'a, str>,
    #[serde(skip_serializing_if = "Field::is_binary")]
    value: Field<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Field<'a> {
    Absent,
    Text(&'a str),
    Binary,
}

impl<'a> Field<'a> {
    fn new(bytes: Option<&'a [u8]>) -> (Self, Option<String>) {
        let Some(bytes) = bytes else { return (Self::Absent, None) };
        match std::str::from_utf8(bytes) {
            Ok(text) => (Self::Text(text), None),
            Err(_) => (Self::Binary, Some(STANDARD.encode(bytes))),
        }
    }

    fn is_binary(&self) -> bool {
        matches!(self, Self::Binary)
    }
}

impl<'a> JsonRecord<'a> {
    /// A record, and its partition where that is not known otherwise.
    pub(crate) fn new(partition: Option<PartitionIndex>, record: &Record<'a>) -> Self {
        let (key, key_base64) = Field::new(record.key);
        let (value, value_base64) = Field::new(record.value);
        let headers = record.headers().map(|header| {
            let (value, value_base64) = Field::new(header.value);
            JsonHeader { key: header.key_text(), value, value_base64 }
        });
        Self {
            partition: partition.map(PartitionIndex::get),
            offset: record.offset.get(),
            timestamp: record.timestamp.get(),
            key,
            key_base64,
            value,
            value_base64,
            headers: headers.collect(),
        }
    }

    /// Its offset.
    pub(crate) fn offset(&self) -> i64 {
        self.offset
    }
}

#[cfg(test)]
mod tests {
    use ringmq_wire::Timestamp;
    use ringmq_wire::batch::{BatchBuilder, BatchView, Compression, RecordRef, Scratch};

    use super::*;

    const TIME: Timestamp = Timestamp::new(1_763_820_000_000);

    fn printed(format: RecordFormat, record: RecordRef<'_>) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append(&record).expect("fits");
        let bytes = builder.finish().expect("a batch");
        let view = BatchView::parse(&bytes).expect("a batch");
        let mut scratch = Scratch::default();
        let mut out = Vec::new();
        for record in view.records(&mut scratch).expect("records") {
            write_record(format, PartitionIndex::new(3), &record.expect("a record"), &mut out).expect("printed");
        }
        out
    }

    #[test]
    fn text_and_raw_pass_bytes_unchanged() {
        let record = RecordRef { timestamp: TIME, key: Some(b"k"), value: Some(b"a\xff\r"), headers: &[] };
        assert_eq!(printed(RecordFormat::Text, record), b"a\xff\r\n");
        assert_eq!(printed(RecordFormat::Raw, record), b"a\xff\r");
        let deletion = RecordRef { value: None, ..record };
        assert_eq!(printed(RecordFormat::Text, deletion), b"\n");
    }

    #[test]
    fn json_has_every_field() {
        let headers = [("trace", Some(&b"1"[..])), ("empty", None)];
        let value = "\u{e9}\"".as_bytes();
        let record = RecordRef { timestamp: TIME, key: Some(b"k"), value: Some(value), headers: &headers };
        assert_eq!(
            String::from_utf8(printed(RecordFormat::Json, record)).expect("text"),
            "{\"partition\":3,\"offset\":0,\"timestamp\":1763820000000,\"key\":\"k\",\"value\":\"\u{e9}\\\"\",\
             \"headers\":[{\"key\":\"trace\",\"value\":\"1\"},{\"key\":\"empty\",\"value\":null}]}\n"
        );
    }

    #[test]
    fn json_encodes_what_is_not_text() {
        let record = RecordRef { timestamp: TIME, key: None, value: Some(b"\xff\x00"), headers: &[] };
        let text = String::from_utf8(printed(RecordFormat::Json, record)).expect("text");
        assert!(text.contains("\"key\":null,\"value_base64\":\"/wA=\",\"headers\":[]"), "{text}");
        assert!(!text.contains("\"value\":"), "{text}");
    }
}
