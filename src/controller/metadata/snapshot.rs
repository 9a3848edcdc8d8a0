//! The bytes of a snapshot: a whole image, with what it is of (`docs/formats/metadata-log.md`).

use std::sync::Arc;

use bytes::{Buf, BufMut};
use ringmq_runtime::seeded_bug::SeededBug;
use ringmq_wire::{Offset, PartitionIndex, ProducerId, TopicId};
use uuid::Uuid;

use super::command::{
    COMMAND_BYTES_MAX, CommandError, decode_name, decode_partitions, decode_producer_id, decode_replicas,
    decode_settings, decode_topic_id, encode_name, encode_settings,
};
use super::image::{Cluster, DELETED_TOPICS_MAX, Image, Topic};
use super::placement::{Slot, SlotRun, SlotRuns};
use super::{PARTITIONS_PER_TOPIC_MAX, PARTITIONS_TOTAL_MAX};

/// The longest snapshot, in bytes: more than the largest image takes.
pub const SNAPSHOT_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 4] = *b"RQMS";
/// What is written. Version 1, of before there were idempotent producers, is read as well.
const VERSION: u16 = 2;
const HEAD_BYTES: usize = 48;
/// The head without its checksum.
const CHECKED_BYTES: usize = HEAD_BYTES - 4;
const _: () = {
    // Every topic has a partition, and every addition at least one of its own.
    let topics = PARTITIONS_TOTAL_MAX as usize * (COMMAND_BYTES_MAX + 2 + 8);
    assert!(HEAD_BYTES + 4 + 8 + 4 + topics + 4 + DELETED_TOPICS_MAX * 16 <= SNAPSHOT_BYTES_MAX);
};
/// Topics that are written down in one go.
const TOPICS_PER_STEP: usize = 1_000;

/// A snapshot while it is written down, piece by piece: an image may be large, and its core has other work.
pub struct SnapshotEncoder<'a> {
    image: &'a Image,
    /// Ascending by id; those that are left.
    topics: std::vec::IntoIter<&'a Arc<Topic>>,
    bytes: Vec<u8>,
}

