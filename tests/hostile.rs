//! Bytes that no client would send: whoever sends them gets an error or is cut off, and everybody else is served.

use bytes::Bytes;
use ringmq_tests::{Broker, BrokerOptions, RawConnection, batch, name, produce_head};
use ringmq_wire::batch::BATCH_HEADER_BYTES;
use ringmq_wire::protocol::frame::encode_request_head;
use ringmq_wire::protocol::preamble::ClientPreamble;
use ringmq_wire::protocol::{
    Acks, CreateTopicsRequest, FetchPartition, FetchRequest, FetchTopic, ListTopicsRequest, NewTopic, ProduceHead,
    ProducePartition, ProduceResponse, ProduceTopic,
};
use ringmq_wire::{CorrelationId, ErrorCode, Offset, PartitionIndex};

/// A broker with one topic, `t`, of two partitions with one record each.
fn broker() -> Broker {
    with_records(Broker::start())
}

fn with_records(broker: Broker) -> Broker {
    broker.create_topic("t", 2);
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    let record = batch(&[b"first"]);
    let answer = connection.produce(&produce_head("t", &[(0, &record), (1, &record)]), &[record.clone(), record]);
    assert!(codes(&answer.expect("an answer").expect("no error")).iter().all(|code| *code == ErrorCode::None));
    broker
}

fn codes(response: &ProduceResponse) -> Vec<ErrorCode> {
    response.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error).collect()
}

/// Another connection still gets its answers, and the records are as they were.
fn assert_serving(broker: &Broker) {
    let mut connection = RawConnection::open(broker.address()).expect("new connections are accepted");
    connection.call(&ListTopicsRequest {}).expect("an answer").expect("no error");
    let read = broker.run(&["consume", "t", "--partition", "0"], b"").expect_success();
    assert_eq!(read.stdout, b"first\n", "what was stored is untouched");
}

/// Sends bytes on a connection that has negotiated; gives the error that comes back before the broker closes.
fn refused(broker: &Broker, bytes: &[u8]) -> ErrorCode {
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    connection.send(bytes).expect("the broker reads");
    let (_, answer) = connection.read_response().expect("an answer before the broker closes");
    answer.expect_err("such a request is refused").code
}

