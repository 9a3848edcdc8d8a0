//! Subscriptions: records come as they are produced, within the credit, until one side ends it.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringmq_shard::Limits;
use ringmq_wire::protocol::{
    DeleteTopicsRequest, GrantCreditRequest, ListTopicsRequest, RequestType, SectionHead, SubscribeRequest,
    SubscribedHead, UnsubscribeRequest,
};
use ringmq_wire::{CorrelationId, ErrorCode, Offset};

use crate::broker::{Broker, Options, data_dir, until};
use crate::data::{batch, create, tagged, values};
use crate::peer::{Peer, Response, fetch_request};

/// A subscription with more credit than anything takes here.
pub(crate) fn subscribe_request(topic: &str, partitions: &[(u32, Offset)]) -> SubscribeRequest {
    let topics = fetch_request(topic, partitions).topics;
    SubscribeRequest { credit_bytes: 1 << 30, max_bytes: 1 << 20, heartbeat_ms: 300_000, topics }
}

/// One frame: the head, and the section of each of its partitions.
fn split_frame(response: &Response) -> (SubscribedHead, Vec<Vec<u8>>) {
    assert!(response.head.error.is_none(), "{:?}", response.head.error);
    let (head, mut at) = SubscribedHead::decode_head(&response.body, response.head.body_bytes)
        .expect("the head can be decoded")
        .expect("the head is whole");
    let partitions = head.topics.iter().flat_map(|topic| &topic.partitions);
    let sections = partitions.map(|partition| {
        let section = &response.body[at..][..partition.records_bytes as usize];
        at += section.len();
        section.to_vec()
    });
    let sections = sections.collect();
    assert_eq!(at, response.body.len());
    (head, sections)
}

/// What a subscriber has of each partition.
pub(crate) struct Subscriber {
    pub(crate) id: CorrelationId,
    next: Vec<Offset>,
    pub(crate) values: Vec<Vec<String>>,
    /// Codes of partitions, as they came.
    errors: Vec<(u32, ErrorCode)>,
    bytes: usize,
    frames: usize,
    pub(crate) is_over: bool,
}

impl Subscriber {
    pub(crate) fn start(peer: &mut Peer, request: &SubscribeRequest) -> Subscriber {
        let parts = request.topics.iter().flat_map(|topic| &topic.partitions);
        let next: Vec<Offset> = parts.map(|part| part.fetch_offset).collect();
        let values = vec![Vec::new(); next.len()];
        let id = peer.send(request);
        Subscriber { id, next, values, errors: Vec::new(), bytes: 0, frames: 0, is_over: false }
    }

    /// Takes one frame.
    pub(crate) fn take(&mut self, response: &Response) {
        assert_eq!(response.head.correlation_id, self.id);
        assert!(!self.is_over, "a frame behind the last");
        let (head, sections) = split_frame(response);
        let partitions = head.topics.iter().flat_map(|topic| &topic.partitions);
        for (partition, section) in partitions.zip(sections) {
            if !partition.error.is_none() {
                self.errors.push((partition.partition.get(), partition.error));
                continue;
            }
            assert!(!section.is_empty(), "a partition that has nothing to tell");
            let at = partition.partition.as_usize();
            let new = values(&section, self.next[at]);
            self.next[at] = self.next[at].checked_add(new.len() as u64).expect("small");
            assert!(self.next[at] <= partition.high_watermark);
            self.values[at].extend(new);
            self.bytes += section.len();
        }
        self.frames += 1;
        self.is_over = head.is_last;
    }

