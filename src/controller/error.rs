//! What can go wrong, one enum per operation, and which code each case has on the wire.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ringmq_runtime::fs;
use ringmq_segment::AppendError;
use ringmq_wire::{ErrorCode, ShardIndex, TopicName, TopicNameError, WireError};

use crate::directory::{DirectoryError, METADATA};
use crate::excerpt::Excerpt;
use crate::log::MetadataLogError;
use crate::metadata::{
    ApplyError, PARTITIONS_PER_TOPIC_MAX, PARTITIONS_TOTAL_MAX, SettingError, TOPICS_PER_REQUEST_MAX,
};

/// Why the controller did not start, or stopped. The broker cannot serve without it.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The broker's defaults for topics are not valid.
    #[error("the defaults for topics are not valid: {0}")]
    Defaults(#[from] SettingError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The metadata log cannot be opened or replayed.
    #[error(transparent)]
    Log(#[from] MetadataLogError),
    /// There are topics' files, and a metadata log that never had a topic.
    #[error(
        "{} holds files of {directories} topics, but its metadata log is empty: it was lost. Nothing was changed; \
         restore {METADATA:?} from a copy of the data directory", path.display()
    )]
    MetadataLost {
        /// The data directory.
        path: PathBuf,
        /// How many topic directories there are.
        directories: usize,
    },
}

/// Why a request was refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It names too many topics.
    #[error("the request names {topics} topics; name at most {TOPICS_PER_REQUEST_MAX} in one request")]
    TooManyTopics {
        /// How many.
        topics: usize,
    },
    /// The controller is stopping.
    #[error("the controller is stopping and did not look at the request; send it again when the broker is back")]
    Stopping,
}

/// Why a topic cannot be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateTopicError {
    /// The name breaks a rule for names.
    #[error(transparent)]
    Name(#[from] TopicNameError),
    /// The request names the topic more than once.
    #[error("the request names the topic {name} more than once, and none of them was created; name it once")]
    NamedTwice {
        /// The name, shortened.
        name: Excerpt,
    },
    /// There is a topic of this name.
    #[error("there is a topic \"{name}\" already; use it, delete it first, or choose another name")]
    Exists {
        /// The name.
        name: TopicName,
    },
    /// The number of partitions is out of range.
    #[error("{asked} partitions are out of range; ask for 1 to {PARTITIONS_PER_TOPIC_MAX}")]
    Partitions {
        /// How many were asked for.
        asked: u32,
    },
    /// All topics together would have too many partitions.
    #[error(
        "{asked} partitions are too many: all topics together may have {PARTITIONS_TOTAL_MAX}, which leaves {left} more; \
         ask for fewer, or delete topics"
    )]
    PartitionsTotal {
        /// How many were asked for.
        asked: u32,
        /// How many may still be created.
        left: u32,
    },
    /// There are fewer brokers than replicas were asked for, or none were asked for.
    #[error(
        "{asked} replicas cannot be met; ask for at least 1 and at most as many as there are brokers: the cluster has \
         {brokers} broker{}", if *.brokers == 1 { "" } else { "s" }
    )]
    Replicas {
        /// How many were asked for.
        asked: u16,
        /// How many brokers there are.
        brokers: usize,
    },
    /// A setting is not valid.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// Why a topic cannot be deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteTopicError {
    /// No topic can have this name.
    #[error(transparent)]
    Name(#[from] TopicNameError),
    /// The request names the topic more than once.
    #[error("the request names the topic {name} more than once, and it was not deleted; name it once")]
    NamedTwice {
        /// The name, shortened.
        name: Excerpt,
    },
    /// There is no topic of this name.
    #[error("there is no topic \"{name}\"; check the name, or list the topics")]
    Unknown {
        /// The name.
        name: TopicName,
    },
}

/// Why a topic cannot be altered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterTopicError {
    /// No topic can have this name.
    #[error(transparent)]
    Name(#[from] TopicNameError),
    /// The request names the topic more than once.
    #[error("the request names the topic {name} more than once, and it was not altered; name it once")]
    NamedTwice {
        /// The name, shortened.
        name: Excerpt,
    },
    /// There is no topic of this name.
    #[error("there is no topic \"{name}\"; check the name, or list the topics")]
    Unknown {
        /// The name.
        name: TopicName,
    },
    /// The number of partitions is out of range.
    #[error("{asked} partitions are out of range; ask for 1 to {PARTITIONS_PER_TOPIC_MAX}")]
    Partitions {
        /// How many were asked for.
        asked: u32,
    },
    /// The topic has more partitions than were asked for, and its records are in them.
    #[error(
        "the topic has {has} partitions, and they cannot become {asked}: partitions are only added; ask for {has} or \
         more, or create another topic and copy the records"
    )]
    FewerPartitions {
        /// How many were asked for.
        asked: u32,
        /// How many the topic has.
        has: u32,
    },
    /// All topics together would have too many partitions.
    #[error(
        "{added} added partitions are too many: all topics together may have {PARTITIONS_TOTAL_MAX}, which leaves {left} \
         more; ask for fewer, or delete topics"
    )]
    PartitionsTotal {
        /// How many would be added.
        added: u32,
        /// How many may still be created.
        left: u32,
    },
    /// A setting is not valid.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// Why a valid change was not made, or is not seen by everyone yet.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The metadata log did not take it.
    #[error("the metadata log did not take the change: {0}")]
    Log(#[from] AppendError),
    /// The disk has no room beside what is kept for deletions, or reports an error. Nothing was logged.
    #[error(
        "the change was not made, because no space can be kept for deleting topics: {0}; free some space, or delete topics"
    )]
    Reserve(#[source] io::Error),
    /// The state machine refuses what the plan says it takes: a fault in the broker. Nothing was logged.
    #[error(
        "the change contradicts the metadata, and was not made: {0}; this is a fault in the broker, please report it"
    )]
    Contradiction(#[from] ApplyError),
    /// It is durable, but not every shard has applied it in time.
    #[error(
        "the change is durable, but {} after {waited:?}; it becomes visible as soon as they have applied it, and must \
         not be sent again", lagging_shards(.shards)
    )]
    NotApplied {
        /// The shards that have not.
        shards: Vec<ShardIndex>,
        /// How long was waited for them.
        waited: Duration,
    },
    /// It is durable, but a shard ended before applying it: the broker stops.
    #[error(
        "the change is durable, but the broker stops; it is visible when the broker is back, and must not be sent again"
    )]
    Stopping,
}

