//! The simulation's arm of [`crate::fs`].

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::disk::fault::Operation;
use super::disk::path::Names;
use super::file::File;
use super::world::{World, name_request};
use crate::file::OpenOptions;
use crate::fs::DirEntry;
use crate::seeded_bug::SeededBug;

impl World {
    pub(crate) async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let names = Names::parse(path)?;
        let request = name_request(Operation::CreateDir, names.text());
        self.submit(&request, move |files| files.create_dir_all(&names)).await
    }

    pub(crate) async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let names = Names::parse(path)?;
        let request = name_request(Operation::ReadDir, names.text());
        let entries = self.submit(&request, move |files| files.names().list(&names)).await?;
        Ok(entries.into_iter().map(|(name, is_dir)| DirEntry { name: name.as_ref().to_owned(), is_dir }).collect())
    }

    pub(crate) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (Names::parse(from)?, Names::parse(to)?);
        let request = name_request(Operation::Rename, from.text());
        self.submit(&request, move |files| files.rename(&from, &to)).await
    }

    pub(crate) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let names = Names::parse(path)?;
        let request = name_request(Operation::Remove, names.text());
        self.submit(&request, move |files| files.remove_file(&names)).await
    }

    pub(crate) async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let names = Names::parse(path)?;
        let request = name_request(Operation::Remove, names.text());
        self.submit(&request, move |files| files.remove_dir_all(&names)).await
    }

    pub(crate) async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let names = Names::parse(path)?;
        let request = name_request(Operation::Remove, names.text());
        self.submit(&request, move |files| files.remove_dir(&names)).await
    }

    /// What there is to opening a directory: it must be there, and anything may be in the way.
    pub(crate) async fn open_dir(&self, path: &Path) -> io::Result<()> {
        let names = Names::parse(path)?;
        let request = name_request(Operation::Open, names.text());
        self.submit(&request, move |files| files.names().list(&names).map(drop)).await
    }

    pub(crate) async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let names = Names::parse(path)?;
        let upto = self.disk.borrow().files.completed();
        let request = name_request(Operation::SyncDir, names.text());
        self.submit(&request, move |files| files.sync_dir(&names, upto)).await
    }

    pub(crate) async fn exists(&self, path: &Path) -> io::Result<bool> {
        let names = Names::parse(path)?;
        let request = name_request(Operation::Stat, names.text());
        let found = self.submit(&request, move |files| files.names().lookup(&names)).await;
        match found {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let names = Names::parse(path)?;
        let request = name_request(Operation::Stat, names.text());
        self.submit(&request, move |files| {
            files.names().lookup(&names)?;
            Ok(files.free_bytes())
        })
        .await
    }

    pub(crate) async fn read_small(self: &Rc<World>, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self, path, OpenOptions::default()).await?;
        let size = usize::try_from(file.size()?).unwrap_or(usize::MAX);
        if size > bytes_max {
            let why = format!("{size} bytes where at most {bytes_max} are expected");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        file.read_unaligned(0, size).await
    }

    pub(crate) async fn write_small_hint(self: &Rc<World>, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = with_suffix(path, ".tmp")?;
        self.write_whole(&temporary, bytes).await?.close().await?;
        self.rename(&temporary, path).await
    }

    /// The steps of the other backend, each of which can fail and be cut short by a crash.
    pub(crate) async fn write_small_atomic(self: &Rc<World>, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = with_suffix(path, ".tmp")?;
        let file = self.write_whole(&temporary, bytes).await?;
        file.fdatasync().await?;
        file.close().await?;
        self.rename(&temporary, path).await?;
        if SeededBug::SkipDirectorySync.is_in() {
            return Ok(());
        }
        self.sync_dir(path.parent().unwrap_or(Path::new("/"))).await
    }

    /// A new file in the place of one that may be there.
    async fn write_whole(self: &Rc<World>, path: &Path, bytes: &[u8]) -> io::Result<File> {
        if self.exists(path).await? {
            self.remove_file(path).await?;
        }
        let options = OpenOptions { write: true, create_new: true, dsync: false };
        let file = File::open(self, path, options).await?;
        file.write_unaligned(bytes, 0).await?;
        Ok(file)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut name = name.to_owned();
    name.push(suffix);
    Ok(path.with_file_name(name))
}
