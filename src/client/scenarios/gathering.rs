//! Handing records over without waiting for them: room, flushing, closing, and what is left when all of it ends.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use ringmq_wire::ErrorCode;
use ringmq_wire::protocol::RequestType;

use super::{LONG, with_topic};
use crate::client::Client;
use crate::error::Error;
use crate::fakes::{FakeBroker, Fault};
use crate::fetch::FetchOptions;
use crate::record::Record;
use crate::{Offset, PartitionIndex};

const FIRST: PartitionIndex = PartitionIndex::new(0);
/// How long a request is waited for where a broker is silent.
const SHORT: Duration = Duration::from_millis(300);

/// Each a record for the first partition.
fn numbered(count: usize) -> impl Iterator<Item = Record> {
    (0..count).map(|number| Record::value(number.to_string()).to_partition(FIRST))
}

async fn values(client: &Client, partition: PartitionIndex) -> Vec<String> {
    let fetched = client.consumer().fetch("t", partition, Offset::ZERO, FetchOptions::no_wait()).await.unwrap();
    let value = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    fetched.records.iter().map(|record| value(record.value.as_deref().unwrap())).collect()
}

/// A broker whose next answers to produces are left out, and a client that soon asks again, of room for so many bytes.
async fn silent(answers: usize, bytes_max: u32) -> (FakeBroker, Client) {
    let (broker, _) = with_topic().await;
    let client = Client::builder().brokers(broker.address()).timeout(SHORT).producer_bytes_max(bytes_max);
    let client = client.connect().await.unwrap();
    for _ in 0..answers {
        broker.fail_next(RequestType::Produce, Fault::Silence);
    }
    (broker, client)
}

/// Polls a future that is not ready.
async fn poll_once<F: Future>(future: Pin<&mut F>) -> bool {
    let mut future = Some(future);
    std::future::poll_fn(move |context| {
        Poll::Ready(future.take().is_some_and(|future| future.poll(context).is_ready()))
    })
    .await
}

#[tokio::test]
async fn what_nobody_waits_for_is_sent_in_few_batches_and_a_flush_ends_when_it_is_stored() {
    let (broker, client) = with_topic().await;
    let producer = client.producer();
    for record in numbered(1000) {
        drop(producer.enqueue("t", record).await.unwrap());
    }
    producer.flush().await.unwrap();
    assert_eq!(broker.end("t", 0), 1000);
    assert!(values(&client, FIRST).await.into_iter().eq((0..1000).map(|number| number.to_string())));
    let requests = broker.ports_of(RequestType::Produce).len();
    assert!(requests < 100, "{requests} requests");
    producer.flush().await.unwrap();
}

#[tokio::test]
async fn what_is_handed_over_tells_where_it_is() {
    let (_broker, client) = with_topic().await;
    let producer = client.producer();
    let mut pending = Vec::new();
    for record in numbered(100) {
        pending.push(producer.enqueue("t", record).await.unwrap());
    }
    for (number, pending) in (0..).zip(pending) {
        let delivery = pending.await.unwrap();
        assert_eq!((delivery.partition, delivery.offset), (FIRST, Offset::new(number)));
    }
}

#[tokio::test]
async fn callbacks_hear_of_each_record_in_order() {
    let (broker, client) = with_topic().await;
    let producer = client.producer().batch_bytes_max(1);
    let heard = Arc::new(Mutex::new(Vec::new()));
    producer.send_to("t", FIRST, "first").await.unwrap();
    broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::RecordTooLarge));
    for record in numbered(4) {
        let heard = heard.clone();
        producer
            .enqueue_with("t", record, move |delivery| {
                heard
                    .lock()
                    .unwrap()
                    .push(delivery.map(|delivery| delivery.offset.get()).map_err(|error| error.code()));
            })
            .await
            .unwrap();
    }
    let error = producer.flush().await.unwrap_err();
    assert!(matches!(&error, Error::Undelivered { records: 1, .. }), "{error}");
    assert_eq!(*heard.lock().unwrap(), [Err(Some(ErrorCode::RecordTooLarge)), Ok(1), Ok(2), Ok(3)]);
}

