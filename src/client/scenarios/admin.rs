//! Topics and the controller.

use ringmq_wire::protocol::RequestType;
use ringmq_wire::{ErrorCode, Offset, PartitionIndex};
use tokio::net::TcpListener;

use super::{connect, with_topic};
use crate::admin::{NewTopic, TopicAlteration};
use crate::delete_records::{DeleteBefore, PartitionStart};
use crate::fakes::{FakeBroker, Fault};

#[tokio::test]
async fn the_controller_is_discovered_once_and_again_when_it_moves() {
    let (old, new) = (FakeBroker::start(1).await, FakeBroker::start(1).await);
    let admin = connect(&old).await.admin();
    assert_eq!(admin.controller_addr().await.unwrap(), old.address().to_string());
    admin.create_topic(NewTopic::new("before")).await.unwrap();
    assert_eq!(old.ports_of(RequestType::DiscoverController).len(), 1);

    old.state().is_controller = false;
    old.state().controller = new.address();
    admin.create_topic(NewTopic::new("after")).await.unwrap();
    assert_eq!(admin.controller_addr().await.unwrap(), new.address().to_string());
    assert_eq!(new.ports_of(RequestType::CreateTopics).len(), 1);
    let controller = admin.discover_controller().await.unwrap();
    assert_eq!((controller.address.port(), controller.epoch), (new.address().port(), 7));
}

#[tokio::test]
async fn a_controller_that_cannot_be_reached_is_asked_through_another_broker() {
    let broker = FakeBroker::start(1).await;
    let admin = connect(&broker).await.admin();
    broker.state().controller = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    admin.create_topic(NewTopic::new("t")).await.unwrap();
}

#[tokio::test]
async fn a_topic_whose_confirmation_was_lost_counts_as_created_and_deleted() {
    let broker = FakeBroker::start(1).await;
    let admin = connect(&broker).await.admin();
    broker.fail_next(RequestType::CreateTopics, Fault::CloseAfterDoing);
    let id = admin.create_topic(NewTopic::new("t").partitions(3)).await.unwrap();
    assert_eq!(admin.describe_topic("t").await.unwrap().topic_id, id);
    assert_eq!(broker.ports_of(RequestType::CreateTopics).len(), 2);

    // Here it was there before, with other partitions: nothing suggests that this call has made it.
    broker.fail_next(RequestType::CreateTopics, Fault::CloseUnread);
    let error = admin.create_topic(NewTopic::new("t").partitions(4)).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TopicAlreadyExists), "{error}");

    broker.fail_next(RequestType::DeleteTopics, Fault::CloseAfterDoing);
    admin.delete_topic("t").await.unwrap();
    assert_eq!(admin.delete_topic("t").await.unwrap_err().code(), Some(ErrorCode::UnknownTopic));
}

#[tokio::test]
async fn an_alteration_goes_to_the_controller_and_is_asked_for_again_when_its_answer_is_lost() {
    let (old, client) = with_topic().await;
    let new = FakeBroker::start(1).await;
    let admin = client.admin();
    old.fail_next(RequestType::AlterTopics, Fault::CloseAfterDoing);
    admin.alter_topic(TopicAlteration::new("t").partitions(6)).await.unwrap();
    assert_eq!(old.ports_of(RequestType::AlterTopics).len(), 2);
    assert_eq!(admin.describe_topic("t").await.unwrap().partitions.len(), 6);

    old.state().is_controller = false;
    old.state().controller = new.address();
    let error = admin.alter_topic(TopicAlteration::new("t").partitions(7)).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic), "the new controller has no such topic");
    assert_eq!(new.ports_of(RequestType::AlterTopics).len(), 1);
}

#[tokio::test]
async fn added_partitions_are_found_by_who_added_them_and_by_who_names_them() {
    let (broker, client) = with_topic().await;
    let other = connect(&broker).await;
    for client in [&client, &other] {
        assert_eq!(client.producer().partition_count("t").await.unwrap(), 4);
    }
    client.admin().alter_topic(TopicAlteration::new("t").partitions(6)).await.unwrap();
    assert_eq!(client.producer().partition_count("t").await.unwrap(), 6);

    assert_eq!(other.producer().partition_count("t").await.unwrap(), 4, "as remembered");
    // The shard has still to open it.
    broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::UnknownPartition));
    other.producer().send_to("t", PartitionIndex::new(5), "x").await.unwrap();
    assert_eq!(broker.ports_of(RequestType::Produce).len(), 2);
    assert_eq!(other.producer().partition_count("t").await.unwrap(), 6);

    let error = other.producer().send_to("t", PartitionIndex::new(6), "x").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownPartition), "{error}");
    assert_eq!(broker.ports_of(RequestType::Produce).len(), 2, "what no metadata names is not asked for");
}

#[tokio::test]
async fn records_are_deleted_by_the_owners_and_asked_for_again_when_an_answer_is_lost() {
    let (broker, client) = with_topic().await;
    let admin = client.admin();
    let partition = PartitionIndex::new;
    let everything: Vec<_> = (0..4).map(|index| (partition(index), DeleteBefore::HighWatermark)).collect();
    broker.fail_next(RequestType::DeleteRecords, Fault::CloseAfterDoing);
    broker.fail_next(RequestType::DeleteRecords, Fault::RefuseItems(ErrorCode::NotLeader));
    let begins = admin.delete_records("t", &everything).await.unwrap();
    let expected = (0..4).map(|index| PartitionStart { partition: partition(index), log_start: Offset::ZERO });
    assert_eq!(begins, expected.collect::<Vec<_>>());
    assert!(broker.ports_of(RequestType::DeleteRecords).len() > 2);

    let beyond = [(partition(1), DeleteBefore::HighWatermark), (partition(0), DeleteBefore::Offset(Offset::new(9)))];
    let each = admin.delete_records_each("t", &beyond).await.unwrap();
    assert!(each[0].is_ok());
    assert_eq!(each[1].as_ref().unwrap_err().code(), Some(ErrorCode::OffsetOutOfRange));
    let error = admin.delete_records("t", &beyond).await.unwrap_err();
    assert!(error.to_string().contains("partition 0 of topic `t`"), "{error}");
    let unknown = admin.delete_records("none", &everything).await.unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::UnknownTopic));
}
