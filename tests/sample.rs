//! Data directories that are kept in the repository: how one gets there, and back.
//!
//! A sample is a directory with `files` (a line for each file: its path, its length, and the extents of it that are not
//! zero, as POSITION+LENGTH), `data` (these extents, one behind the other) and `records.jsonl` (every record that is in it,
//! a JSON object a line). Segments, journals and tables are mostly zeros, so little is left of them.

use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

const FILES: &str = "files";
const DATA: &str = "data";
const RECORDS: &str = "records.jsonl";

/// A record that a sample holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleRecord {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, in milliseconds since 1970.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<String>,
    /// Its value.
    pub value: Option<String>,
    /// Its headers, in order.
    pub headers: Vec<(String, String)>,
}

impl SampleRecord {
    fn to_json(&self) -> Value {
        json!({
            "topic": self.topic, "partition": self.partition, "offset": self.offset, "timestamp": self.timestamp,
            "key": self.key, "value": self.value, "headers": self.headers,
        })
    }

    fn from_json(json: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let header = |pair: &Value| Some((text(&pair[0])?, text(&pair[1])?));
        Some(Self {
            topic: text(&json["topic"])?,
            partition: json["partition"].as_u64()?.try_into().ok()?,
            offset: json["offset"].as_i64()?,
            timestamp: json["timestamp"].as_i64()?,
            key: text(&json["key"]),
            value: text(&json["value"]),
            headers: json["headers"].as_array()?.iter().map(header).collect::<Option<_>>()?,
        })
    }
}

/// Makes a sample of a data directory that no broker uses.
///
/// # Errors
/// What the file system says.
pub fn pack(data: &Path, records: &[SampleRecord], sample: &Path) -> io::Result<()> {
    let (mut lines, mut content) = (String::new(), Vec::new());
    for path in files_below(data)? {
        let name = path.strip_prefix(data).map_err(io::Error::other)?;
        let bytes = std::fs::read(&path)?;
        let _ = write!(lines, "{} {}", name.display(), bytes.len());
        for extent in extents(&bytes) {
            let _ = write!(lines, " {}+{}", extent.start, extent.len());
            content.extend_from_slice(&bytes[extent]);
        }
        lines.push('\n');
    }
    std::fs::create_dir_all(sample)?;
    std::fs::write(sample.join(FILES), lines)?;
    std::fs::write(sample.join(DATA), content)?;
    let records: String = records.iter().map(|record| format!("{}\n", record.to_json())).collect();
    std::fs::write(sample.join(RECORDS), records)
}

/// What is not zero, in pieces with more than a few zeros between them.
fn extents(bytes: &[u8]) -> Vec<Range<usize>> {
    const GAP: usize = 64;
    let mut extents: Vec<Range<usize>> = Vec::new();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
        match extents.last_mut() {
            Some(last) if at - last.end < GAP => last.end = at + 1,
            _ => extents.push(at..at + 1),
        }
    }
    extents
}

/// Makes the data directory of a sample.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::InvalidData`] for what is no sample.
pub fn unpack(sample: &Path, data: &Path) -> io::Result<()> {
    let content = std::fs::read(sample.join(DATA))?;
    let mut rest = content.as_slice();
    for line in std::fs::read_to_string(sample.join(FILES))?.lines() {
        let mut words = line.split(' ');
        let (name, bytes) = words.next().zip(words.next()).ok_or(io::ErrorKind::InvalidData)?;
        let to = data.join(name);
        std::fs::create_dir_all(to.parent().unwrap_or(data))?;
        let file = std::fs::File::create(&to)?;
        file.set_len(number(bytes)?)?;
        for extent in words {
            let (position, bytes) = extent.split_once('+').ok_or(io::ErrorKind::InvalidData)?;
            let bytes = usize::try_from(number(bytes)?).map_err(io::Error::other)?;
            let (piece, behind) = rest.split_at_checked(bytes).ok_or(io::ErrorKind::InvalidData)?;
            file.write_all_at(piece, number(position)?)?;
            rest = behind;
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// What the sample's data directory holds, by topic, partition and offset.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::InvalidData`] for what is no sample.
pub fn records(sample: &Path) -> io::Result<Vec<SampleRecord>> {
    let record = |line: &str| serde_json::from_str(line).ok().as_ref().and_then(SampleRecord::from_json);
    let text = std::fs::read_to_string(sample.join(RECORDS))?;
    text.lines().map(|line| record(line).ok_or_else(|| io::ErrorKind::InvalidData.into())).collect()
}

/// In the order of their paths.
fn files_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}
