//! DeleteTopics: delete topics and all their records.

use super::Message;
use super::message::request;
use crate::codec::layout;
use crate::error::{Detail, ErrorCode};

layout! {
    /// Asks for topics to be deleted. Each succeeds or fails on its own.
    pub struct DeleteTopicsRequest {
        /// Their names, as plain text so that a bad one gets an error of its own.
        pub topics: Vec<String>,
        /// How long the broker may take until every shard has let go of the topics, in milliseconds.
        pub timeout_ms: u32,
    }

    /// What became of the topics, in the order of the request.
    pub struct DeleteTopicsResponse {
        /// One entry for each topic of the request.
        pub topics: Vec<DeletedTopic>,
    }

    /// What became of one topic.
    pub struct DeletedTopic {
        /// The name that was asked for.
        pub name: String,
        /// Why it was not deleted, or [`ErrorCode::None`].
        pub error: ErrorCode,
        /// What the code cannot say.
        pub detail: Detail,
    }
}

impl Message for DeleteTopicsRequest {}
impl Message for DeleteTopicsResponse {}
request!(DeleteTopicsRequest is DeleteTopics, answered by DeleteTopicsResponse);
