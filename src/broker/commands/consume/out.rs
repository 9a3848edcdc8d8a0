//! Standard output on a thread of its own: a pipe that nobody reads keeps that thread, and not the command.

use std::io::{self, Write};
use std::sync::mpsc;

use tokio::sync::mpsc as tokio_mpsc;

/// Writes what it is given to standard output.
#[derive(Debug)]
pub(super) struct Out {
    texts: mpsc::Sender<Vec<u8>>,
    written: tokio_mpsc::UnboundedReceiver<(Vec<u8>, io::Result<()>)>,
}

impl Out {
    /// Starts the thread. The process does not wait for it when it ends.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start() -> io::Result<Self> {
        let (texts, waiting) = mpsc::channel::<Vec<u8>>();
        let (done, written) = tokio_mpsc::unbounded_channel();
        let write = move || {
            for text in waiting {
                let mut out = io::stdout().lock();
                let outcome = out.write_all(&text).and_then(|()| out.flush());
                if done.send((text, outcome)).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new().name("stdout".to_owned()).spawn(write)?;
        Ok(Self { texts, written })
    }

    /// Hands `text` over; [`Out::written`] says what became of it.
    pub(super) fn write(&mut self, text: Vec<u8>) {
        // The thread ends only when this end is dropped.
        let _ = self.texts.send(text);
    }

    /// Waits until the text that was handed over last is written, and gives its memory back. May be cancelled and called
    /// again.
    ///
    /// # Errors
    /// What the system says, for example that the reader of a pipe is gone.
    pub(super) async fn written(&mut self) -> io::Result<Vec<u8>> {
        match self.written.recv().await {
            Some((text, outcome)) => outcome.map(|()| text),
            None => Err(io::Error::other("the thread that writes has ended")),
        }
    }
}
