//! Positions in a file, for a `consume` that goes on where another one ended.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ringmq_client::TopicId;
use ringmq_wire::{Offset, PartitionIndex};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the file's form.
const VERSION: u32 = 1;

/// The most that is read of a file: 10,000 partitions take a quarter of a megabyte.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why positions cannot be read, used or saved.
#[derive(Debug, Error)]
pub(crate) enum ResumeError {
    /// The file is there, and cannot be read.
    #[error("cannot read the positions in {} ({source}); check its permissions, or name another file", .file.display())]
    Read { file: PathBuf, source: io::Error },
    /// It is no file of positions.
    #[error(
        "{} does not hold the positions of a `consume --resume` ({source}); name another file, which need not be there",
        .file.display()
    )]
    Form { file: PathBuf, source: serde_json::Error },
    /// A later release wrote it.
    #[error("{} has version {version}, and this release reads version {VERSION}; use the newer one", .file.display())]
    Version { file: PathBuf, version: u32 },
    /// It is of another topic.
    #[error("{} holds positions of topic `{found}`; use another file for this topic", .file.display())]
    OtherTopic { file: PathBuf, found: String },
    /// It is of an earlier topic of that name.
    #[error(
        "{} holds positions of a topic `{topic}` that was deleted; there is a new one of that name: remove the file to \
         begin with that as --from says",
        .file.display()
    )]
    EarlierTopic { file: PathBuf, topic: String },
    /// The records at the position are gone, or not there yet.
    #[error(
        "{} goes on with offset {offset} of partition {partition}, which has offsets from {} to {}: were records deleted \
         meanwhile? Remove the file to begin as --from says, or change the offset in it",
        .file.display(), .valid.start(), .valid.end()
    )]
    OutOfRange { file: PathBuf, partition: PartitionIndex, offset: Offset, valid: RangeInclusive<Offset> },
    /// It cannot be written.
    #[error("cannot save the positions in {} ({source}); check the space and the permissions there: the next run prints again what \
         this one printed", .file.display())]
    Save { file: PathBuf, source: io::Error },
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    topic: String,
    topic_id: String,
    /// The offset of the next record, by partition.
    positions: BTreeMap<u32, i64>,
}

/// Positions as they were saved; none without a file.
#[derive(Debug, Default)]
pub(super) struct Positions {
    file: PathBuf,
    by_partition: BTreeMap<PartitionIndex, Offset>,
}

impl Positions {
    /// Reads the file, if it is there.
    ///
    /// # Errors
    /// All of [`ResumeError`] that is about reading.
    pub(super) fn read(file: &Path, topic: &str, topic_id: TopicId) -> Result<Self, ResumeError> {
        let mut positions = Self { file: file.to_owned(), by_partition: BTreeMap::new() };
        let file = file.to_owned();
        let text = match read_bounded(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(positions),
            Err(source) => return Err(ResumeError::Read { file, source }),
        };
        let saved: Saved = match serde_json::from_str(&text) {
            Ok(saved) => saved,
            Err(source) => return Err(ResumeError::Form { file, source }),
        };
        if saved.version != VERSION {
            return Err(ResumeError::Version { file, version: saved.version });
        }
        if saved.topic != topic {
            return Err(ResumeError::OtherTopic { file, found: saved.topic });
        }
        if saved.topic_id != topic_id.to_string() {
            return Err(ResumeError::EarlierTopic { file, topic: saved.topic });
        }
        let position = |(partition, offset)| (PartitionIndex::new(partition), Offset::new(offset));
        positions.by_partition = saved.positions.into_iter().map(position).collect();
        Ok(positions)
    }

    /// The position of a partition, if it has one.
    pub(super) fn get(&self, partition: PartitionIndex) -> Option<Offset> {
        self.by_partition.get(&partition).copied()
    }

    /// The position, if the partition still has it.
    ///
    /// # Errors
    /// [`ResumeError::OutOfRange`].
    pub(super) fn checked(
        &self,
        partition: PartitionIndex,
        offset: Offset,
        valid: RangeInclusive<Offset>,
    ) -> Result<Offset, ResumeError> {
        if valid.contains(&offset) {
            return Ok(offset);
        }
        Err(ResumeError::OutOfRange { file: self.file.clone(), partition, offset, valid })
    }

    /// Moves the position of a partition.
    pub(super) fn set(&mut self, partition: PartitionIndex, next: Offset) {
        self.by_partition.insert(partition, next);
    }

