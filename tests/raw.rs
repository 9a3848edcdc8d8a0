//! The native protocol by hand: one blocking connection that can also say what no client would.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmq_wire::WireError;
use ringmq_wire::codec::Codec;
use ringmq_wire::protocol::frame::{
    FrameError, RESPONSE_HEAD_BYTES, decode_error_body, decode_response_head, encode_request, encode_request_head,
};
use ringmq_wire::protocol::preamble::{BrokerPreamble, ClientPreamble, PREAMBLE_BYTES};
use ringmq_wire::protocol::{
    FetchRequest, FetchResponseHead, HELLO_BYTES_MAX, Hello, Message, ProduceHead, ProduceResponse, Request,
    SectionHead,
};
use ringmq_wire::{CorrelationId, ErrorCode};

/// An answer that does not come within this is none.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The longest response that a test is ready to hold, in bytes.
const RESPONSE_BYTES_MAX: u32 = 64 << 20;

/// A connection that has been through preamble and hello, unless it was opened bare.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    next_id: u32,
}

impl RawConnection {
    /// Connects and says nothing.
    pub fn bare(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, next_id: 1 })
    }

    /// Connects and negotiates.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let mut connection = Self::bare(address)?;
        connection.send(&ClientPreamble::CURRENT.encode())?;
        connection.read_hello()?;
        Ok(connection)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads the broker's preamble and hello.
    pub fn read_hello(&mut self) -> io::Result<Hello> {
        let mut preamble = [0; PREAMBLE_BYTES];
        self.stream.read_exact(&mut preamble)?;
        let preamble = BrokerPreamble::decode(preamble).map_err(io::Error::other)?;
        if preamble.version.is_none() {
            return Err(io::Error::other("the broker speaks no version of ours"));
        }
        let mut bytes = Vec::new();
        while bytes.len() < HELLO_BYTES_MAX {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            bytes.push(byte[0]);
            if let Some((hello, _)) = Hello::decode_with_length(&bytes).map_err(io::Error::other)? {
                return Ok(hello);
            }
        }
        Err(io::Error::other("the hello has no end"))
    }

    /// Sends a request and gives its answer.
    pub fn call<R>(&mut self, request: &R) -> io::Result<Result<R::Response, WireError>>
    where
        R: Request + Message,
    {
        let body = self.exchange(|id, out| encode_request(id, request, out))?;
        decoded(body)
    }

    /// Sends a produce with its sections and gives the answer.
    pub fn produce(
        &mut self,
        head: &ProduceHead,
        sections: &[Bytes],
    ) -> io::Result<Result<ProduceResponse, WireError>> {
        let body = self.exchange(|id, out| {
            encode_request_head(id, head, out)?;
            sections.iter().for_each(|section| out.extend_from_slice(section));
            Ok(())
        })?;
        decoded(body)
    }

    /// The body of the next response, sections included, or the error of the whole request.
    pub fn read_response(&mut self) -> io::Result<(CorrelationId, Result<Vec<u8>, WireError>)> {
        let mut head = [0; RESPONSE_HEAD_BYTES];
        self.stream.read_exact(&mut head)?;
        let head = decode_response_head(&head, RESPONSE_BYTES_MAX)
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::other("a whole head is a head"))?;
        let mut body = vec![0; head.body_bytes as usize];
        self.stream.read_exact(&mut body)?;
        if head.error == ErrorCode::None {
            return Ok((head.correlation_id, Ok(body)));
        }
        let error = decode_error_body(head.error, &body).map_err(io::Error::other)?;
        Ok((head.correlation_id, Err(error)))
    }

    /// Reads until the broker closes; gives what came before that.
    ///
    /// # Errors
    /// When it neither sends nor closes in time.
    pub fn read_to_close(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            // Closed with bytes of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(bytes),
            Err(error) => Err(error),
        }
    }

    /// Sends and reads a fetch: the head of the answer and its sections, concatenated.
    pub fn fetch(&mut self, request: &FetchRequest) -> io::Result<Result<(FetchResponseHead, Vec<u8>), WireError>> {
        let body = match self.exchange(|id, out| encode_request(id, request, out))? {
            Ok(body) => body,
            Err(error) => return Ok(Err(error)),
        };
        let body_bytes = u32::try_from(body.len()).map_err(io::Error::other)?;
        let (head, sections) = FetchResponseHead::decode_head(&body, body_bytes)
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::other("the head is not whole"))?;
        Ok(Ok((head, body[sections..].to_vec())))
    }

    /// Sends what `encode` makes and gives the body of its answer.
    fn exchange(
        &mut self,
        encode: impl FnOnce(CorrelationId, &mut BytesMut) -> Result<(), FrameError>,
    ) -> io::Result<Result<Vec<u8>, WireError>> {
        self.next_id += 1;
        let id = CorrelationId::new(self.next_id);
        let mut out = BytesMut::new();
        encode(id, &mut out).map_err(io::Error::other)?;
        self.send(&out)?;
        let (answered, result) = self.read_response()?;
        assert_eq!(answered, id, "one request in flight has one answer");
        Ok(result)
    }

    /// From now on a send fails when the broker takes no bytes for so long.
    pub fn give_up_writing_after(&mut self, patience: Duration) {
        self.stream.set_write_timeout(Some(patience)).expect("a time-out that is not zero");
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }
}

fn decoded<T: Codec>(body: Result<Vec<u8>, WireError>) -> io::Result<Result<T, WireError>> {
    match body {
        Ok(body) => T::decode_whole(&body).map(Ok).map_err(io::Error::other),
        Err(error) => Ok(Err(error)),
    }
}
