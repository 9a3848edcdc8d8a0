//! The native protocol over a simulated connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmq_runtime::net::{ReadHalf, TcpStream, WriteHalf};
use ringmq_runtime::time::timeout;
use ringmq_wire::codec::Codec;
use ringmq_wire::protocol::frame::{
    RESPONSE_HEAD_BYTES, decode_error_body, decode_response_head, encode_request, encode_request_head,
};
use ringmq_wire::protocol::preamble::{BrokerPreamble, ClientPreamble, PREAMBLE_BYTES};
use ringmq_wire::protocol::{
    FetchPartition, FetchRequest, FetchResponseHead, FetchTopic, FetchedPartition, Hello, Message, ProduceHead,
    Request, SectionHead,
};
use ringmq_wire::{CorrelationId, Offset, PartitionIndex, TopicName, WireError};

/// A broker that lives answers within this, whatever it is asked here.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

const RESPONSE_BYTES_MAX: u32 = 64 << 20;

/// The connection has ended: whether what was asked for is done is unknown.
#[derive(Debug)]
pub(crate) struct Lost;

impl From<io::Error> for Lost {
    fn from(_: io::Error) -> Lost {
        Lost
    }
}

/// A connection that has been through preamble and hello.
pub(crate) struct Connection {
    read: ReadHalf,
    write: WriteHalf,
    next_id: u32,
}

/// The answer to one request: its body, or the error of the request as a whole.
pub(crate) type Answer = Result<Vec<u8>, WireError>;

impl Connection {
    /// Connects and negotiates.
    pub(crate) async fn open(address: SocketAddr) -> Result<Connection, Lost> {
        let (read, write) = TcpStream::connect(address).await?.into_split();
        let mut connection = Connection { read, write, next_id: 0 };
        in_time(connection.greet()).await?;
        Ok(connection)
    }

    async fn greet(&mut self) -> Result<(), Lost> {
        self.write.write_all(&ClientPreamble::CURRENT.encode()).await?;
        let mut preamble = [0; PREAMBLE_BYTES];
        self.read.read_exact(&mut preamble).await?;
        let preamble = BrokerPreamble::decode(preamble).expect("the broker answers with a preamble");
        assert!(preamble.version.is_some(), "the broker speaks our version");
        let mut hello = vec![0; 4];
        self.read.read_exact(&mut hello).await?;
        let length = u32::decode_whole(&hello).expect("four bytes are a length");
        hello.resize(4 + length as usize, 0);
        self.read.read_exact(&mut hello[4..]).await?;
        Hello::decode_with_length(&hello).expect("the hello can be decoded").expect("the hello is whole");
        Ok(())
    }

    fn next_id(&mut self) -> CorrelationId {
        self.next_id += 1;
        CorrelationId::new(self.next_id)
    }

    /// Sends a produce and does not wait for its answer.
    pub(crate) async fn send_produce(&mut self, head: &ProduceHead, sections: &[Bytes]) -> Result<CorrelationId, Lost> {
        let id = self.next_id();
        let mut request = BytesMut::new();
        encode_request_head(id, head, &mut request).expect("a request fits a frame");
        let slices: Vec<&[u8]> = std::iter::once(&request[..]).chain(sections.iter().map(|bytes| &bytes[..])).collect();
        in_time(async { Ok(self.write.write_all_vectored(&slices).await?) }).await?;
        Ok(id)
    }

    /// The next answer, to whichever request it is.
    pub(crate) async fn receive(&mut self) -> Result<(CorrelationId, Answer), Lost> {
        in_time(async {
            let mut head = [0; RESPONSE_HEAD_BYTES];
            self.read.read_exact(&mut head).await?;
            let head = decode_response_head(&head, RESPONSE_BYTES_MAX);
            let head = head.expect("the head can be decoded").expect("the head is whole");
            let mut body = vec![0; head.body_bytes as usize];
            self.read.read_exact(&mut body).await?;
            let answer = match head.error.is_none() {
                true => Ok(body),
                false => Err(decode_error_body(head.error, &body).expect("the error can be decoded")),
            };
            Ok((head.correlation_id, answer))
        })
        .await
    }

    async fn exchange<R: Request + Message>(&mut self, request: &R) -> Result<Answer, Lost> {
        let id = self.next_id();
        let mut bytes = BytesMut::new();
        encode_request(id, request, &mut bytes).expect("a request fits a frame");
        in_time(async { Ok(self.write.write_all(&bytes).await?) }).await?;
        let (answered, answer) = self.receive().await?;
        assert_eq!(answered, id, "one request in flight has one answer");
        Ok(answer)
    }

    /// Sends a request and gives its answer.
    pub(crate) async fn call<R>(&mut self, request: &R) -> Result<Result<R::Response, WireError>, Lost>
    where
        R: Request + Message,
    {
        let answer = self.exchange(request).await?;
        Ok(answer.map(|body| R::Response::decode_whole(&body).expect("the response can be decoded")))
    }

    /// Fetches one partition from an offset on: what the broker says of it, and its record batches.
    pub(crate) async fn fetch(
        &mut self,
        topic: &str,
        partition: u32,
        from: Offset,
        max_wait_ms: u32,
    ) -> Result<Result<(FetchedPartition, Vec<u8>), WireError>, Lost> {
        let partition = PartitionIndex::new(partition);
        let partitions = vec![FetchPartition { partition, fetch_offset: from, partition_max_bytes: 1 << 20 }];
        let topics = vec![FetchTopic { topic: TopicName::parse(topic).expect("a valid name"), partitions }];
        let request = FetchRequest { max_wait_ms, min_bytes: 1, max_bytes: 1 << 20, topics };
        let body = match self.exchange(&request).await? {
            Ok(body) => body,
            Err(error) => return Ok(Err(error)),
        };
        let body_bytes = u32::try_from(body.len()).expect("bounded");
        let head = FetchResponseHead::decode_head(&body, body_bytes).expect("the head can be decoded");
        let (head, records) = head.expect("the head is whole");
        let partitions: Vec<_> = head.topics.into_iter().flat_map(|topic| topic.partitions).collect();
        let [partition] = <[FetchedPartition; 1]>::try_from(partitions).expect("one was asked for");
        assert_eq!(partition.records_bytes as usize, body.len() - records);
        Ok(Ok((partition, body[records..].to_vec())))
    }
}

/// # Panics
/// When nothing comes of it in time: a broker that lives has lost a request.
async fn in_time<T>(exchanged: impl Future<Output = Result<T, Lost>>) -> Result<T, Lost> {
    timeout(ANSWER_WITHIN, exchanged).await.unwrap_or_else(|_| panic!("no answer within {ANSWER_WITHIN:?}"))
}
