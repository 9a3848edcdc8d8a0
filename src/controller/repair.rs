//! Making a broker start again whose metadata log is damaged, or lost its end.
//!
//! A partition is cut before the damage. Metadata is not: commands behind the damage are changes that were acknowledged, and a
//! topic whose deletion is cut off would come back to life. So what can still be read counts, the latest snapshot and the
//! commands behind it on both sides of the damage, but for a command that means nothing without one that is lost. What that
//! adds up to becomes a snapshot, and the log begins anew behind it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq_runtime::fs;
use ringmq_segment::inspect::{NewBeginning, NextStart, RepairError, copy_dir, read_around_damage};
use ringmq_segment::{Damage, GenerationHistory, Generations, LoadError, OpenError};
use ringmq_wire::batch::{BatchView, split_batches};
use ringmq_wire::{Offset, TopicId};

use crate::directory::{DataDirectory, DirectoryError, HiddenPartitions, METADATA, hidden_partitions, orphans};
use crate::log::{
    GENERATIONS, LOG_ID, MetadataLogError, OWNER, ReplayError, each_command, inspect_metadata, is_of_tables,
};
use crate::metadata::{ApplyError, Image, State, Topic};
use crate::snapshots;

/// Where files go that are not kept, within the data directory.
const DAMAGED: &str = "damaged";

/// How a damaged metadata log is made to serve again. Nothing is changed before [`MetadataRepair::carry_out`].
#[derive(Debug)]
pub struct MetadataRepair {
    /// Why a start refuses it.
    pub damage: MetadataLogError,
    /// The commands below are known from a snapshot.
    pub snapshot: Option<Offset>,
    /// Commands of which nothing is left.
    pub lost: Vec<Range<Offset>>,
    /// Files of the log are missing, or it ends before its snapshot: commands behind all that is known may have been lost.
    pub end_is_unknown: bool,
    /// Commands that can be read and mean nothing any more, because what they build on is lost.
    pub left_out: Vec<(Offset, ApplyError)>,
    /// The topics that there will be, by name.
    pub topics: Vec<KeptTopic>,
    /// Those of them that have files of more partitions.
    pub hidden: Vec<HiddenPartitions>,
    /// Those of them that have no files: nothing was ever appended to them, or their deletion is among what is lost.
    pub without_files: Vec<String>,
    /// Topics that have files, and are not known. Their directories stay.
    pub unknown: Vec<TopicId>,
    /// Where a copy of everything goes, as it is.
    pub aside: PathBuf,
    image: Arc<Image>,
    beginning: NewBeginning,
}

/// A topic that a repair keeps, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTopic {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// What it chose for itself: keys and values as users write them.
    pub settings: BTreeMap<&'static str, String>,
}

impl KeptTopic {
    fn new(topic: &Topic) -> KeptTopic {
        let settings = topic.settings.iter().map(|(key, value)| (key.name(), key.text(value)));
        KeptTopic { name: topic.name.to_string(), partitions: topic.partitions, settings: settings.collect() }
    }
}

/// Why a metadata log is not repaired.
#[derive(Debug, thiserror::Error)]
pub enum MetadataUnrepairable {
    /// A start accepts it.
    #[error("the metadata log is not refused at a start: there is nothing to repair")]
    Sound,
    /// What keeps the broker from starting is something else than damage of the log.
    #[error(transparent)]
    Other(MetadataLogError),
    /// No snapshot and no command can be read, and there are topics.
    #[error(
        "{damage}. Neither a snapshot of the metadata nor a command can be read, and there are files of {topics} topic(s): a \
         repair would make a broker that knows none of them. Restore {METADATA:?} from a copy of the data directory"
    )]
    NothingLeft {
        /// Why a start refuses it.
        damage: MetadataLogError,
        /// How many directories of topics there are.
        topics: usize,
    },
    /// The data directory cannot be looked into.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The disk fails, or is full.
    #[error("cannot {action}: {source}. The repair can be run again")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Why; names the file.
        source: std::io::Error,
    },
    /// The log cannot begin anew.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// Its generation tables cannot be written.
    #[error(transparent)]
    Tables(#[from] LoadError),
}

impl From<MetadataLogError> for MetadataUnrepairable {
    fn from(error: MetadataLogError) -> MetadataUnrepairable {
        MetadataUnrepairable::Other(error)
    }
}

impl From<ReplayError> for MetadataUnrepairable {
    fn from(error: ReplayError) -> MetadataUnrepairable {
        MetadataUnrepairable::Other(error.into())
    }
}

