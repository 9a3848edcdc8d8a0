//! `ringmq serve`.

use std::path::PathBuf;

use clap::Args;

use crate::config::values::{Advertise, Cores, Listen, LogFormat, LogLevel};

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
