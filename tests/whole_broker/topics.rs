//! The topics that stay, what becomes of their records, and the client that sets it while they are in use.

use std::time::Duration;

use ringmq_runtime::{random, time};
use ringmq_wire::protocol::{AlterTopicsRequest, Setting, TopicAlteration};
use ringmq_wire::{ErrorCode, Offset};

use super::broker::ADDRESS;
use super::connection::{Connection, Lost};
use super::scenario::Stage;

/// Nothing of it ever goes.
pub(crate) const KEPT: &str = "kept";
/// A client deletes its oldest records.
pub(crate) const TRIMMED: &str = "trimmed";
/// Later records replace those with the same key.
pub(crate) const COMPACTED: &str = "compacted";
/// The oldest records go when there are too many.
pub(crate) const RETAINED: &str = "retained";

/// Records are acknowledged, and shown, before they are durable.
pub(crate) const RELAXED: &str = "relaxed";

/// How soon they are, about.
pub(crate) const FLUSH_INTERVAL: Duration = Duration::from_millis(10);

/// What stays of [`RETAINED`], in bytes of its segments. That is more than of its batches, as frames are padded.
pub(crate) const RETENTION_BYTES: u64 = 256 << 10;

/// How long tombstones stay in [`COMPACTED`].
pub(crate) const TOMBSTONE_RETENTION: Duration = Duration::from_millis(100);

/// Has compaction, retention and the flush set, some time after the topics came into use.
pub(crate) async fn keep_as_planned(stage: Stage) {
    for place in stage.places().into_iter().filter(|place| place.topic == RETAINED) {
        stage.ledger.ask_to_delete(&place, Offset::MAX);
    }
    time::sleep(Duration::from_micros(random::u64() % 20_000)).await;
    while !matches!(alter(&stage).await, Ok(true)) && !stage.is_enough() {
        time::sleep(Duration::from_micros(100 + random::u64() % 5_000)).await;
    }
}

/// Whether the topics are altered for certain. Asking again does no harm.
async fn alter(stage: &Stage) -> Result<bool, Lost> {
    let mut connection = Connection::open(ADDRESS).await?;
    let tombstone_retention_ms = TOMBSTONE_RETENTION.as_millis();
    let compacted = [
        ("cleanup", "compact".to_owned()),
        ("tombstone_retention_ms", tombstone_retention_ms.to_string()),
        ("compaction_dirty_percent", (1 + random::u64() % 50).to_string()),
    ];
    let retained = [("retention_bytes", RETENTION_BYTES.to_string())];
    let relaxed = [("flush_interval_ms", FLUSH_INTERVAL.as_millis().to_string())];
    let topics = vec![alteration(COMPACTED, compacted), alteration(RETAINED, retained), alteration(RELAXED, relaxed)];
    let altered = connection.call(&AlterTopicsRequest { topics, timeout_ms: 30_000, validate_only: false }).await?;
    let errors = altered.map_or_else(
        |error| vec![error.code],
        |altered| altered.topics.into_iter().map(|topic| topic.error).collect::<Vec<_>>(),
    );
    for error in errors.iter().filter(|error| **error != ErrorCode::None) {
        stage.allow(*error, "an alteration");
    }
    Ok(errors.iter().all(|error| *error == ErrorCode::None))
}

fn alteration<const N: usize>(topic: &str, set: [(&str, String); N]) -> TopicAlteration {
    let set = set.into_iter().map(|(key, value)| Setting { key: key.to_owned(), value });
    TopicAlteration { name: topic.to_owned(), set: set.collect(), unset: Vec::new(), partitions: None }
}
