//! Where a consumer begins: `earliest`, `latest`, an offset, or a point in time.

use std::str::FromStr;

/// What `consume --from` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first record that is still there.
    Earliest,
    /// The end of the log.
    Latest,
    /// The record with this offset.
    Offset(i64),
    /// The first record that is not older than this, in milliseconds since the Unix epoch.
    Time(i64),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return parse_time(time).map(Self::Time);
        }
        match text.parse::<i64>() {
            Ok(offset) if offset >= 0 => Ok(Self::Offset(offset)),
            _ => Err(format!("`{text}` is not earliest, latest, an offset from 0 on, or @TIME")),
        }
    }
}

fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(milliseconds) = text.parse::<i64>() {
        return if milliseconds >= 0 { Ok(milliseconds) } else { Err(format!("@{text} lies before 1970")) };
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(time) if time.as_millisecond() >= 0 => Ok(time.as_millisecond()),
        Ok(_) => Err(format!("@{text} lies before 1970")),
        Err(_) => Err(format!(
            "`{text}` is no time: write milliseconds since 1970, or a date with time and zone such as \
             2025-11-22T14:00:00Z"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let cases = [
            ("earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("0", Start::Offset(0)),
            ("42", Start::Offset(42)),
            ("@0", Start::Time(0)),
            ("@1763820000000", Start::Time(1_763_820_000_000)),
            ("@2025-11-22T14:00:00Z", Start::Time(1_763_820_000_000)),
            ("@2025-11-22T15:00:00.250+01:00", Start::Time(1_763_820_000_250)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "first", "-1", "1.5", "@", "@-1", "@yesterday", "@2025-11-22", "@1969-12-31T23:59:59Z"] {
            assert!(text.parse::<Start>().is_err(), "{text:?}");
        }
    }
}
