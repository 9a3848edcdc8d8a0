//! A client that speaks raw frames, and can misbehave.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmq_wire::codec::Codec;
use ringmq_wire::protocol::frame::{
    RESPONSE_HEAD_BYTES, ResponseHead, decode_error_body, decode_response_head, encode_request, encode_request_head,
};
use ringmq_wire::protocol::preamble::{BrokerPreamble, ClientPreamble, PREAMBLE_BYTES};
use ringmq_wire::protocol::{
    Acks, FetchPartition, FetchRequest, FetchResponseHead, FetchTopic, Hello, Message, ProduceHead, ProducePartition,
    ProduceResponse, ProduceTopic, Request, SectionHead,
};
use ringmq_wire::{CorrelationId, Offset, PartitionIndex, TopicName, WireError};

/// Longer than anything here takes: a test that hangs fails instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) hello: Hello,
    next_id: u32,
}

/// A response, whole.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: ResponseHead,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The body, or the error of the whole request.
    pub(crate) fn decode<R: Codec>(self) -> Result<R, WireError> {
        if self.head.error.is_none() {
            Ok(R::decode_whole(&self.body).expect("the response can be decoded"))
        } else {
            Err(decode_error_body(self.head.error, &self.body).expect("the error can be decoded"))
        }
    }

    pub(crate) fn error(self) -> WireError {
        self.decode::<ProduceResponse>().expect_err("the request failed as a whole")
    }
}

impl Peer {
    /// Connects and exchanges preambles.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("a preamble comes back")
    }

    /// As [`Self::connect`], unless the broker closes the connection at once.
    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let mut stream = raw(address);
        stream.write_all(&ClientPreamble::CURRENT.encode())?;
        let mut preamble = [0; PREAMBLE_BYTES];
        stream.read_exact(&mut preamble)?;
        assert_eq!(BrokerPreamble::decode(preamble).expect("it is one").version, Some(1));
        let mut hello = vec![0; 4];
        stream.read_exact(&mut hello).expect("a hello follows");
        let length = u32::decode_whole(&hello).expect("four bytes");
        hello.resize(4 + length as usize, 0);
        stream.read_exact(&mut hello[4..]).expect("the hello is whole");
        let (hello, _) = Hello::decode_with_length(&hello).expect("it is one").expect("it is whole");
        Ok(Self { stream, hello, next_id: 1 })
    }

    pub(crate) fn next_id(&mut self) -> CorrelationId {
        self.next_id += 1;
        CorrelationId::new(self.next_id)
    }

    /// Sends a request without waiting for its answer.
    pub(crate) fn send<R: Request + Message>(&mut self, request: &R) -> CorrelationId {
        let id = self.next_id();
        self.send_as(id, request);
        id
    }

    /// The same with that id.
    pub(crate) fn send_as<R: Request + Message>(&mut self, id: CorrelationId, request: &R) {
        let mut frame = BytesMut::new();
        encode_request(id, request, &mut frame).expect("a frame holds it");
        self.stream.write_all(&frame).expect("the request is taken");
    }

    /// Sends a request and decodes its answer.
    pub(crate) fn call<R: Request + Message>(&mut self, request: &R) -> Result<R::Response, WireError> {
        let id = self.send(request);
        let response = self.receive();
        assert_eq!(response.head.correlation_id, id);
        response.decode()
    }

    pub(crate) fn receive(&mut self) -> Response {
        let mut head = [0; RESPONSE_HEAD_BYTES];
        self.stream.read_exact(&mut head).expect("a response comes");
        let head = decode_response_head(&head, u32::MAX).expect("its head is right").expect("its head is whole");
        let mut body = vec![0; head.body_bytes as usize];
        self.stream.read_exact(&mut body).expect("the response is whole");
        Response { head, body }
    }

    /// The bytes of a produce with one section for each partition.
    pub(crate) fn produce_frame(
        &mut self,
        topic: &str,
        acks: Acks,
        sections: &[(u32, Bytes)],
    ) -> (CorrelationId, Vec<u8>) {
        let partition = |(partition, batches): &(u32, Bytes)| ProducePartition {
            partition: PartitionIndex::new(*partition),
            records_bytes: u32::try_from(batches.len()).expect("sections are short"),
        };
        let topic = TopicName::parse(topic).expect("a valid name");
        let topics = vec![ProduceTopic { topic, partitions: sections.iter().map(partition).collect() }];
        let head = ProduceHead { acks, timeout_ms: 30_000, topics };
        let id = self.next_id();
        let mut frame = BytesMut::new();
        encode_request_head(id, &head, &mut frame).expect("a frame holds it");
        let mut frame = frame.to_vec();
        sections.iter().for_each(|(_, batches)| frame.extend_from_slice(batches));
        (id, frame)
    }

    /// Produces to several partitions of a topic and waits for the acknowledgement.
    pub(crate) fn produce(&mut self, topic: &str, sections: &[(u32, Bytes)]) -> ProduceResponse {
        let (id, frame) = self.produce_frame(topic, Acks::All, sections);
        self.stream.write_all(&frame).expect("the request is taken");
        let response = self.receive();
        assert_eq!(response.head.correlation_id, id);
        response.decode().expect("the request as a whole succeeds")
    }

    /// Fetches and cuts the answer into the sections of its partitions, in the order of the request.
    pub(crate) fn fetch(&mut self, request: &FetchRequest) -> (FetchResponseHead, Vec<Vec<u8>>) {
        let id = self.send(request);
        let response = self.receive();
        assert_eq!(response.head.correlation_id, id);
        split_fetched(response)
    }

    /// Whether the broker has closed the connection, once everything that it has sent is read.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0))
    }
}

/// A connection without a preamble.
pub(crate) fn raw(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the broker listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("nodelay can be set");
    stream
}

/// The head of a fetch's response and its sections.
pub(crate) fn split_fetched(response: Response) -> (FetchResponseHead, Vec<Vec<u8>>) {
    assert!(response.head.error.is_none(), "{}", response.error());
    let (head, mut at) = FetchResponseHead::decode_head(&response.body, response.head.body_bytes)
        .expect("the head can be decoded")
        .expect("the head is whole");
    let mut sections = Vec::new();
    for partition in head.topics.iter().flat_map(|topic| &topic.partitions) {
        let end = at + partition.records_bytes as usize;
        sections.push(response.body[at..end].to_vec());
        at = end;
    }
    assert_eq!(at, response.body.len());
    (head, sections)
}

/// A fetch of `partitions`, each with its offset, that takes what is there.
pub(crate) fn fetch_request(topic: &str, partitions: &[(u32, Offset)]) -> FetchRequest {
    let part = |&(partition, fetch_offset): &(u32, Offset)| FetchPartition {
        partition: PartitionIndex::new(partition),
        fetch_offset,
        partition_max_bytes: 16 << 20,
    };
    let topic = TopicName::parse(topic).expect("a valid name");
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 16 << 20,
        topics: vec![FetchTopic { topic, partitions: partitions.iter().map(part).collect() }],
    }
}
