//! Which offsets of a log the journal has, durably.

use std::collections::VecDeque;
use std::ops::Range;

use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_wire::Offset;

/// The offsets beyond the frames' end that a journal has. Of one journal they come in ascending order; a straight append
/// between two of them leaves a gap that only its frame closes, and one journal may be behind the other.
#[derive(Debug, Default)]
pub(crate) struct JournaledRuns(VecDeque<Range<Offset>>);

impl JournaledRuns {
    /// A journal has these offsets.
    pub(crate) fn push(&mut self, offsets: Range<Offset>) {
        match self.0.back_mut() {
            Some(last) if last.end == offsets.start => last.end = offsets.end,
            Some(last) if last.end > offsets.start => {
                let at = self.0.partition_point(|run| run.start < offsets.start);
                self.0.insert(at, offsets);
            }
            _ => self.0.push_back(offsets),
        }
    }

    /// How far the log goes: the frames' end, moved on by what the journals have contiguous from there (rule 1 of
    /// the storage protocol). What lies below the frames' end is forgotten.
    pub(crate) fn durable_from(&mut self, frames_end: Offset) -> Offset {
        while self.0.pop_front_if(|run| run.end <= frames_end).is_some() {}
        let past_gaps = SeededBug::AcknowledgePastGap.is_in();
        let contiguous =
            |durable: Offset, run: &Range<Offset>| (run.start <= durable || past_gaps).then_some(durable.max(run.end));
        self.0
            .iter()
            .try_fold(frames_end, |durable, run| contiguous(durable, run).ok_or(durable))
            .unwrap_or_else(|end| end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(runs: &[(i64, i64)]) -> JournaledRuns {
        let mut journaled = JournaledRuns::default();
        for (start, end) in runs {
            journaled.push(Offset::new(*start)..Offset::new(*end));
        }
        journaled
    }

    #[test]
    fn durable_is_contiguous_from_the_frames_end() {
        let mut journaled = runs(&[(0, 2), (2, 5), (7, 9), (9, 10), (12, 13)]);
        let durable = [0, 3, 5, 6, 7, 11, 13, 20].map(|end| journaled.durable_from(Offset::new(end)).get());
        assert_eq!(durable, [5, 5, 5, 6, 10, 11, 13, 20]);
        let mut behind = runs(&[(4, 6), (0, 2), (2, 4), (8, 9), (7, 8)]);
        assert_eq!([0, 7].map(|end| behind.durable_from(Offset::new(end)).get()), [6, 9]);
        assert_eq!(runs(&[(3, 4)]).durable_from(Offset::ZERO), Offset::ZERO);
        assert_eq!(runs(&[]).durable_from(Offset::new(4)), Offset::new(4));
    }
}
