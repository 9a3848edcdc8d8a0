//! Signals become events of the broker's life.

use std::io;
use std::sync::mpsc;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::broker::Event;

/// Turns SIGTERM and SIGINT into [`Event::Terminate`] and SIGUSR1 into [`Event::LogStats`], from now on.
///
/// # Errors
/// When the handlers or their thread cannot be installed.
#[allow(clippy::disallowed_types, reason = "signals come to a thread that is no executor")]
pub(super) fn listen(events: mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1])?;
    let forward = move || {
        for signal in signals.forever() {
            let event = if signal == SIGUSR1 { Event::LogStats } else { Event::Terminate };
            if events.send(event).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(forward)?;
    Ok(())
}
