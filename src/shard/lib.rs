//! One core's server: its partitions, listener, connections, request handlers, and the mailbox to the other cores.
//!
//! # One core, one shard
//! [`Shard::run`] is the whole of it: one executor that owns its partitions, accepts on its own port and on the one
//! that all shards share, and works on its requests without ever touching what another shard owns. What lands on the
//! wrong shard goes through the mailbox, one message a shard and request.
//!
//! # The walk of a produce
//! `connection.rs` waits for room and reads which request it is; `handlers/produce.rs` reads its head, receives each section
//! to where it is used (a large one for a partition of this shard straight into what is written), stages it and leaves a
//! task behind; `partition.rs` checks the batches and gives them to the log, without waiting for anything; when the log
//! says that they are durable, the task puts the answer into the `outbox.rs`. A fetch is as short: `handlers/fetch.rs` waits until
//! there is enough, and the outbox sends the records from where they lie.
//!
//! # What is where
//! | file | its one reason to change |
//! |---|---|
//! | `server.rs` | how a shard starts and stops |
//! | `connection.rs`, `session.rs` | the life of one connection; what its reader and its handlers share |
//! | `connections.rs` | how many there are, and how they end |
//! | `frame_reader.rs`, `outbox.rs` | bytes in, bytes out |
//! | `handlers/` | one request type each |
//! | `split.rs`, `mailbox.rs`, `reply_bytes.rs` | cutting requests by owner; the door between shards; bounds on what comes back |
//! | `directory.rs`, `topics.rs`, `placement.rs` | the applied metadata; applying it; describing it |
//! | `storage/` | what the logs of a core share: its journal, the recovery of both |
//! | `partition.rs` | what a partition takes and how it fails |
//! | `limits.rs`, `room.rs` | every bound; who gets what is bounded |
//! | `retention.rs` | deleting what is too old or too much |
//! | `compaction.rs` | compacting the partitions whose topics ask for it |
//! | `stats.rs`, `upkeep.rs`, `error.rs`, `throttle.rs`, `turns.rs` | counts, deadlines, codes, log lines, giving way |
//!
//! # Invariants
//! - Nothing is shared between shards but messages, and the counts of answers in flight.
//! - Every queue is bounded; a socket is not read while its connection or shard has no room.
//! - Requests of one connection for one partition are staged in the order in which they were sent.
//! - What a shard has read it answers, unless its peer does not take the answer.
#![forbid(unsafe_code)]

mod compaction;
mod config;
mod connection;
mod connections;
mod directory;
mod error;
mod frame_reader;
mod handlers;
pub mod inspect;
mod limits;
mod links;
mod mailbox;
mod outbox;
mod partition;
mod placement;
mod producer_ids;
mod reply_bytes;
mod retention;
mod room;
mod scrub;
mod server;
mod session;
mod split;
mod statistics;
mod stats;
mod storage;
mod throttle;
mod topics;
mod turns;
mod upkeep;

pub use compaction::CompactionSettings;
pub use config::{Advertise, ShardConfig};
pub use limits::{Limits, LimitsError};
pub use links::{Roster, RosterEntry, ShardLinks, Started, Wiring};
pub use mailbox::Mailboxes;
pub use scrub::ScrubSettings;
pub use server::{Shard, ShardError};
pub use stats::{Counter, Latencies, Stage, StatsSnapshot};
pub use storage::{JournalSettings, RecoveryError};

pub use ringmq_journal::JournalConfig;
pub use ringmq_segment::{LogConfig, OpenSegments};
