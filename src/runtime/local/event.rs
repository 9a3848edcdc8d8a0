//! A signal that several tasks wait for.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// A signal without a value: [`Event::notify_all`] ends the wait of every listener made before it.
///
/// Take the listener *before* looking at the condition, or the signal between the two is lost:
/// ```
/// # async fn wait(queue: std::rc::Rc<std::cell::RefCell<Vec<u8>>>, filled: ringmq_runtime::local::Event) -> u8 {
/// loop {
///     let listener = filled.listen();
///     if let Some(byte) = queue.borrow_mut().pop() {
///         return byte;
///     }
///     listener.await;
/// }
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Event(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    /// Rises with each signal: a listener is done when it differs from the one it was made in.
    generation: u64,
    /// Wakers of listeners of the current generation, by their slot; that of a dropped listener is used again.
    waiting: Slab<Waker>,
    /// The memory of the last signal's wakers, for the next ones.
    spare: Slab<Waker>,
}

impl Event {
    /// An event that nobody waits for.
    pub fn new() -> Event {
        Event::default()
    }

    /// A future that is done once [`Event::notify_all`] is called after this call.
    pub fn listen(&self) -> Listener {
        Listener { event: self.0.clone(), generation: self.0.borrow().generation, slot: None }
    }

    /// For how many listeners there is memory.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.0.borrow().waiting.capacity()
    }

    /// Ends the wait of every listener there is.
    pub fn notify_all(&self) {
        let mut waiting = {
            let mut state = self.0.borrow_mut();
            state.generation += 1;
            let spare = std::mem::take(&mut state.spare);
            std::mem::replace(&mut state.waiting, spare)
        };
        // Woken with the borrow ended: a waker is foreign code.
        for waker in waiting.drain() {
            waker.wake();
        }
        self.0.borrow_mut().spare = waiting;
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("waiting", &self.0.borrow().waiting.len()).finish()
    }
}

/// Waits for the next signal of an [`Event`].
#[must_use = "futures do nothing unless awaited"]
pub struct Listener {
    event: Rc<RefCell<State>>,
    generation: u64,
    slot: Option<usize>,
}

impl Listener {
    /// Done with the first of the two signals.
    pub async fn or(self, other: Listener) {
        let (mut one, mut other) = (self, other);
        std::future::poll_fn(|cx| match Pin::new(&mut one).poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => Pin::new(&mut other).poll(cx),
        })
        .await;
    }
}

impl Future for Listener {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let event = self.event.clone();
        let mut state = event.borrow_mut();
        if state.generation != self.generation {
            self.slot = None;
            return Poll::Ready(());
        }
        match self.slot {
            Some(slot) => state.waiting[slot].clone_from(cx.waker()),
            None => self.slot = Some(state.waiting.insert(cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.event.borrow_mut();
        if let Some(slot) = self.slot
            && state.generation == self.generation
        {
            state.waiting.remove(slot);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("generation", &self.generation).finish_non_exhaustive()
    }
}
