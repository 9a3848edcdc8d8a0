//! The responses of one connection on their way to its socket: encoded into one buffer, gathered into one write, record
//! bytes sent from where they lie.
//!
//! Two buffers change places: while one is written the other fills, so that encoded bytes need no new memory in the steady
//! state; a write allocates the list of its pieces.
//! How much can wait here is bounded by the permits that every response holds: see [`Hold`].

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use ringmq_runtime::buffer::IoBuf;
use ringmq_runtime::local::{Event, Permit};
use ringmq_runtime::net::WriteHalf;
use ringmq_runtime::time::Instant;

use crate::limits::{OUTBOX_BYTES_MAX, WRITE_BYTES_MAX};
use crate::reply_bytes::CopiedBatches;
use crate::room::Held;
use crate::stats::{Stage, Stats};

/// Record bytes on their way out, wherever they lie.
#[derive(Debug)]
pub(crate) enum Slice {
    /// In a buffer of this shard, shared with its tail cache or read from disk.
    Local(IoBuf),
    /// Copied over from the shard that owns them.
    Copied(CopiedBatches),
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Slice::Local(bytes) => bytes,
            Slice::Copied(bytes) => bytes,
        }
    }
}

/// What a response keeps until the kernel has it.
#[derive(Debug)]
pub(crate) struct Hold {
    /// Its place among the connection's requests in flight or, where more answers to its request come, among those of them
    /// that the peer has not taken.
    pub(crate) _slot: Option<Permit>,
    /// Its turn among those of its kind, where there are few.
    pub(crate) _turn: Option<Permit>,
    /// Room for itself, and for its records, in the bounds of what the connection and the shard hold until peers take it.
    pub(crate) _room: Held,
    /// The last stage on its way, and when it began.
    pub(crate) stage: (Stage, Instant),
}

/// Responses that wait for the socket.
#[derive(Default)]
struct Pending {
    /// Everything that was encoded, response after response.
    encoded: BytesMut,
    /// Record bytes, each with the place in `encoded` that it goes before.
    slices: Vec<(usize, Slice)>,
    holds: Vec<Hold>,
}

impl Pending {
    /// What goes to the socket, in order.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.slices.iter().map(|(at, _)| *at));
        let ends = self.slices.iter().map(|(at, _)| *at).chain([self.encoded.len()]);
        let records = self.slices.iter().map(|(_, slice)| &**slice).chain([&[][..]]);
        starts
            .zip(ends)
            .zip(records)
            .flat_map(|((start, end), records)| [&self.encoded[start..end], records])
            .filter(|piece| !piece.is_empty())
    }

    fn clear(&mut self) {
        self.encoded.clear();
        if self.encoded.capacity() > ENCODED_BYTES_KEPT {
            self.encoded = BytesMut::new();
        }
        self.slices.clear();
        self.holds.clear();
    }
}

/// An outbox that had a rare large response does not keep its memory.
const ENCODED_BYTES_KEPT: usize = 64 * 1024;

/// Where handlers put their responses. Clones are the same outbox.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Rc<Inner>);

#[derive(Default)]
struct Inner {
    pending: RefCell<Pending>,
    changed: Event,
    /// Bytes of encoded responses that the kernel has not taken.
    encoded_bytes: Cell<usize>,
    written: Event,
    /// Nothing more will come.
    finished: Cell<bool>,
    /// Nothing more can be sent.
    broken: Cell<bool>,
    /// When the peer last took something of what is being written.
    writing_since: Cell<Option<Instant>>,
}

impl Outbox {
    /// Puts a response in: its encoded bytes, then the records of its sections. With a broken connection nothing is done.
    pub(crate) fn put(&self, hold: Hold, encoded: &[u8], records: Vec<Slice>) {
        if self.0.broken.get() {
            return;
        }
        {
            let mut pending = self.0.pending.borrow_mut();
            pending.encoded.extend_from_slice(encoded);
            let at = pending.encoded.len();
            pending.slices.extend(records.into_iter().map(|slice| (at, slice)));
            pending.holds.push(hold);
        }
        self.0.encoded_bytes.set(self.0.encoded_bytes.get() + encoded.len());
        self.0.changed.notify_all();
    }

