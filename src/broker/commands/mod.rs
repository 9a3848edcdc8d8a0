//! The commands, one file or folder each, and what they share: those that talk to a broker, and those that look at the
//! machine or at a stopped broker's files.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a client command runs on threads and sockets of its own: there is no shard in its process"
)]

pub(crate) mod cluster;
pub(crate) mod command_file;
mod connection;
pub(crate) mod consume;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod documents;
mod error;
mod interrupt;
pub(crate) mod log;
pub(crate) mod produce;
mod progress;
pub(crate) mod stats;
pub(crate) mod topic;

pub(crate) use connection::connect;
pub(crate) use error::CommandError;
pub(crate) use interrupt::Interrupt;
