//! From a file's text to a [`Config`], with errors that name the key, its line, its value and what is valid.

use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::{self, Config, Key, Valid};

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {} ({source}); check its name and permissions", path.display())]
    Read {
        /// The file that was asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was read, and says things that do not hold; all of them are here.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}

/// One thing that is wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as its reader named it; empty for what came from flags.
    pub source: String,
    /// Line in the file, from 1; none when the key is not in it.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.source.as_str(), self.line) {
            ("", _) => f.write_str(&self.text),
            (source, Some(line)) => write!(f, "{source}:{line}: {}", self.text),
            (source, None) => write!(f, "{source}: {}", self.text),
        }
    }
}

/// Reads the configuration file at `path`.
///
/// # Errors
/// [`ConfigError::Read`] when there is no such file or it is no text, [`ConfigError::Invalid`] when it says
/// something that does not hold.
#[allow(clippy::disallowed_methods, reason = "the file says how the executors are to be: they are not there yet")]
pub fn read(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text, &path.display().to_string())
}

/// Parses a configuration; `source` names the file in errors.
///
/// # Errors
/// [`ConfigError::Invalid`] with everything that is wrong.
pub fn parse(text: &str, source: &str) -> Result<Config, ConfigError> {
    let document = Document { text, source };
    let table = DeTable::parse(text).map_err(|error| document.syntax_error(&error))?;
    let problems = document.check_keys(table.get_ref());
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(problems));
    }
    let deserializer = toml::de::Deserializer::from(table.clone());
    let config: Config =
        serde_path_to_error::deserialize(deserializer).map_err(|error| document.type_error(table.get_ref(), &error))?;
    let problems = document.check_relations(table.get_ref(), &config);
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(problems)) }
}

/// The text under examination, for lines in errors.
struct Document<'t> {
    text: &'t str,
    source: &'t str,
}

impl Document<'_> {
    fn line_at(&self, position: usize) -> usize {
        let before = self.text.as_bytes().iter().take(position);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    fn problem(&self, position: Option<usize>, text: String) -> Problem {
        Problem { source: self.source.to_owned(), line: position.map(|position| self.line_at(position)), text }
    }

    fn syntax_error(&self, error: &toml::de::Error) -> ConfigError {
        let position = error.span().map(|span| span.start);
        let text = format!("this is not TOML: {}", error.message());
        ConfigError::Invalid(vec![self.problem(position, text)])
    }

    /// Looks for keys that do not exist and numbers that are out of range, in the order of the file.
    fn check_keys(&self, root: &DeTable<'_>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for entry in entries(root) {
            match schema::key(&entry.path) {
                None if is_section(&entry.path) => {
                    let text = format!("{} is a table: write [{}] on a line of its own", entry.path, entry.path);
                    problems.push((entry.value.span().start, text));
                }
                None if entry.value.get_ref().is_table() => {
                    problems.push((entry.position, unknown_table(&entry.path)));
                }
                None => problems.push((entry.position, unknown_key(&entry.path))),
                Some(key) => problems.extend(out_of_range(key, &entry).map(|text| (entry.value.span().start, text))),
            }
        }
        problems.sort_by_key(|(position, _)| *position);
        problems.into_iter().map(|(position, text)| self.problem(Some(position), text)).collect()
    }

    /// A value of the wrong type or form, told with the key that serde was at.
    fn type_error(&self, root: &DeTable<'_>, error: &serde_path_to_error::Error<toml::de::Error>) -> ConfigError {
        let path = error.path().to_string();
        let reason = error.inner().message().trim();
        let entry = entries(root).into_iter().find(|entry| {
            path.strip_prefix(&entry.path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        });
        let (position, text) = match entry.and_then(|entry| Some((schema::key(&entry.path)?, entry))) {
            Some((key, entry)) => {
                let text = format!("{} = {}: {reason}; valid: {}", key.path, self.value_text(&entry), key.valid);
                (Some(entry.value.span().start), text)
            }
            None => (error.inner().span().map(|span| span.start), format!("{path}: {reason}")),
        };
        ConfigError::Invalid(vec![self.problem(position, text)])
    }

    /// What holds between keys.
    fn check_relations(&self, root: &DeTable<'_>, config: &Config) -> Vec<Problem> {
        let entries = entries(root);
        config
            .broken_relations()
            .into_iter()
            .map(|(path, text)| {
                let entry = entries.iter().find(|entry| entry.path == path);
                self.problem(entry.map(|entry| entry.position), text)
            })
            .collect()
    }

    fn value_text(&self, entry: &Entry<'_>) -> &str {
        self.text.get(entry.value.span()).unwrap_or_default()
    }
}

