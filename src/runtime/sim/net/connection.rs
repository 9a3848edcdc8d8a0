//! One TCP connection: what each of its two ends knows.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::sim::cores::Site;
use crate::sim::trace::content_hash;

/// A connection's number, counted up from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(super) u64);

/// Which of a connection's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    Connecting,
    Accepting,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EndId {
    pub(crate) connection: ConnectionId,
    pub(crate) side: Side,
}

impl EndId {
    pub(super) fn other(self) -> EndId {
        let side = match self.side {
            Side::Connecting => Side::Accepting,
            Side::Accepting => Side::Connecting,
        };
        EndId { side, ..self }
    }
}

/// What goes from one end to the other.
pub(super) enum Packet {
    Bytes(Vec<u8>),
    /// Nothing more comes.
    Fin,
    /// There is no connection any more.
    Reset,
    /// So many bytes were read: as many more may be sent.
    Taken(usize),
}

/// A packet as the trace records it.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) enum PacketMark {
    Bytes { length: usize, content: u64 },
    Fin,
    Reset,
    Taken(usize),
}

impl Packet {
    pub(super) fn mark(&self) -> PacketMark {
        match self {
            Packet::Bytes(bytes) => PacketMark::Bytes { length: bytes.len(), content: content_hash(bytes) },
            Packet::Fin => PacketMark::Fin,
            Packet::Reset => PacketMark::Reset,
            Packet::Taken(bytes) => PacketMark::Taken(*bytes),
        }
    }
}

/// What one end knows.
pub(super) struct End {
    pub(super) address: SocketAddr,
    pub(super) site: Site,
    /// Arrived and not read.
    inbox: VecDeque<u8>,
    /// The other side has sent its last byte, and it has arrived.
    finished: bool,
    reset: bool,
    /// Nobody holds this end any more.
    pub(super) closed: bool,
    /// Nothing more is sent from here.
    shut: bool,
    /// Bytes sent that the other side has not read, as far as this end knows; at most `window`.
    untaken: usize,
    window: usize,
    /// When the packet that was sent last arrives: none overtakes it.
    pub(super) arrives_last: Duration,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl End {
    pub(super) fn new(address: SocketAddr, site: Site, window: usize) -> End {
        End {
            address,
            site,
            inbox: VecDeque::new(),
            finished: false,
            reset: false,
            closed: false,
            shut: false,
            untaken: 0,
            window,
            arrives_last: Duration::ZERO,
            reader: None,
            writer: None,
        }
    }

    /// How many bytes can be read now. What has arrived before a reset can still be read, as on Linux.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.inbox.is_empty() {
            return Poll::Ready(Ok(self.inbox.len()));
        }
        if self.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.finished {
            return Poll::Ready(Ok(0));
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Moves the first bytes of the inbox, which holds as many.
    pub(super) fn take(&mut self, bytes: &mut [u8]) {
        let count = bytes.len();
        let taken = self.inbox.drain(..count);
        bytes.iter_mut().zip(taken).for_each(|(to, from)| *to = from);
    }

    /// How many bytes can be sent now.
    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.reset || self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.untaken < self.window {
            return Poll::Ready(Ok(self.window - self.untaken));
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// So many bytes are on their way.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.untaken += bytes;
    }

    /// What the other side is to be told when no more is sent from here; nothing when it knows.
    pub(super) fn shut(&mut self) -> Option<Packet> {
        (!std::mem::replace(&mut self.shut, true) && !self.reset).then_some(Packet::Fin)
    }

    /// What the other side is to be told when nobody holds this end any more. To close with bytes that were not read
    /// resets the connection (RFC 1122, 4.2.2.13).
    pub(super) fn close(&mut self) -> Option<Packet> {
        self.closed = true;
        if self.reset {
            return None;
        }
        if self.inbox.is_empty() { self.shut() } else { Some(Packet::Reset) }
    }

    /// Takes a packet in. Returns what this end answers by itself.
    pub(super) fn arrive(&mut self, packet: Packet, woken: &mut Vec<Waker>) -> Option<Packet> {
        if self.closed {
            return matches!(packet, Packet::Bytes(_)).then_some(Packet::Reset);
        }
        match packet {
            Packet::Bytes(bytes) => {
                self.inbox.extend(bytes);
                woken.extend(self.reader.take());
            }
            Packet::Fin => {
                self.finished = true;
                woken.extend(self.reader.take());
            }
            Packet::Reset => {
                self.reset = true;
                woken.extend(self.reader.take());
                woken.extend(self.writer.take());
            }
            Packet::Taken(bytes) => {
                self.untaken = self.untaken.saturating_sub(bytes);
                woken.extend(self.writer.take());
            }
        }
        None
    }
}
