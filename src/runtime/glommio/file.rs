//! Direct-I/O files on io_uring.

use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

use ::glommio::io::{DmaFile, OpenOptions as DmaOpenOptions, ReadResult};

use super::core::{Core, Requests, into_io};
use super::{device, sys};
use crate::buffer::{AlignedBuf, IoBuf};
use crate::file::{OpenOptions, Writes};

pub(crate) struct File {
    /// Gone only while the file is being dropped.
    dma: Option<Rc<DmaFile>>,
    /// The same file through the page cache, where short writes go that way.
    cached: Option<fs::File>,
    requests: Requests,
    read_bytes_max: usize,
}

impl File {
    pub(crate) async fn open(
        core: &Core,
        path: &Path,
        options: OpenOptions,
        writes: Writes,
        sparing: bool,
    ) -> io::Result<File> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        let device = device::introduce(core, parent).await.map_err(no_direct_io)?;
        let by_name = path.to_owned();
        let named = core.requests.blocking(move || open_by_name(&by_name, options)).await?;
        let cached = if writes == Writes::Cached { Some(named.try_clone()?) } else { None };
        let opened = core.requests.start(open_directly(named, options, sparing)).await;
        if opened.is_err() && options.create_new {
            // Whoever is told that there is no file should find none. Where even this fails, the name stays.
            let created = path.to_owned();
            let _ = core.requests.blocking(move || fs::remove_file(created)).await;
        }
        let dma = Some(Rc::new(opened.map_err(no_direct_io)?));
        Ok(File { dma, cached, requests: core.requests.clone(), read_bytes_max: device.read_bytes_max })
    }

    pub(crate) async fn read_at(&self, pos: u64, len: usize) -> io::Result<IoBuf> {
        if len <= self.read_bytes_max {
            return Ok(IoBuf::from_read(self.read_piece(pos, len).await?));
        }
        self.read_pieces(pos, len).await
    }

    fn read_piece(&self, pos: u64, len: usize) -> impl Future<Output = io::Result<ReadResult>> + use<> {
        let dma = self.dma();
        self.requests.start(async move { dma.read_at_aligned(pos, len).await.map_err(into_io) })
    }

    /// Reads more than the device takes at once: all pieces at the same time, put together in one buffer.
    async fn read_pieces(&self, pos: u64, len: usize) -> io::Result<IoBuf> {
        let starts = (0..len).step_by(self.read_bytes_max);
        let pieces: Vec<_> = starts
            .clone()
            .map(|start| self.read_piece(pos + start as u64, self.read_bytes_max.min(len - start)))
            .collect();
        let mut whole = AlignedBuf::with_len(len);
        let mut filled = 0;
        for (start, piece) in starts.zip(pieces) {
            let piece = piece.await?;
            // Short pieces are the last of the file; what follows one is empty.
            if filled == start {
                whole[start..start + piece.len()].copy_from_slice(&piece);
                filled += piece.len();
            }
        }
        Ok(whole.freeze().slice(..filled))
    }

    pub(crate) async fn write_at(&self, buf: &IoBuf, pos: u64) -> io::Result<()> {
        let memory = buf.whole().expect("checked by the caller").clone();
        let len = memory.len();
        let dma = self.dma();
        let written = self.requests.start(async move { dma.write_rc_at(memory, pos).await.map_err(into_io) }).await?;
        if written != len {
            let why = format!("the device took {written} of {len} bytes at {pos}");
            return Err(io::Error::new(io::ErrorKind::WriteZero, why));
        }
        Ok(())
    }

    /// Of a file that has such writes.
    pub(crate) fn write_cached_at(&self, bytes: &[u8], pos: u64) -> io::Result<()> {
        let cached = self.cached.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        cached.write_all_at(bytes, pos)
    }

    pub(crate) async fn fdatasync(&self) -> io::Result<()> {
        let dma = self.dma();
        self.requests.start(async move { dma.fdatasync().await.map_err(into_io) }).await
    }

    pub(crate) async fn preallocate(&self, len: u64) -> io::Result<()> {
        let dma = self.dma();
        self.requests.start(async move { dma.pre_allocate(len, false).await.map_err(into_io) }).await
    }

    pub(crate) async fn truncate(&self, len: u64) -> io::Result<()> {
        let dma = self.dma();
        self.requests.start(async move { dma.truncate(len).await.map_err(into_io) }).await
    }

    pub(crate) fn size(&self) -> io::Result<u64> {
        sys::file_size(self.dma().as_raw_fd())
    }

    pub(crate) fn try_lock_exclusive(&self) -> io::Result<bool> {
        sys::flock_exclusive(self.dma().as_raw_fd())
    }

    #[cfg(test)]
    pub(crate) fn raw_fd(&self) -> std::os::fd::RawFd {
        self.dma().as_raw_fd()
    }

    pub(crate) async fn close(mut self) -> io::Result<()> {
        match self.take_last() {
            Some(dma) => self.requests.start(close(self.requests.clone(), dma)).await,
            // A request whose waiter was dropped still has it, and closes it when it is done.
            None => Ok(()),
        }
    }

    fn dma(&self) -> Rc<DmaFile> {
        self.dma.clone().expect("a file has it until it is dropped")
    }

    fn take_last(&mut self) -> Option<DmaFile> {
        self.dma.take().and_then(|dma| Rc::try_unwrap(dma).ok())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(dma) = self.take_last().filter(is_removed) {
            drop(self.requests.start(close(self.requests.clone(), dma)));
        }
    }
}

fn is_removed(dma: &DmaFile) -> bool {
    sys::is_removed(dma.as_raw_fd()).unwrap_or(false)
}

/// The ring closes on this core, and who closes a removed file last gives its space back to the file system: milliseconds,
/// and more while its journal is busy. So another descriptor outlives this one, and the blocking thread closes that.
async fn close(requests: Requests, dma: DmaFile) -> io::Result<()> {
    // SAFETY: `dma` is open, and outlives the borrow, which ends with this statement.
    let last = is_removed(&dma).then(|| unsafe { BorrowedFd::borrow_raw(dma.as_raw_fd()) }.try_clone_to_owned());
    dma.close().await.map_err(into_io)?;
    if let Some(Ok(last)) = last {
        let closed = move || {
            drop(last);
            Ok(())
        };
        requests.blocking(closed).await?;
    }
    Ok(())
}

fn open_by_name(path: &Path, options: OpenOptions) -> io::Result<fs::File> {
    let mut by_name = fs::OpenOptions::new();
    by_name.read(true).write(options.write || options.create_new).create_new(options.create_new).mode(0o640);
    by_name.open(path)
}

/// Opens once more what is open already. While glommio opens a file it asks for the path again, and panics when the
/// name is gone in between; this path stays.
async fn open_directly(named: fs::File, options: OpenOptions, sparing: bool) -> io::Result<DmaFile> {
    if sparing && sys::is_spared(&named) {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    let mut directly = DmaOpenOptions::new();
    directly.read(true).write(options.write || options.create_new);
    if options.dsync {
        directly.custom_flags(libc::O_DSYNC);
    }
    directly.dma_open(sys::path_of(&named)).await.map_err(into_io)
}

/// What the errors of a file system without direct I/O, or without files that have no name, mean.
fn no_direct_io(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EISDIR) => io::Error::new(
            io::ErrorKind::Unsupported,
            format!("the file system has no direct I/O ({error}); put the file on a local ext4 or XFS"),
        ),
        _ => error,
    }
}