impl MetadataRepair {
    /// What is damaged, what can be kept, and what is lost. Changes nothing.
    ///
    /// # Errors
    /// When there is nothing to repair, or nothing to repair it with.
    pub async fn plan(directory: &DataDirectory) -> Result<MetadataRepair, MetadataUnrepairable> {
        let damage = damage_of(directory).await?;
        let root = directory.path().join(METADATA);
        let history = GenerationHistory::read(&root.join(GENERATIONS)).await?;
        let loaded = snapshots::load_latest(&root, directory.cluster(), history.log_start(LOG_ID)).await;
        let loaded = loaded.map_err(|cause| MetadataLogError::Snapshots { path: root.clone(), cause })?;
        let snapshot = loaded.as_ref().map(Image::applied);

        let state = loaded.map_or_else(|| State::new(directory.cluster()), State::restored);
        let mut salvage = Salvage { state, lost: Vec::new(), left_out: Vec::new() };
        let each = |payload: &[u8]| {
            for batch in split_batches(payload) {
                let offset = salvage.state.applied();
                salvage.take(&batch.map_err(|cause| ReplayError::Batch { offset, cause })?)?;
            }
            Ok::<(), ReplayError>(())
        };
        let told = read_around_damage(&root, LOG_ID, &history, each).await?;
        let broken_off = snapshots::broken_off(&root, history.log_start(LOG_ID)).await;
        // Where a repair that broke off wanted to begin there never was a command.
        if !broken_off.map_err(io("look for snapshots"))?.contains(&told) {
            salvage.goes_on_at(told);
        }
        let Salvage { mut state, lost, left_out } = salvage;

        let named = snapshots::last_named(&root).await.map_err(io("look for snapshots"))?;
        let written = state.applied().max(named.unwrap_or(Offset::ZERO));
        let beginning = NewBeginning::behind(&root, LOG_ID, &history, written).await;
        let beginning = beginning.map_err(io("list the metadata log"))?;
        state.begin_anew(beginning.at());
        let image = state.image();

        let entries = fs::read_dir(directory.path()).await.map_err(io("list the data directory"))?;
        let directories: Vec<&str> =
            entries.iter().filter(|entry| entry.is_dir).map(|entry| entry.name.as_str()).collect();
        let unknown = orphans(&image, directories.iter().copied()).unknown;
        if image.topics().len() == 0 && !unknown.is_empty() {
            return Err(MetadataUnrepairable::NothingLeft { damage, topics: unknown.len() });
        }
        let topics = image.topics_by_name();
        let has_files = |id: TopicId| directories.contains(&id.to_string().as_str());
        let without_files = topics.iter().filter(|topic| !has_files(topic.id)).map(|topic| topic.name.to_string());
        Ok(MetadataRepair {
            snapshot,
            lost,
            end_is_unknown: has_no_end(&damage),
            left_out,
            without_files: without_files.collect(),
            topics: topics.iter().map(|topic| KeptTopic::new(topic)).collect(),
            hidden: hidden_partitions(directory.path(), &image).await,
            unknown,
            aside: directory.path().join(DAMAGED).join(METADATA).join(beginning.at().to_string()),
            image,
            beginning,
            damage,
        })
    }

    /// How many partitions there will be.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.image.partition_count()
    }

    /// The first offset of the metadata log from then on, and that of its snapshot.
    #[must_use]
    pub fn begins_at(&self) -> Offset {
        self.beginning.at()
    }

    /// Repairs the metadata. Everything is durable when this returns.
    ///
    /// # Errors
    /// When the disk fails or is full. The metadata is then refused as before, or repaired; it can be tried again.
    pub async fn carry_out(&self, directory: &DataDirectory) -> Result<(), MetadataUnrepairable> {
        let root = directory.path().join(METADATA);
        self.keep_copy(&root, directory.path()).await.map_err(io("keep a copy of the metadata"))?;
        // It lies beyond the end of a log that is refused as it is, until that begins there.
        snapshots::put_marked(&root, &self.image).await.map_err(io("write a snapshot of the metadata"))?;
        let generations = Generations::open(&root.join(GENERATIONS), OWNER).await?;
        Ok(self.beginning.carry_out(&root, &generations).await?)
    }

    async fn keep_copy(&self, root: &Path, data_dir: &Path) -> std::io::Result<()> {
        copy_dir(root, &self.aside, |name| name == "reserve" || name.ends_with(".tmp")).await?;
        fs::sync_dir(data_dir).await
    }
}

/// Whether there may have been commands that nothing tells of any more.
fn has_no_end(damage: &MetadataLogError) -> bool {
    match damage {
        MetadataLogError::BehindSnapshot { .. } => true,
        MetadataLogError::Open(OpenError::Corrupt(corruption)) => corruption.damage == Damage::FilesMissing,
        _ => false,
    }
}

fn io(action: &'static str) -> impl Fn(std::io::Error) -> MetadataUnrepairable {
    move |source| MetadataUnrepairable::Io { action, source }
}

/// Why a start refuses the log, where that is something that a repair helps against.
async fn damage_of(directory: &DataDirectory) -> Result<MetadataLogError, MetadataUnrepairable> {
    let inspected = match inspect_metadata(directory).await {
        // It was repaired before, and what it began with is damaged now.
        Err(gap @ MetadataLogError::Replay(ReplayError::Gap { .. })) => return Ok(gap),
        inspected => inspected?,
    };
    if let NextStart::Refuses(error) = inspected.check.next_start {
        let is_damage = matches!(&*error, OpenError::Corrupt(corruption) if !is_of_tables(corruption));
        let error = MetadataLogError::from(*error);
        return if is_damage { Ok(error) } else { Err(error.into()) };
    }
    inspected.refused.ok_or(MetadataUnrepairable::Sound)
}

/// What can be read adds up to this.
struct Salvage {
    state: State,
    lost: Vec<Range<Offset>>,
    left_out: Vec<(Offset, ApplyError)>,
}

impl Salvage {
    fn take(&mut self, batch: &BatchView<'_>) -> Result<(), ReplayError> {
        each_command(batch, |offset, command| {
            if offset < self.state.applied() {
                // The snapshot has it.
                return Ok(());
            }
            self.goes_on_at(offset);
            if self.lost.is_empty() {
                return self.state.apply(command).map(drop).map_err(|cause| ReplayError::Apply { offset, cause });
            }
            if let Err(cause) = self.state.apply_behind_gap(command) {
                self.left_out.push((offset, cause));
            }
            Ok(())
        })
    }

    /// What lies between is lost.
    fn goes_on_at(&mut self, offset: Offset) {
        if offset > self.state.applied() {
            self.lost.push(self.state.applied()..offset);
            self.state.skip_to(offset);
        }
    }
}

#[cfg(test)]
mod tests;
