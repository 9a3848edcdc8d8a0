//! `ringmq completions` and `ringmq man`: what shells and readers get from the same definitions.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use crate::exit;

const COMPLETIONS_HELP: &str = "\
To have them in every new shell:
  bash  ringmq completions bash > ~/.local/share/bash-completion/completions/ringmq
  zsh   ringmq completions zsh > DIR/_ringmq, where DIR is in $fpath
  fish  ringmq completions fish > ~/.config/fish/completions/ringmq.fish";

/// Flags of `ringmq completions`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP, after_long_help = completions_help())]
pub struct CompletionsArgs {
    /// The shell that is to complete commands and flags.
    pub shell: Shell,
}

fn completions_help() -> String {
    format!("{COMPLETIONS_HELP}\n\n{}", exit::HELP)
}

/// Flags of `ringmq man`.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub struct ManArgs {
    /// The command whose page is printed, such as `topic create` [default: ringmq itself]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub command: Vec<String>,
    /// Write the pages of all commands into this directory instead; it is made where it is missing.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
