//! The metadata log: a partition log whose records are commands (`docs/formats/metadata-log.md`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_runtime::{fs, time};
use ringmq_segment::inspect::{DamagedPlace, LogCheck, NextStart, check_log, read_log};
use ringmq_segment::{
    Append, AppendError, Corruption, Damage, FrameFault, GenerationHistory, Generations, Journaled, LoadError, Log,
    LogConfig, LogDeps, LogId, OpenError, Payload, ReadError, Recovery, TailCache,
};
use ringmq_wire::batch::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchError, BatchLimits, BatchView, Compression, RecordRef, Scratch,
    split_batches,
};
use ringmq_wire::{Offset, PartitionIndex, ShardIndex, Timestamp, TopicId};

use crate::directory::{DataDirectory, METADATA};
use crate::metadata::{
    ALTERATION_BYTES_MAX, ApplyError, COMMAND_BYTES_MAX, COMMANDS_PER_TOPIC_MAX, Command, CommandError, Image, State,
    TOPICS_PER_REQUEST_MAX,
};
use crate::snapshots;

pub(crate) const GENERATIONS: &str = "generations";
/// The controller is no shard, and the only owner of its generation tables.
pub(crate) const OWNER: ShardIndex = ShardIndex::new(0);
pub(crate) const LOG_ID: LogId = LogId { topic_id: TopicId::METADATA, partition: PartitionIndex::new(0) };

/// What a record takes beside its value: its length, attributes, timestamp delta, offset delta, the lengths of key,
/// value and headers, each as long as a variable-length number gets for the batches written here.
const RECORD_OVERHEAD_BYTES_MAX: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
/// The most that one topic of a request takes: one command, or both that alter it.
const TOPIC_BYTES_MAX: usize = {
    let one = COMMAND_BYTES_MAX + RECORD_OVERHEAD_BYTES_MAX;
    let altered = ALTERATION_BYTES_MAX + COMMANDS_PER_TOPIC_MAX * RECORD_OVERHEAD_BYTES_MAX;
    if one > altered { one } else { altered }
};
const BATCH_BYTES_MAX: usize = BATCH_HEADER_BYTES + TOPICS_PER_REQUEST_MAX * TOPIC_BYTES_MAX;
const COMMANDS_MAX: usize = COMMANDS_PER_TOPIC_MAX * TOPICS_PER_REQUEST_MAX;
const FRAME_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(BATCH_BYTES_MAX < FRAME_BYTES_MAX, "the largest change must fit a frame");
#[allow(clippy::cast_possible_truncation, reason = "both are below the size of a frame")]
const LIMITS: BatchLimits =
    BatchLimits { batch_bytes_max: BATCH_BYTES_MAX as u32, record_count_max: COMMANDS_MAX as u32 };

const SEGMENT_BYTES: u64 = 64 << 20;
const CACHE_BYTES: usize = 1 << 20;
/// How much of the log is in memory at a time while it is replayed.
const REPLAY_BYTES: usize = 1 << 20;

pub(crate) struct MetadataLog {
    log: Log,
}

/// A metadata log that was opened, and what it adds up to.
pub(crate) struct Opened {
    pub(crate) log: MetadataLog,
    pub(crate) state: State,
    /// The offset of the snapshot that the state was read from; the commands from there on were applied.
    pub(crate) snapshot: Option<Offset>,
}

impl MetadataLog {
    /// Opens the log of a data directory and replays it, behind the latest snapshot if there is one.
    pub(crate) async fn open(directory: &DataDirectory) -> Result<Opened, MetadataLogError> {
        let (log, recovery) = open_log(directory.path()).await?;
        tracing::info!(?recovery, "opened the metadata log");
        let log = MetadataLog { log };
        match log.read(directory).await {
            Ok((state, snapshot)) => {
                let root = directory.path().join(METADATA);
                if let Err(error) = snapshots::end_repairs(&root, log.log.offsets().start).await {
                    tracing::warn!(%error, "the marks of a repair of the metadata are not removed");
                }
                Ok(Opened { log, state, snapshot })
            }
            Err(error) => {
                log.close().await;
                Err(error)
            }
        }
    }

