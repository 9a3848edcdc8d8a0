//! The broker's log: one stream on standard error, as text for people or JSON for collectors.

use tracing::level_filters::LevelFilter;

use crate::config::values::{LogFormat, LogLevel};
use crate::output;

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Sends everything that is logged from now on to standard error. The first call of a process counts.
pub(crate) fn start(level: LogLevel, format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::from(level))
        .with_writer(std::io::stderr)
        .with_thread_names(true)
        // They would go to standard error as well, and panic there: a disk that is full of log must not end the broker.
        .log_internal_errors(false)
        .with_ansi(output::is_coloured(&std::io::stderr()));
    // An error means that a log was started before, by a test of the same process.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
