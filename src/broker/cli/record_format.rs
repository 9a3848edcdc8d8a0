//! How records are printed: one of three fixed forms, or a format string.

use std::str::FromStr;

/// How `consume` prints records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordFormat {
    /// The value's bytes and a newline.
    Text,
    /// One JSON object a line, with key, value, headers, timestamp, partition and offset.
    Json,
    /// The values' bytes, nothing between them.
    Raw,
    /// As a format string says.
    Template(Template),
}

/// A format string, such as `%k\t%v\n`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// One piece of a format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Literal(Vec<u8>),
    /// `%t`: the topic's name.
    Topic,
    /// `%p`: the partition's number.
    Partition,
    /// `%o`: the offset.
    Offset,
    /// `%k`: the key's bytes.
    Key,
    /// `%v`: the value's bytes.
    Value,
    /// `%T`: the timestamp, in milliseconds since 1970.
    Timestamp,
    /// `%h`: the headers as `key=value`, with commas between them.
    Headers,
}

impl Template {
    /// The pieces, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl FromStr for RecordFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "raw" => Ok(Self::Raw),
            // Without a field, every record would look the same: more likely a name that is spelled wrong.
            _ if !text.contains('%') => {
                Err(format!(r"`{text}` is not text, json, raw, or a format string with fields such as '%k\t%v\n'"))
            }
            _ => text.parse().map(Self::Template),
        }
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars();
        while let Some(read) = rest.next() {
            match read {
                '%' => match rest.next() {
                    Some('%') => literal.push(b'%'),
                    letter => {
                        let field = field(letter)?;
                        parts.extend(take_literal(&mut literal));
                        parts.push(field);
                    }
                },
                '\\' => literal.push(escaped(&mut rest)?),
                other => literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        parts.extend(take_literal(&mut literal));
        Ok(Self { parts })
    }
}

/// Text in which `\n`, `\t` and the like stand for bytes, such as a separator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EscapedText(Vec<u8>);

impl EscapedText {
    /// The bytes that it stands for.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for EscapedText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.chars();
        while let Some(read) = rest.next() {
            match read {
                '\\' => bytes.push(escaped(&mut rest)?),
                other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(Self(bytes))
    }
}

/// The bytes since the last field, if any.
fn take_literal(literal: &mut Vec<u8>) -> Option<Part> {
    (!literal.is_empty()).then(|| Part::Literal(std::mem::take(literal)))
}

/// The field that a letter behind `%` stands for.
fn field(letter: Option<char>) -> Result<Part, String> {
    Ok(match letter {
        Some('t') => Part::Topic,
        Some('p') => Part::Partition,
        Some('o') => Part::Offset,
        Some('k') => Part::Key,
        Some('v') => Part::Value,
        Some('T') => Part::Timestamp,
        Some('h') => Part::Headers,
        other => {
            let found = other.map_or_else(|| "% at its end".to_owned(), |letter| format!("%{letter}"));
            return Err(format!("{found} is no field: there are %t %p %o %k %v %T %h, and %% for a % sign"));
        }
    })
}

/// The byte that stands behind a backslash.
fn escaped(rest: &mut std::str::Chars<'_>) -> Result<u8, String> {
    let refused = |found: &str| Err(format!(r"{found} is no escape: there are \n \r \t \0 \\ and \xHH for a byte"));
    match rest.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = rest.by_ref().take(2).collect();
            let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            match u8::from_str_radix(&digits, 16) {
                Ok(byte) if is_hex => Ok(byte),
                _ => refused(&format!(r"\x{digits}")),
            }
        }
        Some(other) => refused(&format!(r"\{other}")),
        None => refused(r"\ at its end"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(bytes: &[u8]) -> Part {
        Part::Literal(bytes.to_vec())
    }

    #[test]
    fn fields_escapes_and_what_stands_between_are_read() {
        let template: Template = r"%t:%p/%o %k=%v %T%h 100%%\n\t\r\0\\\x7f\xff é".parse().expect("valid");
        let expected = [
            Part::Topic,
            literal(b":"),
            Part::Partition,
            literal(b"/"),
            Part::Offset,
            literal(b" "),
            Part::Key,
            literal(b"="),
            Part::Value,
            literal(b" "),
            Part::Timestamp,
            Part::Headers,
            literal(b" 100%\n\t\r\0\\\x7f\xff \xc3\xa9"),
        ];
        assert_eq!(template.parts(), expected);
        assert_eq!("".parse::<Template>().expect("valid").parts(), []);
    }

    #[test]
    fn escapes_stand_for_bytes_elsewhere_too() {
        assert_eq!(r"\t:\x00é".parse::<EscapedText>().expect("valid").as_bytes(), b"\t:\0\xc3\xa9");
        assert!(r"\q".parse::<EscapedText>().expect_err("no escape").starts_with(r"\q is no escape"));
    }

    #[test]
    fn what_is_no_field_or_escape_is_named() {
        for (text, named) in [
            ("%v%q", "%q is no field"),
            ("%v %", "% at its end is no field"),
            (r"%v\q", r"\q is no escape"),
            (r"%v\", r"\ at its end is no escape"),
            (r"%v\x4", r"\x4 is no escape"),
            (r"%v\x+1", r"\x+1 is no escape"),
            (r"%v\xé1", r"\xé1 is no escape"),
            ("jsno", "`jsno` is not text, json, raw"),
        ] {
            let error = text.parse::<RecordFormat>().expect_err(text);
            assert!(error.starts_with(named), "{text}: {error}");
        }
    }
}