    /// What `future` gives, or `None` once nothing can be sent any more.
    pub(crate) async fn or_broken<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut broken = pin!(self.broken());
        std::future::poll_fn(|cx| {
            if broken.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Done once nothing can be sent any more.
    pub(crate) async fn broken(&self) {
        loop {
            let written = self.0.written.listen();
            if self.0.broken.get() {
                return;
            }
            written.await;
        }
    }

    /// Waits until the peer has taken so much that another request may be read.
    pub(crate) async fn has_room(&self) {
        loop {
            let written = self.0.written.listen();
            if self.0.encoded_bytes.get() <= OUTBOX_BYTES_MAX || self.0.broken.get() {
                return;
            }
            written.await;
        }
    }

    /// No response will come any more: the writer ends when the last one is written.
    pub(crate) fn finish(&self) {
        self.0.finished.set(true);
        self.0.changed.notify_all();
    }

    /// Nothing more can be sent: what is pending, and what still comes, is dropped.
    pub(crate) fn break_off(&self) {
        self.0.broken.set(true);
        self.0.writing_since.set(None);
        let dropped = self.0.pending.take();
        drop(dropped);
        self.0.written.notify_all();
    }

    /// Whether [`Self::break_off`] was called.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.broken.get()
    }

    /// How long the peer has not taken anything although there is something for it.
    pub(crate) fn stalled_for(&self, now: Instant) -> Duration {
        self.0.writing_since.get().map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Swaps what is pending against the emptied `written`; `false` when nothing more will come.
    async fn next(&self, written: &mut Pending) -> bool {
        loop {
            let changed = self.0.changed.listen();
            if !self.0.pending.borrow().encoded.is_empty() {
                std::mem::swap(&mut *self.0.pending.borrow_mut(), written);
                return true;
            }
            if self.0.finished.get() {
                return false;
            }
            changed.await;
        }
    }
}

/// Writes responses until the outbox is finished, then tells the peer that nothing more comes.
///
/// # Errors
/// When the peer is gone. The caller breaks the outbox off then.
pub(crate) async fn write_responses(outbox: &Outbox, socket: &mut WriteHalf, stats: &Stats) -> io::Result<()> {
    let mut pending = Pending::default();
    while outbox.next(&mut pending).await {
        let written = write_pending(outbox, socket, &pending).await;
        outbox.0.writing_since.set(None);
        written?;
        let now = Instant::now();
        for hold in &pending.holds {
            let (stage, since) = hold.stage;
            stats.record(stage, now.saturating_duration_since(since));
        }
        let left = outbox.0.encoded_bytes.get().saturating_sub(pending.encoded.len());
        outbox.0.encoded_bytes.set(left);
        pending.clear();
        outbox.0.written.notify_all();
    }
    socket.shutdown()
}

/// Writes everything, in steps that let [`Outbox::stalled_for`] see a slow peer's progress.
async fn write_pending(outbox: &Outbox, socket: &mut WriteHalf, pending: &Pending) -> io::Result<()> {
    let mut step: Vec<&[u8]> = Vec::with_capacity(2 * pending.slices.len() + 1);
    let mut step_bytes = 0;
    for mut piece in pending.pieces() {
        while step_bytes + piece.len() > WRITE_BYTES_MAX {
            let (head, rest) = piece.split_at(WRITE_BYTES_MAX - step_bytes);
            step.push(head);
            piece = rest;
            write_step(outbox, socket, &mut step).await?;
            step_bytes = 0;
        }
        step_bytes += piece.len();
        step.push(piece);
    }
    write_step(outbox, socket, &mut step).await
}

async fn write_step(outbox: &Outbox, socket: &mut WriteHalf, step: &mut Vec<&[u8]>) -> io::Result<()> {
    outbox.0.writing_since.set(Some(Instant::now()));
    socket.write_all_vectored(step).await?;
    step.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply_bytes::tests::room;

    fn slice(bytes: &[u8]) -> Slice {
        Slice::Copied(CopiedBatches::copy(bytes, &room(bytes.len())))
    }

    #[test]
    fn records_stand_between_the_responses_that_they_belong_to() {
        let mut pending = Pending::default();
        pending.encoded.extend_from_slice(b"head1");
        pending.slices.extend([(5, slice(b"records1a")), (5, slice(b"")), (5, slice(b"records1b"))]);
        pending.encoded.extend_from_slice(b"small");
        pending.encoded.extend_from_slice(b"head2");
        pending.slices.push((15, slice(b"records2")));
        pending.encoded.extend_from_slice(b"last");
        let pieces: Vec<&[u8]> = pending.pieces().collect();
        assert_eq!(pieces, [&b"head1"[..], b"records1a", b"records1b", b"smallhead2", b"records2", b"last"]);
        pending.clear();
        assert_eq!(pending.pieces().count(), 0);
    }
}
