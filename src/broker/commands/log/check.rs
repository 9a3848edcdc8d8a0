//! `ringmq log check`: everything in a data directory, read to the last record.

use std::fmt::Write;

use ringmq_shard::inspect::{
    DamagedPlace, DirectoryCheck, JournalCheck, LogCheck, NextStart, OpenError, Part, PartitionCheck, SegmentCheck,
    Selection, SnapshotCheck, SnapshotDamage, StoppedBroker,
};
use ringmq_wire::PartitionIndex;
use serde::Serialize;

use super::{LogError, on_executor};
use crate::cli::{LogCheckArgs, OutputFormat};
use crate::commands::CommandError;
use crate::commands::progress::{Progress, Total};
use crate::exit::Exit;
use crate::output;

/// Checks and reports.
///
/// # Errors
/// When the directory cannot be looked into. What is damaged is told, and the exit code says so.
pub(crate) fn run(args: &LogCheckArgs) -> Result<Exit, CommandError> {
    let (dir, topic, partition) = (args.dir.clone(), args.topic.clone(), args.partition.map(PartitionIndex::new));
    let selection = Selection { topic, partition };
    let check = on_executor(move || async move {
        let broker = StoppedBroker::open(&dir).await?;
        let mut progress = None;
        let told = |checked: &PartitionCheck, count: usize| {
            let sum = |of: fn(&SegmentCheck) -> u64| checked.log.segments.iter().map(of).sum();
            let total = Total::Partitions(count as u64);
            let progress = progress.get_or_insert_with(|| Progress::new(total, "checked"));
            progress.add_partition(sum(|segment| segment.records), sum(|segment| segment.frame_bytes));
        };
        let check = broker.check(&selection, told).await;
        if let Some(progress) = progress {
            progress.finish();
        }
        check
    })?;
    let report = Report::new(&check.map_err(LogError::from)?);
    match args.output.output {
        OutputFormat::Text => output::print(report.to_text().trim_end())?,
        OutputFormat::Json => output::print_json(&report)?,
    }
    Ok(if report.sound { Exit::Done } else { Exit::Failed })
}

#[derive(Serialize)]
struct Report {
    sound: bool,
    metadata: Log,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_tables: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    generation_tables_lost: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    journals_unread: Vec<String>,
    journals: Vec<Journal>,
    journals_vanished: usize,
    partitions: Vec<Partition>,
    unknown_topics: Vec<String>,
    hidden_partitions: Vec<String>,
    metadata_lost: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_refused: Option<String>,
}

#[derive(Serialize)]
struct Journal {
    file: String,
    appends: usize,
    damaged_positions: Vec<u64>,
}

#[derive(Serialize)]
struct Partition {
    topic: String,
    partition: u32,
    #[serde(flatten)]
    log: Log,
}

#[derive(Serialize)]
struct Log {
    sound: bool,
    directory: String,
    segments: usize,
    frames: u64,
    batches: u64,
    records: u64,
    frame_bytes: u64,
    file_bytes: u64,
    start_offset: i64,
    end_offset: i64,
    damage: Vec<Place>,
    producer_snapshots: Vec<Snapshot>,
    next_start: Outlook,
}

/// A snapshot of producers.
#[derive(Serialize)]
struct Snapshot {
    file: String,
    offset: i64,
    producers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unused: Option<String>,
}

#[derive(Serialize)]
struct Place {
    part: &'static str,
    file: String,
    position: u64,
    expected_offset: i64,
    found: String,
}

/// What the next start makes of a log.
#[derive(Serialize)]
struct Outlook {
    serves: bool,
    /// Whole sentences.
    what: Vec<String>,
}

