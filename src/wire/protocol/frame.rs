//! Frames: the length, the type and the correlation id around every request and response.

use bytes::{BufMut, BytesMut};

use super::{Message, Request, RequestType, SectionHead};
use crate::codec::{Codec, DecodeError, put_with_length};
use crate::error::{Detail, ErrorCode, WireError};
use crate::numbers::CorrelationId;

/// What stands in front of a request's body, in bytes: length, type, version, correlation id.
pub const REQUEST_HEAD_BYTES: usize = 4 + 2 + 2 + 4;

/// What stands in front of a response's body, in bytes: length, correlation id, error code.
pub const RESPONSE_HEAD_BYTES: usize = 4 + 4 + 2;

/// The longest request that carries no records: what its frame's length may say, in bytes. Such a request is held in
/// memory as a whole and decodes to several times its size.
pub const CONTROL_REQUEST_BYTES_MAX: u32 = 1024 * 1024;

/// The part of a head that its length counts.
const REQUEST_COUNTED_BYTES: u32 = 2 + 2 + 4;
const RESPONSE_COUNTED_BYTES: u32 = 4 + 2;

/// What stands in front of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The length of the body, in bytes; sections count.
    pub body_bytes: u32,
    /// The number of the type, known or not.
    pub request_type: u16,
    /// The version of the type.
    pub type_version: u16,
    /// What the response must carry.
    pub correlation_id: CorrelationId,
}

/// What stands in front of a response's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The length of the body, in bytes; sections count.
    pub body_bytes: u32,
    /// Which request is answered.
    pub correlation_id: CorrelationId,
    /// Why the request as a whole failed; the body is then the detail. With [`ErrorCode::None`] the body is the
    /// response, which has error codes of its own for each part.
    pub error: ErrorCode,
}

/// A frame that cannot be taken or sent. A receiver cannot find the next frame behind it: it answers, then closes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length leaves no room for the head.
    #[error("the frame's length is {length} bytes, but its head alone takes {length_min}")]
    TooShort {
        /// The length.
        length: u32,
        /// The least that it can be.
        length_min: u32,
    },
    /// The length is beyond what the receiver takes.
    #[error("the frame's length is {length} bytes, but at most {length_max} are taken; send smaller requests")]
    TooLong {
        /// The length.
        length: u64,
        /// The limit.
        length_max: u32,
        /// Which request it is.
        correlation_id: CorrelationId,
    },
}

impl FrameError {
    /// The code that the sender of the frame gets to see.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooShort { .. } => ErrorCode::MalformedRequest,
            Self::TooLong { .. } => ErrorCode::RequestTooLarge,
        }
    }
}

