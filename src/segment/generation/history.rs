//! What is known of the generations of one log. Facts may come twice and in any order.

use std::fmt;
use std::ops::Range;

use ringmq_wire::Offset;

use crate::frame::{Generation, LogNumber};
use crate::layout::LogId;

/// One entry of a generation table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// The generation owns the log from `start` on.
    Opened { id: LogId, number: LogNumber, generation: Generation, start: Offset },
    /// The generation was stopped cleanly with everything below `end` durable and no write in flight.
    Closed { id: LogId, number: LogNumber, generation: Generation, end: Offset },
    /// The log was deleted, and its files are gone.
    Removed { id: LogId, number: LogNumber },
    /// Records below `proven_end` were acknowledged, and are damaged: the log stays offline. What told so is not kept.
    /// The generation is the latest that was known then; 0 where a broker of before wrote it.
    Corrupt { id: LogId, number: LogNumber, generation: Generation, proven_end: Offset },
    /// Someone had a damaged log cut: what older generations wrote at or above `start` does not count, neither as data
    /// nor as proof, and verdicts of before the generation are void. The generation itself writes nothing.
    Repaired { id: LogId, number: LogNumber, generation: Generation, start: Offset },
    /// Compaction has been through what lies below `until`.
    Compacted { id: LogId, number: LogNumber, until: Offset },
    /// The log begins at `start`: records below it are deleted. Frames were durable up to there.
    Started { id: LogId, number: LogNumber, start: Offset },
    /// Offsets below `until` may have been shown to someone before they were durable. Where a start finds fewer, they are
    /// not given again.
    Reserved { id: LogId, number: LogNumber, until: Offset },
    /// The journals have this file, and records may be in it alone.
    JournalFile(JournalFile),
    /// It is not needed any more, and may be gone.
    JournalFileGone(JournalFile),
}

impl Fact {
    /// Which log, and which of those that ever had its name, if it is of one.
    pub(crate) fn log(&self) -> Option<(LogId, LogNumber)> {
        match *self {
            Fact::Opened { id, number, .. }
            | Fact::Closed { id, number, .. }
            | Fact::Removed { id, number }
            | Fact::Corrupt { id, number, .. }
            | Fact::Repaired { id, number, .. }
            | Fact::Compacted { id, number, .. }
            | Fact::Started { id, number, .. }
            | Fact::Reserved { id, number, .. } => Some((id, number)),
            Fact::JournalFile(_) | Fact::JournalFileGone(_) => None,
        }
    }
}

/// A file of the journals. No two ever have the same numbers: a ring's is drawn at random, its blocks are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JournalFile {
    /// The ring's number.
    pub ring: u64,
    /// Of a file of blocks that were kept aside: the number of the first. `None`: the ring itself.
    pub aside: Option<u64>,
}

impl fmt::Display for JournalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ring = self.ring;
        match self.aside {
            None => write!(f, "ring {ring:016x}"),
            Some(first) => write!(f, "{ring:016x}-{first:020}.aside"),
        }
    }
}

/// The generations of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogGenerations {
    number: LogNumber,
    /// Those that own any offset at all: generations and start offsets both rise strictly. A generation that starts
    /// at or above a newer one owns nothing and is left out. Never empty.
    starts: Vec<(Generation, Offset)>,
    /// The clean stop of the latest generation that had one.
    closed: Option<(Generation, Offset)>,
    /// Below that, acknowledged records were found to be damaged; by which generation's time.
    corrupt: Option<(Generation, Offset)>,
    /// The latest repair.
    repaired: Option<(Generation, Offset)>,
    /// Below that compaction has been.
    compacted: Option<Offset>,
    /// Records below are deleted.
    log_start: Offset,
    /// Offsets below may have been given.
    reserved: Offset,
}

impl LogGenerations {
    /// The knowledge of a log from its first opening.
    pub(crate) fn new(number: LogNumber, generation: Generation, start: Offset) -> LogGenerations {
        let (closed, corrupt, repaired, compacted) = (None, None, None, None);
        let (starts, log_start, reserved) = (vec![(generation, start)], Offset::ZERO, Offset::ZERO);
        LogGenerations { number, starts, closed, corrupt, repaired, compacted, log_start, reserved }
    }

    pub(crate) fn number(&self) -> LogNumber {
        self.number
    }

    /// The latest generation and where it starts.
    pub(crate) fn latest(&self) -> (Generation, Offset) {
        self.starts.last().copied().unwrap_or((Generation::FIRST, Offset::ZERO))
    }

    /// Adds a fact of this log, but for its removal.
    pub(crate) fn learn(&mut self, fact: &Fact) {
        match *fact {
            Fact::Opened { generation, start, .. } => self.opened(generation, start),
            Fact::Closed { generation, end, .. } => self.closed(generation, end),
            Fact::Corrupt { generation, proven_end, .. } => self.found_corrupt(generation, proven_end),
            Fact::Repaired { generation, start, .. } => self.repaired(generation, start),
            Fact::Compacted { until, .. } => self.compacted(until),
            Fact::Started { start, .. } => self.started(start),
            Fact::Reserved { until, .. } => self.reserved(until),
            Fact::Removed { .. } | Fact::JournalFile(_) | Fact::JournalFileGone(_) => {}
        }
    }

    /// Adds an opening.
    pub(crate) fn opened(&mut self, generation: Generation, start: Offset) {
        let newer = self.starts.partition_point(|(other, _)| *other < generation);
        if self.starts.get(newer).is_some_and(|(other, other_start)| *other == generation || *other_start <= start) {
            return;
        }
        let older_kept = self.starts[..newer].partition_point(|(_, other_start)| *other_start < start);
        self.starts.splice(older_kept..newer, [(generation, start)]);
    }

