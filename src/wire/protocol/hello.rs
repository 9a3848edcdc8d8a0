//! The broker's hello: what it speaks and how much it takes.

use std::ops::RangeInclusive;

use bytes::{BufMut, BytesMut};

use super::RequestType;
use crate::codec::{Codec, DecodeError, DecodeProblem, Reader, layout, put_with_length};

/// The longest hello that a client takes, in bytes.
pub const HELLO_BYTES_MAX: usize = 64 * 1024;

layout! {
    /// The versions that the broker speaks of one type of request.
    pub struct TypeVersions {
        /// The type's number. A client may not know it.
        pub request_type: u16,
        /// The lowest version.
        pub version_min: u16,
        /// The highest version.
        pub version_max: u16,
    }
}

/// What follows the broker's preamble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Every type of request that the broker knows.
    pub request_types: Vec<TypeVersions>,
    /// The longest request that the broker takes: what a frame's length may say, in bytes.
    pub request_bytes_max: u32,
    /// How many requests of one connection the broker works on at once; it reads no further meanwhile.
    pub in_flight_max: u32,
}

impl Hello {
    /// The hello of a broker that speaks all that this crate does.
    pub fn current(request_bytes_max: u32, in_flight_max: u32) -> Self {
        let request_types = RequestType::ALL.map(|request_type| TypeVersions {
            request_type: request_type.to_u16(),
            version_min: *request_type.versions().start(),
            version_max: *request_type.versions().end(),
        });
        Self { request_types: request_types.to_vec(), request_bytes_max, in_flight_max }
    }

    /// The versions that the broker speaks of a type, if it knows the type.
    pub fn versions(&self, request_type: RequestType) -> Option<RangeInclusive<u16>> {
        let known = self.request_types.iter().find(|known| known.request_type == request_type.to_u16())?;
        Some(known.version_min..=known.version_max)
    }

    /// Appends the hello with its length in front, as it stands on the wire.
    ///
    /// # Panics
    /// With more than 65,535 types of request.
    pub fn encode_with_length(&self, out: &mut BytesMut) {
        put_with_length(out, 0, |out| self.encode(out)).expect("65,535 types take less than 2^32 bytes");
    }

    /// Decodes a hello with its length in front, of which `bytes` has arrived. Gives the hello and how many bytes it
    /// took, or `None` until the whole of it is there.
    ///
    /// # Errors
    /// When it is longer than [`HELLO_BYTES_MAX`] or cannot be decoded.
    pub fn decode_with_length(bytes: &[u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.remaining() < 4 {
            return Ok(None);
        }
        let length = u32::decode(&mut reader)? as usize;
        if length > HELLO_BYTES_MAX {
            let problem = DecodeProblem::TooLong { bytes: length, bytes_max: HELLO_BYTES_MAX };
            return Err(reader.error("hello", problem));
        }
        if reader.remaining() < length {
            return Ok(None);
        }
        let hello = Self::decode_whole(reader.take(length, "hello")?)?;
        Ok(Some((hello, reader.position())))
    }
}

impl Codec for Hello {
    const BYTES_MIN: usize = 2 + 4 + 4;

    /// # Panics
    /// With more than 65,535 types of request.
    fn encode(&self, out: &mut BytesMut) {
        out.put_u16(u16::try_from(self.request_types.len()).expect("a few types of request"));
        for versions in &self.request_types {
            versions.encode(out);
        }
        out.put_u32(self.request_bytes_max);
        out.put_u32(self.in_flight_max);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        // A u16 count of items of 6 bytes claims 393 KB at most, and the items are only kept as they are decoded.
        let count = u16::decode(reader).map_err(|error| error.in_field("Hello.request_types"))?;
        let request_types = (0..count).map(|_| TypeVersions::decode(reader)).collect::<Result<_, _>>()?;
        let request_bytes_max = u32::decode(reader).map_err(|error| error.in_field("Hello.request_bytes_max"))?;
        let in_flight_max = u32::decode(reader).map_err(|error| error.in_field("Hello.in_flight_max"))?;
        Ok(Self { request_types, request_bytes_max, in_flight_max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_arrives_in_pieces() {
        let hello = Hello::current(64 << 20, 128);
        let mut bytes = BytesMut::new();
        hello.encode_with_length(&mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(Hello::decode_with_length(&bytes[..end]), Ok(None), "after {end} bytes");
        }
        assert_eq!(Hello::decode_with_length(&bytes), Ok(Some((hello, bytes.len()))));
    }

    #[test]
    fn a_hello_names_the_versions_of_each_type() {
        let hello = Hello::current(1, 1);
        assert_eq!(hello.versions(RequestType::Fetch), Some(1..=1));
        let none = Hello { request_types: Vec::new(), ..hello };
        assert_eq!(none.versions(RequestType::Fetch), None);
    }

    #[test]
    fn a_hello_of_endless_length_is_refused_before_it_is_awaited() {
        let error = Hello::decode_with_length(&[0xff; 4]).expect_err("too long");
        assert!(matches!(error.problem, DecodeProblem::TooLong { .. }));
    }

    #[test]
    fn a_hello_that_claims_more_types_than_it_holds_is_refused() {
        let error = Hello::decode_whole(&[0xff, 0xff, 0, 1, 0, 1, 0, 1]).expect_err("truncated");
        assert_eq!(error.field, "TypeVersions.request_type");
    }
}
