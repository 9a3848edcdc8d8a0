//! A broker's end of one connection, for tests: it answers what it is asked as the test says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use ringmq_client::{BrokerAddress, PartitionIndex, TopicName};
use ringmq_wire::protocol::frame::{self, REQUEST_HEAD_BYTES, RequestHead};
use ringmq_wire::protocol::preamble::{ClientPreamble, PREAMBLE_BYTES};
use ringmq_wire::protocol::{
    FetchResponseHead, FetchedPartition, FetchedTopic, Hello, ProduceResponse, ProducedPartition, ProducedTopic,
};
use ringmq_wire::{CorrelationId, Detail, ErrorCode, Offset};

use crate::driver::DriverArgument;
use crate::topic::{Place, Topic};

/// A peer whose thread ends when the other side closes, or `answer` gives nothing.
pub(crate) struct Peer {
    pub(crate) place: Place,
    thread: JoinHandle<u64>,
}

impl Peer {
    /// Answers each request with what `answer` makes of it.
    pub(crate) fn answering(mut answer: impl FnMut(RequestHead, Bytes) -> Option<BytesMut> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = vec![BrokerAddress::from(listener.local_addr().unwrap())];
        let thread = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            shake_hands(&mut stream);
            let mut requests = 0;
            while let Some((head, body)) = receive(&mut stream) {
                requests += 1;
                let Some(answer) = answer(head, body) else { break };
                stream.write_all(&answer).unwrap();
            }
            requests
        });
        Self { place: Place { partition: PartitionIndex::new(0), addresses }, thread }
    }

    /// How many requests came until the other side closed.
    pub(crate) fn requests(self) -> u64 {
        self.thread.join().unwrap()
    }
}

fn shake_hands(stream: &mut TcpStream) {
    let mut preamble = [0; PREAMBLE_BYTES];
    stream.read_exact(&mut preamble).unwrap();
    let mut answer = BytesMut::from(&ClientPreamble::decode(preamble).unwrap().answer().encode()[..]);
    Hello::current(1 << 24, 100).encode_with_length(&mut answer);
    stream.write_all(&answer).unwrap();
}

fn receive(stream: &mut TcpStream) -> Option<(RequestHead, Bytes)> {
    let mut head = [0; REQUEST_HEAD_BYTES];
    stream.read_exact(&mut head).ok()?;
    let head = frame::decode_request_head(&head, u32::MAX).unwrap().unwrap();
    let mut body = vec![0; head.body_bytes as usize];
    stream.read_exact(&mut body).ok()?;
    Some((head, body.into()))
}

/// A topic with its one partition there.
pub(crate) fn topic(place: &Place) -> Topic {
    let driver = DriverArgument::Native.driver();
    Topic { name: name(), partitions: vec![place.clone()], flush: "durable".into(), driver }
}

fn name() -> TopicName {
    TopicName::parse("t").unwrap()
}

/// The acknowledgement of so many records, or the refusal of them.
pub(crate) fn produced(id: CorrelationId, records: i64, error: ErrorCode) -> BytesMut {
    let partition = ProducedPartition {
        partition: PartitionIndex::new(0),
        error,
        detail: Detail::NONE,
        base_offset: Offset::ZERO,
        next_offset: Offset::new(records),
        log_start_offset: Offset::ZERO,
        append_time: None,
    };
    let topics = vec![ProducedTopic { topic: name(), partitions: vec![partition] }];
    let mut out = BytesMut::new();
    frame::encode_response(id, &ProduceResponse { topics }, &mut out).unwrap();
    out
}

/// A fetch's answer with this section.
pub(crate) fn fetched(id: CorrelationId, partition: u32, section: &[u8], error: ErrorCode) -> BytesMut {
    let partition = FetchedPartition {
        partition: PartitionIndex::new(partition),
        error,
        detail: Detail::NONE,
        log_start_offset: Offset::ZERO,
        high_watermark: Offset::new(1000),
        records_bytes: u32::try_from(section.len()).unwrap(),
    };
    let topics = vec![FetchedTopic { topic: name(), partitions: vec![partition] }];
    let mut out = BytesMut::new();
    frame::encode_response_head(id, &FetchResponseHead { topics }, &mut out).unwrap();
    out.extend_from_slice(section);
    out
}
