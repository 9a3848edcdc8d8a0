//! Which offset to begin at when looking for a timestamp.

use ringmq_wire::{Offset, Timestamp};

use crate::file::{self, Coverage, IndexError, IndexKind, read_i64, read_u32};

/// The sparse time index of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeIndex {
    base: Offset,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// No record below `relative_offset` is later than this.
    latest_before: Timestamp,
    relative_offset: u32,
}

impl TimeIndex {
    /// An empty index of the segment that begins at `base`.
    #[must_use]
    pub fn new(base: Offset) -> TimeIndex {
        TimeIndex { base, entries: Vec::new() }
    }

    /// Tells the index that no record of the segment below `offset` is later than `latest_before`. Both rise from
    /// call to call; a call that does not raise the timestamp moves the last entry forward instead of adding one.
    pub fn push(&mut self, latest_before: Timestamp, offset: Offset) {
        let Some(relative_offset) = offset.checked_sub(self.base).and_then(|r| u32::try_from(r).ok()) else {
            return;
        };
        match self.entries.last_mut() {
            Some(last) if latest_before < last.latest_before || relative_offset <= last.relative_offset => {}
            Some(last) if latest_before == last.latest_before => last.relative_offset = relative_offset,
            _ => self.entries.push(Entry { latest_before, relative_offset }),
        }
    }

    /// What it says of the records below `end`; it may say less of them than an index that never had more.
    #[must_use]
    pub fn below(&self, end: Offset) -> TimeIndex {
        let inside = |entry: &Entry| self.base.checked_add(entry.relative_offset.into()).is_some_and(|at| at <= end);
        TimeIndex { entries: self.entries[..self.entries.partition_point(inside)].to_vec(), ..*self }
    }

    /// An offset below which every record of the segment is earlier than `timestamp`.
    #[must_use]
    pub fn start_for(&self, timestamp: Timestamp) -> Offset {
        let after = self.entries.partition_point(|entry| entry.latest_before < timestamp);
        let relative = after.checked_sub(1).map_or(0, |at| self.entries[at].relative_offset);
        self.base.checked_add(u64::from(relative)).unwrap_or(self.base)
    }

    /// Timestamps, each with an offset below which no record is later, both rising.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (Timestamp, Offset)> + '_ {
        let offset = |entry: &Entry| self.base.checked_add(u64::from(entry.relative_offset)).unwrap_or(self.base);
        self.entries.iter().map(move |entry| (entry.latest_before, offset(entry)))
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
    pub fn decode(bytes: &[u8]) -> Result<(Coverage, TimeIndex), IndexError> {
        let (coverage, entries) = file::decode::<Entry>(bytes)?;
        let rising =
            entries.is_sorted_by(|a, b| a.latest_before < b.latest_before && a.relative_offset < b.relative_offset);
        if !rising {
            return Err(IndexError::Disordered);
        }
        Ok((coverage, TimeIndex { base: coverage.segment_base, entries }))
    }
}

/// Timestamp, relative offset.
impl file::Entry for Entry {
    const KIND: IndexKind = IndexKind::Time;
    const BYTES: usize = 12;

    fn put(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.latest_before.get().to_be_bytes());
        into.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> Entry {
        Entry { latest_before: Timestamp::new(read_i64(bytes, 0)), relative_offset: read_u32(bytes, 8) }
    }
}

#[cfg(test)]
mod tests;
