//! Why a command failed as a whole, and the exit code that goes with it.

use std::io;

use ringmq_client::{Error, ErrorCode};
use thiserror::Error as ThisError;

use super::documents::ManError;
use crate::config::ConfigError;
use crate::exit::Exit;

/// Why a command failed.
#[derive(Debug, ThisError)]
pub(crate) enum CommandError {
    /// A broker refused, or none could be asked.
    #[error(transparent)]
    Client(#[from] Error),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The topic has no such partition.
    #[error(
        "topic `{topic}` has no partition {partition}: its {partitions} partitions are numbered from 0; name one of these"
    )]
    NoSuchPartition {
        /// The topic.
        topic: String,
        /// What was asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// The input of `produce` cannot be read.
    #[error(transparent)]
    Input(#[from] super::produce::InputError),
    /// The positions of `consume --resume` cannot be read, used or saved.
    #[error(transparent)]
    Resume(#[from] super::consume::ResumeError),
    /// An offset that the log does not have (any more, or yet).
    #[error(
        "offset {offset} of partition {partition} of topic `{topic}` is out of range; valid: {start} to {end}, or \
         earliest or latest"
    )]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// What was asked for.
        offset: i64,
        /// The first offset that is still there.
        start: i64,
        /// The offset after the last one.
        end: i64,
    },
    /// A partition stopped in the middle.
    #[error(
        "what was fetched from partition {partition} at offset {offset} cannot be read: {source}; read on behind it with \
         --from, and have `ringmq log check` look at it when the broker is stopped"
    )]
    Batch {
        /// The partition.
        partition: u32,
        /// The offset that was asked for.
        offset: i64,
        /// What is wrong.
        source: ringmq_wire::batch::BatchError,
    },
    /// The demonstration failed.
    #[error(transparent)]
    Demo(#[from] super::demo::DemoError),
    /// A file that is to hold a command does not.
    #[error(transparent)]
    CommandFile(#[from] super::command_file::CommandFileError),
    /// A manual page cannot be made.
    #[error(transparent)]
    Man(#[from] ManError),
    /// The files of a stopped broker cannot be looked into, or repaired.
    #[error(transparent)]
    Log(#[from] super::log::LogError),
    /// Standard output cannot be written.
    #[error("cannot write to standard output ({0}); check the space and the permissions where it goes")]
    Output(#[source] io::Error),
    /// The reader of standard output went away, as `head` does when it has enough.
    #[error("the reader of standard output is gone")]
    OutputClosed,
    /// A signal handler, a thread or a runtime cannot be set up.
    #[error("cannot set up the command ({0}); check the limits on processes, memory and open files (`ulimit -a`)")]
    Setup(#[source] io::Error),
}

impl CommandError {
    /// Whether only one partition has this: others can still be read.
    pub(crate) fn is_of_one_partition(&self) -> bool {
        match self {
            Self::Batch { .. } | Self::Client(Error::Unreadable { .. }) => true,
            Self::Client(error) => matches!(
                error.code(),
                Some(
                    ErrorCode::PartitionOffline
                        | ErrorCode::StorageFailed
                        | ErrorCode::OffsetOutOfRange
                        | ErrorCode::UnknownPartition
                )
            ),
            _ => false,
        }
    }

    /// How the process ends; whoever closed the output early had what it wanted.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::OutputClosed => Exit::Done,
            Self::Config(_) | Self::Log(_) | Self::CommandFile(_) | Self::Man(ManError::NoCommand(_)) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// An error of standard output.
impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Output(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use ringmq_wire::batch::BatchError;

    use super::*;

    /// What the text tells to do; `None` where the cause's text is the whole, or nothing is to be done. Without a wildcard: a
    /// variant that is added says it here.
    fn advice(error: &CommandError) -> Option<&'static str> {
        match error {
            CommandError::NoSuchPartition { .. } => Some("name one of these"),
            CommandError::OffsetOutOfRange { .. } => Some("valid: 3 to 7, or earliest or latest"),
            CommandError::Batch { .. } => Some("read on behind it with --from"),
            CommandError::Output(_) => Some("check the space and the permissions"),
            CommandError::Setup(_) => Some("check the limits"),
            CommandError::Man(ManError::NoCommand(_)) => Some("`ringmq --help` lists them"),
            CommandError::Man(ManError::Write { .. }) => Some("check the space and the permissions"),
            CommandError::Config(_) => Some("check its name and permissions"),
            CommandError::Client(_)
            | CommandError::Input(_)
            | CommandError::Resume(_)
            | CommandError::Demo(_)
            | CommandError::CommandFile(_)
            | CommandError::Log(_)
            | CommandError::OutputClosed => None,
        }
    }

    #[test]
    fn each_says_what_to_do() {
        let io = || io::Error::from(io::ErrorKind::StorageFull);
        let (topic, partition, path) = ("t".to_owned(), 3, std::path::PathBuf::from("x"));
        let each = [
            CommandError::NoSuchPartition { topic: topic.clone(), partition, partitions: 2 },
            CommandError::OffsetOutOfRange { topic, partition, offset: 9, start: 3, end: 7 },
            CommandError::Batch { partition, offset: 9, source: BatchError::DecompressedTooLarge { bytes_max: 1 } },
            CommandError::Output(io()),
            CommandError::Setup(io()),
            CommandError::Man(ManError::NoCommand("x".to_owned())),
            CommandError::Man(ManError::Write { path: path.clone(), source: io() }),
            CommandError::Config(ConfigError::Read { path, source: io() }),
        ];
        for error in each {
            let advice = advice(&error).expect("it has its own words");
            assert!(error.to_string().contains(advice), "{error}");
        }
    }
}