    /// What the log adds up to, and the snapshot that this was read from.
    async fn read(&self, directory: &DataDirectory) -> Result<(State, Option<Offset>), MetadataLogError> {
        let root = directory.path().join(METADATA);
        let loaded = snapshots::load_latest(&root, directory.cluster(), self.log.offsets().start).await;
        let image = loaded.map_err(|cause| MetadataLogError::Snapshots { path: root.clone(), cause })?;
        let Some(mut image) = image else { return Ok((self.replay(State::new(directory.cluster())).await?, None)) };
        let (snapshot, end) = (image.applied(), self.log.offsets().durable);
        if snapshot > end {
            return Err(MetadataLogError::BehindSnapshot { path: snapshots::path_of(&root, snapshot), snapshot, end });
        }
        tracing::info!(%snapshot, %end, "read the metadata from a snapshot");
        if SeededBug::ApplyTwice.is_in() {
            image.set_applied(Offset::new(snapshot.get() - 1));
        }
        Ok((self.replay(State::restored(image)).await?, Some(snapshot)))
    }

    /// Whether it was repaired: some of its commands may be lost.
    pub(crate) fn begins_anew(&self) -> bool {
        self.log.offsets().start > Offset::ZERO
    }

    /// Appends commands as one batch, all or nothing; they are durable when this returns.
    ///
    /// `expected` is the offset that the first one gets: how many commands the state has applied.
    pub(crate) async fn append(&self, expected: Offset, commands: &[Command]) -> Result<(), AppendError> {
        let appended = self.log.append(batch_of(commands)).await?;
        assert_eq!(appended.base_offset, expected, "the metadata log has one writer, which applies what it appends");
        Ok(())
    }

    /// Applies all commands of the log that `state` has not applied.
    async fn replay(&self, mut state: State) -> Result<State, ReplayError> {
        let end = self.log.offsets().durable;
        while state.applied() < end {
            let from = state.applied();
            let read = self.log.read(from, REPLAY_BYTES).await?;
            for slice in &read.slices {
                for batch in split_batches(slice) {
                    replay_batch(
                        &batch.map_err(|cause| ReplayError::Batch { offset: state.applied(), cause })?,
                        &mut state,
                    )?;
                }
            }
            if state.applied() == from {
                return Err(ReplayError::Gap { expected: from, found: read.next_offset });
            }
        }
        Ok(state)
    }

    /// Writes down that the log ended cleanly. The log must not be used afterwards.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.log.close().await {
            tracing::warn!(%error, "the metadata log could not be closed cleanly; the next start recovers it");
        }
    }
}

/// The metadata of a data directory whose broker is stopped.
#[derive(Debug)]
pub struct InspectedMetadata {
    /// What its commands add up to, as far as they can be read one behind the other.
    pub image: Arc<Image>,
    /// The check of its log.
    pub check: LogCheck,
    /// Why a start refuses a log that can be opened.
    pub refused: Option<MetadataLogError>,
}

/// Reads the metadata of a data directory whose broker is stopped, as a start does. Changes nothing.
///
/// # Errors
/// When the log cannot be read or replayed.
pub async fn inspect_metadata(directory: &DataDirectory) -> Result<InspectedMetadata, MetadataLogError> {
    let root = directory.path().join(METADATA);
    let history = GenerationHistory::read(&root.join(GENERATIONS)).await?;
    let check = check_log(&root, LOG_ID, &history, &Journaled::default()).await;
    let loaded = snapshots::load_latest(&root, directory.cluster(), history.log_start(LOG_ID)).await;
    let image = loaded.map_err(|cause| MetadataLogError::Snapshots { path: root.clone(), cause })?;
    let snapshot = image.as_ref().map(Image::applied);
    let mut state = image.map_or_else(|| State::new(directory.cluster()), State::restored);
    let replay = |payload: &[u8]| {
        for batch in split_batches(payload) {
            let batch = batch.map_err(|cause| ReplayError::Batch { offset: state.applied(), cause })?;
            if batch.header().next_offset() > state.applied() {
                replay_batch(&batch, &mut state)?;
            }
        }
        Ok::<(), ReplayError>(())
    };
    read_log(&root, LOG_ID, &history, replay).await?;
    let refused = refusal(&root, &check, snapshot, state.applied());
    Ok(InspectedMetadata { image: state.image(), check, refused })
}

