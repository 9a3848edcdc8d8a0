//! Reads the input on a thread of its own, so that a slow pipe or a terminal never keeps acknowledgements waiting.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::sync::mpsc;

/// Bytes read in one piece.
const CHUNK_BYTES: usize = 256 << 10;

/// Pieces that wait for the batches to be built; bounds memory where the broker is slower than the input.
const CHUNKS_WAITING_MAX: usize = 8;

/// Why the input cannot be read.
#[derive(Debug, Error)]
#[error("cannot read {} ({source}); check its name and permissions", name(.path))]
pub(crate) struct InputError {
    path: PathBuf,
    source: io::Error,
}

/// The input as chunks, in order.
#[derive(Debug)]
pub(super) struct Input {
    chunks: mpsc::Receiver<Result<Vec<u8>, InputError>>,
    bytes_total: Option<u64>,
}

impl Input {
    /// Opens a file, or standard input for `-`, and begins to read it.
    ///
    /// # Errors
    /// When there is no such file, it may not be read, or the thread cannot be started.
    pub(super) fn open(path: &Path) -> Result<Self, InputError> {
        let failed = |source| InputError { path: path.to_owned(), source };
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING_MAX);
        let mut bytes_total = None;
        let source: Box<dyn Read + Send> = if path.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            let file = File::open(path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            if metadata.is_dir() {
                return Err(failed(io::ErrorKind::IsADirectory.into()));
            }
            bytes_total = metadata.is_file().then_some(metadata.len());
            Box::new(file)
        };
        let path_read = path.to_owned();
        let read = move || read_all(source, &path_read, &sender);
        // Never joined: a read of a terminal ends when the process does.
        std::thread::Builder::new().name("input".to_owned()).spawn(read).map_err(failed)?;
        Ok(Self { chunks, bytes_total })
    }

    /// How many bytes there are, where that is known beforehand.
    pub(super) fn bytes_total(&self) -> Option<u64> {
        self.bytes_total
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When a read failed; nothing follows.
    pub(super) async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, InputError> {
        self.chunks.recv().await.transpose()
    }
}

fn read_all(mut source: Box<dyn Read + Send>, path: &Path, chunks: &mpsc::Sender<Result<Vec<u8>, InputError>>) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let piece = match source.read(&mut chunk) {
            Ok(0) => return,
            Ok(length) => {
                chunk.truncate(length);
                Ok(chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => Err(InputError { path: path.to_owned(), source }),
        };
        let failed = piece.is_err();
        if chunks.blocking_send(piece).is_err() || failed {
            return;
        }
    }
}

fn name(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() }
}
