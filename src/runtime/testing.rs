//! What the tests of this crate share: an executor and a directory on a real disk.

use std::future::Future;

use tempfile::TempDir;

use crate::executor::{ExecutorConfig, spawn_executor};

/// Runs a future on an executor of its own.
pub(crate) fn run<T, Fut>(main: impl FnOnce() -> Fut + Send + 'static) -> T
where
    T: Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    spawn_executor(ExecutorConfig::default(), main).expect("an executor starts").join().expect("an executor ends")
}

/// An empty directory beside the test's own program: a disk, where the system's directory for temporary files may
/// be memory.
pub(crate) fn scratch() -> TempDir {
    let program = std::env::current_exe().expect("a program has a path");
    tempfile::tempdir_in(program.parent().expect("a program is in a directory")).expect("a directory can be made")
}
