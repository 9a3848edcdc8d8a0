//! Which position to begin at when looking for an offset.

use ringmq_wire::Offset;

use crate::BLOCK_BYTES;
use crate::file::{self, Coverage, IndexError, IndexKind, read_u32};

/// Where a frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePlace {
    /// Base offset of the frame.
    pub offset: Offset,
    /// Byte position of the frame in its segment; a multiple of [`BLOCK_BYTES`].
    pub position: u64,
}

/// The sparse offset index of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetIndex {
    base: Offset,
    interval_bytes: u64,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    relative_offset: u32,
    block: u32,
}

impl OffsetIndex {
    /// An empty index of the segment that begins at `base`, with an entry at most every `interval_bytes` bytes of it.
    #[must_use]
    pub fn new(base: Offset, interval_bytes: u64) -> OffsetIndex {
        OffsetIndex { base, interval_bytes, entries: Vec::new() }
    }

    /// Tells the index of a frame. Frames come in the order of the segment. Returns whether the frame got an entry:
    /// the first one does, and then the first that begins an interval or more behind the last entry. A frame that
    /// cannot be expressed (see [`OffsetIndex::fits`]) gets none.
    pub fn push(&mut self, frame: FramePlace) -> bool {
        let due = self.entries.last().is_none_or(|last| frame.position >= last.position() + self.interval_bytes);
        let Some(entry) = Entry::of(self.base, frame).filter(|_| due) else { return false };
        let rises = self.entries.last().is_none_or(|last| last < &entry);
        if rises {
            self.entries.push(entry);
        }
        rises
    }

    /// Whether a frame can be told of in an index of the segment that begins at `base`: relative offsets and blocks
    /// have 32 bits.
    #[must_use]
    pub fn fits(base: Offset, frame: FramePlace) -> bool {
        Entry::of(base, frame).is_some()
    }

    /// The last known frame that begins at or below `offset`.
    #[must_use]
    pub fn floor(&self, offset: Offset) -> Option<FramePlace> {
        let after = self.entries.partition_point(|entry| entry.offset(self.base) <= offset);
        after.checked_sub(1).map(|at| self.entries[at].place(self.base))
    }

    /// Where to end a read that begins at `position` and would like `want_bytes`: the last known beginning of a frame
    /// within that reach, or else the first one behind it. `None` when no frame is known behind `position`.
    #[must_use]
    pub fn read_end(&self, position: u64, want_bytes: u64) -> Option<u64> {
        let reach = position.saturating_add(want_bytes);
        let behind = self.entries.partition_point(|entry| entry.position() <= position);
        let beyond = self.entries.partition_point(|entry| entry.position() <= reach);
        let at = if beyond > behind { beyond - 1 } else { behind };
        self.entries.get(at).map(Entry::position)
    }

    /// What it would be without the frames from `end` on.
    #[must_use]
    pub fn below(&self, end: Offset) -> OffsetIndex {
        let kept = self.entries.partition_point(|entry| entry.offset(self.base) < end);
        OffsetIndex { entries: self.entries[..kept].to_vec(), ..*self }
    }

    /// The last frame that got an entry.
    #[must_use]
    pub fn last(&self) -> Option<FramePlace> {
        self.entries.last().map(|entry| entry.place(self.base))
    }

    /// The frames that have an entry, in the order of the segment.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = FramePlace> + '_ {
        self.entries.iter().map(|entry| entry.place(self.base))
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of the index file.
    #[must_use]
    pub fn encode(&self, coverage: &Coverage) -> Vec<u8> {
        file::encode(coverage, &self.entries)
    }

    /// Reads the bytes of an index file. Whether it covers the segment at hand is for the caller to judge by the
    /// [`Coverage`].
    ///
    /// # Errors
    /// Whatever is wrong with the bytes: the index is then built again from the log.
    pub fn decode(bytes: &[u8], interval_bytes: u64) -> Result<(Coverage, OffsetIndex), IndexError> {
        let (coverage, entries) = file::decode::<Entry>(bytes)?;
        let rising = entries.is_sorted_by(|a, b| a < b);
        let inside = entries.last().is_none_or(|last| {
            last.offset(coverage.segment_base) < coverage.end && last.position() < coverage.end_position
        });
        if !rising || !inside {
            return Err(IndexError::Disordered);
        }
        Ok((coverage, OffsetIndex { base: coverage.segment_base, interval_bytes, entries }))
    }
}

impl Entry {
    fn of(base: Offset, frame: FramePlace) -> Option<Entry> {
        let relative_offset = u32::try_from(frame.offset.checked_sub(base)?).ok()?;
        let block = u32::try_from(frame.position / BLOCK_BYTES).ok()?;
        Some(Entry { relative_offset, block })
    }

    fn position(&self) -> u64 {
        u64::from(self.block) * BLOCK_BYTES
    }

    fn offset(self, base: Offset) -> Offset {
        // A base near the end of the number range with a damaged entry must not panic; such an offset is never looked
        // for.
        base.checked_add(u64::from(self.relative_offset)).unwrap_or(base)
    }

    fn place(self, base: Offset) -> FramePlace {
        FramePlace { offset: self.offset(base), position: self.position() }
    }
}

/// Relative offset, block.
impl file::Entry for Entry {
    const KIND: IndexKind = IndexKind::Offset;
    const BYTES: usize = 8;

    fn put(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.relative_offset.to_be_bytes());
        into.extend_from_slice(&self.block.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> Entry {
        Entry { relative_offset: read_u32(bytes, 0), block: read_u32(bytes, 4) }
    }
}

/// Both numbers rise together; where they do not, the order is not defined and the index is refused.
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        let by_offset = self.relative_offset.cmp(&other.relative_offset);
        (by_offset == self.block.cmp(&other.block)).then_some(by_offset)
    }
}

#[cfg(test)]
mod tests;
