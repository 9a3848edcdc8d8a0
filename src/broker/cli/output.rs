//! How results are printed.

use clap::{Args, ValueEnum};

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
