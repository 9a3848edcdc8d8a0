//! The network as a whole: connections, packets on their way, and who listens.
//!
//! It changes nothing outside of itself: what happened and who is to be woken it leaves to its owner
//! ([`Network::take_aftermath`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use super::connection::{ConnectionId, End, EndId, Packet, Side};
use super::ports::{ListenerId, Ports, Sharing};
use crate::sim::config::NetworkConfig;
use crate::sim::cores::Site;
use crate::sim::dice::{Dice, Purpose};
use crate::sim::trace::Event;

/// The network of one simulation.
pub(crate) struct Network {
    ports: Ports,
    /// Each connection's connecting end and its accepting one.
    connections: BTreeMap<ConnectionId, [End; 2]>,
    connections_made: u64,
    /// By arrival, and then by the order of sending.
    in_flight: BTreeMap<(Duration, u64), (EndId, Packet)>,
    packets_sent: u64,
    events: Vec<Event>,
    woken: Vec<Waker>,
    config: NetworkConfig,
    dice: Dice,
}

/// What becomes of a wish to connect.
pub(crate) enum Knock {
    /// The end of the one who connects.
    Connected(EndId),
    /// The listener has as many connections waiting as it may; the wish is lost, as it is on Linux.
    Lost,
}

impl Network {
    pub(crate) fn new(config: NetworkConfig, seed: u64) -> Network {
        Network {
            ports: Ports::default(),
            connections: BTreeMap::new(),
            connections_made: 0,
            in_flight: BTreeMap::new(),
            packets_sent: 0,
            events: Vec::new(),
            woken: Vec::new(),
            config,
            dice: Dice::new(seed, Purpose::Network),
        }
    }

    /// What happened since the last time, and who is to be woken for it.
    pub(crate) fn take_aftermath(&mut self) -> (Vec<Event>, Vec<Waker>) {
        (std::mem::take(&mut self.events), std::mem::take(&mut self.woken))
    }

    pub(crate) fn draw_latency(&mut self) -> Duration {
        self.dice.latency(&self.config.latency, self.config.slow_one_in)
    }

    fn end(&mut self, id: EndId) -> Option<&mut End> {
        let ends = self.connections.get_mut(&id.connection)?;
        Some(match id.side {
            Side::Connecting => &mut ends[0],
            Side::Accepting => &mut ends[1],
        })
    }
}

/// Who listens, and who connects.
impl Network {
    /// # Errors
    /// `AddrInUse`.
    pub(crate) fn listen(
        &mut self,
        address: SocketAddr,
        sharing: Sharing,
        backlog_max: usize,
        site: Site,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let listener = self.ports.listen(address, sharing, backlog_max, site)?;
        let address = self.ports.get_mut(listener).map_or(address, |socket| socket.address);
        self.events.push(Event::Listening { listener, address });
        Ok((listener, address))
    }

    /// Nobody listens there any more; connections that were not accepted are reset.
    pub(crate) fn close_listener(&mut self, now: Duration, listener: ListenerId) {
        let Some(socket) = self.ports.remove(listener) else { return };
        for waiting in socket.backlog {
            if let Some(end) = self.end(waiting).filter(|end| !end.closed) {
                end.closed = true;
                self.send(now, waiting, Packet::Reset);
                self.forget_if_closed(waiting.connection);
            }
        }
    }

    /// The wish to connect arrives at an address.
    ///
    /// # Errors
    /// `ConnectionRefused`.
    pub(crate) fn knock(&mut self, address: SocketAddr, site: Site) -> io::Result<Knock> {
        let port = self.ports.next_ephemeral();
        let Some(socket) = self.ports.choose(address, &mut self.dice) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        if socket.is_full() {
            return Ok(Knock::Lost);
        }
        self.connections_made += 1;
        let connection = ConnectionId(self.connections_made);
        socket.backlog.push_back(EndId { connection, side: Side::Accepting });
        self.woken.extend(socket.acceptor.take());
        let accepting_site = socket.site;
        let reached = SocketAddr::new(specific(address.ip()), address.port());
        let connecting = End::new(SocketAddr::new(reached.ip(), port), site, self.draw_window());
        let accepting = End::new(reached, accepting_site, self.draw_window());
        self.connections.insert(connection, [connecting, accepting]);
        self.events.push(Event::Connected { connection, address: reached });
        Ok(Knock::Connected(EndId { connection, side: Side::Connecting }))
    }

    /// Any size of the range, small ones as likely as large ones.
    fn draw_window(&mut self) -> usize {
        let (from, to) = (*self.config.window_bytes.start(), *self.config.window_bytes.end());
        let (from, to) = (from.max(1), to.max(from).max(1));
        let magnitude = from.ilog2() as usize + self.dice.below((to.ilog2() - from.ilog2()) as usize + 1);
        let size = (1 << magnitude) + self.dice.below(1 << magnitude);
        size.clamp(from, to)
    }

