use std::cell::Cell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::{ListenOptions, Reservation, TcpListener, TcpStream};
use crate::executor::{ExecutorConfig, spawn_executor};
use crate::testing::run;
use crate::{channel, task, time};

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(any_port(), ListenOptions::default()).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let client = TcpStream::connect(address).await.expect("connected");
    let (server, peer) = listener.accept().await.expect("accepted");
    assert_eq!(peer, client.local_addr().expect("connected"));
    assert_eq!(server.local_addr().expect("connected"), client.peer_addr().expect("connected"));
    (client, server)
}

#[test]
fn both_directions_at_the_same_time() {
    run(|| async {
        // More than the sockets hold, so that both sides have to wait for one another, in slices of odd lengths.
        const LEN: usize = 24 << 20;
        let (client, server) = pair().await;
        let (mut from_client, mut to_client) = server.into_split();
        let (mut from_server, mut to_server) = client.into_split();
        let gate = task::Gate::new();
        gate.spawn("echo", async move {
            let mut bytes = vec![0; 100_000];
            loop {
                match from_client.read(&mut bytes).await.expect("read") {
                    0 => break,
                    read => to_client.write_all(&bytes[..read]).await.expect("written"),
                }
            }
            to_client.shutdown().expect("shut down");
        })
        .expect("the gate is open");
        let sent: Vec<u8> = (0..LEN).map(|index| (index % 251).to_le_bytes()[0]).collect();
        gate.spawn("send", {
            let sent = sent.clone();
            async move {
                let slices: Vec<&[u8]> =
                    sent.chunks(99_991).flat_map(|chunk| [&chunk[..1], &[], &chunk[1..]]).collect();
                assert!(slices.len() > 500);
                to_server.write_all_vectored(&slices).await.expect("written");
                to_server.write_all_vectored(&[]).await.expect("nothing to write");
                to_server.write_all(&[]).await.expect("nothing to write");
                to_server.shutdown().expect("shut down");
            }
        })
        .expect("the gate is open");
        let mut received = vec![0; LEN];
        from_server.read_exact(&mut received).await.expect("read");
        assert!(received == sent);
        assert_eq!(from_server.read(&mut received).await.expect("read"), 0, "the end of the stream");
        assert_eq!(from_server.read(&mut received).await.expect("read"), 0, "again");
        gate.close().await;
    });
}

#[test]
fn the_other_side_sees_a_drop_at_once() {
    run(|| async {
        let (client, server) = pair().await;
        let (mut from_client, to_client) = server.into_split();
        drop(client);
        let mut bytes = [0; 16];
        assert_eq!(from_client.read(&mut bytes).await.expect("read"), 0);
        drop((from_client, to_client));

        // While a read waits in the kernel the halves are dropped: the connection must close all the same.
        let (client, server) = pair().await;
        let (mut from_client, to_client) = server.into_split();
        let (mut from_server, _to_server) = client.into_split();
        let waits = time::timeout(Duration::from_millis(1), from_client.read(&mut bytes)).await;
        assert!(waits.is_err());
        drop((from_client, to_client));
        assert_eq!(from_server.read(&mut bytes).await.expect("read"), 0);
    });
}

#[test]
fn writing_to_a_closed_connection_is_an_error_and_no_signal() {
    run(|| async {
        let (client, server) = pair().await;
        drop(client);
        let (_from_client, mut to_client) = server.into_split();
        let error = loop {
            if let Err(error) = to_client.write_all(&[0; 4096]).await {
                break error;
            }
            task::yield_to_io().await;
        };
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    });
}

#[test]
fn an_early_end_is_told_from_enough() {
    run(|| async {
        let (client, server) = pair().await;
        let (_, mut to_server) = client.into_split();
        let (mut from_client, _) = server.into_split();
        to_server.write_all(b"abc").await.expect("written");
        to_server.shutdown().expect("shut down");
        let mut bytes = [0; 2];
        from_client.read_exact(&mut bytes).await.expect("two of three");
        assert_eq!(&bytes, b"ab");
        let error = from_client.read_exact(&mut bytes).await.expect_err("one of two");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        from_client.read_exact(&mut []).await.expect("nothing is always there");
    });
}

