//! Where `consume` begins: `earliest`, `latest`, an offset, or a point in time.

use ringmq_client::Start;
use ringmq_wire::{Offset, Timestamp};

/// What `consume --from` says.
///
/// # Errors
/// What the text is instead, and what it could be.
pub(crate) fn parse(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => return Ok(Start::Earliest),
        "latest" => return Ok(Start::Latest),
        _ => {}
    }
    if let Some(time) = text.strip_prefix('@') {
        return parse_time(time).map(|milliseconds| Start::Time(Timestamp::new(milliseconds)));
    }
    match text.parse::<i64>() {
        Ok(offset) if offset >= 0 => Ok(Start::Offset(Offset::new(offset))),
        _ => Err(format!("`{text}` is not earliest, latest, an offset from 0 on, or @TIME")),
    }
}

/// Milliseconds since the Unix epoch.
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
            ("0", Start::Offset(Offset::new(0))),
            ("42", Start::Offset(Offset::new(42))),
            ("@0", Start::Time(Timestamp::new(0))),
            ("@1763820000000", Start::Time(Timestamp::new(1_763_820_000_000))),
            ("@2025-11-22T14:00:00Z", Start::Time(Timestamp::new(1_763_820_000_000))),
            ("@2025-11-22T15:00:00.250+01:00", Start::Time(Timestamp::new(1_763_820_000_250))),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "first", "-1", "1.5", "@", "@-1", "@yesterday", "@2025-11-22", "@1969-12-31T23:59:59Z"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
