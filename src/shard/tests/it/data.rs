//! Produce, fetch and look-ups of what was produced.

use bytes::Bytes;
use ringmq_wire::batch::{BatchBuilder, Compression, RecordRef, Scratch, split_batches};
use ringmq_wire::protocol::{
    Acks, CreateTopicsRequest, FetchRequest, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, ListedOffset,
    NewTopic, OffsetSpec,
};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex, Timestamp, TopicName};

use crate::broker::{Broker, Options, data_dir};
use crate::peer::{Peer, fetch_request, split_fetched};

/// A batch of `count` records of `bytes` bytes each; their values begin with `tag` and their number.
pub(crate) fn batch(tag: &str, count: usize, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for (number, seconds) in (0..count).zip(1..) {
        let mut value = format!("{tag}-{number}").into_bytes();
        value.resize(bytes.max(value.len()), b'.');
        let timestamp = Timestamp::new(1_000 * seconds);
        builder
            .append(&RecordRef { timestamp, key: None, value: Some(&value), headers: &[] })
            .expect("a batch takes the record");
    }
    builder.finish().expect("a batch has records")
}

/// The values of all records at `from` or later.
pub(crate) fn values(batches: &[u8], from: Offset) -> Vec<String> {
    let mut scratch = Scratch::default();
    let mut values = Vec::new();
    for batch in split_batches(batches) {
        let batch = batch.expect("whole batches");
        batch.verify_checksum().expect("the batch is as it was sent");
        for record in batch.records(&mut scratch).expect("not compressed") {
            let record = record.expect("whole records");
            if record.offset >= from {
                let value = String::from_utf8_lossy(record.value.expect("it has a value")).into_owned();
                values.push(value.trim_end_matches('.').to_owned());
            }
        }
    }
    values
}

pub(crate) fn tagged(tag: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{tag}-{number}")).collect()
}

pub(crate) fn create(peer: &mut Peer, name: &str, partitions: u32) {
    let topic = NewTopic { name: name.to_owned(), partitions, replicas: 1, settings: Vec::new() };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: false };
    let response = peer.call(&request).expect("the request as a whole succeeds");
    assert_eq!(response.topics[0].error, ErrorCode::None, "{}", response.topics[0].detail);
}

fn list_offset(peer: &mut Peer, topic: &str, partition: u32, at: OffsetSpec) -> ListedOffset {
    let partition = ListOffsetsPartition { partition: PartitionIndex::new(partition), at };
    let topic = TopicName::parse(topic).expect("a valid name");
    let request = ListOffsetsRequest { topics: vec![ListOffsetsTopic { topic, partitions: vec![partition] }] };
    peer.call(&request).expect("the request as a whole succeeds").topics[0].partitions[0].clone()
}

#[test]
fn what_is_produced_is_fetched_byte_for_byte() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "orders", 4);

    // Small, large enough to be received directly, and several batches in one section.
    let small = batch("small", 3, 100);
    let large = batch("large", 500, 1_000);
    let several = Bytes::from([batch("x", 2, 10), batch("y", 70, 1_000), batch("z", 1, 5)].concat());
    let produced = peer.produce("orders", &[(0, small.clone()), (1, large.clone()), (2, several), (3, small)]);
    for partition in &produced.topics[0].partitions {
        assert_eq!((partition.error, partition.base_offset), (ErrorCode::None, Offset::ZERO), "{}", partition.detail);
    }
    let next: Vec<i64> = produced.topics[0].partitions.iter().map(|partition| partition.next_offset.get()).collect();
    assert_eq!(next, [3, 500, 73, 3]);

    let (head, sections) = peer.fetch(&fetch_request("orders", &[0, 1, 2, 3].map(|p| (p, Offset::ZERO))));
    assert_eq!(values(&sections[0], Offset::ZERO), tagged("small", 3));
    assert_eq!(values(&sections[1], Offset::ZERO), tagged("large", 500));
    assert_eq!(values(&sections[2], Offset::ZERO), [tagged("x", 2), tagged("y", 70), tagged("z", 1)].concat());
    assert_eq!(values(&sections[3], Offset::ZERO), tagged("small", 3));
    assert_eq!(sections[1].len(), large.len());
    let watermarks: Vec<i64> = head.topics[0].partitions.iter().map(|part| part.high_watermark.get()).collect();
    assert_eq!(watermarks, next);

    // From the middle of a batch: the client skips what it did not ask for.
    let (_, sections) = peer.fetch(&fetch_request("orders", &[(1, Offset::new(499))]));
    assert_eq!(values(&sections[0], Offset::new(499)), ["large-499"]);
}

