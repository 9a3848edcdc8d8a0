//! The commands that talk to a broker, one file or folder each, and what they share.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a client command runs on threads and sockets of its own: there is no shard in its process"
)]

mod connection;
pub mod consume;
pub mod doctor;
mod error;
mod interrupt;
pub mod produce;
pub mod topic;

pub use connection::connect;
pub use error::CommandError;
pub use interrupt::Interrupt;
