//! RingMQ's own protocol (docs/formats/native-protocol.md).

use std::io;

use bytes::{Bytes, BytesMut};
use ringmq_client::blocking::Client;
use ringmq_client::{BrokerAddress, ErrorCode, NewTopic, OffsetSpec, PartitionAddresses, PartitionIndex, TopicName};
use ringmq_wire::codec::{Codec, DecodeError, Reader};
use ringmq_wire::protocol::frame::{self, FrameError, REQUEST_HEAD_BYTES, RESPONSE_HEAD_BYTES, ResponseHead};
use ringmq_wire::protocol::preamble::{BrokerPreamble, ClientPreamble, PREAMBLE_BYTES};
use ringmq_wire::protocol::{
    FetchPartition, FetchRequest, FetchResponseHead, FetchTopic, Hello, InitProducerIdRequest, InitProducerIdResponse,
    ProduceHead, ProducePartition, ProduceResponse, ProduceTopic, RequestType, SectionHead,
};
use ringmq_wire::{CorrelationId, Detail, Offset, WireError};

use super::{Destination, Driver, Fetch, Fetched, Greeting, Topics};
use crate::client;
use crate::connection::{Connection, invalid};
use crate::error::WorkerError;
use crate::topic::{Place, Topic, TopicError};

/// How long the broker may take for what it does not do at once.
const TIMEOUT_MS: u32 = 30_000;

/// The protocol.
#[derive(Debug)]
pub(super) struct Native;

impl Driver for Native {
    fn greet(&self, connection: &mut Connection) -> io::Result<Greeting> {
        connection.write(&mut [io::IoSlice::new(&ClientPreamble::CURRENT.encode())])?;
        let mut preamble = [0; PREAMBLE_BYTES];
        preamble.copy_from_slice(connection.wait_for(PREAMBLE_BYTES)?);
        if BrokerPreamble::decode(preamble).map_err(invalid)?.version.is_none() {
            return Err(invalid("the broker speaks no version of the protocol that this program does"));
        }
        connection.consume(PREAMBLE_BYTES);
        loop {
            if let Some((hello, hello_bytes)) = Hello::decode_with_length(connection.available()).map_err(invalid)? {
                connection.consume(hello_bytes);
                let types = [RequestType::Subscribe, RequestType::GrantCredit, RequestType::Unsubscribe];
                let has_subscriptions = types.iter().all(|one| hello.versions(*one).is_some());
                return Ok(Greeting { request_bytes_max: hello.request_bytes_max, has_subscriptions });
            }
            connection.receive()?;
        }
    }

    fn correlation_id_at(&self) -> usize {
        REQUEST_HEAD_BYTES - 4
    }

    fn produce_head(&self, to: &Destination<'_>, batch_bytes: u32) -> io::Result<Bytes> {
        let partitions = vec![ProducePartition { partition: to.partition, records_bytes: batch_bytes }];
        let topics = vec![ProduceTopic { topic: to.topic.clone(), partitions }];
        let head = ProduceHead { acks: to.acks, timeout_ms: TIMEOUT_MS, topics };
        let mut out = BytesMut::new();
        frame::encode_request_head(CorrelationId::new(0), &head, &mut out).map_err(invalid)?;
        Ok(out.freeze())
    }

    fn encode_fetch(&self, id: CorrelationId, fetch: &Fetch<'_>, out: &mut BytesMut) -> io::Result<()> {
        let Fetch { topic, partition, offset, bytes, max_wait_ms } = *fetch;
        let wanted = FetchPartition { partition, fetch_offset: offset, partition_max_bytes: bytes };
        let topics = vec![FetchTopic { topic: topic.clone(), partitions: vec![wanted] }];
        let request = FetchRequest { max_wait_ms, min_bytes: 1, max_bytes: bytes, topics };
        frame::encode_request(id, &request, out).map_err(invalid)
    }

    fn encode_init_producer_id(&self, out: &mut BytesMut) -> io::Result<()> {
        let request = InitProducerIdRequest { timeout_ms: TIMEOUT_MS };
        frame::encode_request(CorrelationId::new(0), &request, out).map_err(invalid)
    }

    fn decode_response_head(&self, bytes: &[u8]) -> io::Result<Option<(ResponseHead, usize)>> {
        let head = frame::decode_response_head(bytes, u32::MAX).map_err(|error: FrameError| invalid(error))?;
        Ok(head.map(|head| (head, RESPONSE_HEAD_BYTES)))
    }

