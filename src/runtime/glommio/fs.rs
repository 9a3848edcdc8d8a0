//! Directories and tiny files, on the executor's blocking thread.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::core::Core;
use super::sys;
use crate::fs::DirEntry;

pub(crate) async fn create_dir_all(core: &Core, path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    core.requests.blocking(move || fs::create_dir_all(path)).await
}

pub(crate) async fn read_dir(core: &Core, path: &Path) -> io::Result<Vec<DirEntry>> {
    let path = path.to_owned();
    core.requests
        .blocking(move || {
            let mut entries = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                if let Ok(name) = entry.file_name().into_string() {
                    entries.push(DirEntry { name, is_dir: entry.file_type()?.is_dir() });
                }
            }
            Ok(entries)
        })
        .await
}

pub(crate) async fn rename(core: &Core, from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (from.to_owned(), to.to_owned());
    core.requests.blocking(move || fs::rename(from, to)).await
}

pub(crate) async fn remove_file(core: &Core, path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    core.requests.blocking(move || fs::remove_file(path)).await
}

pub(crate) async fn remove_dir_all(core: &Core, path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    core.requests.blocking(move || fs::remove_dir_all(path)).await
}

pub(crate) async fn remove_dir(core: &Core, path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    core.requests.blocking(move || fs::remove_dir(path)).await
}

/// An open directory.
#[derive(Clone)]
pub(crate) struct Dir(Arc<fs::File>);

impl Dir {
    pub(crate) async fn open(core: &Core, path: &Path) -> io::Result<Dir> {
        let path = path.to_owned();
        core.requests.blocking(move || Ok(Dir(Arc::new(fs::File::open(path)?)))).await
    }

    pub(crate) async fn sync(&self, core: &Core) -> io::Result<()> {
        let dir = self.0.clone();
        core.requests.blocking(move || dir.sync_all()).await
    }
}

pub(crate) async fn sync_dir(core: &Core, path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    core.requests.blocking(move || fs::File::open(path)?.sync_all()).await
}

pub(crate) async fn exists(core: &Core, path: &Path) -> io::Result<bool> {
    let path = path.to_owned();
    core.requests.blocking(move || fs::exists(path)).await
}

pub(crate) async fn free_bytes(core: &Core, path: &Path) -> io::Result<u64> {
    let path = path.to_owned();
    core.requests.blocking(move || sys::free_bytes(&path)).await
}

pub(crate) async fn read_small(core: &Core, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    core.requests
        .blocking(move || {
            let mut bytes = Vec::new();
            // One more than allowed tells a longer file from one that just fits.
            fs::File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
            if bytes.len() > bytes_max {
                let why = format!("longer than the {bytes_max} bytes that such a file may have");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
            }
            Ok(bytes)
        })
        .await
}

pub(crate) async fn write_small_hint(core: &Core, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (path, bytes) = (path.to_owned(), bytes.to_owned());
    core.requests
        .blocking(move || {
            let temporary = temporary_name(&path);
            fs::write(&temporary, &bytes)?;
            fs::rename(&temporary, &path)
        })
        .await
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(".tmp");
    PathBuf::from(temporary)
}

pub(crate) async fn write_small_atomic(core: &Core, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (path, bytes) = (path.to_owned(), bytes.to_owned());
    core.requests
        .blocking(move || {
            let temporary = temporary_name(&path);
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            let dir = match path.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => dir,
                Some(_) | None => Path::new("."),
            };
            fs::File::open(dir)?.sync_all()
        })
        .await
}