    fn take_until(&mut self, peer: &mut Peer, holds: impl Fn(&Subscriber) -> bool) {
        while !holds(self) {
            self.take(&peer.receive());
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.values.iter().map(Vec::len).sum()
    }
}

fn all(partitions: u32) -> Vec<(u32, Offset)> {
    (0..partitions).map(|partition| (partition, Offset::ZERO)).collect()
}

/// So many batches with one record of that size, to one partition.
fn produce(broker: &Broker, partition: u32, tag: &str, count: usize, bytes: usize) -> Vec<String> {
    let mut peer = broker.connect();
    let tags = (0..count).map(|number| format!("{tag}{number}"));
    tags.flat_map(|tag| {
        let produced = peer.produce("t", &[(partition, batch(&tag, 1, bytes))]);
        assert_eq!(produced.topics[0].partitions[0].error, ErrorCode::None);
        tagged(&tag, 1)
    })
    .collect()
}

#[test]
fn records_come_as_they_are_produced() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 4);
    let mut expected: Vec<Vec<String>> = (0..4).map(|partition| produce(&broker, partition, "old", 3, 100)).collect();
    let mut subscriber = Subscriber::start(&mut peer, &subscribe_request("t", &all(4)));
    for round in 0..20 {
        for partition in 0..4 {
            let size = if round % 7 == 0 { 50_000 } else { 100 };
            expected[partition as usize].extend(produce(&broker, partition, &format!("r{round}-"), 1, size));
        }
        let count = expected.iter().map(Vec::len).sum();
        subscriber.take_until(&mut peer, |subscriber| subscriber.count() >= count);
    }
    assert_eq!(subscriber.values, expected);
    assert!(subscriber.errors.is_empty() && !subscriber.is_over);
    assert_eq!(broker.requests(0, RequestType::Subscribe), 1);
}

#[test]
fn a_subscription_begins_and_goes_on_within_batches() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 1);
    peer.produce("t", &[(0, batch("a", 10, 100))]);
    let mut subscriber = Subscriber::start(&mut peer, &subscribe_request("t", &[(0, Offset::new(7))]));
    subscriber.take_until(&mut peer, |subscriber| subscriber.count() >= 3);
    assert_eq!(subscriber.values[0], tagged("a", 10)[7..]);
}

#[test]
fn without_credit_nothing_comes_but_signs_of_life() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 1);
    let expected = produce(&broker, 0, "x", 20, 10_000);
    let batch_bytes = u32::try_from(batch("x19", 1, 10_000).len()).expect("small");
    let request = subscribe_request("t", &all(1));
    let mut subscriber =
        Subscriber::start(&mut peer, &SubscribeRequest { credit_bytes: 0, heartbeat_ms: 0, ..request });
    subscriber.take(&peer.receive());
    assert_eq!((subscriber.frames, subscriber.count()), (1, 0));

    // A byte lets one batch come, and the next waits until what is owed is granted, and one more.
    let grant = |peer: &mut Peer, subscriber: &mut Subscriber, credit_bytes| {
        let id = peer.send(&GrantCreditRequest { subscription: subscriber.id.get(), credit_bytes });
        loop {
            let response = peer.receive();
            if response.head.correlation_id == id {
                assert!(response.head.error.is_none());
                return;
            }
            subscriber.take(&response);
        }
    };
    grant(&mut peer, &mut subscriber, 1);
    subscriber.take_until(&mut peer, |subscriber| subscriber.count() > 0);
    assert_eq!(subscriber.count(), 1);
    grant(&mut peer, &mut subscriber, batch_bytes - 2);
    let frames = subscriber.frames;
    subscriber.take_until(&mut peer, |subscriber| subscriber.frames > frames);
    assert_eq!(subscriber.count(), 1, "a sign of life");
    grant(&mut peer, &mut subscriber, 2);
    subscriber.take_until(&mut peer, |subscriber| subscriber.count() > 1);
    assert_eq!(subscriber.count(), 2);
    // As much as is granted comes in whole batches.
    grant(&mut peer, &mut subscriber, u32::MAX);
    grant(&mut peer, &mut subscriber, u32::MAX);
    subscriber.take_until(&mut peer, |subscriber| subscriber.count() == 20);
    assert_eq!(subscriber.values[0], expected);
}

