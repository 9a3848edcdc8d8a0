//! What a process prints, line by line.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Long enough for a debug build on a busy machine; a line that is not there by then does not come.
const WITHIN: Duration = Duration::from_secs(60);

/// The lines of a pipe, read on a thread of its own, so that the process never blocks on it.
#[derive(Debug)]
pub struct Lines(Receiver<String>);

impl Lines {
    /// Reads `pipe` to its end.
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                // The test may be done with it; the pipe is read on all the same.
                let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        });
        Self(receiver)
    }

    /// The next line; `None` at the end, and when none comes within a minute.
    pub fn next(&self) -> Option<String> {
        self.0.recv_timeout(WITHIN).ok()
    }

    /// Skips to the line that contains `text`.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn until(&self, text: &str) -> String {
        let found = std::iter::from_fn(|| self.next()).find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("no line with {text}"))
    }

    /// What is left of it, to its end.
    pub fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}
