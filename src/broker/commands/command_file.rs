//! `ringmq run FILE`: a command, and where the brokers are, from a file.
//!
//! What the file says becomes a command line, so that it means what the same flags mean, and mistakes are told alike.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, CommandFactory, Parser};
use serde::Deserialize;
use thiserror::Error;

use crate::cli::{Cli, Command, RunArgs};

/// The most that is read of a file; a command takes less than a kilobyte.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Flags that the file gives above its command: there, what `run` itself is given goes over them.
const AT_THE_TOP: [&str; 2] = ["brokers", "timeout"];

/// Why a file holds no command. The text names the file.
#[derive(Debug, Error)]
pub(crate) enum CommandFileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", .file.display())]
    Read { file: PathBuf, source: io::Error },
    /// It is no TOML, or has other keys.
    #[error("{}: {source}", .file.display())]
    Toml { file: PathBuf, source: Box<toml::de::Error> },
    /// It is no JSON, or has other keys.
    #[error("{}: {source}", .file.display())]
    Json { file: PathBuf, source: serde_json::Error },
    /// `command.name` is no command that talks to a broker.
    #[error("{}: there is no command `{name}` that a file can hold{}; there are {known}", .file.display(), meant(.nearest))]
    NoCommand { file: PathBuf, name: String, nearest: Option<String>, known: String },
    /// The command has no such flag.
    #[error("{}: `{name}` has no `{key}`{}; it takes {known}", .file.display(), meant(.nearest))]
    NoKey { file: PathBuf, name: String, key: String, nearest: Option<String>, known: String },
    /// It says in its table what stands above it.
    #[error("{}: `{key}` belongs at the top of the file, above [command]", .file.display())]
    AtTheTop { file: PathBuf, key: String },
    /// A flag without a value has one.
    #[error("{}: `{key}` of `{name}` is true or false", .file.display())]
    NoSwitch { file: PathBuf, name: String, key: String },
    /// What stands without a flag has its meaning by its place, and one before it is missing.
    #[error("{}: `{name}` has no `{missing}`, and without it no `{given}` either; add `{missing}`", .file.display())]
    Gap { file: PathBuf, name: String, missing: String, given: String },
    /// The command line that it makes is wrong.
    #[error("{}: {source}", .file.display())]
    Wrong { file: PathBuf, source: Box<clap::Error> },
}

fn meant(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!(" (the nearest is `{name}`)")).unwrap_or_default()
}

/// What the file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    brokers: Vec<String>,
    timeout: Option<String>,
    command: Table,
}

/// The command: its name, and its flags by their names.
#[derive(Debug, Deserialize)]
struct Table {
    name: String,
    #[serde(flatten)]
    flags: BTreeMap<String, Value>,
}

/// What a flag is given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "not a text, a whole number, true, false, or a list of texts and numbers")]
enum Value {
    Switch(bool),
    One(Scalar),
    Several(Vec<Scalar>),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "not a text or a whole number")]
enum Scalar {
    Number(i64),
    Text(String),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// The command that the file holds, with what the flags of `run` put over it.
///
/// # Errors
/// [`CommandFileError`]; nothing was done.
pub(crate) fn read(args: &RunArgs) -> Result<Command, CommandFileError> {
    let file = args.file.clone();
    let content = parse(&file, &read_bounded(&file)?)?;
    let brokers: Vec<String> = args.brokers.iter().map(ToString::to_string).collect();
    let brokers = if brokers.is_empty() { content.brokers } else { brokers };
    let timeout = args.timeout.map(exactly).or(content.timeout);

    let Line { mut flags, operands } = line(&file, &content.command)?;
    if !brokers.is_empty() {
        flags.push(format!("--brokers={}", brokers.join(",")));
    }
    flags.extend(timeout.map(|timeout| format!("--timeout={timeout}")));
    let words = content.command.name.split_whitespace().map(str::to_owned);
    let words = ["ringmq".to_owned()].into_iter().chain(words).chain(flags).chain(["--".to_owned()]).chain(operands);
    let cli = Cli::try_parse_from(words);
    cli.map(|cli| cli.command).map_err(|source| CommandFileError::Wrong { file, source: Box::new(source) })
}

fn read_bounded(file: &Path) -> Result<String, CommandFileError> {
    let mut text = String::new();
    let read = File::open(file).and_then(|open| open.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| CommandFileError::Read { file: file.to_owned(), source })?;
    Ok(text)
}

fn parse(file: &Path, text: &str) -> Result<Content, CommandFileError> {
    if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        serde_json::from_str(text).map_err(|source| CommandFileError::Json { file: file.to_owned(), source })
    } else {
        toml::from_str(text)
            .map_err(|source| CommandFileError::Toml { file: file.to_owned(), source: Box::new(source) })
    }
}

