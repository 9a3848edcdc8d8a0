//! The commands that measure a broker: on the command line, and in scenario files.

use clap::Subcommand;

use crate::arguments::Target;
use crate::error::LoadError;
use crate::html;
use crate::report::Report;
use crate::{consume, end_to_end, mixed, produce};

/// What is measured.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// How fast the broker takes records: distinct, incompressible ones, from prepared batches
    Produce(Box<produce::Arguments>),
    /// How fast the broker gives records back: every checksum is verified, and records are counted
    Consume(Box<consume::Arguments>),
    /// How long records take from producers to consumers, at a constant rate
    EndToEnd(Box<end_to_end::Arguments>),
    /// What the drain of a backlog does to those who produce and consume meanwhile
    Mixed(Box<mixed::Arguments>),
}

impl Verb {
    /// Measures. Besides the figures gives what went wrong, if something did after the clock had started.
    ///
    /// # Errors
    /// What went wrong before.
    pub fn measure(&self) -> Result<(Report, Option<LoadError>), LoadError> {
        match self {
            Self::Produce(arguments) => produce::measure(arguments),
            Self::Consume(arguments) => consume::measure(arguments),
            Self::EndToEnd(arguments) => end_to_end::measure(arguments),
            Self::Mixed(arguments) => mixed::measure(arguments),
        }
    }

    /// Measures, prints the figures, and writes the page with them where one is asked for.
    ///
    /// # Errors
    /// [`LoadError`]; figures of a run in which connections failed are printed all the same.
    pub fn run(&self) -> Result<(), LoadError> {
        let (report, failure) = self.measure()?;
        let printed = report.print(self.target().json);
        let page = self.target().html.as_ref();
        let page = page.map_or(Ok(()), |path| html::write(path, &report.name, std::slice::from_ref(&report), None));
        failure.map_or(Ok(()), Err).and(printed.and(page).map_err(LoadError::Output))
    }

    pub(crate) fn target(&self) -> &Target {
        match self {
            Self::Produce(arguments) => &arguments.target,
            Self::Consume(arguments) => &arguments.target,
            Self::EndToEnd(arguments) => &arguments.target,
            Self::Mixed(arguments) => &arguments.target,
        }
    }
}
