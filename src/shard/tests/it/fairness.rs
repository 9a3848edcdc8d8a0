//! Peers that are slow, greedy, or mean harm cost the others nothing that lasts.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use bytes::BytesMut;
use ringmq_shard::Limits;
use ringmq_wire::protocol::frame::encode_request;
use ringmq_wire::protocol::{
    Acks, DescribeClusterRequest, FetchRequest, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopic, ListTopicsRequest, MetadataRequest, OffsetSpec, RequestType,
};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, Timestamp, TopicName};

use crate::broker::{Broker, Options, data_dir, until};
use crate::data::{batch, create, tagged, values};
use crate::peer::{Peer, fetch_request, split_fetched};
use crate::subscribe::subscribe_request;

/// Waits until a shard has read so many requests of a type.
fn until_read(broker: &Broker, shard: u16, request_type: RequestType, count: usize) {
    until("the shard has read the requests", || broker.requests(shard, request_type) >= count);
}

/// A fetch that waits for records at the end of empty partitions.
fn long_poll(topic: &str, partitions: &[u32]) -> FetchRequest {
    let partitions: Vec<(u32, Offset)> = partitions.iter().map(|&partition| (partition, Offset::ZERO)).collect();
    FetchRequest { max_wait_ms: 300_000, ..fetch_request(topic, &partitions) }
}

fn list_offsets(topic: &str, partitions: impl IntoIterator<Item = u32>, at: OffsetSpec) -> ListOffsetsRequest {
    let partition = |partition| ListOffsetsPartition { partition: PartitionIndex::new(partition), at };
    let topic = TopicName::parse(topic).expect("a valid name");
    ListOffsetsRequest {
        topics: vec![ListOffsetsTopic { topic, partitions: partitions.into_iter().map(partition).collect() }],
    }
}

/// The same request again and again, without reading an answer.
fn send_many(peer: &mut Peer, request: &FetchRequest, times: usize) {
    let mut frame = BytesMut::new();
    encode_request(peer.next_id(), request, &mut frame).expect("a frame holds it");
    peer.stream.write_all(&frame.repeat(times)).expect("the requests are taken");
}

#[test]
fn fetches_that_wait_take_nothing_from_other_requests() {
    let dir = data_dir();
    // Far less than the fetches would take.
    let limits = Limits { forwarded_in_flight_max: 2, shard_parts_max: 2, ..Limits::default() };
    let limits = Limits { shard_bytes_max: 64 << 20, ..limits };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    create(&mut broker.connect_to(0), "quiet", 2);
    create(&mut broker.connect_to(0), "t", 2);
    let mut waiting: Vec<Peer> = (0..8).map(|_| broker.connect_to(0)).collect();
    for peer in &mut waiting {
        for partitions in [&[0][..], &[1], &[0, 1]] {
            send_many(peer, &long_poll("quiet", partitions), 100);
        }
    }
    until_read(&broker, 0, RequestType::Fetch, 8 * 300);

    // Enough sections that the connection's own allowance does not do.
    let mut other = broker.connect_to(0);
    let sections: Vec<_> = (0..100).map(|number| (number % 2, batch(&format!("{number}"), 1, 10))).collect();
    let produced = other.produce("t", &sections);
    assert!(produced.topics[0].partitions.iter().all(|part| part.error == ErrorCode::None), "{produced:?}");
    let listed = other.call(&list_offsets("t", [0, 1], OffsetSpec::Latest)).expect("it is answered");
    assert!(listed.topics[0].partitions.iter().all(|part| part.offset == Some(Offset::new(50))), "{listed:?}");
    let metadata = other.call(&MetadataRequest { topics: None }).expect("it is answered");
    assert_eq!(metadata.topics.len(), 2);
    let (_, fetched) = other.fetch(&fetch_request("t", &[(0, Offset::ZERO), (1, Offset::ZERO)]));
    assert!(fetched.iter().all(|section| values(section, Offset::ZERO).len() == 50));
}

