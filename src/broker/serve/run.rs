//! Flags over the file, the check that `--check` asks for, and the broker's life.

use super::broker;
use super::error::ServeError;
use super::plan::Plan;
use crate::cli::ServeArgs;
use crate::config::values::{Automatic, Cores, LogFormat};
use crate::config::{Config, ConfigError, file};
use crate::exit::{self, Exit};
use crate::serve::machine;
use crate::{logging, output};

/// Serves until a signal comes, or checks the configuration and returns.
pub(crate) fn run(args: &ServeArgs) -> Exit {
    let (config, plan) = match prepare(args) {
        Ok(prepared) => prepared,
        Err(error) => {
            exit::report(&error);
            return Exit::Usage;
        }
    };
    if args.check {
        return check(&config, &plan);
    }
    logging::start(config.log_level, config.log_format);
    match broker::serve(plan) {
        Ok(()) => Exit::Done,
        Err(error) => {
            match config.log_format {
                LogFormat::Text => exit::report(&error),
                // Whoever reads standard error line by line expects nothing else there.
                LogFormat::Json => tracing::error!(%error, "the broker stops"),
            }
            error.exit()
        }
    }
}

fn prepare(args: &ServeArgs) -> Result<(Config, Plan), ServeError> {
    let config = effective(args)?;
    let plan = Plan::new(&config)?;
    Ok((config, plan))
}

/// What the file says, and the flags over it.
fn effective(args: &ServeArgs) -> Result<Config, ConfigError> {
    let mut config = match &args.config {
        Some(path) => file::read(path)?,
        None => Config::default(),
    };
    let ServeArgs { config: _, check: _, listen, advertise, data_dir, cores, log_level, log_format } = args;
    set(&mut config.listen, listen);
    set(&mut config.advertise, advertise);
    set(&mut config.data_dir, data_dir);
    set(&mut config.cores, cores);
    set(&mut config.log_level, log_level);
    set(&mut config.log_format, log_format);
    Ok(config)
}

fn set<T: Clone>(value: &mut T, flag: &Option<T>) {
    if let Some(flag) = flag {
        value.clone_from(flag);
    }
}

/// Prints what would be in force, with the machine's answers in the place of "all" and "auto".
fn check(config: &Config, plan: &Plan) -> Exit {
    let cpus = plan.cpus().iter().filter_map(|cpu| usize::try_from(cpu.get()).ok());
    let config = Config {
        cores: Cores::List(cpus.collect()),
        tail_cache_bytes: Automatic::Fixed(machine::tail_cache_bytes(config.tail_cache_bytes)),
        ..config.clone()
    };
    match output::print(file::render(&config).trim_end()) {
        Ok(()) => Exit::Done,
        Err(error) => {
            exit::report(&error);
            Exit::Failed
        }
    }
}