    /// Puts all positions in the place of the file, or leaves it as it was.
    ///
    /// # Errors
    /// [`ResumeError::Save`].
    pub(super) fn save(&self, topic: &str, topic_id: TopicId) -> Result<(), ResumeError> {
        let positions = self.by_partition.iter().map(|(partition, offset)| (partition.get(), offset.get())).collect();
        let (topic, topic_id) = (topic.to_owned(), topic_id.to_string());
        let saved = Saved { version: VERSION, topic, topic_id, positions };
        let written = serde_json::to_vec(&saved).map_err(io::Error::other).and_then(|text| replace(&self.file, &text));
        written.map_err(|source| ResumeError::Save { file: self.file.clone(), source })
    }

    /// Positions in memory.
    #[cfg(test)]
    pub(super) fn of(file: &str, positions: impl IntoIterator<Item = (PartitionIndex, Offset)>) -> Self {
        Self { file: file.into(), by_partition: positions.into_iter().collect() }
    }
}

fn read_bounded(file: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    File::open(file)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// A crash leaves the old content or the new one: rename(2) replaces at once what was written beside it, under a name
/// that nobody has. A symbolic link stays one, and the file that it names is replaced, with the permissions that it has.
fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let (file, permissions) = match std::fs::canonicalize(file) {
        Ok(there) => {
            let permissions = std::fs::metadata(&there)?.permissions();
            (there, Some(permissions))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (file.to_owned(), None),
        Err(error) => return Err(error),
    };
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = file.file_name().unwrap_or_default().to_owned();
    prefix.push(".new-");
    // Less what the umask takes away.
    let usual = Permissions::from_mode(0o666);
    let mut new = tempfile::Builder::new().prefix(&prefix).permissions(usual).tempfile_in(directory)?;
    if let Some(permissions) = permissions {
        new.as_file().set_permissions(permissions)?;
    }
    new.write_all(content)?;
    new.write_all(b"\n")?;
    new.as_file().sync_data()?;
    new.persist(&file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: PartitionIndex = PartitionIndex::new(3);

    #[test]
    fn what_is_saved_is_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("positions.json");
        let id = TopicId::from_random_bytes([7; 16]);
        let mut positions = Positions::read(&file, "t", id).expect("no file is no positions");
        assert_eq!(positions.get(PARTITION), None);
        for next in [5, 9] {
            positions.set(PARTITION, Offset::new(next));
            positions.save("t", id).expect("saved");
        }
        assert_eq!(Positions::read(&file, "t", id).expect("read").get(PARTITION), Some(Offset::new(9)));
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 1, "nothing else is left");

        let error = Positions::read(&file, "u", id).expect_err("another topic").to_string();
        assert!(error.contains("positions of topic `t`"), "{error}");
        let error =
            Positions::read(&file, "t", TopicId::from_random_bytes([8; 16])).expect_err("a later topic").to_string();
        assert!(error.contains("that was deleted"), "{error}");
    }

    #[test]
    fn only_the_file_itself_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let id = TopicId::from_random_bytes([7; 16]);
        std::fs::write(path("positions.new"), "mine").expect("written");
        std::os::unix::fs::symlink("positions", path("link")).expect("linked");
        for next in [5, 9] {
            let mut positions = Positions { file: path("positions"), ..Positions::default() };
            positions.set(PARTITION, Offset::new(next));
            positions.save("t", id).expect("saved");
            std::fs::set_permissions(path("positions"), Permissions::from_mode(0o666)).expect("changed");
            let mut positions = Positions::read(&path("link"), "t", id).expect("read");
            assert_eq!(positions.get(PARTITION), Some(Offset::new(next)));
            positions.set(PARTITION, Offset::new(next + 1));
            positions.save("t", id).expect("saved");
            let through = Positions::read(&path("positions"), "t", id).expect("read");
            assert_eq!(through.get(PARTITION), Some(Offset::new(next + 1)), "through the link");
        }
        assert!(std::fs::symlink_metadata(path("link")).expect("there").is_symlink());
        assert_eq!(std::fs::metadata(path("positions")).expect("there").permissions().mode() & 0o777, 0o666);
        assert_eq!(std::fs::read_to_string(path("positions.new")).expect("read"), "mine");
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 3, "nothing else is left");
    }

    #[test]
    fn a_file_of_another_kind_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("notes.txt");
        for (text, named) in [
            ("my notes", "does not hold the positions"),
            ("", "does not hold the positions"),
            (r#"{"version":2,"topic":"t","topic_id":"","positions":{}}"#, "has version 2"),
        ] {
            std::fs::write(&file, text).expect("written");
            let error = Positions::read(&file, "t", TopicId::from_random_bytes([7; 16])).expect_err(text).to_string();
            assert!(error.contains("notes.txt") && error.contains(named), "{error}");
            assert_eq!(std::fs::read_to_string(&file).expect("read"), text);
        }
    }
}
