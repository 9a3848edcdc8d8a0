//! Timers.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::glommio::timer::Timer;

/// Waits for a time.
pub(crate) struct Sleep(Timer);

pub(crate) fn sleep(duration: Duration) -> Sleep {
    // The clock that glommio adds this to ends before `Duration` does.
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Sleep(Timer::new(duration.min(CENTURY)))
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sleep")
    }
}

/// Waits until the executor has looked at its rings once: they are looked at together with the timers.
pub(crate) async fn next_turn() {
    let mut duration = Duration::from_micros(1);
    let mut waited = false;
    while !waited {
        let mut timer = Timer::new(duration);
        poll_fn(|cx| {
            let polled = Pin::new(&mut timer).poll(cx);
            waited |= polled.is_pending();
            polled.map(drop)
        })
        .await;
        // A timer that had run out before it was looked at waited for nothing.
        duration *= 2;
    }
}
