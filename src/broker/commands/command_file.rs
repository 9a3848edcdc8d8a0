//! `ringmq run FILE`: a command, and where the brokers are, from a file.
//!
//! What the file says becomes a command line, so that it means what the same flags mean, and mistakes are told alike.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, CommandFactory, Parser};
use serde::Deserialize;
use thiserror::Error;

use self::document::{Document, Place};
use crate::cli::{Cli, Command, RunArgs};

mod document;

/// The most that is read of a file; a command takes less than a kilobyte.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Flags that the file gives above its command: there, what `run` itself is given goes over them.
const AT_THE_TOP: [&str; 2] = ["brokers", "timeout"];

/// All keys above the command, and the command itself.
const TOP_KEYS: [&str; 3] = ["brokers", "timeout", COMMAND];

/// The table of the command.
const COMMAND: &str = "command";

/// Why a file holds no command. The text names the file, and the line where there is one.
#[derive(Debug, Error)]
pub(crate) enum CommandFileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}; name a file of TOML or JSON, as configs/commands has them", .file.display())]
    Read { file: PathBuf, source: io::Error },
    /// It is no TOML, or not of the form.
    #[error("{place}: {source}")]
    Toml { place: Place, source: Box<toml::de::Error> },
    /// It is no JSON, or not of the form.
    #[error("{place}: {source}")]
    Json { place: Place, source: serde_json::Error },
    /// There is no such key above the command.
    #[error("{place}: unknown key `{key}`{valid}")]
    NoTopKey { place: Place, key: String, valid: String },
    /// `command.name` is no command that talks to a broker.
    #[error("{place}: there is no command `{name}` that a file can hold{valid}")]
    NoCommand { place: Place, name: String, valid: String },
    /// The command has no such flag.
    #[error("{place}: `{name}` has no `{key}`{valid}")]
    NoKey { place: Place, name: String, key: String, valid: String },
    /// It says in its table what stands above it.
    #[error("{place}: `{key}` belongs at the top of the file, above [command]")]
    AtTheTop { place: Place, key: String },
    /// A flag without a value has one.
    #[error("{place}: `{key}` of `{name}` is true or false")]
    NoSwitch { place: Place, name: String, key: String },
    /// What stands without a flag has its meaning by its place, and one before it is missing.
    #[error("{place}: `{name}` has no `{missing}`, and without it no `{given}` either; add `{missing}`")]
    Gap { place: Place, name: String, missing: String, given: String },
    /// The command line that it makes is wrong.
    #[error("{place}: {source}")]
    Wrong { place: Place, source: Box<clap::Error> },
}

/// What would be right: the nearest, if one is near, and all that there are.
fn valid(nearest: Option<String>, there_are: &str, known: &[String]) -> String {
    let nearest = nearest.map(|nearest| format!(" (the nearest is {nearest})")).unwrap_or_default();
    format!("{nearest}; {there_are} {}", known.join(", "))
}

/// What the file says; [`TOP_KEYS`] has the names.
#[derive(Debug, Deserialize)]
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
    let text = read_bounded(&args.file)?;
    let document = Document::new(&args.file, &text);
    let content = parse(document)?;
    let brokers: Vec<String> = args.brokers.iter().map(ToString::to_string).collect();
    let brokers = if brokers.is_empty() { content.brokers } else { brokers };
    let timeout = args.timeout.map(exactly).or(content.timeout);

    let Line { mut flags, operands } = line(document, &content.command)?;
    if !brokers.is_empty() {
        flags.push(format!("--brokers={}", brokers.join(",")));
    }
    flags.extend(timeout.map(|timeout| format!("--timeout={timeout}")));
    let words = content.command.name.split_whitespace().map(str::to_owned);
    let words = ["ringmq".to_owned()].into_iter().chain(words).chain(flags).chain(["--".to_owned()]).chain(operands);
    let cli = Cli::try_parse_from(words);
    cli.map(|cli| cli.command).map_err(|source| {
        let place = wrong_key(&content.command.name, &source)
            .map_or(document.place(), |(table, key)| document.key(table, &key));
        CommandFileError::Wrong { place, source: Box::new(source) }
    })
}

