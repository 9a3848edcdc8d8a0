//! The cluster's metadata as a state machine: commands go in, images come out. No I/O, no clock, no randomness.
//!
//! | file | its one reason to change |
//! |---|---|
//! | `command.rs` | what the metadata log's records look like |
//! | `state.rs` | what a command does |
//! | `image.rs` | what the rest of the broker sees of it |
//! | `validate.rs` | which requests become commands |
//! | `settings.rs` | which settings topics have |
//! | `placement.rs` | which shard owns a partition |
//! | `snapshot.rs` | what a whole image looks like in a file |

#[cfg(test)]
pub(crate) mod arbitrary;
mod command;
mod image;
mod placement;
mod settings;
mod snapshot;
mod state;
mod validate;

pub use command::{ALTERATION_BYTES_MAX, COMMAND_BYTES_MAX, Command, CommandError};
pub use image::{Cluster, DELETED_TOPICS_MAX, DeletedTopics, Image, Topic};
pub use placement::{Slot, SlotRun, SlotRuns, shard_of};
pub use settings::{Cleanup, SettingChoices, SettingError, SettingKey, TopicSettings};
pub use snapshot::{SNAPSHOT_BYTES_MAX, SnapshotEncoder, SnapshotError, decode_snapshot};
pub use state::{ApplyError, Effect, State};
pub use validate::{AlterPlan, CreatePlan, DeletePlan, plan_alterations, plan_creates, plan_deletes};

/// The most partitions that one topic may have.
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 10_000;
/// The most partitions that all topics together may have: each costs memory on its shard even when nobody uses it.
pub const PARTITIONS_TOTAL_MAX: u32 = 100_000;
/// The most topics that one request may create, alter or delete, so that its commands fit one frame of the metadata log.
pub const TOPICS_PER_REQUEST_MAX: usize = 2_000;
/// The most commands that one topic of a request becomes: one for its settings and one for its partitions.
pub const COMMANDS_PER_TOPIC_MAX: usize = 2;
