//! Channels between executors and threads: bounded, many senders, one receiver.
//!
//! Messages are moved, never shared. Waking an executor that sleeps costs a system call and some microseconds, so
//! what belongs together goes in one message.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::backend::{self, Backend};
use crate::glommio::doorbell::AtTheDoor;
use crate::task;

pub use crate::local::Dropped;

/// Messages that a receiver takes in a row before the executor looks at its sockets and files again. A channel that is
/// filled faster than it is emptied would keep everything else of the core waiting.
const IN_A_ROW_MAX: u32 = 64;

/// Makes a channel that holds `capacity` messages.
///
/// # Panics
/// When `capacity` is zero.
pub fn bounded<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = async_channel::bounded(capacity);
    (Sender(sender), Receiver { channel: receiver, in_a_row: 0, waits: RemotePoll::default() })
}

/// The receiver is gone; the message comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receiving side of the channel has ended")]
pub struct Closed<T>(pub T);

/// Why [`Sender::try_send`] gave the message back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<T> {
    /// As many messages wait as the channel holds.
    #[error("the channel is full")]
    Full(T),
    /// The receiver is gone.
    #[error("the receiving side of the channel has ended")]
    Closed(T),
}

/// Puts messages in. The receiver sees the end when the last clone is dropped.
pub struct Sender<T>(async_channel::Sender<T>);

impl<T: Send> Sender<T> {
    /// Sends, waiting for room. The messages of one sender arrive in the order sent.
    ///
    /// # Errors
    /// Gives the message back when the receiver is gone.
    pub async fn send(&self, message: T) -> Result<(), Closed<T>> {
        let message = match self.try_send(message) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(message)) => return Err(Closed(message)),
            Err(TrySendError::Full(message)) => message,
        };
        let mut send = pin!(self.0.send(message));
        let mut waits = RemotePoll::default();
        poll_fn(|cx| waits.poll(send.as_mut(), cx)).await.map_err(|error| Closed(error.0))
    }

    /// Sends if there is room now.
    ///
    /// # Errors
    /// Gives the message back when there is none or the receiver is gone.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(message).map_err(|error| match error {
            async_channel::TrySendError::Full(message) => TrySendError::Full(message),
            async_channel::TrySendError::Closed(message) => TrySendError::Closed(message),
        })
    }

    /// As [`Sender::send`] from a thread that runs no executor: blocks it until there is room.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn send_blocking(&self, message: T) -> Result<(), Closed<T>> {
        self.0.send_blocking(message).map_err(|error| Closed(error.0))
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender(self.0.clone())
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("waiting", &self.0.len()).finish()
    }
}

/// Takes messages out.
pub struct Receiver<T> {
    channel: async_channel::Receiver<T>,
    /// Messages since the last time that it had to wait.
    in_a_row: u32,
    waits: RemotePoll,
}

impl<T: Send> Receiver<T> {
    /// The next message; `None` when all senders are gone and nothing is left. Dropping the future loses no message.
    pub async fn recv(&mut self) -> Option<T> {
        if self.in_a_row >= IN_A_ROW_MAX && backend::try_current().is_some() {
            self.in_a_row = 0;
            task::yield_to_io().await;
        }
        if let Ok(message) = self.channel.try_recv() {
            self.in_a_row += 1;
            return Some(message);
        }
        self.in_a_row = 0;
        let mut recv = pin!(self.channel.recv());
        poll_fn(|cx| self.waits.poll(recv.as_mut(), cx)).await.ok()
    }

    /// The next message, if one is there.
    pub fn try_recv(&mut self) -> Option<T> {
        self.channel.try_recv().ok()
    }

    /// As [`Receiver::recv`] on a thread that runs no executor: blocks it until there is one.
    pub fn recv_blocking(&mut self) -> Option<T> {
        self.channel.recv_blocking().ok()
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.channel.len()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.channel.is_empty()
    }
}

impl<T> Drop for Receiver<T> {
    /// Drops what nobody will take any more: a sender that lives on would keep it, and with it whoever waits for its
    /// answer.
    fn drop(&mut self) {
        self.channel.close();
        while self.channel.try_recv().is_ok() {}
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("waiting", &self.channel.len()).finish()
    }
}

/// Makes a pair for one value between two executors or threads.
pub fn oneshot<T: Send>() -> (OneshotSender<T>, OneshotReceiver<T>) {
    let slot = Arc::new(Mutex::new(Slot { value: None, waker: None, sender_alive: true, receiver_alive: true }));
    (OneshotSender(slot.clone()), OneshotReceiver { slot: Waits(slot), waits: RemotePoll::default() })
}

struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
    sender_alive: bool,
    receiver_alive: bool,
}

/// No code of others runs under the lock, so a poisoned slot is still whole.
fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the value.
pub struct OneshotSender<T>(Arc<Mutex<Slot<T>>>);

impl<T: Send> OneshotSender<T> {
    /// Hands the value over.
    ///
    /// # Errors
    /// Gives the value back when the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut slot = lock(&self.0);
        if !slot.receiver_alive {
            return Err(value);
        }
        slot.value = Some(value);
        Ok(())
        // The drop of `self` wakes the receiver.
    }

    /// Whether nobody waits for the value any more.
    pub fn is_abandoned(&self) -> bool {
        !lock(&self.0).receiver_alive
    }
}

impl<T> Drop for OneshotSender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut slot = lock(&self.0);
            slot.sender_alive = false;
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> fmt::Debug for OneshotSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneshotSender")
    }
}

/// The future of the value.
#[must_use = "futures do nothing unless awaited"]
pub struct OneshotReceiver<T> {
    slot: Waits<T>,
    waits: RemotePoll,
}

impl<T: Send> Future for OneshotReceiver<T> {
    type Output = Result<T, Dropped>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Dropped>> {
        let this = &mut *self;
        this.waits.poll(Pin::new(&mut this.slot), cx)
    }
}

/// The part of a receiver that looks into the slot.
struct Waits<T>(Arc<Mutex<Slot<T>>>);

impl<T: Send> Future for Waits<T> {
    type Output = Result<T, Dropped>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Dropped>> {
        let mut slot = lock(&self.0);
        if let Some(value) = slot.value.take() {
            return Poll::Ready(Ok(value));
        }
        if !slot.sender_alive {
            return Poll::Ready(Err(Dropped));
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T> Drop for Waits<T> {
    fn drop(&mut self) {
        let mut slot = lock(&self.0);
        slot.receiver_alive = false;
        let (value, waker) = (slot.value.take(), slot.waker.take());
        drop(slot);
        drop((value, waker));
    }
}

impl<T> fmt::Debug for OneshotReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneshotReceiver")
    }
}

/// Polls what another thread wakes. On a glommio executor the wake-up takes the way through its door.
#[derive(Debug, Default)]
struct RemotePoll(AtTheDoor);

impl RemotePoll {
    fn poll<F: Future>(&mut self, future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match backend::try_current().as_deref() {
            Some(backend::Context { backend: Backend::Glommio(core), .. }) => self.0.poll(&core.door, future, cx),
            #[cfg(feature = "sim")]
            Some(backend::Context { backend: Backend::Sim(world), .. }) => world.bell().poll(future, cx),
            // An executor of someone else's.
            None => future.poll(cx),
        }
    }
}

#[cfg(test)]
mod tests;
