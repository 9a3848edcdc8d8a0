//! `ringmq-bench run FILE`: a scenario, which is several measurements one after the other, out of a TOML file.
//!
//! Each `[[step]]` has a `name`, in `run` one of the commands that measure, and that command's flags without their dashes:
//! `record-bytes = 100` is `--record-bytes 100`, `idempotent = true` is `--idempotent`, and a flag that may be given several
//! times has an array. What a flag means, its default and what is valid are the command's. A step with `removes = true` fails
//! where the broker has not removed the beginning of every partition of its topic when it is over.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser};
use ringmq_client::{BrokerAddress, OffsetSpec};
use serde::Deserialize;

use crate::driver::DriverArgument;
use crate::error::LoadError;
use crate::pace::Extent;
use crate::results::{Results, ResultsError};
use crate::topic::TopicError;
use crate::verb::Verb;

/// Several measurements, one after the other, as a TOML file says
#[derive(Debug, Args)]
pub struct Arguments {
    /// The scenario, such as bench/scenarios/one-topic.toml
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Brokers to start from: `HOST[:PORT]`, several with commas between them
    #[arg(long, env = "RINGMQ_BROKERS", value_name = "ADDR", default_value = "localhost:9092", value_delimiter = ',')]
    pub brokers: Vec<BrokerAddress>,
    /// The protocol that they are spoken to in
    #[arg(long, value_enum, default_value_t = DriverArgument::Native)]
    pub driver: DriverArgument,
    /// A part of what the file says, such as 0.01 to try it: of records, durations and warm-up
    #[arg(long, value_name = "PART", default_value_t = 1.0, value_parser = part)]
    pub scale: f64,
    /// Leave the topics there
    #[arg(long)]
    pub keep: bool,
    /// One JSON object instead of tables
    #[arg(long)]
    pub json: bool,
    /// What `ringmq-bench limits --json` printed, of the same machine in the same minutes: it stands beside the figures
    #[arg(long, value_name = "FILE")]
    pub limits: Option<PathBuf>,
    /// Writes a page with tables and plots to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

fn part(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part: &f64| part.is_finite() && *part > 0.0);
    part.ok_or_else(|| format!("`{text}` is no part; give a number above 0, such as 0.01"))
}

/// Why a scenario has no figures, or not all.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// The file is no scenario.
    #[error("{}: {source}", .path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// A step's flags are none of its command.
    #[error("{}: step `{step}`: {reason}", .path.display())]
    Step {
        /// Which file.
        path: PathBuf,
        /// Which step.
        step: String,
        /// What is wrong.
        reason: String,
    },
    /// The machine's limits cannot be read.
    #[error(transparent)]
    Limits(#[from] ResultsError),
    /// A step failed; the figures of the steps before it are printed.
    #[error("step `{step}`: {source}")]
    Load {
        /// Which step.
        step: String,
        /// Why.
        source: Box<LoadError>,
    },
    /// Retention was to remove records of every partition, and has not.
    #[error(
        "step `{step}`: a partition of topic `{topic}` still has its first records; have the broker look for what to \
         remove more often (`retention_interval_ms`), or let the step take longer"
    )]
    NothingRemoved {
        /// Which step.
        step: String,
        /// Which topic.
        topic: String,
    },
    /// The topics cannot be deleted.
    #[error("the topics of the scenario cannot be deleted: {0}")]
    Delete(#[from] TopicError),
    /// Standard output is gone, or the page cannot be written.
    #[error("the figures cannot be written: {0}")]
    Output(#[source] std::io::Error),
}

/// What a file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    title: String,
    #[serde(rename = "step")]
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Step {
    name: String,
    run: String,
    #[serde(default)]
    removes: bool,
    #[serde(flatten)]
    flags: toml::Table,
}

/// A step as it is carried out.
#[derive(Debug)]
struct Measurement {
    name: String,
    line: Vec<String>,
    verb: Verb,
    /// Of its topic the beginning is to be removed.
    removes: bool,
}

/// The line of a step.
#[derive(Debug, Parser)]
#[command(name = "ringmq-bench", no_binary_name = true)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

/// Runs a scenario: prints the figures of each step as soon as it has them, or all as JSON in the end.
///
/// # Errors
/// [`ScenarioError`]. It ends with the first step that fails.
pub fn run(arguments: &Arguments) -> Result<(), ScenarioError> {
    let scenario = Scenario::read(&arguments.file)?;
    // Each run has topics of its own, so that it does not depend on what was there.
    let id = format!("{:08x}", fastrand::u32(..));
    let steps = scenario.steps.iter().map(|step| step.measurement(arguments, &id)).collect::<Result<Vec<_>, _>>()?;

    let limits = arguments.limits.as_deref().map(Results::read).transpose()?.and_then(|read| read.limits);
    let mut results = Results { title: scenario.title, limits, results: Vec::new() };
    let failure = steps.iter().try_for_each(|step| step.carry_out(arguments.json, &mut results)).err();
    let printed = if arguments.json { results.print().map_err(ScenarioError::Output) } else { Ok(()) };
    let page = arguments.html.as_ref().map_or(Ok(()), |path| results.write_html(path).map_err(ScenarioError::Output));
    let deleted = if arguments.keep { Ok(()) } else { delete_topics(arguments, &scenario.steps, &id) };
    // Where a step failed, that says more than what it did to the rest.
    failure.map_or(Ok(()), Err).and(printed).and(page).and(deleted.map_err(ScenarioError::from))
}

impl Scenario {
    fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        let parsed = toml::from_str(&text);
        parsed.map_err(|source| ScenarioError::Parse { path: path.to_owned(), source: Box::new(source) })
    }
}

