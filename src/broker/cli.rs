//! What can be typed: every command, flag and default of `ringmq`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use ringmq_client::{BrokerAddress, Offset, Start, Timestamp};

use crate::commands::consume::from;
use crate::commands::log::Detail;
use crate::config::values::{Advertise, Cores, Listen, LogFormat, LogLevel};
use crate::exit;

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
    #[command(after_long_help = PRODUCE_HELP)]
    Produce(ProduceArgs),
    /// Print the records of a topic.
    #[command(after_long_help = CONSUME_HELP)]
    Consume(ConsumeArgs),
    /// Show what each shard of a broker has done, and how long it took.
    #[command(after_long_help = STATS_HELP)]
    Stats(StatsArgs),
    /// Look into the data directory of a stopped broker, and mend it.
    #[command(subcommand)]
    Log(LogCommand),
    /// Tell what this machine lacks for a broker, and how to mend it.
    #[command(after_help = DOCTOR_HELP)]
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

// A paragraph is one line: it is wrapped to the terminal's width.
const SERVE_HELP: &str = "\
Signals:
  SIGTERM, SIGINT  stop: answer what was read, flush, close the logs; a second one, half a second later or more, ends at once
  SIGUSR1          log each shard's requests, the time that each of their stages took, and its stalls

Exit codes:
  0    stopped by a signal, cleanly
  1    could not start, or stopped by itself; standard error says why
  2    the command line or the configuration is wrong; nothing was done
  130  ended by a second signal, before the stop was clean";

/// Flags of `ringmq serve`; each goes over the same key of the file.
#[derive(Debug, Args)]
#[command(after_help = SERVE_HELP)]
pub struct ServeArgs {
    /// Configuration file (TOML). Without one, every key has its default.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address to listen on; port 0 lets the kernel choose [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<Listen>,
    /// Address that clients are told to use [default: the one that each client reached]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub advertise: Option<Advertise>,
    /// Directory that holds all data [default: ./ringmq-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// CPUs to run on: `all` that the process may use, or a list such as 0,2-3 [default: all]
    #[arg(long, value_name = "all|LIST")]
    pub cores: Option<Cores>,
    /// How much to log on standard error [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// How log lines look [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Validate the configuration, print what would be in force, and exit.
    #[arg(long)]
    pub check: bool,
}

/// Where the brokers are; part of every command that talks to one.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArgs {
    /// Brokers to start from; one that answers is enough.
    #[arg(
        long,
        value_name = "ADDR[,ADDR]",
        env = "RINGMQ_BROKERS",
        value_delimiter = ',',
        default_value = "localhost:9092"
    )]
    pub brokers: Vec<BrokerAddress>,
    /// How long one operation may take, such as 5s or 500ms; attempts that may help are repeated until then.
    #[arg(long, value_name = "DURATION", value_parser = timeout, default_value = "5s")]
    pub timeout: Duration,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

/// The format of results on standard output.
#[derive(Debug, Clone, Args)]
pub struct OutputArgs {
    /// How results are printed.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic.
    Create(CreateTopicArgs),
    /// List all topics.
    List(ListTopicsArgs),
    /// Show a topic's settings and partitions.
    Describe(TopicNameArgs),
    /// Change a topic's settings, or give it more partitions, while it is in use.
    Alter(AlterTopicArgs),
    /// Delete a topic's oldest records.
    Trim(TrimTopicArgs),
    /// Delete a topic and its records.
    Delete(TopicNameArgs),
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
    /// Name: 1 to 249 of letters, digits, `.`, `_` and `-`.
    pub name: String,
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
where they are, and the order of a key's records holds within each partition, not across the two. A `consume` that is \
running reads the partitions that there were when it started.";

/// Flags of `topic alter`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP, after_long_help = alter_help())]
#[command(group(ArgGroup::new("change").required(true).multiple(true)))]
pub struct AlterTopicArgs {
    /// The topic.
    pub name: String,
    /// Give a setting a value, such as segment_bytes=268435456; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, group = "change")]
    pub set: Vec<(String, String)>,
    /// Have a setting follow the broker's default again; may be given several times.
    #[arg(long, value_name = "KEY", group = "change")]
    pub unset: Vec<String>,
    /// Number of partitions from now on; at least as many as there are.
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

Standard output has one line for each partition with the offset that it begins at now. A partition that cannot be \
trimmed is named on standard error; the others are trimmed, and the exit code is 1.";

/// Flags of `topic trim`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP, after_long_help = trim_help())]
pub struct TrimTopicArgs {
    /// The topic.
    pub name: String,
    /// Only this partition; all of them without it.
    #[arg(long, value_name = "N")]
    pub partition: Option<u32>,
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
pub struct TopicNameArgs {
    /// The topic.
    pub name: String,
    /// Where the brokers are.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

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

/// How `consume` prints records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordFormat {
    /// The value's bytes and a newline.
    Text,
    /// One JSON object a line, with key, value, headers, timestamp, partition and offset.
    Json,
    /// The values' bytes, nothing between them.
    Raw,
}

const CONSUME_HELP: &str = "\
It ends at the end that the log had when it started, unless --follow is given. Within a partition, records come in the \
order of their offsets. A partition that is offline or damaged is named on standard error; the others are read to \
their ends, and the exit code is 1.

With --format json, bytes that are not UTF-8 come as `value_base64` (`key_base64`) in place of `value` (`key`).

Exit codes:
  0    everything that was asked for was printed, or the reader of the output went away
  1    failed; standard error says why
  2    the command line is wrong
  130  ended by an interrupt (Ctrl-C)";

/// Flags of `ringmq consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// The topic.
    pub topic: String,
    /// Read this partition only.
    #[arg(long, value_name = "N")]
    pub partition: Option<u32>,
    /// Where to begin: earliest, latest, an offset, or @TIME in milliseconds since 1970 or as 2025-11-22T14:00:00Z.
    #[arg(long, value_name = "earliest|latest|OFFSET|@TIME", default_value = "earliest", value_parser = from::parse)]
    pub from: Start,
    /// End after this many records.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Go on with what is produced from now on.
    #[arg(long)]
    pub follow: bool,
    /// How records are printed.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: RecordFormat,
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
            None => self.format,
            Some(OutputFormat::Text) => RecordFormat::Text,
            Some(OutputFormat::Json) => RecordFormat::Json,
        }
    }
}