/// The key, and its table, whose value clap refused.
fn wrong_key(name: &str, error: &clap::Error) -> Option<(Option<&'static str>, String)> {
    let Some(ContextValue::String(refused)) = error.get(ContextKind::InvalidArg) else { return None };
    let mut program = Cli::command();
    // Until then arguments cannot be printed.
    program.build();
    let arg = command(&program, name)?.get_arguments().find(|arg| arg.to_string() == *refused)?;
    let key = key_of(arg);
    Some(((!AT_THE_TOP.contains(&key.as_str())).then_some(COMMAND), key))
}

fn read_bounded(file: &Path) -> Result<String, CommandFileError> {
    let mut text = String::new();
    let read = File::open(file).and_then(|open| open.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| CommandFileError::Read { file: file.to_owned(), source })?;
    Ok(text)
}

fn parse(document: Document<'_>) -> Result<Content, CommandFileError> {
    if let Some(key) = document.top_keys().into_iter().find(|key| !TOP_KEYS.contains(&key.as_str())) {
        let known = TOP_KEYS.map(str::to_owned);
        let nearest = closest(&key, &known).map(|nearest| format!("`{nearest}`"));
        let valid = valid(nearest, "at the top of the file there are", &known);
        return Err(CommandFileError::NoTopKey { place: document.key(None, &key), key, valid });
    }
    let place = document.place();
    if document.is_json() {
        serde_json::from_str(document.text()).map_err(|source| CommandFileError::Json { place, source })
    } else {
        toml::from_str(document.text()).map_err(|source| CommandFileError::Toml { place, source: Box::new(source) })
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

fn line(document: Document<'_>, table: &Table) -> Result<Line, CommandFileError> {
    let program = Cli::command();
    let name = &table.name;
    let at = |key: &str| document.key(Some(COMMAND), key);
    let Some(command) = command(&program, name) else {
        let known: Vec<String> = commands(&program, "");
        let nearest = closest(name, &known).map(|nearest| format!("`{nearest}`"));
        let valid = valid(nearest, "there are", &known);
        return Err(CommandFileError::NoCommand { place: at("name"), name: name.clone(), valid });
    };
    let mut line = Line::default();
    let mut operands: BTreeMap<Option<usize>, Vec<String>> = BTreeMap::new();
    let place = |arg: &clap::Arg| command.get_positionals().position(|one| one.get_id() == arg.get_id());
    for (key, value) in &table.flags {
        if AT_THE_TOP.contains(&key.as_str()) {
            return Err(CommandFileError::AtTheTop { place: at(key), key: key.clone() });
        }
        let Some(arg) = command.get_arguments().find(|arg| key_of(arg) == *key) else {
            let known = command.get_arguments().map(key_of).filter(|key| !AT_THE_TOP.contains(&key.as_str()));
            let known: Vec<String> = known.collect();
            let nearest = closest(key, &known);
            let nearest = command.get_arguments().find(|arg| Some(key_of(arg)) == nearest).map(assignment);
            let valid = valid(nearest, "it takes", &known);
            return Err(CommandFileError::NoKey { place: at(key), name: name.clone(), key: key.clone(), valid });
        };
        let takes_value = takes_value(arg);
        let given = match value {
            Value::Switch(on) if !takes_value => {
                line.flags.extend(on.then(|| format!("--{key}")));
                continue;
            }
            _ if !takes_value => {
                let (place, name, key) = (at(key), name.clone(), key.clone());
                return Err(CommandFileError::NoSwitch { place, name, key });
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
        return Err(CommandFileError::Gap { place: at(&given), name: name.clone(), missing, given });
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

fn takes_value(arg: &clap::Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// A key as the file gives it a value: `partitions` = N, `follow` = true or false.
fn assignment(arg: &clap::Arg) -> String {
    let words: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let value = match arg.get_value_names() {
        _ if !takes_value(arg) => "true or false".to_owned(),
        Some(names) if words.is_empty() => names.join(" "),
        _ => words.join(", "),
    };
    format!("`{}` = {value}", key_of(arg))
}

/// The command of this name, one that a file can hold.
fn command<'a>(program: &'a clap::Command, name: &str) -> Option<&'a clap::Command> {
    let command = name.split_whitespace().try_fold(program, |command, word| command.find_subcommand(word));
    command.filter(|command| talks_to_brokers(command))
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

    fn read(file: &str, text: &str) -> Result<Line, String> {
        let document = Document::new(Path::new(file), text);
        let content = parse(document).map_err(|error| error.to_string())?;
        line(document, &content.command).map_err(|error| error.to_string())
    }

    fn toml(text: &str) -> Result<Line, String> {
        read("sample.toml", text)
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
            (
                "[command]\nname = \"produze\"",
                ":2: there is no command `produze` that a file can hold (the nearest is `produce`)",
            ),
            ("[command]\nname = \"serve\"", ":2: there is no command `serve` that a file can hold"),
            ("[command]\nname = \"run\"", ":2: there is no command `run` that a file can hold"),
            (
                "[command]\nname = \"create-topic\"\n\npartitons = 3",
                ":4: `create-topic` has no `partitons` (the nearest is `partitions` = N); it takes topic, partitions",
            ),
            (
                "[command]\nname = \"consume\"\nfolow = true",
                ":3: `consume` has no `folow` (the nearest is `follow` = true or false)",
            ),
            (
                "[command]\nname = \"produce\"\ncompresion = \"lz4\"",
                ":3: `produce` has no `compresion` (the nearest is `compression` = none, gzip, snappy, lz4, zstd)",
            ),
            (
                "command = { name = \"consume\", nothing-near = 1 }",
                ":1: `consume` has no `nothing-near`; it takes topic, ",
            ),
            ("[command]\nname = \"consume\"\nfollow = 1", ":3: `follow` of `consume` is true or false"),
            (
                "\nbroker = \"a\"\n[command]\nname = \"consume\"",
                ":2: unknown key `broker` (the nearest is `brokers`); at the top of the file there are brokers, timeout",
            ),
            ("[command]\nname = \"consume\"\ncount = 1.5", "not a text, a whole number, true, false"),
            ("brokers = [\"a\"]", "missing field `command`"),
            ("[command", "line 1"),
            (
                "[command]\nname = \"produce\"\nfile = \"x.txt\"",
                ":3: `produce` has no `topic`, and without it no `file`",
            ),
            ("[command]\nname = \"consume\"\ntimeout = \"5s\"", ":3: `timeout` belongs at the top of the file"),
            ("[command]\nname = \"consume\"\nbrokers = [\"a\"]", ":3: `brokers` belongs at the top of the file"),
            ("[command]\nname = \"produce\"\ntopic = []\nfile = \"x.txt\"", ":4: `produce` has no `topic`, and"),
        ];
        for (text, named) in cases {
            let error = toml(text).expect_err(text);
            assert!(error.starts_with("sample.toml:") && error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn a_line_of_json_is_that_of_the_key_and_not_of_a_text_like_it() {
        let cases = [
            ("{\"command\": {\"name\": \"consume\",\n\"topik\" : \"t\"}}", ":2: `consume` has no `topik`"),
            // The same words as texts, with quotes and colons in them, and as a key of the command.
            (
                "{\"timeout\": \"\\\"brocers\\\": 1\",\n\"brokers\": [\"brocers\"],\n\"brocers\": 1}",
                ":3: unknown key `brocers` (the nearest is `brokers`)",
            ),
            (
                "{\"brokers\": [\"a\"],\n\"command\": {\n\"brokers\": [], \"name\": \"consume\"}}",
                ":3: `brokers` belongs at the top",
            ),
            // A key of the command, before the same one at the top.
            ("{\"command\": {\n\"brocers\": [], \"name\": \"consume\"},\n\"brocers\": 1}", ":3: unknown key `brocers`"),
        ];
        for (text, named) in cases {
            let error = read("sample.json", text).expect_err(text);
            assert!(error.starts_with(&format!("sample.json{named}")), "{text}: {error}");
        }
    }
}
