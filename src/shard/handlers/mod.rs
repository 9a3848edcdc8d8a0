//! One file per request type, each with both sides of its work: what the shard that a client reached does, and what the
//! shard that owns the partitions does for another one.

pub(crate) mod alter_topics;
pub(crate) mod create_topics;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
pub(crate) mod describe_cluster;
pub(crate) mod describe_topics;
pub(crate) mod discover_controller;
pub(crate) mod fetch;
pub(crate) mod init_producer_id;
pub(crate) mod list_offsets;
pub(crate) mod list_topics;
pub(crate) mod metadata;
pub(crate) mod one_by_one;
pub(crate) mod produce;
pub(crate) mod stats;
