//! The codec of the producer snapshot. Layout and rules: `docs/formats/producer-snapshot.md`.

use bytes::{Buf, BufMut};
use ringmq_wire::{Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId};
use uuid::Uuid;

use super::{PRODUCERS_MAX, Producer, Producers, RUN_RECORDS_MAX, RUNS_MAX, Run};
use crate::frame::{Generation, LogNumber};
use crate::layout::LogId;

const MAGIC: u32 = u32::from_be_bytes(*b"RQPS");
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 64;
const HEADER_CHECKSUM_AT: usize = 60;
const PRODUCER_BYTES: usize = 8 + 2 + 2 + 8;
const RUN_BYTES: usize = 4 + 4 + 8;

/// What a log knew of idempotent producers at one offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSnapshot {
    pub(crate) id: LogId,
    pub(crate) log_number: LogNumber,
    /// The log's when it was taken.
    pub(crate) generation: Generation,
    /// What lies below is in it.
    pub(crate) offset: Offset,
    pub(crate) producers: Producers,
}

/// Why bytes are not a producer snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerSnapshotError {
    /// They end before the last field.
    #[error("it ends before its last field")]
    CutShort,
    /// Bytes follow the last field.
    #[error("{bytes} bytes follow its last field")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
    /// They begin otherwise.
    #[error("it is not a producer snapshot")]
    Magic,
    /// A newer release wrote them.
    #[error("it is of version {version}, which is unknown here: a newer release of RingMQ wrote it")]
    Version {
        /// Their version.
        version: u16,
    },
    /// They are damaged.
    #[error("the checksum of its {part} is wrong")]
    Checksum {
        /// Which part.
        part: &'static str,
    },
    /// A field holds what no snapshot has.
    #[error("its {field} breaks a rule of the format")]
    Field {
        /// Which one.
        field: &'static str,
    },
}

use ProducerSnapshotError as Error;

impl From<bytes::TryGetError> for ProducerSnapshotError {
    fn from(_: bytes::TryGetError) -> Self {
        Error::CutShort
    }
}

impl ProducerSnapshot {
    /// The longest one, in bytes.
    pub const BYTES_MAX: usize = HEADER_BYTES + PRODUCERS_MAX * (PRODUCER_BYTES + RUNS_MAX * RUN_BYTES);

    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let producers = &self.producers.0;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + producers.len() * (PRODUCER_BYTES + RUN_BYTES));
        bytes.put_bytes(0, HEADER_BYTES);
        for (id, producer) in producers {
            encode_producer(*id, producer, &mut bytes);
        }
        let body_checksum = crc32fast::hash(&bytes[HEADER_BYTES..]);
        let mut header = &mut bytes[..HEADER_BYTES];
        header.put_u32(MAGIC);
        header.put_u16(VERSION);
        header.put_u16(0);
        header.put_slice(self.id.topic_id.as_bytes());
        header.put_u32(self.id.partition.get());
        header.put_u32(u32::try_from(producers.len()).unwrap_or(u32::MAX));
        header.put_u64(self.log_number.0);
        header.put_u64(self.generation.0);
        header.put_i64(self.offset.get());
        header.put_u32(body_checksum);
        let header_checksum = crc32fast::hash(&bytes[..HEADER_CHECKSUM_AT]);
        bytes[HEADER_CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&header_checksum.to_be_bytes());
        bytes
    }

    /// Reads the snapshot that `bytes` are.
    ///
    /// # Errors
    /// When they are not one, or break a rule. What is allocated is a small multiple of their length.
    pub fn decode(bytes: &[u8]) -> Result<ProducerSnapshot, ProducerSnapshotError> {
        let (mut header, mut body) = bytes.split_at_checked(HEADER_BYTES).ok_or(Error::CutShort)?;
        let computed = (crc32fast::hash(&header[..HEADER_CHECKSUM_AT]), crc32fast::hash(body));
        if header.get_u32() != MAGIC {
            return Err(Error::Magic);
        }
        let (version, _reserved) = (header.get_u16(), header.get_u16());
        let topic_id = TopicId::new(Uuid::from_u128(header.get_u128()));
        let partition = PartitionIndex::new(header.get_u32());
        let count = header.get_u32() as usize;
        let (log_number, generation) = (LogNumber(header.get_u64()), Generation(header.get_u64()));
        let offset = header.get_i64();
        let (body_checksum, header_checksum) = (header.get_u32(), header.get_u32());
        if header_checksum != computed.0 {
            return Err(Error::Checksum { part: "header" });
        }
        if version != VERSION {
            return Err(Error::Version { version });
        }
        if body_checksum != computed.1 {
            return Err(Error::Checksum { part: "body" });
        }
        let offset = Offset::checked(offset).ok_or(Error::Field { field: "offset" })?;
        if count > PRODUCERS_MAX {
            return Err(Error::Field { field: "producer count" });
        }
        let mut producers = Producers::default();
        for _ in 0..count {
            let (id, producer) = decode_producer(&mut body, offset)?;
            if producers.0.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err(Error::Field { field: "order of producers" });
            }
            producers.0.insert(id, producer);
        }
        let id = LogId { topic_id, partition };
        match body.len() {
            0 => Ok(ProducerSnapshot { id, log_number, generation, offset, producers }),
            bytes => Err(Error::LeftOver { bytes }),
        }
    }
}

fn encode_producer(id: ProducerId, producer: &Producer, out: &mut Vec<u8>) {
    out.put_i64(id.get());
    out.put_i16(producer.epoch.get());
    out.put_u16(u16::try_from(producer.runs.len()).unwrap_or(u16::MAX));
    out.put_i64(producer.last_used.get());
    for run in &producer.runs {
        out.put_i32(run.first_sequence.get());
        out.put_u32(run.record_count);
        out.put_i64(run.base_offset.get());
    }
}

/// The next producer of a snapshot for the offset `end`.
fn decode_producer(input: &mut &[u8], end: Offset) -> Result<(ProducerId, Producer), Error> {
    let field = |field| Error::Field { field };
    let id = ProducerId::checked(input.try_get_i64()?).ok_or(field("producer id"))?;
    let epoch = ProducerEpoch::checked(input.try_get_i16()?).ok_or(field("epoch"))?;
    let run_count = usize::from(input.try_get_u16()?);
    let last_used = Timestamp::new(input.try_get_i64()?);
    if !(1..=RUNS_MAX).contains(&run_count) {
        return Err(field("run count"));
    }
    let mut runs: Vec<Run> = Vec::with_capacity(run_count);
    for _ in 0..run_count {
        let run = decode_run(input)?;
        let in_order = runs.last().is_none_or(|last| last.next_offset() <= run.base_offset);
        if !in_order || run.next_offset() > end {
            return Err(field("base offset"));
        }
        runs.push(run);
    }
    Ok((id, Producer { epoch, last_used, runs }))
}

fn decode_run(input: &mut &[u8]) -> Result<Run, Error> {
    let field = |field| Error::Field { field };
    let first_sequence = Sequence::checked(input.try_get_i32()?).ok_or(field("first sequence"))?;
    let record_count = input.try_get_u32()?;
    let base_offset = Offset::checked(input.try_get_i64()?).ok_or(field("base offset"))?;
    if !(1..=RUN_RECORDS_MAX).contains(&record_count) || base_offset.checked_add(record_count.into()).is_none() {
        return Err(field("record count"));
    }
    Ok(Run { first_sequence, record_count, base_offset })
}
