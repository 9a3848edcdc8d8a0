//! The types of request.

use std::fmt;
use std::ops::RangeInclusive;

/// What a request asks for. The numbers are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum RequestType {
    /// Append record batches to partitions.
    Produce = 1,
    /// Read record batches from partitions.
    Fetch = 2,
    /// Ask for the earliest or latest offset, or the first at a time.
    ListOffsets = 3,
    /// Ask where topics and partitions are.
    Metadata = 4,
    /// Ask which broker is the controller.
    DiscoverController = 5,
    /// Create topics.
    CreateTopics = 6,
    /// Delete topics.
    DeleteTopics = 7,
    /// List all topics.
    ListTopics = 8,
    /// Ask for everything about some topics.
    DescribeTopics = 9,
    /// Ask for everything about brokers and shards.
    DescribeCluster = 10,
    /// Change settings of topics, or give them more partitions.
    AlterTopics = 11,
    /// Delete the oldest records of partitions.
    DeleteRecords = 12,
    /// Ask for a broker's statistics.
    Stats = 13,
    /// Ask for an identity for an idempotent producer.
    InitProducerId = 14,
    /// Have record batches of partitions sent as they come.
    Subscribe = 15,
    /// Let more bytes of a subscription come.
    GrantCredit = 16,
    /// End a subscription.
    Unsubscribe = 17,
}

impl RequestType {
    /// Every type, by rising number.
    pub const ALL: [Self; 17] = [
        Self::Produce,
        Self::Fetch,
        Self::ListOffsets,
        Self::Metadata,
        Self::DiscoverController,
        Self::CreateTopics,
        Self::DeleteTopics,
        Self::ListTopics,
        Self::DescribeTopics,
        Self::DescribeCluster,
        Self::AlterTopics,
        Self::DeleteRecords,
        Self::Stats,
        Self::InitProducerId,
        Self::Subscribe,
        Self::GrantCredit,
        Self::Unsubscribe,
    ];

    /// The type behind a number, if there is one.
    pub fn from_u16(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|request_type| request_type.to_u16() == number)
    }

    /// The number on the wire.
    pub const fn to_u16(self) -> u16 {
        self as u16
    }

    /// The versions of this type that this crate speaks.
    pub const fn versions(self) -> RangeInclusive<u16> {
        1..=1
    }

    /// The name as it stands in logs and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Produce => "Produce",
            Self::Fetch => "Fetch",
            Self::ListOffsets => "ListOffsets",
            Self::Metadata => "Metadata",
            Self::DiscoverController => "DiscoverController",
            Self::CreateTopics => "CreateTopics",
            Self::DeleteTopics => "DeleteTopics",
            Self::ListTopics => "ListTopics",
            Self::DescribeTopics => "DescribeTopics",
            Self::DescribeCluster => "DescribeCluster",
            Self::AlterTopics => "AlterTopics",
            Self::DeleteRecords => "DeleteRecords",
            Self::Stats => "Stats",
            Self::InitProducerId => "InitProducerId",
            Self::Subscribe => "Subscribe",
            Self::GrantCredit => "GrantCredit",
            Self::Unsubscribe => "Unsubscribe",
        }
    }
}

impl fmt::Display for RequestType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
