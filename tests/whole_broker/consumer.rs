//! Clients that read: one that follows a partition, and one that reads logs from their start.

use std::time::Duration;

use ringmq_runtime::{random, time};
use ringmq_wire::protocol::{FetchedPartition, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, OffsetSpec};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, TopicName};

use super::broker::ADDRESS;
use super::connection::{Connection, Lost};
use super::ledger::{Gone, Place, ReadLog, SeenBatch};
use super::scenario::Stage;

/// Follows one partition from its start until the scenario has enough, over every end of the broker.
pub(crate) async fn follow(stage: Stage, place: Place) {
    let mut position = Offset::ZERO;
    while !stage.is_enough() {
        let _ = follow_on_a_connection(&stage, &place, &mut position).await;
        time::sleep(Duration::from_micros(100 + random::u64() % 5_000)).await;
    }
}

async fn follow_on_a_connection(stage: &Stage, place: &Place, position: &mut Offset) -> Result<(), Lost> {
    let mut connection = Connection::open(ADDRESS).await?;
    while !stage.is_enough() {
        let max_wait_ms = u32::try_from(random::u64() % 100).expect("small");
        let (partition, bytes) = match fetch(stage, &mut connection, place, *position, max_wait_ms).await? {
            Fetched::Records(partition, bytes) => (partition, bytes),
            Fetched::Deleted => {
                let start = list(stage, &mut connection, place, OffsetSpec::Earliest).await?;
                assert!(
                    start > *position,
                    "{place}: {position} is said to be out of range, and {start} to be the start"
                );
                *position = start;
                continue;
            }
        };
        for SeenBatch { base, next, .. } in stage.ledger.see(place, &bytes) {
            let goes_on = base <= *position || place.is_compacted();
            assert!(goes_on && next > *position, "{place}: at {position} a consumer gets {base} to {next}");
            assert!(next <= partition.high_watermark, "{place}: {base} to {next} is above the high watermark");
            *position = next;
        }
    }
    Ok(())
}

/// What a fetch gave.
enum Fetched {
    Records(FetchedPartition, Vec<u8>),
    /// The records there are deleted, as somebody has asked for.
    Deleted,
}

async fn fetch(
    stage: &Stage,
    connection: &mut Connection,
    place: &Place,
    from: Offset,
    max_wait_ms: u32,
) -> Result<Fetched, Lost> {
    let start = stage.ledger.start(place);
    let fetched = connection.fetch(&place.topic, place.partition, from, max_wait_ms).await?;
    let (partition, bytes) = fetched.map_err(|error| stage.refused(error.code, "a fetch"))?;
    match partition.error {
        ErrorCode::None => {
            stage.ledger.see_start(place, start, partition.log_start_offset);
            Ok(Fetched::Records(partition, bytes))
        }
        ErrorCode::OffsetOutOfRange if from < stage.ledger.start_asked(place) => Ok(Fetched::Deleted),
        // `OffsetOutOfRange` too: what was read once is still there after every end of the broker.
        error => Err(stage.refused(error, "a section of a fetch")),
    }
}

/// Reads every place from start to end and compares it with all that is known. Returns what was gone.
pub(crate) async fn check_all(stage: &Stage) -> Result<Gone, Lost> {
    let (mut connection, mut all) = (Connection::open(ADDRESS).await?, Gone::default());
    for place in stage.places() {
        let gone = check(stage, &mut connection, &place).await?;
        all = Gone { deleted: all.deleted + gone.deleted, replaced: all.replaced + gone.replaced };
    }
    Ok(all)
}

/// Reads one place from start to end and compares it with all that is known. Returns what was gone.
pub(crate) async fn check(stage: &Stage, connection: &mut Connection, place: &Place) -> Result<Gone, Lost> {
    loop {
        let expected = stage.ledger.expectation(place);
        // Else records went while it read.
        if let Some(log) = read(stage, connection, place).await? {
            return Ok(stage.ledger.check(place, &expected, &log));
        }
    }
}

/// The whole of a log; `None` when what comes next was deleted meanwhile.
async fn read(stage: &Stage, connection: &mut Connection, place: &Place) -> Result<Option<ReadLog>, Lost> {
    let end = list(stage, connection, place, OffsetSpec::Latest).await?;
    let start = list(stage, connection, place, OffsetSpec::Earliest).await?;
    let (mut position, mut log) = (start, ReadLog { start, batches: Vec::new() });
    while position < end {
        let Fetched::Records(partition, bytes) = fetch(stage, connection, place, position, 0).await? else {
            return Ok(None);
        };
        assert!(!bytes.is_empty(), "{place}: nothing at {position}, below the end {end}");
        log.start = partition.log_start_offset;
        log.batches.extend(stage.ledger.see(place, &bytes));
        let next = log.batches.last().map_or(position, |batch| batch.next);
        assert!(next > position, "{place}: at {position} a consumer comes no further");
        position = next;
    }
    Ok(Some(log))
}

/// An offset of a place: the earliest one tells where it begins.
async fn list(stage: &Stage, connection: &mut Connection, place: &Place, at: OffsetSpec) -> Result<Offset, Lost> {
    let before = stage.ledger.start(place);
    let topic = TopicName::parse(&place.topic).expect("a valid name");
    let partitions = vec![ListOffsetsPartition { partition: PartitionIndex::new(place.partition), at }];
    let listed = connection.call(&ListOffsetsRequest { topics: vec![ListOffsetsTopic { topic, partitions }] }).await?;
    let listed = listed.map_err(|error| stage.refused(error.code, "a list of offsets"))?;
    let listed = &listed.topics[0].partitions[0];
    if listed.error != ErrorCode::None {
        return Err(stage.refused(listed.error, "a section of a list of offsets"));
    }
    let offset = listed.offset.expect("a log has a start and an end");
    if at == OffsetSpec::Earliest {
        stage.ledger.see_start(place, before, offset);
    }
    Ok(offset)
}
