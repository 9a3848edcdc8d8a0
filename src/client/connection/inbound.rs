//! What has arrived: finds the responses in it, and gives a large one a buffer of its own to be read into.

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use ringmq_wire::protocol::frame::{self, RESPONSE_HEAD_BYTES, ResponseHead};
use ringmq_wire::{CorrelationId, WireError};

use super::error::ConnectionError;

/// Responses up to this size are read together, and copied out, so that whoever keeps one holds no more than it has; a
/// larger one is read into a buffer of exactly its size.
const SHARED_BYTES: usize = 64 * 1024;
/// One response: the body, or the error of the whole request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) correlation_id: CorrelationId,
    pub(super) outcome: Result<Bytes, WireError>,
}

/// A response whose body is still arriving.
#[derive(Debug)]
struct Arriving {
    head: ResponseHead,
    body: BytesMut,
}

/// Splits the stream into responses. It does no I/O, so tests feed it byte by byte.
#[derive(Debug)]
pub(super) struct Inbound {
    shared: BytesMut,
    large: Option<Arriving>,
    response_bytes_max: u32,
}

impl Inbound {
    /// A splitter that starts with what arrived behind the hello, and takes frames of up to `response_bytes_max`.
    pub(super) fn new(arrived: BytesMut, response_bytes_max: u32) -> Self {
        Self { shared: arrived, large: None, response_bytes_max }
    }

    /// Where the next bytes go: never empty, and never more than what belongs there.
    pub(super) fn room(&mut self) -> Limit<&mut BytesMut> {
        if let Some(Arriving { head, body }) = &mut self.large {
            let missing = (head.body_bytes as usize).saturating_sub(body.len());
            return body.limit(missing);
        }
        let missing = SHARED_BYTES.saturating_sub(self.shared.len()).max(RESPONSE_HEAD_BYTES);
        self.shared.reserve(missing);
        (&mut self.shared).limit(missing)
    }

    /// The next whole response, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are no response, when it is too long, or when nobody `awaits` it; nothing is allocated for it
    /// before that is known.
    pub(super) fn next_response(
        &mut self,
        awaits: impl Fn(CorrelationId) -> bool,
    ) -> Result<Option<Response>, ConnectionError> {
        if let Some(arriving) = self.large.take_if(|large| large.body.len() >= large.head.body_bytes as usize) {
            return decode(arriving.head, arriving.body.freeze()).map(Some);
        }
        if self.large.is_some() {
            return Ok(None);
        }
        let Some(head) = frame::decode_response_head(&self.shared, self.response_bytes_max)? else {
            return Ok(None);
        };
        if !awaits(head.correlation_id) {
            return Err(ConnectionError::UnknownCorrelation(head.correlation_id));
        }
        let body_bytes = head.body_bytes as usize;
        if self.shared.len() >= RESPONSE_HEAD_BYTES + body_bytes {
            self.shared.advance(RESPONSE_HEAD_BYTES);
            return decode(head, take_body(&mut self.shared, body_bytes)).map(Some);
        }
        if RESPONSE_HEAD_BYTES + body_bytes > SHARED_BYTES {
            let mut body = BytesMut::with_capacity(body_bytes);
            body.extend_from_slice(&self.shared[RESPONSE_HEAD_BYTES..]);
            self.shared.clear();
            self.large = Some(Arriving { head, body });
        }
        Ok(None)
    }
}

fn take_body(shared: &mut BytesMut, body_bytes: usize) -> Bytes {
    let body = Bytes::copy_from_slice(&shared[..body_bytes]);
    shared.advance(body_bytes);
    body
}

