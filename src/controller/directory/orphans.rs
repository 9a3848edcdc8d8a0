//! Directories that nobody owns: of topics, left by a crash between a deletion's command and its files, or by metadata that
//! lost something; and of partitions beyond those that their topic has.

use std::fmt;
use std::io;
use std::path::Path;

use ringmq_runtime::fs;
use ringmq_wire::TopicId;
use uuid::Uuid;

use super::DirectoryError;
use crate::metadata::{Image, PARTITIONS_PER_TOPIC_MAX};

/// What was found in a data directory beside the living topics' directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// The metadata log says that these topics were deleted: their directories may go.
    pub deleted: Vec<TopicId>,
    /// Nothing says what became of these topics. Their directories stay: the metadata may be what is incomplete.
    pub unknown: Vec<TopicId>,
}

/// Sorts the names of the directories in a data directory by what `image` knows of them.
///
/// Names that are not a topic id, written as this broker writes it, belong to somebody else and are passed over.
pub fn orphans<'a>(image: &Image, directories: impl IntoIterator<Item = &'a str>) -> Orphans {
    let mut found = Orphans::default();
    for id in directories.into_iter().filter_map(topic_id_of) {
        if image.topic_by_id(id).is_some() {
            continue;
        }
        if image.deleted().contains(id) { &mut found.deleted } else { &mut found.unknown }.push(id);
    }
    found
}

/// A topic that has files of more partitions than the metadata gives it: it lost the change that added them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenPartitions {
    /// The topic's name.
    pub topic: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// How many it had, as its files tell.
    pub had: u32,
}

impl fmt::Display for HiddenPartitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HiddenPartitions { topic, partitions, had } = self;
        write!(
            f,
            "topic {topic} has {partitions} partition(s), and files of {had}: the metadata lost the change that added them, \
             and their records are hidden. To have them back: `ringmq topic alter {topic} --partitions {had}`, then stop the \
             broker and start it once more"
        )
    }
}

/// The topics with hidden partitions, by name. What cannot be listed is logged, and passed over: the partitions themselves
/// tell.
pub async fn hidden_partitions(data_dir: &Path, image: &Image) -> Vec<HiddenPartitions> {
    let mut hidden = Vec::new();
    for topic in image.topics_by_name() {
        let path = data_dir.join(topic.id.to_string());
        let entries = match fs::read_dir(&path).await {
            Ok(entries) => entries,
            // Nothing was ever appended to it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                tracing::warn!(topic = %topic.name, %error, "nobody can tell whether the topic had more partitions");
                continue;
            }
        };
        let indexes = entries.iter().filter(|entry| entry.is_dir).filter_map(|entry| index_of(&entry.name));
        if let Some(had) = indexes.map(|index| index + 1).max().filter(|had| *had > topic.partitions) {
            hidden.push(HiddenPartitions { topic: topic.name.to_string(), partitions: topic.partitions, had });
        }
    }
    hidden
}

/// The partition that a directory is of, if it is one of a topic.
fn index_of(name: &str) -> Option<u32> {
    name.parse::<u32>().ok().filter(|index| *index < PARTITIONS_PER_TOPIC_MAX && index.to_string() == name)
}

fn topic_id_of(name: &str) -> Option<TopicId> {
    let id = TopicId::new(Uuid::try_parse(name).ok()?);
    // A UUID can be spelt in several ways; a directory that is removed must be the very one.
    (id.to_string() == name).then_some(id)
}

/// Removes the directories of deleted topics in `data_dir` and reports those of unknown ones. No log of such a topic
/// may be open.
///
/// # Errors
/// The directory cannot be listed. A directory that cannot be removed is logged, and tried again at the next start.
pub async fn remove_orphans(data_dir: &Path, image: &Image) -> Result<Orphans, DirectoryError> {
    let entries = fs::read_dir(data_dir).await.map_err(|cause| DirectoryError::Io {
        what: "cannot list the data directory",
        path: data_dir.to_owned(),
        cause,
    })?;
    let directories = entries.iter().filter(|entry| entry.is_dir).map(|entry| entry.name.as_str());
    let found = orphans(image, directories);
    for id in &found.deleted {
        let path = data_dir.join(id.to_string());
        match fs::remove_dir_all(&path).await {
            Ok(()) => tracing::info!(path = %path.display(), "removed what a crash had left of a deleted topic"),
            Err(error) => tracing::error!(path = %path.display(), %error, "cannot remove a deleted topic's directory"),
        }
    }
    for id in &found.unknown {
        let path = data_dir.join(id.to_string());
        tracing::warn!(path = %path.display(), "no topic of the metadata owns this directory; it is left alone");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use ringmq_wire::{BrokerId, TopicName};

    use super::*;
    use crate::metadata::{Cluster, Command, Slot, SlotRuns, State, Topic};

    #[test]
    fn only_what_the_log_says_was_deleted_may_go() {
        let id = |n: u128| TopicId::new(Uuid::from_u128(n << 64 | 0xabc));
        let mut state = State::new(Cluster { id: Uuid::from_u128(1), broker: BrokerId::new(0) });
        for n in 1..=2 {
            let name = TopicName::parse(&format!("t{n}")).unwrap();
            let (partitions, replicas, slots) = (1, 1, SlotRuns::new(Slot::default()));
            let topic = Topic { id: id(n), name, partitions, replicas, slots, settings: Default::default() };
            state.apply(Command::CreateTopic(topic)).unwrap();
        }
        state.apply(Command::DeleteTopic(id(1))).unwrap();

        let names = [
            id(1).to_string(),
            id(2).to_string(),
            id(3).to_string(),
            id(1).to_string().to_uppercase(),
            id(1).get().simple().to_string(),
            "metadata".to_owned(),
            "lost+found".to_owned(),
            "0".to_owned(),
            String::new(),
        ];
        let found = orphans(&state.image(), names.iter().map(String::as_str));
        assert_eq!(found, Orphans { deleted: vec![id(1)], unknown: vec![id(3)] });
    }
}
