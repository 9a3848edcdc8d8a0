//! Who listens where.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::task::Waker;

use super::connection::EndId;
use crate::sim::cores::Site;
use crate::sim::dice::Dice;

/// A listening socket; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ListenerId(u64);

/// Whom a socket lets listen on its port beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Nobody.
    Alone,
    /// Others that share (`SO_REUSEPORT`).
    Shared,
    /// Others that share, but those only that come after it.
    Reserved,
}

pub(super) struct Listening {
    pub(super) address: SocketAddr,
    sharing: Sharing,
    pub(super) site: Site,
    /// Connections that may wait to be accepted.
    backlog_max: usize,
    pub(super) backlog: VecDeque<EndId>,
    pub(super) acceptor: Option<Waker>,
}

impl Listening {
    pub(super) fn is_full(&self) -> bool {
        self.backlog.len() >= self.backlog_max
    }
}

/// Every listening socket, and the ports that nobody has asked for by number.
#[derive(Default)]
pub(super) struct Ports {
    listening: BTreeMap<ListenerId, Listening>,
    made: u64,
    ephemeral_used: u16,
}

/// As on Linux (`net.ipv4.ip_local_port_range`), but up to the end.
const EPHEMERAL_FIRST: u16 = 32_768;

impl Ports {
    /// # Errors
    /// `AddrInUse`.
    pub(super) fn listen(
        &mut self,
        address: SocketAddr,
        sharing: Sharing,
        backlog_max: usize,
        site: Site,
    ) -> io::Result<ListenerId> {
        let address = match address.port() {
            0 => SocketAddr::new(address.ip(), self.free_port(address)),
            _ => address,
        };
        if self.at(address).any(|(_, other)| sharing != Sharing::Shared || other.sharing == Sharing::Alone) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.made += 1;
        let id = ListenerId(self.made);
        let backlog = VecDeque::new();
        self.listening.insert(id, Listening { address, sharing, site, backlog_max, backlog, acceptor: None });
        Ok(id)
    }

    fn free_port(&mut self, address: SocketAddr) -> u16 {
        loop {
            let port = self.next_ephemeral();
            if self.at(SocketAddr::new(address.ip(), port)).next().is_none() {
                return port;
            }
        }
    }

    /// The port of a connecting side.
    pub(super) fn next_ephemeral(&mut self) -> u16 {
        let port = EPHEMERAL_FIRST + self.ephemeral_used;
        self.ephemeral_used = (self.ephemeral_used + 1) % EPHEMERAL_FIRST;
        port
    }

    /// The sockets that an address reaches.
    fn at(&self, address: SocketAddr) -> impl Iterator<Item = (ListenerId, &Listening)> {
        let reaches = move |socket: &Listening| {
            let (here, there) = (socket.address.ip(), address.ip());
            socket.address.port() == address.port()
                && (here == there || here.is_unspecified() || there.is_unspecified())
        };
        self.listening.iter().filter(move |(_, socket)| reaches(socket)).map(|(id, socket)| (*id, socket))
    }

    /// Whoever gets a connection to `address`: of several that share it, the one that the dice choose.
    pub(super) fn choose(&mut self, address: SocketAddr, dice: &mut Dice) -> Option<&mut Listening> {
        let reached: Vec<ListenerId> = self.at(address).map(|(id, _)| id).collect();
        let chosen = match reached.len() {
            0 => return None,
            1 => 0,
            several => dice.below(several),
        };
        self.listening.get_mut(&reached[chosen])
    }

    pub(super) fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listening> {
        self.listening.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: ListenerId) -> Option<Listening> {
        self.listening.remove(&id)
    }
}
