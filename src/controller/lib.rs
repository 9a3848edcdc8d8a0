//! The controller shard: cluster metadata as a sans-io state machine, and one thin driver.
//!
//! # What it holds, by module
//! | module | what |
//! |---|---|
//! | [`metadata`] | commands, state, images, settings, validation, placement: no I/O |
//! | [`directory`] | the data directory: lock, format version, ids, orphaned topics |
//! | [`error`] | one enum per operation, and the code of each case on the wire |
//!
//! # Invariants
//! - An image is published only when every command in it is durable.
//! - Commands decide everything: the same log gives the same image on any machine, with any number of shards.
//! - Files are removed only where the metadata log says that their topic was deleted.
#![forbid(unsafe_code)]

pub mod directory;
pub mod error;
mod excerpt;
pub mod metadata;
mod request;

pub use excerpt::Excerpt;
pub use request::{ControllerRequest, MetadataUpdate, Reply};
