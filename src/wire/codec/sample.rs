//! A proptest strategy for every type with a layout, so that a new message is covered the moment it is declared.

use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use crate::error::{Detail, ErrorCode};
use crate::numbers::{
    BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, ShardIndex, Timestamp, TopicId,
};
use crate::protocol::{Acks, Hello, OffsetSpec, TypeVersions};
use crate::topic_name::TopicName;

/// Values of the type, small ones for preference.
pub(crate) trait Sample: Sized {
    fn sample() -> BoxedStrategy<Self>;
}

macro_rules! samples {
    ($($type:ty => $strategy:expr;)*) => {$(
        impl Sample for $type {
            fn sample() -> BoxedStrategy<Self> {
                $strategy.boxed()
            }
        }
    )*};
}

samples! {
    u8 => any::<u8>();
    u16 => any::<u16>();
    u32 => any::<u32>();
    u64 => any::<u64>();
    bool => any::<bool>();
    Uuid => any::<u128>().prop_map(Uuid::from_u128);
    String => "\\PC{0,20}";
    Detail => "\\PC{0,20}".prop_map(Detail::from);
    TopicName => "[a-zA-Z0-9_-]{1,20}".prop_map(|text| TopicName::parse(&text).expect("a valid name"));
    ErrorCode => proptest::sample::select(ErrorCode::ALL);
    TopicId => any::<[u8; 16]>().prop_map(TopicId::from_bytes);
    Offset => (0..=i64::MAX).prop_map(Offset::new);
    LeaderEpoch => (0..=i32::MAX).prop_map(LeaderEpoch::new);
    BrokerId => (0..=i32::MAX).prop_map(BrokerId::new);
    ProducerId => (0..=i64::MAX).prop_map(ProducerId::new);
    ProducerEpoch => (0..=i16::MAX).prop_map(ProducerEpoch::new);
    PartitionIndex => any::<u32>().prop_map(PartitionIndex::new);
    ShardIndex => any::<u16>().prop_map(ShardIndex::new);
    Timestamp => any::<i64>().prop_map(Timestamp::new);
    Acks => proptest::sample::select(vec![Acks::None, Acks::Leader, Acks::All]);
    Hello => (Vec::<TypeVersions>::sample(), any::<u32>(), any::<u32>()).prop_map(
        |(request_types, request_bytes_max, in_flight_max)| Hello { request_types, request_bytes_max, in_flight_max },
    );
    OffsetSpec => prop_oneof![
        Just(OffsetSpec::Earliest),
        Just(OffsetSpec::Latest),
        any::<i64>().prop_map(|at| OffsetSpec::Timestamp(Timestamp::new(at))),
    ];
}

impl<T: Sample + std::fmt::Debug + 'static> Sample for Vec<T> {
    fn sample() -> BoxedStrategy<Self> {
        vec(T::sample(), 0..4).boxed()
    }
}

impl<T: Sample + std::fmt::Debug + 'static> Sample for Option<T> {
    fn sample() -> BoxedStrategy<Self> {
        proptest::option::of(T::sample()).boxed()
    }
}