const STATS_HELP: &str = "\
Everything is counted from the start of the broker on. Stages of a produce: received (its bytes came), staged (checked \
and queued), durable (journal or segment written and flushed), answered. Queues, bytes in use and partitions that are \
offline are those of the moment. Errors are requests, and parts of requests, that were answered with one.

The device's figures are by what reads and writes were for; the mean is the time of one at the device:
  journal     small appends
  append      large appends, to their segments
  tail_read   reads close to the end that memory no longer holds
  checkpoint  what the journal holds, to segments
  cold_read   reads of older records, and what a start reads
  background  compaction, the search for rot, the preparation of journals

Exit codes:
  0    printed, or the reader of the output went away
  1    no broker answers; standard error says why
  2    the command line is wrong
  130  --watch was ended by an interrupt (Ctrl-C)";

/// Flags of `ringmq stats`.
#[derive(Debug, Args)]
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

/// What can be done with the files of a stopped broker.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Read everything, tell what is damaged and what the next start would do. Changes nothing.
    Check(LogCheckArgs),
    /// Print what is in a file: frames, batches, records, index entries. Changes nothing.
    Dump(LogDumpArgs),
    /// Make a partition serve again that the broker refuses because it is damaged.
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
    /// Look at the partitions of this topic only.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Look at partitions with this number only.
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
    /// End after that many lines.
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
damage is kept, nothing behind it: offsets have no gaps. It explains what is damaged, kept and lost, and changes nothing \
without --yes. What is not kept goes to the directory `damaged` in the data directory; nothing is removed. Before, \
restore the partition from a copy if there is one.

Exit codes:
  0    repaired: the next start serves the partition
  2    not repaired; standard error says why";

/// Flags of `ringmq log repair`.
#[derive(Debug, Args)]
#[command(after_help = LOG_REPAIR_HELP)]
pub struct LogRepairArgs {
    /// The data directory.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The topic.
    #[arg(long, value_name = "TOPIC")]
    pub topic: String,
    /// The partition.
    #[arg(long, value_name = "N")]
    pub partition: u32,
    /// Do it, and not only explain.
    #[arg(long)]
    pub yes: bool,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

const DOCTOR_HELP: &str = "\
Exit codes:
  0  nothing is lacking
  1  something is: the lines that begin with `problem` say what, and how to mend it
  2  the command line or the configuration is wrong";

/// Flags of `ringmq doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Configuration file of the broker to be [default: none, every key has its default]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory that is to hold the data [default: ./ringmq-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The longest time-out that makes sense: a longer one is a typing error.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

fn timeout(text: &str) -> Result<Duration, String> {
    let wanted = || format!("`{text}` is not a duration from 1ms to 24h, such as 5s, 500ms or 1m30s");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wanted())?;
    let duration = Duration::try_from(duration).map_err(|_| wanted())?;
    if (Duration::from_millis(1)..=TIMEOUT_MAX).contains(&duration) { Ok(duration) } else { Err(wanted()) }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("`{text}` is not KEY=VALUE, such as segment_bytes=268435456")),
    }
}