impl Report {
    fn new(check: &DirectoryCheck) -> Self {
        Self {
            sound: check.is_sound(),
            metadata: Log::of_metadata(&check.metadata),
            generation_tables: check.generations.as_ref().map(ToString::to_string),
            generation_tables_lost: check.generations_lost.clone(),
            journals_unread: check.journals_unread.clone(),
            journals: check.journals.iter().map(Journal::new).collect(),
            journals_vanished: check.journals_vanished,
            partitions: check.partitions.iter().map(Partition::new).collect(),
            unknown_topics: check.unknown_topics.iter().map(ToString::to_string).collect(),
            hidden_partitions: check.hidden_partitions.iter().map(ToString::to_string).collect(),
            metadata_lost: check.metadata_lost,
            metadata_refused: check.metadata_refused.as_ref().map(ToString::to_string),
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        self.metadata.write("metadata log", &mut text);
        let tables = self.generation_tables.iter().chain(&self.generation_tables_lost);
        for error in tables.chain(&self.journals_unread) {
            let _ = writeln!(text, "DAMAGED  {error}");
        }
        for journal in &self.journals {
            let verdict = if journal.damaged_positions.is_empty() { "sound  " } else { "DAMAGED" };
            let _ = writeln!(text, "{verdict}  journal {}: {} append(s)", journal.file, journal.appends);
            for position in &journal.damaged_positions {
                let _ = writeln!(
                    text,
                    "         position {position}: blocks that were acknowledged cannot be read; the partitions tell \
                     whether they need them"
                );
            }
        }
        if self.journals_vanished > 0 {
            let _ = writeln!(
                text,
                "DAMAGED  {} file(s) of the journals are missing; the partitions tell whether they need them",
                self.journals_vanished
            );
        }
        for Partition { topic, partition, log } in &self.partitions {
            log.write(&format!("topic {topic} partition {partition}"), &mut text);
        }
        for id in &self.unknown_topics {
            let _ = writeln!(text, "note     directory {id}: the metadata knows no such topic; it is left alone");
        }
        for hidden in self.hidden_partitions.iter().chain(&self.metadata_refused) {
            let _ = writeln!(text, "DAMAGED  {hidden}");
        }
        if self.metadata_lost {
            let _ = writeln!(
                text,
                "DAMAGED  the metadata log is empty and there are topics: it was lost, and no broker starts"
            );
        }
        let _ = write!(text, "{}", if self.sound { "everything is sound" } else { "there is damage: see above" });
        text
    }
}

impl Journal {
    fn new(check: &JournalCheck) -> Self {
        let JournalCheck { path, appends, missing } = check;
        Self { file: path.display().to_string(), appends: *appends, damaged_positions: missing.clone() }
    }
}

impl Partition {
    fn new(check: &PartitionCheck) -> Self {
        let partition = check.log.id.partition.get();
        Self { topic: check.topic.clone(), partition, log: Log::new(&check.log) }
    }
}

impl Log {
    /// The metadata log, which has a repair of its own.
    fn of_metadata(check: &LogCheck) -> Self {
        let mut log = Self::new(check);
        if let NextStart::Refuses(error) = &check.next_start
            && let OpenError::Corrupt(damage) = &**error
        {
            let advice = "No broker starts. Restore \"metadata\" from a copy made while the broker was stopped, or see what \
                          `ringmq log repair DIR --metadata` can keep";
            log.next_start.what = vec![format!("refuses it: {damage}. {advice}")];
        }
        log
    }

