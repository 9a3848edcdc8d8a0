//! One glommio executor on a thread of its own.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::mpsc;

use ::glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};

use super::core::{Core, into_io};
use super::{probe, sys};
use crate::backend::{self, Backend, Context};
use crate::buffer;
use crate::device::DeviceBudget;
use crate::executor::ExecutorConfig;
use crate::stall::{StallLog, Timed};

/// Requests that fit into each of an executor's three rings. More wait in memory.
const RING_DEPTH: usize = 128;

#[derive(Debug)]
pub(crate) struct Handle<T: Send + 'static>(ExecutorJoinHandle<T>);

impl<T: Send + 'static> Handle<T> {
    pub(crate) fn join(self) -> io::Result<T> {
        self.0.join().map_err(into_io)
    }
}

pub(crate) fn spawn<T, Fut>(
    config: ExecutorConfig,
    main: impl FnOnce() -> Fut + Send + 'static,
) -> io::Result<Handle<T>>
where
    T: Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    // glommio panics, or ends the process, where io_uring is forbidden or too old.
    probe::io_uring().map_err(io::Error::other)?;
    probe::locked_memory(1, config.io_memory_bytes).map_err(io::Error::other)?;

    let (started, start) = mpsc::sync_channel(1);
    let handle = builder(&config)
        .spawn(move || async move {
            // The other side waits for this or for the drop of `started`.
            let _ = started.send(());
            run(config, main).await
        })
        .map_err(into_io)?;
    match start.recv() {
        Ok(()) => Ok(Handle(handle)),
        Err(mpsc::RecvError) => match handle.join() {
            Ok(_) => Err(io::Error::other("the executor ended before it started")),
            Err(error) => Err(into_io(error)),
        },
    }
}

fn builder(config: &ExecutorConfig) -> LocalExecutorBuilder {
    let placement = match config.cpu {
        Some(cpu) => Placement::Fixed(cpu.get() as usize),
        None => Placement::Unbound,
    };
    let builder = LocalExecutorBuilder::new(placement)
        .name(&config.name)
        .io_memory(config.io_memory_bytes)
        .ring_depth(RING_DEPTH)
        // Its default is the executor's own core, where blocking work would take the place of everything else.
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1));
    match config.spin_before_park {
        Some(spin) => builder.spin_before_park(spin),
        None => builder,
    }
}

/// Tells the executor's thread from its blocking one, which has inherited the name but not the processor. Names are for
/// people: that one cannot be given is no reason to stop.
fn name_threads(name: &str, context: &Context) {
    let _ = sys::name_thread(name);
    let blocking = format!("io {name}");
    drop(context.backend.glommio().requests.blocking(move || sys::name_thread(&blocking)));
}

/// The whole life of an executor: context, main future, drained requests.
async fn run<T, Fut>(config: ExecutorConfig, main: impl FnOnce() -> Fut) -> T
where
    Fut: Future<Output = T> + 'static,
{
    let context = Rc::new(Context {
        backend: Backend::Glommio(Core::new()),
        device: DeviceBudget::new(config.device),
        stalls: StallLog::new(config.stall_threshold),
    });
    let _buffers = buffer::install(config.buffers_retained_bytes_max);
    let _entered = backend::enter(context.clone());
    name_threads(&config.name, &context);
    let output = Timed::new("main", main()).await;
    context.backend.glommio().drain().await;
    output
}
