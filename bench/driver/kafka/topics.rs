//! Topics of a Kafka cluster: made, found, asked for offsets, deleted.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use ringmq_client::{BrokerAddress, OffsetSpec, PartitionIndex, TopicName};
use ringmq_wire::CorrelationId;

use super::fields::{Fields, put_length, put_string};
use super::{
    Api, CREATE_TOPICS, DELETE_TOPICS, DESCRIBE_CONFIGS, Kafka, LIST_OFFSETS, METADATA, TIMEOUT_MS, begin, cut, end,
    refusal,
};
use crate::connection::{Connection, invalid};
use crate::driver::Topics;
use crate::topic::{Place, Topic, TopicError};

/// How long a new topic may take until it has leaders.
const LEADERS_MAX: Duration = Duration::from_secs(20);
/// How long it is until that is looked for again.
const LEADERS_RETRY: Duration = Duration::from_millis(50);

/// What stands for a time.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

const LEADER_NOT_AVAILABLE: i16 = 5;
const UNKNOWN_TOPIC: i16 = 3;
const TOPIC_ALREADY_EXISTS: i16 = 36;

/// Connections to the cluster.
pub(super) struct KafkaTopics {
    first: Connection,
    /// To the leaders, as they are needed.
    leaders: Vec<(BrokerAddress, Connection)>,
}

impl KafkaTopics {
    pub(super) fn connect(brokers: &[BrokerAddress]) -> Result<Self, TopicError> {
        Ok(Self { first: Connection::open(&Kafka, brokers)?, leaders: Vec::new() })
    }

    fn leader(&mut self, address: &BrokerAddress) -> io::Result<&mut Connection> {
        let known = self.leaders.iter().position(|(known, _)| known == address);
        let index = match known {
            Some(index) => index,
            None => {
                let connection = Connection::open(&Kafka, std::slice::from_ref(address))?;
                self.leaders.push((address.clone(), connection));
                self.leaders.len() - 1
            }
        };
        Ok(&mut self.leaders[index].1)
    }

    /// Where each partition is; `None` while the topic, or some leader, is not there yet.
    fn places(&mut self, topic: &str) -> Result<Option<Vec<Place>>, TopicError> {
        let body = call(&mut self.first, METADATA, |out| {
            put_length(1, out)?;
            put_string(topic, out)
        })?;
        let metadata = Metadata::read(&mut Fields::of(&body)).ok_or_else(cut)?;
        match metadata.error {
            0 => metadata.places(topic),
            UNKNOWN_TOPIC | LEADER_NOT_AVAILABLE => Ok(None),
            error => Err(refused(topic, error)),
        }
    }

    /// When records are on the disk, as the topic's settings say.
    fn flush(&mut self, topic: &str) -> Result<String, TopicError> {
        let body = call(&mut self.first, DESCRIBE_CONFIGS, |out| {
            /// Of the kinds of resources.
            const TOPIC: i8 = 2;
            put_length(1, out)?;
            out.put_i8(TOPIC);
            put_string(topic, out)?;
            put_length(2, out)?;
            put_string("flush.messages", out)?;
            put_string("flush.ms", out)?;
            // Without synonyms.
            out.put_i8(0);
            Ok(())
        })?;
        let configs = configs(&mut Fields::of(&body)).ok_or_else(cut)?;
        let value = |name: &str| configs.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value);
        // The highest number stands for never.
        let never = i64::MAX.to_string();
        Ok(match (value("flush.messages"), value("flush.ms")) {
            ("1", _) => "durable".to_owned(),
            (_, ms) if !ms.is_empty() && ms != never => format!("within {ms} ms"),
            _ => "when the kernel does it".to_owned(),
        })
    }

    /// The offsets at this time, or the error of the first partition that has one.
    fn try_offsets(&mut self, topic: &Topic, time: i64) -> Result<Result<Vec<i64>, i16>, TopicError> {
        let mut offsets = vec![0; topic.partitions.len()];
        for place in &topic.partitions {
            let leader = self.leader(&place.addresses[0])?;
            let body = call(leader, LIST_OFFSETS, |out| {
                // Not a replica.
                out.put_i32(-1);
                put_length(1, out)?;
                put_string(topic.name.as_str(), out)?;
                put_length(1, out)?;
                out.put_u32(place.partition.get());
                out.put_i64(time);
                Ok(())
            })?;
            match listed_offset(&mut Fields::of(&body)).ok_or_else(cut)? {
                (0, offset) if offset < 0 => return Err(invalid("a listed offset is negative").into()),
                (0, offset) => offsets[place.partition.as_usize()] = offset,
                (error, _) => return Ok(Err(error)),
            }
        }
        Ok(Ok(offsets))
    }
}

