//! `ringmq produce`.

use std::path::PathBuf;

use clap::Args;

use super::{ConnectionArgs, OutputArgs};

const PRODUCE_HELP: &str = "\
A record is the bytes of one line, unchanged and without its newline; an empty line is an empty record, and a last \
line without newline counts. The topic must exist. Records with the same key go to the same partition in the order of \
the input; records without a key are spread over all partitions.

When it ends, also when it ends early, standard output has one line for each partition with the first offset, the last \
offset and the count of what was acknowledged. Progress goes to standard error.

Exit codes:
  0    every record was acknowledged
  1    ended early; standard error says where, standard output what was acknowledged
  2    the command line is wrong; nothing was sent
  130  ended by an interrupt (Ctrl-C); standard output says what was acknowledged";

/// Flags of `ringmq produce`.
#[derive(Debug, Args)]
#[command(after_long_help = PRODUCE_HELP)]
pub struct ProduceArgs {
    /// The topic; it must exist.
    pub topic: String,
    /// Send everything to this partition.
    #[arg(long, value_name = "N")]
    pub partition: Option<u32>,
    /// The key of every record.
    #[arg(long, value_name = "KEY", conflicts_with = "key_separator")]
    pub key: Option<String>,
    /// Split each line at the first of these: what is before it is the key, what is behind it the value.
    #[arg(long, value_name = "SEPARATOR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub key_separator: Option<String>,
    /// Send this text instead of a file's lines.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["file", "key_separator"])]
    pub message: Option<String>,
    /// How many times to send the message.
    #[arg(long, value_name = "N", requires = "message", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,
    /// The file to read; `-` is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// Where the brokers are.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