/// Why a start refuses a log that can be opened: it ends before its snapshot, or damage in it shows when it is replayed.
fn refusal(root: &Path, check: &LogCheck, snapshot: Option<Offset>, applied: Offset) -> Option<MetadataLogError> {
    let end = match check.next_start {
        NextStart::Serves { end, .. } => end,
        NextStart::Empty => Offset::ZERO,
        NextStart::Refuses(_) => return None,
    };
    if let Some(snapshot) = snapshot.filter(|snapshot| *snapshot > end) {
        let path = snapshots::path_of(root, snapshot);
        return Some(MetadataLogError::BehindSnapshot { path, snapshot, end });
    }
    if applied >= end {
        return None;
    }
    let first = check.segments.first().map_or(end, |segment| segment.base);
    let damage = check.segments.iter().flat_map(|segment| &segment.damage).find(|place| place.expected >= applied);
    let replay = damage.cloned().map_or(
        // It begins behind what its snapshot has.
        ReplayError::Gap { expected: applied, found: first },
        |DamagedPlace { path, position, expected, found, .. }| ReplayError::Damaged { path, position, expected, found },
    );
    Some(replay.into())
}

async fn open_log(data_dir: &Path) -> Result<(Log, Recovery), MetadataLogError> {
    let root = data_dir.join(METADATA);
    make_root(data_dir, &root).await.map_err(|cause| MetadataLogError::Root { path: root.clone(), cause })?;
    let generations = Generations::open(&root.join(GENERATIONS), OWNER).await?;
    let deps = LogDeps::without_journal(generations, TailCache::new(CACHE_BYTES));
    let config = LogConfig { segment_bytes: SEGMENT_BYTES, frame_bytes_max: FRAME_BYTES_MAX, ..LogConfig::default() };
    Ok(Log::open(&root, LOG_ID, config, &deps).await?)
}

async fn make_root(data_dir: &Path, root: &Path) -> io::Result<()> {
    if !fs::exists(root).await? {
        fs::create_dir_all(root).await?;
        fs::sync_dir(data_dir).await?;
    }
    Ok(())
}

fn batch_of(commands: &[Command]) -> Append {
    // A clock before 1970 is no reason to refuse a topic; nothing depends on the time.
    let timestamp = Timestamp::new(time::wall_clock().max(0));
    let mut batch = BatchBuilder::new(Compression::None);
    let mut value = Vec::with_capacity(COMMAND_BYTES_MAX);
    for command in commands {
        value.clear();
        command.encode(&mut value);
        let record = RecordRef { timestamp, key: None, value: Some(&value), headers: &[] };
        batch.append(&record).expect("a command and its timestamp are within the bounds of a record");
    }
    let batch: Bytes = batch.finish().expect("a change has at least one command");
    Append::validated(Payload::Copied(batch), &LIMITS).expect("the batch was built above, within its limits")
}

fn replay_batch(batch: &BatchView<'_>, state: &mut State) -> Result<(), ReplayError> {
    each_command(batch, |offset, command| {
        let expected = state.applied();
        if offset != expected {
            return Err(ReplayError::Gap { expected, found: offset });
        }
        state.apply(command).map(drop).map_err(|cause| ReplayError::Apply { offset, cause })
    })
}

/// Gives the commands of a batch, with their offsets.
pub(crate) fn each_command(
    batch: &BatchView<'_>,
    mut each: impl FnMut(Offset, Command) -> Result<(), ReplayError>,
) -> Result<(), ReplayError> {
    let offset = batch.header().base_offset;
    let damaged = |cause| ReplayError::Batch { offset, cause };
    if batch.header().compression() != Compression::None {
        return Err(ReplayError::Compressed { offset });
    }
    let mut scratch = Scratch::default();
    for record in batch.records(&mut scratch).map_err(damaged)? {
        let record = record.map_err(damaged)?;
        let offset = record.offset;
        let value = record.value.ok_or(ReplayError::NoCommand { offset })?;
        let command = Command::decode(value).map_err(|cause| ReplayError::Command { offset, cause })?;
        each(offset, command)?;
    }
    Ok(())
}