impl Measurement {
    fn carry_out(&self, json: bool, results: &mut Results) -> Result<(), ScenarioError> {
        let failed = |source| ScenarioError::Load { step: self.name.clone(), source: Box::new(source) };
        let (mut report, failure) = self.verb.measure().map_err(failed)?;
        report.name.clone_from(&self.name);
        report.command = self.line.join(" ");
        if !json {
            report.print_named().map_err(ScenarioError::Output)?;
        }
        results.results.push(report);
        failure.map_or(Ok(()), |source| Err(failed(source)))?;
        if self.removes { self.check_removed() } else { Ok(()) }
    }

    fn check_removed(&self) -> Result<(), ScenarioError> {
        let (target, step) = (self.verb.target(), self.name.clone());
        let earliest = target.connect().and_then(|mut topics| {
            let topic = topics.find(&target.topic)?;
            topics.offsets(&topic, OffsetSpec::Earliest)
        });
        match earliest {
            Ok(earliest) if earliest.contains(&0) => {
                Err(ScenarioError::NothingRemoved { step, topic: target.topic.clone() })
            }
            Ok(_) => Ok(()),
            Err(error) => Err(ScenarioError::Load { step, source: Box::new(error.into()) }),
        }
    }
}

impl Step {
    fn measurement(&self, arguments: &Arguments, id: &str) -> Result<Measurement, ScenarioError> {
        let line = self.line(arguments, id);
        let parsed = Line::try_parse_from(&line).map_err(|error| ScenarioError::Step {
            path: arguments.file.clone(),
            step: self.name.clone(),
            reason: error.render().to_string(),
        })?;
        // In a part of its time nothing may become old enough.
        let removes = self.removes && arguments.scale >= 1.0;
        Ok(Measurement { name: self.name.clone(), line, verb: parsed.verb, removes })
    }

    /// The command line that it stands for.
    fn line(&self, arguments: &Arguments, id: &str) -> Vec<String> {
        let brokers: Vec<String> = arguments.brokers.iter().map(BrokerAddress::to_string).collect();
        let driver = arguments.driver.name().to_owned();
        let mut line = vec![self.run.clone(), "--brokers".into(), brokers.join(","), "--driver".into(), driver];
        for (flag, value) in &self.flags {
            match value {
                toml::Value::Boolean(true) => line.push(format!("--{flag}")),
                toml::Value::Boolean(false) => {}
                toml::Value::Array(values) => {
                    line.extend(values.iter().flat_map(|value| [format!("--{flag}"), text(value)]));
                }
                value => line.extend([format!("--{flag}"), changed(flag, &text(value), arguments.scale, id)]),
            }
        }
        line
    }

    fn topics(&self) -> impl Iterator<Item = &str> {
        ["topic", "backlog"].into_iter().filter_map(|flag| self.flags.get(flag)?.as_str())
    }
}

fn text(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A flag's value as a run takes it: topics of its own, and a part of what takes time.
fn changed(flag: &str, value: &str, scale: f64, id: &str) -> String {
    match (flag, value.parse()) {
        ("topic" | "backlog", _) => topic_of_run(value, id),
        ("records" | "warmup" | "duration", Ok(extent)) => scaled(extent, scale),
        _ => value.to_owned(),
    }
}

fn topic_of_run(topic: &str, id: &str) -> String {
    format!("{topic}-{id}")
}

fn scaled(extent: Extent, scale: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float to an integer saturates")]
    let part = |number: f64| (number * scale).ceil() as u64;
    match extent {
        Extent::Records(records) => part(records as f64).to_string(),
        Extent::Time(time) => format!("{}ms", part(time.div_duration_f64(Duration::from_millis(1)))),
    }
}

fn delete_topics(arguments: &Arguments, steps: &[Step], id: &str) -> Result<(), TopicError> {
    let mut topics = arguments.driver.driver().connect(&arguments.brokers)?;
    let mut names: Vec<String> = steps.iter().flat_map(Step::topics).map(|topic| topic_of_run(topic, id)).collect();
    names.sort_unstable();
    names.dedup();
    names.iter().try_for_each(|name| topics.delete(name))
}

#[cfg(test)]
mod tests;
