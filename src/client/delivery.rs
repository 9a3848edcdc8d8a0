//! Where records were stored.

use std::ops::Range;

use ringmq_wire::{Offset, PartitionIndex, Timestamp};

/// Where one record was stored.
///
/// ```
/// use ringmq_client::{Delivery, Offset, PartitionIndex};
/// let delivery = Delivery { partition: PartitionIndex::new(3), offset: Offset::new(17) };
/// assert_eq!(format!("{}@{}", delivery.offset, delivery.partition), "17@3");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The partition.
    pub partition: PartitionIndex,
    /// Its offset there.
    pub offset: Offset,
}

/// Where records that were sent together were stored: in one partition, one after the other.
///
/// ```
/// use ringmq_client::{Deliveries, Offset, PartitionIndex};
/// let offsets = Offset::new(7)..Offset::new(9);
/// let stored = Deliveries { partition: PartitionIndex::new(0), offsets, append_time: None };
/// assert_eq!(stored.count(), 2);
/// assert!(stored.iter().map(|delivery| delivery.offset).eq([Offset::new(7), Offset::new(8)]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliveries {
    /// The partition.
    pub partition: PartitionIndex,
    /// From the first record's offset to the one after the last record's.
    pub offsets: Range<Offset>,
    /// The time that the broker gave them, on a topic that asks for that.
    pub append_time: Option<Timestamp>,
}

impl Deliveries {
    /// How many records there are.
    ///
    /// ```
    /// # use ringmq_client::{Deliveries, Offset, PartitionIndex};
    /// # let offsets = Offset::new(7)..Offset::new(9);
    /// # let stored = Deliveries { partition: PartitionIndex::new(0), offsets, append_time: None };
    /// assert_eq!(stored.count(), 2);
    /// ```
    pub fn count(&self) -> u64 {
        self.offsets.end.checked_sub(self.offsets.start).unwrap_or(0)
    }

    /// Where each record is, in the order in which they were sent.
    ///
    /// ```
    /// # use ringmq_client::{Deliveries, Offset, PartitionIndex};
    /// # let offsets = Offset::new(7)..Offset::new(9);
    /// # let stored = Deliveries { partition: PartitionIndex::new(0), offsets, append_time: None };
    /// assert_eq!(stored.iter().last().unwrap().offset, Offset::new(8));
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Delivery> + use<> {
        let partition = self.partition;
        let offsets = self.offsets.start.get()..self.offsets.end.get();
        offsets.map(move |offset| Delivery { partition, offset: Offset::new(offset) })
    }
}
