//! Giving way: work on very many partitions lets the core look at its sockets and files in between.

use ringmq_runtime::task;

use crate::limits::PARTS_IN_A_ROW_MAX;

/// Counts partitions, and gives way after [`PARTS_IN_A_ROW_MAX`] of them.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    in_a_row: usize,
}

impl Turns {
    pub(crate) async fn give_way_if_due(&mut self) {
        self.in_a_row += 1;
        if self.in_a_row >= PARTS_IN_A_ROW_MAX {
            self.in_a_row = 0;
            task::yield_to_io().await;
        }
    }
}
