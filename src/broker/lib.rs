//! Wiring and the `ringmq` command: config, start-up, shutdown, sub-commands.
//!
//! - [`cli`] says what can be typed; help and errors come from it.
//! - [`config`] is the broker's file.
//! - `serve` starts the controller and the shards, waits for signals and stops them.
//! - `commands` has a file or folder for each command that talks to a broker.
//!
//! Public is what the binary and the tests of its command line need.
//!
//! The command line is scripted against: `exit` lists the exit codes; results go to standard output, everything else
//! to standard error.
#![forbid(unsafe_code)]

pub mod cli;
mod commands;
pub mod config;
mod dispatch;
mod exit;
mod logging;
mod output;
mod serve;

pub use dispatch::run;
