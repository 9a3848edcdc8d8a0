//! Bytes that no client of good will sends: a clear error to the sender, and nothing else happens.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use ringmq_shard::Limits;
use ringmq_wire::batch::{BATCH_HEADER_BYTES, BatchHeader};
use ringmq_wire::protocol::frame::CONTROL_REQUEST_BYTES_MAX;
use ringmq_wire::protocol::preamble::{BrokerPreamble, ClientPreamble, PREAMBLE_BYTES};
use ringmq_wire::protocol::{Acks, ListTopicsRequest, MetadataRequest, RequestType};
use ringmq_wire::{CorrelationId, ErrorCode, Offset, TopicName};

use crate::broker::{Broker, Options, data_dir};
use crate::data::{batch, create, tagged, values};
use crate::peer::{Peer, fetch_request, raw};

/// A frame with a head and a body of whatever.
fn frame(request_type: u16, version: u16, id: CorrelationId, body: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_u32(u32::try_from(8 + body.len()).expect("short"));
    frame.put_u16(request_type);
    frame.put_u16(version);
    frame.put_u32(id.get());
    frame.put_slice(body);
    frame.to_vec()
}

/// Sends a frame and gives the error that the whole request is answered with, if there is one.
fn refused(peer: &mut Peer, request_type: u16, version: u16, body: &[u8]) -> Option<ErrorCode> {
    let id = peer.next_id();
    peer.stream.write_all(&frame(request_type, version, id, body)).expect("the frame is taken");
    let response = peer.receive();
    assert_eq!(response.head.correlation_id, id);
    (!response.head.error.is_none()).then_some(response.head.error)
}

fn is_in_sync(peer: &mut Peer) {
    peer.call(&ListTopicsRequest {}).expect("the connection is in order");
}

#[test]
fn a_request_that_cannot_be_is_refused_and_the_next_one_is_served() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "t", 2);
    let produce = RequestType::Produce.to_u16();
    let list = RequestType::ListTopics.to_u16();
    let duplicates = [&[1, 0, 0, 0, 2][..], &[0, 1, b't', 0, 1, b't']].concat();

    let table: [(&str, u16, u16, &[u8], ErrorCode); 13] = [
        ("unknown type", 999, 1, b"abc", ErrorCode::UnsupportedRequestType),
        ("type zero", 0, 1, b"", ErrorCode::UnsupportedRequestType),
        ("unknown version", list, 2, b"", ErrorCode::UnsupportedVersion),
        ("version zero", produce, 0, &[0; 40], ErrorCode::UnsupportedVersion),
        ("bytes left over", list, 1, b"x", ErrorCode::MalformedRequest),
        ("truncated", RequestType::Fetch.to_u16(), 1, &[0; 5], ErrorCode::MalformedRequest),
        ("array beyond the frame", RequestType::Fetch.to_u16(), 1, &[0xff; 16], ErrorCode::MalformedRequest),
        ("produce without a head", produce, 1, b"", ErrorCode::MalformedRequest),
        ("produce with half a head length", produce, 1, &[0, 0], ErrorCode::MalformedRequest),
        ("head beyond the frame", produce, 1, &[0, 0, 1, 0, 1, 2, 3], ErrorCode::MalformedRequest),
        ("endless head", produce, 1, &[0xff; 64], ErrorCode::MalformedRequest),
        (
            "sections without a head",
            produce,
            1,
            &[0, 0, 0, 9, 2, 0, 0, 0, 0, 0, 0, 0, 0, 7],
            ErrorCode::MalformedRequest,
        ),
        ("a topic named twice", RequestType::Metadata.to_u16(), 1, &duplicates, ErrorCode::MalformedRequest),
    ];
    for (what, request_type, version, body, expected) in table {
        assert_eq!(refused(&mut peer, request_type, version, body), Some(expected), "{what}");
        is_in_sync(&mut peer);
    }
}