#[test]
fn fetches_that_wait_make_room_for_others() {
    let dir = data_dir();
    let limits = Limits { shard_fetch_bytes_max: 10 * (2048 + 256 + 512), ..Limits::default() };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    create(&mut broker.connect_to(0), "t", 2);
    // Here, and on another shard.
    for partition in [0, 1] {
        let mut first = broker.connect_to(0);
        let before = partition as usize * 11;
        send_many(&mut first, &long_poll("t", &[partition]), 10);
        until_read(&broker, 0, RequestType::Fetch, before + 10);
        let mut second = broker.connect_to(0);
        second.send(&long_poll("t", &[partition]));
        for _ in 0..10 {
            let (head, sections) = split_fetched(first.receive());
            assert_eq!((head.topics[0].partitions[0].error, sections[0].len()), (ErrorCode::None, 0));
        }
        broker.connect_to(1).produce("t", &[(partition, batch("new", 1, 10))]);
        assert_eq!(values(&split_fetched(second.receive()).1[0], Offset::ZERO), tagged("new", 1));
    }
}

#[test]
fn a_partition_is_named_once_in_a_request() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "t", 2);
    for twice in [[0, 0], [1, 1]] {
        let request = list_offsets("t", twice, OffsetSpec::Timestamp(Timestamp::new(0)));
        assert_eq!(peer.call(&request).expect_err("it is refused").code, ErrorCode::MalformedRequest);
        peer.send(&long_poll("t", &twice));
        let error = peer.receive().error();
        assert_eq!(error.code, ErrorCode::MalformedRequest);
        assert!(error.detail.contains("more than once"), "{error}");
    }
    peer.call(&list_offsets("t", [0, 1], OffsetSpec::Earliest)).expect("the connection is in order");
}

#[test]
fn a_fetch_counts_what_comes_to_any_of_very_many_partitions() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut producer = broker.connect();
    create(&mut producer, "t", 2_000);
    let one = batch("v", 1, 1_000);
    let all: Vec<u32> = (0..2_000).collect();
    for shard in [0, 1] {
        let mut consumer = broker.connect_to(shard);
        let mut request = long_poll("t", &all);
        for part in &mut request.topics[0].partitions {
            part.fetch_offset = Offset::new(if shard == 0 { 0 } else { 2 * i64::from(part.partition.get() < 4) });
        }
        request.min_bytes = u32::try_from(8 * one.len()).expect("a few kilobytes");
        consumer.send(&request);
        // Twice to each of four, some on one shard and some on the other, and no other answer before the last.
        for partition in [0, 1, 2, 3, 3, 2, 1, 0] {
            producer.produce("t", &[(partition, one.clone())]);
        }
        let (_, sections) = split_fetched(consumer.receive());
        assert!(sections[..4].iter().all(|section| section.len() == 2 * one.len()));
        assert_eq!(sections.iter().map(Vec::len).sum::<usize>(), 8 * one.len());
    }

    // As much of one partition as it may carry is all that there can be.
    let mut request = long_poll("t", &[4, 6, 8]);
    request.min_bytes = 1 << 20;
    request.topics[0].partitions[0].partition_max_bytes = u32::try_from(one.len()).expect("a kilobyte");
    let mut consumer = broker.connect();
    consumer.send(&request);
    for _ in 0..2 {
        producer.produce("t", &[(4, one.clone())]);
    }
    assert_eq!(split_fetched(consumer.receive()).1[0].len(), one.len());
}

