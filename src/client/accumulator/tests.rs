//! The gathering of records as a whole, before connections that answer when and how a test says, by a clock of its own.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use ringmq_wire::batch::{BatchView, Compression, Scratch};
use ringmq_wire::protocol::Acks;
use ringmq_wire::{Offset, PartitionIndex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::delivery::{Deliveries, Delivery};
use crate::error::Error;
use crate::record::Record;

const TOPIC: &str = "t";
const FIRST: PartitionIndex = PartitionIndex::new(0);
const IN_FLIGHT_MAX: usize = 5;

fn settings() -> BatchSettings {
    BatchSettings {
        acks: Acks::All,
        compression: Compression::None,
        linger: Duration::from_millis(5),
        batch_bytes_max: 1000,
        delivery_timeout: Duration::from_secs(30),
    }
}

fn values(batch: &EncodedBatch) -> Vec<String> {
    let mut scratch = Scratch::default();
    let view = BatchView::parse(&batch.batch).unwrap();
    let records = view.records(&mut scratch).unwrap();
    records.map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap()).collect()
}

/// What the connections have stored, and what they were told to do.
#[derive(Default)]
struct Stored {
    /// By partition, in order.
    logs: Mutex<BTreeMap<PartitionIndex, Vec<String>>>,
    /// How long each batch takes in its turn, in milliseconds, and whether it is refused.
    plan: Mutex<VecDeque<(u64, bool)>>,
    refused: AtomicUsize,
    /// Bytes of records that were handed over and not answered.
    held: AtomicUsize,
}

/// Stands for a lane: a few batches in flight, answered in their order.
async fn answer(queue: Arc<PartitionQueue>, stored: Arc<Stored>) {
    let mut in_flight: VecDeque<(EncodedBatch, Instant, bool)> = VecDeque::new();
    loop {
        while in_flight.len() < IN_FLIGHT_MAX
            && let Some(batch) = queue.take(in_flight.is_empty())
        {
            let (takes, is_refused) = stored.plan.lock().unwrap().pop_front().unwrap_or((1, false));
            in_flight.push_back((batch, Instant::now() + Duration::from_millis(takes), is_refused));
        }
        let Some((_, due, _)) = in_flight.front() else {
            queue.rest();
            if !queue.filled(true).await {
                return;
            }
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep_until(*due) => {
                let (batch, _, is_refused) = in_flight.pop_front().unwrap();
                store(&queue, batch, is_refused, &stored);
            }
            true = queue.filled(false), if in_flight.len() < IN_FLIGHT_MAX => {}
        }
    }
}

fn store(queue: &PartitionQueue, batch: EncodedBatch, is_refused: bool, stored: &Stored) {
    let values = values(&batch);
    assert_eq!(values.len(), batch.record_count as usize);
    let bytes: usize = values.iter().map(|value| size_bound(&record(value))).sum();
    stored.held.fetch_sub(bytes, Ordering::SeqCst);
    let EncodedBatch { promise, room, .. } = batch;
    drop(room);
    if is_refused {
        stored.refused.fetch_add(values.len(), Ordering::SeqCst);
        return promise.complete(Err(Error::Argument("refused".to_owned())));
    }
    let mut logs = stored.logs.lock().unwrap();
    let log = logs.entry(queue.partition).or_default();
    let base = i64::try_from(log.len()).unwrap();
    log.extend(values);
    let offsets = Offset::new(base)..Offset::new(i64::try_from(log.len()).unwrap());
    promise.complete(Ok(Deliveries { partition: queue.partition, offsets, append_time: None }));
}

/// Its value says whose it is, of which key, and the how manieth.
fn record(value: &str) -> Record {
    Record::value(value.to_owned())
}

fn accumulator(bytes_max: u32, stored: &Arc<Stored>) -> Arc<Accumulator> {
    let stored = stored.clone();
    Arc::new(Accumulator::new(bytes_max, Box::new(move |queue, _| drop(tokio::spawn(answer(queue, stored.clone()))))))
}

/// What one task sends.
#[derive(Debug, Clone)]
struct Sending {
    /// The pause before, in milliseconds; the partition that its key chooses, or none; how much longer it is made.
    records: Vec<(u64, Option<u32>, usize)>,
    linger_ms: u64,
    batch_bytes_max: usize,
}