#[test]
fn a_frame_that_cannot_be_ends_its_connection_with_a_reason() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let length_max = broker.connect().hello.request_bytes_max;
    let (produce, list) = (RequestType::Produce, RequestType::ListTopics);
    let head = |length: u32, request_type: RequestType| {
        [&length.to_be_bytes()[..], &request_type.to_u16().to_be_bytes(), &[0, 1, 0, 0, 0, 77]].concat()
    };
    for (length, request_type, code, id) in [
        (length_max + 1, produce, ErrorCode::RequestTooLarge, 77),
        (u32::MAX, produce, ErrorCode::RequestTooLarge, 77),
        (CONTROL_REQUEST_BYTES_MAX + 1, list, ErrorCode::RequestTooLarge, 77),
        (0, produce, ErrorCode::MalformedRequest, 0),
        (7, list, ErrorCode::MalformedRequest, 0),
    ] {
        let mut peer = broker.connect();
        // What follows is not read as a request; it must not keep the error from arriving either.
        peer.stream.write_all(&[head(length, request_type), vec![7; 100_000]].concat()).expect("the bytes are taken");
        let response = peer.receive();
        assert_eq!((response.head.error, response.head.correlation_id.get()), (code, id), "length {length}");
        assert!(!response.error().detail.is_empty());
        assert!(peer.is_closed());
    }
    is_in_sync(&mut broker.connect());
}

#[test]
fn a_stranger_is_told_that_nothing_fits() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let newer = ClientPreamble { version_min: 7, version_max: 9, flags: 0 };
    for opening in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 64], vec![0xff; 8], newer.encode().to_vec()] {
        let mut stream = raw(broker.public);
        stream.write_all(&opening).expect("the bytes are taken");
        let mut preamble = [0; PREAMBLE_BYTES];
        stream.read_exact(&mut preamble).expect("an answer comes");
        let answer = BrokerPreamble::decode(preamble).expect("it is a preamble");
        assert_eq!((answer.version, answer.version_max), (None, 1));
        assert_eq!(stream.read(&mut [0; 1]).expect("the end comes"), 0);
    }
    is_in_sync(&mut broker.connect());
}

#[test]
fn whoever_does_not_go_on_is_not_waited_for() {
    let dir = data_dir();
    let limits = Limits {
        handshake_max: Duration::from_millis(300),
        frame_receive_max: Duration::from_millis(300),
        idle_max: Duration::from_millis(300),
        ..Limits::default()
    };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    // Silent from the start, and in the middle of the preamble.
    for opening in [&b""[..], b"RING\x01"] {
        let mut stream = raw(broker.public);
        stream.write_all(opening).expect("the bytes are taken");
        assert_eq!(stream.read(&mut [0; 1]).expect("the end comes"), 0);
    }
    // Silent in a head, in a body, in the sections of a produce, and between requests.
    let (_, produce) = broker.connect().produce_frame("t", Acks::All, &[(0, batch("a", 100, 1_000))]);
    let list = frame(RequestType::ListTopics.to_u16(), 1, CorrelationId::new(1), b"abc");
    for beginning in [&list[..3], &list[..13], &produce[..50_000], &[]] {
        let mut peer = broker.connect();
        peer.stream.write_all(beginning).expect("the bytes are taken");
        assert!(peer.is_closed());
    }
}

#[test]
fn half_a_request_leaves_no_trace() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "t", 2);
    let sections = [0, 1].map(|partition| (partition, batch("half", 50, 1_000)));
    let (id, whole) = peer.produce_frame("t", Acks::All, &sections);
    for end in [1, 11, 12, 20, 40_000, whole.len() - 1] {
        let mut peer = broker.connect();
        peer.stream.write_all(&whole[..end]).expect("the bytes are taken");
        peer.stream.shutdown(std::net::Shutdown::Write).expect("the end is sent");
        // It may still be listening.
        let response = peer.receive();
        let id = if end < 12 { 0 } else { id.get() };
        assert_eq!((response.head.error, response.head.correlation_id.get()), (ErrorCode::MalformedRequest, id));
        assert!(peer.is_closed());
    }
    let produced = peer.produce("t", &[(0, batch("a", 1, 10)), (1, batch("a", 1, 10))]);
    assert!(produced.topics[0].partitions.iter().all(|partition| partition.base_offset == Offset::ZERO));
}