#[test]
fn a_wide_answer_finds_room_for_its_head_and_its_records_at_once() {
    let dir = data_dir();
    // Its records alone may take all that a connection has.
    let limits = Limits { fetch_bytes_max: 1 << 20, connection_response_bytes_max: 1 << 20, ..Limits::default() };
    let broker = Broker::start(dir.path(), Options { shards: 1, limits, ..Options::default() });
    let mut peer = broker.connect();
    create(&mut peer, "t", 2_000);
    let one = batch("x", 250, 1_000);
    peer.produce("t", &[0, 1, 2, 3, 4].map(|partition| (partition, one.clone())));
    let all: Vec<(u32, Offset)> = (0..2_000).map(|partition| (partition, Offset::ZERO)).collect();
    for _ in 0..4 {
        peer.send(&fetch_request("t", &all));
    }
    for _ in 0..4 {
        let (_, sections) = split_fetched(peer.receive());
        assert!(sections.iter().map(Vec::len).sum::<usize>() > 1_000_000);
    }
}

#[test]
fn who_does_not_take_what_was_fetched_does_not_starve_the_others() {
    others_are_served_beside(&fetch_request("t", &[(0, Offset::ZERO)]));
}

#[test]
fn who_asks_for_little_and_gets_a_large_batch_takes_room_for_the_batch() {
    let mut little = FetchRequest { max_bytes: 1, ..fetch_request("t", &[(0, Offset::ZERO)]) };
    little.topics[0].partitions[0].partition_max_bytes = 1;
    others_are_served_beside(&little);
}

/// Beside connections that take no answers to such fetches, of a batch of about a megabyte.
fn others_are_served_beside(greedy: &FetchRequest) {
    let dir = data_dir();
    let limits = Limits {
        fetch_bytes_max: 1 << 20,
        connection_response_bytes_max: 1 << 20,
        shard_response_bytes_max: 2 << 20,
        forward_wait_max: Duration::from_millis(50),
        ..Limits::default()
    };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    let mut producer = broker.connect_to(0);
    create(&mut producer, "t", 2);
    create(&mut producer, "small", 2);
    for partition in [0, 1] {
        producer.produce("t", &[(partition, batch("large", 1_000, 1_000))]);
        producer.produce("small", &[(partition, batch("s", 1, 10))]);
    }
    // Each holds all that a connection may, once the kernel takes no more for it.
    let mut silent: Vec<Peer> = (0..3).map(|_| broker.connect_to(0)).collect();
    for peer in &mut silent {
        send_many(peer, greedy, 100);
    }
    let mut other = broker.connect_to(0);
    let large = fetch_request("t", &[(0, Offset::ZERO)]);
    let mut fetch = |request: &FetchRequest| {
        let (head, sections) = other.fetch(request);
        (head.topics[0].partitions[0].error, sections[0].len())
    };
    until("the silent ones hold all room", || fetch(&large).0 == ErrorCode::Overloaded);
    assert_eq!(fetch(&large), (ErrorCode::Overloaded, 0));
    // Little has room of its own; so has another shard.
    let little = FetchRequest { max_bytes: 1_000, ..fetch_request("small", &[(0, Offset::ZERO)]) };
    let one = batch("s", 1, 10).len();
    assert_eq!(fetch(&little), (ErrorCode::None, one));
    assert_eq!(fetch(&fetch_request("small", &[(1, Offset::ZERO)])), (ErrorCode::None, one));
    // A wait is over when it is over.
    let request = FetchRequest { max_wait_ms: 100, ..large.clone() };
    assert_eq!(fetch(&request), (ErrorCode::Overloaded, 0));
    drop(silent);
    until("their room is back", || fetch(&large).0 != ErrorCode::Overloaded);
    assert_eq!(fetch(&large).0, ErrorCode::None);
}

#[test]
fn what_one_peer_does_not_take_is_not_read_for_it_on_another_shard() {
    let dir = data_dir();
    let limits = Limits {
        fetch_bytes_max: 1 << 20,
        connection_response_bytes_max: 1 << 20,
        forward_wait_max: Duration::from_millis(50),
        ..Limits::default()
    };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    let mut producer = broker.connect_to(0);
    create(&mut producer, "t", 2);
    producer.produce("t", &[(1, batch("large", 1_000, 1_000))]);
    let mut silent = broker.connect_to(0);
    let mut until_refused = |fetches: usize, refused: usize| {
        let before = broker.counter(0, "errors");
        send_many(&mut silent, &fetch_request("t", &[(1, Offset::ZERO)]), fetches);
        until("there is no room for the answers", || broker.counter(0, "errors") - before >= refused);
        broker.counter(1, "forwarded_bytes")
    };
    // The kernel takes some of the answers.
    let before = until_refused(60, 20);
    let read = until_refused(40, 40) - before;
    assert!(read < 10_000_000, "{read} bytes were read for somebody who takes nothing");
}

