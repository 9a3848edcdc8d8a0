//! Results on standard output: tables for people, JSON for scripts, colour on a terminal.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

/// Writes `text` and a newline to standard output.
///
/// # Errors
/// What the system says, for example that the reader of a pipe is gone.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Writes `value` as one line of JSON to standard output.
///
/// # Errors
/// What the system says.
pub(crate) fn print_json(value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value).map_err(io::Error::other)?;
    print(&text)
}

/// A table without lines, as wide as its content: columns that `cut` and `awk` can take apart.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(head).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines().enumerate().map(|(place, line)| {
        let line = line.trim_end();
        if place == 0 { bold(line) } else { line.to_owned() }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Text that heads something, for standard output.
pub(crate) fn bold(text: &str) -> String {
    painted(text, "1", is_coloured(&io::stdout()))
}

/// Text that tells of something good, for standard output.
pub(crate) fn green(text: &str) -> String {
    painted(text, "32", is_coloured(&io::stdout()))
}

/// Text that tells of something bad, for standard output.
pub(crate) fn red(text: &str) -> String {
    painted(text, "31", is_coloured(&io::stdout()))
}

/// The head of an error, for standard error.
pub(crate) fn alarm(text: &str) -> String {
    painted(text, "1;31", is_coloured(&io::stderr()))
}

/// Text within the codes of ECMA-48 (SGR), or as it is.
fn painted(text: &str, code: &str, is_coloured: bool) -> String {
    if is_coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Whether colour goes to this stream: a terminal that knows it, unless NO_COLOR is there and not empty (no-color.org).
pub(crate) fn is_coloured(stream: &impl IsTerminal) -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    stream.is_terminal() && !forbidden && !dumb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_terminal_gets_plain_text() {
        let file = tempfile::tempfile().expect("a file");
        assert!(!is_coloured(&file));
        assert_eq!(painted("a", "1", false), "a");
        assert_eq!(painted("a", "1;31", true), "\x1b[1;31ma\x1b[0m");
    }
}
