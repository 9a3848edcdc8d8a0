//! The broker's end of connections, in the hands of a test.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use ringmq_wire::protocol::frame::{self, REQUEST_HEAD_BYTES, RequestHead};
use ringmq_wire::protocol::preamble::{ClientPreamble, PREAMBLE_BYTES};
use ringmq_wire::protocol::{Hello, Message, RequestType};
use ringmq_wire::{CorrelationId, WireError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A listener on a loopback port of its own.
pub(crate) struct Peer {
    listener: TcpListener,
    pub(crate) hello: Hello,
}

impl Peer {
    pub(crate) async fn listen() -> Self {
        Self::listen_at("127.0.0.1:0").await.unwrap()
    }

    pub(crate) async fn listen_at(address: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, hello: Hello::current(64 << 20, 100) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Accepts a connection and shakes hands.
    pub(crate) async fn accept(&self) -> PeerConnection {
        let stream = self.accept_raw().await;
        PeerConnection::shake_hands(stream, &self.hello).await.expect("a client shakes hands")
    }

    pub(crate) async fn accept_raw(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

/// A request as it arrived.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) head: RequestHead,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn id(&self) -> CorrelationId {
        self.head.correlation_id
    }

    pub(crate) fn request_type(&self) -> RequestType {
        self.head.known_type().unwrap()
    }

    pub(crate) fn decode<M: Message>(&self) -> M {
        M::decode_whole(&self.body).unwrap()
    }
}

pub(crate) struct PeerConnection {
    stream: TcpStream,
    arrived: BytesMut,
}

impl PeerConnection {
    /// `None` when the client goes away first.
    pub(crate) async fn shake_hands(mut stream: TcpStream, hello: &Hello) -> Option<Self> {
        let mut preamble = [0; PREAMBLE_BYTES];
        stream.read_exact(&mut preamble).await.ok()?;
        let mut answer = BytesMut::from(&ClientPreamble::decode(preamble).ok()?.answer().encode()[..]);
        hello.encode_with_length(&mut answer);
        stream.write_all(&answer).await.ok()?;
        Some(Self { stream, arrived: BytesMut::new() })
    }

    /// The next request; `None` when the client has closed.
    pub(crate) async fn receive(&mut self) -> Option<Received> {
        loop {
            if let Some(head) = frame::decode_request_head(&self.arrived, u32::MAX).unwrap() {
                let frame_bytes = REQUEST_HEAD_BYTES + head.body_bytes as usize;
                if self.arrived.len() >= frame_bytes {
                    let body = self.arrived.split_to(frame_bytes).freeze().slice(REQUEST_HEAD_BYTES..);
                    return Some(Received { head, body });
                }
            }
            match self.stream.read_buf(&mut self.arrived).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Waits until something has arrived, and leaves it there.
    pub(crate) async fn readable(&self) {
        self.stream.readable().await.unwrap();
    }

    /// Sends bytes as they are. A client that has left does not mind.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn respond(&mut self, id: CorrelationId, response: &impl Message) {
        self.write(&encode(id, response)).await;
    }

    pub(crate) async fn refuse(&mut self, id: CorrelationId, error: &WireError) {
        let mut out = BytesMut::new();
        frame::encode_error_response(id, error, &mut out);
        self.write(&out).await;
    }
}

/// A whole response as it stands on the wire.
pub(crate) fn encode(id: CorrelationId, response: &impl Message) -> BytesMut {
    let mut out = BytesMut::new();
    frame::encode_response(id, response, &mut out).unwrap();
    out
}
