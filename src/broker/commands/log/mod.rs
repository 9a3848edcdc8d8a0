//! `ringmq log`: what is in the data directory of a stopped broker, what is damaged there, and how it is mended.

mod check;
mod dump;
mod dump_line;
mod repair;
mod repair_metadata;

pub(crate) use check::run as check;
pub(crate) use dump::{Detail, run as dump};
pub(crate) use repair::run as repair;

use std::future::Future;
use std::path::PathBuf;

use ringmq_runtime::executor::{ExecutorConfig, spawn_executor};
use ringmq_shard::inspect::InspectError;

use super::CommandError;
use crate::serve::machine::IO_MEMORY_BYTES;

/// Runs on an executor of its own, as a broker reads files.
fn on_executor<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T, CommandError>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let config =
        ExecutorConfig { name: "ringmq-log".to_owned(), io_memory_bytes: IO_MEMORY_BYTES, ..ExecutorConfig::default() };
    spawn_executor(config, work).and_then(|executor| executor.join()).map_err(CommandError::Setup)
}

/// Why a file or directory could not be looked into.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The directory as a whole, or what was asked of it.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// A file cannot be read.
    #[error("{0}; check the name and the permissions")]
    Io(#[from] std::io::Error),
    /// Nothing of ours has such a name.
    #[error(
        "{} is none of a broker's files: dump reads .log, .index, .timeindex, .table, .producers, .ring, \
         .relaxed and .aside, or the directory of a partition", path.display()
    )]
    UnknownFile {
        /// What was asked for.
        path: PathBuf,
    },
    /// A repair changes files, and nobody has agreed to it.
    #[error("nothing was changed; run it again with --yes to have it done")]
    NotAgreed,
}
