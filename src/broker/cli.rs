//! What can be typed: every command, flag and default of `ringmq`, a file for each command.

use clap::{Parser, Subcommand};

use crate::exit;

mod connection;
mod consume;
mod doctor;
mod log;
mod output;
mod partitions;
mod produce;
mod record_format;
mod serve;
mod stats;
mod topic;

pub use connection::ConnectionArgs;
pub use consume::{ConsumeArgs, ConsumeTo};
pub use doctor::DoctorArgs;
pub use log::{LogCheckArgs, LogCommand, LogDumpArgs, LogRepairArgs};
pub use output::{OutputArgs, OutputFormat};
pub use partitions::PartitionList;
pub use produce::{Codec, ProduceArgs};
pub use record_format::{EscapedText, Part, RecordFormat, Template};
pub use serve::ServeArgs;
pub use stats::StatsArgs;
pub use topic::{
    AlterTopicArgs, CreateTopicArgs, ListTopicsArgs, TopicCommand, TopicNameArgs, TrimBefore, TrimTopicArgs,
};

/// `0.2.0 (commit 0123456789ab)`; the commit is `unknown` in a build outside of a clone.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("RINGMQ_COMMIT"), ")");

/// A message queue on io_uring: one pinned thread a core, data on disk when it is acknowledged.
#[derive(Debug, Parser)]
#[command(name = "ringmq", version = VERSION, after_help = exit::HELP, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a broker.
    Serve(ServeArgs),
    /// Create, list, describe, alter and delete topics.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Send the lines of a file, one record a line.
    Produce(ProduceArgs),
    /// Print the records of a topic.
    Consume(ConsumeArgs),
    /// Show what each shard of a broker has done, and how long it took.
    Stats(StatsArgs),
    /// Look into the data directory of a stopped broker, and mend it.
    #[command(subcommand)]
    Log(LogCommand),
    /// Tell what this machine lacks for a broker, and how to mend it.
    Doctor(DoctorArgs),
    /// The reference's name for `topic create`.
    #[command(hide = true)]
    CreateTopic(CreateTopicArgs),
    /// The reference's name for `topic list`.
    #[command(hide = true)]
    ListTopics(ListTopicsArgs),
    /// The reference's name for `topic describe`.
    #[command(hide = true)]
    DescribeTopic(TopicNameArgs),
    /// The reference's name for `topic delete`.
    #[command(hide = true)]
    DeleteTopic(TopicNameArgs),
}
