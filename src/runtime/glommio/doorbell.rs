//! How other threads wake tasks of an executor.
//!
//! glommio's wakers may be used from other threads, but not without danger: the thread that drops the last one
//! touches the task once more after it has given up its reference, while the executor may just be freeing it
//! (`drop_waker` in glommio 0.9's `task/raw.rs`). So no waker of an ordinary task ever leaves its thread. What leaves
//! is a number; whoever wakes writes it down in the executor's [`Bell`] and wakes the one task that lives as long as
//! the executor, which wakes the others from within.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// The outside of an executor's door.
#[derive(Default)]
struct Bell(Mutex<Rung>);

#[derive(Default)]
struct Rung {
    /// Places whose tasks are to be woken.
    wake: Vec<usize>,
    /// Places that nobody will name again.
    vacated: Vec<usize>,
    /// Wakes the task that answers the door; `None` before its first poll and after the executor's end.
    answerer: Option<Waker>,
}

impl Bell {
    /// Only this module's own code runs under the lock, so a poisoned state is still whole.
    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, place: usize) {
        let mut rung = self.lock();
        rung.wake.push(place);
        // Whoever rang before has woken the answerer, and it has not come yet.
        if rung.wake.len() == 1
            && let Some(answerer) = &rung.answerer
        {
            // By reference, under the lock: this thread never holds a reference of its own that it would drop.
            answerer.wake_by_ref();
        }
    }
}

/// The inside of an executor's door.
pub(crate) struct Door {
    bell: Arc<Bell>,
    /// The tasks that wait for other threads, by place; vacant places are linked through `vacant`.
    waiting: RefCell<Waiting>,
}

#[derive(Default)]
struct Waiting {
    places: Vec<Option<Waker>>,
    vacant: Vec<usize>,
}

impl Door {
    pub(super) fn new() -> Rc<Door> {
        Rc::new(Door { bell: Arc::default(), waiting: RefCell::default() })
    }

    /// The task that answers: lives as long as the executor, and never ends by itself.
    pub(super) async fn answer(self: Rc<Door>) {
        let mut wake = Vec::new();
        poll_fn(|cx| {
            {
                let mut rung = self.bell.lock();
                std::mem::swap(&mut rung.wake, &mut wake);
                match &mut rung.answerer {
                    Some(answerer) => answerer.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
            }
            for place in wake.drain(..) {
                let waker = self.waiting.borrow_mut().places.get_mut(place).and_then(Option::take);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Takes the answerer's waker back to the thread that it belongs to. Whoever rings afterwards rings in vain.
    pub(super) fn close(&self) {
        let answerer = self.bell.lock().answerer.take();
        drop(answerer);
        let places = std::mem::take(&mut self.waiting.borrow_mut().places);
        drop(places);
    }

    /// A place for a task that starts to wait.
    fn take_place(&self) -> Arc<Place> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.vacant.append(&mut self.bell.lock().vacated);
        let index = waiting.vacant.pop().unwrap_or_else(|| {
            waiting.places.push(None);
            waiting.places.len() - 1
        });
        Arc::new(Place { bell: self.bell.clone(), index })
    }

    fn wait_at(&self, place: &Place, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.places.get_mut(place.index) {
            Some(Some(old)) => old.clone_from(waker),
            Some(none) => *none = Some(waker.clone()),
            // The door was closed: the executor is at its end and polls nobody again.
            None => {}
        }
    }
}

/// What another thread holds of a waiting task.
struct Place {
    bell: Arc<Bell>,
    index: usize,
}

impl Wake for Place {
    fn wake(self: Arc<Place>) {
        self.bell.ring(self.index);
    }

    fn wake_by_ref(self: &Arc<Place>) {
        self.bell.ring(self.index);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bell.lock().vacated.push(self.index);
    }
}

/// Polls a future that other threads wake; keeps its place at the door from one poll, and one future, to the next.
#[derive(Default)]
pub(crate) struct AtTheDoor(Option<Arc<Place>>);

impl AtTheDoor {
    /// Polls `future` so that `cx` is woken from within `door`'s executor, which is the calling thread's.
    pub(crate) fn poll<F: Future>(&mut self, door: &Door, future: Pin<&mut F>, cx: &Context<'_>) -> Poll<F::Output> {
        let place = match &mut self.0 {
            Some(place) if Arc::ptr_eq(&place.bell, &door.bell) => place,
            // None yet, or one of the executor where its owner was before.
            other => other.insert(door.take_place()),
        };
        door.wait_at(place, cx.waker());
        future.poll(&mut Context::from_waker(&Waker::from(place.clone())))
    }
}

impl fmt::Debug for AtTheDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AtTheDoor").field(&self.0.as_ref().map(|place| place.index)).finish()
    }
}

#[cfg(test)]
mod tests;
