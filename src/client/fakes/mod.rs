//! What the tests talk to: a peer that a test scripts byte by byte, and a broker in memory that speaks the protocol.

mod broker;
mod peer;

pub(crate) use broker::{FakeBroker, Fault};
pub(crate) use peer::{Peer, PeerConnection, encode};