/// A batch that says it has one record less than it has, with a checksum that fits.
fn miscounted(batch: &[u8]) -> Bytes {
    let header = BatchHeader::decode(batch).expect("a batch");
    let (record_count, last_offset_delta) = (header.record_count - 1, header.last_offset_delta - 1);
    let mut batch =
        [&BatchHeader { record_count, last_offset_delta, ..header }.encode(), &batch[BATCH_HEADER_BYTES..]].concat();
    // The checksum is the last field that it does not cover.
    let crc = crc_fast::crc32_iscsi(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(batch)
}

#[test]
fn each_bad_section_is_refused_alone() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    create(&mut broker.connect(), "t", 2);
    let good = batch("good", 2, 10);
    let corrupt = |batch: Bytes| {
        let mut bytes = batch.to_vec();
        *bytes.last_mut().expect("a batch is long") ^= 1;
        Bytes::from(bytes)
    };
    let oversize = batch("big", 3, 1 << 20);
    let oversize_record = batch("big", 1, 2 << 20);
    let sections = [
        (corrupt(good.clone()), ErrorCode::CorruptBatch),
        (corrupt(batch("large", 60, 1_000)), ErrorCode::CorruptBatch),
        (Bytes::from([&good[..], &corrupt(good.clone())[..]].concat()), ErrorCode::CorruptBatch),
        (good.slice(..good.len() - 1), ErrorCode::InvalidBatch),
        (Bytes::from_static(&[0; 100]), ErrorCode::InvalidBatch),
        (Bytes::new(), ErrorCode::InvalidBatch),
        (oversize, ErrorCode::BatchTooLarge),
        (oversize_record, ErrorCode::RecordTooLarge),
        (miscounted(&good), ErrorCode::InvalidBatch),
    ];
    for shard in [0, 1] {
        let mut peer = broker.connect_to(shard);
        for (section, expected) in &sections {
            // The bad one is on this shard once and once on the other; its neighbour is stored.
            for bad in [0, 1] {
                let produced = peer.produce("t", &[(bad, section.clone()), (1 - bad, good.clone())]);
                let [refused, stored] = &produced.topics[0].partitions[..] else { panic!("two outcomes") };
                assert_eq!(refused.error, *expected, "{}", refused.detail);
                assert_eq!(stored.error, ErrorCode::None, "{}", stored.detail);
            }
        }
        let produced = peer.produce("none", &[(0, good.clone())]);
        assert_eq!(produced.topics[0].partitions[0].error, ErrorCode::UnknownTopic);
        let produced = peer.produce("t", &[(2, batch("far", 60, 1_000)), (0, good.clone())]);
        assert_eq!(produced.topics[0].partitions[0].error, ErrorCode::UnknownPartition);
        assert_eq!(produced.topics[0].partitions[1].error, ErrorCode::None);

        let (head, _) =
            peer.fetch(&fetch_request("t", &[(0, Offset::new(1 << 40)), (7, Offset::ZERO), (1, Offset::ZERO)]));
        let errors: Vec<ErrorCode> = head.topics[0].partitions.iter().map(|partition| partition.error).collect();
        assert_eq!(errors, [ErrorCode::OffsetOutOfRange, ErrorCode::UnknownPartition, ErrorCode::None]);
    }
    // Only what was good is there.
    let (_, sections) = broker.connect().fetch(&fetch_request("t", &[(0, Offset::ZERO), (1, Offset::ZERO)]));
    assert_eq!(values(&sections[0], Offset::ZERO), vec![tagged("good", 2); 20].concat());
    assert_eq!(values(&sections[1], Offset::ZERO), vec![tagged("good", 2); 18].concat());
}

#[test]
fn random_bodies_of_every_type_do_no_harm() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect();
    create(&mut peer, "t", 2);
    // A fixed sequence (xorshift), so that a failure comes again.
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..600 {
        let request_type = RequestType::ALL[round % RequestType::ALL.len()];
        let mut body: Vec<u8> = (0..random() % 200).map(|_| random().to_le_bytes()[0]).collect();
        if round % 3 == 0 {
            // Small numbers look more like counts and lengths.
            body.iter_mut().for_each(|byte| *byte = if *byte > 60 { 0 } else { *byte % 4 });
        }
        if let Some(code) = refused(&mut peer, request_type.to_u16(), 1, &body) {
            assert!(
                matches!(code, ErrorCode::MalformedRequest | ErrorCode::InvalidTopicName | ErrorCode::RequestTimedOut),
                "{request_type}: {code} for {body:02x?}"
            );
        }
    }
    let name = TopicName::parse("t").expect("a valid name");
    let metadata = peer.call(&MetadataRequest { topics: Some(vec![name]) }).expect("it is answered");
    assert_eq!(metadata.topics[0].partitions.len(), 2);
}