#[test]
fn an_answer_that_is_not_taken_keeps_no_place_that_others_want() {
    let dir = data_dir();
    let unknown: Vec<(u32, Offset)> = (2..4_000).map(|partition| (partition, Offset::ZERO)).collect();
    let long = fetch_request("t", &unknown);
    let limits = Limits {
        fetch_bytes_max: 1 << 20,
        connection_response_bytes_max: 1 << 20,
        forward_wait_max: Duration::from_millis(50),
        write_stall_max: Duration::from_secs(3_600),
        // For two requests with so many partitions, and many with few.
        shard_fetch_bytes_max: 5 << 20,
        ..Limits::default()
    };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    let mut other = broker.connect_to(0);
    create(&mut other, "t", 2);
    other.produce("t", &[(0, batch("large", 1_000, 1_000))]);
    let mut silent: Vec<Peer> = (0..2).map(|_| broker.connect_to(0)).collect();
    for peer in &mut silent {
        send_many(peer, &fetch_request("t", &[(0, Offset::ZERO)]), 100);
    }
    send_many(&mut silent[0], &long, 2);
    until_read(&broker, 0, RequestType::Fetch, 202);
    let answer = |other: &mut Peer| other.fetch(&long).0.topics[0].partitions[0].error;
    assert_eq!(answer(&mut other), ErrorCode::UnknownPartition);

    // The first frame, with the errors, is not the last: partition 1 is there.
    let with_one: Vec<(u32, Offset)> = unknown.iter().copied().chain([(1, Offset::ZERO)]).collect();
    for _ in 0..2 {
        silent[1].send(&subscribe_request("t", &with_one));
    }
    until_read(&broker, 0, RequestType::Subscribe, 2);
    assert_eq!(answer(&mut other), ErrorCode::UnknownPartition);
}

#[test]
fn answers_that_nobody_takes_are_bounded_over_all_connections() {
    let dir = data_dir();
    let limits = Limits {
        fetch_bytes_max: 1 << 19,
        connection_response_bytes_max: 1 << 19,
        shard_response_bytes_max: 1 << 19,
        forward_wait_max: Duration::from_millis(50),
        ..Limits::default()
    };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    let mut other = broker.connect_to(0);
    for number in 0..400 {
        create(&mut other, &format!("{number:0>200}"), 1);
    }
    let mut frame = BytesMut::new();
    encode_request(other.next_id(), &ListTopicsRequest {}, &mut frame).expect("short");
    let mut silent: Vec<Peer> = (0..6).map(|_| broker.connect_to(0)).collect();
    for peer in &mut silent {
        peer.stream.write_all(&frame.repeat(400)).expect("the requests are taken");
    }
    // Some 90 KB each, so six connections with four each would hold 2 MB.
    until("the silent ones hold all room", || other.call(&ListTopicsRequest {}).is_err());
    let error = other.call(&ListTopicsRequest {}).expect_err("there is no room");
    assert_eq!(error.code, ErrorCode::Overloaded);
    other.call(&DescribeClusterRequest {}).expect("a short answer has room of its own");
    drop(silent);
    until("their room is back", || other.call(&ListTopicsRequest {}).is_ok());
}

