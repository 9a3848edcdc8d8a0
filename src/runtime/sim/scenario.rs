//! What many scenarios need outside of their simulation: which seeds to run, and draws of their own.

use std::ops::Range;

use super::Sim;

/// The seeds to run: those of `RINGMQ_SEEDS`, such as `RINGMQ_SEEDS=400..10000`, or else `otherwise`.
///
/// # Panics
/// When the variable holds anything else.
#[must_use]
pub fn seeds(otherwise: Range<u64>) -> Range<u64> {
    let Ok(asked) = std::env::var("RINGMQ_SEEDS") else { return otherwise };
    let (from, to) = asked.split_once("..").expect("RINGMQ_SEEDS=FROM..TO");
    from.parse().expect("a seed")..to.parse().expect("a seed")
}

/// Draws numbers below a bound (xorshift), whatever the simulation draws.
pub fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

/// How a life of the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeEnd {
    /// The kernel lives on, and what it was given.
    Killed,
    /// The power went.
    Crashed,
}

/// Ends a life of the process: a kill in one of three cases, a loss of power in the others.
pub fn end_life(sim: &Sim, dice: &mut impl FnMut(u64) -> u64) -> LifeEnd {
    if dice(3) == 0 {
        sim.kill();
        LifeEnd::Killed
    } else {
        sim.crash();
        LifeEnd::Crashed
    }
}