fn lagging_shards(shards: &[ShardIndex]) -> String {
    const SHOWN_MAX: usize = 16;
    let mut shown: Vec<String> = shards.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    if shards.len() > SHOWN_MAX {
        shown.push(format!("{} more", shards.len() - SHOWN_MAX));
    }
    match shards {
        [_] => format!("shard {} had not applied it", shown.join(", ")),
        _ => format!("shards {} had not applied it", shown.join(", ")),
    }
}

impl RequestError {
    /// The code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            RequestError::TooManyTopics { .. } => ErrorCode::RequestTooLarge,
            RequestError::Stopping => ErrorCode::ShuttingDown,
        }
    }
}

impl CreateTopicError {
    /// The code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            CreateTopicError::Name(_) => ErrorCode::InvalidTopicName,
            CreateTopicError::NamedTwice { .. } => ErrorCode::MalformedRequest,
            CreateTopicError::Exists { .. } => ErrorCode::TopicAlreadyExists,
            CreateTopicError::Partitions { .. } | CreateTopicError::PartitionsTotal { .. } => {
                ErrorCode::InvalidPartitionCount
            }
            CreateTopicError::Replicas { .. } => ErrorCode::InvalidReplicationFactor,
            CreateTopicError::Setting(_) => ErrorCode::InvalidSetting,
        }
    }
}

impl DeleteTopicError {
    /// The code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            DeleteTopicError::Name(_) => ErrorCode::InvalidTopicName,
            DeleteTopicError::NamedTwice { .. } => ErrorCode::MalformedRequest,
            DeleteTopicError::Unknown { .. } => ErrorCode::UnknownTopic,
        }
    }
}

impl AlterTopicError {
    /// The code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            AlterTopicError::Name(_) => ErrorCode::InvalidTopicName,
            AlterTopicError::NamedTwice { .. } => ErrorCode::MalformedRequest,
            AlterTopicError::Unknown { .. } => ErrorCode::UnknownTopic,
            AlterTopicError::Partitions { .. }
            | AlterTopicError::FewerPartitions { .. }
            | AlterTopicError::PartitionsTotal { .. } => ErrorCode::InvalidPartitionCount,
            AlterTopicError::Setting(_) => ErrorCode::InvalidSetting,
        }
    }
}

impl ChangeError {
    /// Whether the change was made all the same.
    pub fn is_durable(&self) -> bool {
        match self {
            ChangeError::Log(_) | ChangeError::Reserve(_) | ChangeError::Contradiction(_) => false,
            ChangeError::NotApplied { .. } | ChangeError::Stopping => true,
        }
    }

    /// The code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            ChangeError::Log(AppendError::StorageFull(_)) => ErrorCode::StorageFull,
            ChangeError::Log(AppendError::NotReady(_)) => ErrorCode::StorageNotReady,
            ChangeError::Log(AppendError::Poisoned(_)) => ErrorCode::StorageFailed,
            ChangeError::Log(AppendError::Overloaded { .. }) => ErrorCode::Overloaded,
            ChangeError::Log(AppendError::Closed) => ErrorCode::ShuttingDown,
            ChangeError::Log(AppendError::TooLarge { .. }) => ErrorCode::RequestTooLarge,
            ChangeError::Reserve(error) if fs::is_full(error) => ErrorCode::StorageFull,
            ChangeError::Reserve(_) => ErrorCode::StorageFailed,
            // No command has a producer's identity.
            ChangeError::Log(AppendError::OutOfSequence(_)) => ErrorCode::UnknownServerError,
            ChangeError::Contradiction(_) => ErrorCode::UnknownServerError,
            ChangeError::NotApplied { .. } => ErrorCode::RequestTimedOut,
            ChangeError::Stopping => ErrorCode::ShuttingDown,
        }
    }
}

impl From<RequestError> for WireError {
    fn from(error: RequestError) -> WireError {
        WireError::new(error.code(), error.to_string())
    }
}

impl From<CreateTopicError> for WireError {
    fn from(error: CreateTopicError) -> WireError {
        WireError::new(error.code(), error.to_string())
    }
}

impl From<DeleteTopicError> for WireError {
    fn from(error: DeleteTopicError) -> WireError {
        WireError::new(error.code(), error.to_string())
    }
}

impl From<AlterTopicError> for WireError {
    fn from(error: AlterTopicError) -> WireError {
        WireError::new(error.code(), error.to_string())
    }
}

impl From<&ChangeError> for WireError {
    fn from(error: &ChangeError) -> WireError {
        WireError::new(error.code(), error.to_string())
    }
}