impl Topics for KafkaTopics {
    fn create(&mut self, topic: &str, partitions: u32, settings: &[(String, String)]) -> Result<(), TopicError> {
        let configs = kafka_settings(settings);
        let body = call(&mut self.first, CREATE_TOPICS, |out| {
            put_length(1, out)?;
            put_string(topic, out)?;
            out.put_u32(partitions);
            // One replica, wherever the cluster puts it.
            out.put_i16(1);
            put_length(0, out)?;
            put_length(configs.len(), out)?;
            for (name, value) in &configs {
                put_string(name, out)?;
                put_string(value, out)?;
            }
            out.put_i32(TIMEOUT_MS);
            // Not only to try it.
            out.put_i8(0);
            Ok(())
        })?;
        let mut fields = Fields::of(&body);
        let created = |fields: &mut Fields<'_>| Some((fields.string()?, fields.i16()?, fields.string()?));
        let mut read = || Some((fields.i32()?, fields.array(created)?));
        let (_throttled, created) = read().ok_or_else(cut)?;
        match created.first() {
            Some((_, 0 | TOPIC_ALREADY_EXISTS, _)) => Ok(()),
            Some((_, error, message)) => {
                let message = message.as_deref().unwrap_or_default();
                Err(TopicError::Refused { topic: topic.to_owned(), reason: format!("{}: {message}", refusal(*error)) })
            }
            None => Err(cut().into()),
        }
    }

    fn find(&mut self, topic: &str) -> Result<Topic, TopicError> {
        let name = TopicName::parse(topic).map_err(|error| invalid(error.to_string()))?;
        let started = Instant::now();
        loop {
            if let Some(partitions) = self.places(topic)? {
                let found = Topic { name: name.clone(), partitions, flush: self.flush(topic)?, driver: &Kafka };
                // The controller tells of leaders before they know themselves.
                if self.try_offsets(&found, LATEST)?.is_ok() {
                    return Ok(found);
                }
            }
            if started.elapsed() > LEADERS_MAX {
                return Err(refused(topic, LEADER_NOT_AVAILABLE));
            }
            std::thread::sleep(LEADERS_RETRY);
        }
    }

    fn offsets(&mut self, topic: &Topic, at: OffsetSpec) -> Result<Vec<i64>, TopicError> {
        let time = if at == OffsetSpec::Earliest { EARLIEST } else { LATEST };
        self.try_offsets(topic, time)?.map_err(|error| refused(topic.name.as_str(), error))
    }

    fn delete(&mut self, topic: &str) -> Result<(), TopicError> {
        let body = call(&mut self.first, DELETE_TOPICS, |out| {
            put_length(1, out)?;
            put_string(topic, out)?;
            out.put_i32(TIMEOUT_MS);
            Ok(())
        })?;
        let mut fields = Fields::of(&body);
        let mut read = || Some((fields.i32()?, fields.array(|fields| Some((fields.string()?, fields.i16()?)))?));
        let (_throttled, deleted) = read().ok_or_else(cut)?;
        match deleted.first() {
            Some((_, 0 | UNKNOWN_TOPIC)) => Ok(()),
            Some((_, error)) => Err(refused(topic, *error)),
            None => Err(cut().into()),
        }
    }
}

/// Sends a request, and waits for the body of its answer.
fn call(
    connection: &mut Connection,
    api: Api,
    body: impl FnOnce(&mut BytesMut) -> io::Result<()>,
) -> io::Result<Bytes> {
    let mut request = BytesMut::new();
    let start = begin(api, CorrelationId::new(0), &mut request);
    body(&mut request)?;
    end(start, 0, &mut request)?;
    connection.write(&mut [IoSlice::new(&request)])?;
    let head = connection.wait_for_response_head()?;
    let body = Bytes::copy_from_slice(connection.wait_for(head.body_bytes as usize)?);
    connection.consume(body.len());
    Ok(body)
}

/// A topic's settings under Kafka's names. What ours does without being told, Kafka is told: flush before acknowledging.
fn kafka_settings(settings: &[(String, String)]) -> Vec<(String, String)> {
    let name = |key: &str| match key {
        "cleanup" => "cleanup.policy".to_owned(),
        "flush_interval_ms" => "flush.ms".to_owned(),
        key => key.replace('_', "."),
    };
    let mut renamed: Vec<_> = settings.iter().map(|(key, value)| (name(key), value.clone())).collect();
    if !renamed.iter().any(|(name, _)| name.starts_with("flush.")) {
        renamed.push(("flush.messages".to_owned(), "1".to_owned()));
    }
    renamed
}

fn refused(topic: &str, error: i16) -> TopicError {
    TopicError::Refused { topic: topic.to_owned(), reason: refusal(error).to_string() }
}

/// What a metadata response says of its one topic.
struct Metadata {
    /// Brokers by number.
    brokers: Vec<(i32, BrokerAddress)>,
    error: i16,
    /// Partitions with their leaders.
    partitions: Vec<(PartitionIndex, i32)>,
}

