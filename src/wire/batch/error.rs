//! Why bytes are not a record batch that can be taken.

use super::Compression;
use crate::error::{ErrorCode, WireError};

/// What is wrong with a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("the batch takes {needed} bytes, but only {remaining} are there")]
    Truncated {
        /// What it takes.
        needed: usize,
        /// What is there.
        remaining: usize,
    },
    /// The length field leaves no room for the header, or is negative.
    #[error("the batch's length field is {batch_length}, but it must be at least 49")]
    Length {
        /// The field.
        batch_length: i32,
    },
    /// The batch has another layout than version 2.
    #[error("the batch has magic {magic}, but only version 2 is taken; use a producer of the v2 format")]
    Magic {
        /// Its magic.
        magic: i8,
    },
    /// The batch is larger than its limit.
    #[error("the batch is {bytes} bytes long, but at most {bytes_max} are taken; send smaller batches")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: u32,
    },
    /// The batch is larger than its limit, and it is a single record.
    #[error("the record takes a batch of {bytes} bytes, but at most {bytes_max} are taken; send a smaller record")]
    RecordTooLarge {
        /// The size of its batch.
        bytes: usize,
        /// The limit.
        bytes_max: u32,
    },
    /// The checksum does not match the bytes.
    #[error("the batch's checksum is {stored:#010x}, but its bytes give {computed:#010x}; it was damaged on its way")]
    Checksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A field of the header holds what no batch can.
    #[error("the batch's {field} is {value}, which is not valid")]
    Field {
        /// Which one.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// The batch holds more records than its limit.
    #[error("the batch holds {count} records, but at most {count_max} are taken; send smaller batches")]
    TooManyRecords {
        /// How many it claims.
        count: u32,
        /// The limit.
        count_max: u32,
    },
    /// The batch claims more records than its bytes can hold.
    #[error("the batch claims {count} records, but they take only {bytes} bytes")]
    RecordCount {
        /// How many it claims.
        count: u32,
        /// The bytes behind its header.
        bytes: usize,
    },
    /// A new batch numbers its records without gaps, so its last offset delta follows from their count.
    #[error("the batch's last offset delta is {last_offset_delta}, but it holds {record_count} records")]
    OffsetDelta {
        /// The field.
        last_offset_delta: u32,
        /// The other one.
        record_count: u32,
    },
    /// The timestamps in the header contradict each other.
    #[error("the batch's timestamps are {base} (base) and {max} (highest); they must be -1 or more, and rise")]
    Timestamps {
        /// The base timestamp.
        base: i64,
        /// The highest timestamp.
        max: i64,
    },
    /// The batch is one that only a broker writes, or part of a transaction.
    #[error("the batch is {kind}, which producers cannot send here")]
    Kind {
        /// Which kind.
        kind: &'static str,
    },
    /// The compression has a number that stands for nothing.
    #[error("the batch's compression is number {number}, which stands for nothing")]
    UnknownCompression {
        /// The number.
        number: u16,
    },
    /// The compressed bytes are damaged.
    #[error("the batch's {compression} data cannot be decompressed: {reason}")]
    Decompress {
        /// How they are compressed.
        compression: Compression,
        /// What the decompressor says.
        reason: String,
    },
    /// The records would be larger than the reader allows.
    #[error(
        "the batch's records decompress to more than {bytes_max} bytes; raise the reader's limit if they are genuine"
    )]
    DecompressedTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// A record is damaged.
    #[error("record {index} of the batch is not valid: {problem}")]
    Record {
        /// Which one, from 0.
        index: u32,
        /// What is wrong with it.
        #[source]
        problem: RecordProblem,
    },
    /// Bytes are left over behind the last record.
    #[error("{bytes} bytes are left over behind the last record of the batch")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordProblem {
    /// A number runs on for longer than its type allows, or past the end.
    #[error("its {field} is not a whole variable-length number")]
    Varint {
        /// Which number.
        field: &'static str,
    },
    /// A length or count is negative where it cannot be, or says more than the bytes hold.
    #[error("its {field} is {value}, but {remaining} bytes are left")]
    Length {
        /// Which length or count.
        field: &'static str,
        /// What it says.
        value: i32,
        /// The bytes that are there.
        remaining: usize,
    },
    /// Its offset does not rise, or lies outside of the batch.
    #[error("its offset delta is {delta}, which does not follow the record before it or lies outside of the batch")]
    OffsetDelta {
        /// The delta.
        delta: i32,
    },
    /// Its timestamp cannot be expressed.
    #[error("its timestamp delta is {delta}, which leads beyond all time")]
    TimestampDelta {
        /// The delta.
        delta: i64,
    },
    /// Bytes are left over behind its headers.
    #[error("{bytes} bytes are left over behind its headers")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
}

impl BatchError {
    /// The code that the sender of the batch gets to see.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Checksum { .. } => ErrorCode::CorruptBatch,
            Self::TooLarge { .. } | Self::TooManyRecords { .. } | Self::DecompressedTooLarge { .. } => {
                ErrorCode::BatchTooLarge
            }
            Self::RecordTooLarge { .. } => ErrorCode::RecordTooLarge,
            Self::UnknownCompression { .. } => ErrorCode::UnsupportedCompression,
            Self::Timestamps { .. } => ErrorCode::InvalidTimestamp,
            _ => ErrorCode::InvalidBatch,
        }
    }
}

impl From<&BatchError> for WireError {
    fn from(error: &BatchError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
