//! Directories, and tiny files of our own.
//!
//! On the glommio backend everything here runs on the executor's blocking thread, one operation at a time, and never
//! on its core: an fsync of a directory or the removal of a large file may take many milliseconds.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::backend::{self, Backend};
use crate::file::describe;
use crate::glommio;
use crate::seeded_bug::SeededBug;

/// What a directory holds under one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name alone. Names that are no UTF-8 are not ours and are left out.
    pub name: String,
    /// Whether it is a directory (a link to one is not).
    pub is_dir: bool,
}

macro_rules! dispatch {
    ($operation:literal, $path:expr, $function:ident ( $($argument:expr),* )) => {{
        match &backend::current().backend {
            Backend::Glommio(core) => glommio::fs::$function(core, $($argument),*).await,
            #[cfg(feature = "sim")]
            Backend::Sim(world) => world.$function($($argument),*).await,
        }
        .map_err(|source| describe($operation, $path, source))
    }};
}

/// Creates a directory and the missing ones above it. Names are durable only after [`sync_dir`] of each parent.
///
/// # Errors
/// What mkdir(2) says; it is no error that the directory is there.
pub async fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    dispatch!("create directory", path, create_dir_all(path))
}

/// As [`create_dir_all`], and the directory's own name is durable afterwards. It is flushed also where the directory was
/// there: the process that created it may not have come to that.
///
/// # Errors
/// What mkdir(2), open(2) and fsync(2) say.
pub async fn create_dir_durably(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    create_dir_all(path).await?;
    match path.parent() {
        Some(parent) => sync_dir(parent).await,
        None => Ok(()),
    }
}

/// What is in a directory, by name in ascending order.
///
/// # Errors
/// What readdir(3) says.
pub async fn read_dir(path: impl AsRef<Path>) -> io::Result<Vec<DirEntry>> {
    let path = path.as_ref();
    let mut entries = dispatch!("list", path, read_dir(path))?;
    entries.sort();
    Ok(entries)
}

/// Gives a file or directory another name, replacing a file that has it. Durable only after [`sync_dir`] of both
/// directories.
///
/// # Errors
/// What rename(2) says.
pub async fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    dispatch!("rename", from, rename(from, to))
}

/// Removes a file's name; its space is free once nobody has it open. Durable only after [`sync_dir`].
///
/// # Errors
/// What unlink(2) says.
pub async fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    dispatch!("remove", path, remove_file(path))
}

/// As [`remove_file`]; it is no error that there is none. A killed process may be removing it as well.
///
/// # Errors
/// What unlink(2) says otherwise.
pub async fn remove_file_if_there(path: impl AsRef<Path>) -> io::Result<()> {
    match remove_file(path).await {
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes a directory and everything in it.
///
/// # Errors
/// What the kernel says; some of it may be gone by then.
pub async fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    dispatch!("remove", path, remove_dir_all(path))
}

/// Removes an empty directory.
///
/// # Errors
/// [`io::ErrorKind::DirectoryNotEmpty`] when something is in it; what rmdir(2) says.
pub async fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    dispatch!("remove", path, remove_dir(path))
}

/// Makes the names in a directory durable: those created, renamed and removed before this call.
///
/// # Errors
/// What open(2) and fsync(2) say. Who has to know which of the two takes a [`Dir`].
pub async fn sync_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    if SeededBug::SkipDirectorySync.is_in() {
        return Ok(());
    }
    dispatch!("flush directory", path, sync_dir(path))
}

/// Whether there is something under that name.
///
/// # Errors
/// When it cannot be found out.
pub async fn exists(path: impl AsRef<Path>) -> io::Result<bool> {
    let path = path.as_ref();
    dispatch!("look for", path, exists(path))
}

/// Bytes that this process may still use on the file system of `path`.
///
/// # Errors
/// What statvfs(3) says.
pub async fn free_bytes(path: impl AsRef<Path>) -> io::Result<u64> {
    let path = path.as_ref();
    dispatch!("find the free space of", path, free_bytes(path))
}

/// Whether there was no room for what was asked: the one failure that passes by itself.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads a whole file of at most `bytes_max` bytes.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`] when it is longer; what read(2) says.
pub async fn read_small(path: impl AsRef<Path>, bytes_max: usize) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    dispatch!("read", path, read_small(path, bytes_max))
}

/// Puts `bytes` under that name, durably and at once: a temporary file beside it (`<name>.tmp`), fsync, rename, fsync
/// of the directory. After a crash the file holds what it held before, or all of `bytes`.
///
/// # Errors
/// What the kernel says; the file then holds what it held before or, when only the last flush failed, `bytes`.
pub async fn write_small_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    let path = path.as_ref();
    dispatch!("write", path, write_small_atomic(path, bytes))
}

/// As [`write_small_atomic`], without any flush: what is there after a crash may be what was there before, or empty, or a
/// part. For hints, which carry a checksum.
///
/// # Errors
/// What the kernel says; the file then holds what it held before.
pub async fn write_small_hint(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    let path = path.as_ref();
    dispatch!("write", path, write_small_hint(path, bytes))
}

/// An open directory, whose names can be made durable without another descriptor.
///
/// Opening it may fail for want of one, and then nothing was asked of the disk. That is worth knowing apart from a
/// failed flush, after which nobody knows what the disk holds.
#[derive(Clone)]
pub struct Dir {
    path: PathBuf,
    backend: DirBackend,
}

#[derive(Clone)]
enum DirBackend {
    Glommio(glommio::fs::Dir),
    #[cfg(feature = "sim")]
    Sim,
}

impl Dir {
    /// Opens a directory.
    ///
    /// # Errors
    /// What open(2) says.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<Dir> {
        let path = path.as_ref();
        let backend = match &backend::current().backend {
            Backend::Glommio(core) => glommio::fs::Dir::open(core, path).await.map(DirBackend::Glommio),
            #[cfg(feature = "sim")]
            Backend::Sim(world) => world.open_dir(path).await.map(|()| DirBackend::Sim),
        };
        let backend = backend.map_err(|source| describe("open directory", path, source))?;
        Ok(Dir { path: path.to_owned(), backend })
    }

    /// As [`sync_dir`].
    ///
    /// # Errors
    /// What fsync(2) says. After an error nobody knows which names are durable.
    pub async fn sync(&self) -> io::Result<()> {
        if SeededBug::SkipDirectorySync.is_in() {
            return Ok(());
        }
        match (&self.backend, &backend::current().backend) {
            (DirBackend::Glommio(dir), Backend::Glommio(core)) => dir.sync(core).await,
            #[cfg(feature = "sim")]
            (_, Backend::Sim(world)) => world.sync_dir(&self.path).await,
            #[cfg(feature = "sim")]
            (DirBackend::Sim, Backend::Glommio(_)) => unreachable!("a simulated directory stays in its simulation"),
        }
        .map_err(|source| describe("flush directory", &self.path, source))
    }
}

impl fmt::Debug for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dir").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
