//! Files read and written directly, past the page cache.
//!
//! Positions and lengths are multiples of [`BLOCK_BYTES`]. A file opened with [`OpenOptions::dsync`] has each write
//! durable when it completes; otherwise [`File::fdatasync`] makes durable what *completed before it was called*. One kind
//! of file is not written directly: [`File::open_cached`]. Writes do not extend anything silently: space is made visible
//! by [`File::preallocate`] beforehand, so that a write changes no file-system metadata.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::backend::{self, Backend};
use crate::buffer::{AlignedBuf, BLOCK_BYTES, IoBuf};
use crate::device::InFlight;
use crate::glommio;
use crate::time::{self, Instant};

#[cfg(feature = "sim")]
use crate::sim;

pub use crate::device::{IoClass, IoCounts, IoStats};

/// How long [`File::lock_when_free`] waits. Requests of a killed process end within milliseconds; whoever holds a lock
/// longer is alive.
pub const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
/// From that many bytes on a write takes the direct way, in a file opened by [`File::open_cached`].
pub const DIRECT_WRITE_BYTES_MIN: usize = 32 << 10;
/// The most that [`IoClass::Compaction`] reads from the device at a time: what someone waits for may be behind it.
pub const BACKGROUND_READ_BYTES_MAX: usize = 128 << 10;
const LOCK_RETRY_AFTER: Duration = Duration::from_millis(10);

/// What this executor did at its devices since it started.
pub fn io_stats() -> IoStats {
    backend::try_current().map(|context| context.device.stats()).unwrap_or_default()
}

/// How a file is opened. The default is an existing file, for reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Reading and writing, not reading alone.
    pub write: bool,
    /// The file must not exist and is created (mode 0640). Its name is durable only after
    /// [`crate::fs::sync_dir`] of its directory.
    pub create_new: bool,
    /// `O_DSYNC`: each write is durable when it completes.
    pub dsync: bool,
}

/// An open file of this executor. Clones share the descriptor.
///
/// # Writes and flushes are awaited to their end
/// The future of [`File::write_at`], [`File::fdatasync`], [`File::preallocate`] and [`File::truncate`] must not be
/// dropped before it is done: the kernel goes on, and nobody knows what became of it.
#[derive(Clone)]
pub struct File(Rc<Inner>);

struct Inner {
    path: PathBuf,
    writes: Writes,
    backend: FileBackend,
}

/// Which way writes take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// To the device, and maybe no further than its cache.
    Direct,
    /// `O_DSYNC`.
    Durable,
    /// To the page cache.
    Cached,
}

enum FileBackend {
    Glommio(glommio::file::File),
    #[cfg(feature = "sim")]
    Sim(sim::file::File),
}

impl File {
    /// Opens or creates a file.
    ///
    /// # Errors
    /// What open(2) says; [`io::ErrorKind::Unsupported`] where the file system has no direct I/O. With
    /// [`OpenOptions::create_new`] the file may have been made before something failed, such as for want of a second
    /// descriptor. It is removed again if that is possible; else it stays, empty.
    pub async fn open(path: impl AsRef<Path>, options: OpenOptions) -> io::Result<File> {
        let writes = if options.dsync { Writes::Durable } else { Writes::Direct };
        File::open_for(path.as_ref(), options, writes, false).await
    }

    /// As [`File::open`], for files of which there may be more than descriptors: it fails, as if there were none left,
    /// when those run short that [`raise_open_files`](crate::executor::raise_open_files) spares for all else.
    ///
    /// # Errors
    /// As [`File::open`].
    pub async fn open_sparing(path: impl AsRef<Path>, options: OpenOptions) -> io::Result<File> {
        let writes = if options.dsync { Writes::Durable } else { Writes::Direct };
        File::open_for(path.as_ref(), options, writes, true).await
    }

    /// Opens an existing file whose short writes go to the page cache: such a write is a copy, done at once and on this
    /// core, some 3 µs for a block. It does not wait for the device, but for a system that has more to write back than it
    /// likes. Writes of [`DIRECT_WRITE_BYTES_MIN`] and more go to the device, which takes less of the core. A process that
    /// is killed loses nothing that completed; a system that goes down loses what was not flushed. Reads go past the page
    /// cache and find what was written all the same.
    ///
    /// # Errors
    /// As [`File::open`].
    pub async fn open_cached(path: impl AsRef<Path>) -> io::Result<File> {
        let options = OpenOptions { write: true, create_new: false, dsync: false };
        File::open_for(path.as_ref(), options, Writes::Cached, false).await
    }

