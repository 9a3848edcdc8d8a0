//! Where records without a key go.

use ringmq_wire::PartitionIndex;

/// Stays with a partition so that batches fill, and moves on so that all get their share.
///
/// With an idle partition a record ends the stay: the one behind it goes to the next partition, at once. With a busy one
/// records gather there, up to a batch's worth of bytes (as KIP-794 counts them); then they do so at the next.
#[derive(Debug)]
pub(super) struct Sticky {
    partition: u32,
    /// What has gone there in this stay.
    bytes: usize,
}

impl Sticky {
    /// Starts at a random partition, so that many short-lived producers do not all favour the first one.
    pub(super) fn new() -> Self {
        Self { partition: fastrand::u32(..), bytes: 0 }
    }

    /// The partition out of `count`, at least one, for a record of so many bytes.
    pub(super) fn choose(
        &mut self,
        count: u32,
        bytes: usize,
        batch_bytes_max: usize,
        is_busy: impl FnOnce(PartitionIndex) -> bool,
    ) -> PartitionIndex {
        let count = count.max(1);
        self.partition %= count;
        let stays = self.bytes > 0
            && self.bytes.saturating_add(bytes) <= batch_bytes_max
            && is_busy(PartitionIndex::new(self.partition));
        if !stays {
            self.partition = (self.partition + 1) % count;
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        PartitionIndex::new(self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(is_busy: bool) -> Vec<u32> {
        let mut sticky = Sticky::new();
        let mut taken = vec![0; 5];
        for _ in 0..100 {
            taken[sticky.choose(5, 10, 100, |_| is_busy).as_usize()] += 1;
        }
        taken
    }

    #[test]
    fn idle_partitions_take_turns_record_by_record() {
        let mut sticky = Sticky::new();
        let order: Vec<u32> = (0..6).map(|_| sticky.choose(5, 10, 100, |_| false).get()).collect();
        assert!(order.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 5), "{order:?}");
        assert_eq!(taken(false), [20; 5]);
    }

    #[test]
    fn busy_partitions_take_turns_batch_by_batch() {
        let mut sticky = Sticky::new();
        let order: Vec<u32> = (0..20).map(|_| sticky.choose(5, 10, 100, |_| true).get()).collect();
        assert!(order[..10].iter().all(|partition| *partition == order[0]), "{order:?}");
        assert!(order[10..].iter().all(|partition| *partition == (order[0] + 1) % 5), "{order:?}");
        assert_eq!(taken(true), [20; 5]);
    }

    #[test]
    fn partitions_may_be_added_and_records_be_larger_than_a_batch() {
        let mut sticky = Sticky::new();
        for count in [1, 2, 9, 3] {
            for _ in 0..20 {
                assert!(sticky.choose(count, usize::MAX, 100, |_| true).get() < count);
            }
        }
    }
}
