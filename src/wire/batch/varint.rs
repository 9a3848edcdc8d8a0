//! Variable-length numbers: zigzag, then 7 bits a byte, lowest first, the high bit set on all but the last (as in
//! Protocol Buffers' `sint32` and `sint64`).

use bytes::BufMut;

/// How many bytes a number takes.
#[inline]
pub(super) const fn varlong_bytes(value: i64) -> usize {
    // 1 to 64 significant bits, 7 to a byte; `| 1` gives zero its one byte.
    let bits = u64::BITS - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// How many bytes a number takes.
#[inline]
pub(super) fn varint_bytes(value: i32) -> usize {
    varlong_bytes(value.into())
}

/// Appends a number.
#[inline]
pub(super) fn put_varlong(value: i64, out: &mut impl BufMut) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8((rest & 0x7f) as u8);
}

/// Appends a number.
#[inline]
pub(super) fn put_varint(value: i32, out: &mut impl BufMut) {
    put_varlong(value.into(), out);
}

/// Takes a number of 64 bits off the front: `None` when the bytes end within it, or it has more bits.
#[inline]
pub(super) fn take_varlong(bytes: &mut &[u8]) -> Option<i64> {
    let mut zigzag = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        zigzag |= bits << shift;
        if byte < 0x80 {
            return Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
        }
    }
    None
}

/// Takes a number of 32 bits off the front: `None` when the bytes end within it, or it has more bits.
#[inline]
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<i32> {
    // Most lengths and deltas are small; one byte is the common case.
    if let Some((&byte, rest)) = bytes.split_first()
        && byte < 0x80
    {
        *bytes = rest;
        let zigzag = i32::from(byte);
        return Some((zigzag >> 1) ^ -(zigzag & 1));
    }
    i32::try_from(take_varlong(bytes)?).ok()
}

#[inline]
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_known_encodings() {
        let cases: [(i64, &[u8]); 9] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (i32::MAX.into(), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN.into(), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ];
        for (value, bytes) in cases {
            let mut out = Vec::new();
            put_varlong(value, &mut out);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(take_varlong(&mut &*out), Some(value));
        }
    }

    #[test]
    fn a_number_that_runs_on_or_ends_early_is_none() {
        assert_eq!(take_varint(&mut &[][..]), None);
        assert_eq!(take_varint(&mut &[0x80][..]), None);
        assert_eq!(take_varint(&mut &[0x80, 0x80, 0x80, 0x80, 0x10][..]), None, "33 bits");
        assert_eq!(take_varint(&mut &[0xff; 16][..]), None);
        assert_eq!(
            take_varlong(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]),
            None,
            "65 bits"
        );
        assert_eq!(take_varlong(&mut &[0x80; 11][..]), None);
    }

    proptest! {
        #[test]
        fn a_number_comes_back_and_takes_as_many_bytes_as_foretold(value: i64) {
            let mut out = Vec::new();
            put_varlong(value, &mut out);
            prop_assert_eq!(out.len(), varlong_bytes(value));
            let mut rest = &*out;
            prop_assert_eq!(take_varlong(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
            prop_assert_eq!(take_varint(&mut &*out), i32::try_from(value).ok());
        }

        #[test]
        fn any_bytes_are_a_number_or_none(bytes: Vec<u8>) {
            let mut rest = &*bytes;
            while take_varlong(&mut rest).is_some() {}
            let mut rest = &*bytes;
            while take_varint(&mut rest).is_some() {}
        }
    }
}
