//! What a script learns from the exit code.

use std::fmt::Display;
use std::process::ExitCode;

use crate::output;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything that was asked for is done.
    Done,
    /// It failed or ended early; standard error says why.
    Failed,
    /// The command line or the configuration is wrong; nothing was done.
    Usage,
    /// A signal ended it.
    Interrupted,
}

impl Exit {
    /// The number that the process ends with.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table of exit codes, as `--help` shows it.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done
  1    failed or ended early; standard error says why
  2    the command line or the configuration is wrong; nothing was done
  130  ended by an interrupt (Ctrl-C)";

/// Says on standard error why a command failed.
pub(crate) fn report(error: &dyn Display) {
    use std::io::Write;
    // Nobody is left to tell when standard error itself is gone.
    let _ = writeln!(std::io::stderr(), "{} {error}", output::alarm("ringmq:"));
}
