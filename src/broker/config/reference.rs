//! `configs/broker.toml`: the file that shows every key, written from the schema.

use super::schema::{self, Config, GIB, KIB, Key, MIB, Valid};

const HEAD: &str = "\
# RingMQ broker: every key, with its default and what is valid.
#
# The broker needs no file at all: these are the values it takes without one. Copy what you want to change,
# and start it with `ringmq serve --config FILE`. Flags of `ringmq serve` go over the file.
# `ringmq serve --check` validates a file and prints what would be in force.
#
# SIGTERM stops the broker cleanly. SIGUSR1 has it log, for each shard, how many requests it has served, how long each
# stage of them took, and which tasks held its core for longer than stall_threshold_ms.
";

const LINE_WIDTH: usize = 110;

/// The text of `configs/broker.toml`.
pub fn render() -> String {
    let defaults = toml::Table::try_from(Config::default()).unwrap_or_default();
    let mut text = HEAD.to_owned();
    let mut section = "";
    for key in schema::keys() {
        let (table, name) = key.path.split_once('.').unwrap_or(("", &*key.path));
        if table != section {
            section = table;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let default = lookup(&defaults, &key.path).map(ToString::to_string).unwrap_or_default();
        text.push('\n');
        let about = key.about.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
        push_comment(&mut text, &about);
        push_comment(&mut text, &format!("Default: {}. Valid: {}.", with_unit(key, &default), valid(key)));
        text.push_str(&format!("{name} = {default}\n"));
    }
    text
}

/// The value at a dotted path.
pub fn lookup<'t>(table: &'t toml::Table, path: &str) -> Option<&'t toml::Value> {
    match path.split_once('.') {
        Some((section, rest)) => lookup(table.get(section)?.as_table()?, rest),
        None => table.get(path),
    }
}

fn push_comment(text: &mut String, comment: &str) {
    let mut line = String::from("#");
    for word in comment.split_whitespace() {
        if line.len() + 1 + word.len() > LINE_WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

fn valid(key: &Key) -> String {
    let bounds = |range: &std::ops::RangeInclusive<u64>| {
        let bound = |value: &u64| with_unit(key, &value.to_string());
        format!("{} to {}", bound(range.start()), bound(range.end()))
    };
    match &key.valid {
        Valid::Integer(range) => bounds(range),
        Valid::AutoOrInteger(range) => format!("\"auto\", or {}", bounds(range)),
        other => other.to_string(),
    }
}

/// A number of bytes also in words: `1048576 (1 MiB)`.
fn with_unit(key: &Key, number: &str) -> String {
    let value = number.parse::<u64>().ok().filter(|_| key.path.contains("bytes"));
    let units = [(1024 * GIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
    let unit = value.and_then(|value| units.into_iter().find(|(size, _)| value >= *size && value % size == 0));
    match (value, unit) {
        (Some(value), Some((size, unit))) => format!("{number} ({} {unit})", value / size),
        _ => number.to_owned(),
    }
}
