//! Deletes records that are too old or too many, partition by partition.

use std::rc::Rc;

use ringmq_runtime::{task, time};
use ringmq_segment::{DeleteRecordsError, RetainError};
use ringmq_wire::Timestamp;

use crate::partition::Partition;
use crate::server::Shard;

/// Partitions that are looked at before others get their turn. A look is at memory alone, unless something has to go.
const PARTITIONS_AT_A_TIME: usize = 64;

/// Looks after the retention of all partitions until the shard stops.
pub(crate) async fn run(shard: Rc<Shard>) {
    while shard.stop.or_stop(time::sleep(shard.config.retention_interval)).await.is_some() {
        let partitions = shard.directory.borrow().all_owned();
        for some in partitions.chunks(PARTITIONS_AT_A_TIME) {
            for partition in some {
                if shard.stop.is_stopped() {
                    return;
                }
                retain(partition).await;
            }
            task::yield_to_io().await;
        }
    }
}

async fn retain(partition: &Partition) {
    let Ok(log) = partition.usable_log() else { return };
    let before = log.offsets().start;
    match log.retain(Timestamp::new(time::wall_clock())).await {
        Ok(start) if start > before => {
            tracing::info!(partition = %log.id(), from = %before, to = %start, "deleted records: their retention is over");
        }
        Ok(_) | Err(RetainError::Delete(DeleteRecordsError::Closed | DeleteRecordsError::Poisoned(_))) => {}
        Err(cause) => partition.retention_failed(&cause),
    }
}
