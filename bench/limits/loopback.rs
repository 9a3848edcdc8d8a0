//! The loopback network alone.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use hdrhistogram::Histogram;
use ringmq_runtime::channel::{self, OneshotReceiver, OneshotSender};
use ringmq_runtime::executor::CpuId;
use ringmq_runtime::local;
use ringmq_runtime::net::{ListenOptions, ReadHalf, TcpListener, TcpStream, WriteHalf};
use ringmq_runtime::task;
use ringmq_runtime::time::Instant;

use super::cores::{SPIN_BEFORE_PARK, Span, join_all, spawn_pinned};
use super::{CONNECTIONS, MINUTE_NS};

/// Bytes in one call: small enough to stay in the processor's own cache.
const CALL_BYTES: usize = 256 << 10;

/// Bytes per second that all connections carry together, in one direction.
pub(super) fn throughput(cores: &[CpuId], bytes: u64) -> io::Result<f64> {
    let calls = bytes / CONNECTIONS as u64 / CALL_BYTES as u64;
    let spans = across(
        cores,
        move |_, (mut read, mut write)| async move {
            let mut buffer = vec![0; CALL_BYTES];
            for _ in 0..calls {
                read.read_exact(&mut buffer).await?;
            }
            write.write_all(&[1]).await
        },
        move |(mut read, mut write)| async move {
            let buffer = vec![0x52; CALL_BYTES];
            let start = Instant::now();
            for _ in 0..calls {
                write.write_all(&buffer).await?;
            }
            read.read_exact(&mut [0]).await?;
            Ok(Span::since(start))
        },
    )?;
    Ok(Span::rate(&spans, calls * (CALL_BYTES * CONNECTIONS) as u64))
}

/// The median round trip, in microseconds, of a small message on one connection.
pub(super) fn round_trip(cores: &[CpuId]) -> io::Result<f64> {
    const MESSAGE_BYTES: usize = 64;
    const WARM_UP: usize = 1_000;
    const ROUNDS: usize = 20_000;
    let (address_sender, address) = channel::oneshot();
    let server = spawn_pinned("server", cores[0], Some(SPIN_BEFORE_PARK), move || async move {
        let listener = listen(address_sender)?;
        let (mut read, mut write) = listener.accept().await?.0.into_split();
        let mut message = [0; MESSAGE_BYTES];
        for _ in 0..WARM_UP + ROUNDS {
            read.read_exact(&mut message).await?;
            write.write_all(&message).await?;
        }
        io::Result::Ok(())
    })?;
    let client = spawn_pinned("client", cores[cores.len() - 1], None, move || async move {
        let address = address.await.map_err(io::Error::other)?;
        let (mut read, mut write) = TcpStream::connect(address).await?.into_split();
        let mut nanoseconds = Histogram::<u64>::new_with_bounds(1, MINUTE_NS, 3).map_err(io::Error::other)?;
        let mut message = [0x52; MESSAGE_BYTES];
        for round in 0..WARM_UP + ROUNDS {
            let start = Instant::now();
            write.write_all(&message).await?;
            read.read_exact(&mut message).await?;
            if round >= WARM_UP {
                nanoseconds
                    .record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
                    .map_err(io::Error::other)?;
            }
        }
        io::Result::Ok(nanoseconds.value_at_quantile(0.5) as f64 / 1e3)
    })?;
    let median = client.join()?;
    server.join()??;
    median
}

/// Opens [`CONNECTIONS`] connections between a server and a client executor on each core, spread evenly over all
/// pairs of cores, and runs `serve` at one end of each and `drive` at the other. Returns what the clients return.
pub(super) fn across<T, Served, Driven>(
    cores: &[CpuId],
    serve: impl Fn(usize, (ReadHalf, WriteHalf)) -> Served + Clone + Send + 'static,
    drive: impl Fn((ReadHalf, WriteHalf)) -> Driven + Clone + Send + 'static,
) -> io::Result<Vec<T>>
where
    T: Send + 'static,
    Served: Future<Output = io::Result<()>> + 'static,
    Driven: Future<Output = io::Result<T>> + 'static,
{
    let mut servers = Vec::new();
    let mut addresses = Vec::new();
    for (core, cpu) in cores.iter().enumerate() {
        let (address_sender, address) = channel::oneshot();
        let serve = serve.clone();
        let connections: Vec<usize> =
            (0..CONNECTIONS).filter(|index| server_core(*index, cores.len()) == core).collect();
        servers.push(spawn_pinned("server", *cpu, Some(SPIN_BEFORE_PARK), move || async move {
            let listener = listen(address_sender)?;
            let mut ends = Vec::new();
            for index in connections {
                let stream = listener.accept().await?.0;
                ends.push(start(serve(index, stream.into_split())));
            }
            wait_for_all(ends).await.map(drop)
        })?);
        addresses.push(wait_blocking(address)?);
    }
    let mut clients = Vec::new();
    for (core, cpu) in cores.iter().enumerate() {
        let drive = drive.clone();
        let targets: Vec<SocketAddr> = (0..CONNECTIONS)
            .filter(|index| index % cores.len() == core)
            .map(|index| addresses[server_core(index, cores.len())])
            .collect();
        clients.push(spawn_pinned("client", *cpu, None, move || async move {
            let mut ends = Vec::new();
            for target in targets {
                let stream = TcpStream::connect(target).await?;
                ends.push(start(drive(stream.into_split())));
            }
            wait_for_all(ends).await
        })?);
    }
    let driven = join_all(clients);
    join_all(servers)?;
    Ok(driven?.into_iter().flatten().collect())
}

/// The core that serves a connection. Its client is on core `index % cores`, so that every pair of cores occurs.
fn server_core(index: usize, cores: usize) -> usize {
    (index / cores) % cores
}

fn listen(address: OneshotSender<SocketAddr>) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), ListenOptions::default())?;
    // If nobody waits for the address any more, nobody connects, and the accept fails or ends with the process.
    let _ = address.send(listener.local_addr()?);
    Ok(listener)
}

/// Waits on a thread without an executor. Whoever was to send has ended when it fails.
fn wait_blocking(address: OneshotReceiver<SocketAddr>) -> io::Result<SocketAddr> {
    futures_lite::future::block_on(address).map_err(io::Error::other)
}

/// Starts a task and returns the future of its outcome.
fn start<T: 'static>(future: impl Future<Output = io::Result<T>> + 'static) -> local::Receiver<io::Result<T>> {
    let (sender, receiver) = local::oneshot();
    task::spawn("connection", async move {
        // Nobody waits any more when another connection has failed.
        let _ = sender.send(future.await);
    });
    receiver
}

async fn wait_for_all<T>(ends: Vec<local::Receiver<io::Result<T>>>) -> io::Result<Vec<T>> {
    let mut outcomes = Vec::new();
    for end in ends {
        outcomes.push(end.await.map_err(io::Error::other)??);
    }
    Ok(outcomes)
}
