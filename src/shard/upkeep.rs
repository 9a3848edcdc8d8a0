//! What a shard does now and then: ends connections that hang, seals segments that are old, sees to its reserve.

use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::task;
use ringmq_runtime::time::{self, Instant};
use ringmq_wire::Timestamp;

use crate::server::Shard;

/// How often connections are looked at: the precision of their deadlines.
const CONNECTIONS_EVERY: Duration = Duration::from_secs(1);

/// How often segments are looked at, in looks at the connections.
const SEGMENTS_EVERY: u32 = 30;

/// Logs that are looked at before others get their turn.
const LOGS_AT_A_TIME: usize = 64;

/// Keeps the shard tidy until it stops.
pub(crate) async fn run(shard: Rc<Shard>) {
    let mut looks = 0_u32;
    while shard.stop.or_stop(time::sleep(CONNECTIONS_EVERY)).await.is_some() {
        shard.connections.end_overdue(Instant::now(), &shard.config.limits);
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(SEGMENTS_EVERY) {
            seal_old_segments(&shard).await;
            // What was given up while the disk was full is kept again as soon as there is room.
            shard.storage.keep_reserve().await;
        }
    }
}

async fn seal_old_segments(shard: &Shard) {
    let partitions = shard.directory.borrow().all_owned();
    let now = Timestamp::new(time::wall_clock());
    for some in partitions.chunks(LOGS_AT_A_TIME) {
        for log in some.iter().filter_map(|partition| partition.usable_log().ok()) {
            log.roll_if_due(now);
        }
        task::yield_to_io().await;
    }
}
