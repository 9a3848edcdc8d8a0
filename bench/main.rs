//! `ringmq-bench`: what this machine can do, and what a broker does with it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ringmq_bench::{VERSION, consume, end_to_end, limits, produce};

#[derive(Debug, Parser)]
#[command(name = "ringmq-bench", version = VERSION, about)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Produce(produce::Arguments),
    Consume(consume::Arguments),
    EndToEnd(end_to_end::Arguments),
    Limits(limits::Arguments),
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Produce(arguments) => produce::run(&arguments).map_err(|error| error.to_string()),
        Command::Consume(arguments) => consume::run(&arguments).map_err(|error| error.to_string()),
        Command::EndToEnd(arguments) => end_to_end::run(&arguments).map_err(|error| error.to_string()),
        Command::Limits(arguments) => limits::run(&arguments).map_err(|error| error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be told when standard error itself is gone.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}
