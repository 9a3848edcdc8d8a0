//! The lines of a dump, as text and as JSON.

use std::fmt::{self, Display};
use std::ops::Range;
use std::path::Path;

use ringmq_controller::metadata::Command;
use ringmq_shard::inspect::{
    BlockNumber, Coverage, FoundEntry, FrameFault, FrameInfo, FramePlace, ProducerSnapshot, SnapshotProducer, TableFact,
};
use ringmq_wire::batch::{BatchView, Record};
use ringmq_wire::{Offset, Sequence, Timestamp};
use serde::Serialize;

use super::dump::Line;
use crate::commands::consume::JsonRecord;

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A frame.
#[derive(Serialize)]
pub(super) struct FrameLine {
    file: String,
    position: u64,
    bytes: u32,
    log: String,
    segment: i64,
    base_offset: i64,
    next_offset: i64,
    records: u32,
    payload_bytes: u32,
    generation: u64,
    log_number: String,
    leader_epoch: i32,
    frames_end: i64,
    durable_offset: i64,
    written_at: i64,
    max_timestamp: i64,
    /// The position that the frame was written for, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    belongs_at: Option<u64>,
}

impl FrameLine {
    pub(super) fn new(path: &Path, position: u64, info: &FrameInfo) -> Self {
        Self {
            file: file_name(path),
            position,
            bytes: info.frame_bytes,
            log: info.id.to_string(),
            segment: info.segment_base.get(),
            base_offset: info.base_offset.get(),
            next_offset: info.next_offset.get(),
            records: info.record_count,
            payload_bytes: info.payload_bytes,
            generation: info.generation,
            log_number: format!("{:016x}", info.log_number),
            leader_epoch: info.leader_epoch.get(),
            frames_end: info.frames_end.get(),
            durable_offset: info.durable_offset.get(),
            written_at: info.written_at.get(),
            max_timestamp: info.max_timestamp.get(),
            belongs_at: Some(info.position).filter(|belongs_at| *belongs_at != position),
        }
    }
}

impl Line for FrameLine {
    fn to_text(&self) -> String {
        let Self { file, position, bytes, base_offset, next_offset, records, payload_bytes, generation, .. } = self;
        let (written_at, max, durable, frames_end) =
            (self.written_at, self.max_timestamp, self.durable_offset, self.frames_end);
        let belongs = self.belongs_at.map(|at| format!(" BELONGS AT {at}")).unwrap_or_default();
        format!(
            "frame {file}@{position} bytes={bytes} offsets={base_offset}..{next_offset} records={records} \
             payload={payload_bytes} generation={generation} log={} frames_end={frames_end} durable={durable} \
             written_at={written_at} max_timestamp={max}{belongs}",
            self.log
        )
    }
}

/// What is no frame, or no batch.
#[derive(Serialize)]
pub(super) struct UnreadableLine {
    file: String,
    position: u64,
    bytes: Option<u64>,
    unreadable: String,
}

impl UnreadableLine {
    pub(super) fn new(path: &Path, bytes: Range<u64>, fault: FrameFault) -> Self {
        let (file, position) = (file_name(path), bytes.start);
        Self { file, position, bytes: Some(bytes.end - bytes.start), unreadable: fault.to_string() }
    }

    pub(super) fn of_batch(path: &Path, position: u64, error: &dyn Display) -> Self {
        Self { file: file_name(path), position, bytes: None, unreadable: format!("a batch: {error}") }
    }
}

impl Line for UnreadableLine {
    fn to_text(&self) -> String {
        let bytes = self.bytes.map(|bytes| format!(" bytes={bytes}")).unwrap_or_default();
        format!("unreadable {}@{}{bytes}: {}", self.file, self.position, self.unreadable)
    }
}

/// A batch, with the position of its frame, or the number of its journal block.
#[derive(Serialize)]
pub(super) struct BatchLine {
    file: String,
    position: u64,
    base_offset: i64,
    next_offset: i64,
    records: u32,
    bytes: usize,
    compression: String,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    checksum_is_right: bool,
}

impl BatchLine {
    pub(super) fn new(path: &Path, position: u64, batch: &BatchView<'_>) -> Self {
        let header = batch.header();
        Self {
            file: file_name(path),
            position,
            base_offset: header.base_offset.get(),
            next_offset: header.next_offset().get(),
            records: header.record_count,
            bytes: header.size_bytes(),
            compression: format!("{:?}", header.compression()).to_lowercase(),
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            base_timestamp: header.base_timestamp.get(),
            max_timestamp: header.max_timestamp.get(),
            checksum_is_right: batch.verify_checksum().is_ok(),
        }
    }
}

