//! Virtual time: it stands still while a task runs, creeps while tasks are ready, and jumps when none is.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::world::World;

/// The clocks and timers of one simulation.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Since the simulation began. Never goes back, not even over a crash.
    now: Duration,
    /// What the wall clock shows at `now` zero, in milliseconds since the Unix epoch.
    wall_start_ms: i64,
    timers: BTreeMap<(Duration, u64), Waker>,
    timers_made: u64,
}

impl Clock {
    pub(crate) fn new(wall_start_ms: i64) -> Clock {
        Clock { now: Duration::ZERO, wall_start_ms, timers: BTreeMap::new(), timers_made: 0 }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn wall_ms(&self) -> i64 {
        let since_start = i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX);
        self.wall_start_ms.saturating_add(since_start)
    }

    /// Moves the wall clock against the monotonic one, as an administrator or NTP would.
    pub(crate) fn step_wall(&mut self, by_ms: i64) {
        self.wall_start_ms = self.wall_start_ms.saturating_add(by_ms);
    }

    pub(crate) fn advance_to(&mut self, moment: Duration) {
        self.now = self.now.max(moment);
    }

    /// When the next timer is due.
    pub(crate) fn next_timer(&self) -> Option<Duration> {
        self.timers.keys().next().map(|(deadline, _)| *deadline)
    }

    /// Takes the first timer that is due by now.
    pub(crate) fn pop_due(&mut self) -> Option<(u64, Waker)> {
        let entry = self.timers.first_entry()?;
        if entry.key().0 > self.now {
            return None;
        }
        let ((_, timer), waker) = entry.remove_entry();
        Some((timer, waker))
    }

    pub(super) fn add_timer(&mut self, deadline: Duration, waker: Waker) -> u64 {
        self.timers_made += 1;
        self.timers.insert((deadline, self.timers_made), waker);
        self.timers_made
    }
}

/// Ends when the virtual clock has passed a moment. Dropping it takes the timer back.
pub(crate) struct Sleep {
    world: Rc<World>,
    deadline: Duration,
    timer: Option<u64>,
}

impl Sleep {
    pub(crate) fn new(world: Rc<World>, duration: Duration) -> Sleep {
        let deadline = world.monotonic().saturating_add(duration);
        Sleep { world, deadline, timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Sleep { world, deadline, timer } = &mut *self;
        let mut clock = world.clock.borrow_mut();
        if clock.now >= *deadline {
            return Poll::Ready(());
        }
        match timer.and_then(|timer| clock.timers.get_mut(&(*deadline, timer))) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *timer = Some(clock.add_timer(*deadline, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            let waker = self.world.clock.borrow_mut().timers.remove(&(self.deadline, timer));
            drop(waker);
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
