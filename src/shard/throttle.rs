//! Log lines that a peer or a full disk could repeat without end.

use std::cell::Cell;
use std::time::Duration;

use ringmq_runtime::time::Instant;

/// Lets one line through in a while, and counts the others.
#[derive(Debug)]
pub(crate) struct Throttle {
    every: Duration,
    passed: Cell<Option<Instant>>,
    held_back: Cell<u64>,
}

impl Throttle {
    pub(crate) const fn new(every: Duration) -> Self {
        Self { every, passed: Cell::new(None), held_back: Cell::new(0) }
    }

    /// Whether a line may be written now: then how many were not, since the last that was.
    pub(crate) fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        if self.passed.get().is_some_and(|passed| now.saturating_duration_since(passed) < self.every) {
            self.held_back.set(self.held_back.get() + 1);
            return None;
        }
        self.passed.set(Some(now));
        Some(self.held_back.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_passes_and_the_others_are_counted() {
        let throttle = Throttle::new(Duration::from_secs(3600));
        assert_eq!(throttle.pass(), Some(0));
        assert_eq!((throttle.pass(), throttle.pass()), (None, None));
        assert_eq!(throttle.held_back.get(), 2);
        let always = Throttle::new(Duration::ZERO);
        assert_eq!((always.pass(), always.pass()), (Some(0), Some(0)));
    }
}
