//! Topic directories that no living topic owns: left by a crash between a deletion's command and its files.

use std::path::Path;

use ringmq_runtime::fs;
use ringmq_wire::TopicId;
use uuid::Uuid;

use super::DirectoryError;
use crate::metadata::Image;

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
