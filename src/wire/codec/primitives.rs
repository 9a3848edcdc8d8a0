//! The layouts of everything that is not a struct.

use bytes::{BufMut, BytesMut};
use uuid::Uuid;

use super::{Codec, DecodeError, DecodeProblem, Reader};
use crate::error::{DETAIL_BYTES_MAX, Detail, ErrorCode};
use crate::numbers::{
    BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, ShardIndex, Timestamp, TopicId,
};
use crate::topic_name::TopicName;

/// The longest string that a decoder takes, in bytes. The encoder cuts a longer one to what its length prefix can
/// say, 65,535, so that every decoder refuses it: it never arrives shortened.
pub const STRING_BYTES_MAX: usize = 32_767;

macro_rules! integers {
    ($($type:ident $put:ident)*) => {$(
        impl Codec for $type {
            const BYTES_MIN: usize = size_of::<$type>();

            #[inline]
            fn encode(&self, out: &mut BytesMut) {
                out.$put(*self);
            }

            #[inline]
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self::from_be_bytes(reader.take_array(stringify!($type))?))
            }
        }
    )*};
}

integers! { u8 put_u8  u16 put_u16  u32 put_u32  u64 put_u64  i16 put_i16  i32 put_i32  i64 put_i64 }

macro_rules! newtypes {
    ($($type:ident($inner:ty))*) => {$(
        impl Codec for $type {
            const BYTES_MIN: usize = size_of::<$inner>();

            #[inline]
            fn encode(&self, out: &mut BytesMut) {
                self.get().encode(out);
            }

            #[inline]
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                <$inner>::decode(reader).map($type::new)
            }
        }
    )*};
}

newtypes! { PartitionIndex(u32) ShardIndex(u16) Timestamp(i64) TopicId(Uuid) }

macro_rules! non_negative_numbers {
    ($($type:ident($inner:ty))*) => {$(
        impl Codec for $type {
            const BYTES_MIN: usize = size_of::<$inner>();

            #[inline]
            fn encode(&self, out: &mut BytesMut) {
                self.get().encode(out);
            }

            #[inline]
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let before = reader.clone();
                let value = <$inner>::decode(reader)?;
                $type::checked(value)
                    .ok_or_else(|| before.error(stringify!($type), DecodeProblem::Value { value: value.into() }))
            }
        }
    )*};
}

non_negative_numbers! { Offset(i64) LeaderEpoch(i32) BrokerId(i32) ProducerId(i64) ProducerEpoch(i16) }

impl Codec for bool {
    const BYTES_MIN: usize = 1;

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(*self));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let before = reader.clone();
        match u8::decode(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(before.error("bool", DecodeProblem::Value { value: value.into() })),
        }
    }
}

impl Codec for Uuid {
    const BYTES_MIN: usize = 16;

    fn encode(&self, out: &mut BytesMut) {
        out.put_slice(self.as_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::from_bytes(reader.take_array("uuid")?))
    }
}

impl Codec for ErrorCode {
    const BYTES_MIN: usize = 2;

    fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.to_u16());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        u16::decode(reader).map(Self::from_u16)
    }
}

impl Codec for String {
    const BYTES_MIN: usize = 2;

    fn encode(&self, out: &mut BytesMut) {
        encode_str(self, out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        decode_str(reader, STRING_BYTES_MAX).map(str::to_owned)
    }
}

impl Codec for Detail {
    const BYTES_MIN: usize = 2;

    fn encode(&self, out: &mut BytesMut) {
        encode_str(self, out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        decode_str(reader, DETAIL_BYTES_MAX).map(Self::from)
    }
}

impl Codec for TopicName {
    const BYTES_MIN: usize = 2 + 1;

    fn encode(&self, out: &mut BytesMut) {
        encode_str(self, out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let before = reader.clone();
        let text = decode_str(reader, STRING_BYTES_MAX)?;
        Self::parse(text).map_err(|error| before.error("topic name", error.into()))
    }
}

impl<T: Codec> Codec for Vec<T> {
    const BYTES_MIN: usize = 4;

    /// # Panics
    /// With 2^32 items or more: no machine holds so many of any type that has a layout.
    fn encode(&self, out: &mut BytesMut) {
        out.put_u32(u32::try_from(self.len()).expect("fewer than 2^32 items"));
        for item in self {
            item.encode(out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = reader.count::<T>()?;
        let mut items = Self::with_capacity(count);
        for _ in 0..count {
            items.push(T::decode(reader)?);
        }
        Ok(items)
    }
}

impl<T: Codec> Codec for Option<T> {
    const BYTES_MIN: usize = 1;

    fn encode(&self, out: &mut BytesMut) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if bool::decode(reader)? { T::decode(reader).map(Some) } else { Ok(None) }
    }
}

/// A string's bound, [`STRING_BYTES_MAX`] or less, is checked by whoever decodes it. One of 64 KiB and more is cut where a
/// character begins, so that the message can be decoded, and the string is refused for its length.
fn encode_str(text: &str, out: &mut BytesMut) {
    let mut bytes = text.len().min(u16::MAX.into());
    while !text.is_char_boundary(bytes) {
        bytes -= 1;
    }
    out.put_u16(u16::try_from(bytes).unwrap_or(u16::MAX));
    out.put_slice(&text.as_bytes()[..bytes]);
}

fn decode_str<'a>(reader: &mut Reader<'a>, bytes_max: usize) -> Result<&'a str, DecodeError> {
    let before = reader.clone();
    let bytes = usize::from(u16::decode(reader)?);
    if bytes > bytes_max {
        return Err(before.error("string", DecodeProblem::TooLong { bytes, bytes_max }));
    }
    std::str::from_utf8(reader.take(bytes, "string")?).map_err(|_| before.error("string", DecodeProblem::Utf8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::DecodeProblem;

    #[test]
    fn a_string_that_is_far_too_long_is_refused_for_its_length() {
        let mut out = BytesMut::new();
        "ä".repeat(40_000).encode(&mut out);
        let error = String::decode_whole(&out).unwrap_err();
        let expected = DecodeProblem::TooLong { bytes: 65_534, bytes_max: STRING_BYTES_MAX };
        assert_eq!(error.problem, expected, "cut before the character that would not be whole");
        assert_eq!(out.len(), 2 + 65_534);
    }
}
