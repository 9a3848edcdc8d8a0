//! The blocking face, outside of a runtime and inside of one.

use std::net::TcpListener;

use ringmq_client::blocking::Client;
use ringmq_client::{
    Error, ErrorCode, FetchOptions, NewTopic, Offset, OffsetSpec, Start, SubscribeOptions, TopicAlteration, Until,
};
use ringmq_tests::Broker;

fn use_everything(client: &Client) {
    let admin = client.admin();
    admin.create_topic(NewTopic::new("t").partitions(4)).unwrap();
    let error = admin.create_topic(NewTopic::new("t")).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TopicAlreadyExists));
    assert_eq!(admin.list_topics().unwrap().len(), 1);
    admin.alter_topic(TopicAlteration::new("t").partitions(5)).unwrap();
    assert_eq!(admin.describe_topic("t").unwrap().partitions.len(), 5);
    assert_eq!(admin.controller_addr().unwrap(), admin.discover_controller().unwrap().address.to_string());

    let delivery = client.producer().send("t", "hello").unwrap();
    let consumer = client.consumer();
    let fetched = consumer.fetch("t", delivery.partition, delivery.offset, FetchOptions::default()).unwrap();
    assert_eq!(fetched.records[0].value.as_deref(), Some(&b"hello"[..]));
    let latest = consumer.list_offset("t", delivery.partition, OffsetSpec::Latest).unwrap();
    assert_eq!(latest.offset, Some(Offset::new(1)));

    let until_now = SubscribeOptions { until: Until::CurrentEnd, ..SubscribeOptions::default() };
    let values: Vec<_> =
        consumer.stream("t", until_now).unwrap().map(|record| record.unwrap().value.unwrap()).collect();
    assert_eq!(values, ["hello"]);

    let producer = client.producer();
    let pending: Vec<_> = (0..10).map(|number| producer.enqueue("t", number.to_string()).unwrap()).collect();
    for pending in pending {
        pending.wait().unwrap();
    }
    producer.try_enqueue("t", "at once").unwrap().wait().unwrap();
    let (sender, told) = std::sync::mpsc::channel();
    producer.enqueue_with("t", "told", move |delivery| sender.send(delivery.is_ok()).unwrap()).unwrap();
    producer.flush().unwrap();
    assert!(told.recv().unwrap());
    assert!(producer.send_batch("t", ["one", "two"]).unwrap().iter().all(Result::is_ok));
    producer.close().unwrap();
    assert!(matches!(producer.send("t", "three"), Err(Error::Closed)));

    let mut handled = 0;
    let error = consumer.subscribe("t", Start::Earliest, |_| {
        handled += 1;
        // A handler may use the client: it runs on the thread that called.
        client.admin().list_topics().unwrap();
        Err("enough")
    });
    assert!(matches!(error, Err(Error::Handler { .. })));
    assert_eq!(handled, 1);
    admin.delete_topic("t").unwrap();
}

#[test]
fn it_works_without_a_runtime() {
    let broker = Broker::start();
    let client = Client::connect(broker.address()).unwrap();
    use_everything(&client);
    use_everything(&client);
}

#[test]
fn it_works_inside_a_runtime_and_can_be_dropped_there() {
    let broker = Broker::start();
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(async {
        let client = Client::connect(broker.address()).unwrap();
        use_everything(&client);
    });
}

/// More calls than a tokio task may make progress before it has to return to its scheduler.
fn send_and_read_many(client: &Client) {
    const RECORDS: usize = 300;
    client.admin().create_topic(NewTopic::new("many")).unwrap();
    let producer = client.producer();
    for number in 0..RECORDS {
        producer.send("many", number.to_string()).unwrap();
    }
    let until_now = SubscribeOptions { until: Until::CurrentEnd, ..SubscribeOptions::default() };
    let read = client.consumer().stream("many", until_now).unwrap().map(|record| record.unwrap().value.unwrap());
    assert!(read.eq((0..RECORDS).map(|number| number.to_string())));
}

#[test]
fn many_calls_in_one_task_do_not_use_up_what_its_runtime_grants() {
    for threads in [1, 2] {
        let broker = Broker::start();
        let address = broker.address();
        let other = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
        other.block_on(async { send_and_read_many(&Client::connect(address).unwrap()) });
        let broker = Broker::start();
        let address = broker.address();
        let spawned = other.spawn(async move { send_and_read_many(&Client::connect(address).unwrap()) });
        other.block_on(spawned).unwrap();
    }
    let broker = Broker::start();
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(async { send_and_read_many(&Client::connect(broker.address()).unwrap()) });
}

#[test]
fn many_threads_share_a_client() {
    let broker = Broker::start();
    let client = Client::connect(broker.address()).unwrap();
    client.admin().create_topic(NewTopic::new("t").partitions(4)).unwrap();
    let producer = client.producer();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    producer.send("t", "x").unwrap();
                }
            });
        }
    });
    let ends = client.consumer().list_offsets("t", OffsetSpec::Latest).unwrap();
    let stored: i64 = ends.iter().map(|end| end.offset.unwrap().get()).sum();
    assert_eq!(stored, 160);
}

#[test]
fn a_stream_gives_what_is_sent_later() {
    let broker = Broker::start();
    let client = Client::connect(broker.address()).unwrap();
    client.admin().create_topic(NewTopic::new("t").partitions(4)).unwrap();
    let mut stream = client.consumer().stream("t", SubscribeOptions::default()).unwrap();
    for value in ["a", "b", "c"] {
        let delivery = client.producer().send("t", value).unwrap();
        let record = stream.next().unwrap().unwrap();
        assert_eq!((record.partition, record.offset), (delivery.partition, delivery.offset));
        assert_eq!(record.value.as_deref(), Some(value.as_bytes()));
    }
    let requests = client.admin().stats().unwrap().into_iter().flat_map(|shard| shard.requests);
    let fetches: u64 = requests.filter(|requests| requests.name == "Fetch").map(|requests| requests.value).sum();
    assert_eq!(fetches, 0, "it is subscribed to, not fetched");
}

#[test]
fn nobody_there_is_an_error() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(Client::connect(address), Err(Error::Unreachable { .. })));
}
