//! Fields of Kafka's protocol, in the versions without tagged fields.

use std::io;

use bytes::{BufMut, BytesMut};

use crate::connection::invalid;

/// Reads fields one after the other; `None` where the bytes end before.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    taken: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, taken: 0 }
    }

    /// How many bytes were read.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.bytes.get(self.taken..)?.first_chunk::<N>()?;
        self.taken += N;
        Some(taken)
    }

    pub(super) fn i8(&mut self) -> Option<i8> {
        self.take().map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    /// A string, or none; bytes that are no text are shown as well as they can be.
    pub(super) fn string(&mut self) -> Option<Option<String>> {
        let Ok(length) = usize::try_from(self.i16()?) else { return Some(None) };
        let bytes = self.bytes.get(self.taken..self.taken + length)?;
        self.taken += length;
        Some(Some(String::from_utf8_lossy(bytes).into_owned()))
    }

    /// An array, whose elements are read by `element`.
    pub(super) fn array<T>(&mut self, mut element: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut elements = Vec::new();
        // Its length is only believed as far as there are elements.
        for _ in 0..self.i32()?.max(0) {
            elements.push(element(self)?);
        }
        Some(elements)
    }
}

/// Appends a string.
pub(super) fn put_string(text: &str, out: &mut BytesMut) -> io::Result<()> {
    out.put_i16(i16::try_from(text.len()).map_err(invalid)?);
    out.put_slice(text.as_bytes());
    Ok(())
}

/// Appends the length of an array.
pub(super) fn put_length(length: usize, out: &mut BytesMut) -> io::Result<()> {
    out.put_i32(i32::try_from(length).map_err(invalid)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_what_ends_too_soon_is_none() {
        let mut out = BytesMut::new();
        out.put_i8(-1);
        out.put_i64(7);
        put_string("héllo", &mut out).unwrap();
        out.put_i16(-1);
        put_length(2, &mut out).unwrap();
        out.put_i32(3);
        out.put_i32(4);
        let read = |bytes: &[u8]| {
            let mut fields = Fields::of(bytes);
            let found = (fields.i8()?, fields.i64()?, fields.string()?, fields.string()?, fields.array(Fields::i32)?);
            Some((found, fields.taken()))
        };
        let expected = (-1, 7, Some("héllo".to_owned()), None, vec![3, 4]);
        assert_eq!(read(&out), Some((expected, out.len())));
        for length in 0..out.len() {
            assert_eq!(read(&out[..length]), None, "{length}");
        }
        // Lengths that nothing follows cost nothing.
        assert_eq!(Fields::of(&i32::MAX.to_be_bytes()).array(Fields::i8), None);
        assert_eq!(Fields::of(&i16::MAX.to_be_bytes()).string(), None);
    }
}
