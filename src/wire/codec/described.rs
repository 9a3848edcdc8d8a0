//! Every layout as the documents name it, and its values as the test vectors write them.

use serde_json::Value;
use uuid::Uuid;

use crate::error::{Detail, ErrorCode};
use crate::numbers::{
    BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, ShardIndex, Timestamp, TopicId,
};
use crate::protocol::{Acks, Hello, OffsetSpec, TypeVersions};
use crate::topic_name::TopicName;

/// A type that `docs/formats/native-protocol.md` describes and `tests/vectors/protocol.json` has examples of.
pub(crate) trait Described: Sized {
    /// What the document calls the type.
    fn type_name() -> String;

    /// The rows of a struct's table: names and types of its fields.
    fn fields() -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The value that a vector means. A vector that does not fit fails its test.
    fn from_json(json: &Value) -> Self;
}

macro_rules! described {
    ($($type:ident $name:literal $from_json:expr;)*) => {$(
        impl Described for $type {
            fn type_name() -> String {
                $name.to_owned()
            }

            fn from_json(json: &Value) -> Self {
                let from_json: fn(&Value) -> Option<Self> = $from_json;
                from_json(json).unwrap_or_else(|| panic!("{json} is no {}", $name))
            }
        }
    )*};
}

described! {
    u8 "u8" |json| json.as_u64()?.try_into().ok();
    u16 "u16" |json| json.as_u64()?.try_into().ok();
    u32 "u32" |json| json.as_u64()?.try_into().ok();
    u64 "u64" |json| json.as_u64();
    bool "bool" |json| json.as_bool();
    String "string" |json| json.as_str().map(str::to_owned);
    Detail "detail" |json| json.as_str().map(Self::from);
    TopicName "topic name" |json| Self::parse(json.as_str()?).ok();
    Uuid "uuid" |json| Self::parse_str(json.as_str()?).ok();
    TopicId "topic id" |json| Uuid::parse_str(json.as_str()?).ok().map(Self::new);
    Offset "offset" |json| Self::checked(json.as_i64()?);
    Timestamp "timestamp" |json| json.as_i64().map(Self::new);
    PartitionIndex "partition" |json| Some(Self::new(json.as_u64()?.try_into().ok()?));
    ShardIndex "shard" |json| Some(Self::new(json.as_u64()?.try_into().ok()?));
    BrokerId "broker id" |json| Self::checked(json.as_i64()?.try_into().ok()?);
    LeaderEpoch "leader epoch" |json| Self::checked(json.as_i64()?.try_into().ok()?);
    ProducerId "producer id" |json| Self::checked(json.as_i64()?);
    ProducerEpoch "producer epoch" |json| Self::checked(json.as_i64()?.try_into().ok()?);
    ErrorCode "error code" |json| {
        Self::ALL.iter().copied().find(|code| Some(code.name()) == json.as_str())
    };
    Acks "acks" |json| match json.as_str()? {
        "none" => Some(Self::None),
        "leader" => Some(Self::Leader),
        "all" => Some(Self::All),
        _ => None,
    };
    OffsetSpec "offset spec" |json| match json.as_str() {
        Some("earliest") => Some(Self::Earliest),
        Some("latest") => Some(Self::Latest),
        Some(_) => None,
        None => json["timestamp"].as_i64().map(|at| Self::Timestamp(Timestamp::new(at))),
    };
    Hello "hello" |json| Some(Self {
        request_types: Vec::<TypeVersions>::from_json(&json["request_types"]),
        request_bytes_max: u32::from_json(&json["request_bytes_max"]),
        in_flight_max: u32::from_json(&json["in_flight_max"]),
    });
}

impl<T: Described> Described for Vec<T> {
    fn type_name() -> String {
        format!("array of {}", T::type_name())
    }

    fn from_json(json: &Value) -> Self {
        json.as_array().unwrap_or_else(|| panic!("{json} is no array")).iter().map(T::from_json).collect()
    }
}

impl<T: Described> Described for Option<T> {
    fn type_name() -> String {
        format!("optional {}", T::type_name())
    }

    fn from_json(json: &Value) -> Self {
        if json.is_null() { None } else { Some(T::from_json(json)) }
    }
}

/// The bytes behind hexadecimal digits; spaces are for the reader.
pub(crate) fn bytes_from_hex(json: &Value) -> Vec<u8> {
    let digits: Vec<u32> = json
        .as_str()
        .expect("hexadecimal text")
        .chars()
        .filter(|c| *c != ' ')
        .map(|c| c.to_digit(16).expect("a hexadecimal digit"))
        .collect();
    assert!(digits.len().is_multiple_of(2), "two digits a byte");
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte")).collect()
}
