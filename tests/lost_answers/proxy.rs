//! A proxy before a broker that passes bytes on, and now and then loses the answers to a produce.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmq_wire::protocol::RequestType;
use ringmq_wire::protocol::frame::{RequestHead, decode_request_head};
use ringmq_wire::protocol::preamble::PREAMBLE_BYTES;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Where the proxy listens: on the ports of the broker, which listens on another address of the loopback interface.
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// When answers are lost, and what came of it.
#[derive(Debug)]
pub(crate) struct Plan {
    /// After so many produces on all connections the next one's answer is lost; 0 is never.
    pub(crate) lose_each: AtomicU64,
    /// Produces that were passed on as a whole.
    pub(crate) produces: AtomicU64,
    /// Connections on which the broker had answered, and nobody heard it.
    pub(crate) lost: watch::Sender<u64>,
}

impl Plan {
    pub(crate) fn losing_each(produces: u64) -> Arc<Self> {
        let (lose_each, produces) = (AtomicU64::new(produces), AtomicU64::new(0));
        Arc::new(Self { lose_each, produces, lost: watch::Sender::new(0) })
    }

    pub(crate) fn lost(&self) -> u64 {
        *self.lost.borrow()
    }

    /// Counts a produce; whether its answer is to be lost.
    fn produce_passed(&self) -> bool {
        let number = self.produces.fetch_add(1, Ordering::SeqCst) + 1;
        let each = self.lose_each.load(Ordering::SeqCst);
        each > 0 && number.is_multiple_of(each)
    }
}

/// Stands before these ports of the broker, for as long as the runtime lives.
pub(crate) async fn stand_before(ports: &[SocketAddr], plan: &Arc<Plan>) {
    for &broker in ports {
        let listener = TcpListener::bind((ADDRESS, broker.port())).await.expect("the port is free on this address");
        let plan = plan.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A broker that is away does not answer: nor does the proxy.
                if let Ok(broker) = TcpStream::connect(broker).await {
                    tokio::spawn(pass(client, broker, plan.clone()));
                }
            }
        });
    }
}

/// Passes one connection's bytes on until a side ends it, or an answer is to be lost.
async fn pass(client: TcpStream, broker: TcpStream, plan: Arc<Plan>) {
    let (losing, is_losing) = watch::channel(false);
    let ((from_client, to_client), (from_broker, to_broker)) = (client.into_split(), broker.into_split());
    tokio::select! {
        _ = pass_requests(from_client, to_broker, &plan, &losing) => {}
        _ = pass_answers(from_broker, to_client, &plan, is_losing) => {}
    }
}

async fn pass_requests(
    mut client: OwnedReadHalf,
    mut broker: OwnedWriteHalf,
    plan: &Plan,
    losing: &watch::Sender<bool>,
) -> io::Result<()> {
    let mut preamble = [0; PREAMBLE_BYTES];
    client.read_exact(&mut preamble).await?;
    broker.write_all(&preamble).await?;
    let (mut frames, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let length = client.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        frames.extend_from_slice(&piece[..length]);
        while let Some((head, bytes)) = first_frame(&frames)? {
            // Before the broker has it, so that its answer is not faster.
            if head.request_type == RequestType::Produce.to_u16() && plan.produce_passed() {
                losing.send_replace(true);
            }
            broker.write_all(&frames[..bytes]).await?;
            frames.drain(..bytes);
        }
    }
}

/// The frame at the start, if it is there as a whole, and its length.
fn first_frame(frames: &[u8]) -> io::Result<Option<(RequestHead, usize)>> {
    const LENGTH_BYTES: usize = 4;
    let head = decode_request_head(frames, u32::MAX).map_err(io::Error::other)?;
    let whole = |head: RequestHead| {
        let counted = u32::from_be_bytes(*frames.first_chunk::<LENGTH_BYTES>()?);
        let bytes = LENGTH_BYTES + usize::try_from(counted).ok()?;
        (frames.len() >= bytes).then_some((head, bytes))
    };
    Ok(head.and_then(whole))
}

async fn pass_answers(
    mut broker: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    plan: &Plan,
    is_losing: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = broker.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        if *is_losing.borrow() {
            plan.lost.send_modify(|lost| *lost += 1);
            return Ok(());
        }
        client.write_all(&piece[..length]).await?;
    }
}