fn sending() -> impl Strategy<Value = Sending> {
    let one = (prop_oneof![4 => Just(0_u64), 1 => 0..20_u64], prop::option::of(0..3_u32), 0..200_usize);
    (prop::collection::vec(one, 0..60), 0..10_u64, prop_oneof![Just(1_usize), 1..2000_usize])
        .prop_map(|(records, linger_ms, batch_bytes_max)| Sending { records, linger_ms, batch_bytes_max })
}

/// Hands everything over, and gives what became of each by its value.
async fn send(
    name: usize,
    sending: Sending,
    accumulator: Arc<Accumulator>,
    stored: Arc<Stored>,
    bytes_max: usize,
) -> Vec<(String, Result<Delivery, Error>)> {
    let account = Arc::new(OpenAccount::default());
    let linger = Duration::from_millis(sending.linger_ms);
    let settings = BatchSettings { linger, batch_bytes_max: sending.batch_bytes_max, ..settings() };
    let mut pending = Vec::new();
    for (number, (pause, key, longer)) in sending.records.into_iter().enumerate() {
        if pause > 0 {
            sleep(Duration::from_millis(pause)).await;
        }
        let key_name = key.map_or("-".to_owned(), |key| key.to_string());
        let value = format!("{name} {key_name} {number:03} {}", "x".repeat(longer));
        let bytes = size_bound(&record(&value));
        let deadline = Instant::now() + settings.delivery_timeout;
        let room = accumulator.room(bytes, deadline).await.unwrap();
        assert!(stored.held.fetch_add(bytes, Ordering::SeqCst) + bytes <= bytes_max, "the bound holds");
        let sender = Sender { account: (**account).clone(), settings, deadline, room };
        let parcel = Parcel { record: record(&value), on_delivery: None, sender };
        let target = key.map_or(Target::AnyOf(3), |key| Target::Partition(PartitionIndex::new(key)));
        pending.push((value, accumulator.append(TOPIC, target, true, parcel, bytes).unwrap()));
    }
    accumulator.flush(&account).await;
    let mut outcomes = Vec::new();
    for (value, mut pending) in pending {
        let outcome = std::future::poll_fn(|context| match std::pin::Pin::new(&mut pending).poll(context) {
            std::task::Poll::Pending => panic!("{value} is not answered when the flush is over"),
            ready => ready,
        });
        outcomes.push((value.clone(), outcome.await));
    }
    let failed = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count() as u64;
    match account.take_failures() {
        Ok(()) => assert_eq!(failed, 0),
        Err(Error::Undelivered { records, .. }) => assert_eq!(records, failed),
        Err(other) => panic!("{other}"),
    }
    outcomes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is handed over is stored once where its sender was told, or its sender was told why it is not; in order by
    /// key; and never more is held than may be.
    #[test]
    fn records_are_stored_once_in_order_and_within_the_bound(
        sendings in prop::collection::vec(sending(), 1..5),
        plan in prop::collection::vec((0..30_u64, prop::bool::weighted(0.1)), 0..100),
        bytes_max in 300..4000_u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let stored = Arc::new(Stored { plan: Mutex::new(plan.into()), ..Stored::default() });
            let accumulator = accumulator(bytes_max, &stored);
            let senders: Vec<_> = sendings.into_iter().enumerate().map(|(name, sending)| {
                tokio::spawn(send(name, sending, accumulator.clone(), stored.clone(), bytes_max as usize))
            }).collect();
            let mut outcomes = Vec::new();
            for sender in senders {
                outcomes.extend(timeout(Duration::from_secs(3600), sender).await.expect("it ends").unwrap());
            }
            check(&stored, &outcomes);
            assert_eq!(stored.held.load(Ordering::SeqCst), 0);
            drop(accumulator.try_room(bytes_max as usize).expect("all room is given back"));
        });
    }
}

fn check(stored: &Stored, outcomes: &[(String, Result<Delivery, Error>)]) {
    let logs = stored.logs.lock().unwrap();
    let mut count = 0;
    for (value, outcome) in outcomes {
        if let Ok(Delivery { partition, offset }) = outcome {
            assert_eq!(&logs[partition][usize::try_from(offset.get()).unwrap()], value, "where it was told to be");
            count += 1;
        }
    }
    assert_eq!(logs.values().map(Vec::len).sum::<usize>(), count, "each once");
    assert_eq!(outcomes.len() - count, stored.refused.load(Ordering::SeqCst), "and the others were refused");
    for log in logs.values() {
        let mut last: BTreeMap<&str, &str> = BTreeMap::new();
        for value in log {
            let (source, number) = (&value[..3], &value[4..7]);
            assert!(last.insert(source, number).is_none_or(|before| before < number), "in order by key");
        }
    }
}

