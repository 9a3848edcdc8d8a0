//! TCP between simulated cores and machines.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::net::{ListenOptions, ReadHalf, Reservation, TcpListener, TcpStream};
use crate::sim::{CoreConfig, NetworkConfig};
use crate::task;
use crate::time::{sleep, timeout};

const SHARED: ListenOptions = ListenOptions { reuse_port: true, backlog: 1024 };

fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 9092))
}

fn listen() -> TcpListener {
    TcpListener::bind(address(), ListenOptions::default()).unwrap()
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = listen();
    let client = TcpStream::connect(address()).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(server.local_addr().unwrap(), address());
    (client, server)
}

/// Everything until the end of the stream, and how it ended.
async fn read_to_end(read: &mut ReadHalf) -> (Vec<u8>, io::Result<()>) {
    let (mut all, mut bytes) = (Vec::new(), [0; 1000]);
    loop {
        match read.read(&mut bytes).await {
            Ok(0) => return (all, Ok(())),
            Ok(count) => all.extend_from_slice(&bytes[..count]),
            Err(error) => return (all, Err(error)),
        }
    }
}

fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251).to_le_bytes()[0]).collect()
}

#[test]
fn bytes_arrive_in_order_and_whole_in_pieces_that_the_seed_cuts() {
    let pieces_of = |seed| {
        Sim::new(SimConfig::with_seed(seed)).run(|| async {
            let (client, server) = pair().await;
            let (mut from_client, mut to_client) = server.into_split();
            let (mut from_server, mut to_server) = client.into_split();
            task::spawn("echo", async move {
                let (all, end) = read_to_end(&mut from_client).await;
                end.unwrap();
                to_client.write_all(&all).await.unwrap();
                to_client.shutdown().unwrap();
            });
            let sent = sample(20_000);
            to_server.write_all_vectored(&[&sent[..1], &[], &sent[1..7_000], &sent[7_000..]]).await.unwrap();
            to_server.shutdown().unwrap();
            assert!(to_server.write_all(&[1]).await.is_err(), "nothing goes after the end");
            let (mut received, mut pieces) = (Vec::new(), Vec::new());
            let mut bytes = [0; 8192];
            loop {
                match from_server.read(&mut bytes).await.unwrap() {
                    0 => break,
                    read => {
                        received.extend_from_slice(&bytes[..read]);
                        pieces.push(read);
                    }
                }
            }
            assert!(received == sent, "seed {seed}");
            pieces
        })
    };
    let pieces: BTreeSet<Vec<usize>> = (0..32).map(pieces_of).collect();
    assert!(pieces.len() > 20, "{pieces:?}");
}

#[test]
fn who_writes_more_than_fits_waits_for_the_reader() {
    let network = NetworkConfig { window_bytes: 1000..=1000, ..NetworkConfig::default() };
    Sim::new(SimConfig { network, ..SimConfig::default() }).run(|| async {
        let (client, server) = pair().await;
        let (mut from_client, _to_client) = server.into_split();
        let (_from_server, mut to_server) = client.into_split();
        let written = Rc::new(RefCell::new(0));
        let count = written.clone();
        task::spawn("writes", async move {
            for _ in 0..4 {
                to_server.write_all(&[7; 500]).await.unwrap();
                *count.borrow_mut() += 500;
            }
        });
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*written.borrow(), 1000);
        from_client.read_exact(&mut [0; 400]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*written.borrow(), 1000, "the next piece does not fit yet");
        from_client.read_exact(&mut [0; 100]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*written.borrow(), 1500);
    });
}

