//! Topics.

use ringmq_client::{ErrorCode, NewTopic, PartitionIndex, TopicAlteration};
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

#[tokio::test]
async fn topics_are_altered_each_on_its_own() {
    let broker = Broker::start();
    let client = connect(&broker).await;
    let admin = client.admin();
    admin.create_topics(vec![NewTopic::new("one").partitions(2), NewTopic::new("two")]).await.unwrap();
    let alterations = || {
        vec![
            TopicAlteration::new("one").partitions(4).set("segment_age_ms", "60000"),
            TopicAlteration::new("two").partitions(2).set("segment_age_ms", "1"),
            TopicAlteration::new("none").partitions(2),
        ]
    };
    admin.validate_alteration(alterations().remove(0)).await.unwrap();
    assert_eq!(admin.describe_topic("one").await.unwrap().partitions.len(), 2, "checking alters nothing");

    for _ in 0..2 {
        let altered = admin.alter_topics(alterations()).await.unwrap();
        let codes: Vec<_> = altered.into_iter().map(|one| one.err().and_then(|error| error.code())).collect();
        assert_eq!(codes, [None, Some(ErrorCode::InvalidSetting), Some(ErrorCode::UnknownTopic)]);
    }
    let listed = admin.list_topics().await.unwrap();
    let listed: Vec<_> = listed.iter().map(|topic| (&*topic.name, topic.partitions)).collect();
    assert_eq!(listed, [("one", 4), ("two", 1)]);
    let setting = |description: ringmq_client::TopicDescription| {
        description.settings.into_iter().find(|setting| setting.key == "segment_age_ms").map(|setting| setting.value)
    };
    assert_eq!(setting(admin.describe_topic("one").await.unwrap()).as_deref(), Some("60000"));
    for partition in 0..4 {
        client.producer().send_to("one", PartitionIndex::new(partition), "x").await.unwrap();
    }

    admin.alter_topic(TopicAlteration::new("one").unset("segment_age_ms")).await.unwrap();
    assert_eq!(setting(admin.describe_topic("one").await.unwrap()).as_deref(), Some("604800000"));
}