/// A duration as `--timeout` reads it.
fn exactly(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// The parts of a command line behind the command's name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Line {
    flags: Vec<String>,
    /// What stands without a flag, in the order that the command wants.
    operands: Vec<String>,
}

fn line(file: &Path, table: &Table) -> Result<Line, CommandFileError> {
    let program = Cli::command();
    let name = &table.name;
    let command = name.split_whitespace().try_fold(&program, |command, word| command.find_subcommand(word));
    let Some(command) = command.filter(|command| talks_to_brokers(command)) else {
        let known: Vec<String> = commands(&program, "");
        let (nearest, known) = (closest(name, &known), known.join(", "));
        return Err(CommandFileError::NoCommand { file: file.to_owned(), name: name.clone(), nearest, known });
    };
    let mut line = Line::default();
    let mut operands: BTreeMap<Option<usize>, Vec<String>> = BTreeMap::new();
    let place = |arg: &clap::Arg| command.get_positionals().position(|one| one.get_id() == arg.get_id());
    for (key, value) in &table.flags {
        if AT_THE_TOP.contains(&key.as_str()) {
            return Err(CommandFileError::AtTheTop { file: file.to_owned(), key: key.clone() });
        }
        let Some(arg) = command.get_arguments().find(|arg| key_of(arg) == *key) else {
            let known = command.get_arguments().map(key_of).filter(|key| !AT_THE_TOP.contains(&key.as_str()));
            let known: Vec<String> = known.collect();
            let (nearest, known) = (closest(key, &known), known.join(", "));
            let (file, name, key) = (file.to_owned(), name.clone(), key.clone());
            return Err(CommandFileError::NoKey { file, name, key, nearest, known });
        };
        let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        let given = match value {
            Value::Switch(on) if !takes_value => {
                line.flags.extend(on.then(|| format!("--{key}")));
                continue;
            }
            _ if !takes_value => {
                let (file, name, key) = (file.to_owned(), name.clone(), key.clone());
                return Err(CommandFileError::NoSwitch { file, name, key });
            }
            Value::Switch(on) => vec![on.to_string()],
            Value::One(one) => vec![one.text()],
            Value::Several(several) => several.iter().map(Scalar::text).collect(),
        };
        match arg.get_long() {
            Some(long) => line.flags.extend(given.iter().map(|value| format!("--{long}={value}"))),
            None if given.is_empty() => {}
            None => drop(operands.insert(place(arg), given)),
        }
    }
    let positionals: Vec<&clap::Arg> = command.get_positionals().collect();
    let is_given = |place: usize| operands.contains_key(&Some(place));
    let last = (0..positionals.len()).rfind(|place| is_given(*place)).unwrap_or(0);
    if let Some(missing) = (0..last).find(|place| !is_given(*place)) {
        let (missing, given) = (key_of(positionals[missing]), key_of(positionals[last]));
        return Err(CommandFileError::Gap { file: file.to_owned(), name: name.clone(), missing, given });
    }
    line.operands = operands.into_values().flatten().collect();
    Ok(line)
}

