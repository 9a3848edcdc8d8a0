//! What a peer does not take, or sends too fast, is bounded: it waits in the peer, not in the broker.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ringmq_shard::Limits;
use ringmq_wire::protocol::frame::encode_request;
use ringmq_wire::protocol::{Acks, ListTopicsRequest, MetadataRequest, ProduceResponse, RequestType};
use ringmq_wire::{ErrorCode, Offset};

use crate::broker::{Broker, Options, data_dir, until};
use crate::data::{batch, create};
use crate::peer::{PATIENCE, Peer, fetch_request, split_fetched};

/// More than the kernel keeps for one loopback connection, both sides together (tcp_rmem and tcp_wmem).
const KERNEL_BYTES: usize = 16 << 20;

/// Sends the same bytes again and again, without reading, until the broker takes no more of them; how often they went
/// whole. That is when the peer cannot write, although the broker has done `enough` for it, and does no more.
fn send_until_refused(peer: &mut Peer, bytes: &[u8], enough: usize, done: impl Fn() -> usize) -> usize {
    let a_while = Duration::from_millis(250);
    let deadline = Instant::now() + PATIENCE;
    peer.stream.set_write_timeout(Some(a_while)).expect("a timeout can be set");
    let (mut sent, mut done_before) = (0, None);
    loop {
        match peer.stream.write(&bytes[sent % bytes.len()..]) {
            Ok(more) => (sent, done_before) = (sent + more, None),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let done_now = done();
                if done_now >= enough && done_before == Some(done_now) {
                    return sent / bytes.len();
                }
                done_before = Some(done_now);
            }
            Err(error) => panic!("the connection broke: {error}"),
        }
        assert!(Instant::now() < deadline, "the broker goes on taking requests without an answer being read");
    }
}

#[test]
fn fetches_whose_answers_nobody_reads_stop_being_served() {
    let limits = Limits {
        fetch_bytes_max: 1 << 20,
        connection_response_bytes_max: 4 << 20,
        shard_response_bytes_max: 16 << 20,
        in_flight_max: 64,
        ..Limits::default()
    };
    // From its own shard, and through another one.
    for partition in [0, 1] {
        let dir = data_dir();
        let broker = Broker::start(dir.path(), Options { limits: limits.clone(), ..Options::default() });
        let mut producer = broker.connect();
        create(&mut producer, "t", 2);
        producer.produce("t", &[(partition, batch("a", 1_000, 1_000))]);

        let mut silent = broker.connect_to(0);
        let mut frame = BytesMut::new();
        encode_request(silent.next_id(), &fetch_request("t", &[(partition, Offset::ZERO)]), &mut frame).expect("short");
        let held_max = limits.connection_response_bytes_max;
        let fetched = || broker.counter(0, "fetched_bytes");
        let times = send_until_refused(&mut silent, &frame, held_max / 2, fetched);
        let fetched = fetched();
        assert!(fetched <= held_max + KERNEL_BYTES, "{fetched} bytes were read for a peer that takes nothing");

        // Others are served meanwhile, and nothing was lost; only another shard does not wait for long.
        let mut other = broker.connect_to(0);
        assert_eq!(
            other.produce("t", &[(partition, batch("b", 1, 10))]).topics[0].partitions[0].error,
            ErrorCode::None
        );
        for _ in 0..times.min(200) {
            let (head, sections) = split_fetched(silent.receive());
            match head.topics[0].partitions[0].error {
                ErrorCode::Overloaded => assert_eq!((partition, sections[0].len()), (1, 0)),
                error => assert_eq!((error, sections[0].len() > 1_000_000), (ErrorCode::None, true)),
            }
        }
    }
}

#[test]
fn requests_whose_answers_nobody_reads_are_not_read() {
    let dir = data_dir();
    let limits = Limits { in_flight_max: 32, ..Limits::default() };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    let mut peer = broker.connect_to(0);
    for number in 0..50 {
        create(&mut peer, &format!("{number:0>200}"), 1);
    }
    let mut frame = BytesMut::new();
    encode_request(peer.next_id(), &ListTopicsRequest {}, &mut frame).expect("short");
    let mut silent = broker.connect_to(0);
    let served = || broker.requests(0, RequestType::ListTopics);
    send_until_refused(&mut silent, &frame, 26, served);
    let served = served();
    let response_bytes = 50 * 200;
    assert!(served * response_bytes <= (2 << 20) + KERNEL_BYTES, "{served} requests were served without being read");
    // It goes on where it was.
    for _ in 0..served {
        assert!(silent.receive().head.error.is_none());
    }
}

