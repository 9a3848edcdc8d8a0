//! A client that deletes the oldest records of partitions, up to somewhere.

use std::time::Duration;

use ringmq_runtime::{random, time};
use ringmq_wire::protocol::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, TopicName};

use super::broker::ADDRESS;
use super::connection::{Connection, Lost};
use super::ledger::Place;
use super::scenario::Stage;
use super::topics::{COMPACTED, TRIMMED};

/// Deletes until the scenario has enough. Nobody else deletes records of these topics.
pub(crate) async fn run(stage: Stage) {
    while !stage.is_enough() {
        let _ = trim_on_a_connection(&stage).await;
        time::sleep(Duration::from_micros(100 + random::u64() % 5_000)).await;
    }
}

async fn trim_on_a_connection(stage: &Stage) -> Result<(), Lost> {
    let mut connection = Connection::open(ADDRESS).await?;
    while !stage.is_enough() {
        // Compaction has something to do only where records stay for a while.
        let topic = if random::u64().is_multiple_of(16) { COMPACTED } else { TRIMMED };
        let places = stage.places().into_iter().filter(|place| place.topic == topic);
        for place in places {
            trim(stage, &mut connection, &place).await?;
        }
        time::sleep(Duration::from_micros(random::u64() % 40_000)).await;
    }
    Ok(())
}

async fn trim(stage: &Stage, connection: &mut Connection, place: &Place) -> Result<(), Lost> {
    let (start, end) = (stage.ledger.start(place), stage.ledger.known_end(place));
    let known = u64::try_from(end.get() - start.get()).unwrap_or(0);
    let ahead = |records: u64| start.get() + i64::try_from(records).expect("few");
    let before = match random::u64() % 8 {
        // Up to the high watermark, wherever that is.
        0 => None,
        1 => Some(Offset::new(ahead(random::u64() % (known + 1)))),
        // There are no such records.
        2 => return refuse(stage, connection, place).await,
        _ => Some(Offset::new(ahead(random::u64() % (known.min(6) + 1)))),
    };
    stage.ledger.ask_to_delete(place, before.unwrap_or(Offset::MAX));
    let (error, now) = delete(stage, connection, place, before).await?;
    if error != ErrorCode::None {
        stage.allow(error, "a deletion of records");
        return Ok(());
    }
    assert!(before.is_none_or(|before| now >= before), "{place}: {before:?} was asked for, and it begins at {now}");
    stage.ledger.see_start(place, start, now);
    // What was asked for before ended with its broker.
    stage.ledger.deleted_to(place, now);
    Ok(())
}

/// Asks for what cannot be.
async fn refuse(stage: &Stage, connection: &mut Connection, place: &Place) -> Result<(), Lost> {
    let (error, _) = delete(stage, connection, place, Some(Offset::MAX)).await?;
    if error != ErrorCode::OffsetOutOfRange {
        stage.allow(error, "a deletion of records that there are not");
    }
    Ok(())
}

/// How it ended, and where the partition begins now.
async fn delete(
    stage: &Stage,
    connection: &mut Connection,
    place: &Place,
    before: Option<Offset>,
) -> Result<(ErrorCode, Offset), Lost> {
    let topic = TopicName::parse(&place.topic).expect("a valid name");
    let partitions = vec![DeleteRecordsPartition { partition: PartitionIndex::new(place.partition), before }];
    let request = DeleteRecordsRequest { topics: vec![DeleteRecordsTopic { topic, partitions }] };
    let deleted = connection.call(&request).await?;
    let deleted = deleted.map_err(|error| stage.refused(error.code, "a deletion of records"))?;
    let deleted = &deleted.topics[0].partitions[0];
    Ok((deleted.error, deleted.log_start_offset))
}
