//! Every type of request, sent to every shard, whoever owns what it asks for.

use std::io::Write;

use bytes::Bytes;
use ringmq_wire::protocol::{
    Acks, AlterTopicsRequest, CreateTopicsRequest, DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
    DeleteTopicsRequest, DescribeClusterRequest, DescribeTopicsRequest, DiscoverControllerRequest, GrantCreditRequest,
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, ListTopicsRequest, MetadataRequest, NamedValue,
    NewTopic, OffsetSpec, RequestType, Setting, StatsRequest, TopicAlteration, UnsubscribeRequest,
};
use ringmq_wire::{BrokerId, ErrorCode, Offset, PartitionIndex, ShardIndex, TopicName};

use crate::broker::{Broker, Options, data_dir};
use crate::data::{batch, create, tagged, values};
use crate::idempotence::producer_id;
use crate::peer::{Peer, fetch_request};
use crate::subscribe::{Subscriber, subscribe_request};

const SHARDS: u16 = 3;
const PARTITIONS: u32 = 6;

/// Checks one type through the connection to `shard`; exhaustive, so that a new type cannot be forgotten here.
fn check(request_type: RequestType, broker: &Broker, shard: usize) {
    let mut peer = broker.connect_to(shard);
    match request_type {
        RequestType::Produce => produce(&mut peer, shard),
        RequestType::Fetch => fetch(&mut peer),
        RequestType::ListOffsets => list_offsets(&mut peer),
        RequestType::Metadata => metadata(&mut peer, broker),
        RequestType::DiscoverController => {
            let found = peer.call(&DiscoverControllerRequest {}).expect("it is answered");
            assert_eq!((found.controller, found.port), (BrokerId::new(0), broker.public.port()));
        }
        RequestType::CreateTopics => create_topics(&mut peer, broker, shard),
        RequestType::DeleteTopics => delete_topics(&mut peer, broker, shard),
        RequestType::DeleteRecords => delete_records(&mut peer, shard),
        RequestType::AlterTopics => alter_topics(&mut peer, broker, shard),
        RequestType::InitProducerId => {
            let first = producer_id(&mut peer);
            assert_ne!(producer_id(&mut peer), first);
        }
        RequestType::ListTopics => {
            let listed = peer.call(&ListTopicsRequest {}).expect("it is answered");
            assert!(listed.topics.iter().any(|topic| &*topic.name == "t" && topic.partitions == PARTITIONS));
        }
        RequestType::DescribeTopics => describe_topics(&mut peer),
        RequestType::Stats => stats(&mut peer),
        RequestType::Subscribe => subscribe(&mut peer, shard),
        RequestType::GrantCredit => {
            peer.call(&GrantCreditRequest { subscription: 1, credit_bytes: 1 }).expect("it is answered");
        }
        RequestType::Unsubscribe => {
            peer.call(&UnsubscribeRequest { subscription: 1 }).expect("it is answered");
        }
        RequestType::DescribeCluster => {
            let described = peer.call(&DescribeClusterRequest {}).expect("it is answered");
            let shards = &described.brokers[0].shards;
            let ports: Vec<u16> = shards.iter().filter_map(|shard| shard.port).collect();
            let expected: Vec<u16> = broker.roster.shards.iter().map(|member| member.port).collect();
            assert_eq!(ports, expected);
            let (least, most) = (shards.iter().map(|s| s.partitions).min(), shards.iter().map(|s| s.partitions).max());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{shards:?}");
        }
    }
}

/// Every shard says what it has; no shard has all partitions.
fn stats(peer: &mut Peer) {
    let answer = peer.call(&StatsRequest {}).expect("it is answered");
    assert_eq!(answer.shards.len(), usize::from(SHARDS));
    for (index, shard) in (0..).zip(&answer.shards) {
        assert_eq!(shard.shard, ShardIndex::new(index));
        let value = |values: &[NamedValue], name: &str| values.iter().find(|named| named.name == name).map(|n| n.value);
        let partitions = value(&shard.gauges, "partitions").expect("a gauge");
        assert!((1..u64::from(PARTITIONS)).contains(&partitions), "{partitions}");
        assert_eq!(value(&shard.gauges, "partitions_offline"), Some(0));
        assert!(value(&shard.counters, "connections").is_some() && value(&shard.counters, "flushes").is_some());
    }
}

