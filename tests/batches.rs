//! Record batches and produce requests for tests.

use bytes::Bytes;
use ringmq_wire::batch::{BatchBuilder, Compression};
use ringmq_wire::protocol::{Acks, ProduceHead, ProducePartition, ProduceTopic};
use ringmq_wire::{PartitionIndex, Timestamp, TopicName};

/// One uncompressed batch with a record for each value.
pub fn batch(values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder
            .append_parts(Timestamp::new(1_700_000_000_000), None, Some(value), std::iter::empty())
            .expect("a small record fits a batch");
    }
    builder.finish().expect("a batch with records is a batch")
}

/// A valid topic name.
pub fn name(topic: &str) -> TopicName {
    TopicName::parse(topic).expect("a valid name")
}

/// The head of a produce of one section to each partition, acknowledged by all.
pub fn produce_head(topic: &str, sections: &[(u32, &Bytes)]) -> ProduceHead {
    let partitions = sections
        .iter()
        .map(|(partition, section)| ProducePartition {
            partition: PartitionIndex::new(*partition),
            records_bytes: u32::try_from(section.len()).expect("a section fits a request"),
        })
        .collect();
    ProduceHead { acks: Acks::All, timeout_ms: 5_000, topics: vec![ProduceTopic { topic: name(topic), partitions }] }
}
