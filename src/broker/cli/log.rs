//! `ringmq log`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::OutputArgs;
use crate::commands::log::Detail;

/// What can be done with the files of a stopped broker.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Read everything, tell what is damaged and what the next start would do. Changes nothing.
    Check(LogCheckArgs),
    /// Print what is in a file: frames, batches, records, index entries. Changes nothing.
    Dump(LogDumpArgs),
    /// Make a partition serve again that the broker refuses because it is damaged, or a broker start with damaged metadata.
    Repair(LogRepairArgs),
}

const LOG_CHECK_HELP: &str = "\
Every frame, batch and record is read, every index, generation table and journal, and the metadata log. A torn end that \
was never acknowledged is no damage: it is told as what the next start cuts. While a broker runs on the directory, the \
command refuses.

Exit codes:
  0    everything is sound
  1    something is damaged; standard output says what, and where
  2    the command line is wrong, or the directory cannot be looked into";

/// Flags of `ringmq log check`.
#[derive(Debug, Args)]
#[command(after_help = LOG_CHECK_HELP)]
pub struct LogCheckArgs {
    /// The data directory.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Look at the partitions of this topic only [default: all]
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Look at partitions with this number only [default: all]
    #[arg(long, value_name = "N")]
    pub partition: Option<u32>,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

const LOG_DUMP_HELP: &str = "\
A segment (.log) is printed as it stands, whether its frames count or not: a line for each frame, and one for each \
stretch without any. Of a journal (.ring, .relaxed, .aside), the appends that count. With --output json, each line is an object.

Exit codes:
  0    printed, or the reader of the output went away
  2    the command line is wrong, the file cannot be read, or a broker runs on its data directory";

/// Flags of `ringmq log dump`.
#[derive(Debug, Args)]
#[command(after_help = LOG_DUMP_HELP)]
#[command(group(ArgGroup::new("detail")))]
pub struct LogDumpArgs {
    /// A .log, .index, .timeindex, .table, .producers, .ring, .relaxed or .aside file, or the directory of a partition.
    #[arg(value_name = "FILE|DIR")]
    pub path: PathBuf,
    /// A line for each frame of a segment, or append of a journal; this is the default.
    #[arg(long, group = "detail")]
    pub frames: bool,
    /// A line for each record batch.
    #[arg(long, group = "detail")]
    pub batches: bool,
    /// A line for each record, with key and value.
    #[arg(long, group = "detail")]
    pub records: bool,
    /// Begin with this offset.
    #[arg(long, value_name = "OFFSET", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    pub from: i64,
    /// End after that many lines [default: all]
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl LogDumpArgs {
    /// How much is told of a frame.
    pub(crate) fn detail(&self) -> Detail {
        match (self.batches, self.records) {
            (true, _) => Detail::Batches,
            (_, true) => Detail::Records,
            _ => Detail::Frames,
        }
    }
}

const LOG_REPAIR_HELP: &str = "\
For a partition that the broker refuses at its start because acknowledged records are damaged. Everything before the \
damage is kept, nothing behind it: offsets have no gaps. With --metadata, for the metadata log, without which no broker \
starts: all changes are kept that can be read, before the damage and behind it, and the latest snapshot. It explains what is \
damaged, kept and lost, and changes nothing without --yes. What is not kept goes to the directory `damaged` in the data \
directory; nothing is removed. Before, restore what is damaged from a copy if there is one.

Exit codes:
  0    repaired: the next start serves the partition, or starts
  2    not repaired; standard error says why";

/// Flags of `ringmq log repair`.
#[derive(Debug, Args)]
#[command(after_help = LOG_REPAIR_HELP)]
pub struct LogRepairArgs {
    /// The data directory.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The topic's name.
    #[arg(long, value_name = "TOPIC", requires = "partition", required_unless_present = "metadata")]
    pub topic: Option<String>,
    /// The partition's number [default: none; with --topic it is needed].
    #[arg(long, value_name = "N", requires = "topic")]
    pub partition: Option<u32>,
    /// The metadata log, in the place of a partition.
    #[arg(long, conflicts_with_all = ["topic", "partition"])]
    pub metadata: bool,
    /// Do it, and not only explain.
    #[arg(long)]
    pub yes: bool,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
