//! Snapshots of producers: one file, as it stands, and all of a log, held against its frames.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_runtime::fs;
use ringmq_wire::Offset;

use crate::frame::FrameHeader;
use crate::generation::LogGenerations;
use crate::layout::{FileKind, LogId, parse_file_name};
use crate::producers::{ProducerSnapshot, Producers};

/// Reads a snapshot of producers.
///
/// # Errors
/// When the file cannot be read, or is not a sound snapshot: [`io::ErrorKind::InvalidData`].
pub async fn read_producer_snapshot(path: &Path) -> io::Result<ProducerSnapshot> {
    let bytes = fs::read_small(path, ProducerSnapshot::BYTES_MAX).await?;
    let decoded = ProducerSnapshot::decode(&bytes);
    decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
}

/// What was found of a snapshot of producers. Whatever is wrong with it: what it says can be read from the frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotCheck {
    /// Its file.
    pub path: PathBuf,
    /// What lies below is in it, as its name says.
    pub offset: Offset,
    /// Producers in it.
    pub producers: usize,
    /// Why it is not what was written, or not what the frames say.
    pub damage: Option<SnapshotDamage>,
    /// Why a start does not use it, where that is no damage: what a crash, a cut or a deletion left.
    pub unused: Option<String>,
}

/// What is wrong with a snapshot of producers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotDamage {
    /// A start sees it, and does without the snapshot.
    Unreadable(String),
    /// A start does not see it: the snapshot is sound by itself.
    Contradicts(String),
}

/// The snapshots of a log, on the way through its frames.
pub(super) struct Snapshots {
    id: LogId,
    known: Rc<LogGenerations>,
    first: Offset,
    /// Readable, and behind the frames so far; by offset.
    ahead: VecDeque<(SnapshotCheck, ProducerSnapshot)>,
    checked: Vec<SnapshotCheck>,
    /// What the frames so far tell.
    told: Producers,
    /// Frames have all that was stored from there on.
    complete_from: Offset,
}

impl Snapshots {
    /// Those in a directory, of a log whose first segment begins at `first`.
    pub(super) async fn load(dir: &Path, id: LogId, known: Rc<LogGenerations>, first: Offset) -> Snapshots {
        let entries = fs::read_dir(dir).await.unwrap_or_default();
        let offset = |name: &str| parse_file_name(name).filter(|(_, kind)| *kind == FileKind::Producers);
        let mut named: Vec<_> =
            entries.iter().filter_map(|entry| Some((offset(&entry.name)?.0, dir.join(&entry.name)))).collect();
        named.sort_unstable();
        let (told, complete_from) = (Producers::default(), first.max(known.compacted_until()));
        let mut snapshots =
            Snapshots { id, known, first, ahead: VecDeque::new(), checked: Vec::new(), told, complete_from };
        for (offset, path) in named {
            snapshots.add(path, offset).await;
        }
        snapshots
    }

    async fn add(&mut self, path: PathBuf, offset: Offset) {
        let read = read_producer_snapshot(&path).await;
        let mut check = SnapshotCheck { path, offset, producers: 0, damage: None, unused: None };
        match read {
            Err(error) => check.damage = Some(SnapshotDamage::Unreadable(error.to_string())),
            Ok(snapshot) => {
                check.producers = snapshot.producers().len();
                check.damage = self.mistaken(&snapshot, offset).map(SnapshotDamage::Unreadable);
                check.unused = self.unused(&snapshot);
                if check.damage.is_none() && check.unused.is_none() {
                    return self.ahead.push_back((check, snapshot));
                }
            }
        }
        self.checked.push(check);
    }

    fn mistaken(&self, snapshot: &ProducerSnapshot, offset: Offset) -> Option<String> {
        if snapshot.offset() != offset {
            return Some(format!("it is of offset {}, which is not in its name", snapshot.offset()));
        }
        let own = snapshot.log() == self.id && snapshot.log_number == self.known.number();
        (!own).then(|| format!("it is of another log, {}", snapshot.log()))
    }

    fn unused(&self, snapshot: &ProducerSnapshot) -> Option<String> {
        if snapshot.offset() < self.first {
            return Some(format!("the log begins behind it, at {}", self.first));
        }
        let owned = snapshot.generation <= self.known.latest().0
            && snapshot.offset() <= self.known.owned_end(snapshot.generation);
        (!owned).then(|| "what it speaks of was cut off since".to_owned())
    }

    /// The next sound frame.
    pub(super) fn frame(&mut self, header: &FrameHeader, payload: &[u8]) {
        self.compare_up_to(header.base_offset);
        let span = header.next_offset.get() - header.base_offset.get();
        if i64::from(header.record_count) < span {
            // Compaction was here.
            self.complete_from = self.complete_from.max(header.next_offset);
        }
        self.told.read(payload, header.written_at);
    }

    /// What should be at that offset is damaged.
    pub(super) fn damaged(&mut self, expected: Offset) {
        self.compare_up_to(expected);
        self.complete_from = Offset::MAX;
    }

    fn compare_up_to(&mut self, offset: Offset) {
        while let Some((mut check, snapshot)) = self.ahead.pop_front_if(|(check, _)| check.offset <= offset) {
            let contradiction = snapshot.producers.contradiction(&self.told, self.complete_from);
            check.damage = contradiction.map(SnapshotDamage::Contradicts);
            self.checked.push(check);
        }
    }

    /// The frames end.
    pub(super) fn finish(mut self, end: Offset) -> Vec<SnapshotCheck> {
        self.compare_up_to(end);
        let beyond =
            |(check, _)| SnapshotCheck { unused: Some(format!("the log's frames end before it, at {end}")), ..check };
        self.checked.extend(self.ahead.into_iter().map(beyond));
        self.checked.sort_by_key(|check| check.offset);
        self.checked
    }
}