impl<'a> SnapshotEncoder<'a> {
    /// Begins with `image`.
    pub fn new(image: &'a Image) -> SnapshotEncoder<'a> {
        let mut topics: Vec<_> = image.topics().collect();
        topics.sort_unstable_by_key(|topic| topic.id);
        let mut bytes = vec![0; HEAD_BYTES];
        bytes.put_u32(image.next_slot().get());
        bytes.put_i64(image.next_producer_id().get());
        // Every topic has a partition, and those are bounded.
        bytes.put_u32(u32::try_from(topics.len()).unwrap_or(u32::MAX));
        SnapshotEncoder { image, topics: topics.into_iter(), bytes }
    }

    /// Writes some more of it down; whether there is more to write.
    pub fn step(&mut self) -> bool {
        for topic in self.topics.by_ref().take(TOPICS_PER_STEP) {
            encode_topic(topic, &mut self.bytes);
        }
        self.topics.len() > 0
    }

    /// The whole snapshot.
    pub fn finish(mut self) -> Vec<u8> {
        while self.step() {}
        let deleted = self.image.deleted().iter();
        self.bytes.put_u32(u32::try_from(deleted.len()).unwrap_or(u32::MAX));
        for id in deleted {
            self.bytes.put_slice(id.as_bytes());
        }
        let head = encode_head(self.image, &self.bytes[HEAD_BYTES..]);
        self.bytes[..HEAD_BYTES].copy_from_slice(&head);
        self.bytes
    }
}

fn encode_head(image: &Image, body: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.put_slice(&MAGIC);
    head.put_u16(VERSION);
    head.put_u16(0);
    head.put_slice(image.cluster_id().as_bytes());
    head.put_i64(image.applied().get());
    head.put_u64(body.len() as u64);
    head.put_u32(crc32fast::hash(body));
    head.put_u32(crc32fast::hash(&head));
    head
}

fn encode_topic(topic: &Topic, out: &mut impl BufMut) {
    out.put_slice(topic.id.as_bytes());
    encode_name(&topic.name, out);
    out.put_u32(topic.partitions);
    out.put_u16(topic.replicas);
    out.put_u32(topic.slots.first_slot().get());
    encode_settings(&topic.settings, out);
    let added = topic.slots.added();
    const { assert!(PARTITIONS_PER_TOPIC_MAX <= u16::MAX as u32, "each addition is of a partition at least") };
    out.put_u16(u16::try_from(added.len()).unwrap_or(u16::MAX));
    for run in added {
        out.put_u32(run.first_partition.get());
        out.put_u32(run.first_slot.get());
    }
}

/// Reads the snapshot that `bytes` hold: the image of `cluster` at `offset`, and no other.
///
/// # Errors
/// [`SnapshotError`] says in what the bytes differ. Nothing is allocated before its length has been checked.
pub fn decode_snapshot(bytes: &[u8], cluster: Cluster, offset: Offset) -> Result<Image, SnapshotError> {
    let (version, mut body) = decode_head(bytes, cluster, offset)?;
    let image = decode_body(&mut body, version, cluster, offset)?;
    if body.is_empty() { Ok(image) } else { Err(SnapshotError::LeftOver { bytes: body.len() }) }
}

/// Checks everything around the body; its version comes with it.
fn decode_head(bytes: &[u8], cluster: Cluster, offset: Offset) -> Result<(u16, &[u8]), SnapshotError> {
    let (mut head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or(SnapshotError::CutShort)?;
    let computed = crc32fast::hash(&head[..CHECKED_BYTES]);
    let magic: [u8; 4] = [head.try_get_u8()?, head.try_get_u8()?, head.try_get_u8()?, head.try_get_u8()?];
    let version = head.try_get_u16()?;
    let _reserved = head.try_get_u16()?;
    let cluster_id = Uuid::from_u128(head.try_get_u128()?);
    let applied = head.try_get_i64()?;
    let body_bytes = head.try_get_u64()?;
    let body_checksum = head.try_get_u32()?;
    let head_checksum = head.try_get_u32()?;
    if magic != MAGIC {
        return Err(SnapshotError::NotASnapshot);
    }
    if head_checksum != computed {
        return Err(SnapshotError::Checksum { what: "head", stored: head_checksum, computed });
    }
    if !(1..=VERSION).contains(&version) {
        return Err(SnapshotError::Unknown { version });
    }
    if cluster_id != cluster.id {
        return Err(SnapshotError::OtherCluster { cluster_id });
    }
    if applied != offset.get() {
        return Err(SnapshotError::OtherOffset { applied });
    }
    if body_bytes != body.len() as u64 {
        return Err(SnapshotError::Length { announced: body_bytes, present: body.len() });
    }
    let computed = crc32fast::hash(body);
    if body_checksum != computed && !SeededBug::TrustTornSnapshot.is_in() {
        return Err(SnapshotError::Checksum { what: "body", stored: body_checksum, computed });
    }
    Ok((version, body))
}

fn decode_body(input: &mut &[u8], version: u16, cluster: Cluster, applied: Offset) -> Result<Image, SnapshotError> {
    let mut image = Image::empty(cluster);
    let next_slot = Slot::new(input.try_get_u32()?);
    let next_producer_id = if version == 1 { ProducerId::ZERO } else { decode_producer_id(input)? };
    let mut partitions = 0_u64;
    let mut above: Option<TopicId> = None;
    for _ in 0..input.try_get_u32()? {
        let topic = decode_topic(input)?;
        if above.is_some_and(|above| topic.id <= above) {
            return Err(SnapshotError::Contradiction { id: topic.id, what: "is out of order" });
        }
        if image.topic(&topic.name).is_some() {
            return Err(SnapshotError::Contradiction { id: topic.id, what: "has the name of another one" });
        }
        partitions += u64::from(topic.partitions);
        if partitions > u64::from(PARTITIONS_TOTAL_MAX) {
            return Err(SnapshotError::TooManyPartitions { partitions });
        }
        above = Some(topic.id);
        image.insert(Arc::new(topic));
    }
    image.set_deleted(decode_deleted(input, &image)?);
    image.set_next_slot(next_slot);
    image.set_next_producer_id(next_producer_id);
    image.set_applied(applied);
    Ok(image)
}

fn decode_topic(input: &mut &[u8]) -> Result<Topic, SnapshotError> {
    let id = decode_topic_id(input)?;
    let name = decode_name(input)?;
    let partitions = decode_partitions(input)?;
    let replicas = decode_replicas(input)?;
    let mut slots = SlotRuns::new(Slot::new(input.try_get_u32()?));
    let settings = decode_settings(input)?;
    let mut above = 0;
    for _ in 0..input.try_get_u16()? {
        let (first, slot) = (input.try_get_u32()?, input.try_get_u32()?);
        if first <= above || first >= partitions {
            return Err(SnapshotError::Contradiction { id, what: "has partitions added out of order" });
        }
        above = first;
        slots.add(SlotRun { first_partition: PartitionIndex::new(first), first_slot: Slot::new(slot) });
    }
    Ok(Topic { id, name, partitions, replicas, slots, settings })
}

/// The deleted topics' ids, oldest deletion first.
fn decode_deleted(input: &mut &[u8], living: &Image) -> Result<Vec<TopicId>, SnapshotError> {
    const ID_BYTES: usize = 16;
    let count = input.try_get_u32()? as usize;
    if count > DELETED_TOPICS_MAX || count * ID_BYTES > input.len() {
        return Err(SnapshotError::CutShort);
    }
    let mut deleted = Vec::with_capacity(count);
    for _ in 0..count {
        let id = decode_topic_id(input)?;
        if living.topic_by_id(id).is_some() {
            return Err(SnapshotError::Contradiction { id, what: "lives and was deleted" });
        }
        deleted.push(id);
    }
    let mut sorted = deleted.clone();
    sorted.sort_unstable();
    match sorted.array_windows().find(|[a, b]| a == b) {
        Some([id, _]) => Err(SnapshotError::Contradiction { id: *id, what: "was deleted twice" }),
        None => Ok(deleted),
    }
}

/// Why bytes are not the snapshot that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes end in the middle of it.
    #[error("it ends before its last field")]
    CutShort,
    /// The bytes do not begin as a snapshot does.
    #[error("it does not begin as a snapshot does")]
    NotASnapshot,
    /// A newer release wrote it.
    #[error("its version {version} is unknown here: a newer release of RingMQ wrote it")]
    Unknown {
        /// Its version.
        version: u16,
    },
    /// A checksum does not fit.
    #[error("the checksum of its {what} is {stored:#010x}, but its bytes give {computed:#010x}")]
    Checksum {
        /// Of which part.
        what: &'static str,
        /// What is written.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// It is of another cluster.
    #[error("it is of cluster {cluster_id}")]
    OtherCluster {
        /// The cluster that it is of.
        cluster_id: Uuid,
    },
    /// It is of another offset than its name says.
    #[error("it covers the commands below offset {applied}, which is not what its name says")]
    OtherOffset {
        /// The offset in it.
        applied: i64,
    },
    /// The file is not as long as it says.
    #[error("its body is {present} bytes long, not {announced}")]
    Length {
        /// What it says.
        announced: u64,
        /// What is there.
        present: usize,
    },
    /// A part of it is not valid.
    #[error("a topic in it is not valid: {0}")]
    Topic(#[from] CommandError),
    /// Parts of it contradict each other.
    #[error("topic {id} {what}")]
    Contradiction {
        /// The topic.
        id: TopicId,
        /// What it does.
        what: &'static str,
    },
    /// The topics together have too many partitions.
    #[error("the topics have {partitions} partitions or more, above {PARTITIONS_TOTAL_MAX}")]
    TooManyPartitions {
        /// How many.
        partitions: u64,
    },
    /// Bytes follow its last field.
    #[error("{bytes} bytes follow its last field")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
}

impl From<bytes::TryGetError> for SnapshotError {
    fn from(_: bytes::TryGetError) -> Self {
        SnapshotError::CutShort
    }
}

#[cfg(test)]
mod tests;
