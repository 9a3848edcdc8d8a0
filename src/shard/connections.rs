//! The open connections of a shard: how many there may be, which of them are ended, and how all end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringmq_runtime::random::Map;
use ringmq_runtime::task::{Gate, GatePass};
use ringmq_runtime::time::{self, Instant};

use crate::limits::Limits;
use crate::server::Shard;
use crate::session::Session;
use crate::stats::Counter;
use crate::throttle::Throttle;

/// The open connections of a shard.
pub(crate) struct Connections {
    gate: Gate,
    open: RefCell<Map<u64, Rc<Session>>>,
    next: Cell<u64>,
    refused_log: Throttle,
}

/// A connection's place among the open ones, until it is dropped.
pub(crate) struct Registered {
    shard: Rc<Shard>,
    number: u64,
    _pass: GatePass,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shard.connections.open.borrow_mut().remove(&self.number);
    }
}

impl Connections {
    pub(crate) fn new() -> Self {
        let refused_log = Throttle::new(Duration::from_secs(10));
        Self { gate: Gate::new(), open: RefCell::default(), next: Cell::new(0), refused_log }
    }

    /// Counts a connection; `None` when there are as many as there may be, or the shard stops.
    pub(crate) fn register(&self, session: &Rc<Session>) -> Option<Registered> {
        let pass = self.gate.enter().ok()?;
        let mut open = self.open.borrow_mut();
        let connections_max = session.shard.config.limits.connections_max;
        if open.len() >= connections_max {
            if let Some(held_back) = self.refused_log.pass() {
                tracing::warn!(
                    peer = %session.peer, connections_max, held_back,
                    "a connection was closed: the shard has as many as it may; raise shard_connections_max, or have \
                     programs share theirs"
                );
            }
            return None;
        }
        let number = self.next.replace(self.next.get() + 1);
        open.insert(number, session.clone());
        session.shard.stats.add(Counter::Connections, 1);
        Some(Registered { shard: session.shard.clone(), number, _pass: pass })
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.open.borrow().len()
    }

    /// Ends the connections whose peers are too slow or too quiet.
    pub(crate) fn end_overdue(&self, now: Instant, limits: &Limits) {
        for session in self.open.borrow().values() {
            if let Some(reason) = session.overdue(now, limits) {
                tracing::info!(peer = %session.peer, reason, "connection closed");
                session.shard.stats.add(Counter::ConnectionFaults, 1);
                session.kill();
            }
        }
    }

    /// Reads nothing more, answers what was read, and closes every connection. A peer that does not take its answers
    /// within `drain_max` goes without them; a request that does not end within as long again is left behind.
    pub(crate) async fn drain(&self, drain_max: Duration) {
        let closed = self.gate.close();
        self.open.borrow().values().for_each(|session| session.stop_reading());
        if time::timeout(drain_max, closed).await.is_ok() {
            return;
        }
        tracing::warn!(connections = self.gate.running(), "peers do not take their last responses; closing them");
        self.open.borrow().values().for_each(|session| session.kill());
        if time::timeout(drain_max, self.gate.close()).await.is_err() {
            let connections = self.gate.running();
            tracing::warn!(connections, "requests do not end; stopping without their answers");
        }
    }
}
