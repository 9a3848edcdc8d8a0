//! What is reported when a log cannot be trusted: a failed write, or damage.

use std::fmt;
use std::io;
use std::path::PathBuf;

use ringmq_wire::Offset;

use crate::frame::FrameFault;
use crate::layout::LogId;

/// A write or flush failed, so nobody knows what the disk holds behind the durable offset. The log takes no more
/// appends; what is durable can still be read (rule 12 of the storage protocol: a failed flush is never tried again,
/// because the kernel reports a lost write once).
#[derive(Debug, thiserror::Error)]
#[error(
    "partition {id} went offline: could not {action} its segment: {source}. Mend the disk and restart the broker: the \
     partition is then recovered from what the disk holds"
)]
pub struct Poison {
    /// The log.
    pub id: LogId,
    /// What was being done.
    pub action: &'static str,
    /// Why it failed; names the file.
    pub source: io::Error,
}

/// Acknowledged data is damaged. Nothing on disk was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The log.
    pub id: LogId,
    /// The file.
    pub segment: PathBuf,
    /// Where in the file.
    pub position: u64,
    /// The offset that should be found there.
    pub expected: Offset,
    /// What is there instead.
    pub damage: Damage,
    /// Records below this offset are known to have been acknowledged.
    pub proven_end: Offset,
}

/// What is wrong with a damaged log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// No frame that counts, where there had been one.
    Frame(FrameFault),
    /// A file between two others, or the first one, is missing.
    SegmentMissing,
    /// The generation tables know the log, and it has no files.
    FilesMissing,
    /// The log has frames, and the generation tables do not know it.
    GenerationsMissing,
    /// The frames of a segment reach beyond the beginning of the next one.
    SegmentsOverlap,
    /// What followed was in the journal alone, and the journal is damaged.
    JournalLost,
    /// The journal has something there that is not what was appended.
    JournalMalformed,
    /// An earlier start found the damage, by a journal that has been used again since.
    FoundBefore,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Frame(fault) => fault.fmt(f),
            Damage::SegmentMissing => f.write_str("the segment that holds it is missing"),
            Damage::FilesMissing => f.write_str("all files of the partition are missing"),
            Damage::GenerationsMissing => f.write_str("there is data that the generation tables do not know"),
            Damage::SegmentsOverlap => f.write_str("the segment before it reaches beyond it"),
            Damage::JournalLost => {
                f.write_str("what follows was in the journal alone, which is damaged, or lacks a file")
            }
            Damage::JournalMalformed => f.write_str("the journal's entry for it holds no record batches"),
            Damage::FoundBefore => f.write_str("an earlier start of the broker found that what follows is missing"),
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, segment, position, expected, damage, .. } = self;
        let segment = segment.display();
        write!(
            f,
            "partition {id}: segment {segment} is damaged at position {position}, where the frame of offset {expected} \
             should begin: {damage}"
        )
    }
}

impl std::error::Error for Corruption {}

impl Corruption {
    /// Why a log with this damage is not opened, and what to do.
    pub(crate) fn why_refused(&self) -> String {
        let what_to_do = match self.damage {
            Damage::GenerationsMissing => "Restore the directory \"generations\" from a copy, or delete the topic",
            _ => {
                "Restore its directory from a copy, keep what is before the damage with `ringmq log repair`, or delete \
                 the topic"
            }
        };
        let proof = match self.proven_end {
            end if end > self.expected => format!("Records below offset {end} were acknowledged, so nothing"),
            _ => "Nothing".to_owned(),
        };
        format!("{proof} was cut or changed; the partition stays offline. {what_to_do}")
    }
}
