//! Error codes with stable numbers, and the error that crosses the wire.

use std::fmt;
use std::ops::Deref;

/// The longest [`Detail`], in bytes.
pub const DETAIL_BYTES_MAX: usize = 1024;

/// Declares every code on one line each: number, name on the wire's documentation, whether to try again, message.
macro_rules! error_codes {
    ($($variant:ident = $number:literal $name:literal $retry:ident $message:literal)*) => {
        /// What went wrong, as a number that never changes its meaning. `docs/formats/error-codes.md` lists them.
        ///
        /// ```
        /// use ringmq_wire::ErrorCode;
        ///
        /// assert!(ErrorCode::Overloaded.is_retriable() && !ErrorCode::UnknownTopic.is_retriable());
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum ErrorCode {
            $(#[doc = $message] $variant = $number,)*
        }

        impl ErrorCode {
            /// Every code, by rising number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code behind a number; a number of a newer version is [`ErrorCode::Unknown`].
            pub const fn from_u16(number: u16) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    _ => Self::Unknown,
                }
            }

            /// The name as it stands in logs and documents.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Whether the same request may succeed later, on this broker or on another.
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(Self::$variant => error_codes!(@$retry),)*
                }
            }

            /// What happened and what to do about it.
            pub const fn message(self) -> &'static str {
                match self {
                    $(Self::$variant => $message,)*
                }
            }
        }
    };
    (@retry) => { true };
    (@final) => { false };
}

