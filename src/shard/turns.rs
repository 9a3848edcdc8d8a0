//! Giving way: work on very many partitions or bytes lets the core look at its sockets and files in between.

use ringmq_runtime::task;

use crate::limits::{BYTES_IN_A_ROW_MAX, PARTS_IN_A_ROW_MAX};

/// Counts partitions and bytes, and gives way after [`PARTS_IN_A_ROW_MAX`] or [`BYTES_IN_A_ROW_MAX`] of them.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    parts_in_a_row: usize,
    bytes_in_a_row: usize,
}

impl Turns {
    /// After each partition.
    pub(crate) async fn give_way_if_due(&mut self) {
        self.parts_in_a_row += 1;
        self.give_way_beyond_bounds().await;
    }

    /// After so many bytes were read by the core, or copied.
    pub(crate) async fn give_way_for(&mut self, bytes: usize) {
        self.bytes_in_a_row = self.bytes_in_a_row.saturating_add(bytes);
        self.give_way_beyond_bounds().await;
    }

    async fn give_way_beyond_bounds(&mut self) {
        if self.parts_in_a_row >= PARTS_IN_A_ROW_MAX || self.bytes_in_a_row >= BYTES_IN_A_ROW_MAX {
            *self = Self::default();
            task::yield_to_io().await;
        }
    }
}
