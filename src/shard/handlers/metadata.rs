//! Metadata: where topics and partitions are.

use std::rc::Rc;
use std::sync::Arc;

use ringmq_controller::metadata::Topic;
use ringmq_wire::protocol::{BrokerInfo, MetadataRequest, MetadataResponse, TopicMetadata};
use ringmq_wire::{Detail, ErrorCode, TopicName, WireError};

use crate::directory::unknown_topic;
use crate::error::Details;
use crate::placement;
use crate::session::Session;

/// Answers from this shard's copy of the metadata; only whether a partition is offline is asked of its owner.
///
/// # Errors
/// While the broker starts; for a topic that is named twice.
pub(crate) async fn handle(session: Rc<Session>, request: MetadataRequest) -> Result<MetadataResponse, WireError> {
    let shard = &session.shard;
    let image = shard.directory.borrow().image()?;
    let wanted: Vec<Result<Arc<Topic>, TopicName>> = match request.topics {
        None => image.topics_by_name().into_iter().cloned().map(Ok).collect(),
        Some(names) => {
            placement::each_once(names.iter().map(TopicName::as_str))?;
            names.into_iter().map(|name| image.topic(&name).cloned().ok_or(name)).collect()
        }
    };
    let found: Vec<Arc<Topic>> = wanted.iter().flatten().cloned().collect();
    let mut located = placement::locate(&session, &found).await.into_iter();

    let mut details = Details::new(&shard.stats);
    let topics = wanted.into_iter().map(|wanted| match wanted {
        Ok(topic) => TopicMetadata {
            error: ErrorCode::None,
            detail: Detail::NONE,
            name: topic.name.clone(),
            topic_id: Some(topic.id),
            partitions: located.next().unwrap_or_default(),
        },
        Err(name) => {
            let (error, detail) = details.of(unknown_topic(&name));
            TopicMetadata { error, detail, name, topic_id: None, partitions: Vec::new() }
        }
    });
    let topics = topics.collect();
    let address = session.advertised();
    Ok(MetadataResponse {
        cluster_id: image.cluster_id(),
        controller: image.controller(),
        brokers: vec![BrokerInfo { id: shard.config.broker, host: address.host, port: address.port }],
        topics,
    })
}
