//! What can be typed: every command, flag and default of `ringmq`, a file for each command.

use clap::{Parser, Subcommand};

use crate::exit;

mod cluster;
mod command_file;
mod connection;
mod consume;
mod demo;
mod doctor;
mod documents;
mod log;
mod output;
mod partitions;
mod produce;
mod record_format;
mod serve;
mod stats;
mod topic;

pub use cluster::{ClusterCommand, DescribeClusterArgs};
pub use command_file::RunArgs;
pub use connection::ConnectionArgs;
pub use consume::{ConsumeArgs, ConsumeTo};
pub use demo::DemoArgs;
pub use doctor::DoctorArgs;
pub use documents::{CompletionsArgs, ManArgs};
pub use log::{LogCheckArgs, LogCommand, LogDumpArgs, LogRepairArgs};
pub use output::{OutputArgs, OutputFormat};
pub use partitions::PartitionList;
pub use produce::{Codec, ProduceArgs};
pub use record_format::{EscapedText, Part, RecordFormat, Template};
pub use serve::ServeArgs;
pub use stats::StatsArgs;
pub use topic::{
    AlterTopicArgs, CreateTopicArgs, ListTopicsArgs, TopicCommand, TopicNamesArgs, TrimBefore, TrimTopicArgs,
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
    /// Show the brokers, their shards, and what each owns.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Show what each shard of a broker has done, and how long it took.
    Stats(StatsArgs),
    /// Do what a file says: a command, where the brokers are, and how long it may take.
    Run(RunArgs),
    /// Show in a minute what a broker does: a file goes through one that is killed on the way.
    Demo(DemoArgs),
    /// Look into the data directory of a stopped broker, and mend it.
    #[command(subcommand)]
    Log(LogCommand),
    /// Tell what this machine lacks for a broker, and how to mend it.
    Doctor(DoctorArgs),
    /// Print a script that has a shell complete commands and flags.
    Completions(CompletionsArgs),
    /// Print the manual page of a command, or write those of all.
    Man(ManArgs),
    /// The reference's name for `topic create`.
    #[command(hide = true)]
    CreateTopic(CreateTopicArgs),
    /// The reference's name for `topic list`.
    #[command(hide = true)]
    ListTopics(ListTopicsArgs),
    /// The reference's name for `topic describe`.
    #[command(hide = true)]
    DescribeTopic(TopicNamesArgs),
    /// The reference's name for `topic delete`.
    #[command(hide = true)]
    DeleteTopic(TopicNamesArgs),
}