impl From<&FrameError> for WireError {
    fn from(error: &FrameError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl RequestHead {
    /// The type of the request, if it and its version are known here.
    ///
    /// # Errors
    /// [`ErrorCode::UnsupportedRequestType`] or [`ErrorCode::UnsupportedVersion`], with the numbers.
    pub fn known_type(&self) -> Result<RequestType, WireError> {
        let Some(request_type) = RequestType::from_u16(self.request_type) else {
            let detail = format!("the broker does not know requests of type {}", self.request_type);
            return Err(WireError::new(ErrorCode::UnsupportedRequestType, detail));
        };
        let versions = request_type.versions();
        if !versions.contains(&self.type_version) {
            let (min, max) = versions.into_inner();
            let detail = format!(
                "the broker speaks versions {min} to {max} of {request_type}, not version {}",
                self.type_version
            );
            return Err(WireError::new(ErrorCode::UnsupportedVersion, detail));
        }
        Ok(request_type)
    }
}

/// What the length of a request's frame may say at most, in bytes: `length_max`, the hello's `request_bytes_max`; and
/// [`CONTROL_REQUEST_BYTES_MAX`], if it is not a Produce request.
#[inline]
pub const fn request_length_max(request_type: Option<RequestType>, length_max: u32) -> u32 {
    match request_type {
        Some(RequestType::Produce) => length_max,
        _ if length_max < CONTROL_REQUEST_BYTES_MAX => length_max,
        _ => CONTROL_REQUEST_BYTES_MAX,
    }
}

/// Decodes the [`REQUEST_HEAD_BYTES`] at the start of `bytes`, or gives `None` until they are all there. A frame's
/// length may be what [`request_length_max`] says of its type and `length_max`, the hello's `request_bytes_max`.
///
/// # Errors
/// When the length is impossible or too large.
#[inline]
pub fn decode_request_head(bytes: &[u8], length_max: u32) -> Result<Option<RequestHead>, FrameError> {
    let Some(length) = decode_length(bytes, REQUEST_COUNTED_BYTES)? else { return Ok(None) };
    let Some(&[_, _, _, _, t1, t0, v1, v0, c3, c2, c1, c0]) = bytes.first_chunk::<REQUEST_HEAD_BYTES>() else {
        return Ok(None);
    };
    let correlation_id = CorrelationId::new(u32::from_be_bytes([c3, c2, c1, c0]));
    let request_type = u16::from_be_bytes([t1, t0]);
    check_length(length.into(), request_length_max(RequestType::from_u16(request_type), length_max), correlation_id)?;
    Ok(Some(RequestHead {
        body_bytes: length - REQUEST_COUNTED_BYTES,
        request_type,
        type_version: u16::from_be_bytes([v1, v0]),
        correlation_id,
    }))
}

/// Decodes the [`RESPONSE_HEAD_BYTES`] at the start of `bytes`, or gives `None` until they are all there. A frame's
/// length may be `length_max` at most: what the client is ready to hold.
///
/// # Errors
/// When the length is impossible or too large.
#[inline]
pub fn decode_response_head(bytes: &[u8], length_max: u32) -> Result<Option<ResponseHead>, FrameError> {
    let Some(length) = decode_length(bytes, RESPONSE_COUNTED_BYTES)? else { return Ok(None) };
    let Some(&[_, _, _, _, c3, c2, c1, c0, e1, e0]) = bytes.first_chunk::<RESPONSE_HEAD_BYTES>() else {
        return Ok(None);
    };
    let correlation_id = CorrelationId::new(u32::from_be_bytes([c3, c2, c1, c0]));
    check_length(length.into(), length_max, correlation_id)?;
    Ok(Some(ResponseHead {
        body_bytes: length - RESPONSE_COUNTED_BYTES,
        correlation_id,
        error: ErrorCode::from_u16(u16::from_be_bytes([e1, e0])),
    }))
}

/// Decodes the body of a response whose head carries an error.
///
/// # Errors
/// When it is not a detail.
pub fn decode_error_body(error: ErrorCode, body: &[u8]) -> Result<WireError, DecodeError> {
    Ok(WireError { code: error, detail: Detail::decode_whole(body)? })
}

/// Appends a whole request.
///
/// # Errors
/// When a frame cannot be that long; `out` is then as it was.
pub fn encode_request<R: Request + Message>(
    id: CorrelationId,
    request: &R,
    out: &mut BytesMut,
) -> Result<(), FrameError> {
    put_frame(id, 0, out, |out| {
        put_request_head::<R>(id, out);
        request.encode(out);
    })
}

/// Appends a request up to its sections, which the caller sends behind it.
///
/// # Errors
/// When the head or the frame cannot be that long; `out` is then as it was.
pub fn encode_request_head<R: Request + SectionHead>(
    id: CorrelationId,
    head: &R,
    out: &mut BytesMut,
) -> Result<(), FrameError> {
    put_section_frame(id, head, out, |out| put_request_head::<R>(id, out))
}

/// Appends a whole response.
///
/// # Errors
/// When a frame cannot be that long; `out` is then as it was.
pub fn encode_response<M: Message>(id: CorrelationId, response: &M, out: &mut BytesMut) -> Result<(), FrameError> {
    put_frame(id, 0, out, |out| {
        put_response_head(id, ErrorCode::None, out);
        response.encode(out);
    })
}

/// Appends a response up to its sections, which the caller sends behind it.
///
/// # Errors
/// When the head or the frame cannot be that long; `out` is then as it was.
pub fn encode_response_head<M: SectionHead>(id: CorrelationId, head: &M, out: &mut BytesMut) -> Result<(), FrameError> {
    put_section_frame(id, head, out, |out| put_response_head(id, ErrorCode::None, out))
}

/// Appends the response to a request that failed as a whole.
pub fn encode_error_response(id: CorrelationId, error: &WireError, out: &mut BytesMut) {
    put_with_length(out, 0, |out| {
        put_response_head(id, error.code, out);
        error.detail.encode(out);
    })
    .expect("a detail is 1 KiB at most");
}

fn decode_length(bytes: &[u8], length_min: u32) -> Result<Option<u32>, FrameError> {
    let Some(length) = bytes.first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes(*length);
    if length < length_min { Err(FrameError::TooShort { length, length_min }) } else { Ok(Some(length)) }
}

fn check_length(length: u64, length_max: u32, correlation_id: CorrelationId) -> Result<(), FrameError> {
    if length > length_max.into() {
        return Err(FrameError::TooLong { length, length_max, correlation_id });
    }
    Ok(())
}

fn put_request_head<R: Request>(id: CorrelationId, out: &mut BytesMut) {
    out.put_u16(R::TYPE.to_u16());
    out.put_u16(*R::TYPE.versions().end());
    out.put_u32(id.get());
}

fn put_response_head(id: CorrelationId, error: ErrorCode, out: &mut BytesMut) {
    out.put_u32(id.get());
    out.put_u16(error.to_u16());
}

fn put_frame(
    id: CorrelationId,
    section_bytes: u64,
    out: &mut BytesMut,
    put: impl FnOnce(&mut BytesMut),
) -> Result<(), FrameError> {
    match put_with_length(out, section_bytes, put) {
        Ok(_) => Ok(()),
        Err(length) => Err(FrameError::TooLong { length, length_max: u32::MAX, correlation_id: id }),
    }
}

fn put_section_frame<H: SectionHead>(
    id: CorrelationId,
    head: &H,
    out: &mut BytesMut,
    put_frame_head: impl FnOnce(&mut BytesMut),
) -> Result<(), FrameError> {
    let start = out.len();
    let mut head_length = Ok(0);
    put_frame(id, head.section_bytes(), out, |out| {
        put_frame_head(out);
        head_length = put_with_length(out, 0, |out| head.encode(out));
    })?;
    let length = head_length.map_or_else(|length| length, u64::from);
    check_length(length, H::HEAD_BYTES_MAX, id).inspect_err(|_| out.truncate(start))
}
