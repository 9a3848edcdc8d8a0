//! `ringmq consume`: the records of a topic on standard output.
//!
//! `range` finds where each partition begins and ends, `fetch` brings batches as they are stored, `format` turns
//! their records into output; `run` ties them together.

mod fetch;
mod format;
mod range;
mod run;

pub use run::run;
