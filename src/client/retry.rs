//! How long an operation goes on trying, and how it waits between two attempts.

use std::time::Duration;

use ringmq_wire::ErrorCode;
use tokio::time::Instant;

use crate::error::Error;

/// The pause after the first failed attempt; each further one may be twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// An attempt that is given less time is not worth its while.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(250);

/// The time one operation has, and the attempts it has made.
#[derive(Debug)]
pub(crate) struct Retry {
    operation: &'static str,
    timeout: Duration,
    deadline: Instant,
    failed: u32,
    /// What one attempt may take at most.
    attempt_max: Duration,
}

impl Retry {
    /// An operation that starts now and may take `timeout`.
    pub(crate) fn new(operation: &'static str, timeout: Duration) -> Self {
        Self::until(operation, Instant::now() + timeout, timeout, 0)
    }

    /// An operation that goes on until `deadline`, behind so many failed attempts; of all its time it tells as `timeout`.
    pub(crate) fn until(operation: &'static str, deadline: Instant, timeout: Duration, failed: u32) -> Self {
        Self { operation, timeout, deadline, failed, attempt_max: Duration::MAX }
    }

    /// The same with attempts that take no longer than this.
    pub(crate) fn attempts_within(self, attempt_max: Duration) -> Self {
        Self { attempt_max, ..self }
    }

    /// Attempts that failed, one after the other.
    pub(crate) fn failed(&self) -> u32 {
        self.failed
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The deadline of one attempt at something that may be asked twice: half of what is left, so that a broker which
    /// does not answer leaves time to ask another.
    pub(crate) fn attempt_deadline(&self) -> Instant {
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        now + (left / 2).max(left.min(SHORTEST_ATTEMPT)).min(self.attempt_max)
    }

    /// What is left of the operation's time.
    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The deadline of an attempt at something that is not asked again once it may have been done: all that is left.
    pub(crate) fn only_attempt_deadline(&self) -> Instant {
        Instant::now() + self.remaining().min(self.attempt_max)
    }

    /// The time that a broker may take over an attempt, in milliseconds: that of all the operation where attempts have no
    /// bound of their own.
    pub(crate) fn attempt_ms(&self) -> u32 {
        let left = self.remaining().min(self.attempt_max);
        u32::try_from(left.as_millis()).unwrap_or(u32::MAX)
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// `last` itself when trying again cannot help, [`Error::TimedOut`] around it when the time is used up.
    pub(crate) async fn pause_after(&mut self, last: Error) -> Result<(), Error> {
        if last.is_retriable() { self.pause(last).await } else { Err(last) }
    }

    /// As [`Retry::pause_after`], where the broker was asked for a partition that its metadata names. When its shard does
    /// not know it, it was added a moment ago and is being opened; or it is gone, which the metadata tells next time.
    ///
    /// # Errors
    /// As [`Retry::pause_after`].
    pub(crate) async fn pause_after_answer(&mut self, last: Error) -> Result<(), Error> {
        let is_new = last.code() == Some(ErrorCode::UnknownPartition);
        if is_new { self.pause(last).await } else { self.pause_after(last).await }
    }

    async fn pause(&mut self, last: Error) -> Result<(), Error> {
        let pause = pause(self.failed, fastrand::f64());
        self.failed = self.failed.saturating_add(1);
        let wake = Instant::now() + pause;
        // Behind an attempt that is cut off at once nobody could tell any more whether it was done.
        if wake + pause.min(SHORTEST_ATTEMPT) >= self.deadline {
            return Err(self.timed_out(Some(last)));
        }
        tracing::debug!(operation = self.operation, error = %last, ?pause, "trying again");
        tokio::time::sleep_until(wake).await;
        Ok(())
    }

    /// The error for an operation whose time is used up.
    pub(crate) fn timed_out(&self, last: Option<Error>) -> Error {
        Error::TimedOut { operation: self.operation, timeout: self.timeout, last: last.map(Box::new) }
    }
}

/// The pause after `failed` earlier failures: exponential, capped, and anywhere between half and whole by `random` in
/// 0..1, so that clients which failed together do not come back together.
fn pause(failed: u32, random: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(failed).unwrap_or(u32::MAX)).min(LONGEST_PAUSE);
    doubled.mul_f64(0.5 + 0.5 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        assert_eq!(pause(0, 0.0), FIRST_PAUSE / 2);
        assert_eq!(pause(1, 0.0), FIRST_PAUSE);
        assert_eq!(pause(2, 1.0), FIRST_PAUSE * 4);
        for failed in [8, 31, 32, u32::MAX] {
            assert_eq!(pause(failed, 1.0), LONGEST_PAUSE, "{failed}");
            assert_eq!(pause(failed, 0.0), LONGEST_PAUSE / 2, "{failed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_attempt_has_time_for_an_answer() {
        let again = Error::TimedOut { operation: "test", timeout: Duration::ZERO, last: None };
        for timeout_ms in [1, 20, 700, 3_000] {
            for _ in 0..100 {
                let mut retry = Retry::new("test", Duration::from_millis(timeout_ms));
                let mut pauses = 0;
                let ended = loop {
                    let before = Instant::now();
                    if let Err(error) = retry.pause_after(again.clone()).await {
                        break error;
                    }
                    pauses += 1;
                    // The timer counts in milliseconds.
                    let left = retry.remaining() + 2 * Duration::from_millis(1);
                    assert!(left >= before.elapsed().min(SHORTEST_ATTEMPT), "{left:?}");
                };
                assert!(matches!(ended, Error::TimedOut { last: Some(_), .. }), "{ended}");
                assert!(pauses > 0 || timeout_ms < 10, "{timeout_ms} ms are enough for a second attempt");
            }
        }
    }
}