#[test]
fn every_type_of_request_works_on_every_shard() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options { shards: SHARDS, ..Options::default() });
    create(&mut broker.connect(), "t", PARTITIONS);
    for request_type in RequestType::ALL {
        for shard in 0..usize::from(SHARDS) {
            check(request_type, &broker, shard);
        }
    }
}

/// One batch into each partition; each shard's connection adds one.
fn produce(peer: &mut Peer, shard: usize) {
    let sections: Vec<(u32, Bytes)> =
        (0..PARTITIONS).map(|partition| (partition, batch(&format!("p{partition}"), 2, 100))).collect();
    let produced = peer.produce("t", &sections);
    let base = Offset::ZERO.checked_add(2 * shard as u64).expect("small");
    for partition in &produced.topics[0].partitions {
        assert_eq!((partition.error, partition.base_offset), (ErrorCode::None, base), "{}", partition.detail);
    }
}

fn fetch(peer: &mut Peer) {
    let partitions: Vec<(u32, Offset)> = (0..PARTITIONS).map(|partition| (partition, Offset::new(4))).collect();
    let (head, sections) = peer.fetch(&fetch_request("t", &partitions));
    for (partition, section) in head.topics[0].partitions.iter().zip(&sections) {
        assert_eq!((partition.error, partition.high_watermark.get()), (ErrorCode::None, 6), "{}", partition.detail);
        assert_eq!(values(section, Offset::new(4)), tagged(&format!("p{}", partition.partition), 2));
    }
}

/// Records of every partition come, whoever owns it.
fn subscribe(peer: &mut Peer, shard: usize) {
    let topic = format!("subscribed-{shard}");
    create(peer, &topic, PARTITIONS);
    let partitions: Vec<(u32, Offset)> = (0..PARTITIONS).map(|partition| (partition, Offset::ZERO)).collect();
    let mut subscriber = Subscriber::start(peer, &subscribe_request(&topic, &partitions));
    let sections: Vec<(u32, Bytes)> = partitions.iter().map(|&(at, _)| (at, batch("new", 2, 100))).collect();
    let produced = peer.produce_frame(&topic, Acks::None, &sections).1;
    peer.stream.write_all(&produced).expect("the request is taken");
    while subscriber.count() < 2 * PARTITIONS as usize {
        subscriber.take(&peer.receive());
    }
    assert_eq!(subscriber.values, vec![tagged("new", 2); PARTITIONS as usize]);
}

fn list_offsets(peer: &mut Peer) {
    let topic = TopicName::parse("t").expect("a valid name");
    let partition =
        |partition| ListOffsetsPartition { partition: PartitionIndex::new(partition), at: OffsetSpec::Latest };
    let request = ListOffsetsRequest {
        topics: vec![ListOffsetsTopic { topic, partitions: (0..PARTITIONS + 1).map(partition).collect() }],
    };
    let listed = peer.call(&request).expect("it is answered");
    let (unknown, known) = listed.topics[0].partitions.split_last().expect("as many as asked for");
    assert!(known.iter().all(|partition| partition.offset == Some(Offset::new(6))), "{known:?}");
    assert_eq!(unknown.error, ErrorCode::UnknownPartition);
}