    async fn open_for(path: &Path, options: OpenOptions, writes: Writes, sparing: bool) -> io::Result<File> {
        let context = backend::current();
        let backend = match &context.backend {
            Backend::Glommio(core) => {
                glommio::file::File::open(core, path, options, writes, sparing).await.map(FileBackend::Glommio)
            }
            #[cfg(feature = "sim")]
            Backend::Sim(world) => sim::file::File::open(world, path, options).await.map(FileBackend::Sim),
        };
        let backend = backend.map_err(|source| describe("open", path, source))?;
        Ok(File(Rc::new(Inner { path: path.to_owned(), writes, backend })))
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads up to `len` bytes at `pos`, both multiples of [`BLOCK_BYTES`]. Fewer come back only at the end of the
    /// file, none beyond it. Reads larger than the device takes at once are split and run side by side; those of
    /// [`IoClass::Compaction`] that are larger than [`BACKGROUND_READ_BYTES_MAX`] one piece after the other.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for what is not block-aligned; what the device says.
    pub async fn read_at(&self, pos: u64, len: usize, class: IoClass) -> io::Result<IoBuf> {
        self.check_aligned(pos, len)?;
        if len == 0 {
            return Ok(IoBuf::empty());
        }
        if class == IoClass::Compaction && len > BACKGROUND_READ_BYTES_MAX {
            return self.read_in_turn(pos, len, class).await;
        }
        self.read_at_once(pos, len, class).await
    }

    /// Piece by piece, so that what others write is never behind more than one of them.
    async fn read_in_turn(&self, pos: u64, len: usize, class: IoClass) -> io::Result<IoBuf> {
        let mut whole = AlignedBuf::with_len(len);
        let mut filled = 0;
        while filled < len {
            let wanted = (len - filled).min(BACKGROUND_READ_BYTES_MAX);
            let piece = self.read_at_once(pos + filled as u64, wanted, class).await?;
            whole[filled..filled + piece.len()].copy_from_slice(&piece);
            filled += piece.len();
            if piece.len() < wanted {
                break;
            }
        }
        Ok(whole.freeze().slice(..filled))
    }

    async fn read_at_once(&self, pos: u64, len: usize, class: IoClass) -> io::Result<IoBuf> {
        let _in_flight = start(class, len).await;
        match &self.0.backend {
            FileBackend::Glommio(file) => file.read_at(pos, len).await,
            #[cfg(feature = "sim")]
            FileBackend::Sim(file) => file.read_at(pos, len).await,
        }
        .map_err(|source| self.error("read", source))
    }

    /// Writes the whole of `buf` at `pos`, a multiple of [`BLOCK_BYTES`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when `pos` is not block-aligned or `buf` is a slice of its memory or came from
    /// a read; [`io::ErrorKind::WriteZero`] when the device took only a part; [`io::ErrorKind::StorageFull`] when
    /// there is no room; what the device says. After an error nobody knows which bytes arrived.
    pub async fn write_at(&self, buf: &IoBuf, pos: u64, class: IoClass) -> io::Result<()> {
        self.check_aligned(pos, buf.len())?;
        if buf.whole().is_none() {
            let source = io::Error::new(
                io::ErrorKind::InvalidInput,
                "only the whole memory of an AlignedBuf can be written, not a slice of it and not what a read returned",
            );
            return Err(self.error("write", source));
        }
        // What the page cache takes the device gets with a flush.
        let is_cached = self.0.writes == Writes::Cached && buf.len() < DIRECT_WRITE_BYTES_MIN;
        let _in_flight = if is_cached { None } else { Some(start(class, buf.len()).await) };
        if self.0.writes == Writes::Durable {
            backend::current().device.count_flush();
        }
        match &self.0.backend {
            FileBackend::Glommio(file) if is_cached => file.write_cached_at(buf, pos),
            FileBackend::Glommio(file) => file.write_at(buf, pos).await,
            #[cfg(feature = "sim")]
            FileBackend::Sim(file) => file.write_at(buf, pos).await,
        }
        .map_err(|source| self.error("write", source))
    }

    /// Makes durable what was written, and completed, before this call.
    ///
    /// # Errors
    /// What the device says. After an error nothing is known of any write since the last good flush; trying again
    /// proves nothing, because the kernel reports a lost write once.
    pub async fn fdatasync(&self) -> io::Result<()> {
        backend::current().device.count_flush();
        match &self.0.backend {
            FileBackend::Glommio(file) => file.fdatasync().await,
            #[cfg(feature = "sim")]
            FileBackend::Sim(file) => file.fdatasync().await,
        }
        .map_err(|source| self.error("flush", source))
    }

    /// Makes sure that the first `len` bytes have space on the disk and that the file is at least that long; new
    /// space reads as zeros. Durable only after [`File::fdatasync`].
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when there is no room; what the file system says.
    pub async fn preallocate(&self, len: u64) -> io::Result<()> {
        match &self.0.backend {
            FileBackend::Glommio(file) => file.preallocate(len).await,
            #[cfg(feature = "sim")]
            FileBackend::Sim(file) => file.preallocate(len).await,
        }
        .map_err(|source| self.error("preallocate", source))
    }

    /// Cuts the file to `len` bytes, or lengthens it by a hole. Durable only after [`File::fdatasync`].
    ///
    /// # Errors
    /// What the file system says.
    pub async fn truncate(&self, len: u64) -> io::Result<()> {
        match &self.0.backend {
            FileBackend::Glommio(file) => file.truncate(len).await,
            #[cfg(feature = "sim")]
            FileBackend::Sim(file) => file.truncate(len).await,
        }
        .map_err(|source| self.error("truncate", source))
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn size(&self) -> io::Result<u64> {
        match &self.0.backend {
            FileBackend::Glommio(file) => file.size(),
            #[cfg(feature = "sim")]
            FileBackend::Sim(file) => file.size(),
        }
        .map_err(|source| self.error("size", source))
    }

    /// Locks the file against every other open descriptor, in this process and others (flock(2)), until the last
    /// clone is closed *and* no request of it is in the kernel any more; `false` when another has the lock. Requests
    /// that outlive a killed process keep its lock: whoever gets it knows that nothing of the old one still lands.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn try_lock_exclusive(&self) -> io::Result<bool> {
        match &self.0.backend {
            FileBackend::Glommio(file) => file.try_lock_exclusive(),
            #[cfg(feature = "sim")]
            FileBackend::Sim(file) => file.try_lock_exclusive(),
        }
        .map_err(|source| self.error("lock", source))
    }

    /// As [`File::try_lock_exclusive`], waiting for requests that a killed process still has in the kernel; `false` when
    /// another has had the lock for [`LOCK_WAIT_MAX`].
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn lock_when_free(&self) -> io::Result<bool> {
        let began = Instant::now();
        while !self.try_lock_exclusive()? {
            if began.elapsed() >= LOCK_WAIT_MAX {
                return Ok(false);
            }
            time::sleep(LOCK_RETRY_AFTER).await;
        }
        Ok(true)
    }

    /// Closes the descriptor and waits until it is closed. With other clones alive it only lets go of this one; the
    /// descriptor is closed when the last is closed or dropped.
    ///
    /// # Errors
    /// What close(2) says.
    pub async fn close(self) -> io::Result<()> {
        let Some(inner) = Rc::into_inner(self.0) else { return Ok(()) };
        match inner.backend {
            FileBackend::Glommio(file) => file.close().await,
            #[cfg(feature = "sim")]
            FileBackend::Sim(file) => file.close().await,
        }
        .map_err(|source| describe("close", &inner.path, source))
    }

    #[cfg(test)]
    fn raw_fd(&self) -> std::os::fd::RawFd {
        match &self.0.backend {
            FileBackend::Glommio(file) => file.raw_fd(),
            #[cfg(feature = "sim")]
            FileBackend::Sim(_) => unreachable!("a simulated file has no descriptor"),
        }
    }

    fn check_aligned(&self, pos: u64, len: usize) -> io::Result<()> {
        if pos.is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES) {
            return Ok(());
        }
        let why = format!("{len} bytes at {pos} are not whole blocks of {BLOCK_BYTES} bytes");
        Err(self.error("access", io::Error::new(io::ErrorKind::InvalidInput, why)))
    }

