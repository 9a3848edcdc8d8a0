//! Start, stop, start again; topics that come and go; partitions that cannot be opened.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use ringmq_shard::Advertise;
use ringmq_wire::protocol::{
    Acks, DeleteTopicsRequest, DescribeClusterRequest, DiscoverControllerRequest, MetadataRequest, ProduceResponse,
};
use ringmq_wire::{ErrorCode, Offset, ShardIndex};

use crate::broker::{Broker, Options, data_dir, wait};
use crate::data::{batch, create, tagged, values};
use crate::peer::{Peer, fetch_request, split_fetched};

fn delete(peer: &mut Peer, name: &str) {
    let request = DeleteTopicsRequest { topics: vec![name.to_owned()], timeout_ms: 30_000 };
    let deleted = peer.call(&request).expect("the request as a whole succeeds");
    assert_eq!(deleted.topics[0].error, ErrorCode::None, "{}", deleted.topics[0].detail);
}

#[test]
fn everything_is_there_after_a_restart_with_another_number_of_shards() {
    let dir = data_dir();
    let mut expected = Vec::new();
    for shards in [2, 3, 1] {
        let broker = Broker::start(dir.path(), Options { shards, ..Options::default() });
        let mut peer = broker.connect();
        if expected.is_empty() {
            create(&mut peer, "t", 5);
        }
        let tag = format!("with-{shards}");
        let sections: Vec<(u32, Bytes)> = (0..5).map(|partition| (partition, batch(&tag, 40, 1_000))).collect();
        let produced = peer.produce("t", &sections);
        for partition in &produced.topics[0].partitions {
            assert_eq!(partition.error, ErrorCode::None, "{}", partition.detail);
            assert_eq!(partition.base_offset.as_u64(), expected.len() as u64);
        }
        expected.extend(tagged(&tag, 40));
        let all: Vec<(u32, Offset)> = (0..5).map(|partition| (partition, Offset::ZERO)).collect();
        for section in peer.fetch(&fetch_request("t", &all)).1 {
            assert_eq!(values(&section, Offset::ZERO), expected);
        }
        broker.stop();
    }
}

#[test]
fn a_stop_answers_what_was_read_and_keeps_what_was_answered() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 2);
    let frames: Vec<Vec<u8>> = (0..2_000)
        .map(|number| {
            let sections = [0, 1].map(|partition| (partition, batch(&format!("r{number:04}"), 1, 3_000)));
            peer.produce_frame("t", Acks::All, &sections).1
        })
        .collect();
    let mut writer = peer.stream.try_clone().expect("a second handle");
    // Ends with an error when the broker closes the connection.
    let writing = std::thread::spawn(move || frames.iter().try_for_each(|frame| writer.write_all(frame)));
    for _ in 0..100 {
        let response: ProduceResponse = peer.receive().decode().expect("it is answered");
        assert!(response.topics[0].partitions.iter().all(|partition| partition.error == ErrorCode::None));
    }
    let stopping = std::thread::spawn(move || broker.stop());
    let answered = 100 + count_answers(&mut peer);
    let _ = peer.stream.shutdown(std::net::Shutdown::Both);
    stopping.join().expect("the broker stops");
    let _ = writing.join().expect("the writer ends");

    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    for partition in [0, 1] {
        let stored = read_all(&mut peer, "t", partition);
        assert!(stored.len() >= answered, "{} stored, {answered} answered", stored.len());
        let expected: Vec<String> = (0..stored.len()).map(|number| format!("r{number:04}-0")).collect();
        assert_eq!(stored, expected, "what is stored is what was sent first");
    }
}

/// Acknowledgements until the broker closes the connection.
fn count_answers(peer: &mut Peer) -> usize {
    let mut count = 0;
    loop {
        if !matches!(peer.stream.peek(&mut [0; 1]), Ok(1)) {
            return count;
        }
        let response: ProduceResponse = peer.receive().decode().expect("an answer that is begun is whole");
        assert!(response.topics[0].partitions.iter().all(|partition| partition.error == ErrorCode::None));
        count += 1;
    }
}

fn read_all(peer: &mut Peer, topic: &str, partition: u32) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let from = Offset::new(i64::try_from(all.len()).expect("a small topic"));
        let (_, sections) = peer.fetch(&fetch_request(topic, &[(partition, from)]));
        let more = values(&sections[0], from);
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

#[test]
fn a_deleted_topic_is_gone_for_everyone_and_comes_back_empty() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "t", 4);
    let sections: Vec<(u32, Bytes)> = (0..4).map(|partition| (partition, batch("old", 100, 1_000))).collect();
    peer.produce("t", &sections);
    let topic_dirs = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir.path()).expect("the data directory can be read");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.file_name().is_some_and(|name| name.len() == 36)).collect()
    };
    assert_eq!(topic_dirs().len(), 1);

    // Readers that wait for its next record are told.
    let mut waiting: Vec<Peer> = [0, 1].map(|shard| broker.connect_to(shard)).into();
    for consumer in &mut waiting {
        let mut request = fetch_request("t", &[0, 1, 2, 3].map(|partition| (partition, Offset::new(100))));
        request.max_wait_ms = 300_000;
        consumer.send(&request);
    }
    delete(&mut peer, "t");
    for consumer in &mut waiting {
        let (head, _) = split_fetched(consumer.receive());
        let gone = |code| matches!(code, ErrorCode::TopicDeleted | ErrorCode::UnknownTopic);
        assert!(head.topics[0].partitions.iter().any(|partition| gone(partition.error)), "{head:?}");
    }
    assert_eq!(topic_dirs(), Vec::<PathBuf>::new(), "its files are freed");

    create(&mut peer, "t", 4);
    for shard in [0, 1] {
        let all = [0, 1, 2, 3].map(|partition| (partition, Offset::ZERO));
        let (head, sections) = broker.connect_to(shard).fetch(&fetch_request("t", &all));
        assert!(sections.iter().all(Vec::is_empty), "nothing of the old topic shows");
        assert!(head.topics[0].partitions.iter().all(|partition| partition.high_watermark == Offset::ZERO));
    }
}

