//! The bytes that a peer sends, in the pieces that the protocol needs: a bounded buffer for heads and small bodies, and
//! large sections straight into the memory that will be written.

use std::io;

use ringmq_runtime::net::ReadHalf;
use ringmq_runtime::task::Stop;

use crate::limits::{HEAD_READ_BYTES, READ_BUFFER_BYTES_MAX, READ_BUFFER_BYTES_MIN};

/// Why nothing more is read from a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadEnd {
    /// The peer closed its side.
    #[error("the peer closed the connection")]
    Closed,
    /// The shard ends the connection.
    #[error("the connection was ended by the broker")]
    Stopped,
    /// The network failed.
    #[error("reading failed: {0}")]
    Failed(#[from] io::Error),
}

/// Reads one connection. Holds at most the larger of [`READ_BUFFER_BYTES_MAX`] and what its caller asks for at once.
pub(crate) struct FrameReader {
    socket: ReadHalf,
    stop: Stop,
    /// Initialised throughout; `start..end` is what was received and not taken yet.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// How much is asked of the socket when only a head is needed: little after a large section, because what is read
    /// beyond the next head would have to be copied out again.
    read_ahead: usize,
}

impl FrameReader {
    pub(crate) fn new(socket: ReadHalf, stop: Stop) -> Self {
        let buffer = vec![0; READ_BUFFER_BYTES_MIN];
        Self { socket, stop, buffer, start: 0, end: 0, read_ahead: READ_BUFFER_BYTES_MAX }
    }

    /// What is here already.
    pub(crate) fn available(&self) -> usize {
        self.end - self.start
    }

    /// Waits until `len` bytes are here and shows them; [`Self::consume`] takes them. The caller has checked `len`
    /// against its limit: the buffer grows to it, and no further.
    ///
    /// # Errors
    /// When the connection ends before they have come.
    pub(crate) async fn peek(&mut self, len: usize) -> Result<&[u8], ReadEnd> {
        while self.available() < len {
            self.make_room(len);
            let until = self.buffer.len().min(self.end + self.read_ahead.max(len - self.available()));
            let wanted = until - self.end;
            let read = receive(&mut self.socket, &self.stop, &mut self.buffer[self.end..until]).await?;
            self.end += read;
            if read == wanted && self.read_ahead == READ_BUFFER_BYTES_MAX {
                self.grow();
            }
        }
        Ok(&self.buffer[self.start..self.start + len])
    }

    /// Takes bytes that [`Self::peek`] has shown.
    pub(crate) fn consume(&mut self, len: usize) {
        debug_assert!(len <= self.available());
        self.start += len.min(self.available());
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.buffer.len() > READ_BUFFER_BYTES_MAX {
                // A rare large request is over: do not keep its memory for the life of the connection.
                self.buffer = vec![0; READ_BUFFER_BYTES_MIN];
            }
        }
    }

    /// Fills `target`, first from the buffer and then from the socket without a copy between.
    ///
    /// # Errors
    /// When the connection ends before it is full.
    pub(crate) async fn read_exact(&mut self, target: &mut [u8]) -> Result<(), ReadEnd> {
        let buffered = self.available().min(target.len());
        target[..buffered].copy_from_slice(&self.buffer[self.start..self.start + buffered]);
        self.consume(buffered);
        let mut filled = buffered;
        while filled < target.len() {
            filled += receive(&mut self.socket, &self.stop, &mut target[filled..]).await?;
        }
        Ok(())
    }

    /// Drops the next `len` bytes: the rest of a request that was refused.
    ///
    /// # Errors
    /// When the connection ends before.
    pub(crate) async fn skip(&mut self, len: usize) -> Result<(), ReadEnd> {
        let mut left = len;
        while left > 0 {
            if self.available() == 0 {
                self.peek(1).await?;
            }
            let taken = self.available().min(left);
            self.consume(taken);
            left -= taken;
        }
        Ok(())
    }

    /// Reads and drops what still comes, until the peer closes or has sent `bytes_max`. The signal to stop reading is for
    /// requests; this is about closing well, and the caller bounds its time.
    pub(crate) async fn discard(&mut self, bytes_max: usize) {
        let mut discarded = 0;
        while discarded < bytes_max {
            match self.socket.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => discarded += read,
            }
        }
    }

    /// Says whether a section that is received with [`Self::read_exact`], past the buffer, is likely to come after the
    /// next head.
    pub(crate) fn expect_large_section(&mut self, expected: bool) {
        self.read_ahead = if expected { HEAD_READ_BYTES } else { READ_BUFFER_BYTES_MAX };
    }

    /// Makes sure that at least one byte fits behind `end`, on the way to `len` bytes behind `start`.
    fn make_room(&mut self, len: usize) {
        if self.end < self.buffer.len() {
            return;
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            return;
        }
        // Doubled as bytes arrive, so that a length alone never makes us allocate much more than was sent.
        let grown = (self.buffer.len() * 2).min(len.max(READ_BUFFER_BYTES_MAX));
        self.buffer.resize(grown, 0);
    }

    /// The peer sends faster than the buffer takes: larger reads are cheaper.
    fn grow(&mut self) {
        if self.buffer.len() < READ_BUFFER_BYTES_MAX {
            let grown = (self.buffer.len() * 2).min(READ_BUFFER_BYTES_MAX);
            self.buffer.resize(grown, 0);
        }
    }
}

/// Some bytes, at least one.
async fn receive(socket: &mut ReadHalf, stop: &Stop, target: &mut [u8]) -> Result<usize, ReadEnd> {
    match stop.or_stop(socket.read(target)).await {
        None => Err(ReadEnd::Stopped),
        Some(Ok(0)) => Err(ReadEnd::Closed),
        Some(Ok(read)) => Ok(read),
        Some(Err(error)) => Err(ReadEnd::Failed(error)),
    }
}
