//! `ringmq cluster`.

use clap::{Args, Subcommand};

use super::{ConnectionArgs, OutputArgs};
use crate::exit;

/// What can be done with the cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show the controller leader, the brokers, their shards, and which partitions each shard owns.
    Describe(DescribeClusterArgs),
}

/// Flags of `cluster describe`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub struct DescribeClusterArgs {
    /// Where the brokers are.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
