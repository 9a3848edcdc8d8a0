//! The simulation's arm of [`crate::net`].

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::connection::EndId;
use super::network::Knock;
use super::ports::{ListenerId, Sharing};
use crate::net::ListenOptions;
use crate::sim::world::World;

/// When a wish to connect that was lost is sent again, as Linux does at first.
const CONNECT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A socket that listens until it is dropped.
pub(crate) struct Listener {
    world: Rc<World>,
    id: ListenerId,
    address: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(world: &Rc<World>, address: SocketAddr, options: ListenOptions) -> io::Result<Listener> {
        let sharing = if options.reuse_port { Sharing::Shared } else { Sharing::Alone };
        Listener::listen(world, address, sharing, options.backlog)
    }

    /// Listens, accepts nothing, and lets those in that share: a reservation of the address.
    pub(crate) fn reserve(world: &Rc<World>, address: SocketAddr) -> io::Result<Listener> {
        Listener::listen(world, address, Sharing::Reserved, ListenOptions::default().backlog)
    }

    fn listen(world: &Rc<World>, address: SocketAddr, sharing: Sharing, backlog: u32) -> io::Result<Listener> {
        let backlog_max = usize::try_from(backlog).unwrap_or(usize::MAX);
        let site = world.current_site();
        let (id, address) = world.network(|network, _| network.listen(address, sharing, backlog_max, site))?;
        Ok(Listener { world: world.clone(), id, address })
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let end = poll_fn(|cx| self.world.network(|network, _| network.poll_accept(self.id, cx))).await;
        let stream = Stream::new(&self.world, end)?;
        let peer = stream.peer;
        Ok((stream, peer))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.world.network(|network, now| network.close_listener(now, self.id));
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}

/// One end of a connection, until it is dropped.
pub(crate) struct Stream {
    world: Rc<World>,
    end: EndId,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

impl Stream {
    fn new(world: &Rc<World>, end: EndId) -> io::Result<Stream> {
        let addresses = world.network(|network, _| network.addresses(end));
        let (local, peer) = addresses.ok_or(io::ErrorKind::NotConnected)?;
        Ok(Stream { world: world.clone(), end, local, peer })
    }

    pub(crate) async fn connect(world: &Rc<World>, address: SocketAddr) -> io::Result<Stream> {
        let site = world.current_site();
        let stream = loop {
            let there = world.network(|network, _| network.draw_latency());
            world.sleep(there).await;
            match world.network(|network, _| network.knock(address, site))? {
                Knock::Connected(end) => break Stream::new(world, end)?,
                Knock::Lost => world.sleep(CONNECT_AGAIN_AFTER).await,
            }
        };
        let back = world.network(|network, _| network.draw_latency());
        world.sleep(back).await;
        Ok(stream)
    }

    pub(crate) fn into_split(self) -> (ReadHalf, WriteHalf) {
        let stream = Rc::new(self);
        (ReadHalf(stream.clone()), WriteHalf(stream))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.world.network(|network, now| network.close(now, self.end));
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("end", &self.end).field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct ReadHalf(Rc<Stream>);

impl ReadHalf {
    pub(crate) async fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let Stream { world, end, .. } = &*self.0;
        poll_fn(|cx| world.network(|network, now| network.poll_read(now, *end, bytes, cx))).await
    }
}

#[derive(Debug)]
pub(crate) struct WriteHalf(Rc<Stream>);

impl WriteHalf {
    pub(crate) async fn write_all_vectored(&mut self, slices: &[&[u8]]) -> io::Result<()> {
        let Stream { world, end, .. } = &*self.0;
        for slice in slices {
            let mut rest = *slice;
            while !rest.is_empty() {
                let written =
                    poll_fn(|cx| world.network(|network, now| network.poll_write(now, *end, rest, cx))).await?;
                rest = &rest[written..];
            }
        }
        Ok(())
    }

    pub(crate) fn shutdown(&mut self) {
        let Stream { world, end, .. } = &*self.0;
        world.network(|network, now| network.shut(now, *end));
    }
}
