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

#[test]
fn nothing_is_acknowledged_before_it_is_durable_once_the_flush_is_not_relaxed_any_more() {
    sim(1001).run(|| async {
        let deps = start().await;
        let log = open_with(LogConfig { flush_interval: Some(millis(60_000)), ..small() }, &deps).await;
        deps.relaxed_journal.open(APPEND_BYTES_MAX);
        let waiting: Vec<_> = (0..3).map(|tag| log.append(copied(tag, 1, 100))).collect();
        staged(&log, 3).await;
        let [first, second, third] = &taken(&deps.relaxed_journal)[..] else { panic!("three, by the relaxed journal") };
        let readable = || log.offsets().readable.get();
        first.written();
        third.written();
        assert_eq!(readable(), 1);
        log.reconfigure(small()).expect("valid");
        second.written();
        assert_eq!(readable(), 1, "what was shown stays, and no more is shown");
        first.journaled();
        second.journaled();
        assert_eq!(readable(), 2, "the third one was written before, and is not durable");
        for appending in waiting {
            let appended = appending.await.expect("acknowledged");
            assert!(appended.next_offset <= log.offsets().durable);
        }
    });
}
