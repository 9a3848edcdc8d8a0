//! Against the broker for tests that comes with librdkafka.

use clap::Parser;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use ringmq_client::{OffsetSpec, TopicName};

use super::*;
use crate::client::{Timed, runtime};
use crate::driver::{DriverArgument, Topics};
use crate::flow::{Flow, Receiving};
use crate::load::Load;
use crate::pace::Rate;
use crate::source::By;
use crate::topic::{self, Topic, TopicError};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    receiving: Receiving,
}

fn line(flags: &str) -> Line {
    Line::parse_from(std::iter::once("bench").chain(flags.split_whitespace()))
}

/// A broker with an empty topic `t` of three partitions.
struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    addresses: Vec<BrokerAddress>,
}

impl Broker {
    fn start() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 3, 1).unwrap();
        let addresses = BrokerAddress::parse_list(&cluster.bootstrap_servers()).unwrap();
        Self { cluster, addresses }
    }

    fn at(&self) -> Endpoint<'_> {
        Endpoint { brokers: &self.addresses, topic: "t" }
    }

    fn topic(&self) -> Topic {
        let place = |index| topic::Place { partition: PartitionIndex::new(index), addresses: self.addresses.clone() };
        let (name, driver) = (TopicName::parse("t").unwrap(), DriverArgument::Rdkafka.driver());
        Topic { name, partitions: (0..3).map(place).collect(), flush: String::new(), driver }
    }
}

/// What a new topic says of itself.
struct Empty;

impl Topics for Empty {
    fn create(&mut self, _: &str, _: u32, _: &[(String, String)]) -> Result<(), TopicError> {
        Ok(())
    }

    fn find(&mut self, _: &str) -> Result<Topic, TopicError> {
        unreachable!("it was found")
    }

    fn offsets(&mut self, topic: &Topic, _: OffsetSpec) -> Result<Vec<i64>, TopicError> {
        Ok(vec![0; topic.partitions.len()])
    }

    fn delete(&mut self, _: &str) -> Result<(), TopicError> {
        Ok(())
    }
}

/// So many records for a partition, numbered by their one byte.
fn records(count: u8, partition: Option<u32>) -> Records {
    let values = (0..count).collect::<Vec<u8>>().into();
    Records { values, value_bytes: 1, partition: partition.map(PartitionIndex::new), timed: Timed::All(Instant::now()) }
}

#[test]
fn what_is_due_is_received_and_what_is_missing_would_be_told() {
    let (broker, topic) = (Broker::start(), Broker::topic);
    let topic = topic(&broker);
    let flags = "--producers 2 --consumers 2 --batch-bytes 2000 --record-bytes 100 --linger 1ms --idempotent";
    let Line { load, receiving } = line(&format!("{flags} --warmup 30 --records 2005"));
    let rate = Some(Rate::Records(20_000));
    let mut flow = Flow::connect(&mut Empty, &topic, &load, rate, &receiving, Some(By::Client)).unwrap();
    flow.warm_up().unwrap();
    let (outcome, _) = flow.run("test");
    assert!(outcome.failure.is_none(), "{:?}", outcome.failure);
    assert_eq!((outcome.received.records, outcome.received.bytes), (2005, 200_500));
    let (way, acknowledged) = (flow.latencies().unwrap().summary(), flow.produce_latencies().unwrap().summary());
    assert!(way.p50 > 0.0 && acknowledged.p50 > 0.0 && flow.by() == Some("client"), "{way:?} {acknowledged:?}");
}

#[test]
fn each_call_brings_records_of_one_partition_from_where_it_began() {
    let broker = Broker::start();
    let load = line("").load;
    let heard = Arc::new(Heard::new(3).unwrap());
    let sender = Librdkafka.sender(&Sending { at: broker.at(), load: &load }, heard.clone()).unwrap();
    let runtime = runtime().unwrap();
    for partition in 0..3 {
        assert!(matches!(runtime.block_on(sender.send(records(100, Some(partition)))), (100, None)));
    }
    assert!(matches!(runtime.block_on(sender.flush()), (0, None)));
    assert!(heard.acknowledged().all(|(_, records)| records == 100), "{heard:?}");

    let mut receiver = Librdkafka.receiver(&broker.at(), 1000).unwrap();
    for start in [40, 0] {
        let from: Vec<_> = (0..3).map(|index| (PartitionIndex::new(index), Offset::new(start))).collect();
        receiver.begin(&from).unwrap();
        let (mut next, began) = ([start; 3], Instant::now());
        while next != [100; 3] {
            assert!(began.elapsed() < METADATA_MAX, "{next:?}");
            let mut of_call = None;
            let mut each = |partition: PartitionIndex, offset: Offset, value: &[u8]| {
                assert_eq!(*of_call.get_or_insert(partition), partition);
                let next = &mut next[partition.as_usize()];
                assert_eq!((offset.get(), value), (*next, &[u8::try_from(*next).unwrap()][..]));
                *next += 1;
                Ok(())
            };
            receiver.receive(Duration::from_millis(100), &mut each).unwrap();
        }
    }
}

#[test]
fn what_is_given_up_is_counted_once_and_says_why() {
    let broker = Broker::start();
    let load = line("--linger 50ms").load;
    let sender =
        Librdkafka.sender(&Sending { at: broker.at(), load: &load }, Arc::new(Heard::new(3).unwrap())).unwrap();
    let runtime = runtime().unwrap();
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    broker.cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
    runtime.block_on(sender.send(records(10, Some(1))));
    let (given_up, why) = runtime.block_on(sender.flush());
    assert!(given_up == 10 && why.is_some(), "{given_up}: {why:?}");
    runtime.block_on(sender.send(records(10, Some(1))));
    assert!(matches!(runtime.block_on(sender.flush()), (0, None)));
}

#[test]
fn the_command_line_becomes_settings_of_librdkafka() {
    let found = |flags: &str, key: &str| {
        let load = line(flags).load;
        let brokers = [BrokerAddress::new("a", 1), BrokerAddress::new("b", 2)];
        let sending = Sending { at: Endpoint { brokers: &brokers, topic: "t" }, load: &load };
        producer_config(&sending).get(key).map(str::to_owned)
    };
    for (flags, key, value) in [
        ("", "bootstrap.servers", Some("a:1,b:2")),
        ("--batch-bytes 12345", "batch.size", Some("12345")),
        ("--linger 3ms", "linger.ms", Some("3")),
        ("", "linger.ms", None),
        ("--acks leader", "acks", Some("1")),
        ("", "acks", Some("all")),
        ("--in-flight 7", "max.in.flight.requests.per.connection", Some("7")),
        ("", "max.in.flight.requests.per.connection", None),
        ("--idempotent", "enable.idempotence", Some("true")),
        ("", "enable.idempotence", Some("false")),
    ] {
        assert_eq!(found(flags, key).as_deref(), value, "{flags} {key}");
    }
}