#[test]
fn requests_that_do_not_come_keep_nobody_waiting() {
    let dir = data_dir();
    let limits = Limits {
        request_bytes_max: 1 << 20,
        connection_bytes_max: 1 << 20,
        shard_bytes_max: 2 << 20,
        frame_receive_max: Duration::from_secs(3_600),
        frame_receive_crowded_max: Duration::ZERO,
        ..Limits::default()
    };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    let mut honest = broker.connect_to(0);
    create(&mut honest, "t", 1);
    let store = |peer: &mut Peer, records| {
        let produced = peer.produce("t", &[(0, batch("x", records, 1_000))]);
        assert_eq!(produced.topics[0].partitions[0].error, ErrorCode::None);
    };
    let (_, frame) = honest.produce_frame("t", Acks::All, &[(0, batch("never", 1_000, 1_000))]);
    let announce = |bytes: usize| -> Vec<Peer> {
        let begin = |_| {
            let mut peer = broker.connect_to(0);
            peer.stream.write_all(&frame[..bytes]).expect("the bytes are taken");
            peer
        };
        (0..8).map(begin).collect()
    };
    // A head alone takes up nothing.
    let _announced = announce(12);
    store(&mut honest, 900);
    assert_ne!(broker.counter(0, "connection_faults"), 8);

    // A body that has begun does, but not what is the others' own, and not for long.
    let _begun = announce(40);
    let _more = announce(5_000);
    store(&mut honest, 10);
    for _ in 0..5 {
        store(&mut honest, 900);
        store(&mut broker.connect_to(0), 900);
    }
}

#[test]
fn a_stop_waits_for_nobody_for_ever() {
    let dir = data_dir();
    let limits = Limits { drain_max: Duration::from_secs(1), ..Limits::default() };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 100);
    let sections: Vec<_> = (0..100).map(|partition| (partition, batch("a", 10, 1_000))).collect();
    peer.produce("t", &sections);
    create(&mut peer, "quiet", 2);

    // Someone waits, someone takes nothing, someone stops in the middle, someone asks for much and goes.
    let mut peers: Vec<Peer> = (0..6).map(|shard| broker.connect_to(shard % 2)).collect();
    let all: Vec<(u32, Offset)> = (0..100).map(|partition| (partition, Offset::ZERO)).collect();
    let by_time = list_offsets("t", 0..100, OffsetSpec::Timestamp(Timestamp::new(9_500)));
    let (_, half) = peer.produce_frame("t", Acks::All, &sections);
    let mut looking_up: Vec<Peer> = (0..4).map(|shard| broker.connect_to(shard % 2)).collect();
    for pair in peers.chunks_mut(2).enumerate() {
        for peer in pair.1 {
            match pair.0 {
                0 => send_many(peer, &long_poll("quiet", &[0, 1]), 50),
                1 => send_many(peer, &fetch_request("t", &all), 50),
                _ => peer.stream.write_all(&half[..half.len() / 2]).expect("the bytes are taken"),
            }
        }
    }
    for peer in &mut looking_up {
        for _ in 0..100 {
            peer.send(&by_time);
        }
    }
    looking_up[0].stream.shutdown(Shutdown::Write).expect("the end is sent");
    // What came before the stop is answered, one way or the other; the connections end.
    looking_up[1].receive().decode::<ListOffsetsResponse>().expect("the first is answered");
    broker.stop();
    let mut answered = 0;
    while let Ok(1) = looking_up[1].stream.peek(&mut [0; 1]) {
        let listed = looking_up[1].receive().decode::<ListOffsetsResponse>().expect("an answer that is begun is whole");
        for part in &listed.topics[0].partitions {
            assert!(matches!(part.error, ErrorCode::None | ErrorCode::ShuttingDown), "{part:?}");
        }
        answered += 1;
    }
    assert!(answered < 100);

    let broker = Broker::start(dir.path(), Options::default());
    let (_, fetched) = broker.connect().fetch(&fetch_request("t", &all[..3]));
    assert!(
        fetched.iter().all(|section| values(section, Offset::ZERO) == tagged("a", 10)),
        "half a request left nothing"
    );
}
