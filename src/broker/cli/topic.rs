//! `ringmq topic`.

use clap::{ArgGroup, Args, Subcommand};
use ringmq_client::{Offset, Start, Timestamp};

use super::{ConnectionArgs, OutputArgs, PartitionList};
use crate::commands::consume::from;
use crate::exit;

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create topics.
    Create(CreateTopicArgs),
    /// List all topics.
    List(ListTopicsArgs),
    /// Show the settings and partitions of topics.
    Describe(TopicNamesArgs),
    /// Change the settings of topics, or give them more partitions, while they are in use.
    Alter(AlterTopicArgs),
    /// Delete the oldest records of topics.
    Trim(TrimTopicArgs),
    /// Delete topics and their records.
    Delete(TopicNamesArgs),
}

/// The settings of a topic, for those who look for what `--set` takes.
const SETTINGS_HELP: &str = "\
Settings (`ringmq topic describe` shows a topic's, `ringmq serve --check` the defaults below [topic_defaults]; \
configs/broker.toml says what each is for, and its range):
  segment_bytes, segment_age_ms    when a segment is sealed
  batch_bytes_max                  the largest batch that is taken
  retention_ms, retention_bytes    when old records are deleted; 0 is never
  cleanup                          delete, compact, or compact,delete
  tombstone_retention_ms, compaction_dirty_percent
                                   how topics with keys are compacted
  flush_interval_ms                how late records may be on disk once they are acknowledged; 0 is not at all";

/// Flags of `topic create`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP, after_long_help = create_help())]
pub struct CreateTopicArgs {
    /// Names: 1 to 249 of letters, digits, `.`, `_` and `-`.
    #[arg(value_name = "TOPIC", required = true)]
    pub topics: Vec<String>,
    /// Number of partitions.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub partitions: u32,
    /// Number of replicas of each partition.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub replicas: u16,
    /// A setting of the topic, such as segment_bytes=268435456; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Where the brokers are.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn create_help() -> String {
    format!("{SETTINGS_HELP}\n\n{}", exit::HELP)
}

const ALTER_HELP: &str = "\
Settings hold from the next append on; what is stored stays as it is. Partitions that are added start empty. The \
partition of a key follows from their number, so most keys get another one when it changes: their older records stay \
where they are, and the order of a key's records holds within each partition, not across the two.";

/// Flags of `topic alter`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP, after_long_help = alter_help())]
#[command(group(ArgGroup::new("change").required(true).multiple(true)))]
pub struct AlterTopicArgs {
    /// Topics, by their names; several go in one call.
    #[arg(value_name = "TOPIC", required = true)]
    pub topics: Vec<String>,
    /// Give a setting a value, such as segment_bytes=268435456; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, group = "change")]
    pub set: Vec<(String, String)>,
    /// Have a setting follow the broker's default again; may be given several times.
    #[arg(long, value_name = "KEY", group = "change")]
    pub unset: Vec<String>,
    /// Number of partitions from now on; at least as many as there are [default: as many as there are]
    #[arg(long, value_name = "N", group = "change")]
    pub partitions: Option<u32>,
    /// Where the brokers are.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn alter_help() -> String {
    format!("{ALTER_HELP}\n\n{SETTINGS_HELP}\n\n{}", exit::HELP)
}

/// Up to where `topic trim` deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrimBefore {
    /// Below this offset.
    Offset(Offset),
    /// What comes before the first record of this time or later.
    Time(Timestamp),
    /// Everything.
    Latest,
}

/// What `topic trim --before` says.
fn trim_before(text: &str) -> Result<TrimBefore, String> {
    match from::parse(text) {
        Ok(Start::Offset(offset)) => Ok(TrimBefore::Offset(offset)),
        Ok(Start::Time(time)) => Ok(TrimBefore::Time(time)),
        Ok(Start::Latest) => Ok(TrimBefore::Latest),
        Ok(Start::Earliest) => Err("nothing comes before the earliest record".to_owned()),
        Err(_) if !text.starts_with('@') => Err(format!("`{text}` is not an offset from 0 on, @TIME or latest")),
        Err(error) => Err(error),
    }
}

const TRIM_HELP: &str = "\
Deleted is deleted: nobody reads these records again, also after a crash. Offsets do not change: what is left keeps \
those that it has, and new records go on where the log ends. Space is given back by whole segments. Consumers below the \
new start are told that their offset is out of range.

Standard output has one line for each partition with the offset that it begins at now, as JSON one for each topic. A \
topic or a partition that cannot be trimmed is named on standard error; the others are trimmed, and the exit code is 1.";

/// Flags of `topic trim`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP, after_long_help = trim_help())]
pub struct TrimTopicArgs {
    /// Topics, by their names; several go in one call.
    #[arg(value_name = "TOPIC", required = true)]
    pub topics: Vec<String>,
    /// Trim these partitions only, such as 3 or 0,2,5-7 [default: all]
    #[arg(long, value_name = "LIST")]
    pub partition: Option<PartitionList>,
    /// Delete what comes before it: an offset; @TIME, as milliseconds since 1970 or such as @2025-11-22T14:00:00Z, for
    /// the first record of that time or later; or latest, for everything.
    #[arg(long, value_name = "OFFSET|@TIME|latest", value_parser = trim_before)]
    pub before: TrimBefore,
    /// Where the brokers are.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn trim_help() -> String {
    format!("{TRIM_HELP}\n\n{}", exit::HELP)
}

/// Flags of `topic list`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub struct ListTopicsArgs {
    /// Where the brokers are.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `topic describe` and `topic delete`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub struct TopicNamesArgs {
    /// Topics, by their names; several go in one call.
    #[arg(value_name = "TOPIC", required = true)]
    pub topics: Vec<String>,
    /// Where the brokers are.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("`{text}` is not KEY=VALUE, such as segment_bytes=268435456")),
    }
}
