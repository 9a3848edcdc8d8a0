//! The data directory as a whole: who may use it, which format it has, whose it is (`docs/formats/data-directory.md`).

mod identity;
mod orphans;
mod sealed_text;

use std::io;
use std::path::{Path, PathBuf};

use ringmq_runtime::file::{File, OpenOptions};
use ringmq_runtime::fs;

pub use identity::{FORMAT_VERSION, READABLE_BY};
pub use orphans::{HiddenPartitions, Orphans, hidden_partitions, orphans, remove_orphans};

use self::identity::{draw_cluster, read_format, read_identity, write_format, write_identity};
pub use self::sealed_text::SealError;
use crate::metadata::Cluster;

const LOCK: &str = "lock";
const FORMAT: &str = "format";
const IDENTITY: &str = "identity";
/// Holds the metadata log and its generation tables.
pub(crate) const METADATA: &str = "metadata";

/// A data directory that this process owns, for as long as this lives.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    cluster: Cluster,
    lock: File,
}

impl DataDirectory {
    /// Takes the directory, and makes it when there is none. Everything is durable when this returns.
    ///
    /// On the production backend `ringmq_runtime::probe::prepare_data_dir` has to have seen the directory before, in
    /// this process.
    ///
    /// # Errors
    /// Another process owns the directory, a newer release wrote it, files in it are damaged or missing, or the disk
    /// reports an error. Nothing that was there has been changed.
    pub async fn open(path: &Path) -> Result<DataDirectory, DirectoryError> {
        let failed = |what| move |cause| DirectoryError::Io { what, path: path.to_owned(), cause };
        fs::create_dir_all(path).await.map_err(failed("cannot create the data directory"))?;
        let lock = lock(path).await?;
        let cluster = match read_format(path).await? {
            Some(found) => {
                let cluster = read_identity(path).await?;
                migrate(path, found).await?;
                cluster
            }
            None => begin(path).await?,
        };
        Ok(DataDirectory { path: path.to_owned(), cluster, lock })
    }

    /// Takes the directory of a broker that is stopped, to look into it. Nothing is created or changed.
    ///
    /// # Errors
    /// It is no data directory, a broker runs on it, or its files are damaged.
    pub async fn inspect(path: &Path) -> Result<DataDirectory, DirectoryError> {
        let file = path.join(LOCK);
        let lock = match File::open(&file, OpenOptions::default()).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DirectoryError::NoData { path: path.to_owned() });
            }
            opened => {
                opened.map_err(|cause| DirectoryError::Io { what: "cannot open the lock file", path: file, cause })?
            }
        };
        let lock = take(path, lock).await?;
        read_format(path).await?.ok_or_else(|| DirectoryError::FormatLost { path: path.to_owned() })?;
        let cluster = read_identity(path).await?;
        Ok(DataDirectory { path: path.to_owned(), cluster, lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn cluster(&self) -> Cluster {
        self.cluster
    }

    /// Gives the directory back. Nothing in it may be open any more.
    ///
    /// # Errors
    /// What close(2) says; the directory is given back all the same.
    pub async fn close(self) -> io::Result<()> {
        self.lock.close().await
    }
}

/// The lock belongs to an open file, not to a process id: it is free as soon as its owner is gone, however it went.
async fn lock(path: &Path) -> Result<File, DirectoryError> {
    let file = path.join(LOCK);
    let failed = |what| {
        let path = file.clone();
        move |cause| DirectoryError::Io { what, path, cause }
    };
    let existing = OpenOptions { write: true, ..OpenOptions::default() };
    let opened = match File::open(&file, OpenOptions { create_new: true, ..existing }).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => File::open(&file, existing).await,
        created => created,
    };
    take(path, opened.map_err(failed("cannot open the lock file"))?).await
}

async fn take(path: &Path, lock: File) -> Result<File, DirectoryError> {
    let taken = lock.try_lock_exclusive().map_err(|cause| {
        let path = path.join(LOCK);
        DirectoryError::Io { what: "cannot lock the data directory", path, cause }
    })?;
    if taken {
        return Ok(lock);
    }
    // The refusal is what counts; an error of this close changes nothing about it.
    let _ = lock.close().await;
    Err(DirectoryError::InUse { path: path.to_owned() })
}

/// Makes a new directory, or completes one whose first start broke off.
async fn begin(path: &Path) -> Result<Cluster, DirectoryError> {
    let failed = |what| move |cause| DirectoryError::Io { what, path: path.to_owned(), cause };
    let metadata = path.join(METADATA);
    if fs::exists(&metadata).await.map_err(failed("cannot look into the data directory"))? {
        return Err(DirectoryError::FormatLost { path: path.to_owned() });
    }
    let cluster = draw_cluster();
    write_identity(path, cluster).await?;
    sync_names_above(path).await.map_err(failed("cannot flush the directories above"))?;
    // Last: it says that everything else is there.
    write_format(path).await?;
    tracing::info!(path = %path.display(), cluster_id = %cluster.id, broker_id = %cluster.broker, "made a new data directory");
    Ok(cluster)
}

/// Makes a directory of an older format one of this release's, before anything else is written to it. All that was written
/// in format 1 reads the same in format 2, which adds to it: so only the number changes.
async fn migrate(path: &Path, found: u32) -> Result<(), DirectoryError> {
    if found < FORMAT_VERSION {
        write_format(path).await?;
        tracing::info!(path = %path.display(), from = found, to = FORMAT_VERSION, "the data directory has a new format");
    }
    Ok(())
}

/// Makes the directory's own name last as long as what is in it, and the names above it too: a start that broke off may
/// have made any of them.
async fn sync_names_above(path: &Path) -> io::Result<()> {
    for above in path.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match fs::sync_dir(above).await {
            // What this process may not open, or cannot be written to, holds no name that this process made.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another broker runs on it.
    #[error(
        "the data directory {} is in use by another running broker; stop that one, or give this one another data_dir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// There is no broker's data in it.
    #[error("{} is no data directory of a broker: it has no file named {LOCK:?}", path.display())]
    NoData {
        /// The directory.
        path: PathBuf,
    },
    /// A newer release wrote it in a format that this one does not know.
    #[error(
        "the data directory {} has format {found}, and this release ({}) reads formats up to {FORMAT_VERSION}; start it \
         with RingMQ {readable_by} or newer",
        path.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The oldest release that reads it.
        readable_by: String,
    },
    /// A file that says what the directory is cannot be trusted.
    #[error("{} is damaged: {cause}; nothing was changed, restore the file from a copy of the data directory", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: SealError,
    },
    /// A file that must be there is not.
    #[error("{} is missing in a data directory that is in use; restore it from a copy of the data directory", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// There is metadata, but nothing says in which format.
    #[error(
        "the data directory {} holds metadata but no file named {FORMAT:?}; restore that file, or give the broker an \
         empty data_dir",
        path.display()
    )]
    FormatLost {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system reports an error.
    #[error("{what} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What came of it.
        #[source]
        cause: io::Error,
    },
}

#[cfg(test)]
mod tests;