    fn error(&self, operation: &str, source: io::Error) -> io::Error {
        describe(operation, &self.0.path, source)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.0.path).finish_non_exhaustive()
    }
}

/// Waits until a request of that class may go to the device.
async fn start(class: IoClass, bytes: usize) -> InFlight {
    let device = &backend::current().device;
    let mut enter = device.enter(class, bytes);
    loop {
        let in_flight = enter.await;
        // Asked only now: it may be the end of another one's request that let this one in.
        let rest = device.rest(class);
        if rest.is_zero() {
            return in_flight;
        }
        in_flight.give_back();
        time::sleep(rest).await;
        enter = device.enter_again(class, bytes);
    }
}

/// Says what was done to which file; the kind stays.
pub(crate) fn describe(operation: &str, path: &Path, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), FileError { operation: operation.to_owned(), path: path.to_owned(), source })
}

/// What to do about an error that the user can do something about, as the end of its text.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            "; the broker may not open more: raise its limit (`ulimit -n`, `LimitNOFILE` in a systemd unit), or have fewer \
             partitions and connections"
        }
        Some(libc::ENFILE) => "; the machine may not open more: raise `fs.file-max` (sysctl)",
        _ => "",
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}{}", path.display(), remedy(source))]
struct FileError {
    operation: String,
    path: PathBuf,
    source: io::Error,
}

#[cfg(test)]
mod tests;