#[test]
fn pipelined_produces_of_one_connection_keep_their_order() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 2);

    let mut frames = Vec::new();
    for number in 0..200 {
        // Large and small in turn, to the near and to the far shard.
        let size = if number % 7 == 0 { 50_000 } else { 100 };
        let sections = [0, 1].map(|partition| (partition, batch(&format!("r{number:03}"), 1, size)));
        frames.extend(peer.produce_frame("t", Acks::All, &sections).1);
    }
    let mut writer = peer.stream.try_clone().expect("a second handle");
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &frames));
    let mut answered: Vec<u32> = (0..200).map(|_| peer.receive().head.correlation_id.get()).collect();
    writing.join().expect("the writer ends").expect("everything is taken");
    answered.sort_unstable();
    answered.dedup();
    assert_eq!(answered.len(), 200, "each request is answered once");

    let expected: Vec<String> = (0..200).map(|number| format!("r{number:03}-0")).collect();
    for partition in [0, 1] {
        let (_, sections) = peer.fetch(&fetch_request("t", &[(partition, Offset::ZERO)]));
        assert_eq!(values(&sections[0], Offset::ZERO), expected);
    }
}

#[test]
fn without_acks_nothing_is_answered_and_everything_is_stored() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "t", 2);
    for _ in 0..10 {
        let (_, frame) = peer.produce_frame("t", Acks::None, &[(0, batch("a", 1, 10)), (1, batch("b", 1, 10))]);
        std::io::Write::write_all(&mut peer.stream, &frame).expect("the request is taken");
    }
    // An error is not answered either.
    let (_, frame) = peer.produce_frame("t", Acks::None, &[(7, batch("a", 1, 10))]);
    std::io::Write::write_all(&mut peer.stream, &frame).expect("the request is taken");
    // The first answer is the one to the request that asks for one; and what one connection sent before is stored before.
    let produced = peer.produce("t", &[(0, batch("last", 1, 10)), (1, batch("last", 1, 10))]);
    let bases: Vec<i64> = produced.topics[0].partitions.iter().map(|partition| partition.base_offset.get()).collect();
    assert_eq!(bases, [10, 10]);
}

#[test]
fn a_fetch_waits_for_records_and_no_longer_than_it_may() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut producer = broker.connect();
    create(&mut producer, "t", 4);

    for shard in [0, 1] {
        let mut consumer = broker.connect_to(shard);
        let end = if shard == 0 { Offset::ZERO } else { Offset::new(1) };
        let mut request = fetch_request("t", &[0, 1, 2, 3].map(|partition| (partition, end)));
        request.max_wait_ms = 30_000;
        let id = consumer.send(&request);
        // Only one of four partitions, on one of two shards, gets something.
        for partition in [0, 1, 2, 3] {
            let produced = producer.produce("t", &[(partition, batch("new", 1, 10))]);
            assert_eq!(produced.topics[0].partitions[0].error, ErrorCode::None);
            if partition == 0 {
                let response = consumer.receive();
                assert_eq!(response.head.correlation_id, id);
                let (_, sections) = split_fetched(response);
                assert_eq!(values(&sections[0], end), ["new-0"]);
                assert!(sections[1..].iter().all(Vec::is_empty));
            }
        }
    }

    // No bytes are enough at once, and so is an error.
    let mut consumer = broker.connect();
    let mut request = fetch_request("t", &[(0, Offset::new(2)), (1, Offset::new(2))]);
    (request.max_wait_ms, request.min_bytes) = (300_000, 0);
    assert!(consumer.fetch(&request).1.iter().all(Vec::is_empty));
    let mut unknown = fetch_request("t", &[(0, Offset::new(2)), (9, Offset::ZERO)]);
    unknown.max_wait_ms = 300_000;
    assert_eq!(consumer.fetch(&unknown).0.topics[0].partitions[1].error, ErrorCode::UnknownPartition);

    // Where nothing comes the answer does, when the wait is over, and what does not wait is answered before.
    (request.max_wait_ms, request.min_bytes) = (1_000, 1);
    let (waiting, at_once) = (consumer.send(&request), consumer.send(&FetchRequest { max_wait_ms: 0, ..request }));
    assert_eq!(consumer.receive().head.correlation_id, at_once);
    let response = consumer.receive();
    assert_eq!(response.head.correlation_id, waiting);
    let (head, sections) = split_fetched(response);
    assert!(sections.iter().all(Vec::is_empty));
    assert!(head.topics[0].partitions.iter().all(|part| part.error == ErrorCode::None));
}

#[test]
fn a_fetch_waits_for_as_many_bytes_as_it_asks_for_over_all_shards() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut producer = broker.connect();
    create(&mut producer, "t", 2);

    let one = batch("v", 1, 1_000);
    let mut consumer = broker.connect();
    let mut request = fetch_request("t", &[(0, Offset::ZERO), (1, Offset::ZERO)]);
    request.max_wait_ms = 30_000;
    request.min_bytes = u32::try_from(5 * one.len()).expect("a few kilobytes");
    consumer.send(&request);
    // Three here and two there: neither shard has enough by itself.
    for partition in [0, 1, 0, 1, 0] {
        producer.produce("t", &[(partition, one.clone())]);
    }
    let (_, sections) = split_fetched(consumer.receive());
    assert_eq!(sections.iter().map(Vec::len).sum::<usize>(), 5 * one.len());
}