    fn new(check: &LogCheck) -> Self {
        let segments = &check.segments;
        let end = match &check.next_start {
            NextStart::Serves { end, .. } => end.get(),
            NextStart::Empty | NextStart::Refuses(_) => segments.last().map_or(0, |last| last.end.get()),
        };
        let damage: Vec<Place> = segments.iter().flat_map(|segment| &segment.damage).map(Place::new).collect();
        let snapshots: Vec<Snapshot> = check.snapshots.iter().map(Snapshot::new).collect();
        let sound_snapshots = snapshots.iter().all(|snapshot| snapshot.damage.is_none());
        Self {
            sound: damage.is_empty() && sound_snapshots && check.next_start.refusal().is_none(),
            directory: format!("{}/{}", check.id.topic_id, check.id.partition),
            segments: segments.len(),
            frames: segments.iter().map(|segment| segment.frames).sum(),
            batches: segments.iter().map(|segment| segment.batches).sum(),
            records: segments.iter().map(|segment| segment.records).sum(),
            frame_bytes: segments.iter().map(|segment| segment.frame_bytes).sum(),
            file_bytes: segments.iter().map(|segment| segment.file_bytes).sum(),
            start_offset: segments.first().map_or(0, |first| first.base.get()),
            end_offset: end,
            damage,
            producer_snapshots: snapshots,
            next_start: Outlook::new(&check.next_start),
        }
    }

    fn write(&self, name: &str, text: &mut String) {
        let Self { segments, frames, batches, records, frame_bytes, start_offset, end_offset, .. } = self;
        let verdict = if self.sound { "sound  " } else { "DAMAGED" };
        let _ = writeln!(
            text,
            "{verdict}  {name} ({}): {segments} segment(s), {frames} frame(s) of {frame_bytes} bytes, {batches} \
             batch(es), {records} record(s), offsets {start_offset} to {end_offset}",
            self.directory
        );
        for Place { part, file, position, expected_offset, found } in &self.damage {
            let _ = writeln!(
                text,
                "         {part} damaged: {file} at position {position}, where offset {expected_offset} is expected: \
                 {found}"
            );
        }
        for Snapshot { file, damage, unused, .. } in &self.producer_snapshots {
            if let Some(damage) = damage {
                let _ = writeln!(text, "         producers damaged: {file}: {damage}");
            }
            if let Some(unused) = unused {
                let _ = writeln!(text, "         producers: {file} is not used: {unused}");
            }
        }
        for what in &self.next_start.what {
            let _ = writeln!(text, "         next start: {what}");
        }
    }
}

impl Snapshot {
    fn new(check: &SnapshotCheck) -> Self {
        let damage = check.damage.as_ref().map(|damage| match damage {
            SnapshotDamage::Unreadable(why) => format!(
                "{why}. Nothing is lost: the next start does without it and reads from frames what producers have stored"
            ),
            SnapshotDamage::Contradicts(what) => format!(
                "{what}. The next start would believe it: remove the file, and what producers have stored is read from frames"
            ),
        });
        let (file, offset) = (check.path.display().to_string(), check.offset.get());
        Self { file, offset, producers: check.producers, damage, unused: check.unused.clone() }
    }
}

impl Place {
    fn new(place: &DamagedPlace) -> Self {
        let part = match place.part {
            Part::Frame => "frame",
            Part::Batch => "batch",
            Part::Index => "index",
        };
        Self {
            part,
            file: place.path.display().to_string(),
            position: place.position,
            expected_offset: place.expected.get(),
            found: place.found.clone(),
        }
    }
}

impl Outlook {
    fn new(next_start: &NextStart) -> Self {
        let mut what = Vec::new();
        match next_start {
            NextStart::Empty => {}
            NextStart::Refuses(error) => what.push(format!("refuses it: {error}")),
            NextStart::Serves { frames_end, end, redo, cut, removed } => {
                if let Some((segment, position, frames)) = cut {
                    what.push(format!(
                        "cuts {} at position {position}, {frames} frame(s) and what may be left of another: what stands \
                         behind was never acknowledged",
                        segment.display()
                    ));
                }
                if *redo > 0 {
                    what.push(format!(
                        "puts {redo} append(s) of the journal into segments, offsets {frames_end} to {end}"
                    ));
                }
                let names = removed.iter().map(|path| path.display().to_string());
                what.extend(names.map(|name| format!("removes {name}, which was never written to")));
            }
        }
        Self { serves: next_start.refusal().is_none(), what }
    }
}
