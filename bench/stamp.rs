//! What a batch says of itself to whoever receives it: which one it is, and when it was due.

use std::time::Duration;

/// How long a stamp is.
pub(crate) const STAMP_BYTES: usize = 16;

/// A batch's producer, number and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which producer of the run sent it.
    pub(crate) producer: u16,
    /// The how manieth batch of that producer it is; less than 2^48.
    pub(crate) number: u64,
    /// When it was due, from the start of the run on: less than 2^64 ns.
    pub(crate) due: Duration,
}

impl Stamp {
    pub(crate) fn encode(&self) -> [u8; STAMP_BYTES] {
        let due = u64::try_from(self.due.as_nanos()).unwrap_or(u64::MAX);
        let batch = u64::from(self.producer) << 48 | self.number & (u64::MAX >> 16);
        (u128::from(batch) << 64 | u128::from(due)).to_be_bytes()
    }

    #[allow(clippy::cast_possible_truncation, reason = "each takes its own bits")]
    pub(crate) fn decode(bytes: [u8; STAMP_BYTES]) -> Self {
        let bits = u128::from_be_bytes(bytes);
        let (batch, due) = ((bits >> 64) as u64, bits as u64);
        Self { producer: (batch >> 48) as u16, number: batch & (u64::MAX >> 16), due: Duration::from_nanos(due) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_as_it_was() {
        for (producer, number, ns) in [(0, 0, 0), (3, 70_000, 12_345_678_901), (u16::MAX, (1 << 48) - 1, u64::MAX)] {
            let stamp = Stamp { producer, number, due: Duration::from_nanos(ns) };
            assert_eq!(Stamp::decode(stamp.encode()), stamp);
        }
    }
}
