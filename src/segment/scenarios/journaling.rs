//! What a log gives to the journals and hears of them. They are driven by hand here.

use std::path::Path;

use ringmq_runtime::time;
use ringmq_wire::Offset;

use super::support::*;
use crate::{JournalQueue, Journaling, Log, LogConfig, LogDeps};

const APPEND_BYTES_MAX: usize = 4 << 10;

/// Segments that have room for many appends.
fn large() -> LogConfig {
    LogConfig { segment_bytes: 1 << 20, ..small() }
}

async fn open_with(config: LogConfig, deps: &LogDeps) -> Log {
    Log::open(Path::new(ROOT), log_id(0), config, deps).await.expect("an empty log").0
}

/// Waits until the log has so many offsets.
async fn staged(log: &Log, end: i64) {
    while log.offsets().end < Offset::new(end) {
        time::sleep(millis(1)).await;
    }
}

/// Takes out all that waits.
fn taken(queue: &JournalQueue) -> Vec<Journaling> {
    std::iter::from_fn(|| queue.take_if(|_| true)).collect()
}

#[test]
fn what_waited_for_a_journal_that_is_given_up_is_not_counted_any_more() {
    sim(1000).run(|| async {
        let deps = start().await;
        let log = open_with(large(), &deps).await;
        deps.journal.open(APPEND_BYTES_MAX);
        let waiting: Vec<_> = (0..40).map(|tag| log.append(copied(tag, 1, 2_000))).collect();
        staged(&log, 40).await;
        deps.journal.close();
        for appending in waiting {
            appending.await.expect("acknowledged, by frames");
        }
        deps.journal.open(APPEND_BYTES_MAX);
        let small = log.append(copied(40, 1, 100));
        taken(&deps.journal).iter().for_each(Journaling::journaled);
        small.await.expect("acknowledged, by the journal");
        time::sleep(millis(100)).await;
        assert_eq!((log.frames_end(), log.offsets().durable), (Offset::new(40), Offset::new(41)), "it needs no frame");
    });
}
