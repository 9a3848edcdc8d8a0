//! Kafka's protocol (<https://kafka.apache.org/protocol>), as far as a load takes it: for Kafka itself, and for whatever speaks
//! it.
//!
//! An old version of each request that Kafka 4 still takes is used: without tagged fields, and with lengths of fixed size,
//! so that a prepared batch goes behind a prepared head. Responses are decoded within bounds, like everything from outside.

mod fields;
mod topics;

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use ringmq_client::{Acks, BrokerAddress, PartitionIndex};
use ringmq_wire::protocol::InitProducerIdResponse;
use ringmq_wire::protocol::frame::ResponseHead;
use ringmq_wire::{CorrelationId, ErrorCode, ProducerEpoch, ProducerId, WireError};

use self::fields::{Fields, put_string};
use super::{Destination, Driver, Fetch, Fetched, Greeting, Topics};
use crate::client::Client;
use crate::connection::{Connection, invalid};
use crate::error::WorkerError;
use crate::topic::TopicError;

/// How long the broker may take for what it does not do at once.
const TIMEOUT_MS: i32 = 30_000;
/// What a broker takes by default (`socket.request.max.bytes`); it does not say.
const REQUEST_BYTES_MAX: u32 = 104_857_600;
/// Length and correlation id.
const RESPONSE_HEAD_BYTES: usize = 8;
/// As it stands in every request, with its length in front.
const CLIENT_ID: [u8; 14] = *b"\x00\x0cringmq-bench";

/// The protocol.
#[derive(Debug)]
pub(super) struct Kafka;

/// A type of request, and the version of it that is used.
#[derive(Debug, Clone, Copy)]
struct Api {
    key: i16,
    version: i16,
}

const PRODUCE: Api = Api { key: 0, version: 3 };
const FETCH: Api = Api { key: 1, version: 4 };
const LIST_OFFSETS: Api = Api { key: 2, version: 1 };
const METADATA: Api = Api { key: 3, version: 1 };
const CREATE_TOPICS: Api = Api { key: 19, version: 2 };
const DELETE_TOPICS: Api = Api { key: 20, version: 1 };
const INIT_PRODUCER_ID: Api = Api { key: 22, version: 0 };
const DESCRIBE_CONFIGS: Api = Api { key: 32, version: 1 };

impl Driver for Kafka {
    fn greet(&self, _connection: &mut Connection) -> io::Result<Greeting> {
        Ok(Greeting { request_bytes_max: REQUEST_BYTES_MAX, has_subscriptions: false })
    }

    fn correlation_id_at(&self) -> usize {
        8
    }

    fn produce_head(&self, to: &Destination<'_>, batch_bytes: u32) -> io::Result<Bytes> {
        let mut out = BytesMut::new();
        let start = begin(PRODUCE, CorrelationId::new(0), &mut out);
        // Not part of a transaction.
        out.put_i16(-1);
        out.put_i16(match to.acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        });
        out.put_i32(TIMEOUT_MS);
        out.put_i32(1);
        put_string(to.topic.as_str(), &mut out)?;
        out.put_i32(1);
        out.put_u32(to.partition.get());
        out.put_u32(batch_bytes);
        end(start, batch_bytes as usize, &mut out)?;
        Ok(out.freeze())
    }

    fn encode_fetch(&self, id: CorrelationId, fetch: &Fetch<'_>, out: &mut BytesMut) -> io::Result<()> {
        let start = begin(FETCH, id, out);
        // Not a replica.
        out.put_i32(-1);
        out.put_u32(fetch.max_wait_ms);
        out.put_i32(1);
        out.put_u32(fetch.bytes);
        // Whatever is written, without regard to transactions.
        out.put_i8(0);
        out.put_i32(1);
        put_string(fetch.topic.as_str(), out)?;
        out.put_i32(1);
        out.put_u32(fetch.partition.get());
        out.put_i64(fetch.offset.get());
        out.put_u32(fetch.bytes);
        end(start, 0, out)
    }

    fn encode_init_producer_id(&self, out: &mut BytesMut) -> io::Result<()> {
        let start = begin(INIT_PRODUCER_ID, CorrelationId::new(0), out);
        out.put_i16(-1);
        out.put_i32(TIMEOUT_MS);
        end(start, 0, out)
    }

    fn decode_response_head(&self, bytes: &[u8]) -> io::Result<Option<(ResponseHead, usize)>> {
        let Some(&[l3, l2, l1, l0, c3, c2, c1, c0]) = bytes.first_chunk::<RESPONSE_HEAD_BYTES>() else {
            return Ok(None);
        };
        let Some(body_bytes) = u32::from_be_bytes([l3, l2, l1, l0]).checked_sub(4) else {
            return Err(invalid("a response is shorter than its correlation id"));
        };
        let correlation_id = CorrelationId::new(u32::from_be_bytes([c3, c2, c1, c0]));
        Ok(Some((ResponseHead { body_bytes, correlation_id, error: ErrorCode::None }, RESPONSE_HEAD_BYTES)))
    }

    fn acknowledged(&self, _head: &ResponseHead, body: &[u8], sent: u64) -> Result<u64, WorkerError> {
        let mut fields = Fields::of(body);
        let (partition, error) = produced(&mut fields).ok_or_else(cut)?;
        match error {
            // It says where the records are, and that stands for all of them.
            0 => Ok(sent),
            error => Err(WorkerError::Partition { partition, source: refusal(error) }),
        }
    }

    fn fetched(&self, head: &ResponseHead, arrived: &[u8]) -> Result<Option<(Fetched, usize)>, WorkerError> {
        let mut fields = Fields::of(arrived);
        let Some((partition, error, records_bytes)) = fetched(&mut fields) else {
            let whole = arrived.len() >= head.body_bytes as usize;
            return if whole { Err(cut().into()) } else { Ok(None) };
        };
        let taken = fields.taken();
        // What would be left over would be read as the next response.
        if taken + records_bytes != head.body_bytes as usize {
            return Err(cut().into());
        }
        let error = (error != 0).then(|| refusal(error));
        Ok(Some((Fetched { partition, error, records_bytes }, taken)))
    }

    fn may_cut_batches(&self) -> bool {
        true
    }

    fn decode_init_producer_id(&self, _head: &ResponseHead, body: &[u8]) -> io::Result<InitProducerIdResponse> {
        let mut fields = Fields::of(body);
        let mut read = || Some((fields.i32()?, fields.i16()?, fields.i64()?, fields.i16()?));
        let (_throttled, error, id, epoch) = read().ok_or_else(cut)?;
        if error != 0 {
            return Err(io::Error::other(format!("the broker gives no producer id: {}", refusal(error))));
        }
        let negative = || invalid("the broker gave a negative producer id or epoch");
        Ok(InitProducerIdResponse {
            producer_id: ProducerId::checked(id).ok_or_else(negative)?,
            producer_epoch: ProducerEpoch::checked(epoch).ok_or_else(negative)?,
        })
    }

    fn client(&self) -> Option<&'static dyn Client> {
        #[cfg(feature = "rdkafka")]
        return Some(&crate::client::Librdkafka);
        #[cfg(not(feature = "rdkafka"))]
        None
    }

    fn connect(&self, brokers: &[BrokerAddress]) -> Result<Box<dyn Topics>, TopicError> {
        Ok(Box::new(topics::KafkaTopics::connect(brokers)?))
    }
}

