//! A newtype for every number with a meaning, so that an offset is never taken for a partition.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Declares a newtype over an integer that may hold any value of that integer.
macro_rules! number {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name($inner);

        impl $name {
            /// Gives the number its meaning.
            #[inline]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }
        }

        number!(@shown $name($inner));
    };
    (@shown $name:ident($inner:ty)) => {
        impl $name {
            /// The bare number.
            #[inline]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

/// Declares a newtype over a signed integer that is never negative: on the wire a negative one means "none" or is
/// an error, and neither is a value of the type.
macro_rules! non_negative {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name($inner);

        impl $name {
            /// The first one.
            pub const ZERO: Self = Self(0);
            /// The last one.
            pub const MAX: Self = Self(<$inner>::MAX);

            /// Gives the number its meaning, for numbers of our own.
            ///
            /// # Panics
            /// When `value` is negative. Numbers from outside go through [`Self::checked`].
            #[inline]
            pub const fn new(value: $inner) -> Self {
                assert!(value >= 0, concat!(stringify!($name), " is never negative"));
                Self(value)
            }

            /// Gives the number its meaning, for numbers from outside: `None` when `value` is negative.
            #[inline]
            pub const fn checked(value: $inner) -> Option<Self> {
                if value < 0 { None } else { Some(Self(value)) }
            }
        }

        number!(@shown $name($inner));
    };
}

non_negative! {
    /// The place of a record in its partition, counted from 0. An end offset is exclusive: one past the last record.
    ///
    /// ```
    /// use ringmq_wire::Offset;
    ///
    /// let next = Offset::new(41).checked_add(1);
    /// assert_eq!(next, Some(Offset::new(42)));
    /// assert_eq!(Offset::checked(-1), None);
    /// ```
    Offset(i64)
}

non_negative! {
    /// How often a partition has had a new leader. Where there may be none, it is an `Option` here and -1 on the wire.
    ///
    /// ```
    /// assert!(ringmq_wire::LeaderEpoch::new(2) > ringmq_wire::LeaderEpoch::ZERO);
    /// ```
    LeaderEpoch(i32)
}

non_negative! {
    /// A broker of the cluster.
    ///
    /// ```
    /// assert_eq!(ringmq_wire::BrokerId::new(1).to_string(), "1");
    /// ```
    BrokerId(i32)
}

non_negative! {
    /// An idempotent producer. The broker gives each a number of its own, once; where there may be none, it is an
    /// `Option` here and -1 on the wire.
    ProducerId(i64)
}

non_negative! {
    /// How often an idempotent producer began anew under its id. What it sent in an earlier epoch is refused.
    ProducerEpoch(i16)
}

non_negative! {
    /// The place of a record among those that an idempotent producer sent to one partition in one epoch, counted from
    /// 0. Behind [`Sequence::MAX`] comes 0 again.
    Sequence(i32)
}

number! {
    /// A partition of a topic, counted from 0.
    ///
    /// ```
    /// use ringmq_wire::PartitionIndex;
    ///
    /// let all: Vec<PartitionIndex> = (0..4).map(PartitionIndex::new).collect();
    /// assert_eq!(all[3].get(), 3);
    /// ```
    PartitionIndex(u32)
}

number! {
    /// A shard of a broker, counted from 0: one pinned executor and what it owns.
    ///
    /// ```
    /// assert_eq!(ringmq_wire::ShardIndex::new(1).get(), 1);
    /// ```
    ShardIndex(u16)
}

number! {
    /// What ties a response to its request on one connection; the client chooses it.
    CorrelationId(u32)
}

number! {
    /// Milliseconds since the Unix epoch, UTC.
    ///
    /// ```
    /// use ringmq_wire::Timestamp;
    ///
    /// let day = Timestamp::new(1_763_820_000_000);
    /// assert!(day < Timestamp::new(day.get() + 1));
    /// ```
    Timestamp(i64)
}

/// A time before 1970 counts as 1970.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

impl Offset {
    /// The offset `records` further on, or `None` past [`Offset::MAX`].
    #[inline]
    pub const fn checked_add(self, records: u64) -> Option<Self> {
        match self.0.checked_add_unsigned(records) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// How many offsets lie in `earlier..self`, or `None` when `earlier` is the later one.
    #[inline]
    pub const fn checked_sub(self, earlier: Self) -> Option<u64> {
        if self.0 < earlier.0 { None } else { Some(self.0.abs_diff(earlier.0)) }
    }

    /// The bare number, unsigned.
    #[inline]
    pub const fn as_u64(self) -> u64 {
        self.0.unsigned_abs()
    }
}

impl ProducerEpoch {
    /// The next one, or `None` behind [`ProducerEpoch::MAX`]: then it takes another id.
    #[inline]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(next) => Some(Self(next)),
            None => None,
        }
    }
}

