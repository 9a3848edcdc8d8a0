//! Records as they are printed.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringmq_wire::PartitionIndex;
use ringmq_wire::batch::Record;
use serde::Serialize;

use crate::cli::{Part, RecordFormat};

/// Prints records of one topic in one form.
#[derive(Debug)]
pub(super) struct RecordWriter {
    /// The form.
    pub format: RecordFormat,
    /// The topic, for format strings.
    pub topic: String,
    /// What stands for null in text and format strings.
    pub null: String,
}

impl RecordWriter {
    /// Appends one record to `out`.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which does not happen to bytes in memory.
    pub(super) fn write(&self, partition: PartitionIndex, record: &Record<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        match &self.format {
            RecordFormat::Raw => out.extend_from_slice(record.value.unwrap_or_default()),
            RecordFormat::Text => {
                out.extend_from_slice(self.or_null(record.value));
                out.push(b'\n');
            }
            RecordFormat::Json => {
                serde_json::to_writer(&mut *out, &JsonRecord::new(Some(partition), record))?;
                out.push(b'\n');
            }
            RecordFormat::Template(template) => {
                for part in template.parts() {
                    self.write_part(part, partition, record, out)?;
                }
            }
        }
        Ok(())
    }

    fn write_part(
        &self,
        part: &Part,
        partition: PartitionIndex,
        record: &Record<'_>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        match part {
            Part::Literal(bytes) => out.extend_from_slice(bytes),
            Part::Topic => out.extend_from_slice(self.topic.as_bytes()),
            Part::Partition => write!(out, "{partition}")?,
            Part::Offset => write!(out, "{}", record.offset)?,
            Part::Key => out.extend_from_slice(self.or_null(record.key)),
            Part::Value => out.extend_from_slice(self.or_null(record.value)),
            Part::Timestamp => write!(out, "{}", record.timestamp.get())?,
            Part::Headers => {
                for (place, header) in record.headers().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(header.key);
                    out.push(b'=');
                    out.extend_from_slice(self.or_null(header.value));
                }
            }
        }
        Ok(())
    }

    fn or_null<'b>(&'b self, bytes: Option<&'b [u8]>) -> &'b [u8] {
        bytes.unwrap_or(self.null.as_bytes())
    }
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

    fn printed(format: &str, record: RecordRef<'_>) -> Vec<u8> {
        let (format, topic, null) = (format.parse().expect("a format"), "orders".to_owned(), r"\N".to_owned());
        let writer = RecordWriter { format, topic, null };
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append(&record).expect("fits");
        let bytes = builder.finish().expect("a batch");
        let view = BatchView::parse(&bytes).expect("a batch");
        let mut scratch = Scratch::default();
        let mut out = Vec::new();
        for record in view.records(&mut scratch).expect("records") {
            writer.write(PartitionIndex::new(3), &record.expect("a record"), &mut out).expect("printed");
        }
        out
    }

    #[test]
    fn text_and_raw_pass_bytes_unchanged() {
        let record = RecordRef { timestamp: TIME, key: Some(b"k"), value: Some(b"a\xff\r"), headers: &[] };
        assert_eq!(printed("text", record), b"a\xff\r\n");
        assert_eq!(printed("raw", record), b"a\xff\r");
        let deletion = RecordRef { value: None, ..record };
        assert_eq!(printed("text", deletion), b"\\N\n");
        assert_eq!(printed("raw", deletion), b"");
        let empty = RecordRef { value: Some(b""), ..record };
        assert_eq!(printed("text", empty), b"\n");
    }

    #[test]
    fn a_format_string_prints_its_fields_and_nothing_else() {
        let headers = [("a", Some(&b"1"[..])), ("none", None), ("empty", Some(b""))];
        let record = RecordRef { timestamp: TIME, key: Some(b"\xff"), value: None, headers: &headers };
        let printed_as = |format| printed(format, record);
        assert_eq!(printed_as(r"%t %p %o %T\n"), b"orders 3 0 1763820000000\n");
        assert_eq!(printed_as("%k=%v"), b"\xff=\\N");
        assert_eq!(printed_as("[%h]"), b"[a=1,none=\\N,empty=]");
        let plain = RecordRef { key: None, headers: &[], ..record };
        assert_eq!(printed("%k[%h]%%", plain), b"\\N[]%");
    }

    #[test]
    fn json_has_every_field() {
        let headers = [("trace", Some(&b"1"[..])), ("empty", None)];
        let value = "\u{e9}\"".as_bytes();
        let record = RecordRef { timestamp: TIME, key: Some(b"k"), value: Some(value), headers: &headers };
        assert_eq!(
            String::from_utf8(printed("json", record)).expect("text"),
            "{\"partition\":3,\"offset\":0,\"timestamp\":1763820000000,\"key\":\"k\",\"value\":\"\u{e9}\\\"\",\
             \"headers\":[{\"key\":\"trace\",\"value\":\"1\"},{\"key\":\"empty\",\"value\":null}]}\n"
        );
    }

    #[test]
    fn json_encodes_what_is_not_text() {
        let record = RecordRef { timestamp: TIME, key: None, value: Some(b"\xff\x00"), headers: &[] };
        let text = String::from_utf8(printed("json", record)).expect("text");
        assert!(text.contains("\"key\":null,\"value_base64\":\"/wA=\",\"headers\":[]"), "{text}");
        assert!(!text.contains("\"value\":"), "{text}");
    }
}