#[test]
fn a_frame_is_bounded_and_partitions_take_turns() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options { shards: 1, ..Options::default() });
    let mut peer = broker.connect();
    create(&mut peer, "t", 3);
    for partition in 0..3 {
        produce(&broker, partition, "x", 10, 10_000);
    }
    let request = SubscribeRequest { max_bytes: 25_000, ..subscribe_request("t", &all(3)) };
    let mut subscriber = Subscriber::start(&mut peer, &request);
    while subscriber.count() < 30 {
        let before = subscriber.bytes;
        subscriber.take(&peer.receive());
        assert!(subscriber.bytes - before <= 25_000);
        let counts = subscriber.values.iter().map(Vec::len);
        let (least, most) = (counts.clone().min(), counts.max());
        assert!(most <= least.map(|least| least + 4), "one partition waits for the end of another");
    }
}

#[test]
fn errors_are_told_once_and_the_last_one_ends_it() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 2);
    let partitions = [(0, Offset::ZERO), (1, Offset::new(1_000)), (2, Offset::ZERO)];
    let mut subscriber = Subscriber::start(&mut peer, &subscribe_request("t", &partitions));
    subscriber.take_until(&mut peer, |subscriber| subscriber.errors.len() == 2);
    assert_eq!(subscriber.errors, [(2, ErrorCode::UnknownPartition), (1, ErrorCode::OffsetOutOfRange)]);
    let expected = produce(&broker, 0, "x", 1, 10);
    subscriber.take_until(&mut peer, |subscriber| subscriber.count() == 1);
    assert_eq!((&subscriber.values[0], subscriber.is_over), (&expected, false));

    let deleted = broker.connect().call(&DeleteTopicsRequest { topics: vec!["t".to_owned()], timeout_ms: 30_000 });
    assert!(deleted.expect("it is answered").topics[0].error.is_none());
    subscriber.take_until(&mut peer, |subscriber| subscriber.is_over);
    assert_eq!(subscriber.errors.last(), Some(&(0, ErrorCode::UnknownTopic)));
    peer.call(&ListTopicsRequest {}).expect("nothing comes behind the last frame");

    let mut nothing = Subscriber::start(&mut peer, &subscribe_request("t", &[]));
    nothing.take(&peer.receive());
    assert!(nothing.is_over);
}

#[test]
fn a_subscription_ends_when_the_client_says_so() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 2);
    let mut subscriber = Subscriber::start(&mut peer, &subscribe_request("t", &all(2)));
    let id = peer.send(&UnsubscribeRequest { subscription: subscriber.id.get() });
    let answers = [peer.receive(), peer.receive()];
    let (answer, last): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.head.correlation_id == id);
    assert_eq!((answer.len(), last.len()), (1, 1));
    subscriber.take(last[0]);
    assert!(subscriber.is_over);
    // There is none any more.
    peer.call(&UnsubscribeRequest { subscription: subscriber.id.get() }).expect("it is answered");
    let grant = GrantCreditRequest { subscription: subscriber.id.get(), credit_bytes: 1 };
    peer.call(&grant).expect("it is answered");
    produce(&broker, 0, "x", 1, 10);
    peer.call(&ListTopicsRequest {}).expect("no frame comes in between");
}

#[test]
fn the_last_frame_comes_when_the_connection_ends_and_when_the_broker_stops() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    create(&mut broker.connect(), "t", 2);
    let [mut first, mut second] = [broker.connect_to(0), broker.connect_to(1)];
    let mut subscribers = [&mut first, &mut second].map(|peer| {
        let mut subscriber = Subscriber::start(peer, &subscribe_request("t", &all(2)));
        produce(&broker, 0, "x", 1, 10);
        subscriber.take_until(peer, |subscriber| subscriber.count() == 1);
        subscriber
    });
    first.stream.shutdown(Shutdown::Write).expect("the socket is open");
    subscribers[0].take_until(&mut first, |subscriber| subscriber.is_over);
    assert!(first.is_closed());
    let stopping = std::thread::spawn(|| broker.stop());
    subscribers[1].take_until(&mut second, |subscriber| subscriber.is_over);
    drop(second);
    stopping.join().expect("the broker stops");
}

