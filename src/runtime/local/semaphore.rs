//! A count of units, taken in the order asked for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Units (bytes, requests) of which a bounded number is out at any time.
///
/// First come, first served: a large request at the head keeps smaller ones behind it waiting. A request for more
/// than the semaphore ever had is granted when nothing else is out, so that one thing beyond the bound passes alone
/// instead of waiting for ever.
#[derive(Clone)]
pub struct Semaphore(Rc<RefCell<State>>);

struct State {
    capacity: usize,
    /// Units out. May exceed `capacity` while an oversized request is out alone.
    taken: usize,
    waiting: VecDeque<Rc<RefCell<Waiter>>>,
}

struct Waiter {
    units: usize,
    stage: Stage,
}

enum Stage {
    Waiting(Waker),
    Granted,
}

impl State {
    fn fits(&self, units: usize) -> bool {
        self.taken == 0 || self.taken.saturating_add(units) <= self.capacity
    }
}

impl Semaphore {
    /// A semaphore with that many units.
    pub fn new(units: usize) -> Semaphore {
        Semaphore(Rc::new(RefCell::new(State { capacity: units, taken: 0, waiting: VecDeque::new() })))
    }

    /// Takes units, waiting for them behind everyone who asked before.
    pub fn acquire(&self, units: usize) -> Acquire {
        Acquire { semaphore: self.clone(), units, waiter: None, done: false }
    }

    /// Takes units if they are there now and nobody waits.
    pub fn try_acquire(&self, units: usize) -> Option<Permit> {
        let mut state = self.0.borrow_mut();
        if !state.waiting.is_empty() || !state.fits(units) {
            return None;
        }
        state.taken += units;
        Some(Permit { semaphore: self.clone(), units })
    }

    /// Units that are not out.
    pub fn available(&self) -> usize {
        let state = self.0.borrow();
        state.capacity.saturating_sub(state.taken)
    }

    fn release(&self, units: usize) {
        self.0.borrow_mut().taken -= units;
        self.grant();
    }

    /// Gives what is there to those at the head of the queue.
    fn grant(&self) {
        loop {
            let granted = {
                let mut state = self.0.borrow_mut();
                let Some(head) = state.waiting.front().cloned() else { return };
                let mut head = head.borrow_mut();
                if !state.fits(head.units) {
                    return;
                }
                state.taken += head.units;
                state.waiting.pop_front();
                std::mem::replace(&mut head.stage, Stage::Granted)
            };
            if let Stage::Waiting(waker) = granted {
                waker.wake();
            }
        }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.borrow();
        f.debug_struct("Semaphore")
            .field("capacity", &state.capacity)
            .field("taken", &state.taken)
            .field("waiting", &state.waiting.len())
            .finish()
    }
}

/// The future of [`Semaphore::acquire`]. Dropping it gives up the place in the queue.
#[must_use = "futures do nothing unless awaited"]
pub struct Acquire {
    semaphore: Semaphore,
    units: usize,
    waiter: Option<Rc<RefCell<Waiter>>>,
    done: bool,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let Some(waiter) = self.waiter.clone() else {
            if let Some(permit) = self.semaphore.try_acquire(self.units) {
                self.done = true;
                return Poll::Ready(permit);
            }
            let stage = Stage::Waiting(cx.waker().clone());
            let waiter = Rc::new(RefCell::new(Waiter { units: self.units, stage }));
            self.semaphore.0.borrow_mut().waiting.push_back(waiter.clone());
            self.waiter = Some(waiter);
            return Poll::Pending;
        };
        let mut waiter = waiter.borrow_mut();
        if let Stage::Waiting(waker) = &mut waiter.stage {
            waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        self.done = true;
        Poll::Ready(Permit { semaphore: self.semaphore.clone(), units: self.units })
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take().filter(|_| !self.done) else { return };
        if matches!(waiter.borrow().stage, Stage::Granted) {
            // Granted but never taken: pass it on.
            self.semaphore.release(self.units);
            return;
        }
        self.semaphore.0.borrow_mut().waiting.retain(|other| !Rc::ptr_eq(other, &waiter));
        // It may have been the one that everyone waited behind.
        self.semaphore.grant();
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("units", &self.units).finish_non_exhaustive()
    }
}

/// Units taken from a [`Semaphore`]; dropping gives them back.
#[must_use = "dropping the permit gives the units back"]
pub struct Permit {
    semaphore: Semaphore,
    units: usize,
}

impl Permit {
    /// How many units it holds.
    pub fn units(&self) -> usize {
        self.units
    }

    /// Gives back what is held beyond `units`; does nothing when it holds no more than that.
    pub fn shrink_to(&mut self, units: usize) {
        if let Some(beyond) = self.units.checked_sub(units).filter(|beyond| *beyond > 0) {
            self.units = units;
            self.semaphore.release(beyond);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.semaphore.release(self.units);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("units", &self.units).finish_non_exhaustive()
    }
}