/// A queue by itself, and what fills it.
struct Alone {
    queue: Arc<PartitionQueue>,
    room: Arc<Semaphore>,
    account: Arc<OpenAccount>,
}

impl Alone {
    fn new() -> Self {
        let queue = Arc::new(PartitionQueue::new(TOPIC.into(), FIRST));
        Self { queue, room: Arc::new(Semaphore::new(10_000)), account: Arc::default() }
    }

    fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        self.room.clone().try_acquire_many_owned(u32::try_from(bytes).unwrap()).unwrap()
    }

    /// Who hands over this record.
    fn sender(&self, record: &Record) -> Sender {
        let (settings, room) = (settings(), self.room(size_bound(record)));
        Sender {
            account: (**self.account).clone(),
            deadline: Instant::now() + settings.delivery_timeout,
            settings,
            room,
        }
    }

    fn put(&self, value: &str) -> PendingDelivery {
        let record = record(value);
        let sender = self.sender(&record);
        match self.queue.append(Parcel { record, on_delivery: None, sender }) {
            Ok(pending) => pending,
            Err(_) => panic!("refused"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_partition_gets_a_record_at_once_and_a_busy_one_when_its_linger_is_over() {
    let alone = Alone::new();
    let begun = Instant::now();
    drop(alone.put("0"));
    assert!(alone.queue.filled(true).await);
    let first = alone.queue.take(true).unwrap();
    drop((alone.put("1"), alone.put("2")));
    assert!(alone.queue.take(false).is_none());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(alone.queue.filled(false).await);
    assert_eq!(begun.elapsed(), settings().linger);
    let second = alone.queue.take(false).unwrap();
    assert_eq!((values(&first), values(&second)), (vec!["0".to_owned()], vec!["1".to_owned(), "2".to_owned()]));
    // Answered in the meantime, it would not have waited.
    drop(alone.put("3"));
    assert!(alone.queue.take(false).is_none());
    assert!(alone.queue.take(true).is_some());
    assert_eq!(begun.elapsed(), settings().linger);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_waits_for_nothing_and_neither_does_one_that_is_flushed() {
    let alone = Alone::new();
    let begun = Instant::now();
    let long = "x".repeat(600);
    drop((alone.put(&long), alone.put(&long)));
    assert!(alone.queue.filled(false).await);
    assert_eq!(values(&alone.queue.take(false).unwrap())[0], long);
    assert!(alone.queue.take(false).is_none(), "the second is gathering");
    assert_eq!(alone.queue.flush(&alone.account).len(), 1);
    assert!(alone.queue.filled(false).await);
    assert_eq!(values(&alone.queue.take(false).unwrap()), [long]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let stranger = Arc::new(OpenAccount::default());
    drop(alone.put("of another producer"));
    assert!(alone.queue.flush(&stranger).is_empty());
    assert!(alone.queue.take(false).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_sent_in_time_is_given_up_with_its_room() {
    let alone = Alone::new();
    let watch = tokio::spawn({
        let queue = alone.queue.clone();
        async move { queue.watch_deadlines().await }
    });
    let begun = Instant::now();
    let (taken, waiting) = (alone.put("taken"), {
        let first = alone.queue.take(true);
        let waiting = alone.put("waiting");
        (first.unwrap(), waiting)
    });
    let (batch, waiting) = waiting;
    batch.promise.note(true, Some(&Error::Closed));
    sleep(settings().delivery_timeout / 4).await;
    let later = alone.put("later");
    let error = waiting.await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { operation: "produce", last: None, .. }), "{error}");
    assert_eq!(begun.elapsed(), settings().delivery_timeout);
    let error = taken.await.unwrap_err();
    assert!(
        matches!(&error, Error::MaybeStored { source, .. } if matches!(**source, Error::TimedOut { .. })),
        "{error}"
    );
    assert_eq!(values(&alone.queue.take(true).unwrap()), ["later"], "it is in a batch of its own, with its own time");
    drop(batch);
    assert!(matches!(later.await, Err(Error::Runtime(_))), "the batch was dropped by who had taken it");
    assert_eq!(alone.room.available_permits(), 10_000);
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn a_record_that_no_batch_can_hold_is_refused_and_the_others_stay() {
    let alone = Alone::new();
    drop(alone.put("0"));
    let early = Record::value("x").with_timestamp(ringmq_wire::Timestamp::new(-1));
    for _ in 0..2 {
        let sender = alone.sender(&early);
        let refused = alone.queue.append(Parcel { record: early.clone(), on_delivery: None, sender });
        assert!(matches!(refused, Err(queue::Refused::ForGood(Error::Batch(_), _))));
        // Once into a batch with a record, once into none.
        if let Some(batch) = alone.queue.take(true) {
            assert_eq!(values(&batch), ["0"]);
        }
    }
    assert!(alone.queue.take(true).is_none());
    assert_eq!(alone.room.available_permits(), 10_000);
}

#[tokio::test]
async fn everyone_hears_once_whatever_a_callback_does() {
    let alone = Alone::new();
    let heard = Arc::new(AtomicUsize::new(0));
    let mut pending = Vec::new();
    for number in 0..3 {
        let record = record("x");
        let sender = alone.sender(&record);
        let heard = heard.clone();
        let callback = move |delivery: Result<Delivery, Error>| {
            assert_eq!(delivery.unwrap().offset, Offset::new(7 + number));
            heard.fetch_add(1, Ordering::SeqCst);
            assert_ne!(number, 0, "a callback that panics");
        };
        let parcel = Parcel { record, on_delivery: Some(Box::new(callback)), sender };
        pending.push(alone.queue.append(parcel).map_err(|_| "refused").unwrap());
    }
    let EncodedBatch { promise, .. } = alone.queue.take(true).unwrap();
    let offsets = Offset::new(7)..Offset::new(10);
    promise.complete(Ok(Deliveries { partition: FIRST, offsets, append_time: None }));
    promise.complete(Err(Error::Closed));
    drop(promise);
    for (pending, offset) in pending.into_iter().zip(7..) {
        assert_eq!(pending.await.unwrap().offset, Offset::new(offset));
    }
    assert_eq!(heard.load(Ordering::SeqCst), 3);
    alone.account.take_failures().unwrap();
}

#[tokio::test]
async fn nobody_who_waits_goes_on_before_the_callbacks_have_been_called() {
    let alone = Alone::new();
    let record = record("x");
    let sender = alone.sender(&record);
    let pending: Arc<Mutex<Option<PendingDelivery>>> = Arc::default();
    let (queue, account, seen) = (alone.queue.clone(), sender.account.clone(), Arc::new(AtomicUsize::new(0)));
    let callback = {
        let (pending, seen) = (pending.clone(), seen.clone());
        move |_: Result<Delivery, Error>| {
            let mut context = Context::from_waker(Waker::noop());
            let mut pending = pending.lock().unwrap();
            assert!(Pin::new(pending.as_mut().unwrap()).poll(&mut context).is_pending());
            assert_eq!(queue.flush(&account).len(), 1, "a flush waits for the callback");
            assert!(!queue.retire_if_idle(), "or could not find the batch");
            seen.fetch_add(1, Ordering::SeqCst);
        }
    };
    let parcel = Parcel { record, on_delivery: Some(Box::new(callback)), sender };
    *pending.lock().unwrap() = Some(alone.queue.append(parcel).map_err(|_| "refused").unwrap());
    let EncodedBatch { promise, .. } = alone.queue.take(true).unwrap();
    alone.queue.rest();
    promise.complete(Err(Error::Closed));
    assert_eq!(seen.load(Ordering::SeqCst), 1, "it has seen all that");
    assert!(alone.queue.flush(&alone.account).is_empty());
    let failed = alone.account.take_failures();
    assert!(matches!(failed, Err(Error::Undelivered { records: 1, .. })));
    let pending = pending.lock().unwrap().take().unwrap();
    assert!(matches!(pending.await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_the_callbacks_of_what_was_given_up() {
    let alone = Alone::new();
    let record = record("x");
    let sender = alone.sender(&record);
    let (queue, account, seen) = (alone.queue.clone(), sender.account.clone(), Arc::new(AtomicUsize::new(0)));
    let callback = {
        let seen = seen.clone();
        move |_: Result<Delivery, Error>| {
            assert_eq!(queue.flush(&account).len(), 1);
            seen.fetch_add(1, Ordering::SeqCst);
        }
    };
    let parcel = Parcel { record, on_delivery: Some(Box::new(callback)), sender };
    let pending = alone.queue.append(parcel).map_err(|_| "refused").unwrap();
    tokio::select! {
        () = alone.queue.watch_deadlines() => {}
        outcome = pending => assert!(matches!(outcome, Err(Error::TimedOut { .. }))),
    }
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    assert!(alone.queue.flush(&alone.account).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fills_its_batch_does_not_wait_for_one_that_cannot_join() {
    let alone = Alone::new();
    drop(alone.put("0"));
    let first = alone.queue.take(true).unwrap();
    let large = "x".repeat(settings().batch_bytes_max);
    drop(alone.put(&large));
    assert_eq!(values(&alone.queue.take(false).expect("the partition is busy, and the batch full")), [large]);
    drop(alone.put("small"));
    assert!(alone.queue.take(false).is_none());
    drop(first);
}

#[tokio::test]
async fn a_producer_that_is_closed_meanwhile_hands_nothing_over() {
    let alone = Alone::new();
    let sender = |room| {
        let deadline = Instant::now() + settings().delivery_timeout;
        Sender { account: (**alone.account).clone(), settings: settings(), deadline, room }
    };
    let (first, second) = (sender(alone.room(100)), sender(alone.room(100)));
    alone.account.close();
    assert!(alone.queue.flush(&alone.account).is_empty(), "closing waits for nothing");
    let parcel = Parcel { record: record("x"), on_delivery: None, sender: first };
    assert!(matches!(alone.queue.append(parcel), Err(queue::Refused::ForGood(Error::Closed, _))));
    let batch = alone.queue.append_batch(Bytes::new(), 1, second);
    assert!(matches!(batch, Err(queue::Refused::ForGood(Error::Closed, _))));
    assert!(alone.queue.take(true).is_none());
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_nothing_behind() {
    let alone = Alone::new();
    let waits = Arc::new(());
    let mut kept = alone.put("x");
    assert!(Pin::new(&mut kept).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    for _ in 0..100 {
        struct Wakes(#[expect(dead_code, reason = "is counted")] Arc<()>);
        impl std::task::Wake for Wakes {
            fn wake(self: Arc<Self>) {}
        }
        let waker = Waker::from(Arc::new(Wakes(waits.clone())));
        let mut flush = std::pin::pin!(completion::PendingBatch::new(alone.queue.flush(&alone.account)[0].clone()));
        assert!(flush.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(Arc::strong_count(&waits), 1, "wakers of who does not wait any more");
    drop(alone.queue.take(true));
    assert!(kept.await.is_err());
}

/// A lane with two records holds no more than they need, whatever the last batch was; one that gathers on is not moved again
/// and again.
#[test]
fn a_batch_gets_room_for_as_much_as_the_last_one_once_it_has_a_part_of_that() {
    let alone = Alone::new();
    let len_and_capacity = |records| {
        (0..records).for_each(|_| drop(alone.put("x")));
        let batch = alone.queue.take(true).unwrap().batch;
        (batch.len(), batch.try_into_mut().unwrap().capacity())
    };
    let (large, _) = len_and_capacity(80);
    let (_, of_two) = len_and_capacity(2);
    assert!(of_two < large / 2, "{of_two} of {large}");
    let (large, _) = len_and_capacity(80);
    let (part, reserved) = len_and_capacity(20);
    assert!(part < large / 2 && reserved >= large, "{part}, {reserved} of {large}");
}

/// What a program puts into a callback may use the producer when it is dropped.
#[test]
fn a_callback_of_a_record_that_is_refused_is_dropped_where_no_lock_is_held() {
    struct Uses(Arc<PartitionQueue>);
    impl Drop for Uses {
        fn drop(&mut self) {
            self.0.is_busy();
        }
    }
    let (ended, end) = std::sync::mpsc::channel();
    // Where a lock is held it would never end.
    std::thread::spawn(move || {
        let alone = Alone::new();
        for _ in 0..2 {
            let (uses, room) = (Uses(alone.queue.clone()), alone.room(100));
            let deadline = Instant::now() + settings().delivery_timeout;
            let sender = Sender { account: (**alone.account).clone(), settings: settings(), deadline, room };
            let record = Record::value("x").with_timestamp(ringmq_wire::Timestamp::new(-1));
            let parcel = Parcel { record, on_delivery: Some(Box::new(move |_| drop(uses))), sender };
            assert!(alone.queue.append(parcel).is_err());
            // The second time into a batch that has a record.
            drop(alone.put("x"));
        }
        ended.send(()).unwrap();
    });
    end.recv_timeout(Duration::from_secs(60)).expect("it ends");
}