#[test]
fn a_port_is_shared_only_when_all_agree() {
    run(|| async {
        let alone = TcpListener::bind(any_port(), ListenOptions::default()).expect("a free port");
        let address = alone.local_addr().expect("bound");
        for reuse_port in [false, true] {
            let options = ListenOptions { reuse_port, ..ListenOptions::default() };
            let error = TcpListener::bind(address, options).expect_err("taken");
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
        }
        drop(alone);
        let shared = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let one = TcpListener::bind(any_port(), shared).expect("a free port");
        let address = one.local_addr().expect("bound");
        let two = TcpListener::bind(address, shared).expect("shared");
        assert_eq!(two.local_addr().expect("bound"), address);
        let error = TcpListener::bind(address, ListenOptions::default()).expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn giving_up_on_accept_loses_no_connection() {
    run(|| async {
        let listener = TcpListener::bind(any_port(), ListenOptions::default()).expect("a free port");
        let address = listener.local_addr().expect("bound");
        assert!(time::timeout(Duration::from_millis(1), listener.accept()).await.is_err());
        let client = TcpStream::connect(address).await.expect("connected");
        // The kernel's answer is there before the next accept is polled.
        task::yield_to_io().await;
        let (server, peer) = listener.accept().await.expect("accepted");
        assert_eq!(peer, client.local_addr().expect("connected"));
        let (_, mut to_client) = server.into_split();
        to_client.write_all(b"hello").await.expect("written");
        let (mut from_server, _) = client.into_split();
        let mut bytes = [0; 5];
        from_server.read_exact(&mut bytes).await.expect("read");
        assert_eq!(&bytes, b"hello");
    });
}

#[test]
fn nobody_listens() {
    run(|| async {
        let listener = TcpListener::bind(any_port(), ListenOptions::default()).expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let error = TcpStream::connect(address).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_connection_that_never_runs_dry_does_not_hold_the_core() {
    let (address, wanted) = channel::oneshot();
    let floods = spawn_executor(ExecutorConfig::default(), move || async move {
        let address = wanted.await.expect("the other side listens");
        let (_read, mut write) = TcpStream::connect(address).await.expect("connected").into_split();
        while write.write_all(&[0; 65536]).await.is_ok() {}
    });
    run(move || async move {
        let listener = TcpListener::bind(any_port(), ListenOptions::default()).expect("a free port");
        address.send(listener.local_addr().expect("bound")).expect("the other side waits");
        let (mut read, _write) = listener.accept().await.expect("accepted").0.into_split();
        let fired = Rc::new(Cell::new(false));
        task::spawn("timer", {
            let fired = fired.clone();
            async move {
                time::sleep(Duration::from_millis(1)).await;
                fired.set(true);
            }
        });
        while !fired.get() {
            read.read_exact(&mut [0; 8]).await.expect("the other side floods");
        }
    });
    floods.expect("an executor starts").join().expect("an executor ends");
}

#[test]
fn the_wildcard_of_ipv6_takes_ipv4_and_names_it_so() {
    let v6 = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim_end() == "0");
    if !v6 {
        // A machine without IPv6, or one that keeps the two apart.
        return;
    }
    run(|| async {
        let any = "[::]:0".parse().expect("an address");
        let listener = TcpListener::bind(any, ListenOptions::default()).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let client = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.expect("connected");
        let (server, peer) = listener.accept().await.expect("accepted");
        assert_eq!(peer, client.local_addr().expect("connected"));
        assert_eq!(server.local_addr().expect("connected"), SocketAddr::from(([127, 0, 0, 1], port)));
    });
}

#[test]
fn a_reserved_port_is_shared_by_its_own_listeners_and_nobody_else() {
    run(|| async {
        let shared = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let first = Reservation::take(any_port()).expect("a free port");
        let address = first.address();
        assert_ne!(address.port(), 0);
        let in_use =
            |taken: std::io::Result<Reservation>| taken.expect_err("it is in use").kind() == ErrorKind::AddrInUse;
        assert!(in_use(Reservation::take(address)), "before its own listeners are there");
        let one = TcpListener::bind(address, shared).expect("the port is its own");
        let two = TcpListener::bind(address, shared).expect("the port is its own");
        assert!(in_use(Reservation::take(address)), "beside its own listeners");
        drop(first);
        assert!(in_use(Reservation::take(address)), "its own listeners keep it");

        let client = TcpStream::connect(address).await.expect("connected");
        let accepted = futures_lite::future::or(one.accept(), two.accept()).await.expect("accepted");
        assert_eq!(accepted.1, client.local_addr().expect("connected"));
    });
}
