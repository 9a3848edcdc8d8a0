//! The first bytes of a connection: preamble each way, then the broker's hello.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use ringmq_wire::protocol::Hello;
use ringmq_wire::protocol::preamble::{BrokerPreamble, ClientPreamble, PREAMBLE_BYTES};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::ConnectionError;

/// Agrees with the broker at `address` on a version. Gives its hello and what arrived behind it.
pub(super) async fn shake_hands(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    address: SocketAddr,
) -> Result<(Hello, BytesMut), ConnectionError> {
    stream.write_all(&ClientPreamble::CURRENT.encode()).await?;

    let not_broker = |reason: String| ConnectionError::NotBroker { address, reason };
    let mut arrived = BytesMut::with_capacity(1024);
    let preamble = loop {
        if let Some(preamble) = arrived.first_chunk::<PREAMBLE_BYTES>() {
            break BrokerPreamble::decode(*preamble).map_err(|error| not_broker(error.to_string()))?;
        }
        if stream.read_buf(&mut arrived).await? == 0 {
            if arrived.is_empty() {
                return Err(ConnectionError::ClosedAtOnce { address });
            }
            return Err(not_broker(format!("it closed after {} bytes", arrived.len())));
        }
    };
    if preamble.version.is_none_or(|chosen| !offers(chosen)) {
        let ClientPreamble { version_min, version_max, .. } = ClientPreamble::CURRENT;
        let broker_max = preamble.version_max;
        return Err(ConnectionError::Version { address, broker_max, ours_min: version_min, ours_max: version_max });
    }
    arrived.advance(PREAMBLE_BYTES);

    loop {
        let hello = Hello::decode_with_length(&arrived).map_err(|error| not_broker(error.to_string()))?;
        if let Some((hello, hello_bytes)) = hello {
            arrived.advance(hello_bytes);
            return Ok((hello, arrived));
        }
        // A broker that has agreed on a version and then closes is going down.
        if stream.read_buf(&mut arrived).await? == 0 {
            return Err(ConnectionError::Closed);
        }
    }
}

fn offers(version: u8) -> bool {
    (ClientPreamble::CURRENT.version_min..=ClientPreamble::CURRENT.version_max).contains(&version)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    /// What the client makes of `answer` when it comes in pieces of `step` bytes and the broker then closes.
    async fn answered_with(answer: &[u8], step: usize) -> Result<(Hello, BytesMut), ConnectionError> {
        let (mut client, mut broker) = duplex(64 * 1024);
        let answer = answer.to_vec();
        let broker = tokio::spawn(async move {
            let mut preamble = [0; PREAMBLE_BYTES];
            broker.read_exact(&mut preamble).await.unwrap();
            assert_eq!(ClientPreamble::decode(preamble), Ok(ClientPreamble::CURRENT));
            for piece in answer.chunks(step) {
                broker.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let result = shake_hands(&mut client, ADDRESS).await;
        broker.await.unwrap();
        result
    }

    fn good_answer() -> BytesMut {
        let mut answer = BytesMut::from(&ClientPreamble::CURRENT.answer().encode()[..]);
        Hello::current(1 << 20, 7).encode_with_length(&mut answer);
        answer
    }

    #[tokio::test]
    async fn a_hello_is_read_in_any_pieces_and_what_follows_is_kept() {
        for step in [1, 7, 1000] {
            let mut answer = good_answer();
            answer.extend_from_slice(b"more");
            let (hello, rest) = answered_with(&answer, step).await.unwrap();
            assert_eq!((hello.request_bytes_max, hello.in_flight_max), (1 << 20, 7));
            assert!(b"more".starts_with(&rest), "{rest:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_cut_anywhere_is_an_error() {
        let answer = good_answer();
        for length in 0..answer.len() {
            let error = answered_with(&answer[..length], 5).await.unwrap_err();
            let expected = match length {
                0 => matches!(error, ConnectionError::ClosedAtOnce { .. }),
                1..PREAMBLE_BYTES => matches!(error, ConnectionError::NotBroker { .. }),
                _ => matches!(error, ConnectionError::Closed),
            };
            assert!(expected, "cut at {length}: {error}");
            assert_eq!(error.is_retriable(), !(1..PREAMBLE_BYTES).contains(&length), "cut at {length}");
        }
    }

    #[tokio::test]
    async fn strangers_and_other_versions_are_named() {
        let http = answered_with(b"HTTP/1.1 400 Bad Request\r\n\r\n", 100).await.unwrap_err();
        assert!(matches!(http, ConnectionError::NotBroker { .. }), "{http}");

        let newer = BrokerPreamble { version: None, version_max: 9, flags: 0 }.encode();
        let error = answered_with(&newer, 100).await.unwrap_err();
        assert!(matches!(error, ConnectionError::Version { broker_max: 9, .. }), "{error}");

        let unasked = BrokerPreamble { version: Some(9), version_max: 9, flags: 0 }.encode();
        let error = answered_with(&unasked, 100).await.unwrap_err();
        assert!(matches!(error, ConnectionError::Version { broker_max: 9, .. }), "{error}");
    }
}
