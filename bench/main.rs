//! `ringmq-bench`: what this machine can do, and what a broker does with it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ringmq_bench::{VERSION, Verb, discover, limits, results, scenario};

#[derive(Debug, Parser)]
#[command(name = "ringmq-bench", version = VERSION, about)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Measure(Verb),
    Discover(discover::Arguments),
    Limits(limits::Arguments),
    Run(scenario::Arguments),
    Report(results::Arguments),
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Measure(verb) => verb.run().map_err(|error| error.to_string()),
        Command::Discover(arguments) => discover::run(&arguments).map_err(|error| error.to_string()),
        Command::Limits(arguments) => limits::run(&arguments).map_err(|error| error.to_string()),
        Command::Run(arguments) => scenario::run(&arguments).map_err(|error| error.to_string()),
        Command::Report(arguments) => results::run(&arguments).map_err(|error| error.to_string()),
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