#[test]
fn produces_beyond_the_bound_wait_in_the_socket() {
    let dir = data_dir();
    let limits = Limits {
        request_bytes_max: 2 << 20,
        connection_bytes_max: 2 << 20,
        shard_bytes_max: 3 << 20,
        in_flight_max: 4,
        ..Limits::default()
    };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    create(&mut broker.connect(), "t", 4);
    // Six connections that send far more than the shard takes at once: everything is stored, none is refused.
    let senders = (0..6).map(|sender| {
        let mut peer = broker.connect_to(sender % 2);
        std::thread::spawn(move || {
            let partition = u32::try_from(sender % 4).expect("small");
            let (_, frame) = peer.produce_frame("t", Acks::All, &[(partition, batch("x", 900, 1_000))]);
            let mut writer = peer.stream.try_clone().expect("a second handle");
            let writing = std::thread::spawn(move || (0..20).try_for_each(|_| writer.write_all(&frame)));
            for _ in 0..20 {
                let response = peer.receive().decode::<ProduceResponse>().expect("it is answered");
                let outcome = &response.topics[0].partitions[0];
                assert_eq!(outcome.error, ErrorCode::None, "{}", outcome.detail);
            }
            writing.join().expect("the writer ends").expect("everything is taken");
        })
    });
    senders.collect::<Vec<_>>().into_iter().for_each(|sender| sender.join().expect("every produce is stored"));
}

#[test]
fn shards_that_fill_each_others_mailboxes_refuse_and_never_lock_up() {
    let dir = data_dir();
    let limits = Limits { forwarded_in_flight_max: 1, forward_wait_max: Duration::from_millis(1), ..Limits::default() };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    create(&mut broker.connect(), "t", 2);
    // Every connection is at one shard and produces to the other one's partition.
    let senders = (0..8).map(|sender| {
        let mut peer = broker.connect_to(sender % 2);
        std::thread::spawn(move || {
            let partition = if sender % 2 == 0 { 1 } else { 0 };
            let frames: Vec<u8> = (0..100)
                .flat_map(|_| peer.produce_frame("t", Acks::All, &[(partition, batch("x", 1, 1_000))]).1)
                .collect();
            peer.stream.write_all(&frames).expect("everything is taken");
            let stored = (0..100).filter(|_| {
                let response: ProduceResponse = peer.receive().decode().expect("it is answered");
                let outcome = &response.topics[0].partitions[0];
                assert!(matches!(outcome.error, ErrorCode::None | ErrorCode::Overloaded), "{}", outcome.detail);
                outcome.error == ErrorCode::None
            });
            (partition, stored.count())
        })
    });
    let mut stored = [0; 2];
    let senders: Vec<_> = senders.collect();
    // Where partitions are is known everywhere, also while nobody can ask their owners.
    let mut looking = broker.connect();
    for _ in 0..100 {
        let metadata = looking.call(&MetadataRequest { topics: None }).expect("it is answered");
        assert!(metadata.topics[0].partitions.iter().all(|partition| !partition.offline), "{metadata:?}");
    }
    for sender in senders {
        let (partition, count) = sender.join().expect("every produce is answered");
        stored[partition as usize] += count;
    }
    // What was refused was not stored.
    let (head, _) = broker.connect().fetch(&fetch_request("t", &[(0, Offset::ZERO), (1, Offset::ZERO)]));
    for (partition, stored) in head.topics[0].partitions.iter().zip(stored) {
        assert!(stored > 0);
        assert_eq!(partition.high_watermark.as_u64(), stored as u64);
    }
}

#[test]
fn a_peer_that_is_gone_is_not_waited_for() {
    let dir = data_dir();
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    create(&mut broker.connect_to(1), "t", 2);
    let address = SocketAddr::new(broker.public.ip(), broker.roster.shards[0].port);
    for partitions in [&[0][..], &[1], &[0, 1]] {
        // Its place is the only one; while it is open, everyone else is turned away.
        let mut only = None;
        until("the place is free", || {
            only = Peer::try_connect(address).ok();
            only.is_some()
        });
        let mut only = only.expect("it has the place");
        assert!(Peer::try_connect(address).is_err());
        let partitions: Vec<(u32, Offset)> = partitions.iter().map(|&partition| (partition, Offset::ZERO)).collect();
        let mut request = fetch_request("t", &partitions);
        request.max_wait_ms = 300_000;
        only.send(&request);
        // The fetch would wait for minutes; the end of its connection frees the place for the next round.
    }
}

#[test]
fn a_peer_that_takes_nothing_is_let_go() {
    let dir = data_dir();
    let limits = Limits { write_stall_max: Duration::from_secs(1), ..Limits::default() };
    let broker = Broker::start(dir.path(), Options { limits, ..Options::default() });
    let mut peer = broker.connect();
    create(&mut peer, "t", 1);
    peer.produce("t", &[(0, batch("a", 1_000, 1_000))]);
    for _ in 0..100 {
        peer.send(&fetch_request("t", &[(0, Offset::ZERO)]));
    }
    // Far more than the kernel keeps: the broker cannot write on. Only its end of the connection can end this.
    until("a shard ends the connection", || (0..2).any(|shard| broker.counter(shard, "connection_faults") > 0));
    let mut taken = Vec::new();
    let end = peer.stream.read_to_end(&mut taken);
    assert!(taken.len() < 100 * 1_000_000, "{end:?}");
}
