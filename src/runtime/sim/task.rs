//! The tasks of a simulation.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::cores::{CoreId, ReadyQueue};

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
}

struct Task {
    name: &'static str,
    core: CoreId,
    /// Absent while the task is polled, and for the future of `run`, which lives on the stack of its caller.
    future: Option<BoxedFuture>,
    waker: Arc<TaskWaker>,
    polled_last: Duration,
}

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
            self.ready.push(self.task);
        }
    }
}

/// A task that is about to be polled.
pub(crate) struct Polling {
    pub(crate) core: CoreId,
    pub(crate) future: Option<BoxedFuture>,
    pub(crate) waker: Waker,
}

impl Tasks {
    /// Adds a ready task. Without a future it is one that its owner polls itself.
    pub(crate) fn add(
        &mut self,
        name: &'static str,
        core: CoreId,
        ready: Arc<ReadyQueue>,
        future: Option<BoxedFuture>,
        now: Duration,
    ) -> TaskId {
        self.spawned += 1;
        let id = TaskId(self.spawned);
        let waker = Arc::new(TaskWaker { task: id, queued: AtomicBool::new(false), ready });
        waker.wake_by_ref();
        self.tasks.insert(id, Task { name, core, future, waker, polled_last: now });
        id
    }

    pub(crate) fn is_alive(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }

    /// Prepares a poll: from here on a wake makes the task ready again, also one that comes during the poll.
    pub(crate) fn begin_poll(&mut self, id: TaskId, now: Duration) -> Option<Polling> {
        let task = self.tasks.get_mut(&id)?;
        task.waker.queued.store(false, Ordering::Release);
        task.polled_last = now;
        Some(Polling { core: task.core, future: task.future.take(), waker: Waker::from(task.waker.clone()) })
    }

    /// Puts a future back that is not done; gives it back when the task ended itself meanwhile, with its core.
    pub(crate) fn end_poll(&mut self, id: TaskId, future: BoxedFuture) -> Option<BoxedFuture> {
        match self.tasks.get_mut(&id) {
            Some(task) => {
                task.future = Some(future);
                None
            }
            None => Some(future),
        }
    }

    /// Forgets a task that is done.
    pub(crate) fn remove(&mut self, id: TaskId) {
        self.tasks.remove(&id);
    }

    /// Takes the tasks of a core out, in the order in which they were spawned. Their owner drops the futures: what a
    /// drop does may come back here.
    pub(crate) fn take_all(&mut self, core: CoreId) -> Vec<BoxedFuture> {
        let of_core = self.tasks.extract_if(.., |_, task| task.core == core);
        of_core.filter_map(|(_, task)| task.future).collect()
    }

    /// Who waits since when, for the report of a deadlock.
    pub(crate) fn waiting(&self) -> String {
        let describe = |(id, task): (&TaskId, &Task)| {
            let Task { name, core, polled_last, .. } = task;
            format!("  {name} (task {}) on core {core}, last polled at {polled_last:?}", id.0)
        };
        self.tasks.iter().map(describe).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("alive", &self.tasks.len()).field("spawned", &self.spawned).finish()
    }
}
