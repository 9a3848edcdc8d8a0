//! What one glommio executor keeps: its run queues, the gate of its requests, the devices it knows.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::rc::Rc;

use ::glommio::{GlommioError, Latency, Shares, TaskQueueHandle};

use super::device::Device;
use super::doorbell::Door;
use super::sys::DeviceId;
use crate::local;
use crate::stall::Timed;
use crate::task::{self, Gate, Queue};

/// Of 1000: while both queues have work the background gets a tenth of the core.
const BACKGROUND_SHARES: usize = 100;

pub(crate) struct Core {
    foreground: TaskQueueHandle,
    background: TaskQueueHandle,
    pub(super) requests: Requests,
    pub(crate) door: Rc<Door>,
    /// Given when the executor ends; ends what waits in the kernel for others to come.
    pub(super) ending: (task::StopHandle, task::Stop),
    /// Devices that this executor has got to know (see [`super::device`]).
    pub(super) devices: RefCell<BTreeMap<DeviceId, Device>>,
}

impl Core {
    /// To be called within the glommio executor that it is for.
    pub(super) fn new() -> Core {
        let background = ::glommio::executor().create_task_queue(
            Shares::Static(BACKGROUND_SHARES),
            Latency::NotImportant,
            "background",
        );
        let door = Door::new();
        let foreground = TaskQueueHandle::default();
        start(foreground, door.clone().answer());
        Core {
            foreground,
            background,
            requests: Requests(Gate::new()),
            door,
            ending: task::stop(),
            devices: RefCell::default(),
        }
    }

    /// Puts a task into a run queue. It is first polled later, never from within this call: the caller may hold
    /// borrows that the task wants.
    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(&self, queue: Queue, future: Timed<F>) {
        let handle = match queue {
            Queue::Foreground => self.foreground,
            Queue::Background => self.background,
        };
        start(handle, future);
    }

    /// Waits until the kernel and the blocking thread are done with this executor.
    pub(super) async fn drain(&self) {
        self.requests.0.close().await;
        self.ending.0.stop();
        // One turn of the rings for what the signal has cancelled.
        super::clock::next_turn().await;
        self.door.close();
    }
}

fn start(queue: TaskQueueHandle, future: impl Future<Output = ()> + 'static) {
    ::glommio::spawn_local_into(future, queue).expect("a run queue lives as long as its executor").detach();
}

/// Counts every request that the kernel or the blocking thread works on. They are waited for before the executor
/// ends: the kernel would write into freed memory, and the blocking thread would panic for want of a listener.
#[derive(Clone)]
pub(super) struct Requests(Gate);

impl Requests {
    /// Starts a request now and runs it to its end, whatever becomes of the future that waits for it.
    ///
    /// It is a task of its own. So dropping the returned future lets the request go on instead of cancelling it
    /// halfway, and a task that is woken often while it waits does not pile up wakers in the request (glommio adds
    /// one with each poll and panics at 32,767).
    pub(super) fn start<T, F>(&self, request: F) -> impl Future<Output = io::Result<T>> + use<T, F>
    where
        T: 'static,
        F: Future<Output = io::Result<T>> + 'static,
    {
        let (sender, receiver) = local::oneshot();
        if let Ok(pass) = self.0.enter() {
            // Polled from within this call: requests reach the ring in the order asked for.
            ::glommio::spawn_local(async move {
                // This fails when nobody waits any more: then nothing is left to be done.
                let _ = sender.send(request.await);
                drop(pass);
            })
            .detach();
        }
        async move { receiver.await.unwrap_or_else(|local::Dropped| Err(ending())) }
    }

    /// Runs blocking work on the executor's second thread, to its end in any case.
    pub(super) fn blocking<T, F>(&self, work: F) -> impl Future<Output = io::Result<T>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        self.start(async move { ::glommio::executor().spawn_blocking(work).await })
    }
}

fn ending() -> io::Error {
    io::Error::other("the executor is ending and takes no new requests")
}

/// The error of the system call inside glommio's, which says more than our callers can use.
pub(super) fn into_io(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::EnhancedIoError { source, .. } | GlommioError::IoError(source) => source,
        other => other.into(),
    }
}