impl Line for BatchLine {
    fn to_text(&self) -> String {
        let Self { file, position, base_offset, next_offset, records, bytes, compression, .. } = self;
        let (id, epoch, sequence) = (self.producer_id, self.producer_epoch, self.base_sequence);
        let checksum = if self.checksum_is_right { "" } else { " CHECKSUM WRONG" };
        format!(
            "batch {file}@{position} offsets={base_offset}..{next_offset} records={records} bytes={bytes} \
             compression={compression} producer={id}/{epoch}/{sequence} timestamps={}..={}{checksum}",
            self.base_timestamp, self.max_timestamp
        )
    }
}

/// A record, with the position of its frame.
#[derive(Serialize)]
pub(super) struct RecordLine<'a> {
    file: String,
    position: u64,
    /// The change of the metadata that the record is.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(flatten)]
    record: JsonRecord<'a>,
    #[serde(skip)]
    text: String,
}

impl<'a> RecordLine<'a> {
    pub(super) fn new(path: &Path, position: u64, record: &Record<'a>) -> Self {
        let shown = |bytes: Option<&[u8]>| bytes.map_or("null".to_owned(), |b| format!("\"{}\"", b.escape_ascii()));
        let mut text =
            format!("timestamp={} key={} value={}", record.timestamp, shown(record.key), shown(record.value));
        for header in record.headers() {
            text += &format!(" header {}={}", header.key.escape_ascii(), shown(header.value));
        }
        // The metadata log stands below a directory of that name; its values are commands.
        let is_metadata = path.ancestors().any(|above| above.file_name().is_some_and(|name| name == "metadata"));
        let command = record.value.filter(|_| is_metadata).and_then(|value| Command::decode(value).ok());
        let command = command.map(|command| format!("{command:?}"));
        Self { file: file_name(path), position, command, record: JsonRecord::new(None, record), text }
    }
}

impl Line for RecordLine<'_> {
    fn to_text(&self) -> String {
        let command = self.command.as_ref().map(|command| format!(" command={command}")).unwrap_or_default();
        format!("record {}@{} offset={} {}{command}", self.file, self.position, self.record.offset(), self.text)
    }
}

/// What an index covers, or one of its entries.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum IndexLine {
    Coverage { file: String, segment: i64, log_number: String, end_offset: i64, end_position: u64, max_timestamp: i64 },
    Place { offset: i64, position: u64 },
    Time { latest_before: i64, offset: i64 },
}

impl IndexLine {
    pub(super) fn of_coverage(path: &Path, coverage: &Coverage) -> Self {
        Self::Coverage {
            file: file_name(path),
            segment: coverage.segment_base.get(),
            log_number: format!("{:016x}", coverage.log_number),
            end_offset: coverage.end.get(),
            end_position: coverage.end_position,
            max_timestamp: coverage.max_timestamp.get(),
        }
    }

    pub(super) fn of_place(place: &FramePlace) -> Self {
        Self::Place { offset: place.offset.get(), position: place.position }
    }

    pub(super) fn of_time((latest_before, offset): &(Timestamp, Offset)) -> Self {
        Self::Time { latest_before: latest_before.get(), offset: offset.get() }
    }

    pub(super) fn offset(&self) -> Option<i64> {
        match self {
            Self::Coverage { .. } => None,
            Self::Place { offset, .. } | Self::Time { offset, .. } => Some(*offset),
        }
    }
}

impl Line for IndexLine {
    fn to_text(&self) -> String {
        match self {
            Self::Coverage { file, segment, log_number, end_offset, end_position, max_timestamp } => format!(
                "index {file} segment={segment} log_number={log_number} end_offset={end_offset} \
                 end_position={end_position} max_timestamp={max_timestamp}"
            ),
            Self::Place { offset, position } => format!("entry offset={offset} position={position}"),
            Self::Time { latest_before, offset } => format!("entry latest_before={latest_before} offset={offset}"),
        }
    }
}

/// A snapshot of producers, or what it says of one of them.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ProducersLine {
    Snapshot { file: String, log: String, log_number: String, generation: u64, offset: i64, producers: usize },
    Producer { producer_id: i64, epoch: i16, next_sequence: i32, last_used: i64, runs: Vec<RunLine> },
}

/// A row of records of a producer.
#[derive(Serialize)]
pub(super) struct RunLine {
    first_sequence: i32,
    base_offset: i64,
    next_offset: i64,
}

impl ProducersLine {
    pub(super) fn of_snapshot(path: &Path, snapshot: &ProducerSnapshot) -> Self {
        Self::Snapshot {
            file: file_name(path),
            log: snapshot.log().to_string(),
            log_number: format!("{:016x}", snapshot.log_number()),
            generation: snapshot.generation(),
            offset: snapshot.offset().get(),
            producers: snapshot.producers().len(),
        }
    }

