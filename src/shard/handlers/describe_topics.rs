//! DescribeTopics: settings, places and sizes of some topics.

use std::rc::Rc;
use std::sync::Arc;

use ringmq_controller::metadata::{SettingKey, Topic, TopicSettings};
use ringmq_wire::protocol::{
    DescribeTopicsRequest, DescribeTopicsResponse, DescribedPartition, DescribedSetting, DescribedTopic,
};
use ringmq_wire::{Detail, ErrorCode, TopicName, WireError};

use crate::directory::unknown_topic;
use crate::error::Details;
use crate::placement;
use crate::session::Session;

/// Answers from this shard's copy of the metadata; what partitions hold is asked of their owners.
///
/// # Errors
/// While the broker starts; for a topic that is named twice; when a shard cannot be asked now.
pub(crate) async fn handle(
    session: Rc<Session>,
    request: DescribeTopicsRequest,
) -> Result<DescribeTopicsResponse, WireError> {
    let shard = &session.shard;
    let image = shard.directory.borrow().image()?;
    placement::each_once(request.topics.iter().map(String::as_str))?;
    let find = |name: &str| match TopicName::parse(name) {
        Ok(name) => image.topic(&name).cloned().ok_or_else(|| unknown_topic(&name)),
        Err(error) => Err(WireError::new(ErrorCode::InvalidTopicName, error.to_string())),
    };
    let wanted: Vec<Result<Arc<Topic>, WireError>> = request.topics.iter().map(|name| find(name)).collect();
    let found: Vec<Arc<Topic>> = wanted.iter().flatten().cloned().collect();
    let mut described = placement::describe(&session, &found).await?.into_iter();

    let mut details = Details::new(&shard.stats);
    let topics = wanted.into_iter().zip(request.topics).map(|(wanted, name)| match wanted {
        Ok(topic) => {
            let partitions = described.next().unwrap_or_default();
            describe(name, &topic, &shard.config.topic_defaults, partitions)
        }
        Err(error) => {
            let (error, detail) = details.of(error);
            DescribedTopic { name, error, detail, topic_id: None, settings: Vec::new(), partitions: Vec::new() }
        }
    });
    Ok(DescribeTopicsResponse { topics: topics.collect() })
}

fn describe(
    name: String,
    topic: &Topic,
    defaults: &TopicSettings,
    partitions: Vec<DescribedPartition>,
) -> DescribedTopic {
    let holding = topic.settings.resolve(defaults);
    let settings = SettingKey::ALL.map(|key| DescribedSetting {
        key: key.name().to_owned(),
        value: key.text(holding.get(key)),
        is_default: topic.settings.get(key).is_none(),
    });
    DescribedTopic {
        name,
        error: ErrorCode::None,
        detail: Detail::NONE,
        topic_id: Some(topic.id),
        settings: settings.into(),
        partitions,
    }
}
