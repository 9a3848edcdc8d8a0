//! Tasks of this executor: spawning, counting, stopping, and finding those that hold the core for too long.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::backend::{self, Backend};
use crate::glommio;
use crate::local::Event;
use crate::stall::Timed;

pub use crate::stall::Stall;

/// Which run queue of the executor a task belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// What someone waits for.
    Foreground,
    /// Checkpoints, compaction, deletion: gets a tenth of the core while the foreground is busy.
    Background,
}

/// Starts a task on this executor and lets go of it. It runs until its future is done or the executor ends.
/// `name` is what the stall detector calls it.
///
/// # Panics
/// Outside an executor. A panic inside the future ends the whole process in release builds.
pub fn spawn(name: &'static str, future: impl Future<Output = ()> + 'static) {
    spawn_into(Queue::Foreground, name, future);
}

/// As [`spawn`], in the queue for background work, which gets few shares of the core while the foreground is busy.
///
/// # Panics
/// As [`spawn`].
pub fn spawn_background(name: &'static str, future: impl Future<Output = ()> + 'static) {
    spawn_into(Queue::Background, name, future);
}

fn spawn_into(queue: Queue, name: &'static str, future: impl Future<Output = ()> + 'static) {
    match &backend::current().backend {
        Backend::Glommio(core) => core.spawn(queue, Timed::new(name, future)),
        #[cfg(feature = "sim")]
        Backend::Sim(world) => world.spawn(queue, name, Box::pin(future)),
    }
}

/// Lets every other ready task of this queue run once.
/// Input and output are *not* looked at: see [`yield_to_io`].
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Lets the executor look at its sockets, files and timers before this task goes on. Work that computes for long
/// calls it every 200 µs; a plain [`yield_now`] would keep the rings waiting.
pub async fn yield_to_io() {
    match &backend::current().backend {
        Backend::Glommio(_) => glommio::clock::next_turn().await,
        #[cfg(feature = "sim")]
        Backend::Sim(world) => world.sleep(std::time::Duration::from_nanos(1)).await,
    }
}

/// The tasks of this executor that held its core for longer than its threshold in one go, worst first.
pub fn stalls() -> Vec<Stall> {
    backend::try_current().map(|context| context.stalls.snapshot()).unwrap_or_default()
}

/// Counts tasks, so that whoever started them can wait for their end.
#[derive(Clone, Debug, Default)]
pub struct Gate(Rc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    running: Cell<usize>,
    closed: Cell<bool>,
    emptied: Event,
}

/// The gate was closed before the task could be started; the task was dropped without being polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gate is closed: no new task is started")]
pub struct GateClosed;

impl Gate {
    /// An open gate with no task behind it.
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Starts a counted task in the foreground queue.
    ///
    /// # Errors
    /// After [`Gate::close`] was called.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) -> Result<(), GateClosed> {
        let pass = self.enter()?;
        spawn(name, Counted { future, pass });
        Ok(())
    }

    /// As [`Gate::spawn`], in the queue for background work.
    ///
    /// # Errors
    /// After [`Gate::close`] was called.
    pub fn spawn_background(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + 'static,
    ) -> Result<(), GateClosed> {
        let pass = self.enter()?;
        spawn_background(name, Counted { future, pass });
        Ok(())
    }

    /// Counts a piece of work that is no task of its own, until the pass is dropped.
    ///
    /// # Errors
    /// After [`Gate::close`] was called.
    pub fn enter(&self) -> Result<GatePass, GateClosed> {
        if self.0.closed.get() {
            return Err(GateClosed);
        }
        self.0.running.set(self.0.running.get() + 1);
        Ok(GatePass(self.0.clone()))
    }

    /// Lets nothing new in and waits until everything counted has ended. May be awaited by several at once.
    pub async fn close(&self) {
        self.0.closed.set(true);
        loop {
            let emptied = self.0.emptied.listen();
            if self.0.running.get() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Whether [`Gate::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// How many tasks and passes there are.
    pub fn running(&self) -> usize {
        self.0.running.get()
    }
}

pin_project! {
    /// A task counted by a [`Gate`]. An async block around the future would hold it twice, once as what it was given and
    /// once as what it awaits: a task a request is to be small.
    struct Counted<F> {
        #[pin]
        future: F,
        // Dropped behind the future: who waits for the gate finds nothing left of it.
        pass: GatePass,
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().future.poll(cx)
    }
}

/// One piece of work counted by a [`Gate`].
#[derive(Debug)]
pub struct GatePass(Rc<GateState>);

impl Drop for GatePass {
    fn drop(&mut self) {
        let running = self.0.running.get() - 1;
        self.0.running.set(running);
        if running == 0 {
            self.0.emptied.notify_all();
        }
    }
}

/// Makes a stop signal for tasks of this executor: one side gives it, the other awaits it.
///
/// ```
/// use ringmq_runtime::{executor, task, time};
/// use std::time::Duration;
///
/// let ended = executor::spawn_executor(executor::ExecutorConfig::default(), || async {
///     let (handle, stop) = task::stop();
///     handle.stop();
///     stop.or_stop(time::sleep(Duration::from_secs(3600))).await
/// })?;
/// assert!(ended.join()?.is_none());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn stop() -> (StopHandle, Stop) {
    let state = Rc::new(StopState { stopped: Cell::new(false), signal: Event::new() });
    (StopHandle(state.clone()), Stop(state))
}

#[derive(Debug)]
struct StopState {
    stopped: Cell<bool>,
    signal: Event,
}

/// The side that gives the signal. Dropping it gives none.
#[derive(Clone, Debug)]
pub struct StopHandle(Rc<StopState>);

impl StopHandle {
    /// Tells every [`Stop`] of this pair. Once is enough.
    pub fn stop(&self) {
        if !self.0.stopped.replace(true) {
            self.0.signal.notify_all();
        }
    }
}

/// The side that a task awaits beside its work.
#[derive(Clone)]
pub struct Stop(Rc<StopState>);

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("stopped", &self.is_stopped()).finish()
    }
}

impl Stop {
    /// Whether the signal was given.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.get()
    }

    /// Waits for the signal; returns at once when it was given before.
    pub async fn stopped(&self) {
        let signal = self.0.signal.listen();
        if !self.is_stopped() {
            signal.await;
        }
    }

    /// What `future` returns, or `None` when the signal comes first; the future is dropped then, so it must not be
    /// one that writes or flushes.
    pub async fn or_stop<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut stopped = pin!(self.stopped());
        std::future::poll_fn(|cx| {
            if stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

#[cfg(test)]
mod tests;