#[tokio::test]
async fn without_room_a_record_waits_or_is_refused_at_once() {
    let (broker, client) = silent(1, 1_000).await;
    let producer = client.producer();
    let unknown = producer.try_enqueue("t", "x").unwrap_err();
    assert!(matches!(unknown, Error::PartitionsUnknown { .. }), "{unknown}");
    producer.partition_count("t").await.unwrap();

    let mut taken = 0;
    let full = loop {
        match producer.try_enqueue("t", Record::value(format!("{taken}")).to_partition(FIRST)) {
            Ok(pending) => drop(pending),
            Err(error) => break error,
        }
        taken += 1;
    };
    assert!(matches!(full, Error::Full { bytes_max: 1_000 }) && full.is_retriable(), "{full}");
    assert!((2..100).contains(&taken), "{taken}");
    // Not before the broker has answered, at the second attempt.
    drop(producer.enqueue("t", Record::value(format!("{taken}")).to_partition(FIRST)).await.unwrap());
    assert_eq!(broker.end("t", 0), taken);
    producer.flush().await.unwrap();
    assert!(values(&client, FIRST).await.into_iter().eq((0..=taken).map(|number| number.to_string())));
    drop(producer.try_enqueue("t", "keyless").unwrap());
    producer.flush().await.unwrap();

    let large = producer.send("t", vec![b'x'; 1_001]).await.unwrap_err();
    assert!(matches!(large, Error::Argument(_)), "{large}");
}

#[tokio::test]
async fn room_that_does_not_come_in_time_is_told_as_such() {
    let (_broker, client) = silent(100, 1_000).await;
    let producer = client.producer().delivery_timeout(SHORT);
    let record = || Record::value(vec![b'x'; 900]).to_partition(FIRST);
    let held = producer.enqueue("t", record()).await.unwrap();
    let error = producer.clone().delivery_timeout(SHORT / 10).enqueue("t", record()).await.unwrap_err();
    let is_full = |last: &Option<Box<Error>>| last.as_ref().is_some_and(|last| matches!(**last, Error::Full { .. }));
    assert!(matches!(&error, Error::TimedOut { last, .. } if is_full(last)), "{error}");
    assert!(matches!(held.await, Err(Error::MaybeStored { .. })));
}

