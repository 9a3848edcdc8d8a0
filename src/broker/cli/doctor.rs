//! `ringmq doctor`.

use std::path::PathBuf;

use clap::Args;

use super::OutputArgs;

const DOCTOR_HELP: &str = "\
Exit codes:
  0  nothing is lacking
  1  something is: the lines that begin with `problem` say what, and how to mend it
  2  the command line or the configuration is wrong";

/// Flags of `ringmq doctor`.
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_HELP)]
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
