//! Pure codec: the native protocol's frames and messages, the record batch, the shared newtypes and error codes.
//!
//! Nothing here does I/O, waits or keeps state between calls, so the broker, the client and every tool share it.
//! All numbers are big-endian. `docs/formats/` describes each byte; `tests/vectors/` holds examples that any other
//! implementation can check itself against.
//!
//! | module | what it holds |
//! |---|---|
//! | [`batch`] | the v2 record batch: build, validate, split, iterate, decompress |
//! | [`codec`] | bounded reading and writing of the protocol's primitive types |
//! | [`error`] | error codes with stable numbers, and the error that crosses the wire |
//! | [`numbers`] | a newtype for every number with a meaning |
//! | [`protocol`] | preamble, hello, frames, and one file per request type |
//!
//! **Bytes from outside** never make this crate panic, and what a decoder allocates is a small multiple of the bytes
//! it was given; decompression, which can only promise that with a limit, takes one.
#![forbid(unsafe_code)]

pub mod batch;
pub mod codec;
pub mod error;
pub mod numbers;
pub mod protocol;
mod topic_name;

pub use error::{Detail, ErrorCode, WireError};
pub use numbers::{
    BrokerId, CorrelationId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, ShardIndex,
    Timestamp, TopicId,
};
pub use topic_name::{TOPIC_NAME_CHARS_MAX, TopicName, TopicNameError};
