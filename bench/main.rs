//! `ringmq-bench`: what this machine can do, and what a broker does with it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ringmq_bench::{consume, limits, produce};

#[derive(Debug, Parser)]
#[command(name = "ringmq-bench", version, about)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Produce(produce::Arguments),
    Consume(consume::Arguments),
    Limits(limits::Arguments),
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Produce(arguments) => produce::run(&arguments).map_err(|error| error.to_string()),
        Command::Consume(arguments) => consume::run(&arguments).map_err(|error| error.to_string()),
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
