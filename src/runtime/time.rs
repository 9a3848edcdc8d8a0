//! Clocks and timers. The simulator owns all of them when it runs.

use std::fmt;
use std::future::Future;
use std::ops::Add;
use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::backend::{self, Backend};
use crate::glommio;

#[cfg(feature = "sim")]
use crate::sim;

/// A moment of the monotonic clock. Moments of different executors of one process compare; those of different
/// processes or simulations do not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// This moment.
    pub fn now() -> Instant {
        match backend::try_current().as_deref() {
            #[cfg(feature = "sim")]
            Some(backend::Context { backend: Backend::Sim(world), .. }) => Instant(world.monotonic()),
            Some(backend::Context { backend: Backend::Glommio(_), .. }) | None => Instant(since_process_start()),
        }
    }

    /// The time since this moment; zero when it lies in the future.
    pub fn elapsed(self) -> Duration {
        Instant::now().saturating_duration_since(self)
    }

    /// The time from `earlier` to this moment; zero when `earlier` is the later one.
    pub fn saturating_duration_since(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// The moment that much later, or the last one there is.
    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(duration))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Instant({:?})", self.0)
    }
}

fn since_process_start() -> Duration {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

/// The time of day in milliseconds since the Unix epoch. It may jump, forwards and backwards.
pub fn wall_clock() -> i64 {
    let since_epoch = match backend::try_current().as_deref() {
        #[cfg(feature = "sim")]
        Some(backend::Context { backend: Backend::Sim(world), .. }) => return world.wall_clock_ms(),
        Some(backend::Context { backend: Backend::Glommio(_), .. }) | None => {
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
        }
    };
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// Waits that long, and never less. Dropping the future cancels the timer.
///
/// # Panics
/// Outside an executor.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep(match &backend::current().backend {
        Backend::Glommio(_) => SleepBackend::Glommio(glommio::clock::sleep(duration)),
        #[cfg(feature = "sim")]
        Backend::Sim(world) => SleepBackend::Sim(world.sleep(duration)),
    })
}

/// The future of [`sleep`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep(SleepBackend);

#[derive(Debug)]
enum SleepBackend {
    Glommio(glommio::clock::Sleep),
    #[cfg(feature = "sim")]
    Sim(sim::clock::Sleep),
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            SleepBackend::Glommio(sleep) => Pin::new(sleep).poll(cx),
            #[cfg(feature = "sim")]
            SleepBackend::Sim(sleep) => Pin::new(sleep).poll(cx),
        }
    }
}

/// The time given to [`timeout`] was over before the work was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not done within {0:?}")]
pub struct Elapsed(pub Duration);

/// What `future` returns, if it does within `duration`. The future is dropped otherwise, so it must not be one that
/// writes to a file or flushes.
///
/// # Errors
/// When the time is over first.
pub async fn timeout<T>(duration: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = sleep(duration);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed(duration)))
    })
    .await
}

#[cfg(test)]
mod tests;