/// A request's frame with any type, version and body.
fn frame(request_type: u16, version: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&u32::try_from(8 + body.len()).expect("a short body").to_be_bytes());
    frame.extend_from_slice(&request_type.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&7_u32.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

#[test]
fn requests_that_cannot_be_served_get_their_own_error() {
    let broker = broker();
    assert_eq!(refused(&broker, &frame(999, 1, b"")), ErrorCode::UnsupportedRequestType);
    assert_eq!(refused(&broker, &frame(4, 99, b"")), ErrorCode::UnsupportedVersion);
    assert_eq!(refused(&broker, &frame(4, 0, b"")), ErrorCode::UnsupportedVersion);
    for request_type in [1_u16, 2, 3, 4, 6, 7, 9] {
        assert_eq!(refused(&broker, &frame(request_type, 1, b"\xff\xff\xff")), ErrorCode::MalformedRequest);
        assert_eq!(refused(&broker, &frame(request_type, 1, &[0xff; 300])), ErrorCode::MalformedRequest);
    }
    // A length below the head, one beyond the limit, one that a 32-bit sum would overflow.
    assert_eq!(refused(&broker, &[0, 0, 0, 1, 0, 4, 0, 1, 0, 0, 0, 1]), ErrorCode::MalformedRequest);
    assert_eq!(refused(&broker, &[0x7f, 0xff, 0xff, 0xff, 0, 4, 0, 1, 0, 0, 0, 1]), ErrorCode::RequestTooLarge);
    assert_eq!(refused(&broker, &[0xff, 0xff, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1]), ErrorCode::RequestTooLarge);
    assert_serving(&broker);
}

#[test]
fn an_unknown_type_leaves_the_connection_usable() {
    let broker = broker();
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    connection.send(&frame(999, 1, &[1, 2, 3])).expect("sent");
    let (_, answer) = connection.read_response().expect("an answer");
    assert_eq!(answer.expect_err("refused").code, ErrorCode::UnsupportedRequestType);
    connection.call(&ListTopicsRequest {}).expect("the connection goes on").expect("no error");
}

#[test]
fn what_is_not_the_protocol_is_cut_off() {
    let broker = broker();
    let mut random = vec![0_u8; 64 << 10];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for byte in &mut random {
        // xorshift64: the same bytes in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[0];
    }
    let http = b"GET / HTTP/1.1\r\nHost: ringmq\r\n\r\n".to_vec();
    let too_new = ClientPreamble { version_min: 200, version_max: 201, flags: 0 }.encode().to_vec();
    for bytes in [&random, &http, &too_new, &vec![0_u8; 4096]] {
        let mut connection = RawConnection::bare(broker.address()).expect("a connection");
        // The broker may cut off before everything is sent.
        let _ = connection.send(bytes);
        connection.read_to_close().expect("the broker closes");
    }
    // A request that ends in the middle.
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    connection.send(&frame(4, 1, &[0; 100])[..40]).expect("sent");
    connection.finish_sending().expect("half closed");
    connection.read_to_close().expect("the broker closes");
    assert_serving(&broker);
}

#[test]
fn random_bodies_of_every_type_never_end_the_broker() {
    let broker = broker();
    let mut state = 1_u64;
    for round in 0..300_u16 {
        let mut body = vec![0_u8; usize::from(round) % 97];
        for byte in &mut body {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = state.to_be_bytes()[0] >> (round % 8);
        }
        let mut connection = RawConnection::open(broker.address()).expect("a connection");
        connection.send(&frame(round % 12, 1, &body)).expect("sent");
        connection.finish_sending().expect("half closed");
        connection.read_to_close().expect("an answer or a cut, and the end");
    }
    assert_serving(&broker);
}

#[test]
fn damaged_batches_are_refused_and_nothing_is_stored() {
    let broker = broker();
    let good = batch(&[b"second"]);
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.to_vec();
        change(&mut bytes);
        Bytes::from(bytes)
    };
    let (corrupt, invalid, large) = (ErrorCode::CorruptBatch, ErrorCode::InvalidBatch, ErrorCode::BatchTooLarge);
    let cases: [(&str, ErrorCode, Bytes); 8] = [
        ("a flipped bit in a record", corrupt, damaged(&|bytes| *bytes.last_mut().expect("bytes") ^= 1)),
        ("a flipped bit in the checksum", corrupt, damaged(&|bytes| bytes[17] ^= 1)),
        ("another magic", invalid, damaged(&|bytes| bytes[16] = 1)),
        ("a length that is too short", corrupt, damaged(&|bytes| bytes[11] -= 1)),
        ("a length that is too long", large, damaged(&|bytes| bytes[8] = 0x7f)),
        ("a batch without its end", invalid, good.slice(..good.len() - 1)),
        ("less than a header", invalid, good.slice(..BATCH_HEADER_BYTES - 1)),
        ("no bytes at all", invalid, Bytes::new()),
    ];
    let mut wrong = Vec::new();
    for (what, expected, section) in cases {
        let mut connection = RawConnection::open(broker.address()).expect("a connection");
        let answer = connection
            .produce(&produce_head("t", &[(0, &section)]), std::slice::from_ref(&section))
            .expect("an answer");
        let code = codes(&answer.expect("the request is sound, its batch is not"))[0];
        if code != expected {
            wrong.push((what, code));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_serving(&broker);
}

#[test]
fn one_bad_partition_does_not_spoil_the_rest_of_a_request() {
    let broker = broker();
    let good = batch(&[b"second"]);
    let bad = good.slice(..good.len() - 1);
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    let head = produce_head("t", &[(1, &good), (0, &bad), (99, &good)]);
    let answer = connection.produce(&head, &[good.clone(), bad, good]).expect("an answer").expect("no error");
    let codes = codes(&answer);
    assert_eq!(codes[0], ErrorCode::None);
    assert_ne!(codes[1], ErrorCode::None);
    assert_eq!(codes[2], ErrorCode::UnknownPartition);
    assert_serving(&broker);
}

#[test]
fn sections_that_do_not_add_up_are_refused() {
    let broker = broker();
    let record = batch(&[b"x"]);
    let claimed = 10_000;
    let partitions = vec![ProducePartition { partition: PartitionIndex::new(0), records_bytes: claimed }];
    let head =
        ProduceHead { acks: Acks::All, timeout_ms: 1_000, topics: vec![ProduceTopic { topic: name("t"), partitions }] };
    let mut request = bytes::BytesMut::new();
    encode_request_head(CorrelationId::new(1), &head, &mut request).expect("a request");
    // The frame announces what is really sent, the head more.
    let length = u32::try_from(request.len() - 4 + record.len()).expect("a short request");
    request[..4].copy_from_slice(&length.to_be_bytes());
    request.extend_from_slice(&record);
    assert_eq!(refused(&broker, &request), ErrorCode::MalformedRequest);
    assert_serving(&broker);
}

#[test]
fn a_record_over_the_limit_is_refused() {
    let broker = broker();
    let large = vec![b'x'; 8 << 20];
    let section = batch(&[&large]);
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    let sent = connection.produce(&produce_head("t", &[(0, &section)]), std::slice::from_ref(&section));
    let answer = sent.expect("an answer").expect("the request is not too large");
    assert_eq!(codes(&answer), [ErrorCode::RecordTooLarge]);
    assert_serving(&broker);
}

#[test]
fn topics_that_cannot_be_are_refused_one_by_one() {
    let broker = broker();
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    let topic = |name: &str, partitions: u32, replicas: u16| NewTopic {
        name: name.to_owned(),
        partitions,
        replicas,
        settings: Vec::new(),
    };
    let long = "x".repeat(250);
    let topics = vec![
        topic("", 1, 1),
        topic(&long, 1, 1),
        topic("../x", 1, 1),
        topic(".", 1, 1),
        topic("zero", 0, 1),
        topic("many", u32::MAX, 1),
        topic("copies", 1, 3),
        topic("t", 1, 1),
        topic("fine", 1, 1),
    ];
    let request = CreateTopicsRequest { topics, timeout_ms: 5_000, validate_only: false };
    let response = connection.call(&request).expect("an answer").expect("no error");
    let codes: Vec<ErrorCode> = response.topics.iter().map(|topic| topic.error).collect();
    assert_eq!(
        codes,
        [
            ErrorCode::InvalidTopicName,
            ErrorCode::InvalidTopicName,
            ErrorCode::InvalidTopicName,
            ErrorCode::InvalidTopicName,
            ErrorCode::InvalidPartitionCount,
            ErrorCode::InvalidPartitionCount,
            ErrorCode::InvalidReplicationFactor,
            ErrorCode::TopicAlreadyExists,
            ErrorCode::None,
        ]
    );
    assert_serving(&broker);
}

#[test]
fn fetches_out_of_range_say_what_the_range_is() {
    let broker = broker();
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    let partition = |partition: u32, offset: i64| FetchPartition {
        partition: PartitionIndex::new(partition),
        fetch_offset: Offset::new(offset),
        partition_max_bytes: u32::MAX,
    };
    let request = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: u32::MAX,
        topics: vec![
            FetchTopic { topic: name("t"), partitions: vec![partition(0, 2), partition(1, i64::MAX), partition(7, 0)] },
            FetchTopic { topic: name("absent"), partitions: vec![partition(0, 0)] },
        ],
    };
    let (head, sections) = connection.fetch(&request).expect("an answer").expect("no error");
    let parts: Vec<_> = head.topics.iter().flat_map(|topic| &topic.partitions).collect();
    let codes: Vec<ErrorCode> = parts.iter().map(|part| part.error).collect();
    let (range, partition, topic) = (ErrorCode::OffsetOutOfRange, ErrorCode::UnknownPartition, ErrorCode::UnknownTopic);
    assert_eq!(codes, [range, range, partition, topic]);
    assert!(parts[0].detail.contains("holds 0 to 1"), "the range is told: {}", &*parts[0].detail);
    assert!(sections.is_empty());
    assert_serving(&broker);
}

#[test]
fn a_peer_that_never_reads_does_not_grow_the_broker() {
    // A small cache, so that answers come from the disk into memory of their own.
    let config = Some("tail_cache_bytes = 1048576\n".to_owned());
    let broker = with_records(Broker::start_with(BrokerOptions { config, ..BrokerOptions::default() }));
    let line = "x".repeat(1_000) + "\n";
    broker.run(&["produce", "t", "--partition", "1", "-"], line.repeat(8_000).as_bytes()).expect_success();
    let before = resident_bytes(broker.pid());
    let mut connection = RawConnection::open(broker.address()).expect("a connection");
    let fetch = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 8 << 20,
        topics: vec![FetchTopic {
            topic: name("t"),
            partitions: vec![FetchPartition {
                partition: PartitionIndex::new(1),
                fetch_offset: Offset::ZERO,
                partition_max_bytes: 8 << 20,
            }],
        }],
    };
    let mut request = bytes::BytesMut::new();
    ringmq_wire::protocol::frame::encode_request(CorrelationId::new(1), &fetch, &mut request).expect("a small request");
    connection.give_up_writing_after(std::time::Duration::from_secs(2));
    // 2,000 answers of 8 MB each would be 16 GB. The broker stops reading long before; then so does this side.
    for _ in 0..2_000 {
        if connection.send(&request).is_err() {
            break;
        }
    }
    assert_serving(&broker);
    let grown = resident_bytes(broker.pid()).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the broker grew by {grown} bytes for one peer that does not read");
}

/// What a broker may grow by for one peer: the responses that may wait on a connection (`connection_response_bytes_max`,
/// 32 MiB), once on the shard that read them and once on the one that sends them; and the memory of what was read and
/// found no room, which the shard's pool keeps for the next (64 MiB).
const GROWTH_BYTES_MAX: u64 = 128 << 20;

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the broker runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has a resident size");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kib * 1024
}
