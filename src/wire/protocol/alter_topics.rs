//! AlterTopics: change topics that there are, while they are in use.

use super::message::request;
use super::{Message, Setting};
use crate::codec::layout;
use crate::error::{Detail, ErrorCode};

layout! {
    /// Asks for topics to be altered. Each succeeds or fails on its own, and as a whole. What a topic has already is no
    /// error, so the request may be sent again.
    pub struct AlterTopicsRequest {
        /// What to alter, each topic once.
        pub topics: Vec<TopicAlteration>,
        /// How long the broker may take until every shard goes by it, in milliseconds.
        pub timeout_ms: u32,
        /// Whether to check only, and alter nothing.
        pub validate_only: bool,
    }

    /// What is to change in one topic.
    pub struct TopicAlteration {
        /// Its name, as plain text so that a bad one gets an error of its own.
        pub name: String,
        /// Settings that it chooses from now on.
        pub set: Vec<Setting>,
        /// Keys of settings that follow the broker's defaults from now on.
        pub unset: Vec<String>,
        /// How many partitions it has from now on, at least as many as before; `None` leaves them as they are.
        pub partitions: Option<u32>,
    }

    /// What became of the topics, in the order of the request.
    pub struct AlterTopicsResponse {
        /// One entry for each topic of the request.
        pub topics: Vec<AlteredTopic>,
    }

    /// What became of one topic.
    pub struct AlteredTopic {
        /// The name that was asked for.
        pub name: String,
        /// Why it was not altered, or [`ErrorCode::None`].
        pub error: ErrorCode,
        /// What the code cannot say.
        pub detail: Detail,
    }
}

impl Message for AlterTopicsRequest {}
impl Message for AlterTopicsResponse {}
request!(AlterTopicsRequest is AlterTopics, answered by AlterTopicsResponse);
