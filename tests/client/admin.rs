//! Topics.

use ringmq_client::{ErrorCode, NewTopic};
use ringmq_tests::Broker;

use super::connect;

#[tokio::test]
async fn topics_are_created_described_listed_and_deleted() {
    let broker = Broker::start();
    let admin = connect(&broker).await.admin();
    let id = admin.create_topic(NewTopic::new("one").partitions(3)).await.unwrap();
    let created = admin.create_topics(vec![NewTopic::new("two"), NewTopic::new("one"), NewTopic::new("../x")]).await;
    let codes: Vec<_> =
        created.unwrap().into_iter().map(|created| created.err().and_then(|error| error.code())).collect();
    assert_eq!(codes, [None, Some(ErrorCode::TopicAlreadyExists), Some(ErrorCode::InvalidTopicName)]);

    let listed = admin.list_topics().await.unwrap();
    let listed: Vec<_> = listed.iter().map(|topic| (&*topic.name, topic.partitions)).collect();
    assert_eq!(listed, [("one", 3), ("two", 1)]);

    let described = admin.describe_topic("one").await.unwrap();
    assert_eq!((described.topic_id, described.partitions.len()), (id, 3));
    let many = admin.describe_topics(&["two", "none"]).await.unwrap();
    assert_eq!(many[0].as_ref().unwrap().name, "two");
    assert_eq!(many[1].as_ref().unwrap_err().code(), Some(ErrorCode::UnknownTopic));

    admin.delete_topic("one").await.unwrap();
    assert_eq!(admin.delete_topic("one").await.unwrap_err().code(), Some(ErrorCode::UnknownTopic));
    assert_eq!(admin.describe_cluster().await.unwrap().brokers.len(), 1);
}

#[tokio::test]
async fn validating_creates_nothing() {
    let broker = Broker::start();
    let admin = connect(&broker).await.admin();
    admin.validate_topic(NewTopic::new("t")).await.unwrap();
    assert!(admin.validate_topic(NewTopic::new("a b")).await.is_err());
    assert!(admin.list_topics().await.unwrap().is_empty());
}
