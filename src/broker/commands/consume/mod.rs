//! `ringmq consume`: the records of a topic on standard output.
//!
//! `from` reads where to begin, `range` finds where each partition begins and ends, `fetch` brings batches as they are
//! stored, `format` turns their records into output and `out` writes it, `resume` keeps positions in a file and `saver`
//! knows when; `run` ties them together.

mod fetch;
mod format;
pub(crate) mod from;
mod out;
mod range;
mod resume;
mod run;
mod saver;

pub(crate) use format::JsonRecord;
pub(crate) use resume::ResumeError;
pub(crate) use run::run;
