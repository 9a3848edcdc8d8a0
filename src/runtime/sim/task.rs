//! The tasks of a simulation, and which of them are ready to run.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::dice::Dice;

/// A task's number, counted up from 1 over the whole simulation and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TaskId(u64);

/// What a spawned task runs.
pub(crate) type BoxedFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Every task that has not ended, ready or waiting.
#[derive(Default)]
pub(crate) struct Tasks {
    tasks: BTreeMap<TaskId, Task>,
    spawned: u64,
    ready: Arc<ReadyQueue>,
}

struct Task {
    name: &'static str,
    /// Absent while the task is polled, and for the future of `run`, which lives on the stack of its caller.
    future: Option<BoxedFuture>,
    waker: Arc<TaskWaker>,
    polled_last: Duration,
}

/// Ids of woken tasks. Wakers must be `Send`, so this is behind a lock that nobody ever contends for.
#[derive(Default)]
struct ReadyQueue(Mutex<Vec<TaskId>>);

struct TaskWaker {
    task: TaskId,
    queued: AtomicBool,
    ready: Arc<ReadyQueue>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.task);
        }
    }
}

impl Tasks {
    /// Adds a ready task. Without a future it is one that its owner polls itself.
    pub(crate) fn add(&mut self, name: &'static str, future: Option<BoxedFuture>, now: Duration) -> TaskId {
        self.spawned += 1;
        let id = TaskId(self.spawned);
        let waker = Arc::new(TaskWaker { task: id, queued: AtomicBool::new(false), ready: self.ready.clone() });
        waker.wake_by_ref();
        self.tasks.insert(id, Task { name, future, waker, polled_last: now });
        id
    }

    /// Takes one of the ready tasks, whichever the dice choose.
    pub(crate) fn take_ready(&mut self, dice: &mut Dice) -> Option<TaskId> {
        let mut ready = self.ready.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if ready.is_empty() {
                return None;
            }
            let chosen = dice.below(ready.len());
            let id = ready.swap_remove(chosen);
            // A waker outlives its task; waking it then is allowed and means nothing.
            if self.tasks.contains_key(&id) {
                return Some(id);
            }
        }
    }

    /// Prepares a poll: from here on a wake makes the task ready again, also one that comes during the poll.
    pub(crate) fn begin_poll(&mut self, id: TaskId, now: Duration) -> Option<(Option<BoxedFuture>, Waker)> {
        let task = self.tasks.get_mut(&id)?;
        task.waker.queued.store(false, Ordering::Release);
        task.polled_last = now;
        Some((task.future.take(), Waker::from(task.waker.clone())))
    }

    /// Puts a future back that is not done.
    pub(crate) fn end_poll(&mut self, id: TaskId, future: BoxedFuture) {
        if let Some(task) = self.tasks.get_mut(&id) {
            task.future = Some(future);
        }
    }

    /// Forgets a task that is done.
    pub(crate) fn remove(&mut self, id: TaskId) {
        self.tasks.remove(&id);
    }

    /// Takes every future out, in the order in which they were spawned. Their owner drops them: what a drop does may
    /// come back here.
    pub(crate) fn take_all(&mut self) -> Vec<BoxedFuture> {
        std::mem::take(&mut self.tasks).into_values().filter_map(|task| task.future).collect()
    }

    /// Who waits since when, for the report of a deadlock.
    pub(crate) fn waiting(&self) -> String {
        let describe = |(id, task): (&TaskId, &Task)| {
            format!("  {} (task {}), last polled at {:?}", task.name, id.0, task.polled_last)
        };
        self.tasks.iter().map(describe).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("alive", &self.tasks.len()).field("spawned", &self.spawned).finish()
    }
}
