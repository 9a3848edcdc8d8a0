//! `ringmq completions` and `ringmq man`: made from the definitions of the command line, so they are never older.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use thiserror::Error;

use super::CommandError;
use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::exit::Exit;

/// Why a manual page cannot be made.
#[derive(Debug, Error)]
pub(crate) enum ManError {
    /// There is no such command.
    #[error("there is no command `{0}`; `ringmq --help` lists them")]
    NoCommand(String),
    /// A page cannot be written.
    #[error("cannot write {} ({source}); check the space and the permissions there", .path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Prints a script for a shell.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ringmq", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(Exit::Done)
}

/// Prints one page, or writes all of them.
///
/// # Errors
/// When there is no such command, or a page cannot be written.
pub(crate) fn man(args: &ManArgs) -> Result<Exit, CommandError> {
    let mut program = Cli::command().disable_help_subcommand(true);
    // Gives each command its whole name, such as ringmq-topic-create.
    program.build();
    match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|source| ManError::Write { path: dir.clone(), source })?;
            write_pages(dir, &program)?;
        }
        None => io::stdout().lock().write_all(&page(find(&program, &args.command)?)?)?,
    }
    Ok(Exit::Done)
}

/// The command of that name, or the program without one.
fn find<'c>(program: &'c Command, words: &[String]) -> Result<&'c Command, ManError> {
    words.iter().flat_map(|word| word.split_whitespace()).try_fold(program, |command, word| {
        command.find_subcommand(word).ok_or_else(|| ManError::NoCommand(words.join(" ")))
    })
}

/// The page of a command, and those of the commands below it.
fn write_pages(dir: &Path, command: &Command) -> Result<(), CommandError> {
    let path = dir.join(format!("{}.1", name(command)));
    let written = std::fs::write(&path, page(command)?);
    written.map_err(|source| ManError::Write { path, source })?;
    command.get_subcommands().filter(|command| !command.is_hide_set()).try_for_each(|below| write_pages(dir, below))
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).title(name(command)).render(&mut page)?;
    Ok(page)
}

fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}
