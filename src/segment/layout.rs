//! Which file holds what: names and directories of a log. Described in `docs/formats/log-frame.md`.

use std::fmt;
use std::path::{Path, PathBuf};

use ringmq_wire::{Offset, PartitionIndex, TopicId};

/// Digits of the base offset in a file's name: enough for every offset, so that names sort as offsets do.
const BASE_OFFSET_DIGITS: usize = 20;

/// Which log: one partition of one topic. A topic that is created again under an old name has another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The topic's id.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic_id, self.partition)
    }
}

impl LogId {
    /// The directory of the topic's logs.
    pub(crate) fn topic_dir(&self, root: &Path) -> PathBuf {
        root.join(self.topic_id.to_string())
    }

    /// The directory of this log's files.
    pub(crate) fn log_dir(&self, root: &Path) -> PathBuf {
        self.topic_dir(root).join(self.partition.to_string())
    }
}

/// What a file of a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Frames.
    Log,
    /// The offset index.
    Index,
    /// The time index.
    TimeIndex,
    /// Frames that compaction is writing.
    Cleaned,
    /// What is known of producers at the offset in its name.
    Producers,
}

impl FileKind {
    const ALL: [FileKind; 5] =
        [FileKind::Log, FileKind::Index, FileKind::TimeIndex, FileKind::Cleaned, FileKind::Producers];

    const fn extension(self) -> &'static str {
        match self {
            FileKind::Log => "log",
            FileKind::Index => "index",
            FileKind::TimeIndex => "timeindex",
            FileKind::Cleaned => "cleaned",
            FileKind::Producers => "producers",
        }
    }
}

/// The name of a segment's file.
pub(crate) fn file_name(base: Offset, kind: FileKind) -> String {
    format!("{:0width$}.{}", base.get(), kind.extension(), width = BASE_OFFSET_DIGITS)
}

/// The name of a compacted segment that is to take the place of all that begin in the range.
pub(crate) fn swap_name(base: Offset, end: Offset) -> String {
    format!("{:0width$}-{:0width$}.swap", base.get(), end.get(), width = BASE_OFFSET_DIGITS)
}

/// The range in the name of a compacted segment; `None` for any other name.
pub(crate) fn parse_swap_name(name: &str) -> Option<(Offset, Offset)> {
    let (base, end) = name.strip_suffix(".swap")?.split_once('-')?;
    Some((parse_offset(base)?, parse_offset(end)?)).filter(|(base, end)| base < end)
}

/// What a file's name says; `None` for a name that is not ours.
pub(crate) fn parse_file_name(name: &str) -> Option<(Offset, FileKind)> {
    let (digits, extension) = name.split_once('.')?;
    let kind = FileKind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
    Some((parse_offset(digits)?, kind))
}

fn parse_offset(digits: &str) -> Option<Offset> {
    let plain = digits.len() == BASE_OFFSET_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).and_then(Offset::checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_sort_as_offsets_do() {
        let offsets = [0, 1, 9, 10, 4_611_686_018_427_387_904, i64::MAX];
        let names: Vec<String> = offsets.iter().map(|&base| file_name(Offset::new(base), FileKind::Log)).collect();
        assert!(names.is_sorted());
        for (base, name) in offsets.iter().zip(&names) {
            assert_eq!(parse_file_name(name), Some((Offset::new(*base), FileKind::Log)));
        }
        assert_eq!(parse_file_name("00000000000000000007.timeindex"), Some((Offset::new(7), FileKind::TimeIndex)));
    }

    #[test]
    fn a_range_is_told_from_other_names() {
        let name = swap_name(Offset::new(7), Offset::new(i64::MAX));
        assert_eq!(parse_swap_name(&name), Some((Offset::new(7), Offset::new(i64::MAX))));
        assert_eq!(parse_file_name(&name), None);
        for other in
            [file_name(Offset::new(7), FileKind::Log), swap_name(Offset::new(7), Offset::new(7)), "-.swap".to_owned()]
        {
            assert_eq!(parse_swap_name(&other), None, "{other:?}");
        }
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for name in [
            "",
            ".log",
            "7.log",
            "00000000000000000007",
            "00000000000000000007.log.tmp",
            "0000000000000000000x.log",
            "+0000000000000000007.log",
            "99999999999999999999.log",
            "00000000000000000007.lag",
        ] {
            assert_eq!(parse_file_name(name), None, "{name:?}");
        }
    }
}
