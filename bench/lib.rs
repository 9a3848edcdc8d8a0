//! Load generators and the machine-limit probe: `ringmq-bench`.
//!
//! | module | what it answers |
//! |---|---|
//! | [`produce`] | how fast does a broker take records? |
//! | [`consume`] | how fast does it give them back? |
//! | [`end_to_end`] | how long are records on their way, at a constant rate? |
//! | [`mixed`] | what does the drain of a backlog do to that? |
//! | [`scenario`] | several of these, out of a file |
//! | [`results`] | several of these, compared on a page |
//! | [`discover`] | how long does it take to find the controller? |
//! | [`limits`] | how fast could any broker be, on this machine, in this minute? |
//!
//! The generators share the processors with the broker that they measure, so they do as little as possible for each
//! byte: batches are encoded before the clock starts, get new numbers and a checksum, and are sent from where they are;
//! what is read is verified in the processor's cache and not kept; each connection has a thread that waits in the
//! kernel.
#![forbid(unsafe_code)]

mod arguments;
mod checker;
mod client;
mod connection;
pub mod consume;
mod consumer;
pub mod discover;
mod driver;
pub mod end_to_end;
mod enqueue;
mod error;
mod fetcher;
mod flow;
mod html;
mod json;
mod keys;
mod latency;
pub mod limits;
mod load;
mod meter;
pub mod mixed;
mod pace;
mod payload;
mod process;
pub mod produce;
mod producer;
mod report;
pub mod results;
pub mod scenario;
mod source;
mod span;
mod stamp;
mod subscriber;
mod tail;
#[cfg(test)]
mod testing;
mod topic;
mod verb;
mod volume;
mod workers;

pub use arguments::{AcksArgument, Target};
pub use checker::CheckError;
pub use client::ClientError;
pub use driver::DriverArgument;
pub use error::{LoadError, WorkerError};
pub use flow::Receiving;
pub use keys::KeyDistribution;
pub use latency::{Latency, Percentile};
pub use load::Load;
pub use meter::Sample;
pub use pace::{Extent, Rate};
pub use report::Report;
pub use source::By;
pub use topic::TopicError;
pub use verb::Verb;

/// As `ringmq --version` has it: a figure belongs to a commit.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("RINGMQ_COMMIT"), ")");
