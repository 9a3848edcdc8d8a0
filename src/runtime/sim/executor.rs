//! The simulation's arm of [`crate::executor`]: one more core instead of a thread.

use std::fmt;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use super::cores::Site;
use super::world::World;
use crate::executor::ExecutorConfig;

/// Where a core's main future leaves what it returned.
pub(crate) struct Handle<T>(Arc<Mutex<Option<T>>>);

impl<T> Handle<T> {
    /// What the main future returned, if it has.
    pub(crate) fn join(self) -> io::Result<T> {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        ended.ok_or_else(|| {
            let why = "the simulated executor has not ended, and to wait here would stop the simulation: have its \
                       main future tell its end through a channel, or let the simulation run on first";
            io::Error::new(io::ErrorKind::WouldBlock, why)
        })
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

/// Starts a core beside the calling one: in the same process, or on another machine like it.
pub(crate) fn spawn<T, Fut>(
    world: &Rc<World>,
    config: ExecutorConfig,
    main: impl FnOnce() -> Fut + Send + 'static,
) -> Handle<T>
where
    T: Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let slot = Arc::new(Mutex::new(None));
    let handle = Handle(slot.clone());
    start(world, world.current_site(), config, async move {
        let output = main().await;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
    });
    handle
}

/// Starts a core that ends with its main future: its other tasks are dropped then.
pub(super) fn start(world: &Rc<World>, site: Site, config: ExecutorConfig, main: impl Future<Output = ()> + 'static) {
    let core = world.add_core(site, &config);
    let main = {
        let world = world.clone();
        async move {
            main.await;
            world.end_core(core);
        }
    };
    world.spawn_on(core, "main", Box::pin(main));
}