/// Why the metadata log cannot be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum MetadataLogError {
    /// Its directory cannot be made.
    #[error("cannot create the directory of the metadata log {}: {cause}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        cause: io::Error,
    },
    /// Its generation tables cannot be read.
    #[error("the metadata log cannot be opened: {0}")]
    Generations(#[from] LoadError),
    /// The log cannot be read, or is damaged where it had been acknowledged.
    #[error("the metadata log cannot be opened: {}", why_not_opened(.0))]
    Open(#[from] OpenError),
    /// The directory that its snapshots are in cannot be listed.
    #[error("cannot look for snapshots of the metadata in {}: {cause}", path.display())]
    Snapshots {
        /// The directory.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        cause: io::Error,
    },
    /// A snapshot knows of commands that the log does not have: it lost what had been acknowledged.
    #[error(
        "the snapshot of the metadata {} covers the commands below offset {snapshot}, but the metadata log ends at {end}: it \
         has lost some. Nothing was changed; {WHAT_TO_DO}", path.display()
    )]
    BehindSnapshot {
        /// The snapshot.
        path: PathBuf,
        /// The snapshot's offset.
        snapshot: Offset,
        /// Where the log ends.
        end: Offset,
    },
    /// A record of it cannot be applied.
    #[error("the metadata log cannot be replayed: {0}. Nothing was changed; {WHAT_TO_DO}")]
    Replay(#[from] ReplayError),
}

const WHAT_TO_DO: &str = "restore \"metadata\" from a copy of the data directory made while the broker was stopped, or keep what \
     can be read with `ringmq log repair DIR --metadata`, which explains first what is lost";
const TABLES_ADVICE: &str = "restore \"metadata\" from a copy of the data directory made while the broker was stopped: it is its \
     generation tables that lost something, and without them nobody can tell which commands count";
const DISK_ADVICE: &str = "mend the disk, or copy the data directory to another one, and start again: without its generation \
     tables nobody can tell which commands of the metadata log count";

/// What helps a partition does not help here.
fn why_not_opened(error: &OpenError) -> String {
    match error {
        OpenError::Corrupt(damage) => {
            format!("{damage}. Nothing was changed; {}", if is_of_tables(damage) { TABLES_ADVICE } else { WHAT_TO_DO })
        }
        OpenError::TableLost { lost, .. } => {
            let advice = if lost.why.is_some() { DISK_ADVICE } else { TABLES_ADVICE };
            format!("{lost}. No record was changed; {advice}")
        }
        other => other.to_string(),
    }
}

/// Whether it is the generation tables that lost something.
pub(crate) fn is_of_tables(corruption: &Corruption) -> bool {
    matches!(corruption.damage, Damage::GenerationsMissing | Damage::Frame(FrameFault::UnknownGeneration(_)))
}

/// Why the commands of the metadata log cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log cannot be read.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// A file of the log cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What stands in the log is no frame.
    #[error("{} is damaged at position {position}, where the frame of offset {expected} should begin: {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// The next command's offset.
        expected: Offset,
        /// What is there.
        found: String,
    },
    /// A record batch is not sound.
    #[error("the batch at offset {offset}: {cause}")]
    Batch {
        /// The next command's offset.
        offset: Offset,
        /// What is wrong with the batch.
        #[source]
        cause: BatchError,
    },
    /// A record batch is compressed, which no broker writes here.
    #[error("the batch at offset {offset} is compressed")]
    Compressed {
        /// The next command's offset.
        offset: Offset,
    },
    /// Commands are missing, or there are too many.
    #[error("offset {found} where {expected} should be")]
    Gap {
        /// The next command's offset.
        expected: Offset,
        /// The offset that was found.
        found: Offset,
    },
    /// A record has no value.
    #[error("the record at offset {offset} has no command in it")]
    NoCommand {
        /// The record's offset.
        offset: Offset,
    },
    /// A record is not a command that this release knows.
    #[error("offset {offset}: {cause}")]
    Command {
        /// The record's offset.
        offset: Offset,
        /// What is wrong with it.
        #[source]
        cause: CommandError,
    },
    /// A command contradicts those before it.
    #[error("offset {offset}: {cause}")]
    Apply {
        /// The command's offset.
        offset: Offset,
        /// What it contradicts.
        #[source]
        cause: ApplyError,
    },
}

#[cfg(test)]
mod tests;
