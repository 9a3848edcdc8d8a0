//! What many scenarios need outside of their simulation: which seeds to run, and draws of their own.

use std::ops::Range;
use std::thread;

use super::Sim;

/// The seeds to run: those of `RINGMQ_SEEDS`, such as `RINGMQ_SEEDS=400..10000`, or else `otherwise`.
///
/// # Panics
/// When the variable holds anything else.
#[must_use]
pub fn seeds(otherwise: Range<u64>) -> Seeds {
    let asked = std::env::var("RINGMQ_SEEDS").ok().map(|asked| {
        let (from, to) = asked.split_once("..").expect("RINGMQ_SEEDS=FROM..TO");
        from.parse().expect("a seed")..to.parse().expect("a seed")
    });
    let range = asked.unwrap_or(otherwise);
    Seeds { total: range.end.saturating_sub(range.start), left: range, running: None }
}

/// Seeds, one after the other. When the test panics while it runs one, they say which, and how it is run again.
#[derive(Debug)]
pub struct Seeds {
    left: Range<u64>,
    total: u64,
    running: Option<u64>,
}

impl Seeds {
    /// How many there are, those that were run already among them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }
}

impl Iterator for Seeds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.running = self.left.next();
        self.running
    }
}

impl Drop for Seeds {
    #[allow(clippy::print_stderr, reason = "it is part of what the panic of a test says")]
    fn drop(&mut self) {
        if let Some(seed) = self.running.filter(|_| thread::panicking()) {
            eprintln!("{}", replay(seed));
        }
    }
}

/// What to tell of a seed that fails.
fn replay(seed: u64) -> String {
    // Cargo says which crate it tests; the test runner calls the thread by the test, unless there is only one.
    let package = std::env::var("CARGO_PKG_NAME").map_or_else(|_| String::new(), |package| format!(" -p {package}"));
    let thread = thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or_default();
    format!(
        "seed {seed} fails; it does so each time with\n    RINGMQ_SEEDS={seed}..{} cargo test{package} {test}",
        seed + 1
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_that_fails_comes_with_the_command_that_runs_it_again() {
        let told = replay(42);
        let name = "sim::scenario::tests::a_seed_that_fails_comes_with_the_command_that_runs_it_again";
        let command = format!("RINGMQ_SEEDS=42..43 cargo test -p ringmq-runtime {name}");
        // With one thread for all tests, nobody says which test it is.
        let of_all = command.trim_end_matches(name);
        assert!(told.starts_with("seed 42 fails") && (told.ends_with(&command) || told.ends_with(of_all)), "{told}");
    }
}
