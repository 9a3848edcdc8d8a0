//! ListTopics: every topic in one line each.

use std::rc::Rc;

use ringmq_wire::WireError;
use ringmq_wire::protocol::{ListTopicsRequest, ListTopicsResponse, ListedTopic};

use crate::session::Session;

/// Answers from this shard's copy of the metadata.
///
/// # Errors
/// While the broker starts.
pub(crate) async fn handle(session: Rc<Session>, _: ListTopicsRequest) -> Result<ListTopicsResponse, WireError> {
    let image = session.shard.directory.borrow().image()?;
    let listed = image.topics_by_name().into_iter().map(|topic| ListedTopic {
        name: topic.name.clone(),
        topic_id: topic.id,
        partitions: topic.partitions,
        replicas: topic.replicas,
    });
    Ok(ListTopicsResponse { topics: listed.collect() })
}
