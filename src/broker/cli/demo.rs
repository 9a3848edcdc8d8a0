//! `ringmq demo`.

use std::path::PathBuf;

use clap::Args;

const DEMO_HELP: &str = "\
It starts a broker of its own in a new directory, on a port that is free, sends FILE through it line by line, kills the \
broker the hard way (SIGKILL), starts it again, reads everything back and compares. It says what happens at each step, and \
leaves nothing behind, unless it is killed that way itself.

Exit codes:
  0    every byte came back
  1    something failed; standard error says what
  2    the command line is wrong
  130  ended by an interrupt (Ctrl-C); the broker is stopped and its directory removed";

/// Flags of `ringmq demo`.
#[derive(Debug, Args)]
#[command(after_help = DEMO_HELP)]
pub struct DemoArgs {
    /// The file to send, of at most 64 MiB [default: the README of this program]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Make the broker's directory in this one [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the broker's directory there, to look into it.
    #[arg(long)]
    pub keep: bool,
}
