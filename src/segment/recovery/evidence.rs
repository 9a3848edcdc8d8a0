//! Whether acknowledged records are missing: what frames, tables and journals tell of them.

use ringmq_index::FramePlace;
use ringmq_wire::Offset;

use super::tail::{Extent, Tail};
use super::{Access, OpenError, Opening, first_of, not_recorded};
use crate::failure::Damage;
use crate::generation::{Fact, LogGenerations};
use crate::redo::JournaledAppend;

impl Opening<'_> {
    /// Decides by the frames and the generation table whether what is missing behind the last good frame, and behind
    /// `end`, up to where the journals go on, had been acknowledged.
    pub(super) fn refuse_what_lost_acknowledged(
        &self,
        known: &LogGenerations,
        tail: &Tail,
        end: Offset,
    ) -> Result<(), OpenError> {
        let frames_ends = tail.extents().filter_map(|extent| extent.behind.proven_frames_end);
        let proven_frames = frames_ends.fold(known.proven_end(), Offset::max);
        let ends = tail.extents().flat_map(|extent| [extent.proven_end, extent.behind.proven_end]);
        let proven = ends.flatten().fold(proven_frames, Offset::max);
        let proven = proven.max(known.repaired_end().unwrap_or(Offset::ZERO));
        for extent in tail.extents() {
            if let Some((position, fault)) = extent.behind.unknown_generation {
                let damage = Damage::Frame(fault);
                return Err(self.corrupt(
                    extent.segment.base,
                    FramePlace { offset: extent.end, position },
                    damage,
                    proven,
                ));
            }
        }
        let last = &tail.last;
        if let Some(before) = &tail.before {
            // Something was written to the last segment, so this one was durable to its end.
            let begin = last.segment.base;
            if before.end > begin {
                return Err(self.corrupt(begin, first_of(begin), Damage::SegmentsOverlap, proven));
            }
            if before.end < begin {
                return Err(self.ends_early(before, proven.max(begin)));
            }
        }
        if last.end >= proven_frames && end >= proven {
            return Ok(());
        }
        let missing = tail.first_without_frames();
        if last.end >= proven_frames && missing.is_whole() {
            return Err(self.journal_lost(tail, end, proven));
        }
        Err(self.ends_early(missing, proven))
    }

    /// The same by what the journals tell. They will be used again, so the verdict is made durable (rule 6 of the
    /// storage protocol).
    pub(super) async fn refuse_what_the_journals_lost(
        &self,
        known: &LogGenerations,
        tail: &Tail,
        end: Offset,
    ) -> Result<(), OpenError> {
        let journaled = self.journaled;
        let (proven_frames, proven) = (journaled.proven_frames_end(known), journaled.proven_end(known));
        // A clean stop, or a repair, says where the log ends, whatever was in the journal.
        let known_end = known.clean_end().or(known.repaired_end());
        let perhaps_lost = journaled.lost_unknown && known_end != Some(end);
        if tail.last.end >= proven_frames && end >= proven && !perhaps_lost {
            return Ok(());
        }
        let proven_end = proven_frames.max(proven).max(end);
        if let Access::Recover(generations) = self.access {
            let (number, generation) = (known.number(), known.latest().0);
            let verdict = Fact::Corrupt { id: self.id, number, generation, proven_end };
            generations.record(verdict).await.map_err(|source| not_recorded(self.id, source))?;
        }
        if tail.last.end < proven_frames {
            return Err(self.ends_early(tail.first_without_frames(), proven_end));
        }
        Err(self.journal_lost(tail, end, proven_end))
    }

    /// What the journals have behind the frames ends at `end`.
    fn journal_lost(&self, tail: &Tail, end: Offset, proven: Offset) -> OpenError {
        let place = FramePlace { offset: end, position: tail.last.end_position };
        self.corrupt(tail.last.segment.base, place, Damage::JournalLost, proven)
    }

    /// What comes out when it is put into frames.
    pub(super) fn refuse_malformed(&self, redo: &[JournaledAppend]) -> Result<(), OpenError> {
        let Some(malformed) = redo.iter().find(|append| !append.is_well_formed()) else { return Ok(()) };
        let place = FramePlace { offset: malformed.base_offset, position: 0 };
        Err(self.corrupt(malformed.base_offset, place, Damage::JournalMalformed, malformed.next_offset))
    }

    pub(super) fn ends_early(&self, extent: &Extent, proven: Offset) -> OpenError {
        let damage = Damage::Frame(extent.fault);
        let end = FramePlace { offset: extent.end, position: extent.end_position };
        self.corrupt(extent.segment.base, end, damage, proven)
    }
}
