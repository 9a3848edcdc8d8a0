//! The controller shard: cluster metadata as a sans-io state machine, and one thin driver.
//!
//! # From a request to an answer
//! [`run`] is the whole of it: one executor, one change at a time. A [`ControllerRequest`] is checked against the
//! current [`metadata::Image`] and becomes commands ([`metadata::plan_creates`], [`metadata::plan_alterations`], [`metadata::plan_deletes`]); the
//! commands go to the metadata log as one batch; once durable they are applied ([`metadata::State::apply`]); the new
//! image goes to every shard ([`MetadataUpdate`]); when all have applied it, the caller gets its answer. So a topic that
//! was created can be used on any connection at once, and one that was deleted is gone on all of them.
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
//! - A snapshot saves work, and is never the only copy: a start without any comes to the same image.
//! - Files are removed only where the metadata log says that their topic was deleted.
#![forbid(unsafe_code)]

pub mod directory;
mod driver;
pub mod error;
mod excerpt;
mod log;
pub mod metadata;
mod publisher;
mod repair;
mod request;
#[cfg(test)]
mod seeded_bugs;
mod snapshots;

pub use driver::{ControllerConfig, run};
pub use error::ControllerError;
pub use excerpt::Excerpt;
pub use log::{InspectedMetadata, MetadataLogError, ReplayError, inspect_metadata};
pub use repair::{KeptTopic, MetadataRepair, MetadataUnrepairable};
pub use request::{ControllerRequest, MetadataUpdate, Reply};
