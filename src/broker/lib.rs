//! Wiring and the `ringmq` command: config, start-up, shutdown, sub-commands.
//!
//! - [`cli`] says what can be typed; help and errors come from it.
//! - [`config`] is the broker's file.
//! - [`serve`] starts the controller and the shards, waits for signals and stops them.
//! - [`commands`] has a file or folder for each command that talks to a broker.
//!
//! The command line is scripted against: [`exit`] lists the exit codes; results go to standard output, everything else
//! to standard error.
#![forbid(unsafe_code)]

pub mod cli;
pub mod commands;
pub mod config;
mod dispatch;
pub mod exit;
mod logging;
pub mod output;
pub mod serve;
pub mod start;

pub use dispatch::run;
