//! `ringmq stats`.

use clap::Args;

use super::{ConnectionArgs, OutputArgs};

const STATS_HELP: &str = "\
Of every broker of the cluster. Everything is counted from the start of the broker on. Stages of a produce: received (its bytes came), staged (checked \
and queued), durable (journal or segment written and flushed), answered. Queues, bytes in use and partitions that are \
offline are those of the moment. Errors are requests, and parts of requests, that were answered with one.

The device's figures are by what reads and writes were for; the mean is the time of one at the device:
  journal     small appends
  append      large appends, to their segments
  tail_read   reads close to the end that memory no longer holds
  checkpoint  what the journal holds, to segments
  recovery    what a start reads
  cold_read   reads of older records
  background  compaction, the search for rot, the preparation of journals

Exit codes:
  0    printed, or the reader of the output went away
  1    a broker does not answer; standard error says why
  2    the command line is wrong
  130  --watch was ended by an interrupt (Ctrl-C)";

/// Flags of `ringmq stats`.
#[derive(Debug, Args)]
#[command(after_long_help = STATS_HELP)]
pub struct StatsArgs {
    /// Print again every so many seconds, until an interrupt.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,
    /// Where the brokers are.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
