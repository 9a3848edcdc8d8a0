//! Everything that the seed decides.

use std::ops::RangeInclusive;
use std::time::Duration;

/// What a stream of draws is for. Each purpose has a stream of its own, so that one more random number in the
/// program does not reshuffle the scheduler, and a smaller change makes a smaller difference between two traces.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Which task runs next, and for how long.
    Schedule = 1,
    /// How long requests take.
    Latency = 2,
    /// What lands of writes that fail or that a crash interrupts.
    Fate = 3,
    /// What the program asks for.
    Program = 4,
    /// How long a wake-up takes from one core to another.
    Doorbell = 5,
    /// How long packets take, how bytes are cut, who accepts a connection.
    Network = 6,
}

/// One stream of draws.
#[derive(Debug)]
pub(crate) struct Dice(fastrand::Rng);

impl Dice {
    pub(crate) fn new(seed: u64, purpose: Purpose) -> Dice {
        // Seeds of neighbours and of the purposes must not give related streams: one draw decorrelates them.
        let mut root = fastrand::Rng::with_seed(seed);
        let mut stream = 0;
        for _ in 0..purpose as u32 {
            stream = root.u64(..);
        }
        Dice(fastrand::Rng::with_seed(stream))
    }

    /// A stream of its own that begins here.
    pub(crate) fn fork(&mut self) -> Dice {
        Dice(self.0.fork())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number below `end`, which is above 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.0.bool()
    }

    /// True in `hits` of `of` cases.
    pub(crate) fn chance(&mut self, hits: u32, of: u32) -> bool {
        self.0.u32(..of) < hits
    }

    /// A duration of the range, to the nanosecond; its start when the range is empty.
    pub(crate) fn duration(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let width = range.end().saturating_sub(*range.start());
        let width = u64::try_from(width.as_nanos()).unwrap_or(u64::MAX);
        *range.start() + Duration::from_nanos(self.0.u64(..=width))
    }

    /// A duration of the range, or one time in `slow_one_in` twenty times as long; never that for 0.
    pub(crate) fn latency(&mut self, range: &RangeInclusive<Duration>, slow_one_in: u32) -> Duration {
        let usual = self.duration(range);
        let is_slow = slow_one_in > 0 && self.chance(1, slow_one_in);
        if is_slow { usual * 20 } else { usual }
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }
}
