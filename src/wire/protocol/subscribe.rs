//! Subscribe: records as they come, without asking for each; and what goes with an open subscription.

use super::message::request;
use super::{FetchTopic, FetchedTopic, Message, SectionHead};
use crate::codec::layout;

layout! {
    /// Asks for records from given offsets on, and for all that come behind them, for as long as the subscription is open.
    pub struct SubscribeRequest {
        /// How many bytes of batches may be sent until more are granted.
        pub credit_bytes: u32,
        /// About how many bytes of batches one frame may carry.
        pub max_bytes: u32,
        /// For how long no frame may come, in milliseconds.
        pub heartbeat_ms: u32,
        /// What is wanted.
        pub topics: Vec<FetchTopic>,
    }

    /// The head of one of the frames that answer a subscription. Behind it stand the partitions' sections in the order of
    /// the head, each none or more whole record batches as they are stored.
    pub struct SubscribedHead {
        /// No frame of the subscription comes behind this one.
        pub is_last: bool,
        /// The partitions that have something to tell, by topic.
        pub topics: Vec<FetchedTopic>,
    }

    /// Grants an open subscription more bytes.
    pub struct GrantCreditRequest {
        /// The correlation id of the subscription.
        pub subscription: u32,
        /// How many bytes of batches more may be sent.
        pub credit_bytes: u32,
    }

    /// The bytes count.
    pub struct GrantCreditResponse {
    }

    /// Ends a subscription.
    pub struct UnsubscribeRequest {
        /// The correlation id of the subscription.
        pub subscription: u32,
    }

    /// The subscription ends.
    pub struct UnsubscribeResponse {
    }
}

impl SectionHead for SubscribedHead {
    /// As that of a fetch.
    const HEAD_BYTES_MAX: u32 = 32 * 1024 * 1024;

    fn section_bytes(&self) -> u64 {
        self.topics.iter().flat_map(|topic| &topic.partitions).map(|part| u64::from(part.records_bytes)).sum()
    }
}

impl Message for SubscribeRequest {}
impl Message for GrantCreditRequest {}
impl Message for GrantCreditResponse {}
impl Message for UnsubscribeRequest {}
impl Message for UnsubscribeResponse {}
request!(SubscribeRequest is Subscribe, answered by SubscribedHead);
request!(GrantCreditRequest is GrantCredit, answered by GrantCreditResponse);
request!(UnsubscribeRequest is Unsubscribe, answered by UnsubscribeResponse);
