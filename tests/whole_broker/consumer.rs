//! Clients that read: one that follows a partition, and one that reads logs from their start.

use std::time::Duration;

use ringmq_runtime::{random, time};
use ringmq_wire::protocol::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, OffsetSpec};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, TopicName};

use super::broker::ADDRESS;
use super::connection::{Connection, Lost};
use super::ledger::Place;
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
        let (partition, bytes) = match connection.fetch(&place.topic, place.partition, *position, max_wait_ms).await? {
            Ok(fetched) => fetched,
            Err(error) => {
                stage.allow(error.code, "a fetch");
                return Ok(());
            }
        };
        if partition.error != ErrorCode::None {
            // `OffsetOutOfRange` above all: what was read once is still there after every end of the broker.
            stage.allow(partition.error, "a section of a fetch");
            return Ok(());
        }
        for (base, _, next) in stage.ledger.see(place, &bytes) {
            assert_eq!(base, *position, "{place}: a consumer misses offsets");
            assert!(next <= partition.high_watermark, "{place}: {base} to {next} is above the high watermark");
            *position = next;
        }
    }
    Ok(())
}

/// Reads every place from start to end and compares it with all that is known.
pub(crate) async fn check_all(stage: &Stage) -> Result<(), Lost> {
    let mut connection = Connection::open(ADDRESS).await?;
    for place in stage.places() {
        check(stage, &mut connection, &place).await?;
    }
    Ok(())
}

/// Reads one place from start to end and compares it with all that is known.
pub(crate) async fn check(stage: &Stage, connection: &mut Connection, place: &Place) -> Result<(), Lost> {
    let expected = stage.ledger.expectation(place);
    let end = latest(stage, connection, place).await?;
    let mut log = Vec::new();
    let mut position = Offset::ZERO;
    while position < end {
        let fetched = connection.fetch(&place.topic, place.partition, position, 0).await?;
        let (partition, bytes) = fetched.map_err(|error| stage.refused(error.code, "a fetch"))?;
        if partition.error != ErrorCode::None {
            return Err(stage.refused(partition.error, "a section of a fetch"));
        }
        assert!(!bytes.is_empty(), "{place}: nothing at {position}, below the end {end}");
        log.extend(stage.ledger.see(place, &bytes));
        position = log.last().map_or(position, |(_, _, next)| *next);
    }
    stage.ledger.check_whole(place, &expected, &log);
    Ok(())
}

async fn latest(stage: &Stage, connection: &mut Connection, place: &Place) -> Result<Offset, Lost> {
    let topic = TopicName::parse(&place.topic).expect("a valid name");
    let partition = PartitionIndex::new(place.partition);
    let partitions = vec![ListOffsetsPartition { partition, at: OffsetSpec::Latest }];
    let listed = connection.call(&ListOffsetsRequest { topics: vec![ListOffsetsTopic { topic, partitions }] }).await?;
    let listed = listed.map_err(|error| stage.refused(error.code, "a list of offsets"))?;
    let listed = &listed.topics[0].partitions[0];
    if listed.error != ErrorCode::None {
        return Err(stage.refused(listed.error, "a section of a list of offsets"));
    }
    Ok(listed.offset.expect("a log has an end"))
}
