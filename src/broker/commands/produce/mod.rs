//! `ringmq produce`: the lines of a file, one record a line.
//!
//! `input` reads chunks on a thread of its own, `lines` cuts them, `batcher` fills one batch for each partition,
//! `sender` sends them, `tally` adds up what was acknowledged; `run` ties them together.

mod batcher;
mod input;
mod lines;
mod run;
mod sender;
mod tally;

pub(crate) use input::InputError;
pub(crate) use run::run;