impl Sequence {
    /// The sequence `records` further on.
    #[inline]
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "the mask leaves 31 bits")]
    pub const fn advance(self, records: u32) -> Self {
        Self((self.0.cast_unsigned().wrapping_add(records) & Self::MASK) as i32)
    }

    /// How many sequences it is from `earlier` to this one, going up: 0 to 2³¹ - 1.
    #[inline]
    pub const fn distance_from(self, earlier: Self) -> u32 {
        self.0.cast_unsigned().wrapping_sub(earlier.0.cast_unsigned()) & Self::MASK
    }

    /// Sequences wrap at 2³¹.
    const MASK: u32 = i32::MAX.cast_unsigned();
}

impl LeaderEpoch {
    /// The epoch behind a number of the wire; negative (-1 by convention) means none.
    #[inline]
    pub const fn from_wire(value: i32) -> Option<Self> {
        Self::checked(value)
    }

    /// The number on the wire: -1 for none.
    #[inline]
    pub const fn to_wire(epoch: Option<Self>) -> i32 {
        match epoch {
            Some(epoch) => epoch.0,
            None => -1,
        }
    }
}

impl PartitionIndex {
    /// The number as an index into a slice.
    #[inline]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl ShardIndex {
    /// The number as an index into a slice.
    #[inline]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// The identity of a topic. A topic that is deleted and created again under its old name gets a new one.
///
/// ```
/// use ringmq_wire::TopicId;
///
/// let id = TopicId::from_bytes([7; 16]);
/// assert_eq!(TopicId::from_bytes(*id.as_bytes()), id);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(Uuid);

impl TopicId {
    /// The cluster's metadata log, which is no topic of any user.
    pub const METADATA: Self = Self(Uuid::from_u128(1));

    /// Takes an identity that was handed out before.
    #[inline]
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// A new identity (UUID version 4) from 16 random bytes; where randomness comes from is the caller's.
    pub const fn from_random_bytes(random: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(random).into_uuid())
    }

    /// The bare UUID.
    #[inline]
    pub const fn get(self) -> Uuid {
        self.0
    }

    /// The 16 bytes that stand for it on the wire and on disk.
    #[inline]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The identity behind 16 bytes from the wire or the disk.
    #[inline]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_from_1970_on() {
        let later = UNIX_EPOCH + std::time::Duration::from_micros(1_500_999);
        assert_eq!(Timestamp::from(later), Timestamp::new(1_500));
        let before = UNIX_EPOCH - std::time::Duration::from_secs(1);
        assert_eq!(Timestamp::from(before), Timestamp::new(0));
    }

    #[test]
    fn an_offset_stops_at_its_ends() {
        assert_eq!(Offset::ZERO.checked_add(5), Some(Offset::new(5)));
        assert_eq!(Offset::MAX.checked_add(1), None);
        assert_eq!(Offset::ZERO.checked_add(u64::MAX), None);
        assert_eq!(Offset::new(7).checked_sub(Offset::new(5)), Some(2));
        assert_eq!(Offset::new(5).checked_sub(Offset::new(7)), None);
        assert_eq!(Offset::checked(-1), None);
        assert_eq!(Offset::MAX.as_u64(), 9_223_372_036_854_775_807);
    }

    #[test]
    fn no_leader_epoch_is_minus_one_on_the_wire() {
        assert_eq!(LeaderEpoch::to_wire(None), -1);
        assert_eq!(LeaderEpoch::from_wire(-1), None);
        assert_eq!(LeaderEpoch::from_wire(LeaderEpoch::to_wire(Some(LeaderEpoch::new(3)))), Some(LeaderEpoch::new(3)));
    }

    #[test]
    fn sequences_wrap_behind_the_last_one() {
        assert_eq!(Sequence::MAX.advance(1), Sequence::ZERO);
        assert_eq!(Sequence::new(5).advance(0), Sequence::new(5));
        assert_eq!(Sequence::new(i32::MAX - 1).advance(4), Sequence::new(2));
        assert_eq!(Sequence::new(2).distance_from(Sequence::new(i32::MAX - 1)), 4);
        assert_eq!(Sequence::new(i32::MAX - 1).distance_from(Sequence::new(2)), i32::MAX.cast_unsigned() - 3);
        assert_eq!(ProducerEpoch::new(3).next(), Some(ProducerEpoch::new(4)));
        assert_eq!(ProducerEpoch::MAX.next(), None);
    }

    #[test]
    fn numbers_show_as_themselves() {
        assert_eq!(PartitionIndex::new(3).to_string(), "3");
        assert_eq!(format!("{:?}", Offset::new(3)), "Offset(3)");
        assert_eq!(TopicId::METADATA.to_string(), "00000000-0000-0000-0000-000000000001");
    }

    #[test]
    fn a_random_topic_id_is_a_version_4_uuid_and_never_the_metadata_log() {
        let id = TopicId::from_random_bytes([0; 16]);
        assert_eq!(id.get().get_version_num(), 4);
        assert_ne!(id, TopicId::METADATA);
    }
}