    /// Adds a clean stop.
    pub(crate) fn closed(&mut self, generation: Generation, end: Offset) {
        self.closed = self.closed.max(Some((generation, end)));
    }

    /// Adds a verdict.
    pub(crate) fn found_corrupt(&mut self, generation: Generation, proven_end: Offset) {
        self.corrupt = self.corrupt.max(Some((generation, proven_end)));
    }

    /// Adds a repair: the log goes on from `start`, under generations behind this one.
    pub(crate) fn repaired(&mut self, generation: Generation, start: Offset) {
        self.opened(generation, start);
        self.repaired = self.repaired.max(Some((generation, start)));
    }

    /// The verdict of an earlier start, if it was that the log is damaged and nobody repaired it since: below which
    /// offset.
    pub(crate) fn corrupt(&self) -> Option<Offset> {
        let void = |found: Generation| self.repaired.is_some_and(|(repaired, _)| found < repaired);
        self.corrupt.filter(|(found, _)| !void(*found)).map(|(_, proven_end)| proven_end)
    }

    /// The same knowledge without any verdict.
    pub(crate) fn without_verdict(&self) -> LogGenerations {
        LogGenerations { corrupt: None, ..self.clone() }
    }

    /// Where the log was cut, if nothing was appended since.
    pub(crate) fn repaired_end(&self) -> Option<Offset> {
        self.repaired.filter(|(generation, _)| *generation == self.latest().0).map(|(_, start)| start)
    }

    /// Whether the end is told by this alone: nothing was appended since a clean stop or a repair, or a verdict stands.
    pub(crate) fn is_settled(&self) -> bool {
        self.corrupt().is_some() || self.clean_end().or(self.repaired_end()).is_some()
    }

    /// Adds a round of compaction.
    pub(crate) fn compacted(&mut self, until: Offset) {
        self.compacted = self.compacted.max(Some(until));
    }

    /// Adds that the records below `start` were deleted.
    pub(crate) fn started(&mut self, start: Offset) {
        self.log_start = self.log_start.max(start);
    }

    /// Adds that offsets below `until` may be shown before they are durable.
    pub(crate) fn reserved(&mut self, until: Offset) {
        self.reserved = self.reserved.max(until);
    }

    /// Below which offset some may have been shown that never were durable.
    pub(crate) fn reserved_until(&self) -> Offset {
        self.reserved
    }

    /// Where the log begins.
    pub(crate) fn log_start(&self) -> Offset {
        self.log_start
    }

    /// How far compaction has been.
    pub(crate) fn compacted_until(&self) -> Offset {
        self.compacted.unwrap_or(Offset::ZERO)
    }

    /// The end of the log if its latest generation was stopped cleanly: no frame was written since.
    pub(crate) fn clean_end(&self) -> Option<Offset> {
        self.closed.filter(|(generation, _)| *generation == self.latest().0).map(|(_, end)| end)
    }

    /// Everything below this offset was durable in frames once: the latest generation began there, a clean stop ended
    /// there, or the log begins there. A repair says nothing of frames: the journals may have what is below it.
    pub(crate) fn proven_end(&self) -> Offset {
        let appending =
            if self.repaired_end().is_some() { self.starts.iter().rev().nth(1) } else { self.starts.last() };
        let latest_start = appending.map_or(Offset::ZERO, |(_, start)| *start);
        // A stop of an older generation is proof only up to where a newer one took over.
        self.clean_end().map_or(latest_start, |end| end.max(latest_start)).max(self.log_start)
    }

    /// Whether `generation` owns every one of `offsets`.
    pub(crate) fn owns(&self, generation: Generation, offsets: Range<Offset>) -> bool {
        let Ok(at) = self.starts.binary_search_by_key(&generation, |(other, _)| *other) else { return false };
        let until = self.starts.get(at + 1).map(|(_, start)| *start);
        self.starts[at].1 <= offsets.start && until.is_none_or(|until| offsets.end <= until)
    }

    /// Where a later generation takes over from `generation`. What one of its frames says of the log holds up to there.
    pub(crate) fn owned_end(&self, generation: Generation) -> Offset {
        let later = self.starts.partition_point(|(other, _)| *other <= generation);
        self.starts.get(later).map_or(Offset::MAX, |(_, start)| *start)
    }

    /// The facts that this knowledge is made of.
    pub(crate) fn facts(&self, id: LogId) -> impl Iterator<Item = Fact> + '_ {
        let opened = self.starts.iter().map(move |&(generation, start)| Fact::Opened {
            id,
            number: self.number,
            generation,
            start,
        });
        let number = self.number;
        let closed = self.closed.map(|(generation, end)| Fact::Closed { id, number, generation, end });
        let corrupt = self.corrupt.map(|(generation, proven_end)| Fact::Corrupt { id, number, generation, proven_end });
        let repaired = self.repaired.map(|(generation, start)| Fact::Repaired { id, number, generation, start });
        let compacted = self.compacted.map(|until| Fact::Compacted { id, number, until });
        let begins_later = Some(self.log_start).filter(|start| *start > Offset::ZERO);
        let started = begins_later.map(|start| Fact::Started { id, number, start });
        let shows_early = Some(self.reserved).filter(|until| *until > Offset::ZERO);
        let reserved = shows_early.map(|until| Fact::Reserved { id, number, until });
        opened.chain(closed).chain(corrupt).chain(repaired).chain(compacted).chain(started).chain(reserved)
    }
}

#[cfg(test)]
mod tests;