#[tokio::test]
async fn a_bound_of_few_bytes_slows_down_and_loses_nothing() {
    let (broker, _) = with_topic().await;
    let client = Client::builder().brokers(broker.address()).timeout(LONG).producer_bytes_max(200).connect().await;
    let client = client.unwrap();
    let senders = (0..4).map(|sender| {
        let producer = client.producer();
        tokio::spawn(async move {
            for number in 0..100 {
                let record = Record::value(number.to_string()).to_partition(PartitionIndex::new(sender));
                drop(producer.enqueue("t", record).await.unwrap());
            }
            producer.close().await.unwrap();
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    for partition in 0..4 {
        let seen = values(&client, PartitionIndex::new(partition)).await;
        assert!(seen.into_iter().eq((0..100).map(|number| number.to_string())));
    }
}

#[tokio::test]
async fn a_request_may_time_out_and_the_delivery_go_on() {
    let (broker, client) = silent(2, 1_000).await;
    let delivery = client.producer().send_to("t", FIRST, "patient").await.unwrap();
    assert_eq!(delivery.offset, Offset::ZERO);
    assert_eq!(broker.ports_of(RequestType::Produce).len(), 3);
    // The other way round, the request has no more time than the delivery.
    for _ in 0..2 {
        broker.fail_next(RequestType::Produce, Fault::Silence);
    }
    let begun = std::time::Instant::now();
    let impatient = client.producer().delivery_timeout(SHORT / 3);
    assert!(impatient.send_to("t", FIRST, "impatient").await.is_err());
    assert!(begun.elapsed() >= SHORT / 3);
}

#[tokio::test]
async fn a_flush_tells_once_how_many_records_failed() {
    let (broker, client) = with_topic().await;
    let (producer, other) = (client.producer().batch_bytes_max(1), client.producer());
    broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::RecordTooLarge));
    broker.fail_next(RequestType::Produce, Fault::RefuseItems(ErrorCode::RecordTooLarge));
    for record in numbered(5) {
        drop(producer.enqueue("t", record).await.unwrap());
    }
    let error = producer.clone().flush().await.unwrap_err();
    assert!(matches!(&error, Error::Undelivered { records: 2, .. }), "{error}");
    assert_eq!(error.code(), Some(ErrorCode::RecordTooLarge));
    producer.flush().await.unwrap();
    other.flush().await.expect("nothing of its own has failed");
    assert_eq!(values(&client, FIRST).await, ["2", "3", "4"]);
}

#[tokio::test]
async fn a_closed_producer_takes_nothing_more_and_has_sent_what_it_took() {
    let (broker, client) = with_topic().await;
    let (producer, other) = (client.producer(), client.producer());
    for record in numbered(50) {
        drop(producer.enqueue("t", record).await.unwrap());
    }
    producer.clone().close().await.unwrap();
    assert_eq!(broker.end("t", 0), 50);
    assert!(matches!(producer.send("t", "x").await, Err(Error::Closed)));
    assert!(matches!(producer.send_batch("t", ["x"]).await, Err(Error::Closed)));
    assert!(matches!(producer.send_batch_to("t", FIRST, vec!["x".into()]).await, Err(Error::Closed)));
    assert!(matches!(producer.try_enqueue("t", "x"), Err(Error::Closed)));
    assert!(matches!(producer.send_unacknowledged("t", "x").await, Err(Error::Closed)));
    producer.close().await.unwrap();
    other.send_to("t", FIRST, "50").await.unwrap();
}

#[tokio::test]
async fn closing_refuses_what_still_waits_for_room() {
    let (broker, client) = silent(1, 1_000).await;
    let producer = client.producer();
    let record = || Record::value(vec![b'x'; 900]).to_partition(FIRST);
    drop(producer.enqueue("t", record()).await.unwrap());
    let mut waiting = pin!(producer.enqueue("t", record()));
    assert!(!poll_once(waiting.as_mut()).await);
    producer.close().await.unwrap();
    assert!(matches!(waiting.await, Err(Error::Closed)));
    assert_eq!(broker.end("t", 0), 1);
}

#[tokio::test]
async fn a_call_that_is_cancelled_without_room_sends_nothing_and_later_the_record_goes_all_the_same() {
    let (_broker, client) = silent(1, 1_000).await;
    let producer = client.producer();
    producer.partition_count("t").await.unwrap();
    let record = |name: &str| Record::value(format!("{name}{}", "x".repeat(500))).to_partition(FIRST);
    {
        // There is room, so the record is on its way after the first step, and in the second it is waited for.
        let mut sent = pin!(producer.send("t", record("sent")));
        assert!(!poll_once(sent.as_mut()).await);
        for cancelled in ["send", "enqueue", "batch"] {
            let cancelled = record(cancelled);
            let (mut send, mut enqueue) =
                (pin!(producer.send("t", cancelled.clone())), pin!(producer.enqueue("t", cancelled.clone())));
            assert!(!poll_once(send.as_mut()).await && !poll_once(enqueue.as_mut()).await);
            let mut batch = pin!(producer.send_batch("t", [cancelled.clone(), cancelled.clone()]));
            let mut whole = pin!(producer.send_batch_to("t", FIRST, vec![cancelled.clone()]));
            assert!(!poll_once(batch.as_mut()).await && !poll_once(whole.as_mut()).await);
            let mut callback = pin!(producer.enqueue_with("t", cancelled, |_| panic!("it was not handed over")));
            assert!(!poll_once(callback.as_mut()).await);
        }
        let mut flush = pin!(producer.flush());
        assert!(!poll_once(flush.as_mut()).await);
    }
    producer.flush().await.unwrap();
    let seen = values(&client, FIRST).await;
    assert!(seen.len() == 1 && seen[0].starts_with("sent"), "{seen:?}");

    let mut closing = Box::pin(producer.close());
    let _ = poll_once(closing.as_mut()).await;
    drop(closing);
    assert!(matches!(producer.send("t", "x").await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_batch_goes_to_the_partitions_of_its_keys_and_tells_of_each_record() {
    let (_broker, client) = with_topic().await;
    let producer = client.producer();
    let record = |number: usize| Record::value(number.to_string()).with_key(format!("key {}", number % 7));
    let outcomes = producer.send_batch("t", (0..100).map(record)).await.unwrap();
    assert_eq!(outcomes.len(), 100);
    let mut seen = Vec::new();
    for partition in 0..4 {
        seen.push(values(&client, PartitionIndex::new(partition)).await);
    }
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let delivery = outcome.unwrap();
        let key = format!("key {}", number % 7);
        assert_eq!(delivery.partition, producer.partition_for("t", Some(key.as_bytes())).await.unwrap());
        let at = usize::try_from(delivery.offset.get()).unwrap();
        assert_eq!(seen[delivery.partition.as_usize()][at], number.to_string());
    }
    let some = [Record::value("x").to_partition(PartitionIndex::new(9)), Record::value("y").to_partition(FIRST)];
    let outcomes = producer.send_batch("t", some).await.unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap_err().code(), Some(ErrorCode::UnknownPartition));
    assert!(outcomes[1].is_ok());
    let error = producer.send_batch("none", ["x"]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
    assert!(producer.send_batch("t", [""; 0]).await.unwrap().is_empty());
}

#[tokio::test]
async fn records_without_a_key_fill_a_batch_before_they_go_to_the_next_partition() {
    let (broker, client) = with_topic().await;
    let producer = client.producer().batch_bytes_max(1_000);
    producer.partition_count("t").await.unwrap();
    for _ in 0..80 {
        drop(producer.try_enqueue("t", vec![b'x'; 50]).unwrap());
    }
    producer.flush().await.unwrap();
    let ends: Vec<i64> = (0..4).map(|partition| broker.end("t", partition)).collect();
    assert!(ends.iter().all(|end| (11..=33).contains(end)), "{ends:?}");
    let requests = broker.ports_of(RequestType::Produce).len();
    assert!(requests <= 10, "{requests} requests for {ends:?}");
}

/// What is logged in a test of one thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn listen(&self) -> impl Sized + use<> {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        super::listen(subscriber)
    }
}

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn dropping_a_producer_says_how_many_records_are_on_their_way_and_they_arrive() {
    let (broker, client) = with_topic().await;
    let log = Log::default();
    let _listening = log.listen();
    let producer = client.producer();
    let clone = producer.clone();
    for record in numbered(3) {
        drop(producer.enqueue("t", record).await.unwrap());
    }
    drop((producer, client));
    assert_eq!(log.text(), "", "a clone is left");
    drop(clone);
    let text = log.text();
    assert!(text.contains("WARN") && text.contains("records=3") && text.contains("dropped"), "{text}");
    // Nobody is left that could send more; what there is goes.
    broker.has_received(RequestType::Produce, 1).await;
    broker.is_alone().await;
    assert_eq!(broker.end("t", 0), 3);
}

#[test]
fn a_runtime_that_ends_says_how_many_records_are_lost_and_tells_who_waits() {
    for idempotent in [true, false] {
        end_a_runtime(idempotent);
    }
}

fn end_a_runtime(idempotent: bool) {
    // The broker's runtime runs on a thread of its own, so that the client's can end before it.
    let theirs = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (broker, _) = theirs.block_on(silent(100, 1_000));
    let log = Log::default();
    let _listening = log.listen();
    let ours = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (producer, first, second) = ours.block_on(async {
        let client = Client::builder().brokers(broker.address()).timeout(LONG).connect().await.unwrap();
        let producer = client.producer().idempotent(idempotent).batch_bytes_max(1);
        producer.partition_count("t").await.unwrap();
        let mut records = numbered(2);
        let first = producer.enqueue("t", records.next().unwrap()).await.unwrap();
        let second = producer.enqueue("t", records.next().unwrap()).await.unwrap();
        // With an identity the second waits until the first is answered: only then does the partition know the producer.
        broker.has_received(RequestType::Produce, if idempotent { 1 } else { 2 }).await;
        (producer, first, second)
    });
    drop(ours);
    let text = log.text();
    assert!(text.contains("WARN") && text.contains("records=2") && text.contains("runtime ended"), "{text}");
    theirs.block_on(async {
        assert!(matches!(first.await, Err(Error::MaybeStored { .. })));
        let second = second.await.unwrap_err();
        assert_eq!(matches!(second, Error::Runtime(_)), idempotent, "{second}");
        assert_eq!(matches!(second, Error::MaybeStored { .. }), !idempotent, "{second}");
        assert!(matches!(producer.try_enqueue("t", "x"), Err(Error::Runtime(_))));
    });
}

#[test]
fn dropping_a_blocking_producer_says_how_many_records_are_lost() {
    let theirs = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (broker, _) = theirs.block_on(silent(100, 1_000));
    let log = Log::default();
    let _listening = log.listen();
    let client = crate::blocking::Client::builder().brokers(broker.address()).timeout(LONG).connect().unwrap();
    let producer = client.producer();
    for record in numbered(3) {
        producer.enqueue_with("t", record, |_| {}).unwrap();
    }
    let clone = producer.clone();
    drop((producer, client));
    assert_eq!(log.text(), "", "a clone is left, and with it the thread");
    drop(clone);
    let text = log.text();
    assert!(text.contains("WARN") && text.contains("records=3") && text.contains("dropped"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn records_gather_while_no_broker_can_be_reached() {
    let (broker, client) = with_topic().await;
    let producer = client.producer();
    producer.send("t", "0").await.unwrap();
    // All that is known of the route is in doubt, and nobody answers where it leads now.
    broker.fail_next(RequestType::Produce, Fault::CloseUnread);
    broker.fail_next(RequestType::Metadata, Fault::Silence);
    drop(producer.enqueue("t", Record::value("1").to_partition(FIRST)).await.unwrap());
    broker.has_received(RequestType::Metadata, 2).await;
    let begun = tokio::time::Instant::now();
    for number in 2..10 {
        drop(producer.enqueue("t", number.to_string()).await.unwrap());
        drop(producer.enqueue("t", Record::value("x").with_key(number.to_string())).await.unwrap());
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "none has waited");
    producer.flush().await.unwrap();
    assert_eq!((0..4).map(|partition| broker.end("t", partition)).sum::<i64>(), 18);
}

#[tokio::test]
async fn how_many_partitions_there_are_is_known_whoever_has_asked() {
    let (broker, client) = with_topic().await;
    let producer = client.producer();
    // Somebody else asks first.
    producer.send_to("t", FIRST, "0").await.unwrap();
    assert_eq!(producer.partition_count("t").await.unwrap(), 4);
    broker.fail_next(RequestType::Produce, Fault::Refuse(ErrorCode::ShuttingDown.into()));
    broker.fail_next(RequestType::Metadata, Fault::Silence);
    let pending = producer.enqueue("t", Record::value("1").to_partition(FIRST)).await.unwrap();
    broker.has_received(RequestType::Metadata, 2).await;
    drop(producer.try_enqueue("t", "2").unwrap());
    drop((pending, broker));
    // A topic that is deleted is another matter.
    let (_broker, client) = with_topic().await;
    let producer = client.producer();
    producer.partition_count("t").await.unwrap();
    client.admin().delete_topic("t").await.unwrap();
    assert!(matches!(producer.try_enqueue("t", "x"), Err(Error::PartitionsUnknown { .. })));
}

/// A lane that looked again and again would never let the broker answer: there is one thread, and its clock moves only while
/// nobody has anything to do.
#[test]
fn a_batch_that_cannot_be_sent_waits_with_those_behind_it_for_what_is_in_flight() {
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (broker, client) = with_topic().await;
            let producer = client.producer();
            producer.send_to("t", FIRST, "known").await.unwrap();
            broker.state().produce_takes = Duration::from_secs(1);
            let first = producer.enqueue("t", Record::value("first").to_partition(FIRST)).await.unwrap();
            broker.has_received(RequestType::Produce, 2).await;
            // More than the broker takes in one request, and one behind it.
            let record = |bytes| vec![Record::value(vec![b'x'; bytes])];
            let mut large = pin!(producer.send_batch_to("t", FIRST, record(9 << 20)));
            assert!(!poll_once(large.as_mut()).await);
            let mut last = pin!(producer.send_batch_to("t", FIRST, record(1)));
            assert!(!poll_once(last.as_mut()).await);
            first.await.unwrap();
            let refused = large.await.unwrap_err();
            assert!(matches!(refused, Error::Connection { may_have_arrived: false, .. }), "{refused}");
            last.await.unwrap();
            assert_eq!(broker.end("t", 0), 3);
        });
        ended.send(()).unwrap();
    });
    end.recv_timeout(LONG).expect("it ends");
}
