//! What takes records of a log away while it is written: deletion by request, retention, compaction.

use std::time::Duration;

use ringmq_runtime::{random, time};
use ringmq_segment::{
    CompactError, CompactionBudget, CompactionPolicy, DeleteRecordsError, Log, LogConfig, LogOffsets, RetainError,
};
use ringmq_wire::{Offset, Timestamp};

use super::outside::{Shared, ask_to_delete, deleted, reclaimed};
use super::support::log_config;

/// Deletes records now and then, the next after `pause_ms_max` at the most: a few, up to somewhere, or all; most of what is
/// durable is in the journal alone.
pub(super) async fn delete(outside: Shared, partition: usize, log: Log, pause_ms_max: u64) {
    loop {
        time::sleep(Duration::from_millis(random::u64() % pause_ms_max)).await;
        let LogOffsets { start, durable, .. } = log.offsets();
        let before = match random::u64() % 4 {
            0 => durable.get(),
            1 => start.get() + below(durable.get() - start.get() + 1),
            _ => start.get() + below((durable.get() - start.get()).min(8) + 1),
        };
        ask_to_delete(&outside, partition, before);
        match log.delete_records(Offset::new(before)).await {
            Ok(start) => {
                assert!(start.get() >= before && log.offsets().start == start);
                deleted(&outside, partition, start.get());
            }
            // Whether they are deleted is not known.
            Err(DeleteRecordsError::Record { .. }) => {}
            Err(DeleteRecordsError::Poisoned(_)) => return,
            Err(error) => panic!("nothing that leads to this was done: {error}"),
        }
    }
}

pub(super) fn below(bound: i64) -> i64 {
    (random::u64() % bound.cast_unsigned()).cast_signed()
}

/// Deletes what is beyond a size, or too old: the records of these tests are, so all that is sealed is.
pub(super) async fn retain(outside: Shared, partition: usize, log: Log) {
    loop {
        time::sleep(Duration::from_millis(random::u64() % 20)).await;
        let size = (!random::u64().is_multiple_of(4)).then_some(RETENTION_BYTES);
        let age = size.is_none().then_some(Duration::from_secs(3600));
        let config = LogConfig { retention_bytes: size, retention_age: age, ..log_config() };
        log.reconfigure(config).expect("a sound setting");
        let LogOffsets { start: before, durable, .. } = log.offsets();
        ask_to_delete(&outside, partition, durable.get());
        match log.retain(Timestamp::new(time::wall_clock())).await {
            Ok(start) => {
                let kept = log.size_bytes();
                assert!(start == before || age.is_some() || kept >= RETENTION_BYTES, "{kept} bytes are kept");
                deleted(&outside, partition, start.get());
                reclaimed(&outside, partition, start > before);
            }
            // Whether they are deleted is not known.
            Err(RetainError::Delete(DeleteRecordsError::Record { .. })) => {}
            Err(RetainError::Delete(DeleteRecordsError::Poisoned(_))) => return,
            Err(error) => panic!("nothing that leads to this was done: {error}"),
        }
    }
}

/// Two segments, and a part of another.
const RETENTION_BYTES: u64 = 300 << 10;

/// What is sealed soon, and just holds the largest append.
const SMALL_SEGMENT_BYTES: u64 = 48 << 10;

/// Compacts whenever there is something new, sometimes with memory for a few keys only.
pub(super) async fn compact(outside: Shared, partition: usize, log: Log) {
    let mut ahead = Duration::ZERO;
    loop {
        time::sleep(Duration::from_millis(random::u64() % 8)).await;
        let policy =
            CompactionPolicy { dirty_percent_min: 1, tombstone_retention: Duration::from_millis(random::u64() % 40) };
        let config = LogConfig { compaction: Some(policy), segment_bytes: SMALL_SEGMENT_BYTES, ..log_config() };
        log.reconfigure(config).expect("a sound setting");
        let now = time::wall_clock() + i64::try_from(ahead.as_millis()).expect("some minutes");
        let budget = CompactionBudget::new(if random::u64().is_multiple_of(4) { 400 } else { 1 << 20 });
        match log.compact(Timestamp::new(now), &budget, &|| false).await {
            Ok(done) => reclaimed(&outside, partition, done.is_some_and(|done| done.records_removed > 0)),
            Err(CompactError::Corrupt(corruption)) => panic!("nothing was damaged: {corruption}"),
            Err(_) if log.poisoned().is_some() => return,
            // It would be left alone for longer than this life lasts.
            Err(_) => ahead += Duration::from_secs(10 * 60),
        }
    }
}
