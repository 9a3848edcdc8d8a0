//! The record of a run: one hash over every event, and the latest events in words.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::cores::{CoreId, Site};
use super::disk::fault::Operation;
use super::disk::requests::RequestId;
use super::net::connection::{ConnectionId, EndId, PacketMark};
use super::net::ports::ListenerId;
use super::task::TaskId;

/// Something that happened. Two runs with equal sequences of these were the same run.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Event {
    CoreStarted { core: CoreId, site: Site, name: Rc<str> },
    CoreEnded { core: CoreId },
    Spawned { task: TaskId, core: CoreId, name: &'static str },
    Polled { task: TaskId },
    Ended { task: TaskId },
    TimerFired { timer: u64 },
    Submitted { request: RequestId, operation: Operation, path: Rc<str>, position: u64, length: u64, content: u64 },
    Completed { request: RequestId, ok: bool },
    RandomDrawn { number: u64 },
    Rung { timer: u64 },
    Listening { listener: ListenerId, address: SocketAddr },
    Connected { connection: ConnectionId, address: SocketAddr },
    Sent { from: EndId, packet: PacketMark },
    Arrived { to: EndId, packet: PacketMark },
    Killed,
    Crashed,
}

/// The trace of one simulation.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    tail: VecDeque<(Duration, Event)>,
    tail_max: usize,
}

impl Trace {
    pub(crate) fn new(tail_max: usize) -> Trace {
        Trace { hash: FNV_OFFSET, tail: VecDeque::new(), tail_max }
    }

    pub(crate) fn record(&mut self, now: Duration, event: Event) {
        let mut hasher = Fnv(self.hash);
        now.hash(&mut hasher);
        event.hash(&mut hasher);
        self.hash = hasher.finish();
        if self.tail_max > 0 {
            if self.tail.len() == self.tail_max {
                self.tail.pop_front();
            }
            self.tail.push_back((now, event));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// The latest events, oldest first, one a line.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.tail.iter().map(|(at, event)| format!("{at:>14.9?} {event:?}")).collect()
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a over words of eight bytes: the same on every run and every machine, unlike the hashers of the standard
/// library, whose algorithm may change.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // The rotation brings the high bits back down: a plain multiplication never lets them reach the low ones.
        self.0 = (self.0 ^ word).wrapping_mul(FNV_PRIME).rotate_left(29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The hash of a request's content, as the trace records it.
pub(crate) fn content_hash(bytes: &[u8]) -> u64 {
    let mut hasher = Fnv(FNV_OFFSET);
    hasher.write(bytes);
    hasher.finish()
}