#[test]
fn a_drop_ends_the_stream_and_unread_bytes_reset_it() {
    Sim::new(SimConfig::default()).run(|| async {
        let (client, server) = pair().await;
        let (mut from_server, mut to_server) = client.into_split();
        drop(server);
        let (none, end) = read_to_end(&mut from_server).await;
        assert!(none.is_empty() && end.is_ok());
        // The other side has closed: what arrives there is answered with a reset.
        to_server.write_all(b"too late").await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(to_server.write_all(b"!").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);

        let (client, server) = pair().await;
        let (mut from_server, mut to_server) = client.into_split();
        to_server.write_all(b"unread").await.unwrap();
        sleep(Duration::from_secs(1)).await;
        drop(server);
        let (_, end) = read_to_end(&mut from_server).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn nobody_listens_and_ports_are_shared_only_when_all_agree() {
    Sim::new(SimConfig::default()).run(|| async {
        let kind = |bound: io::Result<TcpListener>| bound.err().map(|error| error.kind());
        let in_use = Some(io::ErrorKind::AddrInUse);
        assert_eq!(TcpStream::connect(address()).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let alone = listen();
        assert_eq!(kind(TcpListener::bind(address(), SHARED)), in_use);
        let wildcard = SocketAddr::from(([0, 0, 0, 0], address().port()));
        assert_eq!(kind(TcpListener::bind(wildcard, ListenOptions::default())), in_use);
        drop(alone);

        let reserved = Reservation::take(address()).unwrap();
        assert!(Reservation::take(address()).is_err());
        let one = TcpListener::bind(reserved.address(), SHARED).unwrap();
        let two = TcpListener::bind(reserved.address(), SHARED).unwrap();
        drop(reserved);
        assert_eq!(kind(TcpListener::bind(address(), ListenOptions::default())), in_use);
        assert!(Reservation::take(address()).is_err());
        drop((one, two));

        let any = SocketAddr::from(([10, 0, 0, 1], 0));
        let one = TcpListener::bind(any, ListenOptions::default()).unwrap();
        let two = TcpListener::bind(any, ListenOptions::default()).unwrap();
        assert_ne!(one.local_addr().unwrap(), two.local_addr().unwrap());
    });
}

#[test]
fn the_seed_chooses_who_of_several_gets_a_connection() {
    let takers = |seed| {
        Sim::new(SimConfig::with_seed(seed)).run(|| async {
            let listeners = [0, 1].map(|_| TcpListener::bind(address(), SHARED).unwrap());
            let mut takers = Vec::new();
            for _ in 0..3 {
                let _client = TcpStream::connect(address()).await.unwrap();
                let first = timeout(Duration::from_millis(1), listeners[0].accept()).await;
                if first.is_err() {
                    listeners[1].accept().await.unwrap();
                }
                takers.push(first.is_ok());
            }
            takers
        })
    };
    let seen: BTreeSet<Vec<bool>> = (0..64).map(takers).collect();
    assert_eq!(seen.len(), 8, "{seen:?}");
}

#[test]
fn a_full_backlog_delays_and_a_closed_listener_resets_who_waits() {
    Sim::new(SimConfig::default()).run(|| async {
        let options = ListenOptions { backlog: 1, ..ListenOptions::default() };
        let listener = TcpListener::bind(address(), options).unwrap();
        let first = TcpStream::connect(address()).await.unwrap();
        assert!(timeout(Duration::from_millis(500), TcpStream::connect(address())).await.is_err());
        listener.accept().await.unwrap();
        let second = TcpStream::connect(address()).await.unwrap();
        drop(listener);
        let (mut from_server, _to_server) = second.into_split();
        let (_, end) = read_to_end(&mut from_server).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        drop(first);
    });
}

/// What a machine elsewhere has read from a process that died while it was sending.
struct Heard {
    sent: usize,
    read: usize,
    end: io::Result<()>,
}

fn read_until_death(seed: u64, die: impl FnOnce(&Sim)) -> Heard {
    // Nothing so slow that nobody listens any more when the wish to connect arrives.
    let network = NetworkConfig { slow_one_in: 0, ..NetworkConfig::default() };
    let cores = CoreConfig { pause_one_in: 0, ..CoreConfig::default() };
    let sim = Sim::new(SimConfig { seed, network, cores, ..SimConfig::default() });
    let sent = Rc::new(Cell::new(0));
    let sending = sent.clone();
    sim.run(|| async {
        let listener = listen();
        task::spawn("sends", async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (_read, mut write) = stream.into_split();
            for byte in sample(1000) {
                write.write_all(&[byte]).await.unwrap();
                sending.set(sending.get() + 1);
                sleep(Duration::from_micros(1)).await;
            }
            std::future::pending::<()>().await;
        });
    });
    let read = Rc::new(RefCell::new(None));
    let result = read.clone();
    sim.elsewhere("reads", || async move {
        let (mut from_server, _to_server) = TcpStream::connect(address()).await.unwrap().into_split();
        *result.borrow_mut() = Some(read_to_end(&mut from_server).await);
    });
    sim.run(|| sleep(Duration::from_micros(500)));
    die(&sim);
    sim.run(|| sleep(Duration::from_secs(10)));
    let (bytes, end) = read.take().expect("the reader has heard of the end");
    assert_eq!(bytes, sample(1000)[..bytes.len()]);
    Heard { sent: sent.get(), read: bytes.len(), end }
}

#[test]
fn a_killed_process_closes_its_connections_and_what_it_sent_arrives() {
    for seed in 0..64 {
        let Heard { sent, read, end } = read_until_death(seed, Sim::kill);
        assert!(sent > 0 && end.is_ok(), "seed {seed}: {end:?} after {sent}");
        assert_eq!(read, sent, "seed {seed}");
    }
}

#[test]
fn a_machine_without_power_says_nothing_and_resets_when_it_is_back() {
    let mut lost = BTreeSet::new();
    for seed in 0..64 {
        let Heard { sent, read, end } = read_until_death(seed, |sim| _ = sim.crash());
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "seed {seed}");
        lost.insert(sent - read);
    }
    assert!(
        lost.len() > 8 && lost.contains(&0),
        "some seeds lose nothing of what was sent, others more or less: {lost:?}"
    );
}
