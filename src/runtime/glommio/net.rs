//! TCP on glommio's streams.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ::glommio::net as gnet;
use futures_lite::{AsyncRead, AsyncWrite};
use socket2::{Domain, Protocol, Socket, Type};

use super::core::into_io;
use super::{clock, sys};
use crate::backend;
use crate::net::ListenOptions;
use crate::task::Stop;

type Accepting = Pin<Box<dyn Future<Output = io::Result<gnet::TcpStream>>>>;

pub(crate) struct Listener {
    listener: Rc<gnet::TcpListener>,
    /// A request in the kernel outlives the future that asked for it: dropped halfway, it would lose a connection.
    accepting: RefCell<Option<Accepting>>,
    ending: Stop,
}

/// A listening socket, not yet the executor's.
fn listen(address: SocketAddr, options: ListenOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A broker that starts again finds connections of its last life in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

#[derive(Debug)]
pub(crate) struct Reservation {
    address: SocketAddr,
    _socket: Socket,
}

impl Reservation {
    pub(crate) fn take(address: SocketAddr) -> io::Result<Reservation> {
        // It listens, because two sockets with SO_REUSEADDR that only bind do not exclude each other.
        let socket = listen(address, ListenOptions::default())?;
        let bound = socket.local_addr()?.as_socket();
        let address = bound.ok_or_else(|| io::Error::other("a TCP socket has no IP address"))?;
        // From here on others of this process may join; who comes without the option is still refused.
        socket.set_reuse_port(true)?;
        Ok(Reservation { address, _socket: socket })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr, options: ListenOptions) -> io::Result<Listener> {
        let socket = listen(address, options)?;
        // SAFETY: the descriptor is an open listening socket, given away here and used nowhere else.
        let listener = unsafe { gnet::TcpListener::from_raw_fd(socket.into_raw_fd()) };
        let ending = backend::current().backend.glommio().ending.1.clone();
        Ok(Listener { listener: Rc::new(listener), accepting: RefCell::new(None), ending })
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let accepted = poll_fn(|cx| self.poll_accept(cx));
        let Some(accepted) = self.ending.or_stop(accepted).await else {
            // The kernel must not write the peer's address into memory that is gone.
            self.accepting.borrow_mut().take();
            return Err(io::Error::other("the executor is ending"));
        };
        let stream = Stream::new(accepted?)?;
        let peer = stream.peer_addr()?;
        Ok((stream, peer))
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<gnet::TcpStream>> {
        let mut accepting = self.accepting.borrow_mut();
        let accept = accepting.get_or_insert_with(|| {
            let listener = self.listener.clone();
            Box::pin(async move { listener.accept().await.map_err(into_io) })
        });
        let accepted = ready!(accept.as_mut().poll(cx));
        *accepting = None;
        Poll::Ready(accepted)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr().map_err(into_io)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.local_addr().ok()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Stream(gnet::TcpStream);

impl Stream {
    fn new(stream: gnet::TcpStream) -> io::Result<Stream> {
        stream.set_nodelay(true).map_err(into_io)?;
        Ok(Stream(stream))
    }

    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Stream> {
        Stream::new(gnet::TcpStream::connect(address).await.map_err(into_io)?)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr().map(canonical).map_err(into_io)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr().map(canonical).map_err(into_io)
    }

    pub(crate) fn into_split(self) -> (ReadHalf, WriteHalf) {
        let fd = self.0.as_raw_fd();
        let shared = Rc::new(RefCell::new(self.0));
        (
            ReadHalf { stream: shared.clone(), turn: Turn::default() },
            WriteHalf { stream: shared, fd, turn: Turn::default() },
        )
    }
}

/// An IPv4 peer of a listener on `[::]` has an address like `::ffff:192.0.2.1`, which means something there alone.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Both halves share the stream, borrowed for one poll at a time. (Two descriptors of one socket would double the
/// requests in the rings.)
type Shared = Rc<RefCell<gnet::TcpStream>>;

/// How much one direction of one connection moves before the executor looks at its rings again: some 200 µs.
const TURN_BYTES: usize = 1 << 20;

/// What a call costs at least, whatever it moves.
const CALL_BYTES: usize = 16 << 10;

/// Gives way in time. A connection that always has bytes, or always takes them, never waits by itself; then neither
/// the other connections nor the disk would be looked at.
#[derive(Debug, Default)]
struct Turn {
    moved: usize,
}

impl Turn {
    async fn give_way_if_due(&mut self) {
        if self.moved >= TURN_BYTES {
            self.moved = 0;
            clock::next_turn().await;
        }
    }

    fn count(&mut self, bytes: usize) {
        self.moved += bytes.max(CALL_BYTES);
    }
}

#[derive(Debug)]
pub(crate) struct ReadHalf {
    stream: Shared,
    turn: Turn,
}

impl ReadHalf {
    pub(crate) async fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.turn.give_way_if_due().await;
        let len = bytes.len().min(TURN_BYTES);
        let bytes = &mut bytes[..len];
        // glommio tries recv with MSG_DONTWAIT first and then waits for readability.
        let mut waited = false;
        let read = poll_fn(|cx| {
            let polled = Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, bytes);
            waited |= polled.is_pending();
            polled
        })
        .await?;
        if waited {
            self.turn = Turn::default();
        }
        self.turn.count(read);
        Ok(read)
    }
}

#[derive(Debug)]
pub(crate) struct WriteHalf {
    stream: Shared,
    /// Open as long as `stream` lives.
    fd: RawFd,
    turn: Turn,
}

impl WriteHalf {
    pub(crate) async fn write_all_vectored(&mut self, slices: &[&[u8]]) -> io::Result<()> {
        let mut rest = Rest { slices, index: 0, offset: 0 };
        rest.skip_empty();
        while !rest.is_empty() {
            self.turn.give_way_if_due().await;
            let sent = match send(self.fd, &rest) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.send_when_writable(rest.first()).await?
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                sent => sent?,
            };
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.turn.count(sent);
            rest.advance(sent);
        }
        Ok(())
    }

    /// Waits through glommio until the socket takes bytes, and sends some.
    async fn send_when_writable(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = poll_fn(|cx| Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, bytes)).await;
        self.turn = Turn::default();
        sent
    }

    pub(crate) fn shutdown(&mut self) -> io::Result<()> {
        // SAFETY: shutdown takes any number; `fd` is open while `stream` lives.
        sys::check(unsafe { libc::shutdown(self.fd, libc::SHUT_WR) }).map(drop)
    }
}

