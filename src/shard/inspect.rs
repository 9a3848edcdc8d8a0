//! The data directory of a broker that is stopped: all that is in it, checked, and its partitions repaired.
//!
//! What a start puts together from the metadata, the generation tables and the journals is put together here in the
//! same way, without changing anything. Single files: what is exported from the crates that own their formats.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq_controller::directory::{DataDirectory, DirectoryError, HiddenPartitions, hidden_partitions, orphans};
use ringmq_controller::metadata::Image;
use ringmq_controller::{InspectedMetadata, MetadataLogError, MetadataUnrepairable, inspect_metadata};
use ringmq_journal::{FoundBlocks, JournalReadError, inspect_journals};
use ringmq_runtime::fs;
use ringmq_segment::{GenerationHistory, Generations, LoadError, LogId};
use ringmq_wire::{Offset, PartitionIndex, ShardIndex, TopicId};

pub use ringmq_controller::{KeptTopic, MetadataRepair};
pub use ringmq_journal::{BlockNumber, FoundAside, FoundEntry, FoundJournals, FoundRing, inspect_journal_file};
pub use ringmq_segment::inspect::{
    Coverage, DamagedPlace, FrameInfo, FramePlace, FrameReader, IndexFile, LogCheck, NextStart, Part, RepairError,
    RepairPlan, SegmentCheck, SnapshotCheck, SnapshotDamage, Stretch, TableFact, TableFactKind, Unrepairable,
    check_log, read_generation_table, read_index, read_producer_snapshot,
};
pub use ringmq_segment::{FrameFault, OpenError, ProducerSnapshot, SnapshotProducer};

use crate::storage::{GENERATIONS, JOURNALS, Journals};

/// Bytes that a block of a journal begins at a multiple of.
const JOURNAL_UNIT_BYTES: u64 = 4096;

/// A data directory that no broker uses, for as long as this lives.
pub struct StoppedBroker {
    directory: DataDirectory,
    metadata: LogCheck,
    metadata_refused: Option<MetadataLogError>,
    image: Arc<Image>,
    generations: Result<GenerationHistory, LoadError>,
    journals: Result<Journals, JournalReadError>,
}

/// Which partitions are looked at.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Those of this topic; `None`: of all.
    pub topic: Option<String>,
    /// Those with this number; `None`: all.
    pub partition: Option<PartitionIndex>,
}

/// What was found in a data directory.
#[derive(Debug)]
pub struct DirectoryCheck {
    /// The metadata log.
    pub metadata: LogCheck,
    /// Why no broker starts with it, though it can be opened.
    pub metadata_refused: Option<MetadataLogError>,
    /// Why the generation tables cannot be used. Then no partition can be judged, and no broker starts.
    pub generations: Option<LoadError>,
    /// What of the generation tables cannot be read: partitions that it may have spoken of are refused.
    pub generations_lost: Vec<String>,
    /// What of the journals cannot be read, and why.
    pub journals_unread: Vec<String>,
    /// The files of the journals.
    pub journals: Vec<JournalCheck>,
    /// How many of their files should be there and are not.
    pub journals_vanished: usize,
    /// The partitions that were selected, by topic.
    pub partitions: Vec<PartitionCheck>,
    /// Directories of topics that the metadata neither knows nor has deleted.
    pub unknown_topics: Vec<TopicId>,
    /// Topics that have files of more partitions than the metadata gives them.
    pub hidden_partitions: Vec<HiddenPartitions>,
    /// There are unknown topics, and the metadata log is empty: it was lost, and no broker starts.
    pub metadata_lost: bool,
}

/// What was found in a file of a journal.
#[derive(Debug)]
pub struct JournalCheck {
    /// The file.
    pub path: PathBuf,
    /// Appends in it from its floor on; segments may have them already.
    pub appends: usize,
    /// Positions where blocks that were acknowledged cannot be read.
    pub missing: Vec<u64>,
}

/// What was found of a partition.
#[derive(Debug)]
pub struct PartitionCheck {
    /// Its topic's name.
    pub topic: String,
    /// Its log.
    pub log: LogCheck,
}

impl DirectoryCheck {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let logs = self.partitions.iter().map(|partition| &partition.log).chain([&self.metadata]);
        let sound = |log: &LogCheck| {
            log.next_start.refusal().is_none()
                && log.segments.iter().all(|segment| segment.damage.is_empty())
                && log.snapshots.iter().all(|snapshot| snapshot.damage.is_none())
        };
        !self.metadata_lost
            && self.metadata_refused.is_none()
            && self.generations.is_none()
            && self.generations_lost.is_empty()
            && self.journals_unread.is_empty()
            && self.journals.iter().all(|journal| journal.missing.is_empty())
            && self.journals_vanished == 0
            && self.hidden_partitions.is_empty()
            && logs.into_iter().all(sound)
    }
}

