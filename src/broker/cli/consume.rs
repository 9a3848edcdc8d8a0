//! `ringmq consume`.

use std::path::PathBuf;

use clap::Args;
use ringmq_client::{Offset, Start, Timestamp};

use super::{ConnectionArgs, OutputFormat, PartitionList, RecordFormat};
use crate::commands::consume::from;

const CONSUME_HELP: &str = "\
It ends at the end that the log had when it started, unless --follow is given. Within a partition, records come in the \
order of their offsets. A partition that is offline or damaged is named on standard error; the others are read to \
their ends, and the exit code is 1.

Format strings, such as --format '%p:%o %k=%v\\n':
  %t  topic          %k  the key's bytes      %h  headers, as key=value,key=value
  %p  partition      %v  the value's bytes    %T  timestamp, in milliseconds since 1970
  %o  offset         %%  a % sign             \\n \\r \\t \\0 \\\\ \\xHH  the byte of that name
Nothing is added, no newline either. What is null (a key, a value, the value of a header) prints as --null says.

With --format json, bytes that are not UTF-8 come as `value_base64` (`key_base64`) in place of `value` (`key`), and what \
is null is null.

With --resume, FILE is JSON with a position for each partition. It is written once a second and at the end, when the \
records before these positions have been printed: after a kill, up to a second of records is printed again, and none \
is left out. --from says where partitions begin that FILE does not have. Give each run a FILE of its own: of two that \
share one, the last to write has its way.

Exit codes:
  0    everything that was asked for was printed, or the reader of the output went away
  1    failed; standard error says why
  2    the command line is wrong
  130  ended by an interrupt (Ctrl-C)";

/// Flags of `ringmq consume`.
#[derive(Debug, Args)]
#[command(after_long_help = CONSUME_HELP)]
pub struct ConsumeArgs {
    /// The topic's name.
    pub topic: String,
    /// Read these partitions only, such as 3 or 0,2,5-7 [default: all]
    #[arg(long, value_name = "LIST")]
    pub partition: Option<PartitionList>,
    /// Where to begin: earliest, latest, an offset, or @TIME in milliseconds since 1970 or as 2025-11-22T14:00:00Z.
    #[arg(long, value_name = "earliest|latest|OFFSET|@TIME", default_value = "earliest", value_parser = from::parse)]
    pub from: Start,
    /// End before this offset, or before the first record of this time or later [default: the end of the log]
    #[arg(long, value_name = "OFFSET|@TIME", value_parser = to, conflicts_with = "follow")]
    pub to: Option<ConsumeTo>,
    /// Go on where the last `consume --resume FILE` of this topic ended, and save there how far this one comes.
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// End after this many records [default: at the end, or never with --follow]
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Go on with what is produced from now on, in partitions that are added as well.
    #[arg(long)]
    pub follow: bool,
    /// How records are printed: text (the value and a newline), json (an object a line), raw (values alone), or a format
    /// string such as '%k\t%v\n'.
    #[arg(long, value_name = "text|json|raw|STRING", default_value = "text")]
    pub format: RecordFormat,
    /// What is printed for a key or a value that is null, by text and format strings.
    #[arg(long, value_name = "TEXT", default_value = r"\N")]
    pub null: String,
    /// As --format, by the name of the flag that every command has.
    #[arg(long, value_name = "FORMAT", conflicts_with = "format")]
    pub output: Option<OutputFormat>,
    /// Where the brokers are.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

impl ConsumeArgs {
    /// How records are printed, whichever flag says it.
    pub fn record_format(&self) -> RecordFormat {
        match self.output {
            None => self.format.clone(),
            Some(OutputFormat::Text) => RecordFormat::Text,
            Some(OutputFormat::Json) => RecordFormat::Json,
        }
    }
}

/// Where `consume` ends; not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumeTo {
    /// At this offset.
    Offset(Offset),
    /// At the first record of this time or later.
    Time(Timestamp),
}

/// What `consume --to` says.
fn to(text: &str) -> Result<ConsumeTo, String> {
    match from::parse(text) {
        Ok(Start::Offset(offset)) => Ok(ConsumeTo::Offset(offset)),
        Ok(Start::Time(time)) => Ok(ConsumeTo::Time(time)),
        Err(error) if text.starts_with('@') => Err(error),
        _ => Err(format!("`{text}` is not an offset from 0 on, or @TIME")),
    }
}
