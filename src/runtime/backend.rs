//! The executor of the calling thread, and the closed choice of what it runs on.

use std::cell::RefCell;
use std::rc::Rc;

use crate::device::DeviceBudget;
use crate::glommio;
use crate::stall::StallLog;

#[cfg(feature = "sim")]
use crate::sim;

/// What the executor of this thread runs on.
pub(crate) enum Backend {
    /// io_uring through glommio.
    Glommio(glommio::Core),
    /// The deterministic simulation.
    #[cfg(feature = "sim")]
    Sim(Rc<sim::World>),
}

impl Backend {
    /// The glommio core, for what only that backend has.
    ///
    /// # Panics
    /// In the simulation: the facade turns callers away before.
    pub(crate) fn glommio(&self) -> &glommio::Core {
        match self {
            Backend::Glommio(core) => core,
            #[cfg(feature = "sim")]
            Backend::Sim(_) => unreachable!("the simulation has no such thing"),
        }
    }
}

/// What one executor owns: its backend and everything that is the same for both.
pub(crate) struct Context {
    pub(crate) backend: Backend,
    pub(crate) device: DeviceBudget,
    pub(crate) stalls: StallLog,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Context>>> = const { RefCell::new(None) };
}

/// The context of the executor that runs on this thread, if one does.
pub(crate) fn try_current() -> Option<Rc<Context>> {
    CURRENT.with_borrow(Clone::clone)
}

/// The context of the executor that runs on this thread.
///
/// # Panics
/// Outside an executor: that is a mistake in the program, never one of its input.
pub(crate) fn current() -> Rc<Context> {
    try_current().expect("called outside an executor of ringmq-runtime (see executor::spawn_executor)")
}

/// Whether this thread runs a simulation.
#[cfg(feature = "sim")]
pub(crate) fn is_simulated() -> bool {
    simulated().is_some()
}

/// The simulated machine that this thread runs, if it runs one.
#[cfg(feature = "sim")]
pub(crate) fn simulated() -> Option<Rc<sim::World>> {
    match &try_current()?.backend {
        Backend::Glommio(_) => None,
        Backend::Sim(world) => Some(world.clone()),
    }
}

/// Makes `context` the one of this thread until the guard is dropped.
///
/// # Panics
/// When the thread has one already.
pub(crate) fn enter(context: Rc<Context>) -> Entered {
    CURRENT.with_borrow_mut(|current| {
        assert!(current.is_none(), "this thread runs an executor already");
        *current = Some(context);
    });
    Entered(())
}

/// Ends the thread's context when dropped.
pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| *current = None);
    }
}

/// Makes `context` the one of this thread in place of whichever it has, until the guard is dropped: a simulation runs
/// all of its executors on one thread.
#[cfg(feature = "sim")]
pub(crate) fn stand_in(context: Rc<Context>) -> StandingIn {
    StandingIn(CURRENT.replace(Some(context)))
}

/// Gives the thread its former context back when dropped.
#[cfg(feature = "sim")]
pub(crate) struct StandingIn(Option<Rc<Context>>);

#[cfg(feature = "sim")]
impl Drop for StandingIn {
    fn drop(&mut self) {
        let stood_in = CURRENT.replace(self.0.take());
        drop(stood_in);
    }
}
