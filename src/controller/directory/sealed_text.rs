//! Small text files that people can read and that nobody can damage unnoticed.
//!
//! ```text
//! ringmq <kind>
//! <key> <value>
//! ...
//! crc32 <8 hex digits of the CRC32 of every byte above>
//! ```

use std::fmt::Write;
use std::str::FromStr;

use crate::excerpt::Excerpt;

/// The longest such file.
pub(super) const BYTES_MAX: usize = 4096;

/// Writes the fields down and seals them.
pub(super) fn seal(kind: &str, fields: &[(&str, &dyn std::fmt::Display)]) -> String {
    let mut text = format!("ringmq {kind}\n");
    for (key, value) in fields {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key} {value}");
    }
    let checksum = crc32fast::hash(text.as_bytes());
    let _ = writeln!(text, "crc32 {checksum:08x}");
    text
}

/// The fields of a sealed text.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<(&'a str, &'a str)>);

/// Checks the seal and takes the text apart. Fields that the reader does not know are its to ignore.
pub(super) fn unseal<'a>(kind: &'static str, bytes: &'a [u8]) -> Result<Fields<'a>, SealError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).ok_or(SealError::NotText)?;
    let sealed = text.strip_suffix('\n').ok_or(SealError::NoSeal)?;
    let (content, last) = sealed.rsplit_once('\n').ok_or(SealError::NoSeal)?;
    let content = &text[..content.len() + 1];
    let stored = last.strip_prefix("crc32 ").ok_or(SealError::NoSeal)?;
    let computed = format!("{:08x}", crc32fast::hash(content.as_bytes()));
    if stored != computed {
        return Err(SealError::Checksum { stored: Excerpt::new(stored), computed });
    }

    let mut lines = content.lines();
    let first = lines.next().unwrap_or_default();
    if first.strip_prefix("ringmq ") != Some(kind) {
        return Err(SealError::Kind { found: Excerpt::new(first), kind });
    }
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for line in lines {
        let (key, value) = line.split_once(' ').ok_or_else(|| SealError::Line { line: Excerpt::new(line) })?;
        if fields.iter().any(|(other, _)| *other == key) {
            return Err(SealError::Twice { key: Excerpt::new(key) });
        }
        fields.push((key, value));
    }
    Ok(Fields(fields))
}

impl Fields<'_> {
    /// The value of a field that must be there.
    pub(super) fn get<T: FromStr>(&self, key: &'static str) -> Result<T, SealError> {
        let (_, value) = self.0.iter().find(|(other, _)| *other == key).ok_or(SealError::Lacking { key })?;
        value.parse().map_err(|_| SealError::Value { key, value: Excerpt::new(value) })
    }
}

/// Why a sealed text cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is longer than any such file.
    #[error("it is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// It is not ASCII.
    #[error("it is not ASCII text")]
    NotText,
    /// The last line is not a checksum: the file was cut, or is something else.
    #[error("its last line is not a checksum")]
    NoSeal,
    /// The text is not the one that was sealed.
    #[error("its checksum is {stored}, and that of its text \"{computed}\"")]
    Checksum {
        /// What the file says.
        stored: Excerpt,
        /// What it should say.
        computed: String,
    },
    /// It is another kind of file.
    #[error("its first line is {found} instead of \"ringmq {kind}\"")]
    Kind {
        /// The first line.
        found: Excerpt,
        /// The kind of file that was looked for.
        kind: &'static str,
    },
    /// A line is not a key and a value.
    #[error("its line {line} is not a key and a value")]
    Line {
        /// The line.
        line: Excerpt,
    },
    /// A key is there twice.
    #[error("its key {key} is there twice")]
    Twice {
        /// The key.
        key: Excerpt,
    },
    /// A key is not there.
    #[error("it has no key \"{key}\"")]
    Lacking {
        /// The key.
        key: &'static str,
    },
    /// A value is not what its key asks for.
    #[error("its key \"{key}\" has the value {value}, which is not valid")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: Excerpt,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_come_back_and_unknown_ones_do_no_harm() {
        let text = seal("format", &[("format_version", &7), ("readable_by", &"0.5.0"), ("colour", &"deep blue")]);
        assert_eq!(text, "ringmq format\nformat_version 7\nreadable_by 0.5.0\ncolour deep blue\ncrc32 34e2fae3\n");
        let fields = unseal("format", text.as_bytes()).unwrap();
        assert_eq!(fields.get::<u32>("format_version"), Ok(7));
        assert_eq!(fields.get::<String>("colour"), Ok("deep blue".to_owned()));
        assert_eq!(fields.get::<u32>("size"), Err(SealError::Lacking { key: "size" }));
        assert!(matches!(fields.get::<u32>("readable_by"), Err(SealError::Value { .. })));
    }

    #[test]
    fn each_kind_of_damage_is_told() {
        let resealed = |content: &str| format!("{content}crc32 {:08x}\n", crc32fast::hash(content.as_bytes()));
        let unseal = |text: &str| unseal("format", text.as_bytes()).unwrap_err();
        assert_eq!(unseal(""), SealError::NoSeal);
        assert_eq!(unseal("ringmq format\n"), SealError::NoSeal);
        assert_eq!(unseal("ringmq format\nsize 1\n"), SealError::NoSeal);
        assert_eq!(unseal("rïngmq"), SealError::NotText);
        assert!(matches!(unseal("ringmq format\nsize 1\ncrc32 00000000\n"), SealError::Checksum { .. }));
        assert!(matches!(unseal(&resealed("ringmq identity\nsize 1\n")), SealError::Kind { .. }));
        assert!(matches!(unseal(&resealed("ringmq format\nsize\n")), SealError::Line { .. }));
        assert!(matches!(unseal(&resealed("ringmq format\nsize 1\nsize 1\n")), SealError::Twice { .. }));
    }

    proptest! {
        #[test]
        fn one_altered_byte_never_goes_unnoticed(at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let good = seal("identity", &[("cluster_id", &"0000"), ("broker_id", &0)]).into_bytes();
            let mut bad = good.clone();
            let at = at.index(bad.len());
            bad[at] = with;
            prop_assert_eq!(unseal("identity", &bad).is_err(), bad != good);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(unseal("format", &bytes).is_err());
        }
    }
}