/// Why a data directory cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A broker runs on it.
    #[error(
        "a broker runs on {}: stop it first (SIGTERM), because what it has in memory is in none of its files",
        path.display()
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// It is no data directory, or what says whose it is is damaged.
    #[error(transparent)]
    Directory(DirectoryError),
    /// The metadata cannot be read, so nobody knows which partitions there are.
    #[error(transparent)]
    Metadata(#[from] MetadataLogError),
    /// Nothing can be judged without the generation tables.
    #[error(transparent)]
    Generations(#[from] LoadError),
    /// The journals may have what a partition lacks.
    #[error(transparent)]
    Journals(#[from] JournalReadError),
    /// There is no such topic.
    #[error("there is no topic `{0}` in this data directory")]
    NoSuchTopic(String),
    /// The topic has no such partition.
    #[error("topic `{topic}` has no partition {partition}: its {partitions} partitions are numbered from 0")]
    NoSuchPartition {
        /// The topic.
        topic: String,
        /// What was asked for.
        partition: PartitionIndex,
        /// How many there are.
        partitions: u32,
    },
    /// A repair would be of no use.
    #[error(transparent)]
    Unrepairable(#[from] Unrepairable),
    /// A repair failed.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// The metadata is not repaired.
    #[error(transparent)]
    MetadataRepair(#[from] MetadataUnrepairable),
}

impl From<DirectoryError> for InspectError {
    fn from(error: DirectoryError) -> InspectError {
        match error {
            DirectoryError::InUse { path } => InspectError::InUse { path },
            error => InspectError::Directory(error),
        }
    }
}

/// Takes the data directory that `path` is in, if it is in one, so that no broker starts on it meanwhile.
///
/// # Errors
/// When a broker runs on it. Whatever else is wrong with the directory does not keep a file in it from being looked at.
pub async fn guard(path: &Path) -> Result<Option<DataDirectory>, DirectoryError> {
    for above in path.ancestors() {
        match DataDirectory::inspect(above).await {
            Ok(directory) => return Ok(Some(directory)),
            Err(in_use @ DirectoryError::InUse { .. }) => return Err(in_use),
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Explains how the metadata of a stopped broker that is refused could be made to serve, and carries it out where `agreed`.
///
/// # Errors
/// When a broker runs on the directory, there is nothing to repair, or it would be of no use.
pub async fn repair_metadata(
    data_dir: &Path,
    agreed: bool,
) -> Result<(MetadataRepair, Option<Result<(), InspectError>>), InspectError> {
    let directory = DataDirectory::inspect(data_dir).await?;
    let plan = MetadataRepair::plan(&directory).await?;
    let done = if agreed { Some(plan.carry_out(&directory).await.map_err(InspectError::from)) } else { None };
    Ok((plan, done))
}

impl StoppedBroker {
    /// Takes the directory, and reads what all its partitions have in common. Changes nothing.
    ///
    /// # Errors
    /// When it is no data directory, a broker uses it, or the metadata cannot be read.
    pub async fn open(data_dir: &Path) -> Result<StoppedBroker, InspectError> {
        let directory = DataDirectory::inspect(data_dir).await?;
        let InspectedMetadata { image, check: metadata, refused: metadata_refused } =
            inspect_metadata(&directory).await?;
        let generations = GenerationHistory::read(&data_dir.join(GENERATIONS)).await;
        let history = generations.as_ref().map(GenerationHistory::clone).unwrap_or_default();
        let journals = inspect_journals(&data_dir.join(JOURNALS)).await;
        let journals = journals.map(|found| Journals::new(found, history));
        Ok(StoppedBroker { directory, metadata, metadata_refused, image, generations, journals })
    }

    /// Goes over all that was selected, to the last record, and over what the partitions have in common. Changes nothing.
    /// `progress` hears of each partition once it has been read, and of how many there are.
    ///
    /// # Errors
    /// When there is no such topic or partition. What is damaged is no error.
    pub async fn check(
        self,
        selection: &Selection,
        mut progress: impl FnMut(&PartitionCheck, usize),
    ) -> Result<DirectoryCheck, InspectError> {
        let selected = self.selected(selection)?;
        let count = selected.len();
        let unknown_topics = self.unknown_topics().await?;
        // What is damaged may have added them: the plan of a repair knows.
        let is_whole = self.metadata_refused.is_none() && self.metadata.next_start.refusal().is_none();
        let path = self.directory.path();
        let hidden_partitions = if is_whole { hidden_partitions(path, &self.image).await } else { Vec::new() };
        let metadata_lost = self.image.applied() == Offset::ZERO && !unknown_topics.is_empty();
        let mut partitions = Vec::new();
        if let (Ok(history), Ok(journals)) = (&self.generations, &self.journals) {
            for (topic, id) in selected {
                let log = check_log(self.directory.path(), id, history, &journals.of(id)).await;
                let checked = PartitionCheck { topic, log };
                progress(&checked, count);
                partitions.push(checked);
            }
        }
        let journals = self.journals.as_ref().map(|journals| self.check_journals(&journals.found));
        let journals = journals.unwrap_or_default();
        let journals_vanished =
            self.journals.as_ref().map_or(0, |journals| journals.vanished.len() + journals.unaccounted.len());
        let StoppedBroker { metadata, metadata_refused, generations, journals: read, .. } = self;
        let journals_unread = match read {
            Ok(journals) => journals.found.unread.iter().map(ToString::to_string).collect(),
            Err(error) => vec![error.to_string()],
        };
        let lost = generations.iter().flat_map(GenerationHistory::lost).map(ToString::to_string);
        let generations_lost = lost.collect();
        let generations = generations.err();
        Ok(DirectoryCheck {
            metadata,
            metadata_refused,
            generations,
            generations_lost,
            journals_unread,
            journals,
            journals_vanished,
            partitions,
            unknown_topics,
            hidden_partitions,
            metadata_lost,
        })
    }

    /// How a partition that is refused could be made to serve. Changes nothing.
    ///
    /// # Errors
    /// When there is nothing to repair, or it would be of no use.
    pub async fn plan_repair(&self, topic: &str, partition: PartitionIndex) -> Result<RepairPlan, InspectError> {
        let selection = Selection { topic: Some(topic.to_owned()), partition: Some(partition) };
        let ids: Vec<LogId> = self.selected(&selection)?.into_iter().map(|(_, id)| id).collect();
        let [id] = ids[..] else { return Err(InspectError::NoSuchTopic(topic.to_owned())) };
        // What cannot be read may be what is not lost.
        let found = inspect_journals(&self.directory.path().join(JOURNALS)).await?.whole()?;
        let history = GenerationHistory::read(&self.directory.path().join(GENERATIONS)).await?;
        let journals = Journals::new(found, history.clone());
        Ok(RepairPlan::new(self.directory.path(), id, &history, &journals.of(id)).await?)
    }

    /// Repairs a partition. Everything is durable when this returns.
    ///
    /// # Errors
    /// When the disk fails or is full; it can be tried again.
    pub async fn carry_out(&self, plan: &RepairPlan) -> Result<(), InspectError> {
        let tables = self.directory.path().join(GENERATIONS);
        let generations = Generations::open(&tables, ShardIndex::new(0)).await?;
        Ok(plan.carry_out(self.directory.path(), &generations).await?)
    }

    fn selected(&self, selection: &Selection) -> Result<Vec<(String, LogId)>, InspectError> {
        let topics = match &selection.topic {
            Some(name) => vec![self.image.topic(name).ok_or_else(|| InspectError::NoSuchTopic(name.clone()))?],
            None => self.image.topics_by_name(),
        };
        let mut selected = Vec::new();
        for topic in topics {
            let wanted = |index: &PartitionIndex| selection.partition.is_none_or(|partition| partition == *index);
            let ids = topic.partition_indexes().filter(wanted);
            let name = topic.name.to_string();
            selected.extend(ids.map(|partition| (name.clone(), LogId { topic_id: topic.id, partition })));
        }
        match (&selection.topic, selection.partition) {
            (Some(topic), Some(partition)) if selected.is_empty() => {
                let partitions = self.image.topic(topic).map_or(0, |topic| topic.partitions);
                Err(InspectError::NoSuchPartition { topic: topic.clone(), partition, partitions })
            }
            _ => Ok(selected),
        }
    }

    async fn unknown_topics(&self) -> Result<Vec<TopicId>, InspectError> {
        let path = self.directory.path();
        let entries = fs::read_dir(path).await.map_err(|cause| DirectoryError::Io {
            what: "cannot list the data directory",
            path: path.to_owned(),
            cause,
        })?;
        let names = entries.iter().filter(|entry| entry.is_dir).map(|entry| entry.name.as_str());
        Ok(orphans(&self.image, names).unknown)
    }

    fn check_journals(&self, found: &FoundJournals) -> Vec<JournalCheck> {
        let dir = self.directory.path().join(JOURNALS);
        let check = |name: String, blocks: &FoundBlocks, place: &dyn Fn(u64) -> u64| JournalCheck {
            path: dir.join(name),
            appends: blocks.entries.len(),
            missing: blocks.missing.iter().map(|block| place(block.get()) * JOURNAL_UNIT_BYTES).collect(),
        };
        let ring = |ring: &FoundRing| {
            let units = (ring.bytes / JOURNAL_UNIT_BYTES).max(1);
            check(ring.name.file_name(), &ring.blocks, &|block| block % units)
        };
        let aside = |aside: &FoundAside| {
            let first = aside.name.first.get();
            check(aside.name.file_name(), &aside.blocks, &|block| block.saturating_sub(first))
        };
        found.rings.iter().map(ring).chain(found.asides.iter().map(aside)).collect()
    }
}