/// Each shard's connection deletes one record more of each partition; what is named once too often is refused.
fn delete_records(peer: &mut Peer, shard: usize) {
    let topic = TopicName::parse("t").expect("a valid name");
    let request = |before: Option<Offset>, partitions: &[u32]| {
        let partition = |partition: &u32| DeleteRecordsPartition { partition: PartitionIndex::new(*partition), before };
        let partitions = partitions.iter().map(partition).collect();
        DeleteRecordsRequest { topics: vec![DeleteRecordsTopic { topic: topic.clone(), partitions }] }
    };
    let before = Offset::new(i64::try_from(shard).expect("small") + 1);
    let all: Vec<u32> = (0..PARTITIONS).chain([1_000]).collect();
    let deleted = peer.call(&request(Some(before), &all)).expect("it is answered");
    let (unknown, known) = deleted.topics[0].partitions.split_last().expect("as many as asked for");
    assert!(
        known.iter().all(|partition| partition.error.is_none() && partition.log_start_offset == before),
        "{known:?}"
    );
    assert_eq!(unknown.error, ErrorCode::UnknownPartition);
    let partitions: Vec<(u32, Offset)> = (0..PARTITIONS).map(|partition| (partition, Offset::ZERO)).collect();
    let (head, _) = peer.fetch(&fetch_request("t", &partitions));
    for partition in &head.topics[0].partitions {
        assert_eq!(partition.error, ErrorCode::OffsetOutOfRange, "{}", partition.detail);
    }
    let beyond = peer.call(&request(Some(Offset::new(1_000)), &[0])).expect("it is answered");
    assert_eq!(beyond.topics[0].partitions[0].error, ErrorCode::OffsetOutOfRange);
    peer.call(&request(None, &[0, 0])).expect_err("a partition that is named twice");
    if shard + 1 == usize::from(SHARDS) {
        let deleted = peer.call(&request(None, &all[..6])).expect("it is answered");
        let starts: Vec<i64> = deleted.topics[0].partitions.iter().map(|one| one.log_start_offset.get()).collect();
        assert!(starts.iter().all(|start| *start >= 6), "everything: {starts:?}");
    }
}

fn metadata(peer: &mut Peer, broker: &Broker) {
    let all = peer.call(&MetadataRequest { topics: None }).expect("it is answered");
    assert_eq!(all.brokers[0].host, "127.0.0.1");
    assert_eq!(all.brokers[0].port, broker.public.port());
    let name = |name| TopicName::parse(name).expect("a valid name");
    let some = MetadataRequest { topics: Some(vec![name("none"), name("t")]) };
    let some = peer.call(&some).expect("it is answered");
    assert_eq!(some.topics[0].error, ErrorCode::UnknownTopic);
    assert_eq!(some.topics[1].partitions.len(), PARTITIONS as usize);
    for partition in &some.topics[1].partitions {
        let shard = &broker.roster.shards[partition.shard.as_usize()];
        assert_eq!((partition.shard, partition.shard_port), (shard.shard, Some(shard.port)));
        assert!(!partition.offline);
    }
    let mut owners: Vec<ShardIndex> = some.topics[1].partitions.iter().map(|partition| partition.shard).collect();
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners.len(), usize::from(SHARDS), "the partitions are spread");
}

fn create_topics(peer: &mut Peer, broker: &Broker, shard: usize) {
    let topic = |name: &str, partitions, replicas| NewTopic {
        name: name.to_owned(),
        partitions,
        replicas,
        settings: Vec::new(),
    };
    let name = format!("made-on-{shard}");
    let topics =
        vec![topic(&name, 4, 1), topic("../x", 1, 1), topic("", 1, 1), topic("zero", 0, 1), topic("two", 1, 2)];
    let created = peer.call(&CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only: false });
    let errors: Vec<ErrorCode> = created.expect("it is answered").topics.iter().map(|topic| topic.error).collect();
    let expected = [
        ErrorCode::None,
        ErrorCode::InvalidTopicName,
        ErrorCode::InvalidTopicName,
        ErrorCode::InvalidPartitionCount,
        ErrorCode::InvalidReplicationFactor,
    ];
    assert_eq!(errors, expected);
    // It can be used at once on any connection, on its shard or not.
    for any in 0..usize::from(SHARDS) {
        let sections: Vec<(u32, Bytes)> = (0..4).map(|partition| (partition, batch("x", 1, 10))).collect();
        let produced = broker.connect_to(any).produce(&name, &sections);
        assert!(produced.topics[0].partitions.iter().all(|p| p.error == ErrorCode::None), "{produced:?}");
    }
}