fn decode(head: ResponseHead, body: Bytes) -> Result<Response, ConnectionError> {
    let outcome = match frame::decode_error_body(head.error, &body) {
        _ if head.error.is_none() => Ok(body),
        Ok(error) => Err(error),
        Err(error) => return Err(ConnectionError::Malformed(error.to_string())),
    };
    Ok(Response { correlation_id: head.correlation_id, outcome })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringmq_wire::ErrorCode;

    use super::*;

    const LIMIT: u32 = 1024 * 1024;

    fn encode(id: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(6 + body.len()).unwrap();
        [&length.to_be_bytes()[..], &id.to_be_bytes(), &[0, 0], body].concat()
    }

    /// Feeds `stream` in steps of `step` bytes at most, taking out responses as they become whole.
    fn split(stream: &[u8], step: usize, limit: u32) -> Result<Vec<Response>, ConnectionError> {
        let mut inbound = Inbound::new(BytesMut::new(), limit);
        let mut found = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let mut room = inbound.room();
            let count = rest.len().min(step).min(room.remaining_mut());
            assert!(count > 0, "the splitter asks for nothing and has not finished");
            room.put_slice(&rest[..count]);
            rest = &rest[count..];
            while let Some(response) = inbound.next_response(|id| id.get() < 1000)? {
                found.push(response);
            }
        }
        Ok(found)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_response_is_found_however_it_is_cut(
            sizes in prop::collection::vec(prop_oneof![0_usize..40, 4000_usize..5000, 60_000_usize..200_000], 1..6),
            step in prop_oneof![1_usize..30, 1000_usize..300_000],
        ) {
            let body = |&size: &usize| (0..251).cycle().take(size).collect();
            let bodies: Vec<Vec<u8>> = sizes.iter().map(body).collect();
            let stream: Vec<u8> = (0..).zip(&bodies).flat_map(|(id, body)| encode(id, body)).collect();
            let found = split(&stream, step, LIMIT).unwrap();
            prop_assert_eq!(found.len(), bodies.len());
            for ((id, body), response) in (0..).zip(bodies).zip(found) {
                prop_assert_eq!(response.correlation_id, CorrelationId::new(id));
                prop_assert_eq!(response.outcome, Ok(Bytes::from(body)));
            }
        }

        #[test]
        fn bytes_from_outside_never_panic(stream in prop::collection::vec(any::<u8>(), 0..300), step in 1_usize..50) {
            let _ = split(&stream, step, 1000);
        }
    }

    #[test]
    fn a_large_body_is_not_copied_again() {
        let body = vec![7; 3 * SHARED_BYTES];
        let mut inbound = Inbound::new(BytesMut::new(), LIMIT);
        let stream = encode(1, &body);
        inbound.room().put_slice(&stream[..SHARED_BYTES]);
        assert_eq!(inbound.next_response(|_| true).unwrap(), None);
        let target = inbound.large.as_ref().unwrap().body.as_ptr();
        inbound.room().put_slice(&stream[SHARED_BYTES..]);
        let found = inbound.next_response(|_| true).unwrap().unwrap().outcome.unwrap();
        assert_eq!(found.as_ptr(), target);
        assert_eq!(found, body);
    }

    #[test]
    fn too_long_and_unexpected_responses_allocate_nothing() {
        let mut huge = encode(1, b"");
        huge[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(split(&huge, 3, LIMIT), Err(ConnectionError::ResponseTooLarge { max: LIMIT, .. })));

        let mut unknown = encode(1000, b"");
        unknown[..4].copy_from_slice(&LIMIT.to_be_bytes());
        let id = CorrelationId::new(1000);
        assert!(matches!(split(&unknown, 3, LIMIT), Err(ConnectionError::UnknownCorrelation(found)) if found == id));

        let short = [0, 0, 0, 5, 0, 0, 0, 1, 0, 0];
        assert!(matches!(split(&short, 10, LIMIT), Err(ConnectionError::Malformed(_))));
    }

    #[test]
    fn the_error_of_a_whole_request_comes_with_its_words() {
        let mut stream = BytesMut::new();
        let error = WireError::new(ErrorCode::Overloaded, "busy");
        frame::encode_error_response(CorrelationId::new(3), &error, &mut stream);
        let found = split(&stream, 5, LIMIT).unwrap();
        assert_eq!(found, [Response { correlation_id: CorrelationId::new(3), outcome: Err(error) }]);
    }
}
