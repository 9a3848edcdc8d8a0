//! `ringmq produce`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ringmq_client::Compression;

use super::{ConnectionArgs, EscapedText, OutputArgs};

const PRODUCE_HELP: &str = "\
A record is the bytes of one line, unchanged and without its newline; an empty line is an empty record, and a last \
line without newline counts. The topic must exist. Records with the same key go to the same partition in the order of \
the input; records without a key are spread over all partitions.

A record whose value is null deletes its key in a compacted topic. What `consume --format '%k\\t%v\\n'` prints, \
`produce --key-separator '\\t' --null '\\N'` takes, null or not, as long as no key or value has a tab or a newline in it, \
or is `\\N` itself.

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
    /// Send everything to this partition [default: as the key says, or all in turn]
    #[arg(long, value_name = "N")]
    pub partition: Option<u32>,
    /// The key of every record [default: none]
    #[arg(long, value_name = "KEY", conflicts_with = "key_separator")]
    pub key: Option<String>,
    /// Split each line at the first of these, such as : or '\t': what is before it is the key, what is behind it the value.
    #[arg(long, value_name = "SEPARATOR", value_parser = separator)]
    pub key_separator: Option<EscapedText>,
    /// A header of every record; without `=`, its value is null. May be given several times.
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = header)]
    pub headers: Vec<(String, Option<String>)>,
    /// Send a value, or a key, that is exactly this text as null, such as '\N' [default: nothing is null]
    #[arg(long, value_name = "TEXT")]
    pub null: Option<String>,
    /// How batches are compressed, by this command; they are stored and read as they are sent.
    #[arg(long, value_name = "CODEC", default_value = "none")]
    pub compression: Codec,
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

/// How `produce` compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip: small and slow.
    Gzip,
    /// Snappy, in the framing of Kafka's clients: fast.
    Snappy,
    /// The LZ4 frame format: fast.
    Lz4,
    /// Zstandard: small, and faster than gzip.
    Zstd,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Gzip => Self::Gzip,
            Codec::Snappy => Self::Snappy,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd,
        }
    }
}

/// What `produce --key-separator` says.
fn separator(text: &str) -> Result<EscapedText, String> {
    let separator: EscapedText = text.parse()?;
    if separator.as_bytes().is_empty() { Err("nothing separates nothing".to_owned()) } else { Ok(separator) }
}

/// What `produce --header` says.
fn header(text: &str) -> Result<(String, Option<String>), String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.is_empty() {
        return Err(format!("`{text}` has no key; write KEY=VALUE, or KEY for a value that is null"));
    }
    Ok((key.to_owned(), value))
}
