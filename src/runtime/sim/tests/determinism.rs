//! The same seed gives the same run, event by event.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_lite::future::zip;

use super::*;
use crate::channel::{OneshotSender, oneshot};
use crate::executor::{ExecutorConfig, spawn_executor};
use crate::net::{ListenOptions, TcpListener, TcpStream};
use crate::task::Gate;
use crate::time::sleep;

/// Cores that serve connections from elsewhere and ask each other.
async fn serve() {
    let (questions, mut inbox) = crate::channel::bounded::<(u64, OneshotSender<u64>)>(2);
    let answers = || async move {
        while let Some((number, reply)) = inbox.recv().await {
            let _ = reply.send(number ^ crate::random::u64());
        }
    };
    spawn_executor(ExecutorConfig::default(), answers).unwrap();
    for _ in 0..2 {
        let questions = questions.clone();
        let serves = || async move {
            let shared = ListenOptions { reuse_port: true, ..ListenOptions::default() };
            let listener = TcpListener::bind(PORT, shared).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (mut read, mut write) = stream.into_split();
                let mut number = [0; 8];
                while read.read_exact(&mut number).await.is_ok() {
                    let (reply, answer) = oneshot();
                    questions.send((u64::from_le_bytes(number), reply)).await.unwrap();
                    let answer = answer.await.unwrap().to_le_bytes();
                    if write.write_all(&answer).await.is_err() {
                        break;
                    }
                }
            }
        };
        spawn_executor(ExecutorConfig::default(), serves).unwrap();
    }
}

/// A client that connects again whenever its connection ends.
async fn ask() {
    loop {
        sleep(Duration::from_micros(crate::random::u64() % 500)).await;
        let Ok(stream) = TcpStream::connect(PORT).await else { continue };
        let (mut read, mut write) = stream.into_split();
        let mut number = [0; 8];
        while write.write_all(&number).await.is_ok() && read.read_exact(&mut number).await.is_ok() {
            sleep(Duration::from_nanos(u64::from_le_bytes(number) % 100_000)).await;
        }
    }
}

const PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9092);

/// Tasks, timers, files, random numbers, cores, channels, connections, a kill and a crash.
fn trace(seed: u64) -> u64 {
    let sim = Sim::new(SimConfig::with_seed(seed));
    sim.elsewhere("client", ask);
    sim.elsewhere("client", ask);
    let work = move || async move {
        let gate = Gate::new();
        for worker in 0..4 {
            let writes = async move {
                let path = format!("/{worker}-{}", crate::random::u64());
                let file = File::open(&path, CREATE).await.unwrap();
                for block in 0..4 {
                    write(&file, 1, block).await.unwrap();
                    sleep(Duration::from_micros(crate::random::u64() % 500)).await;
                }
                file.fdatasync().await.unwrap();
                crate::fs::sync_dir("/").await.unwrap();
            };
            gate.spawn("worker", writes).unwrap();
        }
        gate.close().await;
    };
    sim.run(work);
    sim.run(|| async {
        serve().await;
        crate::task::spawn("killed", work());
        sleep(Duration::from_micros(700)).await;
    });
    sim.kill();
    sim.run(work);
    sim.run(|| async {
        serve().await;
        crate::task::spawn("crashed", work());
        sleep(Duration::from_micros(700)).await;
    });
    sim.crash();
    // What the crash left decides how this goes, so it is in the hash as well.
    sim.run(|| async {
        for entry in crate::fs::read_dir("/").await.unwrap() {
            let bytes = File::open(&entry.name, WRITE).await.unwrap();
            let first = bytes.read_at(0, BLOCK_BYTES, IoClass::ColdRead).await.unwrap();
            sleep(Duration::from_nanos(first.iter().map(|byte| u64::from(*byte)).sum())).await;
        }
    });
    sim.trace_hash()
}

#[test]
fn a_seed_replays_and_another_one_differs() {
    let mut hashes = BTreeSet::new();
    for seed in 0..100 {
        let hash = trace(seed);
        assert_eq!(trace(seed), hash, "seed {seed} went two ways");
        hashes.insert(hash);
    }
    assert_eq!(hashes.len(), 100, "two seeds went the same way");
}

#[test]
fn the_trace_covers_what_is_written() {
    let trace_of_write = |fill| {
        let sim = Sim::new(SimConfig::default());
        sim.run(|| async { write(&durable_file("/a", 1).await, fill, 0).await.unwrap() });
        (sim.now(), sim.trace_hash())
    };
    let ((one_end, one), (two_end, two)) = (trace_of_write(1), trace_of_write(2));
    assert_eq!(one_end, two_end, "the runs differ in nothing else");
    assert_ne!(one, two);
}

#[test]
fn requests_complete_in_any_order() {
    let order = |seed| {
        let sim = Sim::new(SimConfig::with_seed(seed));
        let order = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        sim.run(|| async {
            let file = durable_file("/a", 3).await;
            // All three are submitted in one poll, in this order.
            let write = async |block| {
                write(&file, 1, block).await.unwrap();
                order.borrow_mut().push(block);
            };
            zip(zip(write(0), write(1)), write(2)).await;
        });
        order.take()
    };
    let orders: BTreeSet<Vec<u64>> = SEEDS.map(order).collect();
    assert_eq!(orders.len(), 6, "every order of three occurs: {orders:?}");
}

#[test]
fn the_tail_of_the_trace_is_bounded_and_readable() {
    let sim = Sim::new(SimConfig { trace_tail_max: 8, ..SimConfig::default() });
    sim.run(|| async { write(&durable_file("/log", 1).await, 7, 0).await.unwrap() });
    let tail = sim.trace_tail();
    assert_eq!(tail.len(), 8);
    assert!(tail.iter().any(|line| line.contains("Write") && line.contains("/log")), "{tail:#?}");
}
