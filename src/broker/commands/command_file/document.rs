//! The text of a command file, and where its keys stand.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use toml::de::DeTable;

/// A file, or a line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    file: PathBuf,
    line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file.display()),
            None => write!(f, "{}", self.file.display()),
        }
    }
}

/// A file's text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'t> {
    file: &'t Path,
    text: &'t str,
}

impl<'t> Document<'t> {
    pub(super) fn new(file: &'t Path, text: &'t str) -> Self {
        Self { file, text }
    }

    pub(super) fn text(self) -> &'t str {
        self.text
    }

    pub(super) fn is_json(self) -> bool {
        self.file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
    }

    /// The file as a whole.
    pub(super) fn place(self) -> Place {
        Place { file: self.file.to_owned(), line: None }
    }

    /// The line of a key of `table`, or of one at the top.
    pub(super) fn key(self, table: Option<&str>, key: &str) -> Place {
        let position = if self.is_json() { self.in_json(table, key) } else { self.in_toml(table, key) };
        let before = position.and_then(|position| self.text.get(..position));
        let line = before.map(|before| before.bytes().filter(|byte| *byte == b'\n').count() + 1);
        Place { line, ..self.place() }
    }

    /// The keys at the top; none of a text that cannot be read, which says why when it is parsed as a whole.
    pub(super) fn top_keys(self) -> Vec<String> {
        if self.is_json() {
            let keys = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(self.text).unwrap_or_default();
            return keys.into_keys().collect();
        }
        let Ok(table) = DeTable::parse(self.text) else { return Vec::new() };
        table.get_ref().keys().map(|key| key.get_ref().to_string()).collect()
    }

    fn in_toml(self, table: Option<&str>, key: &str) -> Option<usize> {
        let root = DeTable::parse(self.text).ok()?;
        let root = root.get_ref();
        let keys = match table {
            Some(table) => root.get(table)?.get_ref().as_table()?,
            None => root,
        };
        keys.keys().find(|known| known.get_ref() == key).map(|known| known.span().start)
    }

    /// serde_json tells no positions.
    fn in_json(self, table: Option<&str>, key: &str) -> Option<usize> {
        let from = match table {
            Some(table) => self.in_json(None, table)?,
            None => 0,
        };
        let quoted = serde_json::to_string(key).ok()?;
        let (mut depth, mut at) = (0_usize, from);
        while let Some(byte) = self.text.as_bytes().get(at) {
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.checked_sub(1).filter(|depth| *depth > 0)?,
                b'"' => {
                    let end = at + text_bytes(&self.text[at..]);
                    let is_key = self.text[end..].trim_start().starts_with(':');
                    if depth == 1 && is_key && self.text[at..end] == quoted {
                        return Some(at);
                    }
                    at = end;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        None
    }
}

/// How long the quoted text is that begins here.
fn text_bytes(text: &str) -> usize {
    let mut is_escaped = true;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !is_escaped => return at + 1,
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    text.len()
}
