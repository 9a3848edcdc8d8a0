//! What was acknowledged, partition by partition: the result that a script reads.

use std::collections::BTreeMap;

use serde::Serialize;

/// The acknowledged records of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Acknowledged {
    /// The partition.
    pub partition: u32,
    /// Offset of the first acknowledged record.
    pub first_offset: i64,
    /// Offset of the last one, included.
    pub last_offset: i64,
    /// How many there are; less than the offsets span where others wrote in between.
    pub count: u64,
}

impl std::fmt::Display for Acknowledged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { partition, first_offset, last_offset, count } = self;
        write!(f, "partition={partition} first_offset={first_offset} last_offset={last_offset} count={count}")
    }
}

/// The sum of all acknowledgements so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    partitions: BTreeMap<u32, Acknowledged>,
}

impl Tally {
    /// Counts an acknowledged batch of `count` records (at least one) that begins at `base_offset`.
    pub(super) fn add(&mut self, partition: u32, base_offset: i64, count: u64) {
        let last = base_offset.saturating_add(i64::try_from(count.saturating_sub(1)).unwrap_or(i64::MAX));
        let new = Acknowledged { partition, first_offset: base_offset, last_offset: last, count };
        self.partitions
            .entry(partition)
            .and_modify(|sum| {
                sum.first_offset = sum.first_offset.min(base_offset);
                sum.last_offset = sum.last_offset.max(last);
                sum.count += count;
            })
            .or_insert(new);
    }

    /// Every partition with an acknowledged record, by its number.
    pub(super) fn partitions(&self) -> impl Iterator<Item = &Acknowledged> {
        self.partitions.values()
    }

    /// How many records were acknowledged.
    pub(super) fn records(&self) -> u64 {
        self.partitions.values().map(|partition| partition.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_add_up_in_any_order() {
        let mut tally = Tally::default();
        tally.add(3, 100, 10);
        tally.add(1, 7, 1);
        tally.add(3, 90, 10);
        tally.add(3, 200, 5);
        let lines: Vec<_> = tally.partitions().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "partition=1 first_offset=7 last_offset=7 count=1",
                "partition=3 first_offset=90 last_offset=204 count=25"
            ]
        );
        assert_eq!(tally.records(), 26);
    }
}