#[test]
fn a_connection_that_ends_at_once_has_a_last_frame_too() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    create(&mut broker.connect(), "t", 2);
    for round in 0..40 {
        let mut peer = broker.connect_to(round % 2);
        let credit_bytes = if round % 4 < 2 { 0 } else { 1 };
        let request = SubscribeRequest { credit_bytes, ..subscribe_request("t", &all(2)) };
        let mut subscriber = Subscriber::start(&mut peer, &request);
        peer.stream.shutdown(Shutdown::Write).expect("the socket is open");
        subscriber.take_until(&mut peer, |subscriber| subscriber.is_over);
        assert!(peer.is_closed());
    }
}

#[test]
fn a_subscriber_that_does_not_read_keeps_nobody_waiting() {
    let dir = data_dir();
    let limits = Limits {
        fetch_bytes_max: 1 << 20,
        connection_response_bytes_max: 2 << 20,
        shard_response_bytes_max: 8 << 20,
        ..Limits::default()
    };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    let mut other = broker.connect_to(0);
    create(&mut other, "t", 2);
    let mut expected = Vec::new();
    for number in 0..64 {
        let tag = format!("x{number}-");
        let sections: Vec<(u32, Bytes)> = (0..2).map(|partition| (partition, batch(&tag, 1, 500_000))).collect();
        other.produce("t", &sections);
        expected.extend(tagged(&tag, 1));
    }
    let mut slow = broker.connect_to(0);
    let mut subscriber = Subscriber::start(&mut slow, &subscribe_request("t", &all(2)));
    until("the subscription is read", || broker.requests(0, RequestType::Subscribe) == 1);
    for number in 0..50 {
        let (_, sections) = other.fetch(&fetch_request("t", &[(0, Offset::new(number)), (1, Offset::new(number))]));
        assert!(sections.iter().any(|section| !section.is_empty()));
    }
    subscriber.take_until(&mut slow, |subscriber| subscriber.count() == 2 * expected.len());
    assert_eq!(subscriber.values, [expected.clone(), expected]);
}

#[test]
fn few_frames_wait_for_a_subscriber_that_does_not_read() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options { shards: 1, ..Options::default() });
    let mut other = broker.connect();
    // A head for each record that is longer than the record.
    let name = "n".repeat(249);
    create(&mut other, &name, 1);
    let tags: Vec<String> = (0..50_000).map(|number| format!("x{number}")).collect();
    for tags in tags.chunks(1_000) {
        let batches: Vec<u8> = tags.iter().flat_map(|tag| batch(tag, 1, 1)).collect();
        other.produce(&name, &[(0, Bytes::from(batches))]);
    }
    let mut slow = broker.connect();
    let request = SubscribeRequest { max_bytes: 1, ..subscribe_request(&name, &all(1)) };
    let mut subscriber = Subscriber::start(&mut slow, &request);
    let sent = || broker.counter(0, "fetched_bytes");
    until("the first frames are out", || sent() > 0);
    // Others get their turn before it is done, and the kernel does not take as much as there is.
    for _ in 0..50 {
        other.call(&ListTopicsRequest {}).expect("it is answered");
    }
    let all_bytes = broker.counter(0, "produced_bytes");
    assert!(sent() < all_bytes / 2, "{} of {all_bytes} bytes were sent to somebody who does not read", sent());
    subscriber.take_until(&mut slow, |subscriber| subscriber.count() == tags.len());
    let expected: Vec<String> = tags.iter().flat_map(|tag| tagged(tag, 1)).collect();
    assert_eq!(subscriber.values, [expected]);
}