fn delete_topics(peer: &mut Peer, broker: &Broker, shard: usize) {
    let name = format!("made-on-{shard}");
    let request = DeleteTopicsRequest { topics: vec![name.clone(), "none".to_owned()], timeout_ms: 30_000 };
    let deleted = peer.call(&request).expect("it is answered");
    let errors: Vec<ErrorCode> = deleted.topics.iter().map(|topic| topic.error).collect();
    assert_eq!(errors, [ErrorCode::None, ErrorCode::UnknownTopic]);
    for any in 0..usize::from(SHARDS) {
        let produced = broker.connect_to(any).produce(&name, &[(0, batch("x", 1, 10))]);
        assert_eq!(produced.topics[0].partitions[0].error, ErrorCode::UnknownTopic);
    }
}

/// One partition more, and a smaller largest batch, with each shard's connection.
fn alter_topics(peer: &mut Peer, broker: &Broker, shard: usize) {
    let partitions = PARTITIONS + 1 + u32::try_from(shard).expect("few");
    let batch_bytes_max = 3_000 - 500 * shard;
    let set = vec![Setting { key: "batch_bytes_max".into(), value: batch_bytes_max.to_string() }];
    let change = TopicAlteration { name: "t".into(), set, unset: Vec::new(), partitions: Some(partitions) };
    let none = TopicAlteration { name: "none".into(), set: Vec::new(), unset: Vec::new(), partitions: None };
    let request = AlterTopicsRequest { topics: vec![change, none], timeout_ms: 30_000, validate_only: false };
    let altered = peer.call(&request).expect("it is answered");
    let errors: Vec<ErrorCode> = altered.topics.iter().map(|topic| topic.error).collect();
    assert_eq!(errors, [ErrorCode::None, ErrorCode::UnknownTopic]);

    // Old and new partitions go by it at once, on any connection, and keep what they have.
    for any in 0..usize::from(SHARDS) {
        let mut other = broker.connect_to(any);
        for partition in [0, partitions - 1] {
            let fits = other.produce("t", &[(partition, batch("fits", 1, batch_bytes_max - 200))]);
            assert_eq!(fits.topics[0].partitions[0].error, ErrorCode::None, "{fits:?}");
            let too_large = other.produce("t", &[(partition, batch("large", 1, batch_bytes_max))]);
            assert_eq!(too_large.topics[0].partitions[0].error, ErrorCode::RecordTooLarge, "{too_large:?}");
        }
        let beyond = other.produce("t", &[(partitions, batch("x", 1, 10))]);
        assert_eq!(beyond.topics[0].partitions[0].error, ErrorCode::UnknownPartition);
        let (_, sections) = other.fetch(&fetch_request("t", &[(0, Offset::new(4))]));
        assert_eq!(values(&sections[0], Offset::new(4))[..2], tagged("p0", 2));
    }
    let described = peer.call(&DescribeTopicsRequest { topics: vec!["t".into()] }).expect("it is answered");
    let topic = &described.topics[0];
    assert_eq!(topic.partitions.len(), partitions as usize);
    let chosen: Vec<_> = topic.settings.iter().filter(|setting| !setting.is_default).collect();
    assert_eq!(chosen.len(), 1);
    assert_eq!((chosen[0].key.as_str(), chosen[0].value.as_str()), ("batch_bytes_max", &*batch_bytes_max.to_string()));
}

fn describe_topics(peer: &mut Peer) {
    let request = DescribeTopicsRequest { topics: vec!["t".to_owned(), "none".to_owned(), "a/b".to_owned()] };
    let described = peer.call(&request).expect("it is answered");
    let errors: Vec<ErrorCode> = described.topics.iter().map(|topic| topic.error).collect();
    assert_eq!(errors, [ErrorCode::None, ErrorCode::UnknownTopic, ErrorCode::InvalidTopicName]);
    let topic = &described.topics[0];
    assert!(topic.settings.iter().all(|setting| setting.is_default && !setting.value.is_empty()));
    for partition in &topic.partitions {
        assert_eq!((partition.log_start_offset.get(), partition.log_end_offset.get()), (0, 6));
        assert!(partition.size_bytes > 0);
    }
}