    fn acknowledged(&self, head: &ResponseHead, body: &[u8], _sent: u64) -> Result<u64, WorkerError> {
        if !head.error.is_none() {
            return Err(refused(head, body)?);
        }
        match acknowledged_records(body) {
            Ok(Some(records)) => Ok(records),
            // Decoded again, with all of its words.
            Ok(None) => Err(refusal(body)),
            Err(error) => Err(invalid(error).into()),
        }
    }

    fn fetched(&self, head: &ResponseHead, arrived: &[u8]) -> Result<Option<(Fetched, usize)>, WorkerError> {
        if !head.error.is_none() {
            let whole = arrived.len() >= head.body_bytes as usize;
            return if whole { Err(refused(head, arrived)?) } else { Ok(None) };
        }
        let Some((decoded, head_bytes)) = FetchResponseHead::decode_head(arrived, head.body_bytes).map_err(invalid)?
        else {
            return Ok(None);
        };
        let mut partitions = decoded.topics.into_iter().flat_map(|topic| topic.partitions);
        let (Some(only), None) = (partitions.next(), partitions.next()) else {
            return Err(invalid("a fetch of one partition was answered with none or several").into());
        };
        let error = (!only.error.is_none()).then_some(WireError { code: only.error, detail: only.detail });
        let fetched = Fetched { partition: only.partition, error, records_bytes: only.records_bytes as usize };
        Ok(Some((fetched, head_bytes)))
    }

    fn may_cut_batches(&self) -> bool {
        false
    }

    fn decode_init_producer_id(&self, head: &ResponseHead, body: &[u8]) -> io::Result<InitProducerIdResponse> {
        if !head.error.is_none() {
            let error = frame::decode_error_body(head.error, body).map_err(invalid)?;
            return Err(io::Error::other(format!("the broker gives no producer id: {error}")));
        }
        InitProducerIdResponse::decode_whole(body).map_err(invalid)
    }

    fn client(&self) -> Option<&'static dyn client::Client> {
        Some(&client::Native)
    }

    fn connect(&self, brokers: &[BrokerAddress]) -> Result<Box<dyn Topics>, TopicError> {
        Ok(Box::new(NativeTopics(Client::connect(brokers.to_vec())?)))
    }
}

/// Topics by way of the client crate.
struct NativeTopics(Client);