/// Appends the head of a request, with room for its length. Gives where that stands.
fn begin(api: Api, id: CorrelationId, out: &mut BytesMut) -> usize {
    let start = out.len();
    out.put_i32(0);
    out.put_i16(api.key);
    out.put_i16(api.version);
    out.put_u32(id.get());
    out.put_slice(&CLIENT_ID);
    start
}

/// Writes the length of the request that was begun there and goes on for so many bytes that are sent behind it.
fn end(start: usize, behind_bytes: usize, out: &mut BytesMut) -> io::Result<()> {
    let length = i32::try_from(out.len() - start - 4 + behind_bytes).map_err(invalid)?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// The one partition of a produce response, and its error.
fn produced(fields: &mut Fields<'_>) -> Option<(PartitionIndex, i16)> {
    let (_topics, _name, _partitions) = (fields.i32()?, fields.string()?, fields.i32()?);
    Some((PartitionIndex::new(fields.i32()?.cast_unsigned()), fields.i16()?))
}

/// The one partition of a fetch response, its error, and how many bytes of batches follow.
fn fetched(fields: &mut Fields<'_>) -> Option<(PartitionIndex, i16, usize)> {
    let (_throttled, _topics, _name, _partitions) = (fields.i32()?, fields.i32()?, fields.string()?, fields.i32()?);
    let (partition, error) = (PartitionIndex::new(fields.i32()?.cast_unsigned()), fields.i16()?);
    let (_high_watermark, _last_stable_offset) = (fields.i64()?, fields.i64()?);
    // Aborted transactions: a producer and an offset each.
    for _ in 0..fields.i32()?.max(0) {
        let (_producer, _first_offset) = (fields.i64()?, fields.i64()?);
    }
    // -1 for none.
    let records_bytes = usize::try_from(fields.i32()?.max(0)).ok()?;
    Some((partition, error, records_bytes))
}

/// What a broker says in a number.
fn refusal(error: i16) -> WireError {
    let name = match error {
        -1 => "UNKNOWN_SERVER_ERROR",
        1 => "OFFSET_OUT_OF_RANGE",
        2 => "CORRUPT_MESSAGE",
        3 => "UNKNOWN_TOPIC_OR_PARTITION",
        5 => "LEADER_NOT_AVAILABLE",
        6 => "NOT_LEADER_OR_FOLLOWER",
        7 => "REQUEST_TIMED_OUT",
        10 => "MESSAGE_TOO_LARGE",
        19 => "NOT_ENOUGH_REPLICAS",
        35 => "UNSUPPORTED_VERSION",
        36 => "TOPIC_ALREADY_EXISTS",
        40 => "INVALID_CONFIG",
        45 => "OUT_OF_ORDER_SEQUENCE_NUMBER",
        56 => "KAFKA_STORAGE_ERROR",
        _ => "see Kafka's list of error codes",
    };
    WireError::new(ErrorCode::Unknown, format!("Kafka error {error}, {name}").as_str())
}

fn cut() -> io::Error {
    invalid("a response of Kafka's protocol ends before its fields do")
}

#[cfg(test)]
mod tests;
