//! Which offset to begin at when looking for a timestamp.

use ringmq_wire::{Offset, Timestamp};

use crate::file::{Coverage, IndexError, IndexKind, decode_entries, encode_entries, read_i64, read_u32};

/// Bytes of one entry: timestamp, relative offset.
const ENTRY_BYTES: usize = 12;

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

    /// An offset below which every record of the segment is earlier than `timestamp`.
    #[must_use]
    pub fn start_for(&self, timestamp: Timestamp) -> Offset {
        let after = self.entries.partition_point(|entry| entry.latest_before < timestamp);
        let relative = after.checked_sub(1).map_or(0, |at| self.entries[at].relative_offset);
        self.base.checked_add(u64::from(relative)).unwrap_or(self.base)
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
        encode_entries(IndexKind::Time, coverage, ENTRY_BYTES, self.entries.len(), |entries| {
            for entry in &self.entries {
                entries.extend_from_slice(&entry.latest_before.get().to_be_bytes());
                entries.extend_from_slice(&entry.relative_offset.to_be_bytes());
            }
        })
    }

    /// Reads the bytes of an index file. Whether it covers the segment at hand is for the caller to judge by the
    /// [`Coverage`].
    ///
    /// # Errors
    /// Whatever is wrong with the bytes: the index is then built again from the log.
    pub fn decode(bytes: &[u8]) -> Result<(Coverage, TimeIndex), IndexError> {
        let (coverage, encoded) = decode_entries(bytes, IndexKind::Time, ENTRY_BYTES)?;
        let entries: Vec<Entry> = encoded
            .chunks_exact(ENTRY_BYTES)
            .map(|entry| Entry {
                latest_before: Timestamp::new(read_i64(entry, 0)),
                relative_offset: read_u32(entry, 8),
            })
            .collect();
        let rising =
            entries.is_sorted_by(|a, b| a.latest_before < b.latest_before && a.relative_offset < b.relative_offset);
        if !rising {
            return Err(IndexError::Disordered);
        }
        Ok((coverage, TimeIndex { base: coverage.segment_base, entries }))
    }
}

#[cfg(test)]
mod tests;
