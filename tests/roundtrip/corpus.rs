//! Real text from this machine.

use std::path::{Path, PathBuf};

use bytes::Bytes;

/// Files longer than this would make one key most of the run.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// A longer line is more than a default broker takes in one batch.
const LINE_BYTES_MAX: usize = 512 << 10;

/// One text file: its key and its lines' bytes.
#[derive(Debug)]
pub(crate) struct TextFile {
    pub(crate) key: Bytes,
    pub(crate) text: Bytes,
}

impl TextFile {
    /// The lines without their newlines; what follows the last newline is a line too when it is not empty.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Bytes> + '_ {
        let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        text.split(|&byte| byte == b'\n').map(|line| self.text.slice_ref(line))
    }
}

/// The text of one run.
#[derive(Debug)]
pub(crate) struct Corpus {
    files: Vec<TextFile>,
    bytes: u64,
    lines: u64,
}

impl Corpus {
    /// Reads text files below `roots`, in name order, until there are `bytes_wanted`.
    ///
    /// # Errors
    /// When there is less text than that.
    pub(crate) fn gather(roots: &[PathBuf], bytes_wanted: u64) -> Result<Self, String> {
        let mut corpus = Self { files: Vec::new(), bytes: 0, lines: 0 };
        for root in roots {
            corpus.gather_below(root, bytes_wanted);
        }
        if corpus.bytes < bytes_wanted {
            return Err(format!(
                "{} bytes of text below {roots:?}, {bytes_wanted} wanted: name more roots",
                corpus.bytes
            ));
        }
        Ok(corpus)
    }

    pub(crate) fn files(&self) -> &[TextFile] {
        &self.files
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    fn gather_below(&mut self, dir: &Path, bytes_wanted: u64) {
        // A directory that cannot be read holds no text for this run.
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if self.bytes >= bytes_wanted {
                return;
            }
            match path.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => self.gather_below(&path, bytes_wanted),
                Ok(metadata) if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX => self.take(&path),
                _ => {}
            }
        }
    }

    fn take(&mut self, path: &Path) {
        let Ok(text) = std::fs::read(path) else { return };
        if text.is_empty() || std::str::from_utf8(&text).is_err() || text.contains(&0) {
            return;
        }
        let file = TextFile { key: Bytes::from(path.display().to_string()), text: Bytes::from(text) };
        if file.lines().any(|line| line.len() > LINE_BYTES_MAX) {
            return;
        }
        self.bytes += file.text.len() as u64;
        self.lines += file.lines().count() as u64;
        self.files.push(file);
    }
}
