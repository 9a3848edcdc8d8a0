//! The simulated network: every address is reachable from everywhere, and the dice say how fast and in which pieces.

pub(crate) mod connection;
pub(crate) mod network;
pub(crate) mod ports;
pub(crate) mod stream;
