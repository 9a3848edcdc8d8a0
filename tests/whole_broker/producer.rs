//! A client that produces: several requests at a time, each for several partitions, wherever they are.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use ringmq_runtime::{random, time};
use ringmq_wire::codec::Codec;
use ringmq_wire::protocol::{Acks, ProduceHead, ProducePartition, ProduceResponse, ProduceTopic};
use ringmq_wire::{CorrelationId, ErrorCode, PartitionIndex, TopicName};

use super::broker::ADDRESS;
use super::connection::{Answer, Connection, Lost};
use super::ledger::{BatchId, Place};
use super::scenario::Stage;

/// Requests that one connection has under way at the same time.
const IN_FLIGHT_MAX: u64 = 4;

/// Produces until the scenario has enough, on one connection after the other.
pub(crate) async fn run(stage: Stage) {
    while !stage.is_enough() {
        let _ = produce_on_a_connection(&stage).await;
        time::sleep(Duration::from_micros(100 + random::u64() % 5_000)).await;
    }
}

async fn produce_on_a_connection(stage: &Stage) -> Result<(), Lost> {
    let mut connection = Connection::open(ADDRESS).await?;
    let number = stage.ledger.new_sender();
    while !stage.is_enough() {
        let mut under_way = BTreeMap::new();
        for _ in 0..1 + random::u64() % IN_FLIGHT_MAX {
            let request = Batches::draw(stage, number);
            let id = connection.send_produce(&request.head(), &request.sections()).await?;
            under_way.insert(id, request);
        }
        while !under_way.is_empty() {
            let (id, answer) = connection.receive().await?;
            settle(stage, &mut under_way, id, &answer);
        }
        time::sleep(Duration::from_micros(random::u64() % 4_000)).await;
    }
    Ok(())
}

fn settle(stage: &Stage, under_way: &mut BTreeMap<CorrelationId, Batches>, id: CorrelationId, answer: &Answer) {
    let request = under_way.remove(&id).expect("each request is answered once");
    match answer {
        Ok(body) => request.acknowledged(stage, &ProduceResponse::decode_whole(body).expect("it can be decoded")),
        Err(error) => stage.allow(error.code, "a produce"),
    }
}

/// How long values are. Where records are to go by segments, these are full soon.
pub(crate) fn draw_value_bytes(place: &Place) -> usize {
    let bytes = match random::u64() % 16 {
        // Large enough to be received straight into what is written.
        0 => 40_000,
        _ if place.is_compacted() || place.is_retained() => 4_000 + random::u64() % 12_000,
        _ => random::u64() % 600,
    };
    usize::try_from(bytes).expect("small")
}

/// What one request carries: at most one batch for each place.
pub(crate) struct Batches(BTreeMap<Place, (BatchId, Bytes)>);

impl Batches {
    /// A batch for some of the places.
    fn draw(stage: &Stage, connection: u64) -> Batches {
        let mut batches = BTreeMap::new();
        for _ in 0..1 + random::u64() % 3 {
            let place = stage.draw_place();
            let write = |place: &Place| stage.ledger.write_batch(place, connection, draw_value_bytes(place), None);
            batches.entry(place).or_insert_with_key(write);
        }
        Batches(batches)
    }

    /// One batch for one place.
    pub(crate) fn one(stage: &Stage, connection: u64, place: &Place) -> Batches {
        Batches(BTreeMap::from([(place.clone(), stage.ledger.write_batch(place, connection, 100, None))]))
    }

    pub(crate) fn head(&self) -> ProduceHead {
        let mut topics: Vec<ProduceTopic> = Vec::new();
        for (place, (_, bytes)) in &self.0 {
            let records_bytes = u32::try_from(bytes.len()).expect("small");
            let partition = ProducePartition { partition: PartitionIndex::new(place.partition), records_bytes };
            match topics.last_mut().filter(|topic| topic.topic.as_str() == place.topic) {
                Some(topic) => topic.partitions.push(partition),
                None => {
                    let topic = TopicName::parse(&place.topic).expect("a valid name");
                    topics.push(ProduceTopic { topic, partitions: vec![partition] });
                }
            }
        }
        ProduceHead { acks: Acks::All, timeout_ms: 30_000, topics }
    }

    pub(crate) fn sections(&self) -> Vec<Bytes> {
        self.0.values().map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Notes an answer: sections come back in the order in which they were sent.
    pub(crate) fn acknowledged(&self, stage: &Stage, response: &ProduceResponse) {
        let produced: Vec<_> =
            response.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |part| (topic, part))).collect();
        assert_eq!(produced.len(), self.0.len(), "every section is answered");
        for ((place, (batch, _)), (topic, produced)) in self.0.iter().zip(produced) {
            assert_eq!((topic.topic.as_str(), produced.partition.get()), (place.topic.as_str(), place.partition));
            match produced.error {
                ErrorCode::None => stage.ledger.acknowledge(*batch, produced.base_offset, produced.next_offset),
                error => stage.allow(error, "a section of a produce"),
            }
        }
    }
}
