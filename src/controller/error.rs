//! What can go wrong, one enum per operation, and which code each case has on the wire.

use ringmq_wire::{ErrorCode, TopicName, TopicNameError, WireError};

use crate::excerpt::Excerpt;
use crate::metadata::{PARTITIONS_PER_TOPIC_MAX, PARTITIONS_TOTAL_MAX, SettingError, TOPICS_PER_REQUEST_MAX};

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
