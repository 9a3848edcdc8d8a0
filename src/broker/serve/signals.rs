//! Signals become events of the broker's life.

use std::io;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::broker::Event;

/// Whoever stops a broker once may send it two signals: Ctrl-C reaches every process of a terminal's group, and a script
/// among them passes it on; timeout(1) and a service manager with such a script do the like. What comes this soon behind
/// another is not somebody who has lost patience.
const ECHO: Duration = Duration::from_millis(500);

/// Turns SIGTERM and SIGINT into [`Event::Terminate`] and SIGUSR1 into [`Event::LogStats`], from now on.
///
/// # Errors
/// When the handlers or their thread cannot be installed.
#[allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "signals come to a thread that is no executor, and at times of the machine's clock"
)]
pub(super) fn listen(events: mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1])?;
    let forward = move || {
        let mut terminations = Terminations::default();
        for signal in signals.forever() {
            let event = match signal {
                SIGUSR1 => Event::LogStats,
                _ if terminations.is_meant(Instant::now()) => Event::Terminate,
                _ => continue,
            };
            if events.send(event).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(forward)?;
    Ok(())
}

/// Tells a signal to stop from the echo of the one before.
#[derive(Debug, Default)]
struct Terminations {
    meant_at: Option<Instant>,
}

impl Terminations {
    fn is_meant(&mut self, now: Instant) -> bool {
        let is_echo = self.meant_at.is_some_and(|at| now.saturating_duration_since(at) < ECHO);
        if !is_echo {
            self.meant_at = Some(now);
        }
        !is_echo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any point in time")]
    fn a_signal_right_behind_another_is_the_same_one() {
        let (start, mut terminations) = (Instant::now(), Terminations::default());
        let meant = [0, 1, 499, 500, 900, 1000].map(|ms| terminations.is_meant(start + Duration::from_millis(ms)));
        assert_eq!(meant, [true, false, false, true, false, true]);
    }
}