#[test]
fn a_thousand_partitions_cost_next_to_nothing() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "many", 1_000);
    let described = peer.call(&DescribeClusterRequest {}).expect("it is answered");
    let spread: Vec<u32> = described.brokers[0].shards.iter().map(|shard| shard.partitions).collect();
    assert_eq!(spread, [500, 500]);
    let names: Vec<String> = std::fs::read_dir(dir.path())
        .expect("the data directory can be read")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().all(|name| name.len() != 36), "an empty partition has no files: {names:?}");
    let produced = peer.produce("many", &[(0, batch("a", 1, 1)), (999, batch("a", 1, 1))]);
    assert!(produced.topics[0].partitions.iter().all(|partition| partition.error == ErrorCode::None));
    delete(&mut peer, "many");
}

#[test]
fn a_damaged_partition_is_offline_and_the_others_serve() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "t", 2);
    for _ in 0..3 {
        peer.produce("t", &[(0, batch("a", 10, 1_000)), (1, batch("b", 10, 1_000))]);
    }
    let metadata = peer.call(&MetadataRequest { topics: None }).expect("it is answered");
    let topic_id = metadata.topics[0].topic_id.expect("it has an id");
    drop(peer);
    broker.stop();

    let log_dir = dir.path().join(topic_id.to_string()).join("0");
    let segment = log_dir.join("00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).expect("the segment is there");
    bytes[5_000] ^= 1;
    std::fs::write(&segment, bytes).expect("it can be damaged");
    // The indexes know nothing of the damage, but must not hide it.
    for entry in std::fs::read_dir(&log_dir).expect("the log has a directory") {
        let path = entry.expect("an entry").path();
        if path != segment {
            std::fs::remove_file(path).expect("an index can be removed");
        }
    }

    let broker = Broker::start(dir.path(), Options::default());
    for shard in [0, 1] {
        let mut peer = broker.connect_to(shard);
        let produced = peer.produce("t", &[(0, batch("c", 1, 10)), (1, batch("c", 1, 10))]);
        let errors: Vec<ErrorCode> = produced.topics[0].partitions.iter().map(|partition| partition.error).collect();
        assert_eq!(errors, [ErrorCode::PartitionOffline, ErrorCode::None]);
        assert!(produced.topics[0].partitions[0].detail.contains(&*segment.to_string_lossy()), "{produced:?}");
        let (head, sections) = peer.fetch(&fetch_request("t", &[(0, Offset::ZERO), (1, Offset::ZERO)]));
        assert_eq!(head.topics[0].partitions[0].error, ErrorCode::PartitionOffline);
        assert_eq!(values(&sections[1], Offset::ZERO).len(), 31 + shard);
        let metadata = peer.call(&MetadataRequest { topics: None }).expect("it is answered");
        let offline: Vec<bool> = metadata.topics[0].partitions.iter().map(|partition| partition.offline).collect();
        assert_eq!(offline, [true, false]);
    }
    // Its topic can still be deleted.
    delete(&mut broker.connect(), "t");
    assert!(!log_dir.exists());
}

#[test]
fn clients_are_told_an_address_that_leads_here() {
    let dir = data_dir();
    let advertise = Advertise { host: "broker.example".to_owned(), port: Some(19_092) };
    let broker = Broker::start(dir.path(), Options { advertise: Some(advertise), ..Options::default() });
    let mut peer = broker.connect();
    let metadata = peer.call(&MetadataRequest { topics: None }).expect("it is answered");
    assert_eq!((metadata.brokers[0].host.as_str(), metadata.brokers[0].port), ("broker.example", 19_092));
    let controller = peer.call(&DiscoverControllerRequest {}).expect("it is answered");
    assert_eq!((controller.host.as_str(), controller.port), ("broker.example", 19_092));
    drop(peer);
    broker.stop();

    let any: SocketAddr = "0.0.0.0:0".parse().expect("an address");
    let broker = Broker::start(dir.path(), Options { listen: any, ..Options::default() });
    let mut peer = broker.connect();
    let metadata = peer.call(&MetadataRequest { topics: None }).expect("it is answered");
    let reached = peer.stream.peer_addr().expect("it is connected");
    assert_eq!(
        (metadata.brokers[0].host.clone(), metadata.brokers[0].port),
        (reached.ip().to_string(), reached.port())
    );
}

#[test]
fn what_was_done_is_counted() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 2);
    peer.produce("t", &[(0, batch("a", 1, 10)), (1, batch("a", 1, 10))]);
    peer.fetch(&fetch_request("t", &[(0, Offset::ZERO), (1, Offset::ZERO)]));
    broker.mailboxes.log_stats();
    let mailboxes = broker.mailboxes.clone();
    let stats = wait(async move { mailboxes.stats(ShardIndex::new(0)).await }).expect("the shard runs");
    let line = stats.to_string();
    for expected in [
        "Produce=1",
        "Fetch=1",
        "CreateTopics=1",
        "forwarded_messages=2",
        "produce_durable_us[n=1",
        "fetch_ready_us[n=1",
    ] {
        assert!(line.contains(expected), "{expected} in {line}");
    }
}