#[test]
fn subscriptions_leave_room_for_what_ends_them() {
    let dir = data_dir();
    let limits = Limits { in_flight_max: 4, ..Limits::default() };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 1);
    let mut open: Vec<Subscriber> =
        (0..2).map(|_| Subscriber::start(&mut peer, &subscribe_request("t", &all(1)))).collect();
    peer.send(&subscribe_request("t", &all(1)));
    assert_eq!(peer.receive().error().code, ErrorCode::Overloaded);
    let id = peer.send(&UnsubscribeRequest { subscription: open[0].id.get() });
    while !open[0].is_over {
        let response = peer.receive();
        if response.head.correlation_id != id {
            open[0].take(&response);
        }
    }
    open[0] = Subscriber::start(&mut peer, &subscribe_request("t", &all(1)));
    produce(&broker, 0, "x", 1, 10);
    while open.iter().any(|subscriber| subscriber.count() == 0) {
        let response = peer.receive();
        if let Some(subscriber) = open.iter_mut().find(|subscriber| subscriber.id == response.head.correlation_id) {
            subscriber.take(&response);
        }
    }
}

#[test]
fn a_subscription_makes_room_for_others_and_can_go_on() {
    let dir = data_dir();
    let limits = Limits { shard_fetch_bytes_max: 2048 + 256 + 512, ..Limits::default() };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 1);
    let mut first = Subscriber::start(&mut peer, &subscribe_request("t", &all(1)));
    produce(&broker, 0, "x", 1, 10);
    first.take_until(&mut peer, |subscriber| subscriber.count() == 1);
    let mut other = broker.connect_to(0);
    let (_, sections) = other.fetch(&fetch_request("t", &all(1)));
    assert_eq!(values(&sections[0], Offset::ZERO), tagged("x0", 1));
    first.take_until(&mut peer, |subscriber| subscriber.is_over);

    // However many want in, each comes further.
    let mut crowd: Vec<(Peer, Subscriber)> = (0..4)
        .map(|_| {
            let mut peer = broker.connect_to(0);
            let subscriber = Subscriber::start(&mut peer, &subscribe_request("t", &all(1)));
            (peer, subscriber)
        })
        .collect();
    let (last_peer, last) = crowd.last_mut().expect("four");
    last.take_until(last_peer, |subscriber| subscriber.count() == 1);
    for (peer, subscriber) in &mut crowd[..3] {
        subscriber.take_until(peer, |subscriber| subscriber.is_over);
        assert_eq!(subscriber.count(), 1);
    }
}

#[test]
fn an_id_that_is_in_use_is_refused() {
    let dir = data_dir();
    let broker = Broker::start(dir.path(), Options::default());
    let mut peer = broker.connect_to(0);
    create(&mut peer, "t", 1);
    let mut subscriber = Subscriber::start(&mut peer, &subscribe_request("t", &all(1)));
    peer.send_as(subscriber.id, &subscribe_request("t", &all(1)));
    assert_eq!(peer.receive().error().code, ErrorCode::MalformedRequest);
    // The first one is as it was.
    produce(&broker, 0, "x", 1, 10);
    subscriber.take_until(&mut peer, |subscriber| subscriber.count() == 1);
    peer.send(&UnsubscribeRequest { subscription: subscriber.id.get() });
    let began = Instant::now();
    while !subscriber.is_over {
        let response = peer.receive();
        if response.head.correlation_id == subscriber.id {
            subscriber.take(&response);
        }
        assert!(began.elapsed() < Duration::from_secs(30));
    }
    let mut again = Subscriber { is_over: false, ..subscriber };
    peer.send_as(again.id, &subscribe_request("t", &[(0, Offset::new(1))]));
    produce(&broker, 0, "y", 1, 10);
    while again.count() < 2 {
        let response = peer.receive();
        if response.head.correlation_id == again.id {
            again.take(&response);
        }
    }
    assert_eq!(again.values[0], [tagged("x0", 1), tagged("y0", 1)].concat());
}