error_codes! {
    None = 0 "NONE" final
        "No error."
    UnknownServerError = 1 "UNKNOWN_SERVER_ERROR" final
        "The broker met an error that it has no code for; its log says more."

    MalformedRequest = 10 "MALFORMED_REQUEST" final
        "The request cannot be decoded; check that client and broker speak the same protocol version."
    UnsupportedRequestType = 11 "UNSUPPORTED_REQUEST_TYPE" final
        "The broker does not know this type of request; use a newer broker, or the types that its hello lists."
    UnsupportedVersion = 12 "UNSUPPORTED_VERSION" final
        "The broker does not speak this version of the request; use one in the range that its hello gives."
    RequestTooLarge = 13 "REQUEST_TOO_LARGE" final
        "The request is larger than the broker takes; send smaller requests, or raise the broker's limit."

    CorruptBatch = 20 "CORRUPT_BATCH" retry
        "A record batch does not match its checksum, so it was damaged on its way; send it again."
    InvalidBatch = 21 "INVALID_BATCH" final
        "The bytes are not a well-formed record batch of version 2; check the producer's encoder."
    BatchTooLarge = 22 "BATCH_TOO_LARGE" final
        "A batch is larger than its topic takes, or all for one partition than a segment; send smaller or fewer at once, or raise the topic's batch_bytes_max or segment_bytes."
    RecordTooLarge = 23 "RECORD_TOO_LARGE" final
        "A single record is larger than a batch may be; send a smaller record, or raise the topic's batch_bytes_max."
    UnsupportedCompression = 24 "UNSUPPORTED_COMPRESSION" final
        "The batch is compressed in a way that is not supported here; use none, gzip, snappy, lz4 or zstd."
    InvalidTimestamp = 25 "INVALID_TIMESTAMP" final
        "The batch's timestamps contradict each other or are negative; check the producer's clock and encoder."

    UnknownTopic = 30 "UNKNOWN_TOPIC" final
        "The topic does not exist; create it, or check its name."
    UnknownPartition = 31 "UNKNOWN_PARTITION" final
        "The topic has no partition of this number; ask for its metadata."
    InvalidTopicName = 32 "INVALID_TOPIC_NAME" final
        "The topic's name is not valid; use 1 to 249 characters of a-z, A-Z, 0-9, '.', '_', '-', but neither '.' nor '..'."
    TopicAlreadyExists = 33 "TOPIC_ALREADY_EXISTS" final
        "A topic of this name exists already; use it, or choose another name."
    InvalidPartitionCount = 34 "INVALID_PARTITION_COUNT" final
        "The number of partitions is out of range; ask for at least 1, no fewer than the topic has, and at most what the broker allows."
    InvalidReplicationFactor = 35 "INVALID_REPLICATION_FACTOR" final
        "The number of replicas cannot be met by the brokers of the cluster; ask for fewer, or add brokers."
    InvalidSetting = 36 "INVALID_SETTING" final
        "A topic setting is unknown or its value is out of range; the documentation lists settings and ranges."
    TopicDeleted = 37 "TOPIC_DELETED" final
        "The topic was deleted while the request was under way; what was not acknowledged is gone."

    OffsetOutOfRange = 50 "OFFSET_OUT_OF_RANGE" final
        "The offset is not in the log; ask for its earliest and latest offset and go on from one of them."
    PartitionOffline = 51 "PARTITION_OFFLINE" final
        "The partition is offline because its log is damaged or its disk failed; the broker's log names the file."
    StorageFull = 52 "STORAGE_FULL" retry
        "The broker's disk is full; free space on that file system or delete topics, and writes go on by themselves."
    StorageFailed = 53 "STORAGE_FAILED" final
        "The broker's disk reported an error; whether the records are stored is unknown until the partition is recovered."
    StorageNotReady = 54 "STORAGE_NOT_READY" retry
        "The broker could not open a file or make room in one, and nothing was written; wait a moment and send again."

    OutOfOrderSequence = 60 "OUT_OF_ORDER_SEQUENCE" final
        "Records that the producer sent before these are missing, so these were not stored; send the missing ones first, or begin a new epoch."
    DuplicateSequence = 61 "DUPLICATE_SEQUENCE" final
        "The producer sent these records before, and so long ago that the broker cannot tell their offsets; they are not stored again."
    InvalidProducerEpoch = 62 "INVALID_PRODUCER_EPOCH" final
        "The producer has begun a newer epoch, so what carries an older one is not stored; ask for a new producer id."

    ShuttingDown = 70 "SHUTTING_DOWN" retry
        "The broker is shutting down; connect to another one, or to this one when it is back."
    Overloaded = 71 "OVERLOADED" retry
        "The broker has more work than it may queue; wait a moment and send again."
    RequestTimedOut = 72 "REQUEST_TIMED_OUT" retry
        "The request was not done in its time; records may be stored all the same, so sending again can duplicate those of a producer without an identity."
    NotController = 73 "NOT_CONTROLLER" retry
        "The broker is not the controller; discover the controller and ask it."
    NotLeader = 74 "NOT_LEADER" retry
        "The broker does not lead this partition; ask for its metadata and go to its leader."

    Unknown = 65535 "UNKNOWN" final
        "The error code is not known to this version of the client; use a newer one to learn what it means."
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn to_u16(self) -> u16 {
        self as u16
    }

    /// Whether this is [`ErrorCode::None`].
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a code cannot say: which offset, which file, which limit. At most [`DETAIL_BYTES_MAX`] bytes of text; what is
/// longer is cut at a character's end when it is made. Empty when the code says it all.
#[derive(Clone, PartialEq, Eq, Default, Hash)]
pub struct Detail(String);

impl Detail {
    /// No detail.
    pub const NONE: Self = Self(String::new());

    /// Keeps as much of `text` as a detail may hold.
    pub fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Detail {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for Detail {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Detail {
    fn from(text: &str) -> Self {
        Self(text[..text.floor_char_boundary(DETAIL_BYTES_MAX)].to_owned())
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// An error as it crosses the wire: a code that programs act on, and a detail that people read.
///
/// ```
/// use ringmq_wire::{ErrorCode, WireError};
///
/// let error = WireError::new(ErrorCode::UnknownTopic, "there is no topic \"orders\"; create it first");
/// assert_eq!(error.to_string(), "UNKNOWN_TOPIC: there is no topic \"orders\"; create it first");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError {
    /// What happened.
    pub code: ErrorCode,
    /// Where, and with which values; empty when the code's own message says it all.
    pub detail: Detail,
}

impl WireError {
    /// An error with words of its own.
    pub fn new(code: ErrorCode, detail: impl Into<Detail>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// Whether the same request may succeed later.
    pub const fn is_retriable(&self) -> bool {
        self.code.is_retriable()
    }
}

impl From<ErrorCode> for WireError {
    fn from(code: ErrorCode) -> Self {
        Self { code, detail: Detail::NONE }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.detail.is_empty() { self.code.message() } else { self.detail.as_str() };
        write!(f, "{}: {text}", self.code.name())
    }
}

impl std::error::Error for WireError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_number() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_u16(code.to_u16()), code);
        }
        assert_eq!(ErrorCode::from_u16(9999), ErrorCode::Unknown);
    }

    #[test]
    fn a_message_says_what_happened_and_what_to_do() {
        for &code in ErrorCode::ALL.iter().filter(|code| !code.is_none()) {
            assert!(code.message().contains([';', ',']), "{code}: what should the reader do?");
            assert!(code.message().ends_with('.'), "{code}");
        }
    }

    /// The document is what other implementations read, so it may not lag behind.
    #[test]
    fn the_document_lists_exactly_these_codes() {
        let document = include_str!("../../docs/formats/error-codes.md");
        let documented: Vec<&str> =
            document.lines().filter(|line| line.starts_with("| ") && !line.contains("---")).skip(1).collect();
        let declared: Vec<String> = ErrorCode::ALL
            .iter()
            .map(|code| {
                let retriable = if code.is_retriable() { "yes" } else { "no" };
                format!("| {} | `{}` | {retriable} | {} |", code.to_u16(), code.name(), code.message())
            })
            .collect();
        assert_eq!(documented, declared);
    }

    #[test]
    fn a_detail_is_cut_at_the_end_of_a_character() {
        let long = format!("x{}", "é".repeat(DETAIL_BYTES_MAX));
        assert_eq!(Detail::new(long.clone()).len(), DETAIL_BYTES_MAX - 1);
        assert_eq!(Detail::new(long.clone()), Detail::from(long.as_str()));
        assert_eq!(Detail::new("short").as_str(), "short");
    }

    #[test]
    fn an_error_without_detail_speaks_through_its_code() {
        assert_eq!(
            WireError::from(ErrorCode::Overloaded).to_string(),
            "OVERLOADED: The broker has more work than it may queue; wait a moment and send again."
        );
    }
}
