//! Topics and the controller.

use std::time::Duration;

use ringmq_wire::protocol::{OffsetSpec, RequestType};
use ringmq_wire::{ErrorCode, Offset, PartitionIndex};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::{LONG, connect, with_topic};
use crate::admin::BrokerStats;
use crate::client::Client;
use crate::delete_records::{DeleteBefore, DeleteRecords, PartitionStart};
use crate::error::Error;
use crate::fakes::{FakeBroker, Fault};
use crate::list_offsets::ListOffset;
use crate::topic::{NewTopic, TopicAlteration};

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

/// A broker of two shards with topics `a` and `b` of four partitions, two records in each partition of `b`, and a client.
async fn with_topics() -> (FakeBroker, Client) {
    let broker = FakeBroker::start(2).await;
    let client = connect(&broker).await;
    let topics = ["a", "b"].map(|name| NewTopic::new(name).partitions(4));
    assert!(client.admin().create_topics(topics.into()).await.unwrap().iter().all(Result::is_ok));
    let producer = client.producer();
    for partition in (0..4).map(PartitionIndex::new) {
        producer.send_batch_to("b", partition, vec!["x".into(), "y".into()]).await.unwrap();
    }
    (broker, client)
}

#[tokio::test]
async fn records_of_many_topics_are_deleted_with_one_request_to_each_owner() {
    let (broker, _) = with_topics().await;
    let admin = connect(&broker).await.admin();
    let wanted = |topic: &str, partition: u32, before: i64| DeleteRecords {
        topic: topic.to_owned(),
        partition: PartitionIndex::new(partition),
        before: DeleteBefore::Offset(Offset::new(before)),
    };
    let asked = [
        wanted("b", 3, 1),
        wanted("a", 0, 0),
        wanted("b", 0, 2),
        wanted("a", 1, 1),
        wanted("none", 0, 0),
        wanted("a", 9, 0),
        wanted("no name", 0, 0),
        wanted("b", 3, 2),
    ];
    let metadata = broker.ports_of(RequestType::Metadata).len();
    broker.fail_next(RequestType::DeleteRecords, Fault::CloseAfterDoing);
    broker.fail_next(RequestType::DeleteRecords, Fault::RefuseItems(ErrorCode::NotLeader));
    let outcomes = admin.delete_records_many(&asked).await.unwrap();
    let told: Vec<_> = outcomes
        .iter()
        .map(|one| one.as_ref().map(|start| start.log_start.get()).map_err(|error| error.code()))
        .collect();
    let (gone, beyond) = (Err(Some(ErrorCode::UnknownTopic)), Err(Some(ErrorCode::OffsetOutOfRange)));
    // A partition that is named twice is asked twice, one after the other.
    let expected = [Ok(1), Ok(0), Ok(2), beyond, gone, Err(Some(ErrorCode::UnknownPartition)), Err(None), Ok(2)];
    assert_eq!(told, expected);
    assert!(broker.ports_of(RequestType::Metadata).len() > metadata);

    let settled = broker.ports_of(RequestType::DeleteRecords).len();
    let asked: Vec<_> = (0..4).flat_map(|partition| ["a", "b"].map(|topic| wanted(topic, partition, 0))).collect();
    assert!(admin.delete_records_many(&asked).await.unwrap().iter().all(Result::is_ok));
    assert_eq!(broker.ports_of(RequestType::DeleteRecords).len() - settled, 2, "one for each shard");
    assert!(admin.delete_records_many(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn offsets_of_many_topics_are_listed_with_one_request_to_each_owner() {
    let (broker, _) = with_topics().await;
    let consumer = connect(&broker).await.consumer();
    let metadata = broker.ports_of(RequestType::Metadata).len();
    let listed = consumer.list_offsets_of_topics(&["b", "a"], OffsetSpec::Latest).await.unwrap();
    let ends = |one: &crate::TopicOffsets| -> Vec<Option<i64>> {
        let ends = one.as_ref().unwrap().iter().map(|end| end.as_ref().unwrap().offset.map(Offset::get));
        ends.collect()
    };
    assert_eq!(listed.iter().map(ends).collect::<Vec<_>>(), [[Some(2); 4], [Some(0); 4]]);
    assert_eq!(broker.ports_of(RequestType::Metadata).len() - metadata, 1);
    assert_eq!(broker.ports_of(RequestType::ListOffsets).len(), 2, "one for each shard");

    let listed = consumer.list_offsets_of_topics(&["none", "b"], OffsetSpec::Earliest).await.unwrap();
    assert_eq!(listed[0].as_ref().unwrap_err().code(), Some(ErrorCode::UnknownTopic));
    assert_eq!(ends(&listed[1]), [Some(0); 4]);

    let wanted = |topic: &str, partition: u32, at: OffsetSpec| {
        let (topic, partition) = (topic.to_owned(), PartitionIndex::new(partition));
        ListOffset { topic, partition, at }
    };
    broker.fail_next(RequestType::ListOffsets, Fault::RefuseItems(ErrorCode::NotLeader));
    let asked =
        [wanted("b", 3, OffsetSpec::Latest), wanted("a", 7, OffsetSpec::Latest), wanted("b", 0, OffsetSpec::Earliest)];
    let listed = consumer.list_offsets_many(&asked).await.unwrap();
    assert_eq!(listed[0].as_ref().unwrap().offset, Some(Offset::new(2)));
    assert_eq!(listed[1].as_ref().unwrap_err().code(), Some(ErrorCode::UnknownPartition));
    assert_eq!(listed[2].as_ref().unwrap().offset, Some(Offset::ZERO));

    let both_ends = [OffsetSpec::Earliest, OffsetSpec::Latest, OffsetSpec::Earliest].map(|at| wanted("b", 3, at));
    let listed = consumer.list_offsets_many(&both_ends).await.unwrap();
    let offsets: Vec<_> = listed.iter().map(|one| one.as_ref().unwrap().offset.map(Offset::get)).collect();
    assert_eq!(offsets, [Some(0), Some(2), Some(0)], "each place has the offset that was asked for there");
}

#[tokio::test]
async fn an_owner_that_has_no_answer_in_time_does_not_hide_the_others() {
    let (broker, _) = with_topics().await;
    let client = Client::builder().brokers(broker.address()).timeout(Duration::from_secs(2)).connect().await.unwrap();
    broker.fail_shard(1, Fault::RefuseItems(ErrorCode::StorageFull));
    let before = DeleteBefore::Offset(Offset::new(1));
    let wanted = |index| DeleteRecords { topic: "b".to_owned(), partition: PartitionIndex::new(index), before };
    let (admin, consumer) = (client.admin(), client.consumer());
    let (deleted, listed) =
        tokio::join!(async { admin.delete_records_many(&[3, 2, 1, 0, 3].map(wanted)).await.unwrap() }, async {
            consumer.list_offsets_of_topics(&["b"], OffsetSpec::Latest).await.unwrap().remove(0).unwrap()
        },);
    let told: Vec<_> = deleted.iter().map(|one| one.as_ref().map(|start| start.log_start.get()).ok()).collect();
    assert_eq!(told, [None, Some(1), None, Some(1), None]);
    let ends: Vec<_> = listed.iter().map(|one| one.as_ref().ok().and_then(|end| end.offset).map(Offset::get)).collect();
    assert_eq!(ends, [Some(2), None, Some(2), None]);
    for error in
        deleted.iter().filter_map(|one| one.as_ref().err()).chain(listed.iter().filter_map(|one| one.as_ref().err()))
    {
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        assert_eq!(error.code(), Some(ErrorCode::StorageFull), "{error}");
    }
}

#[tokio::test]
async fn all_owners_are_asked_at_the_same_time() {
    let (broker, _) = with_topics().await;
    // In turn, the second would be asked when half of this is over.
    let patient = Client::builder().brokers(broker.address()).timeout(LONG * 10).connect().await.unwrap();
    broker.fail_shard(0, Fault::Silence);
    broker.fail_shard(1, Fault::Silence);
    let consumer = patient.consumer();
    let listing = tokio::spawn(async move { consumer.list_offsets_of_topics(&["a", "b"], OffsetSpec::Latest).await });
    timeout(LONG, broker.has_received(RequestType::ListOffsets, 2)).await.expect("both are asked");
    assert!(!listing.is_finished());
    listing.abort();
}

#[tokio::test]
async fn what_is_too_large_for_one_request_is_cut() {
    let (broker, _) = with_topics().await;
    // Room for the two partitions that a shard has of one topic.
    broker.state().request_bytes_max = 50;
    let client = connect(&broker).await;
    let before = DeleteBefore::Offset(Offset::ZERO);
    let wanted = |index| {
        ["a", "b"].map(|topic| DeleteRecords { topic: topic.to_owned(), partition: PartitionIndex::new(index), before })
    };
    let wanted: Vec<_> = (0..4).flat_map(wanted).collect();
    let outcomes = client.admin().delete_records_many(&wanted).await.unwrap();
    let partitions: Vec<_> = outcomes.iter().map(|one| one.as_ref().unwrap().partition.get()).collect();
    assert_eq!(partitions, [0, 0, 1, 1, 2, 2, 3, 3]);
    assert_eq!(broker.ports_of(RequestType::DeleteRecords).len(), 4, "two for each shard");

    // A part that the owner does not answer hides no other.
    broker.fail_next(RequestType::DeleteRecords, Fault::CloseAfterDoing);
    assert!(client.admin().delete_records_many(&wanted).await.unwrap().iter().all(Result::is_ok));

    let metadata = broker.ports_of(RequestType::Metadata).len();
    let absent: Vec<String> = (0..16).map(|number| format!("absent{number:02}")).collect();
    let found = client.admin().partition_addresses_of_topics(&absent).await.unwrap();
    assert!(found.iter().all(|found| found.as_ref().unwrap_err().code() == Some(ErrorCode::UnknownTopic)));
    // Each name has 10 bytes there.
    assert_eq!(broker.ports_of(RequestType::Metadata).len() - metadata, 8, "two names at once");
}

#[tokio::test]
async fn many_topics_are_found_and_checked_at_once() {
    let (broker, _) = with_topics().await;
    let admin = connect(&broker).await.admin();
    let metadata = broker.ports_of(RequestType::Metadata).len();
    let found = admin.partition_addresses_of_topics(&["a", "b"]).await.unwrap();
    assert_eq!(broker.ports_of(RequestType::Metadata).len() - metadata, 1);
    for (topic, found) in ["a", "b"].iter().zip(found) {
        assert_eq!(found.unwrap(), admin.partition_addresses(topic).await.unwrap());
    }
    let metadata = broker.ports_of(RequestType::Metadata).len();
    let found = connect(&broker).await.admin().partition_addresses_of_topics(&["none", "nor", "a"]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap_err().code(), Some(ErrorCode::UnknownTopic));
    assert_eq!(found[1].as_ref().unwrap_err().code(), Some(ErrorCode::UnknownTopic));
    assert_eq!(found[2].as_ref().unwrap().len(), 4);
    assert_eq!(broker.ports_of(RequestType::Metadata).len() - metadata, 1, "a refusal is not asked for twice");

    let validated = admin.validate_topics(vec![NewTopic::new("c"), NewTopic::new("a")]).await.unwrap();
    assert!(validated[0].is_ok());
    assert_eq!(validated[1].as_ref().unwrap_err().code(), Some(ErrorCode::TopicAlreadyExists));
    let validated = admin.validate_alterations(vec![
        TopicAlteration::new("a").partitions(8),
        TopicAlteration::new("none").partitions(8),
    ]);
    let validated = validated.await.unwrap();
    assert!(validated[0].is_ok());
    assert_eq!(validated[1].as_ref().unwrap_err().code(), Some(ErrorCode::UnknownTopic));
    assert_eq!(admin.list_topics().await.unwrap().len(), 2, "none was made");
    assert_eq!(admin.describe_topic("a").await.unwrap().partitions.len(), 4, "none was altered");
}

#[tokio::test]
async fn every_broker_of_the_roster_is_asked_for_its_statistics() {
    let (old, new) = (FakeBroker::start(1).await, FakeBroker::start(1).await);
    let admin = connect(&old).await.admin();
    let ports = |stats: &[BrokerStats]| -> Vec<u64> {
        stats.iter().map(|broker| broker.shards.as_ref().unwrap()[0].gauges[0].value).collect()
    };
    let both: [u64; 2] = [new.address().port().into(), old.address().port().into()];
    assert_eq!(ports(&admin.stats_of_brokers().await.unwrap()), both[1..]);
    old.state().controller = new.address();
    // The old controller, which is remembered, names both, and the new one itself alone.
    let remembered = admin.stats_of_brokers().await.unwrap();
    assert_eq!(ports(&remembered), both);
    assert_eq!(remembered.iter().map(|broker| broker.id.get()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(remembered[0].address.port(), new.address().port());
    let client = connect(&old).await;
    assert_eq!(ports(&client.admin().stats_of_brokers().await.unwrap()), both[..1]);

    // One that says nothing until the other has answered, and then something that no broker says, does not hide the other.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    old.state().controller = silent.local_addr().unwrap();
    let asked = old.ports_of(RequestType::Stats).len();
    let answered_late = async {
        let (mut stream, _) = silent.accept().await.unwrap();
        old.has_received(RequestType::Stats, asked + 1).await;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    };
    let (stats, _stream) = tokio::join!(admin.stats_of_brokers(), answered_late);
    let stats = stats.unwrap();
    assert!(matches!(stats[0].shards, Err(Error::Unreachable { .. })), "{stats:?}");
    assert_eq!(ports(&stats[1..]), both[1..]);
}
