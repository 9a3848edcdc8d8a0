//! Cores: pinning, placement, and requests that arrive at the wrong one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ringmq_tests::{Broker, BrokerOptions, RawConnection, batch, name, produce_head};
use ringmq_wire::protocol::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeTopicsRequest, DiscoverControllerRequest,
    FetchPartition, FetchRequest, FetchTopic, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
    ListTopicsRequest, MetadataRequest, MetadataResponse, NewTopic, OffsetSpec,
};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, ShardIndex};

fn create(connection: &mut RawConnection, name: &str, partitions: u32) {
    let topic = NewTopic { name: name.to_owned(), partitions, replicas: 1, settings: Vec::new() };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, validate_only: false };
    let response = connection.call(&request).expect("an answer").expect("no error");
    assert_eq!(response.topics[0].error, ErrorCode::None, "{:?}", response.topics[0].detail);
}

fn metadata(connection: &mut RawConnection) -> MetadataResponse {
    connection.call(&MetadataRequest { topics: None }).expect("an answer").expect("no error")
}

/// The broker's threads by name, each with the CPUs that it may use.
fn threads(pid: u32) -> Vec<(String, BTreeSet<u32>)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the broker runs");
    tasks
        .flatten()
        .map(|task| {
            let status = std::fs::read_to_string(task.path().join("status")).expect("a thread has a status");
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of a status");
                line.trim_start_matches(':').trim().to_owned()
            };
            (field("Name"), cpu_list(&field("Cpus_allowed_list")))
        })
        .collect()
}

/// `0-2,5` as a set.
fn cpu_list(text: &str) -> BTreeSet<u32> {
    let number = |text: &str| text.trim().parse::<u32>().expect("a CPU number");
    text.split(',')
        .flat_map(|part| match part.split_once('-') {
            Some((first, last)) => number(first)..=number(last),
            None => number(part)..=number(part),
        })
        .collect()
}

/// The ports of all shards, and the public one.
fn ports(broker: &Broker) -> Vec<SocketAddr> {
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    let cluster = connection.call(&DescribeClusterRequest {}).expect("an answer").expect("no error");
    let own = cluster.brokers[0].shards.iter().map(|shard| shard.port.expect("every shard has a port of its own"));
    let mut ports: Vec<SocketAddr> = own.map(|port| SocketAddr::new(broker.address().ip(), port)).collect();
    ports.push(broker.address());
    ports
}

#[test]
fn each_shard_runs_on_a_core_of_its_own() {
    let broker = Broker::start();
    let shards: Vec<_> = threads(broker.pid()).into_iter().filter(|(name, _)| name.starts_with("shard-")).collect();
    let own = std::fs::read_to_string("/proc/self/status").expect("this process has a status");
    let allowed = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list of CPUs");
    let allowed = cpu_list(allowed);
    assert_eq!(shards.len(), allowed.len(), "a shard for each CPU that the process may use: {shards:?}");
    let mut pinned = BTreeSet::new();
    for (name, cpus) in &shards {
        assert_eq!(cpus.len(), 1, "{name} may run on {cpus:?}");
        pinned.extend(cpus);
    }
    assert_eq!(pinned, allowed);

    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    let cluster = connection.call(&DescribeClusterRequest {}).expect("an answer").expect("no error");
    let told: BTreeSet<u32> = cluster.brokers[0].shards.iter().filter_map(|shard| shard.cpu).collect();
    assert_eq!(told, pinned, "the cluster is described as it is");
}

#[test]
fn pinning_can_be_turned_off() {
    let options = BrokerOptions { config: Some("pin_cores = false\n".into()), ..BrokerOptions::default() };
    let broker = Broker::start_with(options);
    let own = threads(std::process::id());
    let (_, allowed) = own.first().expect("this process has a thread");
    for (name, cpus) in threads(broker.pid()) {
        assert_eq!(&cpus, allowed, "{name} is pinned");
    }
}

#[test]
fn partitions_spread_evenly_over_shards() {
    let broker = Broker::start();
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    for (topic, partitions) in [("a", 1), ("b", 7), ("c", 1), ("d", 4), ("e", 12)] {
        create(&mut connection, topic, partitions);
    }
    let mut owned: BTreeMap<ShardIndex, u32> = BTreeMap::new();
    for topic in metadata(&mut connection).topics {
        for partition in topic.partitions {
            *owned.entry(partition.shard).or_default() += 1;
        }
    }
    let (least, most) = (owned.values().min().copied(), owned.values().max().copied());
    assert_eq!(owned.values().sum::<u32>(), 25);
    assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{owned:?}");
    let cluster = connection.call(&DescribeClusterRequest {}).expect("an answer").expect("no error");
    for shard in &cluster.brokers[0].shards {
        assert_eq!(Some(&shard.partitions), owned.get(&shard.shard), "shard {}", shard.shard);
    }
}

