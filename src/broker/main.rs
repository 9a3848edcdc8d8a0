//! The `ringmq` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use ringmq::cli::Cli;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringmq::run(&Cli::parse().command)
}
