//! Wake-ups from one core to another take time, as they do through the doors of real executors.
//!
//! A channel's messages lie in memory that both sides see, so a receiver that is awake finds them at once; what takes
//! time is to wake one that sleeps. Simulated channels are the real ones, and only that wake-up is simulated: whoever
//! waits at a channel leaves a waker that rings here, and the machine wakes the task some time later.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Who was woken through a channel and has not been told. Behind a lock only because wakers must be `Send`.
#[derive(Clone, Default)]
pub(crate) struct Bell(Arc<Mutex<Vec<Waker>>>);

impl Bell {
    /// Polls a future whose wake-ups take time.
    pub(crate) fn poll<F: Future>(&self, future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let waker = Waker::from(Arc::new(Ringer { bell: self.clone(), task: cx.waker().clone() }));
        future.poll(&mut Context::from_waker(&waker))
    }

    /// Takes everyone who was woken since the last time, in that order.
    pub(crate) fn answer(&self) -> Vec<Waker> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bell")
    }
}

struct Ringer {
    bell: Bell,
    task: Waker,
}

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.bell.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.task.clone());
    }
}
