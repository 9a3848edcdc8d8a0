//! Space kept on the disk for what has to work when it is full: what frees space, and what a start has to write.
//!
//! A log can only be trimmed, its damage be remembered, or what the journal has of it be put into frames, with a little
//! space. So each core keeps some, in a file that holds nothing else. When the disk is full, that is **given up in pieces**,
//! one for each time that the disk refuses: others may be faster to take what is free. What becomes free later fills the
//! reserve first. Until it is whole again no append gets new space ([`Reserve::fill`] comes before); so deletions are not
//! outrun by producers.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_runtime::buffer::BLOCK_BYTES;
use ringmq_runtime::file::{File, OpenOptions};
use ringmq_runtime::fs;
use ringmq_runtime::local::Semaphore;

/// The reserve is given up in so many pieces.
const PIECES: u64 = 8;

/// Space that is kept for a full disk. Clones share it.
#[derive(Clone)]
pub struct Reserve(Option<Rc<Inner>>);

struct Inner {
    path: PathBuf,
    bytes: u64,
    /// All of it is there, as far as is known.
    whole: Cell<bool>,
    /// Open once it has been looked for.
    file: RefCell<Option<File>>,
    /// One unit: whoever fills it or gives something up.
    changing: Semaphore,
}

impl Reserve {
    /// No reserve: nothing is kept, and nothing waits for it.
    #[must_use]
    pub fn none() -> Reserve {
        Reserve(None)
    }

    /// A reserve of that many bytes, rounded up to whole blocks. What an earlier process kept in the file at `path` counts;
    /// its directory must be there, durably. Nothing is asked of the disk before [`Reserve::fill`].
    #[must_use]
    pub fn new(path: &Path, bytes: u64) -> Reserve {
        let bytes = bytes.next_multiple_of(PIECES * BLOCK_BYTES as u64);
        let (whole, file, changing) = (Cell::new(false), RefCell::default(), Semaphore::new(1));
        Reserve(Some(Rc::new(Inner { path: path.to_owned(), bytes, whole, file, changing })))
    }

    /// Takes from the disk what is missing of the reserve, durably; nothing where nothing is.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] where the disk has too little room for all of it; it is then as it was. What the
    /// file system says otherwise.
    pub async fn fill(&self) -> io::Result<()> {
        let Some(inner) = self.0.as_ref().filter(|inner| !inner.whole.get()) else { return Ok(()) };
        let _alone = inner.changing.acquire(1).await;
        if inner.whole.get() {
            return Ok(());
        }
        inner.fill().await?;
        inner.whole.set(true);
        Ok(())
    }

    /// Gives a piece up; whether there was one. `purpose` says what for, in the broker's own log.
    pub async fn give_up(&self, purpose: &str) -> bool {
        let Some(inner) = &self.0 else { return false };
        let _alone = inner.changing.acquire(1).await;
        inner.whole.set(false);
        let (reserve, bytes) = (inner.path.display(), inner.bytes);
        match inner.give_up().await {
            Ok(None) => false,
            Ok(Some(left)) => {
                tracing::warn!(
                    %reserve, left, bytes, purpose,
                    "the disk is full: a part of the space that is kept for that is given up. Free some, and it is kept again"
                );
                true
            }
            Err(error) => {
                tracing::warn!(%reserve, %error, purpose, "the disk is full, and the space that is kept cannot be given up");
                false
            }
        }
    }

    /// Attempts something until it succeeds, fails for another reason than a full disk, or nothing is left to give up.
    pub async fn lend<T, E>(
        &self,
        purpose: &str,
        is_full: impl Fn(&E) -> bool,
        attempt: impl AsyncFn() -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            match attempt().await {
                Err(error) if is_full(&error) && self.give_up(purpose).await => {}
                done => return done,
            }
        }
    }
}

impl Inner {
    async fn fill(&self) -> io::Result<()> {
        let file = self.open(true).await?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let before = file.size().await?;
        if let Err(error) = file.preallocate(self.bytes).await {
            // Some file systems keep what they found.
            file.truncate(before.min(self.bytes)).await?;
            return Err(error);
        }
        file.truncate(self.bytes).await?;
        file.fdatasync().await?;
        if before < self.bytes {
            let (reserve, bytes) = (self.path.display(), self.bytes);
            tracing::info!(%reserve, bytes, "space is kept for deletions and starts on a full disk");
        }
        Ok(())
    }

    /// How much is left, if there was anything.
    async fn give_up(&self) -> io::Result<Option<u64>> {
        let Some(file) = self.open(false).await? else { return Ok(None) };
        let kept = file.size().await?;
        if kept == 0 {
            return Ok(None);
        }
        let left = kept.saturating_sub(self.bytes / PIECES) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        file.truncate(left).await?;
        Ok(Some(left))
    }

    /// The file; `None` where there is none and it is not to be created.
    async fn open(&self, create: bool) -> io::Result<Option<File>> {
        if let Some(file) = &*self.file.borrow() {
            return Ok(Some(file.clone()));
        }
        let existing = OpenOptions { write: true, ..OpenOptions::default() };
        let file = match File::open(&self.path, existing).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = File::open(&self.path, OpenOptions { create_new: true, ..existing }).await?;
                fs::sync_dir(self.path.parent().unwrap_or(&self.path)).await?;
                file
            }
            file => file?,
        };
        *self.file.borrow_mut() = Some(file.clone());
        Ok(Some(file))
    }
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_ref().map(|inner| inner.whole.get());
        f.debug_struct("Reserve").field("whole", &whole).finish_non_exhaustive()
    }
}
