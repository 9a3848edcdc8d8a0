//! The thread that carries a blocking client's connections, and waiting for a future without a runtime around it.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;

use crate::error::Error;

/// A tokio runtime of one thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct RuntimeThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RuntimeThread {
    pub(super) fn start() -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Runtime(error.to_string());
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let body = move || {
            // Either way the client is gone.
            let _ = runtime.block_on(stopped);
            // A name that is still being resolved must not hold up the end.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("ringmq-client".to_owned()).spawn(body).map_err(failed)?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Runs `future` on the calling thread until it is done. Its sockets and timers are the runtime thread's.
    ///
    /// Within a task of a tokio runtime each step would be counted against what that task may do before it returns to its
    /// scheduler, which it does not before this does: used up, nothing would ever be ready again. So nothing is counted.
    pub(super) fn wait<F: Future>(&self, future: F) -> F::Output {
        let _entered = self.handle.enter();
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(unconstrained(future));
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            // An unpark that came since the poll makes this return at once; one without a cause does no harm.
            std::thread::park();
        }
    }
}

impl Drop for RuntimeThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A callback may be the last owner. Its thread ends behind it, and cannot wait for itself.
        let other = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id());
        if let Some(thread) = other {
            // It can only have panicked, and said so.
            let _ = thread.join();
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn its_own_thread_may_be_its_last_owner() {
        let thread = RuntimeThread::start().unwrap();
        let handle = thread.handle.clone();
        let (sender, told) = std::sync::mpsc::channel();
        handle.spawn(async move {
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(thread)));
            sender.send(dropped.is_ok()).unwrap();
        });
        assert!(told.recv().unwrap());
    }
}