    pub(crate) fn poll_accept(&mut self, listener: ListenerId, cx: &mut Context<'_>) -> Poll<EndId> {
        let Some(socket) = self.ports.get_mut(listener) else { return Poll::Pending };
        match socket.backlog.pop_front() {
            Some(end) => Poll::Ready(end),
            None => {
                socket.acceptor = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The addresses of an end and of its other side.
    pub(crate) fn addresses(&mut self, id: EndId) -> Option<(SocketAddr, SocketAddr)> {
        let own = self.end(id)?.address;
        let other = self.end(id.other())?.address;
        Some((own, other))
    }
}

/// What goes through connections.
impl Network {
    pub(crate) fn poll_read(
        &mut self,
        now: Duration,
        id: EndId,
        bytes: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(end) = self.end(id) else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let readable = ready!(end.poll_readable(cx))?.min(bytes.len());
        let read = self.piece(readable);
        if read > 0 {
            if let Some(end) = self.end(id) {
                end.take(&mut bytes[..read]);
            }
            self.send(now, id, Packet::Taken(read));
        }
        Poll::Ready(Ok(read))
    }

    pub(crate) fn poll_write(
        &mut self,
        now: Duration,
        id: EndId,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(end) = self.end(id) else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let room = ready!(end.poll_writable(cx))?.min(bytes.len());
        let written = self.piece(room);
        if let Some(end) = self.end(id) {
            end.sent(written);
        }
        self.send(now, id, Packet::Bytes(bytes[..written].to_vec()));
        Poll::Ready(Ok(written))
    }

    /// How much of what could be moved at once is.
    fn piece(&mut self, most: usize) -> usize {
        let is_cut = most > 1 && self.config.cut_one_in > 0 && self.dice.chance(1, self.config.cut_one_in);
        if is_cut { 1 + self.dice.below(most - 1) } else { most }
    }

    pub(crate) fn shut(&mut self, now: Duration, id: EndId) {
        if let Some(fin) = self.end(id).and_then(End::shut) {
            self.send(now, id, fin);
        }
    }

    /// Nobody holds that end any more.
    pub(crate) fn close(&mut self, now: Duration, id: EndId) {
        let Some(end) = self.end(id).filter(|end| !end.closed) else { return };
        if let Some(last) = end.close() {
            self.send(now, id, last);
        }
        self.forget_if_closed(id.connection);
    }

    fn forget_if_closed(&mut self, connection: ConnectionId) {
        if self.connections.get(&connection).is_some_and(|ends| ends.iter().all(|end| end.closed)) {
            self.connections.remove(&connection);
        }
    }

    /// Sends a packet on its way; it overtakes none of the same end.
    fn send(&mut self, now: Duration, from: EndId, packet: Packet) {
        let arrives = now + self.draw_latency();
        let Some(end) = self.end(from) else { return };
        end.arrives_last = end.arrives_last.max(arrives);
        let arrives = end.arrives_last;
        self.events.push(Event::Sent { from, packet: packet.mark() });
        self.put_on_the_way(arrives, from.other(), packet);
    }

    fn put_on_the_way(&mut self, arrives: Duration, to: EndId, packet: Packet) {
        self.packets_sent += 1;
        self.in_flight.insert((arrives, self.packets_sent), (to, packet));
    }

    /// When the next packet arrives.
    pub(crate) fn next_arrival(&self) -> Option<Duration> {
        self.in_flight.keys().next().map(|(arrives, _)| *arrives)
    }

    /// Lets everything arrive that is due.
    pub(crate) fn deliver_due(&mut self, now: Duration) {
        while let Some(entry) = self.in_flight.first_entry().filter(|entry| entry.key().0 <= now) {
            let (to, packet) = entry.remove();
            self.events.push(Event::Arrived { to, packet: packet.mark() });
            let mut woken = std::mem::take(&mut self.woken);
            let answer = self.end(to).and_then(|end| end.arrive(packet, &mut woken));
            self.woken = woken;
            if let Some(answer) = answer {
                self.send(now, to, answer);
            }
        }
    }

    /// The machine's power goes: its ends of connections are gone without a word. Of what it sent last some is lost, and
    /// the other sides hear of it only `back_at`, when there is a machine again that knows nothing of them.
    pub(crate) fn power_lost(&mut self, back_at: Duration) {
        let mut cut = BTreeSet::new();
        for (connection, ends) in &mut self.connections {
            for (end, side) in ends.iter_mut().zip([Side::Connecting, Side::Accepting]) {
                if end.site == Site::Machine && !end.closed {
                    end.closed = true;
                    cut.insert(EndId { connection: *connection, side });
                }
            }
        }
        for gone in cut {
            self.lose_some_of_what_is_under_way_to(gone.other());
            let arrives = back_at + self.draw_latency();
            self.put_on_the_way(arrives, gone.other(), Packet::Reset);
            self.forget_if_closed(gone.connection);
        }
    }

    fn lose_some_of_what_is_under_way_to(&mut self, end: EndId) {
        let under_way: Vec<_> =
            self.in_flight.iter().filter(|(_, (to, _))| *to == end).map(|(place, _)| *place).collect();
        let arriving = self.dice.below(under_way.len() + 1);
        for place in &under_way[arriving..] {
            self.in_flight.remove(place);
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, in_flight) = (self.connections.len(), self.in_flight.len());
        f.debug_struct("Network").field("connections", &connections).field("in_flight", &in_flight).finish()
    }
}

/// An address that a socket can have; the wildcard is reached as the loopback.
fn specific(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}