#[test]
fn every_request_is_served_by_every_shard() {
    let broker = Broker::start();
    const PARTITIONS: u32 = 6;
    let mut written = 0;
    for (index, address) in ports(&broker).into_iter().enumerate() {
        let mut connection = RawConnection::open(address).expect("a connection");
        // A topic that is created here can be used here and everywhere at once.
        create(&mut connection, &format!("at-{index}"), 2);
        if index == 0 {
            create(&mut connection, "everywhere", PARTITIONS);
        }

        let record = batch(&[format!("from {index}").as_bytes()]);
        let sections: Vec<(u32, &bytes::Bytes)> = (0..PARTITIONS).map(|partition| (partition, &record)).collect();
        let bytes = vec![record.clone(); PARTITIONS as usize];
        let produced = connection.produce(&produce_head("everywhere", &sections), &bytes).expect("an answer");
        for (number, partition) in produced.expect("no error").topics[0].partitions.iter().enumerate() {
            assert_eq!(partition.error, ErrorCode::None, "{:?}", partition.detail);
            assert_eq!(partition.partition, PartitionIndex::new(u32::try_from(number).expect("few")));
            assert_eq!(partition.base_offset, Offset::new(written));
        }
        written += 1;

        let partitions: Vec<FetchPartition> = (0..PARTITIONS)
            .map(|partition| FetchPartition {
                partition: PartitionIndex::new(partition),
                fetch_offset: Offset::ZERO,
                partition_max_bytes: 1 << 20,
            })
            .collect();
        let request = FetchRequest {
            max_wait_ms: 5_000,
            min_bytes: 1,
            max_bytes: 8 << 20,
            topics: vec![FetchTopic { topic: name("everywhere"), partitions }],
        };
        let (head, sections) = connection.fetch(&request).expect("an answer").expect("no error");
        assert_eq!(head.topics[0].partitions.len(), PARTITIONS as usize);
        for partition in &head.topics[0].partitions {
            assert_eq!(partition.error, ErrorCode::None, "{:?}", partition.detail);
            assert_eq!(partition.high_watermark, Offset::new(written));
        }
        let found = sections.windows(6).filter(|window| *window == format!("from {index}").as_bytes()).count();
        assert_eq!(found, PARTITIONS as usize, "each partition has the record that was sent here");

        for (at, expected) in [(OffsetSpec::Earliest, Offset::ZERO), (OffsetSpec::Latest, Offset::new(written))] {
            let partition = |partition| ListOffsetsPartition { partition: PartitionIndex::new(partition), at };
            let partitions = (0..PARTITIONS).map(partition).collect();
            let topics = vec![ListOffsetsTopic { topic: name("everywhere"), partitions }];
            let listed = connection.call(&ListOffsetsRequest { topics }).expect("an answer").expect("no error");
            for partition in &listed.topics[0].partitions {
                assert_eq!(partition.offset, Some(expected), "{partition:?}");
            }
        }

        let listed = connection.call(&ListTopicsRequest {}).expect("an answer").expect("no error");
        assert!(listed.topics.iter().any(|topic| topic.name.as_str() == "everywhere"));
        let request = DescribeTopicsRequest { topics: vec!["everywhere".into(), "absent".into()] };
        let described = connection.call(&request).expect("an answer").expect("no error");
        assert_eq!(described.topics[0].partitions.len(), PARTITIONS as usize);
        assert_eq!(described.topics[1].error, ErrorCode::UnknownTopic);
        let controller = connection.call(&DiscoverControllerRequest {}).expect("an answer").expect("no error");
        assert_eq!(controller.controller, metadata(&mut connection).controller);

        let request = DeleteTopicsRequest { topics: vec![format!("at-{index}")], timeout_ms: 10_000 };
        let deleted = connection.call(&request).expect("an answer").expect("no error");
        assert_eq!(deleted.topics[0].error, ErrorCode::None, "{:?}", deleted.topics[0].detail);
        assert!(!metadata(&mut connection).topics.iter().any(|topic| topic.name.as_str() == format!("at-{index}")));
    }
    assert!(written >= 2, "a shard's own port and the public one");
}

#[test]
fn clients_are_told_the_address_that_they_reached_or_the_advertised_one() {
    let broker = Broker::start_with(BrokerOptions { listen: "0.0.0.0:0".into(), ..BrokerOptions::default() });
    for host in ["127.0.0.1", "127.0.0.2"] {
        let address = SocketAddr::new(host.parse().expect("an address"), broker.address().port());
        let mut connection = RawConnection::open(address).expect("a connection");
        let told = metadata(&mut connection);
        assert_eq!((told.brokers[0].host.as_str(), told.brokers[0].port), (host, address.port()));
    }
    let args = vec!["--advertise".into(), "queue.example:7777".into()];
    let broker = Broker::start_with(BrokerOptions { args, ..BrokerOptions::default() });
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    let told = metadata(&mut connection);
    assert_eq!((told.brokers[0].host.as_str(), told.brokers[0].port), ("queue.example", 7777));
}