impl Metadata {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let brokers = fields.array(|fields| {
            let (number, host, port, _rack) = (fields.i32()?, fields.string()??, fields.i32()?, fields.string()?);
            Some((number, BrokerAddress::new(&host, u16::try_from(port).ok()?)))
        })?;
        let _controller = fields.i32()?;
        let mut topics = fields.array(|fields| {
            let (error, _name, _is_internal) = (fields.i16()?, fields.string()?, fields.i8()?);
            let partitions = fields.array(|fields| {
                let (_error, index, leader) = (fields.i16()?, fields.i32()?, fields.i32()?);
                let (_replicas, _in_sync) = (fields.array(Fields::i32)?, fields.array(Fields::i32)?);
                Some((PartitionIndex::new(index.cast_unsigned()), leader))
            })?;
            Some((error, partitions))
        })?;
        let (error, mut partitions) = topics.pop()?;
        partitions.sort_unstable();
        Some(Self { brokers, error, partitions })
    }

    /// Where the leaders are; `None` while there is one missing.
    fn places(self, topic: &str) -> Result<Option<Vec<Place>>, TopicError> {
        let complete = self.partitions.iter().enumerate().all(|(number, (index, _))| index.as_usize() == number);
        if !complete || self.partitions.is_empty() {
            let reason = "its partitions are not numbered from 0 on".to_owned();
            return Err(TopicError::Contradiction { topic: topic.to_owned(), reason });
        }
        let place = |(partition, leader): (PartitionIndex, i32)| {
            let (_, address) = self.brokers.iter().find(|(number, _)| *number == leader)?;
            Some(Place { partition, addresses: vec![address.clone()] })
        };
        Ok(self.partitions.iter().copied().map(place).collect())
    }
}

/// The error and the offset of the one partition that was asked for.
fn listed_offset(fields: &mut Fields<'_>) -> Option<(i16, i64)> {
    let (_topics, _name, _partitions, _partition) = (fields.i32()?, fields.string()?, fields.i32()?, fields.i32()?);
    let (error, _timestamp) = (fields.i16()?, fields.i64()?);
    Some((error, fields.i64()?))
}

/// The settings in the description of one topic.
fn configs(fields: &mut Fields<'_>) -> Option<Vec<(String, String)>> {
    let _throttled = fields.i32()?;
    let mut resources = fields.array(|fields| {
        let (_error, _message, _kind, _name) = (fields.i16()?, fields.string()?, fields.i8()?, fields.string()?);
        fields.array(|fields| {
            let (name, value) = (fields.string()??, fields.string()?.unwrap_or_default());
            let (_read_only, _source, _sensitive) = (fields.i8()?, fields.i8()?, fields.i8()?);
            fields.array(|fields| Some((fields.string()?, fields.string()?, fields.i8()?)))?;
            Some((name, value))
        })
    })?;
    resources.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_get_the_names_that_kafka_gives_them() {
        let ours = [("cleanup", "compact"), ("segment_bytes", "5"), ("retention.ms", "7")];
        let ours = ours.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let found = kafka_settings(&ours);
        let found: Vec<_> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let expected =
            [("cleanup.policy", "compact"), ("segment.bytes", "5"), ("retention.ms", "7"), ("flush.messages", "1")];
        assert_eq!(found, expected);
        let relaxed = kafka_settings(&[("flush_interval_ms".to_owned(), "1000".to_owned())]);
        assert_eq!(relaxed, [("flush.ms".to_owned(), "1000".to_owned())]);
    }

    /// A metadata response of one topic with these partitions and leaders, and brokers 1 and 2.
    fn metadata(partitions: &[(i32, i32)]) -> BytesMut {
        let mut out = BytesMut::new();
        put_length(2, &mut out).unwrap();
        for (number, port) in [(1, 9001), (2, 9002)] {
            out.put_i32(number);
            put_string("host", &mut out).unwrap();
            out.put_i32(port);
            out.put_i16(-1);
        }
        out.put_i32(1);
        put_length(1, &mut out).unwrap();
        out.put_i16(0);
        put_string("t", &mut out).unwrap();
        out.put_i8(0);
        put_length(partitions.len(), &mut out).unwrap();
        for (index, leader) in partitions {
            out.put_i16(0);
            out.put_i32(*index);
            out.put_i32(*leader);
            for _ in 0..2 {
                put_length(1, &mut out).unwrap();
                out.put_i32(1);
            }
        }
        out
    }

    #[test]
    fn partitions_are_found_where_their_leaders_are() {
        let body = metadata(&[(1, 2), (0, 1)]);
        let places = |body: &[u8]| Metadata::read(&mut Fields::of(body)).map(|metadata| metadata.places("t"));
        let found = places(&body).unwrap().unwrap().unwrap();
        let found: Vec<_> = found.iter().map(|place| (place.partition.get(), place.addresses[0].port())).collect();
        assert_eq!(found, [(0, 9001), (1, 9002)]);
        assert_eq!(places(&metadata(&[(0, -1)])).unwrap().unwrap(), None);
        assert!(places(&metadata(&[(1, 1)])).unwrap().is_err() && places(&metadata(&[])).unwrap().is_err());
        for length in 0..body.len() {
            assert!(places(&body[..length]).is_none(), "{length}");
        }
    }
}