    pub(super) fn of_producer(producer: &SnapshotProducer) -> Self {
        let line = |(sequence, offsets): &(Sequence, Range<Offset>)| RunLine {
            first_sequence: sequence.get(),
            base_offset: offsets.start.get(),
            next_offset: offsets.end.get(),
        };
        Self::Producer {
            producer_id: producer.id.get(),
            epoch: producer.epoch.get(),
            next_sequence: producer.next_sequence.get(),
            last_used: producer.last_used.get(),
            runs: producer.runs.iter().map(line).collect(),
        }
    }
}

impl Line for ProducersLine {
    fn to_text(&self) -> String {
        match self {
            Self::Snapshot { file, log, log_number, generation, offset, producers } => format!(
                "producers {file} log={log} log_number={log_number} generation={generation} offset={offset} \
                 producers={producers}"
            ),
            Self::Producer { producer_id, epoch, next_sequence, last_used, runs } => {
                let runs = runs.iter().map(|run| {
                    let RunLine { first_sequence, base_offset, next_offset } = run;
                    format!(" run={first_sequence}@{base_offset}..{next_offset}")
                });
                let runs: String = runs.collect();
                format!("producer {producer_id}/{epoch} next_sequence={next_sequence} last_used={last_used}{runs}")
            }
        }
    }
}

/// A block of a generation table.
#[derive(Serialize)]
pub(super) struct BlockLine {
    file: String,
    block: u32,
    readable: bool,
    entries: Vec<FactLine>,
}

#[derive(Serialize)]
struct FactLine {
    kind: String,
    #[serde(flatten)]
    about: About,
}

/// What a fact speaks of.
#[derive(Serialize)]
#[serde(untagged)]
enum About {
    Log {
        log: String,
        log_number: String,
        generation: u64,
        offset: i64,
    },
    JournalFile {
        ring: String,
        /// Of blocks that were kept aside.
        #[serde(skip_serializing_if = "Option::is_none")]
        first_block: Option<u64>,
    },
}

impl About {
    fn new(fact: &TableFact) -> Self {
        let number = format!("{:016x}", fact.number);
        match fact.id {
            Some(id) => Self::Log {
                log: id.to_string(),
                log_number: number,
                generation: fact.generation,
                offset: fact.offset.get(),
            },
            None => Self::JournalFile { ring: number, first_block: fact.first_block },
        }
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log { log, log_number, generation, offset } => {
                write!(f, "log={log} log_number={log_number} generation={generation} offset={offset}")
            }
            Self::JournalFile { ring, first_block: None } => write!(f, "ring={ring}"),
            Self::JournalFile { ring, first_block: Some(first) } => write!(f, "ring={ring} first_block={first}"),
        }
    }
}

impl BlockLine {
    pub(super) fn new(path: &Path, block: u32, readable: bool, facts: &[TableFact]) -> Self {
        let fact =
            |fact: &TableFact| FactLine { kind: format!("{:?}", fact.kind).to_lowercase(), about: About::new(fact) };
        Self { file: file_name(path), block, readable, entries: facts.iter().map(fact).collect() }
    }
}

impl Line for BlockLine {
    fn to_text(&self) -> String {
        let readable = if self.readable { "" } else { " unreadable, or never written" };
        let mut text = format!("block {}#{}{readable}", self.file, self.block);
        for FactLine { kind, about } in &self.entries {
            text += &format!("\n  {kind} {about}");
        }
        text
    }
}

/// An append in a journal, or a block of it that is missing.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum JournalLine {
    Entry {
        file: String,
        block: u64,
        log: String,
        log_number: String,
        generation: u64,
        base_offset: i64,
        next_offset: i64,
        payload_bytes: usize,
        frames_end: i64,
    },
    Missing {
        file: String,
        block: u64,
        unreadable: &'static str,
    },
}

impl JournalLine {
    pub(super) fn new(path: &Path, entry: &FoundEntry) -> Self {
        let header = &entry.header;
        Self::Entry {
            file: file_name(path),
            block: entry.block.get(),
            log: format!("{}/{}", header.topic_id, header.partition),
            log_number: format!("{:016x}", header.log_number),
            generation: header.generation,
            base_offset: header.base_offset.get(),
            next_offset: header.next_offset.get(),
            payload_bytes: entry.payload.len(),
            frames_end: header.frames_end.get(),
        }
    }

    pub(super) fn missing(path: &Path, block: BlockNumber) -> Self {
        let unreadable = "the block was acknowledged and cannot be read";
        Self::Missing { file: file_name(path), block: block.get(), unreadable }
    }
}

impl Line for JournalLine {
    fn to_text(&self) -> String {
        match self {
            Self::Entry {
                file, block, log, generation, base_offset, next_offset, payload_bytes, frames_end, ..
            } => {
                format!(
                    "append {file}#{block} log={log} offsets={base_offset}..{next_offset} payload={payload_bytes} \
                     generation={generation} frames_end={frames_end}"
                )
            }
            Self::Missing { file, block, unreadable } => format!("unreadable {file}#{block}: {unreadable}"),
        }
    }
}