#[test]
fn a_fetch_is_bounded_but_always_gets_a_batch() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "t", 1);
    for number in 0..10 {
        peer.produce("t", &[(0, batch(&format!("b{number}"), 100, 1_000))]);
    }
    let batch_bytes = batch("b0", 100, 1_000).len();

    let mut request = fetch_request("t", &[(0, Offset::ZERO)]);
    request.max_bytes = u32::try_from(3 * batch_bytes + 10).expect("some hundred kilobytes");
    assert_eq!(peer.fetch(&request).1[0].len(), 3 * batch_bytes);
    request.topics[0].partitions[0].partition_max_bytes = u32::try_from(2 * batch_bytes).expect("as before");
    assert_eq!(peer.fetch(&request).1[0].len(), 2 * batch_bytes);
    request.max_bytes = 1;
    request.topics[0].partitions[0].partition_max_bytes = 1;
    assert_eq!(peer.fetch(&request).1[0].len(), batch_bytes);

    // What cannot be had is no reason to wait: the bound is reached.
    request.min_bytes = 1 << 20;
    request.max_wait_ms = 30_000;
    assert_eq!(peer.fetch(&request).1[0].len(), batch_bytes);
}

#[test]
fn a_large_answer_arrives_whole() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "t", 4);
    let mut expected = Vec::new();
    for number in 0..4 {
        let tag = format!("n{number}");
        let sections: Vec<(u32, Bytes)> = (0..4).map(|partition| (partition, batch(&tag, 100, 9_000))).collect();
        peer.produce("t", &sections);
        expected.extend(tagged(&tag, 100));
    }
    // Many times what goes out in one write, half of it from another shard.
    let mut all = fetch_request("t", &[0, 1, 2, 3].map(|partition| (partition, Offset::ZERO)));
    all.max_bytes = u32::MAX;
    let (_, sections) = peer.fetch(&all);
    assert!(sections.iter().map(Vec::len).sum::<usize>() > 14_000_000);
    for section in sections {
        assert_eq!(values(&section, Offset::ZERO), expected);
    }
}

#[test]
fn offsets_are_found_by_kind_and_by_time() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "t", 2);
    for partition in [0, 1] {
        // Timestamps 1000, 2000, … 10000.
        peer.produce("t", &[(partition, batch("a", 10, 10))]);
        let found =
            |found: ListedOffset| (found.error, found.offset.map(Offset::get), found.timestamp.map(Timestamp::get));
        let at = |timestamp| OffsetSpec::Timestamp(Timestamp::new(timestamp));
        let mut find = |at| found(list_offset(&mut peer, "t", partition, at));
        assert_eq!(find(OffsetSpec::Earliest), (ErrorCode::None, Some(0), None));
        assert_eq!(find(OffsetSpec::Latest), (ErrorCode::None, Some(10), None));
        assert_eq!(find(at(0)), (ErrorCode::None, Some(0), Some(1_000)));
        assert_eq!(find(at(4_500)), (ErrorCode::None, Some(4), Some(5_000)));
        assert_eq!(find(at(10_001)), (ErrorCode::None, None, None));
    }
    // A header that claims more than its records hold is believed: nothing behind its batch is looked at.
    let honest = batch("b", 10, 10);
    let claim = Timestamp::new(50_000).get().to_be_bytes();
    let mut claiming = [&honest[..35], &claim, &honest[43..]].concat();
    let crc = crc_fast::crc32_iscsi(&claiming[21..]);
    claiming[17..21].copy_from_slice(&crc.to_be_bytes());
    peer.produce("t", &[(0, Bytes::from(claiming)), (0, batch("c", 60, 10))]);
    let found = list_offset(&mut peer, "t", 0, OffsetSpec::Timestamp(Timestamp::new(45_000)));
    assert_eq!((found.offset, found.timestamp), (Some(Offset::new(10)), Some(Timestamp::new(50_000))));
    let found = list_offset(&mut peer, "t", 0, OffsetSpec::Timestamp(Timestamp::new(55_000)));
    assert_eq!((found.offset, found.timestamp), (Some(Offset::new(74)), Some(Timestamp::new(55_000))));

    assert_eq!(list_offset(&mut peer, "t", 2, OffsetSpec::Latest).error, ErrorCode::UnknownPartition);
    assert_eq!(list_offset(&mut peer, "none", 0, OffsetSpec::Latest).error, ErrorCode::UnknownTopic);
}
