//! `ringmq demo`: a real file through a broker that is killed on the way, told in plain words.
//!
//! `broker` is the broker as a child process, `transfer` sends the lines and reads them back, `run` tells the story.

mod broker;
mod run;
mod transfer;

pub(crate) use run::{DemoError, run};
