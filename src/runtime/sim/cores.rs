//! The cores of a simulation: each an executor with ready tasks of its own, on the simulated machine or elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::config::CoreConfig;
use super::dice::Dice;
use super::task::TaskId;
use crate::backend::Context;

/// A core's number, counted up from 1 over the whole simulation and never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CoreId(u32);

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a core is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Site {
    /// In the process on the machine that has the disk: what a kill or a crash ends.
    Machine,
    /// On some other machine: what outlives both.
    Elsewhere,
}

/// Ids of woken tasks of one core. Wakers must be `Send`, so this is behind a lock that nobody ever contends for.
#[derive(Default)]
pub(crate) struct ReadyQueue(Mutex<Vec<TaskId>>);

impl ReadyQueue {
    pub(crate) fn push(&self, task: TaskId) {
        self.with(|ready| ready.push(task));
    }

    fn is_empty(&self) -> bool {
        self.with(|ready| ready.is_empty())
    }

    fn with<T>(&self, look: impl FnOnce(&mut Vec<TaskId>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Core {
    site: Site,
    context: Rc<Context>,
    ready: Arc<ReadyQueue>,
    /// It stands still until then.
    paused_until: Duration,
}

/// Every core that has not ended.
pub(crate) struct Cores {
    cores: BTreeMap<CoreId, Core>,
    made: u32,
    config: CoreConfig,
}

impl Cores {
    pub(crate) fn new(config: CoreConfig) -> Cores {
        Cores { cores: BTreeMap::new(), made: 0, config }
    }

    pub(crate) fn add(&mut self, site: Site, context: Rc<Context>) -> CoreId {
        self.made += 1;
        let id = CoreId(self.made);
        let core = Core { site, context, ready: Arc::default(), paused_until: Duration::ZERO };
        self.cores.insert(id, core);
        id
    }

    /// Gives the core's context back, for its owner to drop.
    pub(crate) fn remove(&mut self, core: CoreId) -> Option<Rc<Context>> {
        self.cores.remove(&core).map(|core| core.context)
    }

    pub(crate) fn context(&self, core: CoreId) -> Option<Rc<Context>> {
        self.cores.get(&core).map(|core| core.context.clone())
    }

    pub(crate) fn site(&self, core: CoreId) -> Option<Site> {
        self.cores.get(&core).map(|core| core.site)
    }

    /// Where a core's woken tasks are put; of a core that has ended nobody takes them out.
    pub(crate) fn ready_queue(&self, core: CoreId) -> Arc<ReadyQueue> {
        self.cores.get(&core).map(|core| core.ready.clone()).unwrap_or_default()
    }

    /// The cores at a site, oldest first.
    pub(crate) fn at(&self, site: Site) -> Vec<CoreId> {
        self.cores.iter().filter(|(_, core)| core.site == site).map(|(id, _)| *id).collect()
    }

    /// Takes one of the ready tasks: the dice choose among the cores that have some and do not stand still, and then
    /// among the core's tasks. `is_alive` says whether a task is still there.
    pub(crate) fn take_ready(
        &mut self,
        now: Duration,
        dice: &mut Dice,
        is_alive: impl Fn(TaskId) -> bool,
    ) -> Option<TaskId> {
        let several = self.cores.len() > 1;
        let CoreConfig { pause_one_in, pause, .. } = self.config.clone();
        loop {
            let core = match self.runnable(now).count() {
                0 => return None,
                1 => 0,
                several => dice.below(several),
            };
            let core = self.runnable(now).nth(core)?;
            if several && pause_one_in > 0 && dice.chance(1, pause_one_in) {
                core.paused_until = now + dice.duration(&pause);
                continue;
            }
            let chosen = core.ready.with(|ready| {
                let chosen = dice.below(ready.len());
                ready.swap_remove(chosen)
            });
            // A waker outlives its task; waking it then is allowed and means nothing.
            if is_alive(chosen) {
                return Some(chosen);
            }
        }
    }

    fn runnable(&mut self, now: Duration) -> impl Iterator<Item = &mut Core> {
        self.cores.values_mut().filter(move |core| core.paused_until <= now && !core.ready.is_empty())
    }

    /// When the next core that stands still with ready tasks goes on.
    pub(crate) fn next_resumption(&self, now: Duration) -> Option<Duration> {
        let paused = self.cores.values().filter(|core| core.paused_until > now && !core.ready.is_empty());
        paused.map(|core| core.paused_until).min()
    }
}

impl fmt::Debug for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cores").field("alive", &self.cores.len()).field("made", &self.made).finish()
    }
}