/// Slices of which some bytes were sent.
struct Rest<'a> {
    slices: &'a [&'a [u8]],
    /// The first slice with bytes left, and how many of its bytes are gone.
    index: usize,
    offset: usize,
}

impl<'a> Rest<'a> {
    fn is_empty(&self) -> bool {
        self.index == self.slices.len()
    }

    fn first(&self) -> &'a [u8] {
        &self.slices[self.index][self.offset..]
    }

    fn skip_empty(&mut self) {
        while self.slices.get(self.index).is_some_and(|slice| slice.is_empty()) {
            self.index += 1;
        }
    }

    fn advance(&mut self, mut sent: usize) {
        while sent > 0 {
            let left = self.slices[self.index].len() - self.offset;
            if sent < left {
                self.offset += sent;
                return;
            }
            sent -= left;
            self.index += 1;
            self.offset = 0;
        }
        self.skip_empty();
    }
}

/// Slices that one call sends. The kernel takes up to 1024 (IOV_MAX); these fit on the stack without a thought.
const SLICES_PER_CALL: usize = 64;

/// Sends as much as the socket takes now, within one turn.
fn send(fd: RawFd, rest: &Rest<'_>) -> io::Result<usize> {
    let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut vectors = [empty; SLICES_PER_CALL];
    let slices = std::iter::once(rest.first()).chain(rest.slices[rest.index + 1..].iter().copied());
    let mut count = 0;
    let mut room = TURN_BYTES;
    for (vector, slice) in vectors.iter_mut().zip(slices) {
        if room == 0 {
            break;
        }
        let len = slice.len().min(room);
        *vector = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: len };
        room -= len;
        count += 1;
    }
    // SAFETY: all zeros is a valid `msghdr`: no address, no vectors, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = count;
    // SAFETY: the first `count` vectors point into slices that are borrowed for this call, and sendmsg only reads them.
    let sent = unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
