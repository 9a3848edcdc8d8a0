//! ListTopics: every topic in one line each.

use super::Message;
use super::message::request;
use crate::codec::layout;
use crate::numbers::TopicId;
use crate::topic_name::TopicName;

layout! {
    /// Asks for all topics. Its body is empty.
    pub struct ListTopicsRequest {}

    /// All topics, by name.
    pub struct ListTopicsResponse {
        /// One entry for each topic.
        pub topics: Vec<ListedTopic>,
    }

    /// One topic.
    ///
    /// ```
    /// use ringmq_wire::protocol::ListedTopic;
    ///
    /// fn partitions(topics: &[ListedTopic]) -> u32 {
    ///     topics.iter().map(|topic| topic.partitions).sum()
    /// }
    /// ```
    pub struct ListedTopic {
        /// Its name.
        pub name: TopicName,
        /// Its identity.
        pub topic_id: TopicId,
        /// How many partitions it has.
        pub partitions: u32,
        /// How many brokers keep each partition.
        pub replicas: u16,
    }
}

impl Message for ListTopicsRequest {}
impl Message for ListTopicsResponse {}
request!(ListTopicsRequest is ListTopics, answered by ListTopicsResponse);
