//! Load generators and the machine-limit probe: `ringmq-bench`.
//!
//! | module | what it answers |
//! |---|---|
//! | [`produce`] | how fast does a broker take records? |
//! | [`consume`] | how fast does it give them back? |
//! | [`limits`] | how fast could any broker be, on this machine, in this minute? |
//!
//! The generators share the processors with the broker that they measure, so they do as little as possible for each
//! byte: batches are encoded before the clock starts, get new numbers and a checksum, and are sent from where they are;
//! what is read is verified in the processor's cache and not kept; each connection has a thread that waits in the
//! kernel.
#![forbid(unsafe_code)]

mod arguments;
mod checker;
mod connection;
pub mod consume;
mod consumer;
mod cpu;
mod error;
pub mod limits;
mod payload;
pub mod produce;
mod producer;
mod report;
#[cfg(test)]
mod testing;
mod topic;
mod workers;

pub use arguments::{AcksArgument, Target};
pub use checker::CheckError;
pub use error::{LoadError, WorkerError};
pub use report::{Latency, Report};
pub use topic::TopicError;
