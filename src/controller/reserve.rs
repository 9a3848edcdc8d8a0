//! Space kept aside, so that topics can be deleted, and their settings changed, when the disk is full: that frees space,
//! but has to be logged first.

use std::io;
use std::path::{Path, PathBuf};

use ringmq_runtime::file::{File, OpenOptions};
use ringmq_runtime::fs;

/// What a hundred deletions take, with a generation table and a new segment among them.
const RESERVE_BYTES: u64 = 1 << 20;

/// A file that holds nothing but space.
pub(crate) struct Reserve {
    path: PathBuf,
    filled: bool,
}

impl Reserve {
    /// The reserve at `path`, not filled yet.
    pub(crate) fn new(path: &Path) -> Reserve {
        Reserve { path: path.to_owned(), filled: false }
    }

    /// Takes the space from the disk, unless that has been done.
    pub(crate) async fn fill(&mut self) -> io::Result<()> {
        if !self.filled {
            let file = self.open().await?;
            let taken = file.preallocate(RESERVE_BYTES).await;
            file.close().await?;
            taken?;
            self.filled = true;
        }
        Ok(())
    }

    /// Gives the space back to the disk; whether there was any.
    pub(crate) async fn release(&mut self) -> bool {
        self.filled = false;
        match fs::remove_file(&self.path).await {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the space kept for deletions cannot be used");
                false
            }
        }
    }

    async fn open(&self) -> io::Result<File> {
        let existing = OpenOptions { write: true, ..OpenOptions::default() };
        match File::open(&self.path, existing).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                File::open(&self.path, OpenOptions { create_new: true, ..existing }).await
            }
            opened => opened,
        }
    }
}
