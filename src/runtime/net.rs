//! TCP: listeners that share a port, streams with halves that read and write at the same time.
//!
//! Every stream has `TCP_NODELAY`.

use std::io;
use std::net::SocketAddr;

use crate::backend::{self, Backend};
use crate::file::remedy;
use crate::glommio::net as glommio;
#[cfg(feature = "sim")]
use crate::sim::net::stream as sim;

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
pub struct Reservation(ReservationBackend);

#[derive(Debug)]
enum ReservationBackend {
    Glommio(glommio::Reservation),
    #[cfg(feature = "sim")]
    Sim(sim::Listener),
}

impl Reservation {
    /// Takes an address; port 0 lets the kernel choose one. A connection that arrives before the reservation is dropped
    /// may be reset.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when anybody listens there; what bind(2) and listen(2) say.
    pub fn take(address: SocketAddr) -> io::Result<Reservation> {
        #[cfg(feature = "sim")]
        if let Some(world) = backend::simulated() {
            return sim::Listener::reserve(&world, address).map(ReservationBackend::Sim).map(Reservation);
        }
        glommio::Reservation::take(address).map(ReservationBackend::Glommio).map(Reservation)
    }

    /// The address, with the port that the kernel chose.
    pub fn address(&self) -> SocketAddr {
        match &self.0 {
            ReservationBackend::Glommio(reservation) => reservation.address(),
            #[cfg(feature = "sim")]
            ReservationBackend::Sim(listener) => listener.address(),
        }
    }
}

/// Accepts connections.
#[derive(Debug)]
pub struct TcpListener(ListenerBackend);

#[derive(Debug)]
enum ListenerBackend {
    Glommio(glommio::Listener),
    #[cfg(feature = "sim")]
    Sim(sim::Listener),
}

impl TcpListener {
    /// Listens on an address; port 0 lets the kernel choose one. `[::]` takes IPv4 connections too, unless the system
    /// is set up otherwise (`net.ipv6.bindv6only`).
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when another has it; what bind(2) and listen(2) say.
    pub fn bind(address: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
        let listener = match &backend::current().backend {
            Backend::Glommio(_) => glommio::Listener::bind(address, options).map(ListenerBackend::Glommio),
            #[cfg(feature = "sim")]
            Backend::Sim(world) => sim::Listener::bind(world, address, options).map(ListenerBackend::Sim),
        };
        listener.map(TcpListener)
    }

    /// Waits for the next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// What accept(2) says: too many open files, say. The listener is still good; wait a little before the next try.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.0 {
            ListenerBackend::Glommio(listener) => {
                let accepted = listener.accept().await;
                let (stream, peer) =
                    accepted.map_err(|error| io::Error::new(error.kind(), format!("{error}{}", remedy(&error))))?;
                Ok((TcpStream(StreamBackend::Glommio(stream)), peer))
            }
            #[cfg(feature = "sim")]
            ListenerBackend::Sim(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((TcpStream(StreamBackend::Sim(stream)), peer))
            }
        }
    }

    /// The address that it listens on, with the port that the kernel chose.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            ListenerBackend::Glommio(listener) => listener.local_addr(),
            #[cfg(feature = "sim")]
            ListenerBackend::Sim(listener) => Ok(listener.address()),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct TcpStream(StreamBackend);

#[derive(Debug)]
enum StreamBackend {
    Glommio(glommio::Stream),
    #[cfg(feature = "sim")]
    Sim(sim::Stream),
}

impl TcpStream {
    /// Connects to an address.
    ///
    /// # Errors
    /// What connect(2) says.
    pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
        let context = backend::current();
        let stream = match &context.backend {
            Backend::Glommio(_) => glommio::Stream::connect(address).await.map(StreamBackend::Glommio),
            #[cfg(feature = "sim")]
            Backend::Sim(world) => sim::Stream::connect(world, address).await.map(StreamBackend::Sim),
        };
        stream.map(TcpStream)
    }

    /// The other side's address.
    ///
    /// # Errors
    /// What getpeername(2) says.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            StreamBackend::Glommio(stream) => stream.peer_addr(),
            #[cfg(feature = "sim")]
            StreamBackend::Sim(stream) => Ok(stream.peer),
        }
    }

    /// This side's address.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            StreamBackend::Glommio(stream) => stream.local_addr(),
            #[cfg(feature = "sim")]
            StreamBackend::Sim(stream) => Ok(stream.local),
        }
    }

    /// The two directions, for two tasks of this executor. The connection is closed when both are dropped.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self.0 {
            StreamBackend::Glommio(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf(ReadBackend::Glommio(read)), WriteHalf(WriteBackend::Glommio(write)))
            }
            #[cfg(feature = "sim")]
            StreamBackend::Sim(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf(ReadBackend::Sim(read)), WriteHalf(WriteBackend::Sim(write)))
            }
        }
    }
}

/// The direction from the other side.
#[derive(Debug)]
pub struct ReadHalf(ReadBackend);

#[derive(Debug)]
enum ReadBackend {
    Glommio(glommio::ReadHalf),
    #[cfg(feature = "sim")]
    Sim(sim::ReadHalf),
}

impl ReadHalf {
    /// Reads what is there, at least one byte unless `bytes` is empty; zero at the end of the stream. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// What recv(2) says.
    pub async fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            ReadBackend::Glommio(half) => half.read(bytes).await,
            #[cfg(feature = "sim")]
            ReadBackend::Sim(half) => half.read(bytes).await,
        }
    }

    /// Fills all of `bytes`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the stream ends first; what recv(2) says. How many bytes were read is
    /// then lost, as it is when the future is dropped.
    pub async fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.read(&mut bytes[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(())
    }
}

/// The direction to the other side.
#[derive(Debug)]
pub struct WriteHalf(WriteBackend);

#[derive(Debug)]
enum WriteBackend {
    Glommio(glommio::WriteHalf),
    #[cfg(feature = "sim")]
    Sim(sim::WriteHalf),
}

impl WriteHalf {
    /// Writes all bytes. If the future is dropped, some of them may have been sent.
    ///
    /// # Errors
    /// What send(2) says; [`io::ErrorKind::BrokenPipe`] when the other side is gone.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all_vectored(&[bytes]).await
    }

    /// Writes all bytes of all slices, in order, with as few system calls as their number allows.
    ///
    /// # Errors
    /// As [`WriteHalf::write_all`].
    pub async fn write_all_vectored(&mut self, slices: &[&[u8]]) -> io::Result<()> {
        match &mut self.0 {
            WriteBackend::Glommio(half) => half.write_all_vectored(slices).await,
            #[cfg(feature = "sim")]
            WriteBackend::Sim(half) => half.write_all_vectored(slices).await,
        }
    }

    /// Tells the other side that nothing more comes. What was written still arrives.
    ///
    /// # Errors
    /// What shutdown(2) says.
    pub fn shutdown(&mut self) -> io::Result<()> {
        match &mut self.0 {
            WriteBackend::Glommio(half) => half.shutdown(),
            #[cfg(feature = "sim")]
            WriteBackend::Sim(half) => {
                half.shutdown();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
