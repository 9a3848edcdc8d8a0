//! Wiring and the `ringmq` command: config, start-up, shutdown, sub-commands.
//!
//! - [`cli`] says what can be typed; man pages, help and errors come from it.
//! - [`config`] is the broker's file.
//! - `serve` starts the controller and the shards, waits for signals and stops them.
//! - `commands` has one file for each command that talks to a broker.
//!
//! The command line is scripted against: [`exit`] lists the exit codes, and results go to standard output,
//! everything else to standard error.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod exit;
pub mod start;