/// What a flag or an operand is called in the file: `retention_ms` stays with its underscore, `key-separator` has none.
fn key_of(arg: &clap::Arg) -> String {
    match (arg.get_long(), arg.get_value_names()) {
        (Some(long), _) => long.to_owned(),
        (None, Some([name, ..])) => name.to_lowercase(),
        (None, _) => arg.get_id().to_string(),
    }
}

fn talks_to_brokers(command: &clap::Command) -> bool {
    command.get_name() != "run" && command.get_arguments().any(|arg| arg.get_long() == Some("brokers"))
}

/// The names of all commands that a file can hold.
fn commands(program: &clap::Command, above: &str) -> Vec<String> {
    let named = |command: &clap::Command| {
        let name = format!("{above}{}", command.get_name());
        let below = commands(command, &format!("{name} "));
        talks_to_brokers(command).then_some(name).into_iter().chain(below).collect::<Vec<_>>()
    };
    program.get_subcommands().flat_map(named).collect()
}

/// The name that was probably meant; none when every second letter is another.
fn closest(name: &str, known: &[String]) -> Option<String> {
    let distance = |known: &&String| strsim::damerau_levenshtein(known, name);
    known.iter().min_by_key(distance).filter(|known| distance(known) * 2 <= name.chars().count()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Result<Line, String> {
        let file = Path::new("sample.toml");
        let content = parse(file, text).map_err(|error| error.to_string())?;
        line(file, &content.command).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_become_flags_and_operands() {
        let text = r#"
            [command]
            name = "produce"
            file = "lines.txt"
            topic = "orders"
            key-separator = "\t"
            header = ["a=1", "b"]
            partition = 3
        "#;
        let Line { flags, operands } = toml(text).expect("valid");
        assert_eq!(flags, ["--header=a=1", "--header=b", "--key-separator=\t", "--partition=3"]);
        assert_eq!(operands, ["orders", "lines.txt"], "in the order of the command line");
        let follow = "[command]\nname = \"consume\"\ntopic = \"t\"\nfollow = true\n";
        assert_eq!(toml(follow).expect("valid").flags, ["--follow"]);
        assert_eq!(toml(&follow.replace("true", "false")).expect("valid").flags, [""; 0]);
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_does() {
        let cases = [
            ("[command]\nname = \"produze\"", "no command `produze` that a file can hold (the nearest is `produce`)"),
            ("[command]\nname = \"serve\"", "no command `serve` that a file can hold"),
            ("[command]\nname = \"run\"", "no command `run` that a file can hold"),
            (
                "[command]\nname = \"create-topic\"\npartitons = 3",
                "`create-topic` has no `partitons` (the nearest is `partitions`)",
            ),
            ("[command]\nname = \"consume\"\nfollow = 1", "`follow` of `consume` is true or false"),
            ("broker = \"a\"\n[command]\nname = \"consume\"", "unknown field `broker`"),
            ("[command]\nname = \"consume\"\ncount = 1.5", "not a text, a whole number, true, false"),
            ("brokers = [\"a\"]", "missing field `command`"),
            ("[command", "line 1"),
            ("[command]\nname = \"produce\"\nfile = \"x.txt\"", "`produce` has no `topic`, and without it no `file`"),
            ("[command]\nname = \"consume\"\ntimeout = \"5s\"", "`timeout` belongs at the top of the file"),
            ("[command]\nname = \"consume\"\nbrokers = [\"a\"]", "`brokers` belongs at the top of the file"),
            ("[command]\nname = \"produce\"\ntopic = []\nfile = \"x.txt\"", "add `topic`"),
        ];
        for (text, named) in cases {
            let error = toml(text).expect_err(text);
            assert!(error.starts_with("sample.toml: ") && error.contains(named), "{text}: {error}");
        }
    }
}
