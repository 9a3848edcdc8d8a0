//! `ringmq run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ringmq_client::BrokerAddress;

use super::connection;
use crate::exit;

const RUN_HELP: &str = "\
The file is TOML, or JSON where its name ends in .json. It says which brokers, how long one operation may take, and one \
command with its flags by their names, as any command takes them that has --brokers:

  brokers = [\"localhost:9092\"]
  timeout = \"5s\"

  [command]
  name = \"create-topic\"
  topic = \"orders\"
  partitions = 8
  set = [\"retention_ms=3600000\"]

Without `brokers` and `timeout` the defaults hold. What `--brokers`, RINGMQ_BROKERS and `--timeout` say goes over the \
file. A flag without a value is `true`; one that may be given several times is a list; paths are as from the directory \
in which `ringmq run` is called. configs/commands has a sample of each command.

Exit codes: those of the command; 2 when the file is wrong.";

/// Flags of `ringmq run`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP, after_long_help = RUN_HELP)]
pub struct RunArgs {
    /// The file with the command.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Brokers to start from, over those of the file; one that answers is enough.
    #[arg(long, value_name = "ADDR[,ADDR]", env = "RINGMQ_BROKERS", value_delimiter = ',')]
    pub brokers: Vec<BrokerAddress>,
    /// How long one operation may take, over what the file says, such as 5s or 500ms.
    #[arg(long, value_name = "DURATION", value_parser = connection::timeout)]
    pub timeout: Option<Duration>,
}