impl Config {
    /// What must hold of values and between keys, whatever their types allow, and does not: the key to blame, and why.
    pub fn broken_relations(&self) -> Vec<(&'static str, String)> {
        let mut broken = Vec::new();
        let mut at_least = |(key, value): (&'static str, u64), (other, bound): (&str, u64)| {
            if value < bound {
                broken.push((key, format!("{key} = {value} is below {other} = {bound}; raise it or lower the other")));
            }
        };
        let request = ("request_bytes_max", self.request_bytes_max);
        let connection = ("connection_request_bytes_max", self.connection_request_bytes_max);
        let shard = ("shard_request_bytes_max", self.shard_request_bytes_max);
        let fetch = ("fetch_bytes_max", self.fetch_bytes_max);
        let connection_response = ("connection_response_bytes_max", self.connection_response_bytes_max);
        let shard_response = ("shard_response_bytes_max", self.shard_response_bytes_max);
        let topics = self.topic_defaults.0;
        let batch = ("topic_defaults.batch_bytes_max", u64::from(topics.batch_bytes_max));
        let segment = ("topic_defaults.segment_bytes", topics.segment_bytes);
        at_least(request, batch);
        at_least(connection, request);
        at_least(shard, connection);
        at_least(connection_response, fetch);
        at_least(shard_response, connection_response);
        at_least(segment, batch);
        if self.data_dir.as_os_str().is_empty() {
            broken.push(("data_dir", "data_dir is empty; name a directory".to_owned()));
        }
        broken
    }
}

/// One key of a parsed file.
struct Entry<'t> {
    path: String,
    /// Where the key itself stands.
    position: usize,
    value: &'t Spanned<DeValue<'t>>,
}

/// All keys of the file with their dotted paths; sections are opened one level deep, as the schema is.
fn entries<'t>(root: &'t DeTable<'t>) -> Vec<Entry<'t>> {
    let mut entries = Vec::new();
    for (name, value) in root {
        let position = name.span().start;
        match value.get_ref().as_table() {
            Some(table) if is_section(name.get_ref()) => entries.extend(table.iter().map(|(inner, value)| Entry {
                path: format!("{}.{}", name.get_ref(), inner.get_ref()),
                position: inner.span().start,
                value,
            })),
            _ => entries.push(Entry { path: name.get_ref().to_string(), position, value }),
        }
    }
    entries
}

fn is_section(name: &str) -> bool {
    schema::keys().any(|key| key.path.split_once('.').is_some_and(|(section, _)| section == name))
}

/// The range check, done on the number as it is written, so that `-1` and 2^70 are told apart from a wrong type.
fn out_of_range(key: &Key, entry: &Entry<'_>) -> Option<String> {
    let (Valid::Integer(range) | Valid::AutoOrInteger(range)) = &key.valid else { return None };
    let integer = entry.value.get_ref().as_integer()?;
    let in_range = i128::from_str_radix(integer.as_str(), integer.radix())
        .is_ok_and(|value| (i128::from(*range.start())..=i128::from(*range.end())).contains(&value));
    (!in_range).then(|| format!("{} = {} is out of range; valid: {}", key.path, integer, key.valid))
}

fn unknown_table(path: &str) -> String {
    format!("unknown table [{path}]; the only one is [topic_defaults]")
}

fn unknown_key(path: &str) -> String {
    let split = |path: &str| match path.rsplit_once('.') {
        Some((section, name)) => (Some(section.to_owned()), name.to_owned()),
        None => (None, path.to_owned()),
    };
    let (section, name) = split(path);
    // A key in the wrong table is nearest to itself, so names are compared first and whole paths second.
    let distance = |key: &Key| {
        let (_, known) = split(&key.path);
        (strsim::damerau_levenshtein(&known, &name), strsim::damerau_levenshtein(&key.path, path))
    };
    let Some(nearest) = schema::keys().min_by_key(|key| distance(key)) else {
        return format!("unknown key {path}");
    };
    let text = format!("unknown key {path}; the nearest valid key is {} ({})", nearest.path, nearest.valid);
    // With every second letter wrong it is no slip of the finger.
    if distance(nearest).0 * 2 <= name.chars().count() {
        return text;
    }
    let here = schema::keys().map(|key| split(&key.path)).filter(|(of, _)| *of == section).map(|(_, name)| name);
    let here = here.collect::<Vec<_>>().join(", ");
    let place = section.map_or("above all tables".to_owned(), |section| format!("in [{section}]"));
    format!("{text}; {place} there are {here}, which configs/broker.toml explains")
}

/// Serialises a configuration as the TOML that `--check` prints and [`parse`] reads.
pub fn render(config: &Config) -> String {
    toml::to_string(config).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
}
