//! TCP: listeners that share a port, streams with halves that read and write at the same time.
//!
//! Every stream has `TCP_NODELAY`. The simulated backend has no network yet: there every call answers
//! [`io::ErrorKind::Unsupported`].

use std::io;
use std::net::SocketAddr;

use crate::backend::{self, Backend};
use crate::glommio::net as backend_net;

/// How a listener is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// `SO_REUSEPORT`: several listeners of one process share the port, and the kernel spreads connections over
    /// them. Any process of the same user can join, so whoever wants the port for itself tries without it first.
    pub reuse_port: bool,
    /// Connections that may wait to be accepted. Default: 1024.
    pub backlog: u32,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions { reuse_port: false, backlog: 1024 }
    }
}

/// An address that this process has for itself while it opens the listeners that are to share it.
///
/// `SO_REUSEPORT` lets any process of the same user join a port, so a second broker would take a part of the first
/// one's connections instead of failing. Whoever reserves the port first is told that it is in use; listeners with
/// [`ListenOptions::reuse_port`] of the process that has it can then be opened, and do the same for the next one when
/// the reservation is dropped. Works outside an executor too.
#[derive(Debug)]
pub struct Reservation(backend_net::Reservation);

impl Reservation {
    /// Takes an address; port 0 lets the kernel choose one. A connection that arrives before the reservation is dropped
    /// may be reset.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when anybody listens there; what bind(2) and listen(2) say.
    pub fn take(address: SocketAddr) -> io::Result<Reservation> {
        backend_net::Reservation::take(address).map(Reservation)
    }

    /// The address, with the port that the kernel chose.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

/// Accepts connections.
#[derive(Debug)]
pub struct TcpListener(backend_net::Listener);

impl TcpListener {
    /// Listens on an address; port 0 lets the kernel choose one. `[::]` takes IPv4 connections too, unless the system
    /// is set up otherwise (`net.ipv6.bindv6only`).
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when another has it; what bind(2) and listen(2) say.
    pub fn bind(address: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
        network()?;
        backend_net::Listener::bind(address, options).map(TcpListener)
    }

    /// Waits for the next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// What accept(2) says: too many open files, say. The listener is still good; wait a little before the next try.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((TcpStream(stream), peer))
    }

    /// The address that it listens on, with the port that the kernel chose.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A connection.
#[derive(Debug)]
pub struct TcpStream(backend_net::Stream);

impl TcpStream {
    /// Connects to an address.
    ///
    /// # Errors
    /// What connect(2) says.
    pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
        network()?;
        backend_net::Stream::connect(address).await.map(TcpStream)
    }

    /// The other side's address.
    ///
    /// # Errors
    /// What getpeername(2) says.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    /// This side's address.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The two directions, for two tasks of this executor. The connection is closed when both are dropped.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        let (read, write) = self.0.into_split();
        (ReadHalf(read), WriteHalf(write))
    }
}

/// The direction from the other side.
#[derive(Debug)]
pub struct ReadHalf(backend_net::ReadHalf);

impl ReadHalf {
    /// Reads what is there, at least one byte unless `bytes` is empty; zero at the end of the stream. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// What recv(2) says.
    pub async fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes).await
    }

    /// Fills all of `bytes`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the stream ends first; what recv(2) says. How many bytes were read is
    /// then lost, as it is when the future is dropped.
    pub async fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.0.read(&mut bytes[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(())
    }
}

/// The direction to the other side.
#[derive(Debug)]
pub struct WriteHalf(backend_net::WriteHalf);

impl WriteHalf {
    /// Writes all bytes. If the future is dropped, some of them may have been sent.
    ///
    /// # Errors
    /// What send(2) says; [`io::ErrorKind::BrokenPipe`] when the other side is gone.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_vectored(&[bytes]).await
    }

    /// Writes all bytes of all slices, in order, with as few system calls as their number allows.
    ///
    /// # Errors
    /// As [`WriteHalf::write_all`].
    pub async fn write_all_vectored(&mut self, slices: &[&[u8]]) -> io::Result<()> {
        self.0.write_all_vectored(slices).await
    }

    /// Tells the other side that nothing more comes. What was written still arrives.
    ///
    /// # Errors
    /// What shutdown(2) says.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.0.shutdown()
    }
}

/// Whether the backend of this executor has a network.
fn network() -> io::Result<()> {
    match &backend::current().backend {
        Backend::Glommio(_) => Ok(()),
        #[cfg(feature = "sim")]
        Backend::Sim(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "the simulated backend has no network yet")),
    }
}

#[cfg(test)]
mod tests;
