//! Topics and the controller.

use ringmq_wire::ErrorCode;
use ringmq_wire::protocol::RequestType;
use tokio::net::TcpListener;

use super::connect;
use crate::admin::NewTopic;
use crate::testing::{FakeBroker, Fault};

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
