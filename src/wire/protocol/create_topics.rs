//! CreateTopics: create topics on the controller.

use super::Message;
use super::message::request;
use crate::codec::layout;
use crate::error::{Detail, ErrorCode};
use crate::numbers::TopicId;

layout! {
    /// Asks for topics to be created. Each succeeds or fails on its own.
    pub struct CreateTopicsRequest {
        /// What to create.
        pub topics: Vec<NewTopic>,
        /// How long the broker may take until every shard knows the topics, in milliseconds.
        pub timeout_ms: u32,
        /// Whether to check only, and create nothing.
        pub validate_only: bool,
    }

    /// One topic to create.
    pub struct NewTopic {
        /// Its name, as plain text so that a bad one gets an error of its own.
        pub name: String,
        /// How many partitions; at least 1.
        pub partitions: u32,
        /// How many brokers keep each partition; at least 1.
        pub replicas: u16,
        /// Settings that differ from the broker's defaults.
        pub settings: Vec<Setting>,
    }

    /// One setting of a topic, as text.
    pub struct Setting {
        /// Its name.
        pub key: String,
        /// Its value.
        pub value: String,
    }

    /// What became of the topics, in the order of the request.
    pub struct CreateTopicsResponse {
        /// One entry for each topic of the request.
        pub topics: Vec<CreatedTopic>,
    }

    /// What became of one topic.
    pub struct CreatedTopic {
        /// The name that was asked for.
        pub name: String,
        /// Why it was not created, or [`ErrorCode::None`].
        pub error: ErrorCode,
        /// What the code cannot say.
        pub detail: Detail,
        /// Its identity; `None` when it was not created.
        pub topic_id: Option<TopicId>,
    }
}

impl Message for CreateTopicsRequest {}
impl Message for CreateTopicsResponse {}
request!(CreateTopicsRequest is CreateTopics, answered by CreateTopicsResponse);