impl Topics for NativeTopics {
    fn create(&mut self, topic: &str, partitions: u32, settings: &[(String, String)]) -> Result<(), TopicError> {
        let new = NewTopic::new(topic).partitions(partitions);
        let new = settings.iter().fold(new, |new, (key, value)| new.setting(key, value));
        match self.0.admin().create_topic(new) {
            Err(error) if error.code() != Some(ErrorCode::TopicAlreadyExists) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn find(&mut self, topic: &str) -> Result<Topic, TopicError> {
        let contradiction = |reason: String| TopicError::Contradiction { topic: topic.to_owned(), reason };
        let admin = self.0.admin();
        let described = admin.describe_topic(topic)?;
        let found = described.partitions.len();
        let reached = admin.partition_addresses(topic)?;
        if found == 0 || reached.len() != found {
            return Err(contradiction(format!(
                "{found} partitions are described and {} can be reached",
                reached.len()
            )));
        }
        let place = |PartitionAddresses { partition, direct, public }| Place {
            partition,
            addresses: direct.into_iter().chain([public]).collect(),
        };
        // A broker without such a setting flushes before it acknowledges, always.
        let relaxed = described.settings.into_iter().find(|setting| setting.key == "flush_interval_ms");
        let relaxed = relaxed.filter(|interval| interval.value != "0");
        Ok(Topic {
            name: TopicName::parse(topic).map_err(|error| contradiction(error.to_string()))?,
            partitions: reached.into_iter().map(place).collect(),
            flush: relaxed.map_or_else(|| "durable".to_owned(), |interval| format!("within {} ms", interval.value)),
            driver: &Native,
        })
    }

    fn offsets(&mut self, topic: &Topic, at: OffsetSpec) -> Result<Vec<i64>, TopicError> {
        let listed = self.0.consumer().list_offsets(&topic.name, at)?;
        Ok(listed.iter().map(|found| found.offset.map_or(0, Offset::get)).collect())
    }

    fn delete(&mut self, topic: &str) -> Result<(), TopicError> {
        match self.0.admin().delete_topic(topic) {
            Err(error) if error.code() != Some(ErrorCode::UnknownTopic) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// The refusal of a whole request.
fn refused(head: &ResponseHead, body: &[u8]) -> io::Result<WorkerError> {
    let body = &body[..body.len().min(head.body_bytes as usize)];
    Ok(WorkerError::Request(frame::decode_error_body(head.error, body).map_err(invalid)?))
}

/// How many offsets a [`ProduceResponse`] of one partition gives, read in place: `None` when it is an error.
fn acknowledged_records(body: &[u8]) -> Result<Option<u64>, DecodeError> {
    let mut reader = Reader::new(body);
    let _topics = u32::decode(&mut reader)?;
    let name_bytes = u16::decode(&mut reader)?;
    reader.take(name_bytes.into(), "ProducedTopic.topic")?;
    let _partitions = u32::decode(&mut reader)?;
    let _partition = PartitionIndex::decode(&mut reader)?;
    if !ringmq_wire::ErrorCode::decode(&mut reader)?.is_none() {
        return Ok(None);
    }
    Detail::decode(&mut reader)?;
    let base = Offset::decode(&mut reader)?;
    Ok(Some(Offset::decode(&mut reader)?.checked_sub(base).unwrap_or(0)))
}

fn refusal(body: &[u8]) -> WorkerError {
    let response = match ProduceResponse::decode_whole(body) {
        Ok(response) => response,
        Err(error) => return invalid(error).into(),
    };
    let mut produced = response.topics.into_iter().flat_map(|topic| topic.partitions);
    match produced.find(|produced| !produced.error.is_none()) {
        Some(refused) => WorkerError::Partition {
            partition: refused.partition,
            source: WireError { code: refused.error, detail: refused.detail },
        },
        None => invalid("an answer is an error and none").into(),
    }
}

#[cfg(test)]
mod tests {
    use ringmq_wire::ErrorCode;
    use ringmq_wire::protocol::{ProducedPartition, ProducedTopic};

    use super::*;

    fn response(error: ErrorCode, detail: &str) -> BytesMut {
        let produced = ProducedPartition {
            partition: PartitionIndex::new(3),
            error,
            detail: detail.into(),
            base_offset: Offset::new(70),
            next_offset: Offset::new(75),
            log_start_offset: Offset::ZERO,
            append_time: None,
        };
        let topic = TopicName::parse("a-topic").unwrap();
        let topics = vec![ProducedTopic { topic, partitions: vec![produced] }];
        let mut out = BytesMut::new();
        ProduceResponse { topics }.encode(&mut out);
        out
    }

    #[test]
    fn answers_read_in_place_say_the_same_as_decoded_ones() {
        let head = ResponseHead { body_bytes: 0, correlation_id: CorrelationId::new(0), error: ErrorCode::None };
        let good = response(ErrorCode::None, "");
        assert_eq!(Native.acknowledged(&head, &good, 9).unwrap(), 5);
        let bad = Native.acknowledged(&head, &response(ErrorCode::StorageFull, "no room"), 9).unwrap_err();
        assert_eq!(bad.to_string(), "partition 3: STORAGE_FULL: no room");
        for length in 0..good.len() - 16 {
            assert!(Native.acknowledged(&head, &good[..length], 9).is_err(), "{length}");
        }
    }

    #[test]
    fn a_prepared_head_is_a_request_with_its_own_correlation_id() {
        let (topic, partition) = (TopicName::parse("t").unwrap(), PartitionIndex::new(5));
        let to = Destination { topic: &topic, partition, acks: ringmq_client::Acks::All };
        let mut head = Native.produce_head(&to, 100).unwrap().to_vec();
        let at = Native.correlation_id_at();
        head[at..at + 4].copy_from_slice(&9_u32.to_be_bytes());
        let decoded = frame::decode_request_head(&head, u32::MAX).unwrap().unwrap();
        assert_eq!(decoded.correlation_id, CorrelationId::new(9));
        assert_eq!(decoded.body_bytes as usize, head.len() - REQUEST_HEAD_BYTES + 100);
    }
}
